//! Tenants, their keys and their limits.

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
use sqlx::{Row as _, SqliteConnection, sqlite::SqliteRow};

use super::{SqliteLedger, rows};
use crate::{
    ledger::{LedgerError, Result, StoredKey, Tenants},
    second_place::Note,
};

#[async_trait]
impl Tenants for SqliteLedger {
    async fn tenant(&self, name: &str) -> Result<Tenant> {
        if let Some(tenant) = self.find_tenant(name).await? {
            return Ok(tenant);
        }
        let id = TenantId::from_random(self.draw());
        let (_, wrapped) = self.master.new_tenant(id, self.entropy.as_ref());
        let (owned, now_ms) = (name.to_owned(), self.now_ms());
        self.writer
            .run("create_tenant", move |conn| {
                Box::pin(async move {
                    sqlx::query(
                        "INSERT INTO tenant (id, name, root_key, created_at_ms) VALUES (?, ?, ?, ?)
                         ON CONFLICT (name) DO NOTHING",
                    )
                    .bind(id.0)
                    .bind(owned)
                    .bind(wrapped)
                    .bind(now_ms)
                    .execute(conn)
                    .await?;
                    Ok(())
                })
            })
            .await?;
        self.find_tenant(name).await?.ok_or(LedgerError::NotFound("tenant"))
    }

    async fn find_tenant(&self, name: &str) -> Result<Option<Tenant>> {
        let row = sqlx::query("SELECT id, name, closed_at_ms, closed_reason, created_at_ms FROM tenant WHERE name = ?")
            .bind(name)
            .fetch_optional(&self.readers)
            .await?;
        row.as_ref().map(tenant_of).transpose()
    }

    async fn tenant_keys(&self, tenant: TenantId) -> Result<TenantKeys> {
        if let Some(keys) = self.known_keys(tenant) {
            return Ok(keys);
        }
        let row = sqlx::query("SELECT root_key FROM tenant WHERE id = ?")
            .bind(tenant.0)
            .fetch_optional(&self.readers)
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
        let row = sqlx::query("SELECT limits FROM tenant WHERE id = ?")
            .bind(tenant.0)
            .fetch_optional(&self.readers)
            .await?
            .ok_or(LedgerError::NotFound("tenant"))?;
        rows::json(&row, "limits")
    }

    async fn set_tenant_limits(&self, tenant: TenantId, limits: Windows) -> Result<()> {
        let limits = rows::to_json(&limits)?;
        let changed = self
            .writer
            .run("set_tenant_limits", move |conn| {
                Box::pin(async move {
                    let done = sqlx::query("UPDATE tenant SET limits = ? WHERE id = ?")
                        .bind(limits)
                        .bind(tenant.0)
                        .execute(conn)
                        .await?;
                    Ok(done.rows_affected())
                })
            })
            .await?;
        if changed == 1 { Ok(()) } else { Err(LedgerError::NotFound("tenant")) }
    }

    async fn tenants(&self) -> Result<Vec<Tenant>> {
        let rows = sqlx::query("SELECT id, name, closed_at_ms, closed_reason, created_at_ms FROM tenant ORDER BY name")
            .fetch_all(&self.readers)
            .await?;
        rows.iter().map(tenant_of).collect()
    }

    async fn close_tenant(&self, tenant: TenantId, reason: &str) -> Result<TenantStopped> {
        let note = Note::TenantClosed { tenant, reason: reason.to_owned() };
        let (reason, now_ms) = (reason.to_owned(), self.now_ms());
        let done = self
            .writer
            .run("close_tenant", move |conn| {
                Box::pin(async move {
                    let row = sqlx::query(
                        "UPDATE tenant SET closed_at_ms = coalesce(closed_at_ms, ?2), closed_reason = ?3 WHERE id = ?1
                         RETURNING id, name, closed_at_ms, closed_reason, created_at_ms",
                    )
                    .bind(tenant.0)
                    .bind(now_ms)
                    .bind(reason)
                    .fetch_optional(&mut *conn)
                    .await?
                    .ok_or(LedgerError::NotFound("tenant"))?;
                    Ok(TenantStopped { tenant: tenant_of(&row)?, in_flight: in_flight(conn, tenant).await? })
                })
            })
            .await?;
        self.second_place.note(self.now_ms(), note).await?;
        Ok(done)
    }

    async fn open_tenant(&self, tenant: TenantId) -> Result<Tenant> {
        let done = self
            .writer
            .run("open_tenant", move |conn| {
                Box::pin(async move {
                    let row = sqlx::query(
                        "UPDATE tenant SET closed_at_ms = NULL, closed_reason = NULL WHERE id = ?
                         RETURNING id, name, closed_at_ms, closed_reason, created_at_ms",
                    )
                    .bind(tenant.0)
                    .fetch_optional(conn)
                    .await?
                    .ok_or(LedgerError::NotFound("tenant"))?;
                    tenant_of(&row)
                })
            })
            .await?;
        self.second_place.note(self.now_ms(), Note::TenantOpened { tenant }).await?;
        Ok(done)
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
        let (label, permissions, now_ms) = (label.to_owned(), words.join(" "), self.now_ms());
        self.writer
            .run("create_key", move |conn| {
                Box::pin(async move {
                    sqlx::query(
                        "INSERT INTO api_key (id, tenant_id, label, permissions, secret_hash, created_at_ms,
                                              expires_at_ms) VALUES (?, ?, ?, ?, ?, ?, ?)",
                    )
                    .bind(id.0)
                    .bind(tenant.0)
                    .bind(label)
                    .bind(permissions)
                    .bind(secret_hash.as_slice())
                    .bind(now_ms)
                    .bind(expires_at_ms)
                    .execute(conn)
                    .await?;
                    Ok(())
                })
            })
            .await?;
        Ok(self.find_key(id).await?.ok_or(LedgerError::NotFound("key"))?.key)
    }

    async fn find_key(&self, id: KeyId) -> Result<Option<StoredKey>> {
        let row = sqlx::query("SELECT * FROM api_key WHERE id = ?").bind(id.0).fetch_optional(&self.readers).await?;
        row.map(|row| {
            let secret_hash: &[u8] = row.try_get("secret_hash")?;
            let secret_hash = secret_hash.try_into().map_err(|_| LedgerError::Corrupt("a key's hash"))?;
            Ok(StoredKey { key: api_key(&row)?, secret_hash })
        })
        .transpose()
    }

    async fn keys(&self, tenant: Option<TenantId>) -> Result<Vec<ApiKey>> {
        let rows = sqlx::query("SELECT * FROM api_key WHERE ?1 IS NULL OR tenant_id = ?1 ORDER BY created_at_ms, id")
            .bind(tenant.map(|tenant| tenant.0))
            .fetch_all(&self.readers)
            .await?;
        rows.iter().map(api_key).collect()
    }

    async fn revoke_key(&self, id: KeyId) -> Result<ApiKey> {
        let now_ms = self.now_ms();
        self.writer
            .run("revoke_key", move |conn| {
                Box::pin(async move {
                    sqlx::query("UPDATE api_key SET revoked_at_ms = coalesce(revoked_at_ms, ?) WHERE id = ?")
                        .bind(now_ms)
                        .bind(id.0)
                        .execute(conn)
                        .await?;
                    Ok(())
                })
            })
            .await?;
        self.second_place.note(now_ms, Note::KeyRevoked { key: id }).await?;
        Ok(self.find_key(id).await?.ok_or(LedgerError::NotFound("key"))?.key)
    }
}

/// Refuses what would send for a closed tenant.
pub(super) async fn require_open(conn: &mut SqliteConnection, tenant: TenantId) -> Result<()> {
    let row = sqlx::query("SELECT closed_reason FROM tenant WHERE id = ?")
        .bind(tenant.0)
        .fetch_optional(conn)
        .await?
        .ok_or(LedgerError::NotFound("tenant"))?;
    match row.try_get(0)? {
        None => Ok(()),
        Some(reason) => Err(LedgerError::TenantClosed { reason }),
    }
}

/// How many deliveries of a tenant are in an open attempt.
async fn in_flight(conn: &mut SqliteConnection, tenant: TenantId) -> Result<u64> {
    let count: i64 = sqlx::query(
        "SELECT coalesce(sum(t.deliveries), 0) FROM campaign c CROSS JOIN tally t ON t.campaign_id = c.id
          WHERE c.tenant_id = ? AND t.state = 'claimed'",
    )
    .bind(tenant.0)
    .fetch_one(conn)
    .await?
    .try_get(0)?;
    Ok(u64::try_from(count).unwrap_or(0))
}

fn tenant_of(row: &SqliteRow) -> Result<Tenant> {
    let closed_at_ms = row.try_get::<Option<i64>, _>("closed_at_ms")?;
    let reason = row.try_get::<Option<String>, _>("closed_reason")?;
    let closed = closed_at_ms.zip(reason).map(|(at_ms, reason)| TenantClosure { at: Moment::from_ms(at_ms), reason });
    Ok(Tenant {
        id: TenantId(row.try_get("id")?),
        name: row.try_get("name")?,
        created_at: Moment::from_ms(row.try_get("created_at_ms")?),
        closed,
    })
}

fn api_key(row: &SqliteRow) -> Result<ApiKey> {
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
