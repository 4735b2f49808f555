//! Recording a batch, by compare-and-set on its attempt.

use std::collections::HashMap;

use dispatch_schemas::{
    ids::{AttemptId, CampaignId},
    states::{DeliveryState, Lane},
};
use dispatch_workers::delivery::Outcome;
use sqlx::{Row as _, SqliteConnection};

use crate::ledger::{
    Result,
    outcomes::{Earlier, Group, Member, Next, Repeats, grouped, to_be_asked_for_earlier},
    sqlite::{rows, tally::Moves},
};

/// T6 to T9, T21 and T13, by compare-and-set on the attempt.
pub(super) async fn record_batch(
    conn: &mut SqliteConnection,
    campaign: CampaignId,
    (lane, repeats): (Lane, Repeats),
    attempt: AttemptId,
    outcomes: &[(i64, Outcome)],
    now_ms: i64,
) -> Result<()> {
    let mut moves = Moves::default();
    let earlier = earlier_of(conn, campaign, outcomes).await?;
    let (mut recorded, mut unsent) = (0, 0);
    for Group { next, members } in &grouped(outcomes, &earlier, repeats, now_ms) {
        let done = write_group(conn, campaign, attempt, next, members, now_ms).await?;
        recorded += done;
        unsent += if next.is_unsent() { done } else { 0 };
        moves.left(DeliveryState::Claimed, "", done);
        moves.entered(next.state, next.detail, done);
        if next.proves_late() && done != members.len() as u64 {
            // Some were given up meanwhile: what the provider accepted is accepted, whatever we thought.
            for member in members {
                late(conn, campaign, member, now_ms, &mut moves).await?;
            }
        }
    }
    if lane == Lane::Transactional {
        let seqs: Vec<i64> = outcomes.iter().map(|(seq, _)| *seq).collect();
        forget_messages(conn, campaign, &seqs).await?;
    }
    close_attempt(conn, attempt, (recorded, unsent), now_ms).await?;
    moves.write(campaign, conn).await
}

async fn write_group(
    conn: &mut SqliteConnection,
    campaign: CampaignId,
    attempt: AttemptId,
    next: &Next<'_>,
    members: &[Member<'_>],
    now_ms: i64,
) -> Result<u64> {
    let (Some(first), Some(last)) = (members.first(), members.last()) else { return Ok(0) };
    let is_range = last.seq - first.seq + 1 == i64::try_from(members.len()).unwrap_or(i64::MAX)
        && members.is_sorted_by_key(|member| member.seq)
        && members.iter().all(|member| member.provider_id == first.provider_id);
    let query = if is_range {
        sqlx::query(
            "UPDATE delivery SET state = ?1, detail = ?2, next_at_ms = ?3, attempts = attempts + ?4,
                    key_epoch = min(key_epoch + (?5 = 'refused'), 255),
                    doubted = CASE ?5 WHEN 'doubted' THEN 1 WHEN 'refused' THEN 0 ELSE doubted END,
                    duplicate_proves = CASE ?5 WHEN 'doubted' THEN max(duplicate_proves, NOT doubted)
                                               WHEN 'refused' THEN 0 WHEN 'repeat_refused' THEN 0
                                               ELSE duplicate_proves END,
                    first_sent_at_ms = CASE WHEN ?5 = 'refused' OR ?5 = 'unused' AND NOT duplicate_proves THEN NULL
                                            ELSE first_sent_at_ms END,
                    alone = max(alone, ?6), updated_at_ms = ?7, provider_id = coalesce(?9, provider_id)
              WHERE campaign_id = ?10 AND seq BETWEEN ?11 AND ?12 AND attempt_id = ?8 AND state = 'claimed'",
        )
    } else {
        // Both parts of the key come from the rows: with the campaign as a constant the whole campaign is scanned.
        sqlx::query(
            "UPDATE delivery SET state = ?1, detail = ?2, next_at_ms = ?3, attempts = attempts + ?4,
                    key_epoch = min(key_epoch + (?5 = 'refused'), 255),
                    doubted = CASE ?5 WHEN 'doubted' THEN 1 WHEN 'refused' THEN 0 ELSE doubted END,
                    duplicate_proves = CASE ?5 WHEN 'doubted' THEN max(duplicate_proves, NOT doubted)
                                               WHEN 'refused' THEN 0 WHEN 'repeat_refused' THEN 0
                                               ELSE duplicate_proves END,
                    first_sent_at_ms = CASE WHEN ?5 = 'refused' OR ?5 = 'unused' AND NOT duplicate_proves THEN NULL
                                            ELSE first_sent_at_ms END,
                    alone = max(alone, ?6), updated_at_ms = ?7, provider_id = coalesce(j.value ->> 2, provider_id)
               FROM json_each(?9) j
              WHERE delivery.campaign_id = j.value ->> 0 AND delivery.seq = j.value ->> 1
                AND delivery.attempt_id = ?8 AND delivery.state = 'claimed'",
        )
    }
    .bind(next.state.as_str())
    .bind(next.detail)
    .bind(next.next_at_ms)
    .bind(next.attempts)
    .bind(next.key.as_str())
    .bind(i64::from(next.alone))
    .bind(now_ms)
    .bind(attempt.0);
    let query = if is_range {
        query.bind(first.provider_id).bind(campaign.0).bind(first.seq).bind(last.seq)
    } else {
        let rows: Vec<_> = members.iter().map(|member| (campaign.0, member.seq, member.provider_id)).collect();
        query.bind(rows::to_json(&rows)?)
    };
    Ok(query.execute(conn).await?.rows_affected())
}

/// The variables of single messages are not kept past their end.
pub(in crate::ledger::sqlite) async fn forget_messages(
    conn: &mut SqliteConnection,
    campaign: CampaignId,
    seqs: &[i64],
) -> Result<()> {
    sqlx::query(
        "DELETE FROM message WHERE (campaign_id, seq) IN (
             SELECT d.campaign_id, d.seq FROM json_each(?2) j CROSS JOIN delivery d
                 ON d.campaign_id = ?1 AND d.seq = j.value
              WHERE d.state IN ('accepted', 'failed', 'expired', 'stopped', 'unknown_final'))",
    )
    .bind(campaign.0)
    .bind(rows::json_numbers(seqs))
    .execute(conn)
    .await?;
    Ok(())
}

/// Takes recorded deliveries off an attempt; with the last one it has ended.
async fn close_attempt(
    conn: &mut SqliteConnection,
    attempt: AttemptId,
    (recorded, unsent): (u64, u64),
    now_ms: i64,
) -> Result<()> {
    // What was not sent does not count in the day's limit either.
    sqlx::query(
        "UPDATE attempt SET open = open - ?2, deliveries = deliveries - ?4,
                ended_at_ms = CASE WHEN open <= ?2 THEN ?3 END
          WHERE id = ?1 AND ended_at_ms IS NULL",
    )
    .bind(attempt.0)
    .bind(i64::try_from(recorded).unwrap_or(i64::MAX))
    .bind(now_ms)
    .bind(i64::try_from(unsent).unwrap_or(i64::MAX))
    .execute(conn)
    .await?;
    Ok(())
}

/// What is known of earlier attempts, where there is anything; asked only where it makes a difference.
async fn earlier_of(
    conn: &mut SqliteConnection,
    campaign: CampaignId,
    outcomes: &[(i64, Outcome)],
) -> Result<HashMap<i64, Earlier>> {
    let asked = to_be_asked_for_earlier(outcomes);
    if asked.is_empty() {
        return Ok(HashMap::new());
    }
    let rows = sqlx::query(
        "SELECT d.seq, d.doubted, d.duplicate_proves
           FROM json_each(?2) j CROSS JOIN delivery d ON d.campaign_id = ?1 AND d.seq = j.value
          WHERE d.doubted = 1 OR d.duplicate_proves = 1",
    )
    .bind(campaign.0)
    .bind(rows::json_numbers(&asked))
    .fetch_all(conn)
    .await?;
    rows.iter()
        .map(|row| {
            let is = |column| Ok::<_, sqlx::Error>(row.try_get::<i64, _>(column)? != 0);
            let earlier = Earlier { doubted: is("doubted")?, duplicate_proves: is("duplicate_proves")? };
            Ok((row.try_get("seq")?, earlier))
        })
        .collect()
}

/// T13: an acceptance that comes after we gave the attempt up. Proof beats everything.
async fn late(
    conn: &mut SqliteConnection,
    campaign: CampaignId,
    member: &Member<'_>,
    now_ms: i64,
    moves: &mut Moves,
) -> Result<()> {
    let row =
        sqlx::query("SELECT state, detail FROM delivery WHERE campaign_id = ? AND seq = ? AND state <> 'accepted'")
            .bind(campaign.0)
            .bind(member.seq)
            .fetch_optional(&mut *conn)
            .await?;
    let Some(row) = row else { return Ok(()) };
    let (state, detail): (DeliveryState, String) = (rows::word(&row, "state")?, row.try_get("detail")?);
    sqlx::query(
        "UPDATE delivery SET state = 'accepted', detail = 'late_answer', next_at_ms = NULL,
                provider_id = coalesce(?3, provider_id), updated_at_ms = ?4
          WHERE campaign_id = ?1 AND seq = ?2",
    )
    .bind(campaign.0)
    .bind(member.seq)
    .bind(member.provider_id)
    .bind(now_ms)
    .execute(conn)
    .await?;
    moves.left(state, &detail, 1);
    moves.entered(DeliveryState::Accepted, "", 1);
    metrics::counter!("dispatch_unknown_settled_total", "how" => "late_answer").increment(1);
    Ok(())
}
