//! The ledger on PostgreSQL: for any number of processes.
//!
//! Two pools: one whose connections see everything, for the scheduler and the workers, and one whose connections see
//! nothing until their transaction names its tenant (row-level security, the second wall behind the tenant in every
//! statement). Rooms: [`open`] (connecting, migrating), `deliveries` (how statements find them), and one for each thing
//! the ledger keeps.
//!
//! **Gates.** A claim takes its tenant's advisory lock shared, whatever closes something (a suppression, an erasure, a
//! pause, a cancel) takes it exclusively; each then reads with a snapshot made after the lock. So every closing is
//! before or after a claim, never beside it. Locks of rows would do, but share lockers overtake a waiting exclusive
//! one, and a busy campaign could keep an opt-out waiting; the queue of an advisory lock is fair, and it costs a batch
//! one lock where rows cost one per recipient.

mod campaigns;
mod claims;
mod connecting;
mod deliveries;
mod epochs;
mod examination;
mod expansion;
mod facts;
mod gates;
mod imports;
mod limits;
mod lists;
mod messages;
mod months;
mod open;
mod operator_limits;
mod recipients;
mod retrying;
mod rows;
mod schedule;
mod statistics;
mod tally;
mod templates;
mod tenants;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use async_trait::async_trait;
use dispatch_schemas::ids::{CampaignId, TenantId};
use dispatch_workers::{
    clock::{Clock, Entropy},
    sealing::{MasterKey, SendKeys, TenantKeys},
};
use sqlx::{PgConnection, PgPool, Postgres, Transaction};

pub use self::{
    connecting::{connect_options, connect_options_without_tls},
    examination::{Examined, ExaminedLedger},
    open::{CONNECTIONS_OF_A_PROCESS, Migrated, SERVER_MIN, SETTINGS},
};
use super::{Ledger, Result};
use crate::second_place::SecondPlace;

/// The ledger on PostgreSQL.
pub struct PostgresLedger {
    /// Connections that see everything.
    engine: PgPool,
    /// Connections that see one tenant at a time.
    tenants: PgPool,
    master: MasterKey,
    send_keys: Arc<SendKeys>,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    tenant_keys: Mutex<HashMap<TenantId, TenantKeys>>,
    /// The month each campaign's deliveries are kept under; it never changes.
    months: Mutex<HashMap<CampaignId, i32>>,
    second_place: SecondPlace,
}

impl std::fmt::Debug for PostgresLedger {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PostgresLedger")
    }
}

impl PostgresLedger {
    /// Notes what is closed and claimed in this place as well.
    #[must_use]
    pub fn with_second_place(mut self, second_place: SecondPlace) -> Self {
        self.second_place = second_place;
        self
    }

    /// A transaction that sees this tenant's rows only.
    async fn for_tenant(&self, tenant: TenantId) -> Result<Transaction<'static, Postgres>> {
        let mut transaction = self.tenants.begin().await?;
        sqlx::query("SELECT set_config('dispatch.tenant', $1, true)")
            .bind(tenant.0.to_string())
            .execute(&mut *transaction)
            .await?;
        Ok(transaction)
    }

    fn known_keys(&self, tenant: TenantId) -> Option<TenantKeys> {
        self.tenant_keys.lock().unwrap_or_else(PoisonError::into_inner).get(&tenant).cloned()
    }

    fn know_keys(&self, tenant: TenantId, keys: TenantKeys) {
        self.tenant_keys.lock().unwrap_or_else(PoisonError::into_inner).insert(tenant, keys);
    }

    fn now_ms(&self) -> i64 {
        self.clock.now_ms()
    }

    fn draw(&self) -> [u8; 8] {
        dispatch_workers::clock::random(self.entropy.as_ref())
    }
}

/// Lets no closing of this tenant commit beside this transaction, for a claim.
async fn lock_gates_shared(conn: &mut PgConnection, tenant: TenantId) -> Result<()> {
    sqlx::query("SELECT pg_advisory_xact_lock_shared($1)").bind(tenant.0).execute(conn).await?;
    Ok(())
}

/// Lets no claim of this tenant commit beside this transaction, for a closing.
async fn lock_gates(conn: &mut PgConnection, tenant: TenantId) -> Result<()> {
    sqlx::query("SELECT pg_advisory_xact_lock($1)").bind(tenant.0).execute(conn).await?;
    Ok(())
}

#[async_trait]
impl Ledger for PostgresLedger {
    async fn check(&self) -> Result<()> {
        sqlx::query("UPDATE ledger SET id = id").execute(&self.engine).await?;
        Ok(())
    }

    async fn time_ms(&self) -> Result<i64> {
        let row = sqlx::query("SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint")
            .fetch_one(&self.engine)
            .await?;
        Ok(sqlx::Row::try_get(&row, 0)?)
    }

    fn is_shared(&self) -> bool {
        true
    }

    async fn close(&self) {
        self.engine.close().await;
        self.tenants.close().await;
    }
}
