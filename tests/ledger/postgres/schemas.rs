//! Schemas for tests, each test in one of its own.
//!
//! Making the tables costs the server a sync for every index, which takes longer than most tests. So the schema of a
//! test that is over is emptied and serves the next one under another name: what may still be under way of the old test
//! does not find it there. The last ones are left, and dropped by a later run.

use std::sync::{Mutex, OnceLock, PoisonError};

use dispatch_engine::ledger::postgres::PostgresLedger;
use dispatch_workers::clock::{Clock as _, SystemClock, SystemEntropy, random};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, PgConnection, Row as _, postgres::PgConnectOptions};
use tokio::sync::OnceCell;

use crate::{URL, change, options, server, suite::world::START_MS};

/// Schemas of earlier runs are dropped after this long.
const LEFTOVER_MS: i64 = 3_600_000;

/// Emptied schemas with a ledger's tables.
static SPARE: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// What is in a schema that has just been migrated.
static MIGRATED: OnceLock<String> = OnceLock::new();

/// A schema, gone or another test's after this one.
pub(crate) struct Schema {
    pub(crate) name: String,
    /// Set when it has the tables of a ledger, and may serve another test if it still has just these at the end.
    ledger: OnceCell<()>,
}

impl Schema {
    pub(crate) fn new() -> Self {
        Self { name: new_name(), ledger: OnceCell::new() }
    }

    /// A connection that sees this schema only.
    pub(crate) fn options(&self) -> PgConnectOptions {
        options(&self.name)
    }

    /// Makes the schema, unless it is there.
    pub(crate) async fn make(&self) {
        let mut conn = server().connect().await.unwrap();
        let role = "SELECT rolsuper OR rolbypassrls FROM pg_roles WHERE rolname = current_user";
        let passes_walls: bool = sqlx::query(role).fetch_one(&mut conn).await.unwrap().get(0);
        assert!(
            !passes_walls,
            "the role in {URL} is a superuser or has BYPASSRLS: give the tests one that has neither"
        );
        drop_leftovers(&mut conn).await;
        change(&mut conn, format!("CREATE SCHEMA IF NOT EXISTS {}", self.name)).await;
        conn.close().await.unwrap();
    }

    /// The schema with a ledger's tables, made for this test alone.
    pub(crate) async fn migrated(&self) {
        self.make().await;
        PostgresLedger::migrate(&self.options(), START_MS).await.unwrap();
    }

    /// The schema with the tables of an empty ledger, the first time; then as it is.
    pub(crate) async fn with_ledger(&self) {
        self.ledger
            .get_or_init(|| async {
                let spare = SPARE.lock().unwrap_or_else(PoisonError::into_inner).pop();
                if let Some(spare) = spare {
                    let mut conn = server().connect().await.unwrap();
                    change(&mut conn, format!("ALTER SCHEMA {spare} RENAME TO {}", self.name)).await;
                    return conn.close().await.unwrap();
                }
                self.migrated().await;
                let made = contents(&mut server().connect().await.unwrap(), &self.name).await;
                assert_eq!(*MIGRATED.get_or_init(|| made.clone()), made, "every migration makes the same");
            })
            .await;
    }
}

fn new_name() -> String {
    let drawn = u64::from_le_bytes(random(&SystemEntropy::default()));
    format!("test_{}_{drawn:016x}", SystemClock::new().now_ms())
}

impl Drop for Schema {
    fn drop(&mut self) {
        let name = self.name.clone();
        let serves_again = self.ledger.initialized() && !std::thread::panicking();
        // The test's own runtime may be the one that is ending.
        let ending = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let mut conn = server().options([("dispatch.scope", "engine")]).connect().await.unwrap();
                let spare = new_name();
                if serves_again && emptied(&mut conn, &name, &spare).await {
                    SPARE.lock().unwrap_or_else(PoisonError::into_inner).push(spare);
                } else {
                    end_holders(&mut conn, &name).await;
                    let names = format!("DROP SCHEMA IF EXISTS {name} CASCADE; DROP SCHEMA IF EXISTS {spare} CASCADE");
                    change(&mut conn, names).await;
                }
                conn.close().await.unwrap();
            });
        });
        let ended = ending.join();
        assert!(ended.is_ok() || std::thread::panicking(), "the schema {} could not be emptied or dropped", self.name);
    }
}

/// Gives a schema its new name and takes everything out of it; false when the test has changed more than rows.
async fn emptied(conn: &mut PgConnection, name: &str, spare: &str) -> bool {
    change(conn, format!("ALTER SCHEMA {name} RENAME TO {spare}")).await;
    end_holders(conn, spare).await;
    if Some(&contents(conn, spare).await) != MIGRATED.get() {
        return false;
    }
    // What refers to a table was made after it.
    let empty = format!(
        "DO $$ DECLARE name text; BEGIN
             FOR name IN SELECT relname FROM pg_class
                          WHERE relnamespace = '{spare}'::regnamespace AND relkind IN ('r', 'p') AND NOT relispartition
                            AND relname <> '_sqlx_migrations' ORDER BY oid DESC LOOP
                 EXECUTE format('DELETE FROM {spare}.%I', name);
             END LOOP;
             ALTER SEQUENCE {spare}.contact_id RESTART;
         END $$"
    );
    change(conn, empty).await;
    true
}

/// Ends whoever has a lock on anything in a schema. The test is over, but its runtime stands still meanwhile: a
/// transaction it left open would be in the way until the server ends it. The server's own tidying makes way by itself.
async fn end_holders(conn: &mut PgConnection, name: &str) {
    let holders = "
        SELECT pg_terminate_backend(pid, 5000)
          FROM (SELECT DISTINCT l.pid FROM pg_locks l JOIN pg_class c ON c.oid = l.relation
                       JOIN pg_stat_activity a ON a.pid = l.pid AND a.usename = current_user
                 WHERE l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
                   AND c.relnamespace = to_regnamespace($1) AND l.pid <> pg_backend_pid()) AS holder";
    sqlx::query(holders).bind(name).execute(conn).await.unwrap();
}

/// The tables, indexes, sequences, functions, policies and triggers of a schema.
async fn contents(conn: &mut PgConnection, name: &str) -> String {
    let sql = "
        WITH related AS (SELECT oid, relkind, relname FROM pg_class WHERE relnamespace = to_regnamespace($1))
        SELECT string_agg(what, ' ' ORDER BY what) FROM (
            SELECT relkind::text || ':' || relname FROM related
            UNION ALL SELECT 'function:' || proname FROM pg_proc WHERE pronamespace = to_regnamespace($1)
            UNION ALL SELECT 'policy:' || relname FROM pg_policy JOIN related r ON r.oid = polrelid
            UNION ALL SELECT 'trigger:' || tgname FROM pg_trigger JOIN related r ON r.oid = tgrelid
                       WHERE NOT tgisinternal
        ) AS t (what)";
    sqlx::query(sql).bind(name).fetch_one(conn).await.unwrap().get(0)
}

async fn drop_leftovers(conn: &mut PgConnection) {
    let before_ms = SystemClock::new().now_ms() - LEFTOVER_MS;
    let rows = sqlx::query("SELECT nspname::text FROM pg_namespace WHERE nspname ~ '^test_[0-9]+_[0-9a-f]{16}$'")
        .fetch_all(&mut *conn)
        .await
        .unwrap();
    for name in rows.iter().map(|row| row.get::<String, _>(0)) {
        let made_ms: i64 = name.split('_').nth(1).unwrap().parse().unwrap();
        if made_ms < before_ms {
            // Another process of the tests may drop it too.
            drop(
                sqlx::raw_sql(AssertSqlSafe(format!("DROP SCHEMA IF EXISTS {name} CASCADE"))).execute(&mut *conn).await,
            );
        }
    }
}
