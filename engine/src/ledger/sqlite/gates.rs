//! Closing and opening gates, and erasing people.
//!
//! SQLite has one writer, so a closing is before or after a claim, never beside it: what was claimed before is counted
//! and reported, what comes after finds the gate closed.

use async_trait::async_trait;
use dispatch_schemas::{
    api::{
        contacts::{Erased, GatesClosed, Suppression},
        time::Moment,
    },
    ids::TenantId,
    states::{Channel, StopReason},
};
use dispatch_workers::sealing::AddressHash;
use sqlx::{Row as _, SqliteConnection};

use super::{SqliteLedger, rows};
use crate::{
    ledger::{Gates, LedgerError, Result},
    second_place::{Hash, Note},
};

#[async_trait]
impl Gates for SqliteLedger {
    async fn close_gates(
        &self,
        tenant: TenantId,
        channel: Channel,
        addresses: &[AddressHash],
        reason: StopReason,
    ) -> Result<GatesClosed> {
        let (hashes, count, now_ms) = (json_hashes(addresses)?, addresses.len() as u64, self.now_ms());
        let closed = self
            .writer
            .run("close_gates", move |conn| {
                Box::pin(async move {
                    let closed = close(conn, tenant, channel, &hashes, reason, now_ms).await?;
                    let contacts = contacts_of(conn, tenant, channel, &hashes).await?;
                    let in_flight = in_flight(conn, channel, &contacts).await?;
                    Ok(GatesClosed { closed, already_closed: count.saturating_sub(closed), in_flight })
                })
            })
            .await?;
        let note = Note::Closed { tenant, channel, reason, addresses: noted(addresses) };
        self.second_place.note(now_ms, note).await?;
        metrics::counter!("dispatch_gates_closed_total", "reason" => reason.as_str()).increment(closed.closed);
        Ok(closed)
    }

    async fn open_gates(&self, tenant: TenantId, addresses: &[AddressHash], reason: StopReason) -> Result<u64> {
        let hashes = json_hashes(addresses)?;
        let opened = self
            .writer
            .run("open_gates", move |conn| {
                Box::pin(async move {
                    let done = sqlx::query(
                        "DELETE FROM gate WHERE tenant_id = ?1 AND reason = ?3
                            AND address_hash IN (SELECT unhex(value) FROM json_each(?2))",
                    )
                    .bind(tenant.0)
                    .bind(hashes)
                    .bind(reason.as_str())
                    .execute(conn)
                    .await?;
                    Ok(done.rows_affected())
                })
            })
            .await?;
        let note = Note::Opened { tenant, reason, addresses: noted(addresses) };
        self.second_place.note(self.now_ms(), note).await?;
        Ok(opened)
    }

    async fn suppressions(
        &self,
        tenant: TenantId,
        after: Option<(AddressHash, StopReason)>,
        limit: u32,
    ) -> Result<Vec<Suppression>> {
        let (hash, reason) = after.map_or((Vec::new(), ""), |(hash, reason)| (hash.0.to_vec(), reason.as_str()));
        let rows = sqlx::query(
            "SELECT address_hash, channel, reason, closed_at_ms FROM gate
              WHERE tenant_id = ? AND (address_hash, reason) > (?, ?) ORDER BY address_hash, reason LIMIT ?",
        )
        .bind(tenant.0)
        .bind(hash)
        .bind(reason)
        .bind(limit)
        .fetch_all(&self.readers)
        .await?;
        rows.iter()
            .map(|row| {
                Ok(Suppression {
                    address_hash: rows::hex(row.try_get("address_hash")?),
                    channel: rows::word(row, "channel")?,
                    reason: rows::word(row, "reason")?,
                    closed_at: Moment::from_ms(row.try_get("closed_at_ms")?),
                })
            })
            .collect()
    }

    async fn erase(&self, tenant: TenantId, addresses: &[(Channel, AddressHash)]) -> Result<Erased> {
        let (addresses, now_ms) = (addresses.to_vec(), self.now_ms());
        let (erased, addresses) = self
            .writer
            .run("erase", move |conn| Box::pin(async move { erase(conn, tenant, &addresses, now_ms).await }))
            .await?;
        self.second_place.note(now_ms, Note::Erased { tenant, addresses }).await?;
        Ok(erased)
    }
}

fn noted(addresses: &[AddressHash]) -> Vec<Hash> {
    addresses.iter().copied().map(Hash::from).collect()
}

fn json_hashes(addresses: &[AddressHash]) -> Result<String> {
    rows::to_json(&addresses.iter().map(|hash| rows::hex(&hash.0)).collect::<Vec<_>>())
}

async fn close(
    conn: &mut SqliteConnection,
    tenant: TenantId,
    channel: Channel,
    hashes: &str,
    reason: StopReason,
    now_ms: i64,
) -> Result<u64> {
    let done = sqlx::query(
        "INSERT INTO gate (tenant_id, address_hash, reason, channel, closed_at_ms)
         SELECT ?1, unhex(value), ?3, ?4, ?5 FROM json_each(?2) WHERE true ON CONFLICT DO NOTHING",
    )
    .bind(tenant.0)
    .bind(hashes)
    .bind(reason.as_str())
    .bind(channel.as_str())
    .bind(now_ms)
    .execute(conn)
    .await?;
    Ok(done.rows_affected())
}

async fn contacts_of(
    conn: &mut SqliteConnection,
    tenant: TenantId,
    channel: Channel,
    hashes: &str,
) -> Result<Vec<i64>> {
    let sql = match channel {
        Channel::Email => {
            "SELECT c.id FROM json_each(?2) j CROSS JOIN contact c ON c.email_hash = unhex(j.value)
              WHERE c.tenant_id = ?1"
        }
        Channel::Sms => {
            "SELECT c.id FROM json_each(?2) j CROSS JOIN contact c ON c.phone_hash = unhex(j.value)
              WHERE c.tenant_id = ?1"
        }
    };
    let rows = sqlx::query(sql).bind(tenant.0).bind(hashes).fetch_all(conn).await?;
    rows.iter().map(|row| Ok(row.try_get(0)?)).collect()
}

/// How many deliveries of a channel to these contacts are in an open attempt.
async fn in_flight(conn: &mut SqliteConnection, channel: Channel, contacts: &[i64]) -> Result<u64> {
    if contacts.is_empty() {
        return Ok(0);
    }
    let count: i64 = sqlx::query(
        "SELECT count(*) FROM attempt a CROSS JOIN campaign k ON k.id = a.campaign_id AND k.channel = ?2
             CROSS JOIN json_each(a.ranges) r CROSS JOIN delivery d
                 ON d.campaign_id = a.campaign_id AND d.seq BETWEEN r.value ->> 0 AND r.value ->> 1
          WHERE a.ended_at_ms IS NULL AND d.attempt_id = a.id AND d.state = 'claimed'
            AND d.contact_id IN (SELECT value FROM json_each(?1))",
    )
    .bind(rows::json_numbers(contacts))
    .bind(channel.as_str())
    .fetch_one(conn)
    .await?
    .try_get(0)?;
    Ok(u64::try_from(count).unwrap_or(0))
}

/// Returns all addresses that were closed, too.
async fn erase(
    conn: &mut SqliteConnection,
    tenant: TenantId,
    addresses: &[(Channel, AddressHash)],
    now_ms: i64,
) -> Result<(Erased, Vec<(Channel, Hash)>)> {
    let mut contacts: Vec<i64> = Vec::new();
    let mut closed: Vec<(Channel, Hash)> = addresses.iter().map(|(channel, hash)| (*channel, (*hash).into())).collect();
    for (channel, hash) in addresses {
        let hashes = json_hashes(&[*hash])?;
        close(conn, tenant, *channel, &hashes, StopReason::Erased, now_ms).await?;
        contacts.extend(contacts_of(conn, tenant, *channel, &hashes).await?);
        forget_changes(conn, &hashes).await?;
    }
    // The person's other addresses too: they would come back through them with the next upload.
    for channel in Channel::ALL {
        let hashes = hashes_of(conn, *channel, &contacts).await?;
        let theirs: Vec<Hash> = serde_json::from_str(&hashes).map_err(|_| LedgerError::Corrupt("an address's hash"))?;
        closed.extend(theirs.into_iter().map(|hash| (*channel, hash)));
        close(conn, tenant, *channel, &hashes, StopReason::Erased, now_ms).await?;
        contacts.extend(unreachable(conn, tenant, *channel, &hashes).await?);
        forget_changes(conn, &hashes).await?;
    }
    contacts.sort_unstable();
    contacts.dedup();
    let mut in_flight_now = 0;
    for channel in Channel::ALL {
        in_flight_now += in_flight(conn, *channel, &contacts).await?;
    }
    remove(conn, &contacts).await?;
    Ok((Erased { in_flight: in_flight_now }, closed))
}

/// The keyed hashes these contacts have for a channel, as JSON.
async fn hashes_of(conn: &mut SqliteConnection, channel: Channel, contacts: &[i64]) -> Result<String> {
    let sql = match channel {
        Channel::Email => {
            "SELECT email_hash FROM contact WHERE id IN (SELECT value FROM json_each(?)) AND email_hash IS NOT NULL"
        }
        Channel::Sms => {
            "SELECT phone_hash FROM contact WHERE id IN (SELECT value FROM json_each(?)) AND phone_hash IS NOT NULL"
        }
    };
    let rows = sqlx::query(sql).bind(rows::json_numbers(contacts)).fetch_all(conn).await?;
    rows::to_json(&rows.iter().map(|row| Ok(rows::hex(row.try_get(0)?))).collect::<Result<Vec<_>>>()?)
}

/// Contacts that had no other address than one of these: the same person in another list.
async fn unreachable(
    conn: &mut SqliteConnection,
    tenant: TenantId,
    channel: Channel,
    hashes: &str,
) -> Result<Vec<i64>> {
    let sql = match channel {
        Channel::Email => {
            "SELECT c.id FROM json_each(?2) j CROSS JOIN contact c ON c.email_hash = unhex(j.value)
              WHERE c.tenant_id = ?1 AND c.phone_hash IS NULL"
        }
        Channel::Sms => {
            "SELECT c.id FROM json_each(?2) j CROSS JOIN contact c ON c.phone_hash = unhex(j.value)
              WHERE c.tenant_id = ?1 AND c.email_hash IS NULL"
        }
    };
    let rows = sqlx::query(sql).bind(tenant.0).bind(hashes).fetch_all(conn).await?;
    rows.iter().map(|row| Ok(row.try_get(0)?)).collect()
}

/// New numbers that an upload has for its end must not bring the person back.
async fn forget_changes(conn: &mut SqliteConnection, hashes: &str) -> Result<()> {
    sqlx::query("DELETE FROM contact_change WHERE phone_hash IN (SELECT unhex(value) FROM json_each(?))")
        .bind(hashes)
        .execute(conn)
        .await?;
    Ok(())
}

/// Removes contacts and with them their keys.
async fn remove(conn: &mut SqliteConnection, contacts: &[i64]) -> Result<()> {
    let ids = rows::json_numbers(contacts);
    for sql in [
        // The contacts of an upload count in their list once it has completed.
        "UPDATE import SET erased = erased + (SELECT count(*) FROM contact c
              WHERE c.import_id = import.id AND c.id IN (SELECT value FROM json_each(?1)))
          WHERE state IN ('running', 'applying')",
        "UPDATE list SET contacts = contacts - (SELECT count(*) FROM contact c
              WHERE c.list_id = list.id AND c.id IN (SELECT value FROM json_each(?1))
                AND coalesce(c.import_id, 0) NOT IN
                    (SELECT id FROM import WHERE state IN ('running', 'applying', 'rolling_back')))
          WHERE id IN (SELECT list_id FROM contact WHERE id IN (SELECT value FROM json_each(?1)))",
        "DELETE FROM contact_change WHERE contact_id IN (SELECT value FROM json_each(?1))",
        "DELETE FROM contact WHERE id IN (SELECT value FROM json_each(?1))",
    ] {
        sqlx::query(sql).bind(&ids).execute(&mut *conn).await?;
    }
    Ok(())
}
