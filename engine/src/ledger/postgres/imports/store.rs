//! Storing a batch of an upload's contacts: four statements, however many they are.

use std::collections::{HashMap, HashSet};

use dispatch_schemas::ids::{ContactId, ImportId, ListId, TenantId};
use dispatch_workers::{
    clock::Entropy,
    sealing::{AddressHash, Column, TenantKeys},
};
use sqlx::{PgConnection, Row as _, postgres::PgRow};

use super::{ImportState, hold};
use crate::ledger::{ContactRow, LedgerError, NewContacts, Result, StoreCounts};

/// A sealed address and what it is looked up by.
type Address = (Vec<u8>, AddressHash);

/// A row of the upload with those of its addresses that may be stored.
struct Open<'a> {
    row: &'a ContactRow,
    email: Option<&'a Address>,
    phone: Option<&'a Address>,
}

/// Stores the contacts. The transaction holds its tenant's gates.
pub(super) async fn store(
    conn: &mut PgConnection,
    new: &NewContacts,
    keys: &TenantKeys,
    entropy: &dyn Entropy,
    now_ms: i64,
) -> Result<StoreCounts> {
    if !hold(conn, new.import, ImportState::Running, now_ms).await? {
        return Err(super::ended());
    }
    let mut counts = StoreCounts::default();
    let contacts = shut_out(conn, new, &mut counts).await?;
    let stored = insert(conn, new, &contacts).await?;
    counts.added = stored.len() as u64;
    let known: Vec<&Open<'_>> = contacts.iter().filter(|contact| !stored.contains(&contact.row.id.0)).collect();
    if !known.is_empty() {
        let there = There::of(conn, new.import, new.list, &known).await?;
        let changes = fold(&known, &there, keys, entropy, &mut counts)?;
        write_changes(conn, new.import, new.tenant, &changes).await?;
    }
    Ok(counts)
}

/// Takes addresses behind closed gates out of the rows, and rows that have no other out of the batch: whoever opted
/// out or was erased does not come back with an upload.
async fn shut_out<'a>(
    conn: &mut PgConnection,
    new: &'a NewContacts,
    counts: &mut StoreCounts,
) -> Result<Vec<Open<'a>>> {
    let hashes: Vec<&[u8]> = new
        .contacts
        .iter()
        .flat_map(|contact| [&contact.email, &contact.phone])
        .filter_map(|address| address.as_ref().map(|(_, hash)| hash.0.as_slice()))
        .collect();
    let rows = sqlx::query("SELECT address_hash FROM gate WHERE tenant_id = $1 AND address_hash = ANY($2)")
        .bind(new.tenant.0)
        .bind(hashes)
        .fetch_all(conn)
        .await?;
    let closed: HashSet<&[u8]> = rows.iter().map(|row| row.try_get(0)).collect::<sqlx::Result<_>>()?;
    let open = |address: &'a Option<Address>| address.as_ref().filter(|(_, hash)| !closed.contains(hash.0.as_slice()));
    let contacts: Vec<_> = new
        .contacts
        .iter()
        .map(|row| Open { row, email: open(&row.email), phone: open(&row.phone) })
        .filter(|contact| contact.email.is_some() || contact.phone.is_some())
        .collect();
    counts.blocked = (new.contacts.len() - contacts.len()) as u64;
    Ok(contacts)
}

fn sealed(address: Option<&Address>) -> Option<&[u8]> {
    address.map(|(sealed, _)| sealed.as_slice())
}

fn hash(address: Option<&Address>) -> Option<&[u8]> {
    address.map(|(_, hash)| hash.0.as_slice())
}

/// Inserts the rows whose address is new to the list; returns their ids.
async fn insert(conn: &mut PgConnection, new: &NewContacts, contacts: &[Open<'_>]) -> Result<HashSet<i64>> {
    /// One column of all rows.
    fn column<'a, T>(contacts: &'a [Open<'a>], value: impl Fn(&'a Open<'a>) -> T) -> Vec<T> {
        contacts.iter().map(value).collect()
    }
    let rows = sqlx::query(
        "INSERT INTO contact (id, tenant_id, list_id, import_id, key, email, phone, fields, email_hash, phone_hash,
                              email_destination, phone_destination)
         SELECT r.id, $1, $2, $3, r.key, r.email, r.phone, r.fields, r.email_hash, r.phone_hash, r.email_destination,
                r.phone_destination
           FROM unnest($4::bigint[], $5::bytea[], $6::bytea[], $7::bytea[], $8::bytea[], $9::bytea[], $10::bytea[],
                       $11::bigint[], $12::bigint[])
             AS r (id, key, email, phone, fields, email_hash, phone_hash, email_destination, phone_destination)
         ON CONFLICT DO NOTHING RETURNING id",
    )
    .bind(new.tenant.0)
    .bind(new.list.0)
    .bind(new.import.0)
    .bind(column(contacts, |contact| contact.row.id.0))
    .bind(column(contacts, |contact| contact.row.key.as_slice()))
    .bind(column(contacts, |contact| sealed(contact.email)))
    .bind(column(contacts, |contact| sealed(contact.phone)))
    .bind(column(contacts, |contact| contact.row.fields.as_deref()))
    .bind(column(contacts, |contact| hash(contact.email)))
    .bind(column(contacts, |contact| hash(contact.phone)))
    .bind(column(contacts, |contact| contact.email.and(contact.row.email_destination)))
    .bind(column(contacts, |contact| contact.phone.and(contact.row.phone_destination)))
    .fetch_all(conn)
    .await?;
    rows.iter().map(|row| Ok(row.try_get(0)?)).collect()
}

/// The list's contacts that have the addresses of some rows.
struct There {
    by_email: Vec<PgRow>,
    by_phone: Vec<PgRow>,
}

impl There {
    async fn of(conn: &mut PgConnection, import: ImportId, list: ListId, rows: &[&Open<'_>]) -> Result<Self> {
        let emails: Vec<&[u8]> = rows.iter().filter_map(|row| hash(row.email)).collect();
        // Whoever has an e-mail address is known by it.
        let phones: Vec<&[u8]> =
            rows.iter().filter(|row| row.email.is_none()).filter_map(|row| hash(row.phone)).collect();
        let mut there = Self { by_email: Vec::new(), by_phone: Vec::new() };
        for (found, hashes, sql) in [
            (
                &mut there.by_email,
                emails,
                "SELECT c.id, c.key, c.email_hash AS hash, coalesce(c.import_id = $3, false) AS is_new,
                        x.contact_id IS NOT NULL AS is_changed
                   FROM contact c LEFT JOIN contact_change x ON x.import_id = $3 AND x.contact_id = c.id
                  WHERE c.email_hash = ANY($1) AND c.list_id = $2",
            ),
            (
                &mut there.by_phone,
                phones,
                "SELECT c.id, c.key, c.phone_hash AS hash, coalesce(c.import_id = $3, false) AS is_new,
                        x.contact_id IS NOT NULL AS is_changed
                   FROM contact c LEFT JOIN contact_change x ON x.import_id = $3 AND x.contact_id = c.id
                  WHERE c.phone_hash = ANY($1) AND c.list_id = $2 AND c.email_hash IS NULL",
            ),
        ] {
            if !hashes.is_empty() {
                *found = sqlx::query(sql).bind(hashes).bind(list.0).bind(import.0).fetch_all(&mut *conn).await?;
            }
        }
        Ok(there)
    }

    fn by_hash(rows: &[PgRow]) -> Result<HashMap<&[u8], &PgRow>> {
        rows.iter().map(|row| Ok((row.try_get("hash")?, row))).collect()
    }
}

/// New values for a contact, sealed with its own key.
struct Change<'a> {
    contact: i64,
    phone: Option<Vec<u8>>,
    phone_hash: Option<&'a [u8]>,
    phone_destination: Option<i64>,
    fields: Option<Vec<u8>>,
}

/// Rows whose address the list has: repeats of the same upload, or new values for contacts that were there.
fn fold<'a>(
    rows: &[&Open<'a>],
    there: &There,
    keys: &TenantKeys,
    entropy: &dyn Entropy,
    counts: &mut StoreCounts,
) -> Result<Vec<Change<'a>>> {
    let (by_email, by_phone) = (There::by_hash(&there.by_email)?, There::by_hash(&there.by_phone)?);
    let unreadable = |_| LedgerError::Corrupt("a contact's sealed values");
    let mut changed: HashSet<i64> = HashSet::new();
    let mut changes = Vec::new();
    for row in rows {
        let found = match (hash(row.email), hash(row.phone)) {
            (Some(email), _) => by_email.get(email),
            (None, phone) => phone.and_then(|phone| by_phone.get(phone)),
        };
        let Some(found) = found else { continue };
        let id: i64 = found.try_get("id")?;
        if found.try_get("is_new")? || found.try_get("is_changed")? || !changed.insert(id) {
            counts.duplicate += 1;
            continue;
        }
        let from = keys.open_contact(row.row.id, &row.row.key).map_err(unreadable)?;
        let to = keys.open_contact(ContactId(id), found.try_get("key")?).map_err(unreadable)?;
        let reseal = |column, sealed: Option<&[u8]>| -> Result<Option<Vec<u8>>> {
            sealed
                .map(|sealed| Ok(to.seal(column, &from.open(column, sealed).map_err(unreadable)?, entropy)))
                .transpose()
        };
        changes.push(Change {
            contact: id,
            phone: reseal(Column::Phone, sealed(row.phone))?,
            phone_hash: hash(row.phone),
            phone_destination: row.phone.and(row.row.phone_destination),
            fields: reseal(Column::Fields, row.row.fields.as_deref())?,
        });
        counts.updated += 1;
    }
    Ok(changes)
}

async fn write_changes(
    conn: &mut PgConnection,
    import: ImportId,
    tenant: TenantId,
    changes: &[Change<'_>],
) -> Result<()> {
    sqlx::query(
        "INSERT INTO contact_change (import_id, tenant_id, contact_id, phone, fields, phone_hash, phone_destination)
         SELECT $1, $2, r.* FROM unnest($3::bigint[], $4::bytea[], $5::bytea[], $6::bytea[], $7::bigint[]) AS r",
    )
    .bind(import.0)
    .bind(tenant.0)
    .bind(changes.iter().map(|change| change.contact).collect::<Vec<_>>())
    .bind(changes.iter().map(|change| change.phone.as_deref()).collect::<Vec<_>>())
    .bind(changes.iter().map(|change| change.fields.as_deref()).collect::<Vec<_>>())
    .bind(changes.iter().map(|change| change.phone_hash).collect::<Vec<_>>())
    .bind(changes.iter().map(|change| change.phone_destination).collect::<Vec<_>>())
    .execute(conn)
    .await?;
    Ok(())
}
