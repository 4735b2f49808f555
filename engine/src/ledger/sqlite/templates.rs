//! Stored templates.

use async_trait::async_trait;
use dispatch_schemas::{
    api::{
        templates::{NewTemplate, StoredTemplate},
        time::Moment,
    },
    ids::{TemplateId, TenantId},
};
use sqlx::{Row as _, sqlite::SqliteRow};

use super::{SqliteLedger, lists::ENTRIES_MAX, rows};
use crate::ledger::{LedgerError, Once, Replayable, Result, Templates};

#[async_trait]
impl Templates for SqliteLedger {
    async fn create_template(
        &self,
        tenant: TenantId,
        new: &NewTemplate,
        once: Option<&Once>,
    ) -> Result<Replayable<StoredTemplate>> {
        let (id, now_ms) = (TemplateId::from_random(self.draw()), self.now_ms());
        let stored = StoredTemplate { id, template: new.clone(), created_at: Moment::from_ms(now_ms) };
        let once = once.cloned();
        self.writer
            .run("create_template", move |conn| {
                Box::pin(async move {
                    if let Some(earlier) = rows::replay(conn, tenant, once.as_ref(), now_ms).await? {
                        return Ok(earlier);
                    }
                    let made = sqlx::query(
                        "INSERT INTO template (id, tenant_id, name, source, created_at_ms) VALUES (?, ?, ?, ?, ?)
                         ON CONFLICT (tenant_id, name) DO NOTHING",
                    )
                    .bind(id.0)
                    .bind(tenant.0)
                    .bind(&stored.template.name)
                    .bind(rows::to_json(&stored.template.source)?)
                    .bind(now_ms)
                    .execute(&mut *conn)
                    .await?
                    .rows_affected();
                    if made == 0 {
                        return Err(LedgerError::conflict(
                            "name-taken",
                            "a template of this name exists already; templates do not change, so choose another name",
                        ));
                    }
                    rows::remember(conn, tenant, once.as_ref(), now_ms, stored).await
                })
            })
            .await
    }

    async fn templates(&self, tenant: TenantId) -> Result<Vec<StoredTemplate>> {
        let rows = sqlx::query("SELECT * FROM template WHERE tenant_id = ? ORDER BY name LIMIT ?")
            .bind(tenant.0)
            .bind(ENTRIES_MAX)
            .fetch_all(&self.readers)
            .await?;
        rows.iter().map(template).collect()
    }

    async fn template(&self, tenant: TenantId, id: TemplateId) -> Result<StoredTemplate> {
        let row = sqlx::query("SELECT * FROM template WHERE tenant_id = ? AND id = ?")
            .bind(tenant.0)
            .bind(id.0)
            .fetch_optional(&self.readers)
            .await?
            .ok_or(LedgerError::NotFound("template"))?;
        template(&row)
    }
}

fn template(row: &SqliteRow) -> Result<StoredTemplate> {
    Ok(StoredTemplate {
        id: TemplateId(row.try_get("id")?),
        template: NewTemplate { name: row.try_get("name")?, source: rows::json(row, "source")? },
        created_at: Moment::from_ms(row.try_get("created_at_ms")?),
    })
}
