//! A schema and a virtual host of one test, on the servers that the environment names; gone after it.

use std::{
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use dispatch_engine::ledger::postgres::{PostgresLedger, connect_options};
use dispatch_workers::clock::{SystemEntropy, random};
use lapin::{Connection, ConnectionProperties, options::QueueDeclareOptions, types::FieldTable};
use reqwest::{Client, Method, Url};
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, PgConnection, Row as _};

use super::{
    services::{self, Service},
    wait,
};

const POSTGRES: &str = "DISPATCH_TEST_POSTGRES_URL";
const AMQP: &str = "DISPATCH_TEST_AMQP_URL";
const MANAGEMENT: &str = "DISPATCH_TEST_RABBITMQ_MANAGEMENT_URL";
/// How long the broker may take for one thing.
const WITHIN: Duration = Duration::from_secs(30);

/// Row security is for the engine's tenants.
const SEES_ALL: &str = "SET LOCAL dispatch.scope = 'engine'";

static NEXT: AtomicU32 = AtomicU32::new(0);

/// Where one test's ledger and queue are.
#[derive(Debug)]
pub struct GivenServices {
    postgres: Url,
    amqp: Url,
    management: Url,
    schema: String,
    vhost: String,
    /// A copy of the schema's tables, once there is one.
    copy: String,
    /// The PostgreSQL, where it is the test's own.
    own: Option<services::Services>,
}

fn variable(name: &str) -> Url {
    let text = std::env::var(name);
    assert!(text.is_ok(), "{name} is not set: these tests need PostgreSQL and RabbitMQ; tests/run starts both");
    text.ok().and_then(|text| text.parse().ok()).expect("the variable is a URL")
}

impl GivenServices {
    /// Makes both; the schema has the ledger's tables.
    pub async fn new() -> Self {
        Self::on(None).await
    }

    /// The same with a PostgreSQL of the test's own, which can fail over.
    pub async fn with_own_postgres() -> Self {
        let own = tokio::task::spawn_blocking(|| services::Services::start_only(Service::Postgres)).await;
        Self::on(Some(own.expect("it starts"))).await
    }

    async fn on(own: Option<services::Services>) -> Self {
        let drawn = u64::from_le_bytes(random(&SystemEntropy::default()));
        let services = Self {
            postgres: own.as_ref().map_or_else(|| variable(POSTGRES), |own| own.url(Service::Postgres).clone()),
            copy: format!("test_{}_{:016x}", wait::now_ms(), drawn.wrapping_add(1)),
            own,
            amqp: variable(AMQP),
            management: variable(MANAGEMENT),
            // What a killed run leaves is dropped by a later run of the ledger's tests.
            schema: format!("test_{}_{drawn:016x}", wait::now_ms()),
            vhost: format!("dispatch-test-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed)),
        };
        change(&services.postgres, format!("CREATE SCHEMA {}", services.schema)).await;
        let options = connect_options(&services.ledger_url(None)).expect("the URL of the tests is right");
        PostgresLedger::migrate(&options, wait::now_ms()).await.expect("the tables can be made");
        services.make_vhost().await;
        services
    }

    /// The ledger's address, at another port if a proxy stands before it.
    pub fn ledger_url(&self, port: Option<u16>) -> String {
        let mut url = self.postgres.clone();
        url.set_port(port.or_else(|| self.postgres.port())).expect("a URL with a host takes a port");
        let joint = if url.query().is_some() { '&' } else { '?' };
        format!("{url}{joint}options[search_path]={}", self.schema)
    }

    /// Where the server of the ledger listens.
    pub fn ledger_address(&self) -> std::net::SocketAddr {
        let host = self.postgres.host_str().expect("the URL names a host");
        let addresses = std::net::ToSocketAddrs::to_socket_addrs(&(host, self.postgres.port().unwrap_or(5_432)));
        addresses.ok().and_then(|mut addresses| addresses.next()).expect("the host has an address")
    }

    /// The queue's address.
    pub fn queue_url(&self) -> String {
        let mut url = self.amqp.clone();
        url.set_path(&self.vhost);
        url.into()
    }

    /// The tokens of all attempts.
    pub async fn tokens(&self) -> Vec<[u8; 16]> {
        let options = connect_options(&self.ledger_url(None)).expect("the URL of the tests is right");
        let options = options.options([("dispatch.scope", "engine")]).disable_statement_logging();
        let mut conn = options.connect().await.expect("the server answers");
        let rows = sqlx::query("SELECT token FROM attempt").fetch_all(&mut conn).await.expect("the server answers");
        rows.iter().map(|row| row.get::<&[u8], _>(0).try_into().expect("a token has 16 bytes")).collect()
    }

    /// Waits until the queue of campaigns holds at least so many messages that nobody has.
    pub async fn holds(&self, channel: &str, messages: u32) {
        let connection = Connection::connect(&self.queue_url(), ConnectionProperties::default()).await;
        let connection = connection.expect("the broker answers");
        let what = format!("the queue of {channel} holds {messages} messages");
        wait::until(&what, WITHIN, async || {
            // What is declared and not there closes the channel.
            let asking = connection.create_channel().await.ok()?;
            let name = format!("dispatch.{channel}.bulk");
            let passive = QueueDeclareOptions::default().passive();
            let queue = asking.queue_declare(name.into(), passive, FieldTable::default()).await.ok()?;
            (queue.message_count() >= messages).then_some(())
        })
        .await;
    }

    /// The broker forgets every queue and message, as one does whose disk was replaced.
    pub async fn broker_loses_everything(&self) {
        self.manage(Method::DELETE, &format!("vhosts/{}", self.vhost), None).await;
        self.make_vhost().await;
    }

    /// Copies the ledger as it is: its server's data where it has one of its own, its tables else.
    pub async fn copy_ledger(&self) {
        if let Some(own) = &self.own {
            return own.copy_postgres().await;
        }
        let (schema, copy) = (&self.schema, &self.copy);
        let each = self.each_table("oid", &format!("CREATE TABLE {copy}.%1$I AS TABLE {schema}.%1$I"));
        let one_moment = "BEGIN ISOLATION LEVEL REPEATABLE READ";
        change(&self.postgres, format!("{one_moment}; {SEES_ALL}; CREATE SCHEMA {copy}; {each}; COMMIT")).await;
    }

    /// Puts the copy in the ledger's place: by a failover where the server is the test's own.
    pub async fn forget_since_copy(&self) {
        if let Some(own) = &self.own {
            return own.fail_over_to_the_copy().await;
        }
        let (schema, copy) = (&self.schema, &self.copy);
        // What refers to a table was made after it.
        let empty = self.each_table("oid DESC", &format!("DELETE FROM {schema}.%1$I"));
        let fill = self.each_table("oid", &format!("INSERT INTO {schema}.%1$I SELECT * FROM {copy}.%1$I"));
        change(&self.postgres, format!("BEGIN; {SEES_ALL}; {empty}; {fill}; COMMIT")).await;
    }

    /// Does something for each table of the ledger.
    fn each_table(&self, order: &str, what: &str) -> String {
        let schema = &self.schema;
        format!(
            "DO $$ DECLARE name text; BEGIN
                 FOR name IN SELECT relname FROM pg_class
                              WHERE relnamespace = '{schema}'::regnamespace AND relkind IN ('r', 'p')
                                AND NOT relispartition AND relname <> '_sqlx_migrations' ORDER BY {order} LOOP
                     EXECUTE format('{what}', name);
                 END LOOP;
             END $$"
        )
    }

    async fn make_vhost(&self) {
        self.manage(Method::PUT, &format!("vhosts/{}", self.vhost), Some(json!({}))).await;
        let user = self.amqp.username().to_owned();
        let all = json!({"configure": ".*", "write": ".*", "read": ".*"});
        self.manage(Method::PUT, &format!("permissions/{}/{user}", self.vhost), Some(all)).await;
    }

    async fn manage(&self, method: Method, path: &str, body: Option<Value>) {
        manage(&self.management, method, path, body).await;
    }
}

async fn manage(at: &Url, method: Method, path: &str, body: Option<Value>) {
    let mut url = at.clone();
    let (user, password) = (url.username().to_owned(), url.password().map(str::to_owned));
    url.set_username("").and_then(|()| url.set_password(None)).expect("a URL with a host takes a user");
    let url = format!("{}/api/{path}", url.as_str().trim_end_matches('/'));
    let mut request = Client::new().request(method, url).basic_auth(user, password);
    if let Some(body) = body {
        request = request.header("content-type", "application/json").body(body.to_string());
    }
    let answer = request.timeout(WITHIN).send().await.expect("the management API answers");
    assert!(answer.status().is_success(), "{path}: {}", answer.status());
}

async fn change(at: &Url, sql: String) {
    let options = connect_options(at.as_str()).expect("the URL of the tests is right").disable_statement_logging();
    let mut conn = PgConnection::connect_with(&options).await.expect("the server answers");
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut conn).await.expect("the server does it");
    conn.close().await.expect("the connection closes");
}

impl Drop for GivenServices {
    fn drop(&mut self) {
        let (management, vhost) = (self.management.clone(), format!("vhosts/{}", self.vhost));
        // A server of the test's own goes with it.
        let sql = match self.own {
            Some(_) => String::new(),
            None => format!("DROP SCHEMA {} CASCADE; DROP SCHEMA IF EXISTS {} CASCADE", self.schema, self.copy),
        };
        let postgres = self.postgres.clone();
        // A thread of its own, because this runs within the test's runtime.
        let removed = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                manage(&management, Method::DELETE, &vhost, None).await;
                if !sql.is_empty() {
                    change(&postgres, sql).await;
                }
            });
        });
        let removed = removed.join();
        assert!(removed.is_ok() || std::thread::panicking(), "{} or {} could not be removed", self.schema, self.vhost);
    }
}
