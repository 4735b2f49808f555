//! Uploads: all of a file or nothing.
//!
//! Contacts of a running upload are there but no campaign sees them; new values for contacts that were there before
//! wait in a table of their own. Completing makes both visible; an upload that was cut off is removed whole.
//!
//! Every step holds its tenant's gates shared: an erasure is before it, and its gates shut the person out, or after
//! it, and finds all of the person's rows. It holds the upload's row too, so that of two processes that end one upload
//! each step is done by one.

mod store;

use async_trait::async_trait;
use dispatch_schemas::{
    api::{
        lists::{Import, ImportTotals},
        time::Moment,
    },
    ids::{ContactId, ImportId, ListId, TenantId},
    states::ImportState,
};
use sqlx::{PgConnection, Row as _};

use super::{PostgresLedger, lock_gates_shared, rows};
use crate::ledger::{
    Imports, LIST_FIELDS_MAX, LedgerError, NewContacts, Result, StoreCounts, Tenants, UPLOAD_SILENT_MS,
};

/// Contacts changed or removed in one transaction when an upload ends: bounds how long an opt-out waits for it.
const CONTACTS_PER_STEP: i64 = 5_000;
/// The advisory lock under which contacts' ids are taken: "DSPC".
const CONTACT_IDS: i32 = 0x4453_5043;

#[async_trait]
impl Imports for PostgresLedger {
    async fn begin_import(&self, tenant: TenantId, list: ListId) -> Result<ImportId> {
        let (id, now_ms) = (ImportId::from_random(self.draw()), self.now_ms());
        let totals = rows::to_json(&ImportTotals::default())?;
        self.once("begin_import", || async {
            let mut transaction = self.for_tenant(tenant).await?;
            sqlx::query("SELECT 1 FROM list WHERE id = $1 AND tenant_id = $2")
                .bind(list.0)
                .bind(tenant.0)
                .fetch_optional(&mut *transaction)
                .await?
                .ok_or(LedgerError::NotFound("list"))?;
            // Contacts are given ids above the last one that was taken.
            let begun = sqlx::query(
                "INSERT INTO import (id, tenant_id, list_id, state, totals, first_contact, created_at_ms, seen_at_ms)
                 SELECT $1, $2, $3, 'running', $4, last_value, $5, $5 FROM contact_id ON CONFLICT DO NOTHING",
            )
            .bind(id.0)
            .bind(tenant.0)
            .bind(list.0)
            .bind(&totals)
            .bind(now_ms)
            .execute(&mut *transaction)
            .await?
            .rows_affected();
            if begun == 0 {
                return Err(LedgerError::conflict(
                    "import-running",
                    "another upload into this list is still running; wait until it has ended",
                ));
            }
            transaction.commit().await?;
            Ok(id)
        })
        .await
    }

    async fn contact_ids(&self, count: usize) -> Result<ContactId> {
        let count = i64::try_from(count).unwrap_or(i64::MAX).max(1);
        self.repeatable("contact_ids", || async {
            // A sequence gives one number at a time; the lock keeps those of a block together.
            let last: i64 = sqlx::query(
                "WITH alone AS MATERIALIZED (SELECT pg_advisory_xact_lock($2, 0))
                 SELECT CASE $1 WHEN 1 THEN nextval('contact_id')
                        ELSE setval('contact_id', nextval('contact_id') + $1 - 1) END FROM alone",
            )
            .bind(count)
            .bind(CONTACT_IDS)
            .fetch_one(&self.engine)
            .await?
            .try_get(0)?;
            Ok(ContactId(last - count + 1))
        })
        .await
    }

    async fn store_contacts(&self, contacts: NewContacts) -> Result<StoreCounts> {
        let keys = Tenants::tenant_keys(self, contacts.tenant).await?;
        let (contacts, keys, now_ms) = (&contacts, &keys, self.now_ms());
        self.once("store_contacts", || async {
            let mut transaction = self.for_tenant(contacts.tenant).await?;
            lock_gates_shared(&mut transaction, contacts.tenant).await?;
            let counts = store::store(&mut transaction, contacts, keys, self.entropy.as_ref(), now_ms).await?;
            transaction.commit().await?;
            Ok(counts)
        })
        .await
    }

    async fn note_import(&self, import: ImportId, totals: &ImportTotals, report: &serde_json::Value) -> Result<()> {
        let tenant = self.tenant_of(import).await?;
        let (totals, report, now_ms) = (rows::to_json(totals)?, rows::to_json(report)?, self.now_ms());
        self.repeatable("note_import", || async {
            let mut transaction = self.for_tenant(tenant).await?;
            sqlx::query("UPDATE import SET totals = $1, report = $2, seen_at_ms = $3 WHERE id = $4")
                .bind(&totals)
                .bind(&report)
                .bind(now_ms)
                .bind(import.0)
                .execute(&mut *transaction)
                .await?;
            Ok(transaction.commit().await?)
        })
        .await
    }

    async fn complete_import(
        &self,
        import: ImportId,
        totals: &ImportTotals,
        fields: &[String],
        report: &serde_json::Value,
    ) -> Result<()> {
        let tenant = self.tenant_of(import).await?;
        let fields = rows::to_json(&fields)?;
        let added = i64::try_from(totals.added).unwrap_or(i64::MAX);
        let (totals, report, now_ms) = (rows::to_json(totals)?, rows::to_json(report)?, self.now_ms());
        let state = self
            .repeatable("begin_apply_import", || async {
                let mut transaction = self.for_tenant(tenant).await?;
                sqlx::query(
                    "UPDATE import SET totals = $1, report = $2, seen_at_ms = $3, fields = $5, state = 'applying'
                      WHERE id = $4 AND state = 'running'",
                )
                .bind(&totals)
                .bind(&report)
                .bind(now_ms)
                .bind(import.0)
                .bind(&fields)
                .execute(&mut *transaction)
                .await?;
                let state = state_of(&mut transaction, import).await?;
                transaction.commit().await?;
                Ok(state)
            })
            .await?;
        self.count_again("contact", added).await;
        match state {
            ImportState::Applying => self.apply_import(tenant, import).await,
            // An answer that was lost on its way.
            ImportState::Completed => Ok(()),
            ImportState::Running | ImportState::RollingBack | ImportState::Failed => Err(ended()),
        }
    }

    async fn roll_back_import(&self, import: ImportId, why: &str) -> Result<()> {
        let tenant = self.tenant_of(import).await?;
        match self.begin_roll_back(tenant, import, i64::MAX).await? {
            ImportState::RollingBack => self.remove_import(tenant, import, why).await,
            ImportState::Failed => Ok(()),
            ImportState::Running | ImportState::Applying | ImportState::Completed => Err(ended()),
        }
    }

    async fn recover_imports(&self) -> Result<u64> {
        // What another process works on is not this one's to end.
        let silent_since_ms = self.now_ms() - UPLOAD_SILENT_MS;
        let rows = sqlx::query(
            "SELECT id, tenant_id FROM import
              WHERE state IN ('running', 'applying', 'rolling_back') AND seen_at_ms < $1",
        )
        .bind(silent_since_ms)
        .fetch_all(&self.engine)
        .await?;
        for row in &rows {
            let (id, tenant) = (ImportId(row.try_get("id")?), TenantId(row.try_get("tenant_id")?));
            match self.begin_roll_back(tenant, id, silent_since_ms).await? {
                ImportState::Applying => self.apply_import(tenant, id).await?,
                ImportState::RollingBack => {
                    let why = "the engine stopped before the upload had ended; upload it again";
                    self.remove_import(tenant, id, why).await?;
                }
                // It was heard of again, or another process has ended it.
                ImportState::Running | ImportState::Completed | ImportState::Failed => {}
            }
        }
        Ok(rows.len() as u64)
    }

    async fn import(&self, tenant: TenantId, import: ImportId) -> Result<Import> {
        let row = sqlx::query("SELECT * FROM import WHERE tenant_id = $1 AND id = $2")
            .bind(tenant.0)
            .bind(import.0)
            .fetch_optional(&mut *self.for_tenant(tenant).await?)
            .await?
            .ok_or(LedgerError::NotFound("import"))?;
        Ok(Import {
            id: import,
            list: ListId(row.try_get("list_id")?),
            state: rows::word(&row, "state")?,
            totals: rows::json(&row, "totals")?,
            report: rows::json(&row, "report")?,
            error: row.try_get("error")?,
            created_at: Moment::from_ms(row.try_get("created_at_ms")?),
            ended_at: row.try_get::<Option<i64>, _>("ended_at_ms")?.map(Moment::from_ms),
        })
    }
}

fn ended() -> LedgerError {
    LedgerError::conflict("import-ended", "this upload has ended; begin a new one")
}

impl PostgresLedger {
    async fn tenant_of(&self, import: ImportId) -> Result<TenantId> {
        let row = sqlx::query("SELECT tenant_id FROM import WHERE id = $1")
            .bind(import.0)
            .fetch_optional(&self.engine)
            .await?
            .ok_or(LedgerError::NotFound("import"))?;
        Ok(TenantId(row.try_get(0)?))
    }

    /// Lets a running upload take no more contacts, if nothing was written for it since then. Returns where it stands.
    async fn begin_roll_back(&self, tenant: TenantId, import: ImportId, silent_since_ms: i64) -> Result<ImportState> {
        self.repeatable("begin_roll_back_import", || async {
            let mut transaction = self.for_tenant(tenant).await?;
            sqlx::query(
                "UPDATE import SET state = 'rolling_back' WHERE id = $1 AND state = 'running' AND seen_at_ms < $2",
            )
            .bind(import.0)
            .bind(silent_since_ms)
            .execute(&mut *transaction)
            .await?;
            let state = state_of(&mut transaction, import).await?;
            transaction.commit().await?;
            Ok(state)
        })
        .await
    }

    /// Applies an upload's changes in steps, then makes its contacts visible.
    async fn apply_import(&self, tenant: TenantId, import: ImportId) -> Result<()> {
        let now_ms = self.now_ms();
        let step = || async {
            let mut transaction = self.for_tenant(tenant).await?;
            lock_gates_shared(&mut transaction, tenant).await?;
            let more = apply_step(&mut transaction, import, now_ms).await?;
            transaction.commit().await?;
            Ok(more)
        };
        while self.repeatable("apply_import", step).await? {}
        Ok(())
    }

    /// Removes an upload's contacts in steps, then marks it failed.
    async fn remove_import(&self, tenant: TenantId, import: ImportId, why: &str) -> Result<()> {
        let now_ms = self.now_ms();
        let step = || async {
            let mut transaction = self.for_tenant(tenant).await?;
            lock_gates_shared(&mut transaction, tenant).await?;
            let more = remove_step(&mut transaction, import, why, now_ms).await?;
            transaction.commit().await?;
            Ok(more)
        };
        while self.repeatable("remove_import", step).await? {}
        Ok(())
    }
}

async fn state_of(conn: &mut PgConnection, import: ImportId) -> Result<ImportState> {
    let row = sqlx::query("SELECT state FROM import WHERE id = $1").bind(import.0).fetch_one(conn).await?;
    rows::word(&row, "state")
}

/// Takes the upload's row and says that its process lives; whether it is still in this state.
async fn hold(conn: &mut PgConnection, import: ImportId, state: ImportState, now_ms: i64) -> Result<bool> {
    let held = sqlx::query("UPDATE import SET seen_at_ms = greatest(seen_at_ms, $1) WHERE id = $2 AND state = $3")
        .bind(now_ms)
        .bind(import.0)
        .bind(state.as_str())
        .execute(conn)
        .await?;
    Ok(held.rows_affected() == 1)
}

async fn apply_step(conn: &mut PgConnection, import: ImportId, now_ms: i64) -> Result<bool> {
    if !hold(conn, import, ImportState::Applying, now_ms).await? {
        return Ok(false);
    }
    let changes: i64 = sqlx::query(
        "WITH step AS (
             DELETE FROM contact_change WHERE import_id = $1 AND contact_id IN
                 (SELECT contact_id FROM contact_change WHERE import_id = $1 ORDER BY contact_id LIMIT $2)
             RETURNING *),
         applied AS (
             UPDATE contact SET fields = coalesce(n.fields, contact.fields), phone = coalesce(n.phone, contact.phone),
                    phone_hash = coalesce(n.phone_hash, contact.phone_hash),
                    phone_destination = coalesce(n.phone_destination, contact.phone_destination)
               FROM step n WHERE contact.id = n.contact_id)
         SELECT count(*) FROM step",
    )
    .bind(import.0)
    .bind(CONTACTS_PER_STEP)
    .fetch_one(&mut *conn)
    .await?
    .try_get(0)?;
    if changes > 0 {
        return Ok(true);
    }
    sqlx::query(
        "UPDATE list SET contacts = list.contacts + (i.totals::jsonb ->> 'added')::bigint - i.erased,
                fields = (SELECT coalesce(jsonb_agg(known.name), '[]')::text FROM (
                    SELECT name FROM (
                        SELECT jsonb_array_elements_text(list.fields::jsonb) AS name
                         UNION SELECT jsonb_array_elements_text(i.fields::jsonb)) AS every
                     ORDER BY name COLLATE \"C\" LIMIT $2) AS known)
           FROM import i WHERE i.id = $1 AND list.id = i.list_id",
    )
    .bind(import.0)
    .bind(LIST_FIELDS_MAX)
    .execute(&mut *conn)
    .await?;
    sqlx::query("UPDATE import SET state = 'completed', ended_at_ms = $1 WHERE id = $2")
        .bind(now_ms)
        .bind(import.0)
        .execute(conn)
        .await?;
    Ok(false)
}

async fn remove_step(conn: &mut PgConnection, import: ImportId, why: &str, now_ms: i64) -> Result<bool> {
    if !hold(conn, import, ImportState::RollingBack, now_ms).await? {
        return Ok(false);
    }
    let removed = sqlx::query(
        "DELETE FROM contact WHERE id IN (
             SELECT c.id FROM import i JOIN contact c ON c.list_id = i.list_id AND c.id >= i.first_contact
              WHERE i.id = $1 AND c.import_id = $1 LIMIT $2)",
    )
    .bind(import.0)
    .bind(CONTACTS_PER_STEP)
    .execute(&mut *conn)
    .await?
    .rows_affected();
    if removed > 0 {
        return Ok(true);
    }
    sqlx::query("DELETE FROM contact_change WHERE import_id = $1").bind(import.0).execute(&mut *conn).await?;
    sqlx::query("UPDATE import SET state = 'failed', error = $1, ended_at_ms = $2 WHERE id = $3")
        .bind(why)
        .bind(now_ms)
        .bind(import.0)
        .execute(conn)
        .await?;
    Ok(false)
}
