//! Sources and contact lists.

use async_trait::async_trait;
use dispatch_schemas::{
    api::{
        lists::{List, NewList, NewSource, Source},
        time::Moment,
    },
    ids::{ListId, SourceId, TenantId},
};
use sqlx::{PgConnection, Row as _, postgres::PgRow};

use super::{PostgresLedger, rows};
use crate::ledger::{LedgerError, Lists, Once, Replayable, Result};

/// Most entries of a list that is not paged.
pub(super) const ENTRIES_MAX: i64 = 1_000;

#[async_trait]
impl Lists for PostgresLedger {
    async fn create_source(
        &self,
        tenant: TenantId,
        new: &NewSource,
        once: Option<&Once>,
    ) -> Result<Replayable<Source>> {
        let (id, now_ms) = (SourceId::from_random(self.draw()), self.now_ms());
        self.once("create_source", || async {
            let mut transaction = self.for_tenant(tenant).await?;
            if let Some(earlier) = rows::replay(&mut transaction, tenant, once, now_ms).await? {
                return Ok(earlier);
            }
            sqlx::query(
                "INSERT INTO source (id, tenant_id, name, kind, legal_basis, reference, created_at_ms)
                 VALUES ($1, $2, $3, $4, $5, $6, $7)",
            )
            .bind(id.0)
            .bind(tenant.0)
            .bind(&new.name)
            .bind(new.kind.as_str())
            .bind(new.legal_basis.as_str())
            .bind(&new.reference)
            .bind(now_ms)
            .execute(&mut *transaction)
            .await?;
            let source = Source { id, source: new.clone(), created_at: Moment::from_ms(now_ms) };
            let done = rows::remember(&mut transaction, tenant, once, now_ms, source).await?;
            transaction.commit().await?;
            Ok(done)
        })
        .await
    }

    async fn sources(&self, tenant: TenantId) -> Result<Vec<Source>> {
        let rows = sqlx::query("SELECT * FROM source WHERE tenant_id = $1 ORDER BY created_at_ms DESC, id LIMIT $2")
            .bind(tenant.0)
            .bind(ENTRIES_MAX)
            .fetch_all(&mut *self.for_tenant(tenant).await?)
            .await?;
        rows.iter().map(source).collect()
    }

    async fn create_list(&self, tenant: TenantId, new: &NewList, once: Option<&Once>) -> Result<Replayable<List>> {
        let (id, now_ms) = (ListId::from_random(self.draw()), self.now_ms());
        self.once("create_list", || async {
            let mut transaction = self.for_tenant(tenant).await?;
            if let Some(earlier) = rows::replay(&mut transaction, tenant, once, now_ms).await? {
                return Ok(earlier);
            }
            check_source(&mut transaction, tenant, new.source).await?;
            let made = sqlx::query(
                "INSERT INTO list (id, tenant_id, source_id, name, created_at_ms) VALUES ($1, $2, $3, $4, $5)
                 ON CONFLICT DO NOTHING",
            )
            .bind(id.0)
            .bind(tenant.0)
            .bind(new.source.0)
            .bind(&new.name)
            .bind(now_ms)
            .execute(&mut *transaction)
            .await?
            .rows_affected();
            if made == 0 {
                return Err(LedgerError::conflict(
                    "name-taken",
                    "a list of this name exists already; choose another name, or upload into that list",
                ));
            }
            let list = List {
                id,
                name: new.name.clone(),
                source: new.source,
                contacts: 0,
                fields: Vec::new(),
                created_at: Moment::from_ms(now_ms),
            };
            let done = rows::remember(&mut transaction, tenant, once, now_ms, list).await?;
            transaction.commit().await?;
            Ok(done)
        })
        .await
    }

    async fn lists(&self, tenant: TenantId) -> Result<Vec<List>> {
        // By the bytes of the name, whatever language the database sorts in.
        let rows = sqlx::query(
            r#"SELECT * FROM list WHERE tenant_id = $1 AND kind = 'contacts' ORDER BY name COLLATE "C" LIMIT $2"#,
        )
        .bind(tenant.0)
        .bind(ENTRIES_MAX)
        .fetch_all(&mut *self.for_tenant(tenant).await?)
        .await?;
        rows.iter().map(list).collect()
    }

    async fn list(&self, tenant: TenantId, id: ListId) -> Result<List> {
        let row = sqlx::query("SELECT * FROM list WHERE tenant_id = $1 AND id = $2 AND kind = 'contacts'")
            .bind(tenant.0)
            .bind(id.0)
            .fetch_optional(&mut *self.for_tenant(tenant).await?)
            .await?
            .ok_or(LedgerError::NotFound("list"))?;
        list(&row)
    }
}

/// No contact exists without a source of its own tenant.
pub(super) async fn check_source(conn: &mut PgConnection, tenant: TenantId, source: SourceId) -> Result<()> {
    sqlx::query("SELECT 1 FROM source WHERE tenant_id = $1 AND id = $2")
        .bind(tenant.0)
        .bind(source.0)
        .fetch_optional(conn)
        .await?
        .map(drop)
        .ok_or(LedgerError::NotFound("source"))
}

fn source(row: &PgRow) -> Result<Source> {
    Ok(Source {
        id: SourceId(row.try_get("id")?),
        source: NewSource {
            name: row.try_get("name")?,
            kind: rows::word(row, "kind")?,
            legal_basis: rows::word(row, "legal_basis")?,
            reference: row.try_get("reference")?,
        },
        created_at: Moment::from_ms(row.try_get("created_at_ms")?),
    })
}

fn list(row: &PgRow) -> Result<List> {
    Ok(List {
        id: ListId(row.try_get("id")?),
        name: row.try_get("name")?,
        source: SourceId(row.try_get("source_id")?),
        contacts: row.try_get("contacts")?,
        fields: rows::json(row, "fields")?,
        created_at: Moment::from_ms(row.try_get("created_at_ms")?),
    })
}
