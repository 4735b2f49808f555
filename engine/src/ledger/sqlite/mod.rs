//! The ledger on SQLite: one file in WAL mode with `synchronous=FULL`, one writer, some readers.
//!
//! A lock file beside it keeps a second process out. Rooms: [`open`] (the file), `writer` (group commit), and one for
//! each thing the ledger keeps. A ledger is closed with [`Ledger::close`]; one that is only dropped is closed by its
//! writer, which holds the lock until it has written what it was given.

mod campaigns;
mod claims;
mod epochs;
mod expansion;
mod facts;
mod gates;
mod imports;
mod lists;
mod lock;
mod look;
mod messages;
mod open;
mod operator_limits;
mod recipients;
mod rows;
mod schedule;
mod tally;
mod templates;
mod tenants;
mod writer;

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use dispatch_schemas::ids::TenantId;
use dispatch_workers::{
    clock::{Clock, Entropy},
    sealing::{MasterKey, SendKeys, TenantKeys},
};
use sqlx::SqlitePool;
use writer::Writer;

pub use lock::LedgerLock;
pub use look::{Found, look, look_for_quarantine};
pub use open::another_key;

use super::{Ledger, Result, Tenants};
use crate::second_place::SecondPlace;

/// How long a close waits for what is still read and written: a disk that takes longer has failed.
const CLOSE_TIME_MAX: Duration = Duration::from_secs(30);

/// The ledger on SQLite.
pub struct SqliteLedger {
    writer: Writer,
    readers: SqlitePool,
    master: MasterKey,
    send_keys: Arc<SendKeys>,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    tenant_keys: Mutex<HashMap<TenantId, TenantKeys>>,
    /// The next contact's id. Only this process makes contacts, and ids are never given twice.
    next_contact: AtomicI64,
    second_place: SecondPlace,
}

impl std::fmt::Debug for SqliteLedger {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SqliteLedger")
    }
}

impl SqliteLedger {
    /// Notes what is closed and claimed in this place as well.
    #[must_use]
    pub fn with_second_place(mut self, second_place: SecondPlace) -> Self {
        self.second_place = second_place;
        self
    }

    fn known_keys(&self, tenant: TenantId) -> Option<TenantKeys> {
        self.tenant_keys.lock().unwrap_or_else(PoisonError::into_inner).get(&tenant).cloned()
    }

    fn know_keys(&self, tenant: TenantId, keys: TenantKeys) {
        self.tenant_keys.lock().unwrap_or_else(PoisonError::into_inner).insert(tenant, keys);
    }

    fn next_contact(&self) -> i64 {
        self.next_contact.load(Ordering::Relaxed)
    }

    fn take_contacts(&self, count: usize) -> i64 {
        self.next_contact.fetch_add(i64::try_from(count).unwrap_or(i64::MAX), Ordering::Relaxed)
    }

    fn now_ms(&self) -> i64 {
        self.clock.now_ms()
    }

    fn draw(&self) -> [u8; 8] {
        dispatch_workers::clock::random(self.entropy.as_ref())
    }
}

#[async_trait]
impl Ledger for SqliteLedger {
    async fn time_ms(&self) -> Result<i64> {
        Ok(self.now_ms())
    }

    fn is_shared(&self) -> bool {
        false
    }

    async fn check(&self) -> Result<()> {
        sqlx::query("SELECT 1 FROM ledger").fetch_one(&self.readers).await?;
        self.writer
            .run("check", |conn| {
                Box::pin(async move {
                    sqlx::query("UPDATE ledger SET id = id").execute(conn).await?;
                    Ok(())
                })
            })
            .await
    }
    async fn close(&self) {
        let closed = async {
            // Readers first: while one reads, the log cannot be emptied.
            self.readers.close().await;
            self.writer.close().await;
        };
        if tokio::time::timeout(CLOSE_TIME_MAX, closed).await.is_err() {
            tracing::error!(
                "the ledger could not be closed in time; what was answered is kept, in its file and its log"
            );
        }
    }
}
