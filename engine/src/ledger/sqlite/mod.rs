//! The ledger on SQLite: one file in WAL mode with `synchronous=FULL`, one writer, some readers.
//!
//! A lock file beside it keeps a second process out. Rooms: [`open`] (the file), `writer` (group commit), and one for
//! each thing the ledger keeps.

mod campaigns;
mod claims;
mod expansion;
mod gates;
mod imports;
mod lists;
mod messages;
mod open;
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
};

use async_trait::async_trait;
use dispatch_schemas::ids::TenantId;
use dispatch_workers::{
    clock::{Clock, Entropy},
    sealing::{MasterKey, SendKeys, TenantKeys},
};
use sqlx::SqlitePool;
use writer::Writer;

use super::{Ledger, Result, Tenants};

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
    /// Held as long as this ledger is open.
    _lock: std::fs::File,
}

impl std::fmt::Debug for SqliteLedger {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SqliteLedger")
    }
}

impl SqliteLedger {
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
}
