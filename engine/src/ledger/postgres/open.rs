//! Connecting and migrating: whose database it is, which version's schema, whose key.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use dispatch_workers::{
    clock::{Clock, Entropy},
    sealing::MasterKey,
};
use sqlx::{
    Connection as _, PgConnection, Row as _,
    migrate::{MigrateError, Migrator},
    postgres::{PgConnectOptions, PgPoolOptions},
};

use super::{PostgresLedger, connecting::connect, epochs, months};
use crate::{
    ledger::{LedgerError, Result},
    second_place::SecondPlace,
};

static MIGRATIONS: Migrator = sqlx::migrate!("../schemas/migrations/postgres");

/// The oldest version of the server the statements are written for.
pub const SERVER_MIN: i32 = 15;
/// Taken while the tables are changed: "DSPL", which months take with 0.
const MIGRATION_LOCK: (i32, i32) = (1_146_310_732, 1);
/// Connections of the scheduler and the workers of a process.
const ENGINE_CONNECTIONS: u32 = 16;
/// Connections of the API of a process.
const TENANT_CONNECTIONS: u32 = 8;
/// Most connections of a process.
pub const CONNECTIONS_OF_A_PROCESS: u32 = ENGINE_CONNECTIONS + TENANT_CONNECTIONS;
/// How long a call waits for a free connection.
const ACQUIRE_WITHIN: Duration = Duration::from_secs(5);
/// What every connection runs with.
pub const SETTINGS: [(&str, &str); 7] = [
    // A process that froze inside a transaction loses it after this long, so that its locks do not hold up an opt-out.
    ("idle_in_transaction_session_timeout", "5s"),
    // How long a statement waits for a lock before the call is refused as busy.
    ("lock_timeout", "10s"),
    // What a claim or an opt-out was told is there after a power loss, whatever the server's default.
    ("synchronous_commit", "on"),
    // Compiling a statement takes longer than any of these runs.
    ("jit", "off"),
    // Statements go from a batch's ids and hashes into keys: reading a table whole is never right, whatever the
    // statistics of a table say that has just been filled.
    ("enable_seqscan", "off"),
    ("enable_hashjoin", "off"),
    ("enable_mergejoin", "off"),
];
/// What a ledger of this version is made of.
const TABLES: [&str; 30] = [
    "ledger",
    "tenant",
    "api_key",
    "idempotency",
    "source",
    "list",
    "import",
    "contact",
    "contact_change",
    "gate",
    "template",
    "campaign",
    "expansion",
    "campaign_list",
    "tally",
    "delivery",
    "waiting",
    "message",
    "attempt",
    "scheduler",
    "rate_limit",
    "account_pause",
    "operator_limit",
    "stall",
    "ledger_epoch",
    "quarantine",
    "fact",
    "fact_tally",
    "report_seen",
    "orphan",
];

impl PostgresLedger {
    /// Connects to the ledger and checks that it is this version's and this key's.
    ///
    /// # Errors
    /// [`LedgerError::Open`] with what to do when the server refuses the role, the database is another program's, its
    /// schema is too new, or it belongs to another key; [`LedgerError::NotMade`] when it has no tables or those of an
    /// older version; [`LedgerError::Unavailable`] when the server cannot be reached.
    pub async fn open(
        options: PgConnectOptions,
        master: MasterKey,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
    ) -> Result<Self> {
        let options = options.application_name("dispatch").options(SETTINGS);
        let mut conn = connect(&options).await?;
        check_server(&mut conn).await?;
        check_schema(&mut conn).await?;
        check_key(&mut conn, &master, clock.now_ms()).await?;
        epochs::begin(&mut conn, clock.now_ms()).await?;
        conn.close().await?;

        let pool = |connections| PgPoolOptions::new().max_connections(connections).acquire_timeout(ACQUIRE_WITHIN);
        let engine =
            pool(ENGINE_CONNECTIONS).connect_lazy_with(options.clone().options([("dispatch.scope", "engine")]));
        // The API's statements differ more from call to call than a kept plan allows for.
        let tenants =
            pool(TENANT_CONNECTIONS).connect_lazy_with(options.options([("plan_cache_mode", "force_custom_plan")]));
        let send_keys = Arc::new(master.send_keys());
        Ok(Self {
            engine,
            tenants,
            master,
            send_keys,
            clock,
            entropy,
            tenant_keys: Mutex::new(HashMap::new()),
            months: Mutex::new(HashMap::new()),
            second_place: SecondPlace::none(),
        })
    }

    /// The fingerprint of the key the ledger was made with; nothing before its first start.
    ///
    /// # Errors
    /// As [`Self::open`], but for the key.
    pub async fn key_of(options: &PgConnectOptions) -> Result<Option<Vec<u8>>> {
        let mut conn = connect(&options.clone().application_name("dispatch")).await?;
        check_server(&mut conn).await?;
        check_schema(&mut conn).await?;
        let row = sqlx::query("SELECT key_fingerprint FROM ledger").fetch_optional(&mut conn).await?;
        conn.close().await?;
        Ok(row.map(|row| row.try_get(0)).transpose()?)
    }

    /// Makes the tables, or brings them up to this version, and makes the partitions of the month of `now_ms`
    /// (milliseconds since 1970) and the next. Several processes may do it at once: one works, the others wait for it.
    ///
    /// # Errors
    /// [`LedgerError::Open`] when the database is another program's or the schema a newer version's;
    /// [`LedgerError::Unavailable`] when the server cannot be reached.
    pub async fn migrate(options: &PgConnectOptions, now_ms: i64) -> Result<Migrated> {
        let mut conn = connect(&options.clone().application_name("dispatch")).await?;
        check_server(&mut conn).await?;
        // Until the connection ends: whoever looks sees what the one before has done.
        sqlx::query("SELECT pg_advisory_lock($1, $2)")
            .bind(MIGRATION_LOCK.0)
            .bind(MIGRATION_LOCK.1)
            .execute(&mut conn)
            .await?;
        let before = match whose(&mut conn).await? {
            Whose::Others => return Err(foreign(&mut conn).await?),
            Whose::Nobodys => Vec::new(),
            Whose::Dispatchs => applied(&mut conn).await?,
        };
        MIGRATIONS.run(&mut conn).await.map_err(|error| match error {
            MigrateError::VersionMissing(version) => too_new(version),
            // The server's words may quote rows.
            MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => {
                let reason = LedgerError::from(error).into_reason();
                LedgerError::Open(format!("the ledger cannot be brought up to date: {reason}"))
            }
            error => LedgerError::Open(format!("the ledger cannot be brought up to date: {error}")),
        })?;
        months::make_next(&mut conn, now_ms).await?;
        let now = applied(&mut conn).await?;
        conn.close().await?;
        Ok(Migrated { from: before.last().copied(), to: now.last().copied().unwrap_or_default() })
    }
}

/// What a migration did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Migrated {
    /// The schema there was, by its number; none when there was no ledger.
    pub from: Option<i64>,
    /// The schema there is now.
    pub to: i64,
}

fn too_new(version: i64) -> LedgerError {
    LedgerError::Open(format!(
        "the ledger was made by a newer version of Dispatch (it has schema {version}); use that version, nothing was \
         changed"
    ))
}

async fn check_server(conn: &mut PgConnection) -> Result<()> {
    let row = sqlx::query(
        "SELECT current_setting('server_version_num')::integer / 10000 AS version,
                pg_is_in_recovery() AS is_standby, current_setting('transaction_read_only') = 'on' AS is_read_only,
                (SELECT rolsuper OR rolbypassrls FROM pg_roles WHERE rolname = current_user) AS passes_walls",
    )
    .fetch_one(conn)
    .await?;
    let version: i32 = row.try_get("version")?;
    if version < SERVER_MIN {
        return Err(LedgerError::Open(format!(
            "the server is PostgreSQL {version}; the ledger needs PostgreSQL {SERVER_MIN} or newer"
        )));
    }
    if row.try_get("is_standby")? {
        return Err(LedgerError::Open(
            "the server is a standby that can only be read; point ledger.url at the primary".to_owned(),
        ));
    }
    if row.try_get("is_read_only")? {
        return Err(LedgerError::Open(
            "the database can only be read; set default_transaction_read_only off for it and its role".to_owned(),
        ));
    }
    if row.try_get("passes_walls")? {
        tracing::warn!(
            "the ledger's role is a superuser or has BYPASSRLS: row-level security, the second wall between tenants, \
             does not hold for it; give Dispatch a role of its own with neither"
        );
    }
    Ok(())
}

/// Whose tables are in the schema.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Whose {
    Nobodys,
    Dispatchs,
    Others,
}

async fn whose(conn: &mut PgConnection) -> Result<Whose> {
    let row = sqlx::query(
        "SELECT count(*) FILTER (WHERE relname <> '_sqlx_migrations') AS tables,
                count(*) FILTER (WHERE relname = '_sqlx_migrations') = 1 AND EXISTS (
                    SELECT FROM pg_attribute WHERE attrelid = to_regclass(format('%I.ledger', current_schema()))
                       AND attname = 'key_fingerprint') AS is_ledger
           FROM pg_class WHERE relnamespace = to_regnamespace(current_schema()) AND relkind IN ('r', 'p')",
    )
    .fetch_one(conn)
    .await?;
    Ok(match (row.try_get::<i64, _>("tables")?, row.try_get::<bool, _>("is_ledger")?) {
        (0, _) => Whose::Nobodys,
        (_, true) => Whose::Dispatchs,
        (_, false) => Whose::Others,
    })
}

async fn foreign(conn: &mut PgConnection) -> Result<LedgerError> {
    let name: String = sqlx::query("SELECT current_database()::text").fetch_one(conn).await?.try_get(0)?;
    Ok(LedgerError::Open(format!(
        "the database `{name}` has tables of another program; name another database in ledger.url, nothing was changed"
    )))
}

/// The schema must be this version's, and whole: a table that somebody dropped is not made again.
pub(super) async fn check_schema(conn: &mut PgConnection) -> Result<()> {
    match whose(conn).await? {
        Whose::Nobodys => {
            return Err(LedgerError::NotMade("the database has no ledger yet; run `dispatch migrate` once".to_owned()));
        }
        Whose::Others => return Err(foreign(conn).await?),
        Whose::Dispatchs => {}
    }
    let applied = applied(conn).await?;
    if let Some(version) = applied.iter().find(|version| !MIGRATIONS.version_exists(**version)) {
        return Err(too_new(*version));
    }
    if let Some(wanted) = MIGRATIONS.iter().find(|wanted| !applied.contains(&wanted.version)) {
        return Err(LedgerError::NotMade(format!(
            "the ledger is an older version's (schema {} is missing); run `dispatch migrate`",
            wanted.version
        )));
    }
    let missing = sqlx::query(
        "SELECT t.name FROM unnest($1::text[]) AS t (name)
          WHERE to_regclass(format('%I.%I', current_schema(), t.name)) IS NULL",
    )
    .bind(TABLES.as_slice())
    .fetch_optional(conn)
    .await?;
    match missing {
        None => Ok(()),
        Some(row) => Err(LedgerError::Open(format!(
            "the ledger is damaged: its {} is missing; restore the database from a backup, nothing was changed",
            row.try_get::<&str, _>(0)?
        ))),
    }
}

/// The schemas that were brought in, by their numbers.
async fn applied(conn: &mut PgConnection) -> Result<Vec<i64>> {
    let rows = sqlx::query("SELECT version FROM _sqlx_migrations WHERE success ORDER BY version");
    rows.fetch_all(conn).await?.iter().map(|row| Ok(row.try_get(0)?)).collect()
}

async fn check_key(conn: &mut PgConnection, master: &MasterKey, now_ms: i64) -> Result<()> {
    let fingerprint = master.fingerprint();
    sqlx::query("INSERT INTO ledger (id, key_fingerprint, created_at_ms) VALUES (1, $1, $2) ON CONFLICT DO NOTHING")
        .bind(fingerprint.as_slice())
        .bind(now_ms)
        .execute(&mut *conn)
        .await?;
    let stored: Vec<u8> = sqlx::query("SELECT key_fingerprint FROM ledger").fetch_one(conn).await?.try_get(0)?;
    if stored == fingerprint {
        return Ok(());
    }
    Err(LedgerError::Open(
        "the key file does not belong to this ledger; point ledger.key_file at the key it was made with (without that \
         key its contacts cannot be read by anyone)"
            .to_owned(),
    ))
}
