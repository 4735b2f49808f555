//! Storing a batch of an upload's contacts.

use std::{collections::HashSet, fmt::Write as _, sync::LazyLock};

use dispatch_schemas::ids::{ContactId, ImportId, ListId, TenantId};
use dispatch_workers::{
    clock::Entropy,
    sealing::{AddressHash, Column, TenantKeys},
};
use sqlx::{AssertSqlSafe, Row as _, SqliteConnection};

use crate::ledger::{ContactRow, LedgerError, NewContacts, Result, StoreCounts, sqlite::rows};

/// Rows in one INSERT; SQLite takes 32,766 parameters and a row has 12.
const ROWS_PER_INSERT: usize = 500;
pub(super) async fn store(
    conn: &mut SqliteConnection,
    new: NewContacts,
    keys: &TenantKeys,
    entropy: &dyn Entropy,
) -> Result<StoreCounts> {
    let mut counts = StoreCounts::default();
    let NewContacts { import, list, tenant, mut contacts } = new;
    let running = sqlx::query("SELECT 1 FROM import WHERE id = ? AND list_id = ? AND state = 'running'")
        .bind(import.0)
        .bind(list.0)
        .fetch_optional(&mut *conn)
        .await?;
    if running.is_none() {
        return Err(LedgerError::conflict("import-ended", "this upload has ended; begin a new one"));
    }
    shut_out(conn, tenant, &mut contacts, &mut counts).await?;

    let mut stored: HashSet<i64> = HashSet::with_capacity(contacts.len());
    for rows in contacts.chunks(ROWS_PER_INSERT) {
        stored.extend(insert(conn, import, list, tenant, rows).await?);
    }
    counts.added += stored.len() as u64;
    for contact in contacts.iter().filter(|contact| !stored.contains(&contact.id.0)) {
        fold(conn, import, list, contact, keys, entropy, &mut counts).await?;
    }
    Ok(counts)
}

/// Takes addresses behind closed gates out of the rows, and rows that have no other out of the batch: whoever opted
/// out or was erased does not come back with an upload.
async fn shut_out(
    conn: &mut SqliteConnection,
    tenant: TenantId,
    contacts: &mut Vec<ContactRow>,
    counts: &mut StoreCounts,
) -> Result<()> {
    let any =
        sqlx::query("SELECT 1 FROM gate WHERE tenant_id = ? LIMIT 1").bind(tenant.0).fetch_optional(&mut *conn).await?;
    if any.is_none() {
        return Ok(());
    }
    let hashes: Vec<String> = contacts
        .iter()
        .flat_map(|contact| [&contact.email, &contact.phone])
        .map(|address| address.as_ref().map(|(_, hash)| rows::hex(&hash.0)).unwrap_or_default())
        .collect();
    let rows = sqlx::query(
        "SELECT j.key FROM json_each(?2) j
          WHERE EXISTS (SELECT 1 FROM gate WHERE tenant_id = ?1 AND address_hash = unhex(j.value))",
    )
    .bind(tenant.0)
    .bind(rows::to_json(&hashes)?)
    .fetch_all(conn)
    .await?;
    for row in &rows {
        let at = usize::try_from(row.try_get::<i64, _>(0)?).unwrap_or(usize::MAX);
        if let Some(contact) = contacts.get_mut(at / 2) {
            if at % 2 == 0 { contact.email = None } else { contact.phone = None }
        }
    }
    let before = contacts.len();
    contacts.retain(|contact| contact.email.is_some() || contact.phone.is_some());
    counts.blocked += (before - contacts.len()) as u64;
    Ok(())
}

fn insert_sql(rows: usize) -> String {
    let mut sql = String::from(
        "INSERT INTO contact (id, tenant_id, list_id, import_id, key, email, phone, fields, email_hash, phone_hash,
                              email_destination, phone_destination) VALUES ",
    );
    for row in 0..rows {
        // Writing to a String cannot fail.
        let _ = write!(sql, "{}(?,?,?,?,?,?,?,?,?,?,?,?)", if row == 0 { "" } else { "," });
    }
    sql.push_str(" ON CONFLICT DO NOTHING RETURNING id");
    sql
}

static INSERT_MANY: LazyLock<String> = LazyLock::new(|| insert_sql(ROWS_PER_INSERT));

/// Inserts the rows whose address is new to the list; returns their ids.
async fn insert(
    conn: &mut SqliteConnection,
    import: ImportId,
    list: ListId,
    tenant: TenantId,
    contacts: &[ContactRow],
) -> Result<Vec<i64>> {
    let sql = match contacts.len() {
        ROWS_PER_INSERT => sqlx::query(INSERT_MANY.as_str()),
        rows => sqlx::query(AssertSqlSafe(insert_sql(rows))).persistent(false),
    };
    let mut query = sql;
    for contact in contacts {
        let (email, email_hash) = split(contact.email.as_ref());
        let (phone, phone_hash) = split(contact.phone.as_ref());
        query = query
            .bind(contact.id.0)
            .bind(tenant.0)
            .bind(list.0)
            .bind(import.0)
            .bind(contact.key.as_slice())
            .bind(email)
            .bind(phone)
            .bind(contact.fields.as_deref())
            .bind(email_hash)
            .bind(phone_hash)
            .bind(contact.email_destination)
            .bind(contact.phone_destination);
    }
    let rows = query.fetch_all(conn).await?;
    rows.iter().map(|row| Ok(row.try_get(0)?)).collect()
}

fn split(address: Option<&(Vec<u8>, AddressHash)>) -> (Option<&[u8]>, Option<&[u8]>) {
    address.map_or((None, None), |(sealed, hash)| (Some(sealed.as_slice()), Some(hash.0.as_slice())))
}

/// A row whose address the list has: a repeat of the same upload, or new values for a contact that was there.
async fn fold(
    conn: &mut SqliteConnection,
    import: ImportId,
    list: ListId,
    contact: &ContactRow,
    keys: &TenantKeys,
    entropy: &dyn Entropy,
    counts: &mut StoreCounts,
) -> Result<()> {
    let query = match (&contact.email, &contact.phone) {
        (Some((_, hash)), _) => {
            sqlx::query("SELECT id, import_id, key FROM contact WHERE email_hash = ? AND list_id = ?")
                .bind(hash.0.as_slice())
        }
        (None, Some((_, hash))) => sqlx::query(
            "SELECT id, import_id, key FROM contact WHERE phone_hash = ? AND list_id = ? AND email_hash IS NULL",
        )
        .bind(hash.0.as_slice()),
        (None, None) => return Ok(()),
    };
    let Some(there) = query.bind(list.0).fetch_optional(&mut *conn).await? else { return Ok(()) };
    if there.try_get::<Option<i64>, _>("import_id")? == Some(import.0) {
        counts.duplicate += 1;
        return Ok(());
    }
    let id = ContactId(there.try_get("id")?);
    let changed = sqlx::query("SELECT 1 FROM contact_change WHERE import_id = ? AND contact_id = ?")
        .bind(import.0)
        .bind(id.0)
        .fetch_optional(&mut *conn)
        .await?;
    if changed.is_some() {
        counts.duplicate += 1;
        return Ok(());
    }
    let unreadable = |_| LedgerError::Corrupt("a contact's sealed values");
    let from = keys.open_contact(contact.id, &contact.key).map_err(unreadable)?;
    let to = keys.open_contact(id, there.try_get("key")?).map_err(unreadable)?;
    let reseal = |column, sealed: Option<&[u8]>| -> Result<Option<Vec<u8>>> {
        sealed.map(|sealed| Ok(to.seal(column, &from.open(column, sealed).map_err(unreadable)?, entropy))).transpose()
    };
    let (phone, phone_hash) = split(contact.phone.as_ref());
    let (phone, fields) = (reseal(Column::Phone, phone)?, reseal(Column::Fields, contact.fields.as_deref())?);
    sqlx::query(
        "INSERT INTO contact_change (import_id, contact_id, phone, fields, phone_hash, phone_destination)
         VALUES (?, ?, ?, ?, ?, ?)",
    )
    .bind(import.0)
    .bind(id.0)
    .bind(phone)
    .bind(fields)
    .bind(phone_hash)
    .bind(contact.phone_destination)
    .execute(conn)
    .await?;
    counts.updated += 1;
    Ok(())
}
