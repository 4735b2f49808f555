//! What providers report: matching, applying, forgetting. Each is a statement for a whole batch.

use std::collections::{BTreeMap, HashMap, HashSet};

use async_trait::async_trait;
use dispatch_schemas::{
    facts::{Fact, Facts},
    ids::{AttemptId, CampaignId, TenantId},
    states::{DeliveryState, Lane},
};
use dispatch_workers::{
    message::SendKey,
    providers::callbacks::{EventId, Traces},
    sealing::AddressHash,
};
use sqlx::{Row as _, SqliteConnection, SqlitePool, sqlite::SqliteRow};

use super::{SqliteLedger, claims::record::forget_messages, rows, tally::Moves};
use crate::ledger::{
    Applied, FactBook, LedgerError, Orphan, Report, Reported, Result, Revisited,
    facts::{CALLBACK, FORGOTTEN_MAX, ORPHAN_LOOKS_MS, gathered, proven},
};

/// The columns a delivery is matched by; `k` is its contact, `c` its campaign.
const REPORTED: &str = "c.tenant_id, c.channel, d.campaign_id, d.seq, d.provider_id,
    CASE c.channel WHEN 'email' THEN k.email_hash ELSE k.phone_hash END AS address_hash";

#[async_trait]
impl FactBook for SqliteLedger {
    async fn unseen(&self, ids: &[EventId]) -> Result<HashSet<EventId>> {
        let seen = sqlx::query("SELECT s.id FROM json_each(?) j CROSS JOIN report_seen s ON s.id = unhex(j.value)")
            .bind(json_ids(ids.iter())?)
            .fetch_all(&self.readers)
            .await?;
        let mut unseen: HashSet<EventId> = ids.iter().copied().collect();
        for row in &seen {
            unseen.remove(&event_id(row.try_get(0)?)?);
        }
        Ok(unseen)
    }

    async fn reported(
        &self,
        account: &str,
        deliveries: &[(CampaignId, i64)],
    ) -> Result<HashMap<(CampaignId, i64), Reported>> {
        let asked: Vec<(i64, i64)> = deliveries.iter().map(|(campaign, seq)| (campaign.0, *seq)).collect();
        let sql = format!(
            "SELECT {REPORTED} FROM json_each(?1) j
                CROSS JOIN campaign c ON c.id = j.value ->> 0 AND c.account = ?2
                CROSS JOIN delivery d ON d.campaign_id = j.value ->> 0 AND d.seq = j.value ->> 1
                 LEFT JOIN contact k ON k.id = d.contact_id"
        );
        let rows = sqlx::query(sqlx::AssertSqlSafe(sql))
            .bind(rows::to_json(&asked)?)
            .bind(account)
            .fetch_all(&self.readers)
            .await?;
        rows.iter()
            .map(|row| {
                let found = reported(row)?;
                Ok(((found.campaign, found.seq), found))
            })
            .collect()
    }

    async fn reported_in(&self, account: &str, requests: &[SendKey]) -> Result<HashMap<SendKey, Vec<Reported>>> {
        let keys: Vec<String> = requests.iter().map(|key| rows::hex(&key.0)).collect();
        let sql = format!(
            "SELECT a.request_key, {REPORTED} FROM json_each(?1) j
                CROSS JOIN attempt a INDEXED BY attempt_by_request_key ON a.request_key = unhex(j.value)
                CROSS JOIN campaign c ON c.id = a.campaign_id AND c.account = ?2
                CROSS JOIN json_each(a.ranges) r
                CROSS JOIN delivery d ON d.campaign_id = a.campaign_id AND d.seq BETWEEN r.value ->> 0 AND r.value ->> 1
                 LEFT JOIN contact k ON k.id = d.contact_id"
        );
        let rows = sqlx::query(sqlx::AssertSqlSafe(sql))
            .bind(rows::to_json(&keys)?)
            .bind(account)
            .fetch_all(&self.readers)
            .await?;
        let mut found: HashMap<SendKey, Vec<Reported>> = HashMap::new();
        for row in &rows {
            let key = SendKey(event_id(row.try_get("request_key")?)?);
            found.entry(key).or_default().push(reported(row)?);
        }
        Ok(found)
    }

    async fn tenants_of(&self, account: &str) -> Result<Vec<TenantId>> {
        let rows = sqlx::query("SELECT DISTINCT tenant_id FROM campaign WHERE account = ? ORDER BY tenant_id")
            .bind(account)
            .fetch_all(&self.readers)
            .await?;
        rows.iter().map(|row| Ok(TenantId(row.try_get(0)?))).collect()
    }

    async fn apply(&self, reports: &[Report], orphans: &[Orphan], now_ms: i64) -> Result<Applied> {
        let (reports, orphans) = (reports.to_vec(), orphans.to_vec());
        self.writer
            .run("apply_reports", move |conn| Box::pin(async move { apply(conn, &reports, &orphans, now_ms).await }))
            .await
    }

    async fn orphans_due(&self, now_ms: i64, limit: u32) -> Result<Vec<Orphan>> {
        let rows = sqlx::query(
            "SELECT * FROM orphan WHERE look_at_ms IS NOT NULL AND look_at_ms <= ? ORDER BY look_at_ms LIMIT ?",
        )
        .bind(now_ms)
        .bind(limit)
        .fetch_all(&self.readers)
        .await?;
        rows.iter().map(orphan).collect()
    }

    async fn revisit(&self, orphans: &Revisited, now_ms: i64) -> Result<()> {
        let orphans = orphans.clone();
        self.writer
            .run("revisit_orphans", move |conn| {
                Box::pin(async move {
                    add(conn, orphans.found.iter(), now_ms).await?;
                    sqlx::query("DELETE FROM orphan WHERE id IN (SELECT unhex(value) FROM json_each(?))")
                        .bind(json_ids(orphans.found.iter().map(|report| &report.id))?)
                        .execute(&mut *conn)
                        .await?;
                    let missed: Vec<(String, Option<i64>)> =
                        orphans.missed.iter().map(|(id, look_at_ms)| (rows::hex(id), *look_at_ms)).collect();
                    sqlx::query(
                        "UPDATE orphan SET look_at_ms = j.value ->> 1 FROM json_each(?) j
                          WHERE orphan.id = unhex(j.value ->> 0)",
                    )
                    .bind(rows::to_json(&missed)?)
                    .execute(conn)
                    .await?;
                    Ok(())
                })
            })
            .await
    }

    async fn forget_reports(&self, seen_before_ms: i64, arrived_before_ms: i64) -> Result<u64> {
        self.writer
            .run("forget_reports", move |conn| {
                Box::pin(async move {
                    let mut forgotten = 0;
                    for (sql, before_ms) in [
                        (
                            "DELETE FROM report_seen WHERE id IN (SELECT id FROM report_seen WHERE seen_at_ms < ? LIMIT ?)",
                            seen_before_ms,
                        ),
                        (
                            "DELETE FROM orphan WHERE id IN (SELECT id FROM orphan WHERE arrived_at_ms < ? LIMIT ?)",
                            arrived_before_ms,
                        ),
                    ] {
                        let done = sqlx::query(sql).bind(before_ms).bind(FORGOTTEN_MAX).execute(&mut *conn).await?;
                        forgotten += done.rows_affected();
                    }
                    Ok(forgotten)
                })
            })
            .await
    }
}

/// The facts of a campaign's deliveries, by number.
pub(super) async fn facts_of(readers: &SqlitePool, campaign: CampaignId, seqs: &[i64]) -> Result<HashMap<i64, Facts>> {
    let found = sqlx::query(
        "SELECT f.seq, f.kind, f.first_at_ms, f.last_at_ms, f.reports
           FROM json_each(?2) j CROSS JOIN fact f ON f.campaign_id = ?1 AND f.seq = j.value",
    )
    .bind(campaign.0)
    .bind(rows::json_numbers(seqs))
    .fetch_all(readers)
    .await?;
    let mut facts: HashMap<i64, Facts> = HashMap::new();
    for row in &found {
        let fact = Fact {
            first_at_ms: row.try_get("first_at_ms")?,
            last_at_ms: row.try_get("last_at_ms")?,
            reports: u64::try_from(row.try_get::<i64, _>("reports")?).unwrap_or(0),
        };
        facts.entry(row.try_get("seq")?).or_default().add(rows::word(row, "kind")?, fact);
    }
    Ok(facts)
}

/// How many of a campaign's deliveries have a fact of each kind.
pub(super) async fn counts(readers: &SqlitePool, campaign: CampaignId) -> Result<BTreeMap<String, u64>> {
    let found = sqlx::query("SELECT kind, deliveries FROM fact_tally WHERE campaign_id = ?")
        .bind(campaign.0)
        .fetch_all(readers)
        .await?;
    let count =
        |row: &SqliteRow| Ok((row.try_get("kind")?, u64::try_from(row.try_get::<i64, _>("deliveries")?).unwrap_or(0)));
    found.iter().map(count).collect()
}

fn event_id(bytes: &[u8]) -> Result<EventId> {
    bytes.try_into().map_err(|_| LedgerError::Corrupt("an id or key of 16 bytes"))
}

fn json_ids<'a>(ids: impl Iterator<Item = &'a EventId>) -> Result<String> {
    rows::to_json(&ids.map(|id| rows::hex(id)).collect::<Vec<_>>())
}

fn reported(row: &SqliteRow) -> Result<Reported> {
    let address: Option<&[u8]> = row.try_get("address_hash")?;
    Ok(Reported {
        tenant: TenantId(row.try_get("tenant_id")?),
        campaign: CampaignId(row.try_get("campaign_id")?),
        seq: row.try_get("seq")?,
        channel: rows::word(row, "channel")?,
        address: address.map(|hash| event_id(hash).map(AddressHash)).transpose()?,
        provider_id: row.try_get("provider_id")?,
    })
}

fn orphan(row: &SqliteRow) -> Result<Orphan> {
    let bytes = |column| row.try_get::<Option<&[u8]>, _>(column)?.map(event_id).transpose();
    Ok(Orphan {
        id: event_id(row.try_get("id")?)?,
        account: row.try_get("account")?,
        kind: rows::word(row, "kind")?,
        at_ms: row.try_get("at_ms")?,
        proves_acceptance: row.try_get::<i64, _>("proves_acceptance")? != 0,
        traces: Traces {
            key: bytes("send_key")?.map(SendKey),
            request_key: bytes("request_key")?.map(SendKey),
            provider_id: row.try_get("provider_id")?,
        },
        address: bytes("address_hash")?,
        arrived_at_ms: row.try_get("arrived_at_ms")?,
    })
}

async fn apply(conn: &mut SqliteConnection, reports: &[Report], orphans: &[Orphan], now_ms: i64) -> Result<Applied> {
    let ids = reports.iter().map(|report| &report.id).chain(orphans.iter().map(|orphan| &orphan.id));
    let new = sqlx::query(
        "INSERT INTO report_seen (id, seen_at_ms) SELECT unhex(value), ?2 FROM json_each(?1) WHERE true
         ON CONFLICT DO NOTHING RETURNING id",
    )
    .bind(json_ids(ids)?)
    .bind(now_ms)
    .fetch_all(&mut *conn)
    .await?;
    let mut new: HashSet<EventId> = new.iter().map(|row| event_id(row.try_get(0)?)).collect::<Result<_>>()?;
    // Taken out as it is applied: a batch may hold a report twice.
    let fresh: Vec<&Report> = reports.iter().filter(|report| new.remove(&report.id)).collect();
    add(conn, fresh.iter().copied(), now_ms).await?;
    let kept: Vec<&Orphan> = orphans.iter().filter(|orphan| new.remove(&orphan.id)).collect();
    keep(conn, &kept).await?;
    let (applied, orphaned) = (fresh.len() as u64, kept.len() as u64);
    Ok(Applied { applied, orphans: orphaned, duplicates: (reports.len() + orphans.len()) as u64 - applied - orphaned })
}

/// Adds the facts of reports, and T13 where one proves it.
async fn add<'a>(
    conn: &mut SqliteConnection,
    reports: impl Iterator<Item = &'a Report> + Clone,
    now_ms: i64,
) -> Result<()> {
    let facts = gathered(reports.clone());
    let written: Vec<_> = facts
        .iter()
        .map(|((campaign, seq, kind), fact)| {
            (campaign.0, seq, kind.as_str(), fact.first_at_ms, fact.last_at_ms, fact.reports)
        })
        .collect();
    let rows = sqlx::query(
        "INSERT INTO fact (campaign_id, seq, kind, first_at_ms, last_at_ms, reports)
         SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4, value ->> 5 FROM json_each(?) WHERE true
         ON CONFLICT (campaign_id, seq, kind) DO UPDATE SET first_at_ms = min(first_at_ms, excluded.first_at_ms),
             last_at_ms = max(last_at_ms, excluded.last_at_ms), reports = reports + excluded.reports
         RETURNING campaign_id, seq, kind, reports",
    )
    .bind(rows::to_json(&written)?)
    .fetch_all(&mut *conn)
    .await?;
    let mut first: BTreeMap<(i64, &str), u64> = BTreeMap::new();
    for row in &rows {
        let (campaign, kind) = (CampaignId(row.try_get("campaign_id")?), rows::word(row, "kind")?);
        let added = facts.get(&(campaign, row.try_get("seq")?, kind)).map_or(0, |fact| fact.reports);
        // One that was there before has more.
        if row.try_get::<i64, _>("reports")? == i64::try_from(added).unwrap_or(i64::MAX) {
            *first.entry((campaign.0, kind.as_str())).or_default() += 1;
        }
    }
    let tally: Vec<_> = first.iter().map(|((campaign, kind), deliveries)| (campaign, kind, deliveries)).collect();
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
