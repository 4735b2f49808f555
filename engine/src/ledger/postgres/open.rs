//! Connecting: the pools, the migrations, the key's fingerprint.

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

use super::{PostgresLedger, deliveries::PLANNING};
use crate::ledger::{LedgerError, Result};

static MIGRATIONS: Migrator = sqlx::migrate!("../schemas/migrations/postgres");

/// Connections of the scheduler and the workers of a process.
const ENGINE_CONNECTIONS: u32 = 16;
/// Connections of the API of a process.
const TENANT_CONNECTIONS: u32 = 8;
/// How long a call waits for a free connection.
const ACQUIRE_WITHIN: Duration = Duration::from_secs(5);
/// A process that froze inside a transaction loses it after this long, so that its locks do not hold up an opt-out.
const IDLE_IN_TRANSACTION_MAX: &str = "5s";
/// How long a statement waits for a lock before the call is refused as busy.
const LOCK_WITHIN: &str = "10s";

impl PostgresLedger {
    /// Connects to the ledger and checks that it is this version's and this key's.
    ///
    /// # Errors
    /// [`LedgerError::Open`] with what to do when it is another program's database, its schema is too old or too new,
    /// or it belongs to another key; [`LedgerError::Unavailable`] when the server cannot be reached.
    pub async fn open(
        options: PgConnectOptions,
        master: MasterKey,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
    ) -> Result<Self> {
        let options = options
            .application_name("dispatch")
            .options([("idle_in_transaction_session_timeout", IDLE_IN_TRANSACTION_MAX), ("lock_timeout", LOCK_WITHIN)]);
        let engine = PgPoolOptions::new()
            .max_connections(ENGINE_CONNECTIONS)
            .acquire_timeout(ACQUIRE_WITHIN)
            .connect_with(options.clone().options([("dispatch.scope", "engine")]).options(PLANNING))
            .await?;
        let tenants = PgPoolOptions::new()
            .max_connections(TENANT_CONNECTIONS)
            .acquire_timeout(ACQUIRE_WITHIN)
            .connect_lazy_with(options);
        check_key(&mut *engine.acquire().await?, &master, clock.now_ms()).await?;
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
        })
    }
}

impl PostgresLedger {
    /// Makes the tables, or brings them up to this version. Several processes may do it at once: one works, the others
    /// wait for it.
    ///
    /// # Errors
    /// [`LedgerError::Open`] when the schema is a newer version's.
    pub async fn migrate(options: &PgConnectOptions) -> Result<()> {
        let mut conn = PgConnection::connect_with(options).await?;
        let done = MIGRATIONS.run(&mut conn).await.map_err(|error| match error {
            MigrateError::VersionMissing(version) => LedgerError::Open(format!(
                "the ledger was made by a newer version of Dispatch (it has schema {version}); use that version, \
                 nothing was changed"
            )),
            error => LedgerError::Open(format!("the ledger cannot be brought up to date: {error}")),
        });
        conn.close().await?;
        done
    }
}

async fn check_key(conn: &mut PgConnection, master: &MasterKey, now_ms: i64) -> Result<()> {
    let fingerprint = master.fingerprint();
    sqlx::query("INSERT INTO ledger (id, key_fingerprint, created_at_ms) VALUES (1, $1, $2) ON CONFLICT DO NOTHING")
        .bind(fingerprint.as_slice())
        .bind(now_ms)
        .execute(&mut *conn)
        .await?;
    let stored: Vec<u8> = sqlx::query("SELECT key_fingerprint FROM ledger").fetch_one(&mut *conn).await?.get(0);
    if stored == fingerprint {
        return Ok(());
    }
    Err(LedgerError::Open(
        "the key file does not belong to this ledger; point ledger.key_file at the key it was made with (without that \
         key its contacts cannot be read by anyone)"
            .to_owned(),
    ))
}
