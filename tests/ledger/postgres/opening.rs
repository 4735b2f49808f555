//! Opening and migrating: what is refused, with which words, and that nothing is changed then.

use std::sync::Arc;

use dispatch_engine::ledger::{LedgerError, postgres::PostgresLedger};
use dispatch_workers::{
    clock::{SystemClock, SystemEntropy},
    sealing::MasterKey,
};
use sqlx::{Row as _, postgres::PgConnectOptions};

use crate::{change, engine, schemas::Schema, suite::world::START_MS};

async fn open(options: PgConnectOptions, master: &MasterKey) -> Result<PostgresLedger, LedgerError> {
    let clock = Arc::new(SystemClock::new());
    PostgresLedger::open(options, master.clone(), clock, Arc::new(SystemEntropy::default())).await
}

fn new_key() -> MasterKey {
    MasterKey::generate(&SystemEntropy::default())
}

/// What is to be done before it can be opened.
fn wanted<T>(refused: Result<T, LedgerError>) -> String {
    match refused {
        Err(LedgerError::NotMade(wanted)) => wanted,
        Err(other) => panic!("not something to wait for: {other}"),
        Ok(_) => panic!("it was opened"),
    }
}

/// The words of a refusal to open.
fn told<T>(refused: Result<T, LedgerError>) -> String {
    match refused {
        Err(LedgerError::Open(told)) => told,
        Err(other) => panic!("not a refusal to open: {other}"),
        Ok(_) => panic!("it was opened"),
    }
}

impl Schema {
    async fn changed(&self, sql: &str) {
        change(&mut engine(&self.name).await, sql.to_owned()).await;
    }

    async fn opened(&self) -> Result<PostgresLedger, LedgerError> {
        open(self.options(), &new_key()).await
    }
}

#[tokio::test]
async fn a_database_without_a_ledger_is_not_made_one_by_opening() {
    let schema = Schema::new();
    schema.make().await;
    assert!(wanted(schema.opened().await).contains("run `dispatch migrate`"));
    let sql = "SELECT count(*) FROM pg_tables WHERE schemaname = current_schema() AND $1 = 0";
    assert_eq!(schema.number(sql, 0).await, 0);
}

#[tokio::test]
async fn another_key_is_refused() {
    let (schema, master) = (Schema::new(), new_key());
    schema.migrated().await;
    open(schema.options(), &master).await.unwrap();
    assert!(told(schema.opened().await).contains("the key file does not belong to this ledger"));
    open(schema.options(), &master).await.unwrap();
}

#[tokio::test]
async fn a_database_of_another_program_is_left_as_it_was() {
    let schema = Schema::new();
    schema.make().await;
    // Accountants have a ledger too.
    schema.changed("CREATE TABLE ledger (id bigint, sum bigint); INSERT INTO ledger VALUES (1, 7)").await;
    for told in [told(schema.opened().await), told(PostgresLedger::migrate(&schema.options(), START_MS).await)] {
        assert!(told.contains("has tables of another program"), "{told}");
    }
    let sql = "SELECT count(*) FROM pg_tables WHERE schemaname = current_schema() AND $1 = 0";
    assert_eq!(schema.number(sql, 0).await, 1);
}

#[tokio::test]
async fn a_newer_versions_ledger_is_refused() {
    let schema = Schema::new();
    schema.migrated().await;
    schema
        .changed("INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) VALUES (99, '', true, '', 0)")
        .await;
    for told in [told(schema.opened().await), told(PostgresLedger::migrate(&schema.options(), START_MS).await)] {
        assert!(told.contains("newer version of Dispatch (it has schema 99)"), "{told}");
    }
}

#[tokio::test]
async fn an_older_versions_ledger_is_to_be_migrated() {
    let schema = Schema::new();
    schema.migrated().await;
    schema.changed("DELETE FROM _sqlx_migrations").await;
    let wanted = wanted(schema.opened().await);
    assert!(wanted.contains("older version's (schema 1 is missing); run `dispatch migrate`"), "{wanted}");
}

#[tokio::test]
async fn a_ledger_that_lost_a_table_is_refused() {
    let schema = Schema::new();
    schema.migrated().await;
    schema.changed("DROP TABLE attempt").await;
    assert!(told(schema.opened().await).contains("its attempt is missing"));
}

#[tokio::test]
async fn a_ledger_is_migrated_by_many_at_once() {
    let schema = Schema::new();
    schema.make().await;
    let options = schema.options();
    let migrations = (0..4).map(|_| PostgresLedger::migrate(&options, START_MS));
    for done in futures_util::future::join_all(migrations).await {
        done.unwrap();
    }
    schema.opened().await.unwrap();
    let names = "SELECT string_agg(c.relname, ' ' ORDER BY c.relname) FROM pg_inherits i
                   JOIN pg_class c ON c.oid = i.inhrelid WHERE i.inhparent = 'delivery'::regclass";
    let row = sqlx::query(names).fetch_one(&mut engine(&schema.name).await).await.unwrap();
    assert_eq!(row.get::<&str, _>(0), "delivery_202701 delivery_202702");
}

#[tokio::test]
async fn a_database_that_can_only_be_read_is_refused() {
    let schema = Schema::new();
    schema.migrated().await;
    let options = schema.options().options([("default_transaction_read_only", "on")]);
    assert!(told(open(options, &new_key()).await).contains("can only be read"));
}

#[tokio::test]
async fn a_role_the_server_does_not_know_is_named_and_its_password_is_not() {
    let options = crate::server().username("nobody_of_this_name").password("hunter2");
    let told = told(open(options, &new_key()).await);
    assert!(told.contains("`nobody_of_this_name`") && !told.contains("hunter2"), "{told}");
}

#[tokio::test]
async fn a_database_that_is_not_there_is_named() {
    let told = told(open(crate::server().database("nothing_of_this_name"), &new_key()).await);
    assert!(told.contains("has no database `nothing_of_this_name`"), "{told}");
}

#[tokio::test]
async fn a_server_that_is_away_may_come_back() {
    // A port that was free a moment ago.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let options = crate::server().host("127.0.0.1").port(free.port());
    match open(options, &new_key()).await {
        Err(LedgerError::Unavailable(why)) => assert!(why.contains(&free.to_string()), "{why}"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn every_connection_is_durable_and_gives_its_locks_back() {
    // What a server's settings say does not weaken the ledger.
    let schema = Schema::new();
    schema.migrated().await;
    let ledger = open(schema.options().options([("synchronous_commit", "off")]), &new_key()).await.unwrap();
    ledger_settings(&ledger, &schema).await;
}

/// The settings of the ledger's connections, as the server sees them.
async fn ledger_settings(ledger: &PostgresLedger, schema: &Schema) {
    use dispatch_engine::ledger::Tenants as _;
    schema
        .changed(
            "CREATE FUNCTION told() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                 NEW.name := current_setting('synchronous_commit') || ' '
                          || current_setting('idle_in_transaction_session_timeout');
                 RETURN NEW; END $$;
             CREATE TRIGGER told BEFORE INSERT ON tenant FOR EACH ROW EXECUTE FUNCTION told()",
        )
        .await;
    drop(ledger.tenant("any").await);
    assert_eq!(ledger.find_tenant("on 5s").await.unwrap().map(|tenant| tenant.name).as_deref(), Some("on 5s"));
}
