//! Applying reports: each once, in one transaction with what it changes.
//!
//! Rows are locked in the order reports, facts, deliveries, attempts, counts, and among themselves by their keys, so
//! that processes that apply side by side, and workers that record, cannot wait for each other in a circle.

use std::collections::{BTreeMap, HashSet};

use dispatch_schemas::{
    ids::CampaignId,
    states::{DeliveryState, FactKind, Lane},
};
use dispatch_workers::providers::callbacks::EventId;
use sqlx::{AssertSqlSafe, PgConnection, Row as _};

use super::{
    super::{
        PostgresLedger,
        claims::record::forget_messages,
        deliveries::{Kept, Numbers, among, beside},
        rows,
        tally::{Moves, SHARDS},
    },
    bytes, event_id,
};
use crate::ledger::{
    Applied, Orphan, Report, Result,
    facts::{CALLBACK, Gathered, ORPHAN_LOOKS_MS, gathered, proven},
};

/// Marks all as seen; returns those that were not.
pub(super) async fn see(
    conn: &mut PgConnection,
    reports: &[Report],
    orphans: &[Orphan],
    now_ms: i64,
) -> Result<HashSet<EventId>> {
    let mut ids: Vec<&EventId> =
        reports.iter().map(|report| &report.id).chain(orphans.iter().map(|orphan| &orphan.id)).collect();
    ids.sort_unstable();
    ids.dedup();
    let rows = sqlx::query(
        "INSERT INTO report_seen (id, seen_at_ms) SELECT id, $2 FROM unnest($1::bytea[]) AS t (id)
         ON CONFLICT DO NOTHING RETURNING id",
    )
    .bind(bytes(ids.into_iter()))
    .bind(now_ms)
    .fetch_all(conn)
    .await?;
    rows.iter().map(|row| event_id(row.try_get(0)?)).collect()
}

impl PostgresLedger {
    pub(super) async fn apply_new(
        &self,
        conn: &mut PgConnection,
        (reports, orphans): (&[Report], &[Orphan]),
        mut new: HashSet<EventId>,
        now_ms: i64,
    ) -> Result<Applied> {
        // Taken out as it is applied: a batch may hold a report twice.
        let fresh: Vec<&Report> = reports.iter().filter(|report| new.remove(&report.id)).collect();
        let kept: Vec<&Orphan> = orphans.iter().filter(|orphan| new.remove(&orphan.id)).collect();
        keep(conn, &kept).await?;
        self.add(conn, fresh.iter().copied(), now_ms).await?;
        let (applied, orphaned) = (fresh.len() as u64, kept.len() as u64);
        let all = (reports.len() + orphans.len()) as u64;
        Ok(Applied { applied, orphans: orphaned, duplicates: all - applied - orphaned })
    }

    /// Adds the facts of reports, and T13 where one proves it.
    pub(super) async fn add<'a>(
        &self,
        conn: &mut PgConnection,
        reports: impl Iterator<Item = &'a Report> + Clone,
        now_ms: i64,
    ) -> Result<()> {
        let facts = gathered(reports.clone());
        if facts.is_empty() {
            return Ok(());
        }
        let first = write(conn, &facts).await?;
        for (campaign, deliveries) in proven(reports) {
            let kept = self.kept(campaign).await?;
            accept(conn, kept, &deliveries, now_ms).await?;
        }
        count(conn, &first).await
    }
}

/// Merges facts with those that are there; returns how many deliveries had none of a kind before.
async fn write(conn: &mut PgConnection, facts: &Gathered) -> Result<BTreeMap<(CampaignId, FactKind), i64>> {
    let (mut campaigns, mut seqs, mut kinds) = (Vec::new(), Vec::new(), Vec::new());
    let (mut firsts, mut lasts, mut reports) = (Vec::new(), Vec::new(), Vec::new());
    for ((campaign, seq, kind), fact) in facts {
        campaigns.push(campaign.0);
        seqs.push(*seq);
        kinds.push(kind.as_str());
        firsts.push(fact.first_at_ms);
        lasts.push(fact.last_at_ms);
        reports.push(i64::try_from(fact.reports).unwrap_or(i64::MAX));
    }
    let rows = sqlx::query(
        "INSERT INTO fact (month, campaign_id, seq, tenant_id, kind, first_at_ms, last_at_ms, reports)
         SELECT c.month, f.campaign_id, f.seq, c.tenant_id, f.kind, f.first_at_ms, f.last_at_ms, f.reports
           FROM unnest($1::bigint[], $2::bigint[], $3::text[], $4::bigint[], $5::bigint[], $6::bigint[])
                f(campaign_id, seq, kind, first_at_ms, last_at_ms, reports)
                JOIN campaign c ON c.id = f.campaign_id
          ORDER BY f.campaign_id, f.seq, f.kind COLLATE \"C\"
         ON CONFLICT (month, campaign_id, seq, kind) DO UPDATE
            SET first_at_ms = least(fact.first_at_ms, excluded.first_at_ms),
                last_at_ms = greatest(fact.last_at_ms, excluded.last_at_ms),
                reports = fact.reports + excluded.reports
         RETURNING campaign_id, seq, kind, reports",
    )
    .bind(campaigns)
    .bind(seqs)
    .bind(kinds)
    .bind(firsts)
    .bind(lasts)
    .bind(reports)
    .fetch_all(conn)
    .await?;
    let mut first = BTreeMap::new();
    for row in &rows {
        let (campaign, kind) = (CampaignId(row.try_get("campaign_id")?), rows::word(row, "kind")?);
        let added = facts.get(&(campaign, row.try_get("seq")?, kind)).map_or(0, |fact| fact.reports);
        // One that was there before has more.
        if rows::count(row, "reports")? == added {
            *first.entry((campaign, kind)).or_default() += 1;
        }
    }
    Ok(first)
}

/// T13: the provider's report proves that it took them over, whatever we thought.
async fn accept(
    conn: &mut PgConnection,
    kept: Kept,
    deliveries: &BTreeMap<i64, Option<&str>>,
    now_ms: i64,
) -> Result<()> {
    let asked: Vec<i64> = deliveries.keys().copied().collect();
    let sql = format!(
        "SELECT d.seq, d.state, d.detail, d.attempt_id, c.lane FROM delivery d JOIN campaign c ON c.id = d.campaign_id
          WHERE d.month = $1 AND d.campaign_id = $2 AND {}
            AND d.state <> 'accepted' AND NOT (d.state = 'stopped' AND d.attempt_id IS NULL)
          ORDER BY d.seq FOR UPDATE OF d",
        among("d.seq", 3)
    );
    let found = sqlx::query(AssertSqlSafe(sql))
        .bind(kept.month)
        .bind(kept.campaign.0)
        .bind(&asked)
        .fetch_all(&mut *conn)
        .await?;
    let Some(one) = found.first() else { return Ok(()) };
    let lane: Lane = rows::word(one, "lane")?;
    let (mut moves, mut seqs) = (Moves::default(), Vec::with_capacity(found.len()));
    let (mut settled, mut ended): (u64, BTreeMap<i64, i64>) = (0, BTreeMap::new());
    for row in &found {
        let state: DeliveryState = rows::word(row, "state")?;
        seqs.push(row.try_get::<i64, _>("seq")?);
        moves.left(state, row.try_get("detail")?, 1);
        moves.entered(DeliveryState::Accepted, "", 1);
        match (state, row.try_get::<Option<i64>, _>("attempt_id")?) {
            (DeliveryState::Claimed, Some(attempt)) => *ended.entry(attempt).or_default() += 1,
            (DeliveryState::Unknown | DeliveryState::UnknownFinal, _) => settled += 1,
            _ => {}
        }
    }
    let ids: Vec<Option<&str>> = seqs.iter().map(|seq| deliveries.get(seq).copied().flatten()).collect();
    let numbers = Numbers::of(&seqs);
    let sql = format!(
        "WITH waited AS (DELETE FROM waiting WHERE campaign_id = $2 AND seq = ANY($3::bigint[]))
         UPDATE delivery d SET state = 'accepted', detail = $5, next_at_ms = NULL,
                provider_id = coalesce(d.provider_id, {}), updated_at_ms = $6
          WHERE d.month = $1 AND d.campaign_id = $2 AND {}",
        beside("d.seq", 3, "$4::text[]"),
        numbers.condition("d.seq", 7)
    );
    let query = sqlx::query(AssertSqlSafe(sql))
        .bind(kept.month)
        .bind(kept.campaign.0)
        .bind(&seqs)
        .bind(ids)
        .bind(CALLBACK)
        .bind(now_ms);
    numbers.bind(query).execute(&mut *conn).await?;
    if lane == Lane::Transactional {
        forget_messages(conn, kept, &seqs).await?;
    }
    let (attempts, counts): (Vec<i64>, Vec<i64>) = ended.into_iter().unzip();
    // With the last of its deliveries an attempt has ended. Found by its id: said so that the index of what is open is not
    // taken for it.
    sqlx::query(
        "UPDATE attempt a SET open = a.open - e.deliveries,
                ended_at_ms = CASE WHEN a.open <= e.deliveries THEN $3::bigint END
           FROM unnest($1::bigint[], $2::bigint[]) e(id, deliveries)
          WHERE a.id = e.id AND coalesce(a.ended_at_ms, 0) = 0",
    )
    .bind(attempts)
    .bind(counts)
    .bind(now_ms)
    .execute(&mut *conn)
    .await?;
    metrics::counter!("dispatch_unknown_settled_total", "how" => CALLBACK).increment(settled);
    moves.write(kept.campaign, conn).await
}

/// Adds to the counts of facts: the last rows of its transaction, so that they are locked for a moment only.
async fn count(conn: &mut PgConnection, first: &BTreeMap<(CampaignId, FactKind), i64>) -> Result<()> {
    let (mut campaigns, mut kinds, mut deliveries) = (Vec::new(), Vec::new(), Vec::new());
    for ((campaign, kind), count) in first {
        campaigns.push(campaign.0);
        kinds.push(kind.as_str());
        deliveries.push(*count);
    }
    sqlx::query(
        "INSERT INTO fact_tally (campaign_id, tenant_id, shard, kind, deliveries)
         SELECT c.id, c.tenant_id, pg_backend_pid() % $4, m.kind, m.deliveries
           FROM unnest($1::bigint[], $2::text[], $3::bigint[]) m(campaign_id, kind, deliveries)
                JOIN campaign c ON c.id = m.campaign_id ORDER BY c.id, m.kind COLLATE \"C\"
         ON CONFLICT (campaign_id, shard, kind) DO UPDATE SET deliveries = fact_tally.deliveries + excluded.deliveries",
    )
    .bind(campaigns)
    .bind(kinds)
    .bind(deliveries)
    .bind(SHARDS)
    .execute(conn)
    .await?;
    Ok(())
}

async fn keep(conn: &mut PgConnection, orphans: &[&Orphan]) -> Result<()> {
    if orphans.is_empty() {
        return Ok(());
    }
    let column = |of: fn(&Orphan) -> Option<Vec<u8>>| orphans.iter().map(|orphan| of(orphan)).collect::<Vec<_>>();
    sqlx::query(
        "INSERT INTO orphan (id, account, kind, at_ms, proves_acceptance, send_key, request_key, provider_id,
                             address_hash, arrived_at_ms, look_at_ms)
         SELECT *, o.arrived_at_ms + $11
           FROM unnest($1::bytea[], $2::text[], $3::text[], $4::bigint[], $5::boolean[], $6::bytea[], $7::bytea[],
                       $8::text[], $9::bytea[], $10::bigint[])
                o(id, account, kind, at_ms, proves_acceptance, send_key, request_key, provider_id, address_hash,
                  arrived_at_ms)
         ON CONFLICT DO NOTHING",
    )
    .bind(bytes(orphans.iter().map(|orphan| &orphan.id)))
    .bind(orphans.iter().map(|orphan| orphan.account.as_str()).collect::<Vec<_>>())
    .bind(orphans.iter().map(|orphan| orphan.kind.as_str()).collect::<Vec<_>>())
    .bind(orphans.iter().map(|orphan| orphan.at_ms).collect::<Vec<_>>())
    .bind(orphans.iter().map(|orphan| orphan.proves_acceptance).collect::<Vec<_>>())
    .bind(column(|orphan| orphan.traces.key.map(|key| key.0.to_vec())))
    .bind(column(|orphan| orphan.traces.request_key.map(|key| key.0.to_vec())))
    .bind(orphans.iter().map(|orphan| orphan.traces.provider_id.as_deref()).collect::<Vec<_>>())
    .bind(column(|orphan| orphan.address.map(|hash| hash.to_vec())))
    .bind(orphans.iter().map(|orphan| orphan.arrived_at_ms).collect::<Vec<_>>())
    .bind(ORPHAN_LOOKS_MS[0])
    .execute(conn)
    .await?;
    Ok(())
}
