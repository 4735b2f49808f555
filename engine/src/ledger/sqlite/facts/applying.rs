//! Applying reports: each once, in one transaction with what it changes.

use std::collections::{BTreeMap, HashSet};

use dispatch_schemas::{
    facts::Fact,
    ids::{AttemptId, CampaignId},
    states::{DeliveryState, FactKind, Lane},
};
use dispatch_workers::providers::callbacks::EventId;
use sqlx::{AssertSqlSafe, Row as _, SqliteConnection};

use super::{
    super::{claims::record::forget_messages, rows, tally::Moves},
    event_id, json_ids,
};
use crate::ledger::{
    Applied, Orphan, Report, Result,
    facts::{CALLBACK, Gathered, ORPHAN_LOOKS_MS, gathered, proven},
};

pub(super) async fn apply(
    conn: &mut SqliteConnection,
    reports: &[Report],
    orphans: &[Orphan],
    now_ms: i64,
) -> Result<Applied> {
    let ids = json_ids(reports.iter().map(|report| &report.id).chain(orphans.iter().map(|orphan| &orphan.id)))?;
    // Few came before: it is those that are asked for.
    let seen = sqlx::query("SELECT s.id FROM json_each(?) j CROSS JOIN report_seen s ON s.id = unhex(j.value)")
        .bind(&ids)
        .fetch_all(&mut *conn)
        .await?;
    let mut seen: HashSet<EventId> = seen.iter().map(|row| event_id(row.try_get(0)?)).collect::<Result<_>>()?;
    sqlx::query(
        "INSERT INTO report_seen (id, seen_at_ms) SELECT unhex(value), ?2 FROM json_each(?1) WHERE true
         ON CONFLICT DO NOTHING",
    )
    .bind(&ids)
    .bind(now_ms)
    .execute(&mut *conn)
    .await?;
    // A batch may hold a report twice.
    let fresh: Vec<&Report> = reports.iter().filter(|report| seen.insert(report.id)).collect();
    add(conn, fresh.iter().copied(), now_ms).await?;
    let kept: Vec<&Orphan> = orphans.iter().filter(|orphan| seen.insert(orphan.id)).collect();
    keep(conn, &kept).await?;
    let (applied, orphaned) = (fresh.len() as u64, kept.len() as u64);
    Ok(Applied { applied, orphans: orphaned, duplicates: (reports.len() + orphans.len()) as u64 - applied - orphaned })
}

/// Adds the facts of reports, and T13 where one proves it.
pub(super) async fn add<'a>(
    conn: &mut SqliteConnection,
    reports: impl Iterator<Item = &'a Report> + Clone,
    now_ms: i64,
) -> Result<()> {
    let first = write(conn, &gathered(reports.clone())).await?;
    let tally: Vec<_> =
        first.iter().map(|((campaign, kind), deliveries)| (campaign.0, kind.as_str(), deliveries)).collect();
    sqlx::query(
        "INSERT INTO fact_tally (campaign_id, kind, deliveries)
         SELECT value ->> 0, value ->> 1, value ->> 2 FROM json_each(?) WHERE true
         ON CONFLICT (campaign_id, kind) DO UPDATE SET deliveries = deliveries + excluded.deliveries",
    )
    .bind(rows::to_json(&tally)?)
    .execute(&mut *conn)
    .await?;
    for (campaign, deliveries) in proven(reports) {
        accept(conn, campaign, &deliveries, now_ms).await?;
    }
    Ok(())
}

/// Merges facts with those that are there; returns how many deliveries had none of a kind before.
async fn write(conn: &mut SqliteConnection, facts: &Gathered) -> Result<BTreeMap<(CampaignId, FactKind), u64>> {
    let mut groups: BTreeMap<(CampaignId, FactKind), Vec<(i64, Fact)>> = BTreeMap::new();
    for ((campaign, seq, kind), fact) in facts {
        groups.entry((*campaign, *kind)).or_default().push((*seq, *fact));
    }
    let mut first = BTreeMap::new();
    for ((campaign, kind), of_group) in groups {
        // Few have one of the same kind before: it is those that are asked for.
        let seqs: Vec<i64> = of_group.iter().map(|(seq, _)| *seq).collect();
        let before: i64 = sqlx::query(
            "SELECT count(*) FROM json_each(?3) j
                CROSS JOIN fact f ON f.campaign_id = ?1 AND f.seq = j.value AND f.kind = ?2",
        )
        .bind(campaign.0)
        .bind(kind.as_str())
        .bind(rows::json_numbers(&seqs))
        .fetch_one(&mut *conn)
        .await?
        .try_get(0)?;
        let base_ms = of_group.iter().map(|(_, fact)| fact.first_at_ms).min().unwrap_or(0);
        let (mut packed, mut others) = (Vec::with_capacity(of_group.len()), Vec::new());
        for (seq, fact) in &of_group {
            match pack(*seq, fact, base_ms) {
                Some(number) => packed.push(number),
                None => others.push((campaign.0, seq, kind.as_str(), fact.first_at_ms, fact.last_at_ms, fact.reports)),
            }
        }
        sqlx::query(AssertSqlSafe(format!(
            "INSERT INTO fact (campaign_id, seq, kind, first_at_ms, last_at_ms, reports)
             SELECT ?1, value >> {TIME_BITS}, ?2, ?3 + (value & {TIME_MAX}), ?3 + (value & {TIME_MAX}), 1
               FROM json_each(?4) WHERE true {MERGED}"
        )))
        .bind(campaign.0)
        .bind(kind.as_str())
        .bind(base_ms)
        .bind(rows::json_numbers(&packed))
        .execute(&mut *conn)
        .await?;
        if !others.is_empty() {
            sqlx::query(AssertSqlSafe(format!(
                "INSERT INTO fact (campaign_id, seq, kind, first_at_ms, last_at_ms, reports)
                 SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4, value ->> 5
                   FROM json_each(?) WHERE true {MERGED}"
            )))
            .bind(rows::to_json(&others)?)
            .execute(&mut *conn)
            .await?;
        }
        first.insert((campaign, kind), (seqs.len() as u64).saturating_sub(u64::try_from(before).unwrap_or(0)));
    }
    Ok(first)
}

const MERGED: &str = "ON CONFLICT (campaign_id, seq, kind) DO UPDATE SET
    first_at_ms = min(first_at_ms, excluded.first_at_ms), last_at_ms = max(last_at_ms, excluded.last_at_ms),
    reports = reports + excluded.reports";

/// Bits of a packed fact that say when it was reported, milliseconds after a base.
const TIME_BITS: u32 = 21;
const TIME_MAX: i64 = (1 << TIME_BITS) - 1;

/// What was reported once, and soon after the base, as one number: taking a row's array of JSON apart costs more than
/// storing the row.
fn pack(seq: i64, fact: &Fact, base_ms: i64) -> Option<i64> {
    let after_ms = fact.first_at_ms.checked_sub(base_ms)?;
    let is_plain = fact.reports == 1 && fact.first_at_ms == fact.last_at_ms && (0..=TIME_MAX).contains(&after_ms);
    (is_plain && (0..=i64::MAX >> TIME_BITS).contains(&seq)).then_some((seq << TIME_BITS) | after_ms)
}

/// T13: the provider's report proves that it took them over, whatever we thought.
async fn accept(
    conn: &mut SqliteConnection,
    campaign: CampaignId,
    deliveries: &BTreeMap<i64, Option<&str>>,
    now_ms: i64,
) -> Result<()> {
    let ids: Vec<_> = deliveries.iter().collect();
    let found = sqlx::query(
        "SELECT d.seq, d.state, d.detail, d.attempt_id, c.lane
           FROM json_each(?2) j CROSS JOIN campaign c ON c.id = ?1
                CROSS JOIN delivery d ON d.campaign_id = ?1 AND d.seq = j.value ->> 0
          WHERE d.state <> 'accepted' AND NOT (d.state = 'stopped' AND d.attempt_id IS NULL)",
    )
    .bind(campaign.0)
    .bind(rows::to_json(&ids)?)
    .fetch_all(&mut *conn)
    .await?;
    let Some(one) = found.first() else { return Ok(()) };
    let lane: Lane = rows::word(one, "lane")?;
    let (mut moves, mut seqs) = (Moves::default(), Vec::with_capacity(found.len()));
    let (mut settled, mut ended): (u64, BTreeMap<AttemptId, i64>) = (0, BTreeMap::new());
    for row in &found {
        let (state, detail): (DeliveryState, &str) = (rows::word(row, "state")?, row.try_get("detail")?);
        seqs.push(row.try_get::<i64, _>("seq")?);
        moves.left(state, detail, 1);
        moves.entered(DeliveryState::Accepted, "", 1);
        match (state, row.try_get::<Option<i64>, _>("attempt_id")?) {
            (DeliveryState::Claimed, Some(attempt)) => *ended.entry(AttemptId(attempt)).or_default() += 1,
            (DeliveryState::Unknown | DeliveryState::UnknownFinal, _) => settled += 1,
            _ => {}
        }
    }
    let written: Vec<_> = seqs.iter().map(|seq| (campaign.0, seq, deliveries.get(seq).copied().flatten())).collect();
    sqlx::query(
        "UPDATE delivery SET state = 'accepted', detail = ?2, next_at_ms = NULL,
                provider_id = coalesce(provider_id, j.value ->> 2), updated_at_ms = ?3
           FROM json_each(?1) j WHERE delivery.campaign_id = j.value ->> 0 AND delivery.seq = j.value ->> 1",
    )
    .bind(rows::to_json(&written)?)
    .bind(CALLBACK)
    .bind(now_ms)
    .execute(&mut *conn)
    .await?;
    if lane == Lane::Transactional {
        forget_messages(conn, campaign, &seqs).await?;
    }
    let ended: Vec<_> = ended.iter().map(|(attempt, deliveries)| (attempt.0, deliveries)).collect();
    // With the last of its deliveries an attempt has ended.
    sqlx::query(
        "UPDATE attempt SET open = open - (j.value ->> 1),
                ended_at_ms = CASE WHEN open <= j.value ->> 1 THEN ?2 END
           FROM json_each(?1) j WHERE attempt.id = j.value ->> 0 AND attempt.ended_at_ms IS NULL",
    )
    .bind(rows::to_json(&ended)?)
    .bind(now_ms)
    .execute(&mut *conn)
    .await?;
    metrics::counter!("dispatch_unknown_settled_total", "how" => CALLBACK).increment(settled);
    moves.write(campaign, conn).await
}

async fn keep(conn: &mut SqliteConnection, orphans: &[&Orphan]) -> Result<()> {
    let hex = |bytes: &[u8; 16]| rows::hex(bytes);
    let written = orphans
        .iter()
        .map(|orphan| {
            serde_json::json!([
                hex(&orphan.id),
                orphan.account,
                orphan.kind,
                orphan.at_ms,
                i64::from(orphan.proves_acceptance),
                orphan.traces.key.map(|key| hex(&key.0)),
                orphan.traces.request_key.map(|key| hex(&key.0)),
                orphan.traces.provider_id,
                orphan.address.as_ref().map(hex),
                orphan.arrived_at_ms,
                orphan.arrived_at_ms.saturating_add(ORPHAN_LOOKS_MS[0]),
            ])
        })
        .collect::<Vec<_>>();
    sqlx::query(
        "INSERT INTO orphan (id, account, kind, at_ms, proves_acceptance, send_key, request_key, provider_id,
                             address_hash, arrived_at_ms, look_at_ms)
         SELECT unhex(value ->> 0), value ->> 1, value ->> 2, value ->> 3, value ->> 4, unhex(value ->> 5),
                unhex(value ->> 6), value ->> 7, unhex(value ->> 8), value ->> 9, value ->> 10
           FROM json_each(?) WHERE true ON CONFLICT DO NOTHING",
    )
    .bind(rows::to_json(&written)?)
    .execute(conn)
    .await?;
    Ok(())
}
