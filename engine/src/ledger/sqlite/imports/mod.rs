//! Uploads: all of a file or nothing.
//!
//! Contacts of a running upload are there but no campaign sees them; new values for contacts that were there before
//! wait in a table of their own. Completing makes both visible; an upload that was cut off is removed whole.

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
use sqlx::{Row as _, SqliteConnection};

use super::{SqliteLedger, rows};
use crate::ledger::{Imports, LIST_FIELDS_MAX, LedgerError, NewContacts, Result, StoreCounts};

/// Contacts changed or removed in one transaction when an upload ends.
const CONTACTS_PER_STEP: i64 = 5_000;

#[async_trait]
impl Imports for SqliteLedger {
    async fn begin_import(&self, tenant: TenantId, list: ListId) -> Result<ImportId> {
        let (id, now_ms) = (ImportId::from_random(self.draw()), self.now_ms());
        let first = self.next_contact();
        self.writer
            .run("begin_import", move |conn| {
                Box::pin(async move {
                    sqlx::query("SELECT 1 FROM list WHERE id = ? AND tenant_id = ?")
                        .bind(list.0)
                        .bind(tenant.0)
                        .fetch_optional(&mut *conn)
                        .await?
                        .ok_or(LedgerError::NotFound("list"))?;
                    let busy = sqlx::query(
                        "SELECT 1 FROM import WHERE list_id = ? AND state IN ('running', 'applying', 'rolling_back')",
                    )
                    .bind(list.0)
                    .fetch_optional(&mut *conn)
                    .await?;
                    if busy.is_some() {
                        return Err(LedgerError::conflict(
                            "import-running",
                            "another upload into this list is still running; wait until it has ended",
                        ));
                    }
                    sqlx::query(
                        "INSERT INTO import (id, tenant_id, list_id, state, totals, first_contact, created_at_ms)
                         VALUES (?, ?, ?, 'running', ?, ?, ?)",
                    )
                    .bind(id.0)
                    .bind(tenant.0)
                    .bind(list.0)
                    .bind(rows::to_json(&ImportTotals::default())?)
                    .bind(first)
                    .bind(now_ms)
                    .execute(conn)
                    .await?;
                    Ok(id)
                })
            })
            .await
    }

    async fn contact_ids(&self, count: usize) -> Result<ContactId> {
        Ok(ContactId(self.take_contacts(count)))
    }

    async fn store_contacts(&self, contacts: NewContacts) -> Result<StoreCounts> {
        let keys = super::Tenants::tenant_keys(self, contacts.tenant).await?;
        let entropy = self.entropy.clone();
        self.writer
            .run("store_contacts", move |conn| {
                Box::pin(async move { store::store(conn, contacts, &keys, entropy.as_ref()).await })
            })
            .await
    }

    async fn note_import(&self, import: ImportId, totals: &ImportTotals, report: &serde_json::Value) -> Result<()> {
        let (totals, report) = (rows::to_json(totals)?, rows::to_json(report)?);
        self.writer
            .run("note_import", move |conn| {
                Box::pin(async move {
                    sqlx::query("UPDATE import SET totals = ?, report = ? WHERE id = ?")
                        .bind(totals)
                        .bind(report)
                        .bind(import.0)
                        .execute(conn)
                        .await?;
                    Ok(())
                })
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
        self.note_import(import, totals, report).await?;
        let fields = rows::to_json(&fields)?;
        self.writer
            .run("complete_import", move |conn| {
                Box::pin(async move {
                    sqlx::query("UPDATE import SET state = 'applying', fields = ? WHERE id = ?")
                        .bind(fields)
                        .bind(import.0)
                        .execute(conn)
                        .await?;
                    Ok(())
                })
            })
            .await?;
        self.apply_import(import).await
    }

    async fn roll_back_import(&self, import: ImportId, why: &str) -> Result<()> {
        self.writer
            .run("roll_back_import", move |conn| {
                Box::pin(async move {
                    sqlx::query("UPDATE import SET state = 'rolling_back' WHERE id = ?")
                        .bind(import.0)
                        .execute(conn)
                        .await?;
                    Ok(())
                })
            })
            .await?;
        self.remove_import(import, why).await
    }

    async fn recover_imports(&self) -> Result<u64> {
        let rows = sqlx::query("SELECT id, state FROM import WHERE state IN ('running', 'applying', 'rolling_back')")
            .fetch_all(&self.readers)
            .await?;
        for row in &rows {
            let id = ImportId(row.try_get("id")?);
            let why = "the engine stopped before the upload had ended; upload it again";
            match rows::word(row, "state")? {
                ImportState::Applying => self.apply_import(id).await?,
                ImportState::Running | ImportState::RollingBack | ImportState::Completed | ImportState::Failed => {
                    self.roll_back_import(id, why).await?;
                }
            }
        }
        Ok(rows.len() as u64)
    }

    async fn import(&self, tenant: TenantId, import: ImportId) -> Result<Import> {
        let row = sqlx::query("SELECT * FROM import WHERE tenant_id = ? AND id = ?")
            .bind(tenant.0)
            .bind(import.0)
            .fetch_optional(&self.readers)
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

impl SqliteLedger {
    /// Applies an upload's changes in steps, then makes its contacts visible.
    async fn apply_import(&self, import: ImportId) -> Result<()> {
        let now_ms = self.now_ms();
        while self.writer.run("apply_import", move |conn| Box::pin(apply_step(conn, import, now_ms))).await? {}
        Ok(())
    }

    /// Removes an upload's contacts in steps, then marks it failed.
    async fn remove_import(&self, import: ImportId, why: &str) -> Result<()> {
        let now_ms = self.now_ms();
        loop {
            let why = why.to_owned();
            let more =
                self.writer.run("remove_import", move |conn| Box::pin(remove_step(conn, import, why, now_ms))).await?;
            if !more {
                return Ok(());
            }
        }
    }
}

async fn apply_step(conn: &mut SqliteConnection, import: ImportId, now_ms: i64) -> Result<bool> {
    let changes = sqlx::query("SELECT contact_id FROM contact_change WHERE import_id = ? ORDER BY contact_id LIMIT ?")
        .bind(import.0)
        .bind(CONTACTS_PER_STEP)
        .fetch_all(&mut *conn)
        .await?;
    if let Some(last) = changes.last() {
        let last: i64 = last.try_get(0)?;
        sqlx::query(
            "UPDATE contact SET fields = coalesce(n.fields, contact.fields), phone = coalesce(n.phone, contact.phone),
                    phone_hash = coalesce(n.phone_hash, contact.phone_hash),
                    phone_destination = coalesce(n.phone_destination, contact.phone_destination)
               FROM contact_change n
              WHERE n.import_id = ?1 AND n.contact_id <= ?2 AND contact.id = n.contact_id",
        )
        .bind(import.0)
        .bind(last)
        .execute(&mut *conn)
        .await?;
        sqlx::query("DELETE FROM contact_change WHERE import_id = ? AND contact_id <= ?")
            .bind(import.0)
            .bind(last)
            .execute(conn)
            .await?;
        return Ok(true);
    }
    sqlx::query(
        "UPDATE list SET contacts = contacts + (SELECT (totals ->> 'added') - erased FROM import WHERE id = ?1),
                fields = (SELECT json_group_array(name) FROM (
                    SELECT value AS name FROM json_each(list.fields)
                     UNION SELECT f.value FROM import i, json_each(i.fields) f WHERE i.id = ?1
                     ORDER BY name LIMIT ?2))
          WHERE id = (SELECT list_id FROM import WHERE id = ?1 AND state = 'applying')",
    )
    .bind(import.0)
    .bind(LIST_FIELDS_MAX)
    .execute(&mut *conn)
    .await?;
    sqlx::query("UPDATE import SET state = 'completed', ended_at_ms = ? WHERE id = ? AND state = 'applying'")
        .bind(now_ms)
        .bind(import.0)
        .execute(conn)
        .await?;
    Ok(false)
}

async fn remove_step(conn: &mut SqliteConnection, import: ImportId, why: String, now_ms: i64) -> Result<bool> {
    let removed = sqlx::query(
        "DELETE FROM contact WHERE id IN (
             SELECT c.id FROM import i CROSS JOIN contact c ON c.list_id = i.list_id AND c.id >= i.first_contact
              WHERE i.id = ?1 AND c.import_id = ?1 LIMIT ?2)",
    )
    .bind(import.0)
    .bind(CONTACTS_PER_STEP)
    .execute(&mut *conn)
    .await?
    .rows_affected();
    if removed > 0 {
        return Ok(true);
    }
    sqlx::query("DELETE FROM contact_change WHERE import_id = ?").bind(import.0).execute(&mut *conn).await?;
    sqlx::query("UPDATE import SET state = 'failed', error = ?, ended_at_ms = ? WHERE id = ?")
        .bind(why)
        .bind(now_ms)
        .bind(import.0)
        .execute(conn)
        .await?;
    Ok(false)
}
