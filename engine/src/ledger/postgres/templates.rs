//! Stored templates.

use async_trait::async_trait;
use dispatch_schemas::{
    api::{
        templates::{NewTemplate, StoredTemplate},
        time::Moment,
    },
    ids::{TemplateId, TenantId},
};
use sqlx::{Row as _, postgres::PgRow};

use super::{PostgresLedger, lists::ENTRIES_MAX, rows};
use crate::ledger::{LedgerError, Once, Replayable, Result, Templates};

#[async_trait]
impl Templates for PostgresLedger {
    async fn create_template(
        &self,
        tenant: TenantId,
        new: &NewTemplate,
        once: Option<&Once>,
    ) -> Result<Replayable<StoredTemplate>> {
        let (id, now_ms) = (TemplateId::from_random(self.draw()), self.now_ms());
        let source = rows::to_json(&new.source)?;
        self.once("create_template", || async {
            let mut transaction = self.for_tenant(tenant).await?;
            if let Some(earlier) = rows::replay(&mut transaction, tenant, once, now_ms).await? {
                return Ok(earlier);
            }
            let made = sqlx::query(
                "INSERT INTO template (id, tenant_id, name, source, created_at_ms) VALUES ($1, $2, $3, $4, $5)
                 ON CONFLICT (tenant_id, name) DO NOTHING",
            )
            .bind(id.0)
            .bind(tenant.0)
            .bind(&new.name)
            .bind(&source)
            .bind(now_ms)
            .execute(&mut *transaction)
            .await?
            .rows_affected();
            if made == 0 {
                return Err(LedgerError::conflict(
                    "name-taken",
                    "a template of this name exists already; templates do not change, so choose another name",
                ));
            }
            let stored = StoredTemplate { id, template: new.clone(), created_at: Moment::from_ms(now_ms) };
            let done = rows::remember(&mut transaction, tenant, once, now_ms, stored).await?;
            transaction.commit().await?;
            Ok(done)
        })
        .await
    }

    async fn templates(&self, tenant: TenantId) -> Result<Vec<StoredTemplate>> {
        let rows = sqlx::query(r#"SELECT * FROM template WHERE tenant_id = $1 ORDER BY name COLLATE "C" LIMIT $2"#)
            .bind(tenant.0)
            .bind(ENTRIES_MAX)
            .fetch_all(&mut *self.for_tenant(tenant).await?)
            .await?;
        rows.iter().map(template).collect()
    }

    async fn template(&self, tenant: TenantId, id: TemplateId) -> Result<StoredTemplate> {
        let row = sqlx::query("SELECT * FROM template WHERE tenant_id = $1 AND id = $2")
            .bind(tenant.0)
            .bind(id.0)
            .fetch_optional(&mut *self.for_tenant(tenant).await?)
            .await?
            .ok_or(LedgerError::NotFound("template"))?;
        template(&row)
    }
}

fn template(row: &PgRow) -> Result<StoredTemplate> {
    Ok(StoredTemplate {
        id: TemplateId(row.try_get("id")?),
        template: NewTemplate { name: row.try_get("name")?, source: rows::json(row, "source")? },
        created_at: Moment::from_ms(row.try_get("created_at_ms")?),
    })
}
