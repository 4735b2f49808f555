//! A database of one test, on the server of the tests.

use dispatch_engine::ledger::postgres::connect_options_without_tls;
use dispatch_workers::clock::{SystemEntropy, random};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, PgConnection, postgres::PgConnectOptions};

const URL: &str = "DISPATCH_TEST_POSTGRES_URL";

/// A schema of one test, gone afterwards.
pub(crate) struct Database {
    name: String,
    url: String,
}

impl Database {
    pub(crate) async fn new() -> Self {
        let Ok(url) = std::env::var(URL) else {
            panic!(
                "{URL} must name a database that tests may use, such as postgres://me:secret@127.0.0.1/dispatch_test"
            );
        };
        let drawn = u64::from_le_bytes(random(&SystemEntropy::default()));
        let database = Self { name: format!("test_operating_{drawn:016x}"), url };
        outside(&database.url, &format!("CREATE SCHEMA {}", database.name)).await;
        database
    }

    /// Its address, as a person writes it.
    pub(crate) fn url(&self) -> String {
        self.url_of("search_path", &self.name)
    }

    /// Its address with another session setting.
    pub(crate) fn url_of(&self, setting: &str, value: &str) -> String {
        let joint = if self.url.contains('?') { '&' } else { '?' };
        format!("{}{joint}options[{setting}]={value}", self.url)
    }

    /// Its address with another role or port.
    pub(crate) fn changed_url(&self, change: impl FnOnce(&mut reqwest::Url)) -> String {
        let mut url: reqwest::Url = self.url.parse().unwrap();
        change(&mut url);
        format!("{url}?options[search_path]={}", self.name)
    }

    /// The port of the server.
    pub(crate) fn port(&self) -> u16 {
        self.url.parse::<reqwest::Url>().unwrap().port().unwrap_or(5_432)
    }

    /// Does something within it.
    pub(crate) async fn run(&self, sql: &str) {
        let mut conn = self.options().connect().await.unwrap();
        run(&mut conn, sql).await;
        conn.close().await.unwrap();
    }

    /// Asks for one number within it.
    pub(crate) async fn number(&self, sql: &'static str) -> i64 {
        let mut conn = self.options().connect().await.unwrap();
        sqlx::query_scalar(sql).fetch_one(&mut conn).await.unwrap()
    }

    fn options(&self) -> PgConnectOptions {
        let options = connect_options_without_tls(&self.url()).unwrap().disable_statement_logging();
        options.options([("dispatch.scope", "engine")])
    }
}

async fn outside(url: &str, sql: &str) {
    let options = connect_options_without_tls(url).unwrap().disable_statement_logging();
    run(&mut options.connect().await.unwrap(), sql).await;
}

async fn run(conn: &mut PgConnection, sql: &str) {
    sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(conn).await.unwrap();
}

impl Drop for Database {
    fn drop(&mut self) {
        let (url, sql) = (self.url.clone(), format!("DROP SCHEMA IF EXISTS {} CASCADE", self.name));
        // A thread of its own, because this runs within the test's runtime.
        let dropping = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(outside(&url, &sql));
        });
        assert!(dropping.join().is_ok() || std::thread::panicking(), "a schema is left behind");
    }
}
