//! Recording a batch, by compare-and-set on its attempt.

use std::collections::HashSet;

use dispatch_schemas::{
    ids::{AttemptId, CampaignId},
    states::{DeliveryState, Lane, StopReason},
};
use dispatch_workers::delivery::{Counts, Outcome};
use sqlx::{Row as _, SqliteConnection};

use crate::ledger::{
    Result,
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
    // Almost always a whole batch comes to the same; a batch that does not is written in as many statements as it has
    // kinds of outcome.
    let doubted = doubted_among(conn, campaign, outcomes).await?;
    let mut groups: Vec<(Next<'_>, Vec<Member<'_>>)> = Vec::new();
    for (seq, outcome) in outcomes {
        let next = if doubted.contains(seq) { next_when_doubted(outcome, repeats, now_ms) } else { next(outcome) };
        let provider_id = match outcome {
            Outcome::Accepted { provider_id } => provider_id.as_deref(),
            _ => None,
        };
        let member = Member { seq: *seq, provider_id };
        match groups.iter_mut().find(|(known, _)| *known == next) {
            Some((_, members)) => members.push(member),
            None => groups.push((next, vec![member])),
        }
    }
    let (mut recorded, mut unsent) = (0, 0);
    for (next, members) in &groups {
        let done = write_group(conn, campaign, attempt, next, members, now_ms).await?;
        recorded += done;
        unsent += if next.state == DeliveryState::Ready || next.key == Key::Unused { done } else { 0 };
        moves.left(DeliveryState::Claimed, "", done);
        moves.entered(next.state, next.detail, done);
        if next.state == DeliveryState::Accepted && done != members.len() as u64 {
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

/// What a claimed delivery becomes.
#[derive(Debug, PartialEq, Eq)]
struct Next<'a> {
    state: DeliveryState,
    detail: &'a str,
    next_at_ms: Option<i64>,
    /// Added to the attempts that count.
    attempts: i64,
    key: Key,
    alone: i64,
}

/// How a request of several recipients is repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Repeats {
    /// Whole, under its one key (class A).
    Whole,
    /// Recipient by recipient: each has a key of its own.
    Each,
}

/// How long a delivery waits whose repeat was refused, before anything else is tried.
const REFUSED_REPEAT_WAITS_MS: i64 = 5_000;

/// What becomes of the send key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Key {
    /// It stays as it is.
    Same,
    /// It may have been accepted.
    Doubted,
    /// It was never used.
    Unused,
    /// It was definitely refused: the next try has another, so that a provider that remembers the keys of refused
    /// requests can't make us believe in an acceptance.
    Refused,
}

impl<'a> Next<'a> {
    const fn new(state: DeliveryState, detail: &'a str) -> Self {
        Self { state, detail, next_at_ms: None, attempts: 0, key: Key::Same, alone: 0 }
    }
}

/// One delivery of a group with the same outcome.
struct Member<'a> {
    seq: i64,
    provider_id: Option<&'a str>,
}

fn next(outcome: &Outcome) -> Next<'_> {
    match outcome {
        Outcome::Accepted { .. } => Next { attempts: 1, ..Next::new(DeliveryState::Accepted, "answer") },
        Outcome::Duplicate => {
            tracing::error!("a provider refused a key as used that was never used before; the delivery is failed");
            Next { attempts: 1, key: Key::Refused, ..Next::new(DeliveryState::Failed, "key_collision") }
        }
        Outcome::Failed(code) => {
            Next { attempts: 1, key: Key::Refused, ..Next::new(DeliveryState::Failed, code.as_str()) }
        }
        Outcome::Unsendable(code) => Next { key: Key::Unused, ..Next::new(DeliveryState::Failed, code.as_str()) },
        Outcome::Retry { at_ms, code, counts, alone } => Next {
            next_at_ms: Some(*at_ms),
            attempts: i64::from(*counts == Counts::AsAttempt),
            key: Key::Refused,
            alone: i64::from(*alone),
            ..Next::new(DeliveryState::RetryWait, code.as_str())
        },
        Outcome::Released { alone } => {
            Next { alone: i64::from(*alone), key: Key::Unused, ..Next::new(DeliveryState::Ready, "") }
        }
        Outcome::Unknown { code, look_at_ms } => Next {
            next_at_ms: Some(*look_at_ms),
            attempts: 1,
            key: Key::Doubted,
            ..Next::new(DeliveryState::Unknown, code.as_str())
        },
        Outcome::Erased => Next::new(DeliveryState::Stopped, StopReason::Erased.as_str()),
    }
}

/// The same for a delivery that an earlier attempt with this key may have got accepted. A refusal of the repeat says
/// nothing about that attempt, so the doubt and the key stay.
fn next_when_doubted(outcome: &Outcome, repeats: Repeats, now_ms: i64) -> Next<'_> {
    // A delivery whose request has one key for all can't leave it; with a key of its own it may travel alone.
    let alone = |alone: &bool| i64::from(*alone && repeats == Repeats::Each);
    match outcome {
        Outcome::Duplicate => Next { attempts: 1, ..Next::new(DeliveryState::Accepted, "dup_key") },
        // Even what was not tried now counts, so that asking again comes to an end.
        Outcome::Failed(code) | Outcome::Unsendable(code) => Next {
            next_at_ms: Some(now_ms.saturating_add(REFUSED_REPEAT_WAITS_MS)),
            attempts: 1,
            ..Next::new(DeliveryState::Unknown, code.as_str())
        },
        Outcome::Retry { at_ms, code, counts, alone: wants_alone } => Next {
            next_at_ms: Some(match repeats {
                Repeats::Each => *at_ms,
                Repeats::Whole => (*at_ms).max(now_ms.saturating_add(REFUSED_REPEAT_WAITS_MS)),
            }),
            attempts: i64::from(*counts == Counts::AsAttempt),
            alone: alone(wants_alone),
            ..Next::new(DeliveryState::RetryWait, code.as_str())
        },
        Outcome::Released { alone: wants_alone } => {
            Next { alone: alone(wants_alone), ..Next::new(DeliveryState::Ready, "") }
        }
        Outcome::Erased => Next::new(DeliveryState::UnknownFinal, StopReason::Erased.as_str()),
        Outcome::Accepted { .. } | Outcome::Unknown { .. } => next(outcome),
    }
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
                    first_sent_at_ms = CASE WHEN ?5 IN ('refused', 'unused') THEN NULL ELSE first_sent_at_ms END,
                    alone = max(alone, ?6), updated_at_ms = ?7, provider_id = coalesce(?9, provider_id)
              WHERE campaign_id = ?10 AND seq BETWEEN ?11 AND ?12 AND attempt_id = ?8 AND state = 'claimed'",
        )
    } else {
        // Both parts of the key come from the rows: with the campaign as a constant the whole campaign is scanned.
        sqlx::query(
            "UPDATE delivery SET state = ?1, detail = ?2, next_at_ms = ?3, attempts = attempts + ?4,
                    key_epoch = min(key_epoch + (?5 = 'refused'), 255),
                    doubted = CASE ?5 WHEN 'doubted' THEN 1 WHEN 'refused' THEN 0 ELSE doubted END,
                    first_sent_at_ms = CASE WHEN ?5 IN ('refused', 'unused') THEN NULL ELSE first_sent_at_ms END,
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
    .bind(match next.key {
        Key::Same => "same",
        Key::Doubted => "doubted",
        Key::Unused => "unused",
        Key::Refused => "refused",
    })
    .bind(next.alone)
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

/// Which deliveries an earlier attempt may have got accepted; asked only where it makes a difference.
async fn doubted_among(
    conn: &mut SqliteConnection,
    campaign: CampaignId,
    outcomes: &[(i64, Outcome)],
) -> Result<HashSet<i64>> {
    let asked: Vec<i64> = outcomes
        .iter()
        .filter(|(_, outcome)| !matches!(outcome, Outcome::Accepted { .. } | Outcome::Unknown { .. }))
        .map(|(seq, _)| *seq)
        .collect();
    if asked.is_empty() {
        return Ok(HashSet::new());
    }
    let rows = sqlx::query(
        "SELECT d.seq FROM json_each(?2) j CROSS JOIN delivery d ON d.campaign_id = ?1 AND d.seq = j.value
          WHERE d.doubted = 1",
    )
    .bind(campaign.0)
    .bind(rows::json_numbers(&asked))
    .fetch_all(conn)
    .await?;
    rows.iter().map(|row| Ok(row.try_get(0)?)).collect()
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
