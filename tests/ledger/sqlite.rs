//! The ledger on SQLite: what every ledger must do, and what is SQLite's own.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "functions of tests; a failed expectation is the failed test"
)]

mod full_disk;
mod opening;
mod own_process;
mod query_plans;
mod statements;
mod suite;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use async_trait::async_trait;
use dispatch_engine::{
    ledger::{Ledger, sqlite::SqliteLedger},
    second_place::SecondPlace,
};
use dispatch_schemas::ids::{CampaignId, ListId, TenantId};
use dispatch_workers::{
    clock::{Clock, Entropy},
    sealing::MasterKey,
};
use sqlx::{ConnectOptions as _, Connection as _, Row as _, SqliteConnection, sqlite::SqliteConnectOptions};
use suite::{Counts, Fixture, Place};

/// Ledgers in folders of their own, gone after the test.
struct InFolders;

impl Fixture for InFolders {
    fn place(&self) -> Box<dyn Place> {
        Box::new(Folder::new())
    }
}

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn file(&self) -> PathBuf {
        self.0.path().join("ledger.db")
    }

    async fn reader(&self) -> SqliteConnection {
        reader(&self.file()).await
    }

    async fn number(&self, sql: &'static str, parameter: i64) -> i64 {
        sqlx::query(sql).bind(parameter).fetch_one(&mut self.reader().await).await.unwrap().get(0)
    }
}

/// A connection past the ledger, for reading; what it runs is not logged.
async fn reader(file: &Path) -> SqliteConnection {
    let options = SqliteConnectOptions::new().filename(file).pragma("query_only", "1").disable_statement_logging();
    SqliteConnection::connect_with(&options).await.unwrap()
}

#[async_trait(?Send)]
impl Place for Folder {
    async fn open(
        &self,
        master: &MasterKey,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
        second_place: SecondPlace,
    ) -> Arc<dyn Ledger> {
        let ledger = SqliteLedger::open(&self.file(), master.clone(), clock, entropy).await.unwrap();
        Arc::new(ledger.with_second_place(second_place))
    }

    fn whereabouts(&self) -> PathBuf {
        self.file()
    }

    async fn counts(&self, campaign: CampaignId) -> Counts {
        let mut conn = self.reader().await;
        // One transaction sees one moment.
        let mut moment = conn.begin().await.unwrap();
        let mut counts = [BTreeMap::new(), BTreeMap::new()];
        for (counts, sql) in counts.iter_mut().zip([
            "SELECT state, detail, deliveries FROM tally WHERE campaign_id = ? AND deliveries <> 0",
            "SELECT state, CASE WHEN state IN ('stopped', 'failed') THEN detail ELSE '' END AS detail, count(*)
               FROM delivery WHERE campaign_id = ? GROUP BY 1, 2",
        ]) {
            for row in sqlx::query(sql).bind(campaign.0).fetch_all(&mut *moment).await.unwrap() {
                counts.insert((row.get(0), row.get(1)), row.get(2));
            }
        }
        let audience = sqlx::query("SELECT next_seq FROM campaign WHERE id = ?")
            .bind(campaign.0)
            .fetch_one(&mut *moment)
            .await
            .unwrap()
            .get(0);
        let [tally, rows] = counts;
        Counts { tally, rows, audience }
    }

    async fn contacts(&self, list: ListId) -> i64 {
        self.number("SELECT count(*) FROM contact WHERE list_id = ?", list.0).await
    }

    async fn changes(&self) -> i64 {
        self.number("SELECT count(*) FROM contact_change WHERE ? = 0", 0).await
    }

    async fn variables(&self) -> i64 {
        self.number("SELECT count(*) FROM message WHERE ? = 0", 0).await
    }

    async fn holds(&self, tenant: TenantId, bytes: &[u8]) -> bool {
        sqlx::query("SELECT 1 FROM contact WHERE tenant_id = ? AND ? IN (email_hash, phone_hash, email, phone)")
            .bind(tenant.0)
            .bind(bytes)
            .fetch_optional(&mut self.reader().await)
            .await
            .unwrap()
            .is_some()
    }
}

conformance!(crate::InFolders);
