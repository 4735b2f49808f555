//! The ledger on PostgreSQL: what every ledger must do, and what is PostgreSQL's own.
//!
//! `DISPATCH_TEST_POSTGRES_URL` names a database of the tests' own and a role that owns it and is no superuser, as in
//! `postgres://dispatch:dispatch@127.0.0.1/dispatch_test`. Each test has a schema of its own in it.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "functions of tests; a failed expectation is the failed test"
)]

#[path = "postgres/failover.rs"]
mod failover;
#[path = "postgres/limits.rs"]
mod limits;
#[path = "postgres/meetings.rs"]
mod meetings;
#[path = "postgres/opening.rs"]
mod opening;
#[path = "postgres/schemas.rs"]
mod schemas;
mod suite;
#[path = "postgres/walls.rs"]
mod walls;

use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

use async_trait::async_trait;
use dispatch_engine::{
    ledger::{
        Ledger,
        postgres::{PostgresLedger, connect_options_without_tls},
    },
    second_place::SecondPlace,
};
use dispatch_schemas::ids::{CampaignId, ListId, TenantId};
use dispatch_workers::{
    clock::{Clock, Entropy},
    sealing::MasterKey,
};
use schemas::Schema;
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, PgConnection, Row as _, postgres::PgConnectOptions};
use suite::{Counts, Fixture, Place, world::World};

const URL: &str = "DISPATCH_TEST_POSTGRES_URL";

/// Ledgers in schemas of their own.
struct InSchemas;

impl Fixture for InSchemas {
    fn place(&self) -> Box<dyn Place> {
        Box::new(Schema::new())
    }
}

/// The server the tests run on.
fn server() -> PgConnectOptions {
    let Ok(url) = std::env::var(URL) else {
        panic!(
            "{URL} is not set: these tests need a PostgreSQL 15 or newer, a database of their own in it, and a role \
             that owns the database and is no superuser, as in postgres://dispatch:dispatch@127.0.0.1/dispatch_test"
        );
    };
    connect_options_without_tls(&url).unwrap().disable_statement_logging()
}

fn options(schema: &str) -> PgConnectOptions {
    server().options([("search_path", schema)])
}

/// A connection past the ledger that sees all of it.
async fn engine(schema: &str) -> PgConnection {
    options(schema).options([("dispatch.scope", "engine")]).connect().await.unwrap()
}

async fn change(conn: &mut PgConnection, sql: String) {
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(conn).await.unwrap();
}

impl Schema {
    async fn number(&self, sql: &'static str, parameter: i64) -> i64 {
        sqlx::query(sql).bind(parameter).fetch_one(&mut engine(&self.name).await).await.unwrap().get(0)
    }
}

impl World {
    fn schema(&self) -> String {
        self.place.whereabouts().display().to_string()
    }
}

#[async_trait(?Send)]
impl Place for Schema {
    async fn open(
        &self,
        master: &MasterKey,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
        second_place: SecondPlace,
    ) -> Arc<dyn Ledger> {
        self.with_ledger().await;
        let ledger = PostgresLedger::open(self.options(), master.clone(), clock, entropy).await.unwrap();
        Arc::new(ledger.with_second_place(second_place))
    }

    fn whereabouts(&self) -> PathBuf {
        self.name.clone().into()
    }

    async fn counts(&self, campaign: CampaignId) -> Counts {
        let mut conn = engine(&self.name).await;
        // One transaction sees one moment.
        let mut moment = conn.begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ").await.unwrap();
        let mut counts = [BTreeMap::new(), BTreeMap::new()];
        for (counts, sql) in counts.iter_mut().zip([
            "SELECT state, detail, sum(deliveries)::bigint FROM tally WHERE campaign_id = $1 GROUP BY 1, 2
             HAVING sum(deliveries) <> 0",
            "SELECT state, CASE WHEN state IN ('stopped', 'failed') THEN detail ELSE '' END AS detail, count(*)
               FROM delivery WHERE campaign_id = $1 GROUP BY 1, 2",
        ]) {
            for row in sqlx::query(sql).bind(campaign.0).fetch_all(&mut *moment).await.unwrap() {
                counts.insert((row.get(0), row.get(1)), row.get(2));
            }
        }
        let audience = sqlx::query("SELECT next_seq FROM expansion WHERE campaign_id = $1")
            .bind(campaign.0)
            .fetch_one(&mut *moment)
            .await
            .unwrap()
            .get(0);
        let [tally, rows] = counts;
        Counts { tally, rows, audience }
    }

    async fn contacts(&self, list: ListId) -> i64 {
        self.number("SELECT count(*) FROM contact WHERE list_id = $1", list.0).await
    }

    async fn changes(&self) -> i64 {
        self.number("SELECT count(*) FROM contact_change WHERE $1 = 0", 0).await
    }

    async fn variables(&self) -> i64 {
        self.number("SELECT count(*) FROM message WHERE $1 = 0", 0).await
    }

    async fn holds(&self, tenant: TenantId, bytes: &[u8]) -> bool {
        sqlx::query("SELECT 1 FROM contact WHERE tenant_id = $1 AND $2 IN (email_hash, phone_hash, email, phone)")
            .bind(tenant.0)
            .bind(bytes)
            .fetch_optional(&mut engine(&self.name).await)
            .await
            .unwrap()
            .is_some()
    }
}

conformance!(crate::InSchemas);
