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

use super::wait;

const POSTGRES: &str = "DISPATCH_TEST_POSTGRES_URL";
const AMQP: &str = "DISPATCH_TEST_AMQP_URL";
const MANAGEMENT: &str = "DISPATCH_TEST_RABBITMQ_MANAGEMENT_URL";
/// How long the broker may take for one thing.
const WITHIN: Duration = Duration::from_secs(30);

static NEXT: AtomicU32 = AtomicU32::new(0);

/// Where one test's ledger and queue are.
#[derive(Debug)]
pub struct GivenServices {
    postgres: Url,
    amqp: Url,
    management: Url,
    schema: String,
    vhost: String,
}

fn variable(name: &str) -> Url {
    let text = std::env::var(name);
    assert!(text.is_ok(), "{name} is not set: these tests need PostgreSQL and RabbitMQ; tests/run starts both");
    text.ok().and_then(|text| text.parse().ok()).expect("the variable is a URL")
}

impl GivenServices {
    /// Makes both; the schema has the ledger's tables.
    pub async fn new() -> Self {
        let drawn = u64::from_le_bytes(random(&SystemEntropy::default()));
        let services = Self {
            postgres: variable(POSTGRES),
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
        let (postgres, sql) = (self.postgres.clone(), format!("DROP SCHEMA {} CASCADE", self.schema));
        // A thread of its own, because this runs within the test's runtime.
        let removed = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                manage(&management, Method::DELETE, &vhost, None).await;
                change(&postgres, sql).await;
            });
        });
        let removed = removed.join();
        assert!(removed.is_ok() || std::thread::panicking(), "{} or {} could not be removed", self.schema, self.vhost);
    }
}
