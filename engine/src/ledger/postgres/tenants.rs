//! Tenants, their keys, limits and API keys.

use async_trait::async_trait;
use dispatch_schemas::{
    api::{
        keys::{ApiKey, Permission, Tenant, TenantClosure, TenantStopped},
        limits::Windows,
        time::Moment,
    },
    ids::{KeyId, TenantId},
};
use dispatch_workers::sealing::TenantKeys;
use sqlx::{PgConnection, Row as _, postgres::PgRow};

use super::{PostgresLedger, lock_gates, rows};
use crate::{
    ledger::{LedgerError, Result, StoredKey, Tenants},
    second_place::Note,
};

#[async_trait]
impl Tenants for PostgresLedger {
    async fn tenant(&self, name: &str) -> Result<Tenant> {
        if let Some(tenant) = self.find_tenant(name).await? {
            return Ok(tenant);
        }
        let id = TenantId::from_random(self.draw());
        let (_, wrapped) = self.master.new_tenant(id, self.entropy.as_ref());
        let now_ms = self.now_ms();
        self.repeatable("create_tenant", || async {
            sqlx::query(
                "INSERT INTO tenant (id, name, root_key, created_at_ms) VALUES ($1, $2, $3, $4)
                 ON CONFLICT (name) DO NOTHING",
            )
            .bind(id.0)
            .bind(name)
            .bind(wrapped.as_slice())
            .bind(now_ms)
            .execute(&self.engine)
            .await?;
            Ok(())
        })
        .await?;
        self.find_tenant(name).await?.ok_or(LedgerError::NotFound("tenant"))
    }

    async fn find_tenant(&self, name: &str) -> Result<Option<Tenant>> {
        let row = sqlx::query("SELECT * FROM tenant WHERE name = $1").bind(name).fetch_optional(&self.engine).await?;
        row.as_ref().map(tenant_of).transpose()
    }

    async fn tenants(&self) -> Result<Vec<Tenant>> {
        let rows = sqlx::query("SELECT * FROM tenant ORDER BY name COLLATE \"C\"").fetch_all(&self.engine).await?;
        rows.iter().map(tenant_of).collect()
    }

    async fn close_tenant(&self, tenant: TenantId, reason: &str) -> Result<TenantStopped> {
        let note = Note::TenantClosed { tenant, reason: reason.to_owned() };
        let now_ms = self.now_ms();
        let done = self
            .repeatable("close_tenant", || async {
                let mut transaction = self.engine.begin().await?;
                lock_gates(&mut transaction, tenant).await?;
                let row = sqlx::query(
                    "UPDATE tenant SET closed_at_ms = coalesce(closed_at_ms, $2), closed_reason = $3 WHERE id = $1
                 RETURNING *",
                )
                .bind(tenant.0)
                .bind(now_ms)
                .bind(reason)
                .fetch_optional(&mut *transaction)
                .await?
                .ok_or(LedgerError::NotFound("tenant"))?;
                let in_flight = sqlx::query(
                    "SELECT coalesce(sum(t.deliveries), 0)::bigint AS in_flight
                   FROM campaign c JOIN tally t ON t.campaign_id = c.id
                  WHERE c.tenant_id = $1 AND t.state = 'claimed'",
                )
                .bind(tenant.0)
                .fetch_one(&mut *transaction)
                .await?;
                let in_flight = rows::count(&in_flight, "in_flight")?;
                transaction.commit().await?;
                Ok(TenantStopped { tenant: tenant_of(&row)?, in_flight })
            })
            .await?;
        self.second_place.note(self.now_ms(), note).await?;
        Ok(done)
    }

    async fn open_tenant(&self, tenant: TenantId) -> Result<Tenant> {
        let done = self
            .repeatable("open_tenant", || async {
                let row = sqlx::query(
                    "UPDATE tenant SET closed_at_ms = NULL, closed_reason = NULL WHERE id = $1 RETURNING *",
                )
                .bind(tenant.0)
                .fetch_optional(&self.engine)
                .await?
                .ok_or(LedgerError::NotFound("tenant"))?;
                tenant_of(&row)
            })
            .await?;
        self.second_place.note(self.now_ms(), Note::TenantOpened { tenant }).await?;
        Ok(done)
    }

    async fn tenant_keys(&self, tenant: TenantId) -> Result<TenantKeys> {
        if let Some(keys) = self.known_keys(tenant) {
            return Ok(keys);
        }
        let row = sqlx::query("SELECT root_key FROM tenant WHERE id = $1")
            .bind(tenant.0)
            .fetch_optional(&mut *self.for_tenant(tenant).await?)
            .await?
            .ok_or(LedgerError::NotFound("tenant"))?;
        let keys = self
            .master
            .open_tenant(tenant, row.try_get(0)?)
            .map_err(|_| LedgerError::Corrupt("a tenant's key that does not open"))?;
        self.know_keys(tenant, keys.clone());
        Ok(keys)
    }

    async fn tenant_limits(&self, tenant: TenantId) -> Result<Windows> {
        let row = sqlx::query("SELECT limits FROM tenant WHERE id = $1")
            .bind(tenant.0)
            .fetch_optional(&mut *self.for_tenant(tenant).await?)
            .await?
            .ok_or(LedgerError::NotFound("tenant"))?;
        rows::json(&row, "limits")
    }

    async fn set_tenant_limits(&self, tenant: TenantId, limits: Windows) -> Result<()> {
        let limits = rows::to_json(&limits)?;
        self.repeatable("set_tenant_limits", || async {
            let mut transaction = self.for_tenant(tenant).await?;
            let changed = sqlx::query("UPDATE tenant SET limits = $1 WHERE id = $2")
                .bind(&limits)
                .bind(tenant.0)
                .execute(&mut *transaction)
                .await?
                .rows_affected();
            transaction.commit().await?;
            if changed == 1 { Ok(()) } else { Err(LedgerError::NotFound("tenant")) }
        })
        .await
    }

    async fn create_key(
        &self,
        id: KeyId,
        tenant: TenantId,
        label: &str,
        permissions: &[Permission],
        secret_hash: [u8; 32],
        expires_at_ms: i64,
    ) -> Result<ApiKey> {
        let words: Vec<&str> = permissions.iter().map(|permission| permission.as_str()).collect();
        let (permissions, now_ms) = (words.join(" "), self.now_ms());
        self.once("create_key", || async {
            let mut transaction = self.for_tenant(tenant).await?;
            sqlx::query(
                "INSERT INTO api_key (id, tenant_id, label, permissions, secret_hash, created_at_ms, expires_at_ms)
                 VALUES ($1, $2, $3, $4, $5, $6, $7)",
            )
            .bind(id.0)
            .bind(tenant.0)
            .bind(label)
            .bind(&permissions)
            .bind(secret_hash.as_slice())
            .bind(now_ms)
            .bind(expires_at_ms)
            .execute(&mut *transaction)
            .await?;
            Ok(transaction.commit().await?)
        })
        .await?;
        Ok(self.find_key(id).await?.ok_or(LedgerError::NotFound("key"))?.key)
    }

    async fn find_key(&self, id: KeyId) -> Result<Option<StoredKey>> {
        // The key is what tells the tenant.
        let row = sqlx::query("SELECT * FROM api_key WHERE id = $1").bind(id.0).fetch_optional(&self.engine).await?;
        row.map(|row| {
            let secret_hash: &[u8] = row.try_get("secret_hash")?;
            let secret_hash = secret_hash.try_into().map_err(|_| LedgerError::Corrupt("a key's hash"))?;
            Ok(StoredKey { key: api_key(&row)?, secret_hash })
        })
        .transpose()
    }

    async fn keys(&self, tenant: Option<TenantId>) -> Result<Vec<ApiKey>> {
        let rows = match tenant {
            Some(tenant) => {
                sqlx::query("SELECT * FROM api_key WHERE tenant_id = $1 ORDER BY created_at_ms, id")
                    .bind(tenant.0)
                    .fetch_all(&mut *self.for_tenant(tenant).await?)
                    .await?
            }
            None => sqlx::query("SELECT * FROM api_key ORDER BY created_at_ms, id").fetch_all(&self.engine).await?,
        };
        rows.iter().map(api_key).collect()
    }

    async fn revoke_key(&self, id: KeyId) -> Result<ApiKey> {
        let now_ms = self.now_ms();
        self.repeatable("revoke_key", || async {
            sqlx::query("UPDATE api_key SET revoked_at_ms = coalesce(revoked_at_ms, $1) WHERE id = $2")
                .bind(now_ms)
                .bind(id.0)
                .execute(&self.engine)
                .await?;
            Ok(())
        })
        .await?;
        self.second_place.note(now_ms, Note::KeyRevoked { key: id }).await?;
        Ok(self.find_key(id).await?.ok_or(LedgerError::NotFound("key"))?.key)
    }
}

fn api_key(row: &PgRow) -> Result<ApiKey> {
    let stored: &str = row.try_get("permissions")?;
    let permissions =
        Permission::ALL.iter().copied().filter(|known| stored.split(' ').any(|word| word == known.as_str())).collect();
    Ok(ApiKey {
        id: KeyId(row.try_get("id")?),
        tenant: TenantId(row.try_get("tenant_id")?),
        label: row.try_get("label")?,
        permissions,
        created_at: Moment::from_ms(row.try_get("created_at_ms")?),
        expires_at: Moment::from_ms(row.try_get("expires_at_ms")?),
        revoked_at: row.try_get::<Option<i64>, _>("revoked_at_ms")?.map(Moment::from_ms),
    })
}

/// Refuses what would send for a closed tenant.
pub(super) async fn require_open(conn: &mut PgConnection, tenant: TenantId) -> Result<()> {
    let row = sqlx::query("SELECT closed_reason FROM tenant WHERE id = $1")
        .bind(tenant.0)
        .fetch_optional(conn)
        .await?
        .ok_or(LedgerError::NotFound("tenant"))?;
    match row.try_get(0)? {
        None => Ok(()),
        Some(reason) => Err(LedgerError::TenantClosed { reason }),
    }
}

fn tenant_of(row: &PgRow) -> Result<Tenant> {
    let closed_at_ms = row.try_get::<Option<i64>, _>("closed_at_ms")?;
    let reason = row.try_get::<Option<String>, _>("closed_reason")?;
    let closed = closed_at_ms.zip(reason).map(|(at_ms, reason)| TenantClosure { at: Moment::from_ms(at_ms), reason });
    Ok(Tenant {
        closed,
        id: TenantId(row.try_get("id")?),
        name: row.try_get("name")?,
        created_at: Moment::from_ms(row.try_get("created_at_ms")?),
    })
}
