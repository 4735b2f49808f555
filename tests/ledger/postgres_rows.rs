//! A database of its own on a PostgreSQL server, with campaigns put into it by hand, and the ledgers of several
//! processes on it.

use std::{
    str::FromStr as _,
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use async_trait::async_trait;
use dispatch_engine::ledger::{Schedule as _, postgres::PostgresLedger};
use dispatch_schemas::{
    api::templates::{Content, Sender, TemplateSource},
    ids::{AttemptId, CampaignId, TenantId},
    states::{Channel, Lane, Purpose},
};
use dispatch_tests::support::wait;
use dispatch_workers::{
    clock::{Clock, SystemClock, SystemEntropy, random},
    delivery::{Account, Claim, Claimed, Claims as _, Outcome, Plan, Record},
    message::Token,
    providers::{Answer, Class, Contract, Finding, LookUpError, Provider, Question, Request},
    sealing::MasterKey,
    template::Template,
};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, PgConnection, Row as _, postgres::PgConnectOptions};

/// The server these tests run against: a role that may make databases.
pub(crate) const SERVER: &str = "DISPATCH_TEST_POSTGRES_URL";

/// The month all campaigns here are kept under; there are partitions of the months around it.
pub(crate) const MONTH: i32 = 203_106;
const MONTHS: std::ops::RangeInclusive<i32> = 203_101..=203_112;

pub(crate) const TENANT: TenantId = TenantId(1);
pub(crate) const CAMPAIGN: CampaignId = CampaignId(1_000);
const LIST: i64 = 1;

/// A provider that is never sent to: these tests say themselves what it answered.
struct Unused(Contract);

#[async_trait]
impl Provider for Unused {
    fn contract(&self) -> &Contract {
        &self.0
    }

    async fn send(&self, _: &Request<'_>) -> Answer {
        unreachable!("the ledger's tests send nothing")
    }

    async fn look_up(&self, _: &[Question]) -> Result<Vec<Finding>, LookUpError> {
        unreachable!("the ledger's tests look nothing up")
    }
}

/// A database, gone after the test.
pub(crate) struct Database {
    url: String,
    server: PgConnectOptions,
    name: String,
    master: MasterKey,
    entropy: Arc<SystemEntropy>,
}

impl Drop for Database {
    fn drop(&mut self) {
        let (server, name) = (self.server.clone(), self.name.clone());
        // The test's own runtime may be the one that is ending.
        let dropped = std::thread::spawn(move || {
            tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
                let mut conn = PgConnection::connect_with(&server).await.unwrap();
                // The server's own process may be tidying up in it, which nobody but its owner may end.
                wait::until("the database is dropped", Duration::from_secs(60), async || {
                    let sql = format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)");
                    sqlx::query(AssertSqlSafe(sql)).execute(&mut conn).await.ok()
                })
                .await;
            });
        });
        assert!(dropped.join().is_ok() || std::thread::panicking(), "the database is dropped");
    }
}

impl Database {
    /// With one tenant, its running campaign [`CAMPAIGN`] and a list of `contacts`, of whom nobody has been found yet.
    pub(crate) async fn with_contacts(contacts: i64) -> Self {
        let url = std::env::var(SERVER).unwrap_or_else(|_| panic!("{SERVER} names a PostgreSQL server, postgres://…"));
        let server = PgConnectOptions::from_str(&url).unwrap().disable_statement_logging();
        let entropy = Arc::new(SystemEntropy::default());
        let name = format!("dispatch_test_{:016x}", u64::from_le_bytes(random(entropy.as_ref())));
        let mut conn = PgConnection::connect_with(&server).await.unwrap();
        sqlx::query(AssertSqlSafe(format!("CREATE DATABASE {name}"))).execute(&mut conn).await.unwrap();
        let database = Self { url, server, name, master: MasterKey::generate(entropy.as_ref()), entropy };
        PostgresLedger::migrate(&database.options(), 0).await.unwrap();
        let mut conn = database.connect().await;
        for month in MONTHS {
            sqlx::query("SELECT keep_month($1)").bind(month).execute(&mut conn).await.unwrap();
        }
        let (_, root_key) = database.master.new_tenant(TENANT, database.entropy.as_ref());
        sqlx::query("INSERT INTO tenant (id, name, root_key, created_at_ms) VALUES ($1, 'first', $2, 0)")
            .bind(TENANT.0)
            .bind(root_key)
            .execute(&mut conn)
            .await
            .unwrap();
        for sql in [
            "INSERT INTO source (id, tenant_id, name, kind, legal_basis, created_at_ms)
             VALUES (1, 1, 'shop', 'customer_list', 'consent', 0)",
            "INSERT INTO list (id, tenant_id, source_id, name, created_at_ms) VALUES (1, 1, 1, 'all', 0)",
            "INSERT INTO campaign (id, tenant_id, name, lane, state, channel, purpose, unknown_policy, account, content,
                                   created_at_ms, launched_at_ms, month)
             VALUES (1000, 1, 'spring', 'bulk', 'running', 'email', 'marketing', 'verify', 'main', '{}', 0, 0, 203106)",
            "INSERT INTO campaign_list (campaign_id, tenant_id, position, list_id) VALUES (1000, 1, 0, 1)",
        ] {
            sqlx::query(sql).execute(&mut conn).await.unwrap();
        }
        // As large as sealed contacts are: a wrapped key, an address, some fields.
        sqlx::query(
            "INSERT INTO contact (id, tenant_id, list_id, key, email, fields, email_hash)
             SELECT i, 1, $2, decode(repeat('6b', 60), 'hex'), decode(repeat('61', 60), 'hex'),
                    decode(repeat('66', 100), 'hex'), substr(sha256(i::text::bytea), 1, 16) FROM generate_series(1, $1) i",
        )
        .bind(contacts)
        .bind(LIST)
        .execute(&mut conn)
        .await
        .unwrap();
        sqlx::query("INSERT INTO expansion (campaign_id, tenant_id, until_contact) VALUES ($1, $2, $3)")
            .bind(CAMPAIGN.0)
            .bind(TENANT.0)
            .bind(contacts)
            .execute(&mut conn)
            .await
            .unwrap();
        database
    }

    /// With all of them found: numbers 0 to `count` - 1, ready.
    pub(crate) async fn with_deliveries(count: i64) -> Self {
        let database = Self::with_contacts(count).await;
        let ledger = database.open().await;
        while ledger.expand(CAMPAIGN, 50_000, 0).await.unwrap() > 0 {}
        assert_eq!(database.count("SELECT count(*) FROM delivery WHERE state = 'ready'").await, count);
        database
    }

    fn options(&self) -> PgConnectOptions {
        self.server.clone().database(&self.name)
    }

    /// A connection past the ledger.
    pub(crate) async fn connect(&self) -> PgConnection {
        self.connect_with(&[]).await
    }

    /// One with these settings.
    pub(crate) async fn connect_with(&self, settings: &[(&str, &str)]) -> PgConnection {
        let options = self.options().options([("dispatch.scope", "engine")]).options(settings.iter().copied());
        PgConnection::connect_with(&options).await.unwrap()
    }

    /// The ledger as one process has it.
    pub(crate) async fn open(&self) -> Arc<PostgresLedger> {
        // What the ledger runs is logged, what the tests run is not.
        let options = PgConnectOptions::from_str(&self.url).unwrap().database(&self.name);
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::default());
        Arc::new(PostgresLedger::open(options, self.master.clone(), clock, self.entropy.clone()).await.unwrap())
    }

    pub(crate) async fn count(&self, sql: &'static str) -> i64 {
        sqlx::query(sql).fetch_one(&mut self.connect().await).await.unwrap().get(0)
    }

    pub(crate) async fn run(&self, sql: &'static str) {
        sqlx::query(sql).execute(&mut self.connect().await).await.unwrap();
    }

    pub(crate) fn token(&self) -> Token {
        Token(random(self.entropy.as_ref()))
    }

    /// The campaign as workers know it, through a provider of this class.
    pub(crate) fn plan(&self, class: Class) -> Plan {
        let content = Content::Email {
            from: Sender { address: "shop@example.com".to_owned(), name: None },
            reply_to: None,
            subject: "Spring".to_owned(),
            html: None,
            text: Some("It is spring.".to_owned()),
        };
        let (message, template) =
            Template::compile(&TemplateSource { content, defaults: std::collections::BTreeMap::new() }).unwrap();
        let contract = Contract { kind: "unused", channel: Channel::Email, class, recipients_per_request: 1_000 };
        Plan {
            sending_window: None,
            campaign: CAMPAIGN,
            tenant: TENANT,
            keys: self.master.new_tenant(TENANT, self.entropy.as_ref()).0,
            channel: Channel::Email,
            lane: Lane::Bulk,
            purpose: Purpose::Marketing,
            account: Arc::new(Account::new("main".into(), Arc::new(Unused(contract)), 1)),
            message,
            template,
            scopes: Vec::new(),
            attempts_max: 5,
            expires_at_ms: None,
            open: AtomicBool::new(true),
        }
    }

    /// Claims through one process's ledger.
    pub(crate) async fn claim(&self, ledger: &PostgresLedger, plan: &Plan, seqs: &[i64]) -> Claimed {
        ledger.claim(&Claim { plan, seqs, token: self.token() }).await.unwrap()
    }

    /// Asserts that counts, rows and waiting rows agree.
    pub(crate) async fn assert_adds_up(&self) {
        let wrong = self
            .count(
                "SELECT count(*) FROM (
                     SELECT state, CASE WHEN state IN ('stopped', 'failed') THEN detail ELSE '' END AS detail,
                            count(*)::bigint AS deliveries FROM delivery GROUP BY 1, 2) d
                     FULL JOIN (SELECT state, detail, sum(deliveries)::bigint AS deliveries FROM tally GROUP BY 1, 2) t
                     USING (state, detail)
                  WHERE coalesce(d.deliveries, 0) <> coalesce(t.deliveries, 0)",
            )
            .await;
        assert_eq!(wrong, 0, "the counts are those of the rows");
        let wrong = self
            .count(
                "SELECT count(*) FROM (SELECT * FROM delivery WHERE state IN ('retry_wait', 'unknown')) d
                     FULL JOIN waiting w USING (month, campaign_id, seq)
                  WHERE (d.state, d.next_at_ms, d.tenant_id) IS DISTINCT FROM (w.state, w.next_at_ms, w.tenant_id)",
            )
            .await;
        assert_eq!(wrong, 0, "what waits is found by its time, and nothing else is");
    }
}

/// Records the same for each of these.
pub(crate) async fn record(ledger: &PostgresLedger, plan: &Plan, attempt: AttemptId, seqs: &[i64], outcome: &Outcome) {
    let outcomes = seqs.iter().map(|seq| (*seq, outcome.clone())).collect();
    let now_ms = SystemClock::default().now_ms();
    ledger.record(&Record { plan, attempt, outcomes, now_ms }).await.unwrap();
}

/// The numbers of what was claimed.
pub(crate) fn numbers(claimed: &Claimed) -> Vec<i64> {
    claimed.deliveries.iter().map(|delivery| delivery.seq).collect()
}
