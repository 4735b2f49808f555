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
use sqlx::{PgConnection, Row as _, postgres::PgRow};

use super::{PostgresLedger, rows};
use crate::ledger::{
    Applied, FactBook, LedgerError, Member, Orphan, Report, Reported, Result, Revisited, facts::FORGOTTEN_MAX,
};

#[async_trait]
impl FactBook for PostgresLedger {
    async fn unseen(&self, ids: &[EventId]) -> Result<HashSet<EventId>> {
        let seen = sqlx::query("SELECT id FROM report_seen WHERE id = ANY($1)")
            .bind(bytes(ids.iter()))
            .fetch_all(&self.engine)
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
        let mut found = HashMap::with_capacity(deliveries.len());
        for member in self.found(account, deliveries.iter().copied()).await? {
            let Reported { campaign, seq, .. } = member.delivery;
            found.insert((campaign, seq), member.delivery);
        }
        Ok(found)
    }

    async fn members(&self, account: &str, requests: &[SendKey]) -> Result<HashMap<SendKey, Vec<Member>>> {
        self.members_of(account, requests).await
    }

    async fn addresses(&self, deliveries: &[(CampaignId, i64)]) -> Result<HashMap<(CampaignId, i64), AddressHash>> {
        self.addresses_of(deliveries).await
    }

    async fn tenants_of(&self, account: &str) -> Result<Vec<TenantId>> {
        let rows = sqlx::query("SELECT DISTINCT tenant_id FROM campaign WHERE account = $1 ORDER BY tenant_id")
            .bind(account)
            .fetch_all(&self.engine)
            .await?;
        rows.iter().map(|row| Ok(TenantId(row.try_get(0)?))).collect()
    }

    async fn apply(&self, reports: &[Report], orphans: &[Orphan], now_ms: i64) -> Result<Applied> {
        self.repeatable("apply_reports", || async {
            let mut transaction = self.engine.begin().await?;
            let new = applying::see(&mut transaction, reports, orphans, now_ms).await?;
            let applied = self.apply_new(&mut transaction, (reports, orphans), new, now_ms).await?;
            transaction.commit().await?;
            Ok(applied)
        })
        .await
    }

    async fn orphans_due(&self, now_ms: i64, limit: u32) -> Result<Vec<Orphan>> {
        let rows = sqlx::query("SELECT * FROM orphan WHERE look_at_ms <= $1 ORDER BY look_at_ms LIMIT $2")
            .bind(now_ms)
            .bind(i64::from(limit))
            .fetch_all(&self.engine)
            .await?;
        rows.iter().map(orphan).collect()
    }

    async fn revisit(&self, orphans: &Revisited, now_ms: i64) -> Result<()> {
        self.repeatable("revisit_orphans", || async {
            let mut transaction = self.engine.begin().await?;
            // Whoever removes an orphan applies its report: another process may have found it too.
            let found = sqlx::query("DELETE FROM orphan WHERE id = ANY($1) RETURNING id")
                .bind(bytes(orphans.found.iter().map(|report| &report.id)))
                .fetch_all(&mut *transaction)
                .await?;
            let ours: HashSet<EventId> = found.iter().map(|row| event_id(row.try_get(0)?)).collect::<Result<_>>()?;
            let reports = orphans.found.iter().filter(|report| ours.contains(&report.id));
            self.add(&mut transaction, reports, now_ms).await?;
            let (ids, looks): (Vec<Vec<u8>>, Vec<Option<i64>>) =
                orphans.missed.iter().map(|(id, look_at_ms)| (id.to_vec(), *look_at_ms)).unzip();
            sqlx::query(
                "UPDATE orphan o SET look_at_ms = m.look_at_ms FROM unnest($1::bytea[], $2::bigint[]) m(id, look_at_ms)
                  WHERE o.id = m.id",
            )
            .bind(ids)
            .bind(looks)
            .execute(&mut *transaction)
            .await?;
            transaction.commit().await?;
            Ok(())
        })
        .await
    }

    async fn forget_reports(&self, seen_before_ms: i64, arrived_before_ms: i64) -> Result<u64> {
        let reports = sqlx::query(
            "DELETE FROM report_seen WHERE id = ANY(ARRAY(
                 SELECT id FROM report_seen WHERE id < $1 AND seen_at_ms < $2 LIMIT $3 FOR UPDATE SKIP LOCKED))",
        )
        .bind(first_id_at(seen_before_ms).as_slice())
        .bind(seen_before_ms)
        .bind(FORGOTTEN_MAX)
        .execute(&self.engine)
        .await?;
        let orphans = sqlx::query(
            "DELETE FROM orphan WHERE id = ANY(ARRAY(
                 SELECT id FROM orphan WHERE arrived_at_ms < $1 LIMIT $2 FOR UPDATE SKIP LOCKED))",
        )
        .bind(arrived_before_ms)
        .bind(FORGOTTEN_MAX)
        .execute(&self.engine)
        .await?;
        Ok(reports.rows_affected() + orphans.rows_affected())
    }
}

/// The facts of a campaign's deliveries, by number.
pub(super) async fn facts_of(
    conn: &mut PgConnection,
    campaign: CampaignId,
    seqs: &[i64],
) -> Result<HashMap<i64, Facts>> {
    let found = sqlx::query(
        "SELECT f.seq, f.kind, f.first_at_ms, f.last_at_ms, f.reports FROM fact f
          WHERE f.month = (SELECT month FROM campaign WHERE id = $1) AND f.campaign_id = $1 AND f.seq = ANY($2)",
    )
    .bind(campaign.0)
    .bind(seqs)
    .fetch_all(conn)
    .await?;
    let mut facts: HashMap<i64, Facts> = HashMap::new();
    for row in &found {
        let fact = Fact {
            first_at_ms: row.try_get("first_at_ms")?,
            last_at_ms: row.try_get("last_at_ms")?,
            reports: rows::count(row, "reports")?,
        };
        facts.entry(row.try_get("seq")?).or_default().add(rows::word(row, "kind")?, fact);
    }
    Ok(facts)
}

/// How many of a campaign's deliveries have a fact of each kind.
pub(super) async fn counts(conn: &mut PgConnection, campaign: CampaignId) -> Result<BTreeMap<String, u64>> {
    let found = sqlx::query(
        "SELECT kind, sum(deliveries)::bigint AS deliveries FROM fact_tally WHERE campaign_id = $1 GROUP BY kind",
    )
    .bind(campaign.0)
    .fetch_all(conn)
    .await?;
    found.iter().map(|row| Ok((row.try_get("kind")?, rows::count(row, "deliveries")?))).collect()
}

fn event_id(bytes: &[u8]) -> Result<EventId> {
    bytes.try_into().map_err(|_| LedgerError::Corrupt("an id or key of 16 bytes"))
}

fn bytes<'a>(ids: impl Iterator<Item = &'a EventId>) -> Vec<Vec<u8>> {
    ids.map(|id| id.to_vec()).collect()
}

fn orphan(row: &PgRow) -> Result<Orphan> {
    let bytes = |column| row.try_get::<Option<&[u8]>, _>(column)?.map(event_id).transpose();
    Ok(Orphan {
        id: event_id(row.try_get("id")?)?,
        account: row.try_get("account")?,
        kind: rows::word(row, "kind")?,
        at_ms: row.try_get("at_ms")?,
        proves_acceptance: row.try_get("proves_acceptance")?,
        traces: Traces {
            key: bytes("send_key")?.map(SendKey),
            request_key: bytes("request_key")?.map(SendKey),
            provider_id: row.try_get("provider_id")?,
        },
        address: bytes("address_hash")?,
        arrived_at_ms: row.try_get("arrived_at_ms")?,
    })
}
