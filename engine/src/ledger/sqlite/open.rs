//! Opening the file: the pragmas, the migrations, the key's fingerprint.

use std::{
    collections::HashMap,
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use dispatch_workers::{
    clock::{Clock, Entropy},
    sealing::MasterKey,
};
use sqlx::{
    Connection as _, Row as _, SqliteConnection,
    migrate::{MigrateError, Migrator},
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};

use super::{SqliteLedger, lock::LedgerLock, look::look, writer::Writer};
use crate::{
    ledger::{LedgerError, Result},
    second_place::SecondPlace,
};

static MIGRATIONS: Migrator = sqlx::migrate!("../schemas/migrations/sqlite");

/// Marks the file as a Dispatch ledger (`PRAGMA application_id`): "DSPL".
pub(super) const APPLICATION_ID: i64 = 0x4453_504c;
/// Page cache of the writer, KiB: enough for the upper levels of the trees of 10 M deliveries.
const WRITER_CACHE_KIB: i64 = 24 * 1_024;
/// Page cache of each reader, KiB.
const READER_CACHE_KIB: i64 = 4 * 1_024;
const READERS: u32 = 3;
/// Pages of the write-ahead log before it is moved into the file (64 MiB): what is changed often is moved once.
const WAL_PAGES: u32 = 16_384;

impl SqliteLedger {
    /// Opens the ledger at `path`, making or migrating it as needed.
    ///
    /// # Errors
    /// [`LedgerError::InUse`] when another process has it open; [`LedgerError::Open`] with what to do when there can be
    /// none, it is not a ledger, was made by a newer version, or belongs to another key.
    pub async fn open(
        path: &Path,
        master: MasterKey,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
    ) -> Result<Self> {
        Self::open_locked(LedgerLock::take(path)?, master, clock, entropy).await
    }

    /// Opens the ledger whose lock was taken before.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub async fn open_locked(
        lock: LedgerLock,
        master: MasterKey,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
    ) -> Result<Self> {
        let path = lock.path();
        look(path).await?;
        create_private(path)?;
        let options = options(path);
        let mut conn = SqliteConnection::connect_with(&options).await.map_err(|error| unusable(path, error))?;
        if let Err(error) = prepare(&mut conn, path, &master, clock.now_ms()).await {
            // Closed before the lock is free, and before anybody looks at what became of the file.
            drop(conn.close().await);
            return Err(error);
        }
        let last_contact: i64 = sqlx::query("SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'contact'")
            .fetch_one(&mut conn)
            .await?
            .get(0);
        conn.close().await?;

        let writer = options.clone().pragma("cache_size", format!("-{WRITER_CACHE_KIB}"));
        let writer = Writer::start(writer, lock).await?;
        let readers = SqlitePoolOptions::new()
            .max_connections(READERS)
            .acquire_timeout(Duration::from_secs(10))
            .connect_lazy_with(options.pragma("cache_size", format!("-{READER_CACHE_KIB}")).pragma("query_only", "1"));
        let send_keys = Arc::new(master.send_keys());
        Ok(Self {
            writer,
            readers,
            master,
            send_keys,
            clock,
            entropy,
            tenant_keys: Mutex::new(HashMap::new()),
            next_contact: (last_contact + 1).into(),
            second_place: SecondPlace::none(),
        })
    }
}

fn options(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .foreign_keys(true)
        .busy_timeout(Duration::from_secs(10))
        .statement_cache_capacity(256)
        // A batch's rows fit, so that the statement's thread need not wait for their reader.
        .row_buffer_size(1_024)
        .pragma("temp_store", "memory")
        .pragma("wal_autocheckpoint", WAL_PAGES.to_string())
        // Freed pages are overwritten: what was erased is not left in the file.
        .pragma("secure_delete", "fast")
}

/// Makes the file, if it is new, readable by its owner only. SQLite gives its other files the same rights.
fn create_private(path: &Path) -> Result<()> {
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    match options.open(path) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(LedgerError::Open(format!("the ledger {} cannot be made: {}", path.display(), error.kind()))),
    }
}

pub(super) fn unusable(path: &Path, error: sqlx::Error) -> LedgerError {
    let reason = LedgerError::from(error).into_reason();
    LedgerError::Open(format!("the ledger {} cannot be opened: {reason}", path.display()))
}

async fn prepare(conn: &mut SqliteConnection, path: &Path, master: &MasterKey, now_ms: i64) -> Result<()> {
    let name = path.display();
    let tables: i64 = sqlx::query("SELECT count(*) FROM sqlite_schema WHERE type = 'table'")
        .fetch_one(&mut *conn)
        .await
        .map_err(|error| unusable(path, error))?
        .get(0);
    if tables == 0 {
        sqlx::query("PRAGMA application_id = 1146310732").execute(&mut *conn).await?;
    }
    MIGRATIONS.run(&mut *conn).await.map_err(|error| match error {
        MigrateError::VersionMissing(version) => LedgerError::Open(format!(
            "the ledger {name} was made by a newer version of Dispatch (it has schema {version}); \
             use that version, nothing was changed"
        )),
        error => LedgerError::Open(format!("the ledger {name} cannot be brought up to date: {error}")),
    })?;
    check_tables(conn, path).await?;
    check_key(conn, path, master, now_ms).await?;
    sqlx::query("INSERT INTO ledger_epoch (id, server, head, moved_at_ms) VALUES (1, '', 0, ?) ON CONFLICT DO NOTHING")
        .bind(now_ms)
        .execute(conn)
        .await?;
    Ok(())
}

/// All that the migrations make must be there: a table that somebody dropped is not made again.
async fn check_tables(conn: &mut SqliteConnection, path: &Path) -> Result<()> {
    const NAMES: &str = "SELECT name FROM sqlite_schema WHERE name NOT LIKE 'sqlite%'";
    let mut whole = SqliteConnection::connect("sqlite::memory:").await?;
    MIGRATIONS
        .run(&mut whole)
        .await
        .map_err(|error| LedgerError::Open(format!("the schema of this version cannot be made: {error}")))?;
    let wanted = sqlx::query(NAMES).fetch_all(&mut whole).await?;
    whole.close().await?;
    let there = sqlx::query(NAMES).fetch_all(conn).await?;
    let there: Vec<&str> = there.iter().map(|row| row.get(0)).collect();
    match wanted.iter().map(|row| row.get::<&str, _>(0)).find(|name| !there.contains(name)) {
        None => Ok(()),
        Some(name) => Err(LedgerError::Open(format!(
            "the ledger {} is damaged: its {name} is missing; restore the file from a backup, nothing was changed",
            path.display()
        ))),
    }
}

async fn check_key(conn: &mut SqliteConnection, path: &Path, master: &MasterKey, now_ms: i64) -> Result<()> {
    let fingerprint = master.fingerprint();
    sqlx::query("INSERT INTO ledger (id, key_fingerprint, created_at_ms) VALUES (1, ?, ?) ON CONFLICT DO NOTHING")
        .bind(fingerprint.as_slice())
        .bind(now_ms)
        .execute(&mut *conn)
        .await?;
    let stored: Vec<u8> = sqlx::query("SELECT key_fingerprint FROM ledger").fetch_one(&mut *conn).await?.get(0);
    if stored == fingerprint { Ok(()) } else { Err(another_key(path)) }
}

/// The refusal of a key file that is another ledger's.
#[must_use]
pub fn another_key(path: &Path) -> LedgerError {
    LedgerError::Open(format!(
        "the key file does not belong to the ledger {}; point ledger.key_file at the key it was made with \
         (without that key its contacts cannot be read by anyone)",
        path.display()
    ))
}
