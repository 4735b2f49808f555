//! What providers report: matching, applying, forgetting. Statements are for whole batches.

mod applying;
mod matching;

use std::collections::{BTreeMap, HashMap, HashSet};

use async_trait::async_trait;
use dispatch_schemas::{
    facts::{Fact, Facts},
    ids::{CampaignId, TenantId},
};
use dispatch_workers::{
    message::SendKey,
    providers::callbacks::{EventId, Traces, first_id_at},
    sealing::AddressHash,
};
use sqlx::{Row as _, SqlitePool, sqlite::SqliteRow};

use super::{SqliteLedger, rows};
use crate::ledger::{
    Applied, FactBook, LedgerError, Member, Orphan, Report, Reported, Result, Revisited, facts::FORGOTTEN_MAX,
};

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
        matching::reported(&self.readers, account, deliveries).await
    }

    async fn members(&self, account: &str, requests: &[SendKey]) -> Result<HashMap<SendKey, Vec<Member>>> {
        matching::members(&self.readers, account, requests).await
    }

    async fn addresses(&self, deliveries: &[(CampaignId, i64)]) -> Result<HashMap<(CampaignId, i64), AddressHash>> {
        matching::addresses(&self.readers, deliveries).await
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
            .run("apply_reports", move |conn| {
                Box::pin(async move { applying::apply(conn, &reports, &orphans, now_ms).await })
            })
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
                    applying::add(conn, orphans.found.iter(), now_ms).await?;
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
                    let reports = sqlx::query(
                        "DELETE FROM report_seen WHERE id IN
                             (SELECT id FROM report_seen WHERE id < ?1 AND seen_at_ms < ?2 LIMIT ?3)",
                    )
                    .bind(first_id_at(seen_before_ms).as_slice())
                    .bind(seen_before_ms)
                    .bind(FORGOTTEN_MAX)
                    .execute(&mut *conn)
                    .await?;
                    let orphans = sqlx::query(
                        "DELETE FROM orphan WHERE id IN (SELECT id FROM orphan WHERE arrived_at_ms < ? LIMIT ?)",
                    )
                    .bind(arrived_before_ms)
                    .bind(FORGOTTEN_MAX)
                    .execute(&mut *conn)
                    .await?;
                    Ok(reports.rows_affected() + orphans.rows_affected())
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
