//! Closing and opening gates, and erasing people.
//!
//! A closing has its tenant's gates to itself: no claim commits beside it. What was claimed before is counted and
//! reported, what comes after finds the gate closed. It writes nothing a claim may hold, so neither waits for the
//! other twice.

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
use sqlx::{PgConnection, Row as _};

use super::{PostgresLedger, lock_gates, rows};
use crate::{
    ledger::{Gates, LedgerError, Result},
    second_place::{Hash, Note},
};

#[async_trait]
impl Gates for PostgresLedger {
    async fn close_gates(
        &self,
        tenant: TenantId,
        channel: Channel,
        addresses: &[AddressHash],
        reason: StopReason,
    ) -> Result<GatesClosed> {
        let (hashes, now_ms) = (bytes(addresses), self.now_ms());
        let closed = self
            .repeatable("close_gates", || async {
                let mut transaction = self.for_tenant(tenant).await?;
                lock_gates(&mut transaction, tenant).await?;
                let closed = close(&mut transaction, tenant, channel, &hashes, reason, now_ms).await?;
                let contacts = contacts_of(&mut transaction, tenant, channel, &hashes).await?;
                let in_flight = in_flight(&mut transaction, tenant, channel, &contacts).await?;
                transaction.commit().await?;
                let already_closed = (addresses.len() as u64).saturating_sub(closed);
                Ok(GatesClosed { closed, already_closed, in_flight })
            })
            .await?;
        let note = Note::Closed { tenant, channel, reason, addresses: noted(addresses) };
        self.second_place.note(now_ms, note).await?;
        metrics::counter!("dispatch_gates_closed_total", "reason" => reason.as_str()).increment(closed.closed);
        Ok(closed)
    }

    async fn open_gates(&self, tenant: TenantId, addresses: &[AddressHash], reason: StopReason) -> Result<u64> {
        let hashes = bytes(addresses);
        let opened = self
            .repeatable("open_gates", || async {
                let mut transaction = self.for_tenant(tenant).await?;
                let opened =
                    sqlx::query("DELETE FROM gate WHERE tenant_id = $1 AND reason = $3 AND address_hash = ANY($2)")
                        .bind(tenant.0)
                        .bind(&hashes)
                        .bind(reason.as_str())
                        .execute(&mut *transaction)
                        .await?
                        .rows_affected();
                transaction.commit().await?;
                Ok(opened)
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
              WHERE tenant_id = $1 AND (address_hash, reason) > ($2, $3) ORDER BY address_hash, reason LIMIT $4",
        )
        .bind(tenant.0)
        .bind(hash)
        .bind(reason)
        .bind(i64::from(limit))
        .fetch_all(&mut *self.for_tenant(tenant).await?)
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
        let now_ms = self.now_ms();
        let (erased, addresses) = self
            .repeatable("erase", || async {
                let mut transaction = self.for_tenant(tenant).await?;
                lock_gates(&mut transaction, tenant).await?;
                let erased = erase(&mut transaction, tenant, addresses, now_ms).await?;
                transaction.commit().await?;
                Ok(erased)
            })
            .await?;
        self.second_place.note(now_ms, Note::Erased { tenant, addresses }).await?;
        Ok(erased)
    }
}

fn noted(addresses: &[AddressHash]) -> Vec<Hash> {
    addresses.iter().copied().map(Hash::from).collect()
}

fn bytes(addresses: &[AddressHash]) -> Vec<Vec<u8>> {
    addresses.iter().map(|hash| hash.0.to_vec()).collect()
}

async fn close(
    conn: &mut PgConnection,
    tenant: TenantId,
    channel: Channel,
    hashes: &[Vec<u8>],
    reason: StopReason,
    now_ms: i64,
) -> Result<u64> {
    let done = sqlx::query(
        "INSERT INTO gate (tenant_id, address_hash, reason, channel, closed_at_ms)
         SELECT $1, h, $3, $4, $5 FROM unnest($2::bytea[]) AS h ON CONFLICT DO NOTHING",
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
    conn: &mut PgConnection,
    tenant: TenantId,
    channel: Channel,
    hashes: &[Vec<u8>],
) -> Result<Vec<i64>> {
    let sql = match channel {
        Channel::Email => "SELECT id FROM contact WHERE email_hash = ANY($2) AND tenant_id = $1",
        Channel::Sms => "SELECT id FROM contact WHERE phone_hash = ANY($2) AND tenant_id = $1",
    };
    let rows = sqlx::query(sql).bind(tenant.0).bind(hashes).fetch_all(conn).await?;
    rows.iter().map(|row| Ok(row.try_get(0)?)).collect()
}

/// How many deliveries of a channel to these contacts are in an open attempt.
async fn in_flight(conn: &mut PgConnection, tenant: TenantId, channel: Channel, contacts: &[i64]) -> Result<u64> {
    if contacts.is_empty() {
        return Ok(0);
    }
    // By the ranges of each attempt: there is no index from a contact to its deliveries.
    let row = sqlx::query(
        "SELECT coalesce(sum(n.deliveries), 0)::bigint AS deliveries
           FROM attempt a JOIN campaign k ON k.id = a.campaign_id AND k.channel = $2
                CROSS JOIN jsonb_array_elements(a.ranges::jsonb) AS r (range)
                CROSS JOIN LATERAL (
                    SELECT count(*) AS deliveries FROM delivery d
                     WHERE d.month = a.month AND d.campaign_id = a.campaign_id
                       AND d.seq BETWEEN (r.range ->> 0)::bigint AND (r.range ->> 1)::bigint
                       AND d.attempt_id = a.id AND d.state = 'claimed' AND d.contact_id = ANY($3)) n
          WHERE a.tenant_id = $1 AND a.ended_at_ms IS NULL",
    )
    .bind(tenant.0)
    .bind(channel.as_str())
    .bind(contacts)
    .fetch_one(conn)
    .await?;
    rows::count(&row, "deliveries")
}

/// Everything of the person is sealed with the key of their contact, the variables of queued messages too: it goes
/// with the key. Returns all addresses that were closed, too.
async fn erase(
    conn: &mut PgConnection,
    tenant: TenantId,
    addresses: &[(Channel, AddressHash)],
    now_ms: i64,
) -> Result<(Erased, Vec<(Channel, Hash)>)> {
    let mut contacts: Vec<i64> = Vec::new();
    let mut closed: Vec<(Channel, Hash)> = addresses.iter().map(|(channel, hash)| (*channel, (*hash).into())).collect();
    for channel in Channel::ALL {
        let named: Vec<AddressHash> =
            addresses.iter().filter(|(of, _)| of == channel).map(|(_, address)| *address).collect();
        let hashes = bytes(&named);
        close(conn, tenant, *channel, &hashes, StopReason::Erased, now_ms).await?;
        contacts.extend(contacts_of(conn, tenant, *channel, &hashes).await?);
        forget_changes(conn, tenant, &hashes).await?;
    }
    // The person's other addresses too: they would come back through them with the next upload.
    for channel in Channel::ALL {
        let hashes = hashes_of(conn, tenant, *channel, &contacts).await?;
        for hash in &hashes {
            let hash = hash.as_slice().try_into().map_err(|_| LedgerError::Corrupt("an address's hash"))?;
            closed.push((*channel, Hash(hash)));
        }
        close(conn, tenant, *channel, &hashes, StopReason::Erased, now_ms).await?;
        contacts.extend(unreachable(conn, tenant, *channel, &hashes).await?);
        forget_changes(conn, tenant, &hashes).await?;
    }
    contacts.sort_unstable();
    contacts.dedup();
    let mut in_flight_now = 0;
    for channel in Channel::ALL {
        in_flight_now += in_flight(conn, tenant, *channel, &contacts).await?;
    }
    remove(conn, tenant, &contacts).await?;
    Ok((Erased { in_flight: in_flight_now }, closed))
}

/// The keyed hashes these contacts have for a channel.
async fn hashes_of(
    conn: &mut PgConnection,
    tenant: TenantId,
    channel: Channel,
    contacts: &[i64],
) -> Result<Vec<Vec<u8>>> {
    let sql = match channel {
        Channel::Email => {
            "SELECT email_hash FROM contact WHERE id = ANY($2) AND tenant_id = $1 AND email_hash IS NOT NULL"
        }
        Channel::Sms => {
            "SELECT phone_hash FROM contact WHERE id = ANY($2) AND tenant_id = $1 AND phone_hash IS NOT NULL"
        }
    };
    let rows = sqlx::query(sql).bind(tenant.0).bind(contacts).fetch_all(conn).await?;
    rows.iter().map(|row| Ok(row.try_get(0)?)).collect()
}

/// Contacts that had no other address than one of these: the same person in another list.
async fn unreachable(
    conn: &mut PgConnection,
    tenant: TenantId,
    channel: Channel,
    hashes: &[Vec<u8>],
) -> Result<Vec<i64>> {
    let sql = match channel {
        Channel::Email => "SELECT id FROM contact WHERE email_hash = ANY($2) AND tenant_id = $1 AND phone_hash IS NULL",
        Channel::Sms => "SELECT id FROM contact WHERE phone_hash = ANY($2) AND tenant_id = $1 AND email_hash IS NULL",
    };
    let rows = sqlx::query(sql).bind(tenant.0).bind(hashes).fetch_all(conn).await?;
    rows.iter().map(|row| Ok(row.try_get(0)?)).collect()
}

/// New numbers that an upload has for its end must not bring the person back.
async fn forget_changes(conn: &mut PgConnection, tenant: TenantId, hashes: &[Vec<u8>]) -> Result<()> {
    sqlx::query("DELETE FROM contact_change WHERE phone_hash = ANY($2) AND tenant_id = $1")
        .bind(tenant.0)
        .bind(hashes)
        .execute(conn)
        .await?;
    Ok(())
}

/// Removes contacts and with them their keys.
async fn remove(conn: &mut PgConnection, tenant: TenantId, contacts: &[i64]) -> Result<()> {
    for sql in [
        // The contacts of an upload count in their list once it has completed.
        "UPDATE import SET erased = import.erased + n.erased
           FROM (SELECT import_id, count(*) AS erased FROM contact WHERE id = ANY($2) AND tenant_id = $1
                  GROUP BY import_id) n
          WHERE import.id = n.import_id AND import.state IN ('running', 'applying')",
        "UPDATE list SET contacts = list.contacts - n.counted
           FROM (SELECT c.list_id, count(*) AS counted
                   FROM contact c LEFT JOIN import i ON i.id = c.import_id
                  WHERE c.id = ANY($2) AND c.tenant_id = $1
                    AND coalesce(i.state, '') NOT IN ('running', 'applying', 'rolling_back')
                  GROUP BY c.list_id) n
          WHERE list.id = n.list_id",
        "DELETE FROM contact_change WHERE contact_id = ANY($2) AND tenant_id = $1",
        "DELETE FROM contact WHERE id = ANY($2) AND tenant_id = $1",
    ] {
        sqlx::query(sql).bind(tenant.0).bind(contacts).execute(&mut *conn).await?;
    }
    Ok(())
}
