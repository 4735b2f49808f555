//! From the rows of a file into the ledger: sealed, in batches, all of the file or nothing.
//!
//! Three stages side by side, with a bounded number of batches between them: parsing, sealing, storing. Memory does
//! not grow with the file.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use dispatch_schemas::{
    api::{
        imports::{Mapping, ParseReport},
        lists::{Import, ImportTotals},
    },
    ids::{ImportId, ListId, TenantId},
    states::Channel,
};
use dispatch_workers::{
    clock::Entropy,
    delivery::RetryDelay,
    sealing::{Column, DomainHashes, MasterKey, TenantKeys},
};
use futures_util::{Stream, StreamExt as _, stream};
use tokio::sync::mpsc;

use super::{
    parse::{FileError, RowParser},
    row::Row,
};
use crate::ledger::{ContactRow, Ledger, LedgerError, NewContacts};

/// Rows that are sealed and stored together. The addresses' hashes fall all over their indexes, so the more rows share
/// a transaction, the less often each page is written.
const BATCH_ROWS: usize = 6_000;
/// Batches between two stages.
const BATCHES_BETWEEN: usize = 1;
/// Batches sealed at once: one for each core of a small machine.
const SEALED_AT_ONCE: usize = 2;
/// Pieces of the file that wait for the parser.
const PIECES_WAITING: usize = 16;

/// Why an upload came to nothing. All it had stored is gone.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file as a whole cannot be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// The file did not arrive whole.
    #[error("the upload broke off ({0}); nothing of it was kept, upload the file again")]
    BrokenOff(std::io::Error),
    /// A stage ended without saying why.
    #[error("the import stopped in the middle; nothing of it was kept")]
    Stopped,
    /// The ledger did not take it.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

/// Loads files into lists.
#[derive(Clone)]
pub struct Loader {
    ledger: Arc<dyn Ledger>,
    master: MasterKey,
    entropy: Arc<dyn Entropy>,
}

impl std::fmt::Debug for Loader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Loader")
    }
}

impl Loader {
    /// A loader into this ledger.
    #[must_use]
    pub fn new(ledger: Arc<dyn Ledger>, master: MasterKey, entropy: Arc<dyn Entropy>) -> Self {
        Self { ledger, master, entropy }
    }

    /// Loads a CSV file into a list, as the upload that [`begin_import`](crate::ledger::Imports::begin_import) began.
    /// Goes on to its end, one way or the other, even when nobody waits for it any more.
    ///
    /// # Errors
    /// When the file cannot be read as a whole, breaks off, or the ledger fails; then nothing of it is kept. A bad row
    /// is never a reason: it is in the report.
    pub async fn load(
        &self,
        tenant: TenantId,
        list: ListId,
        import: ImportId,
        mapping: Mapping,
        bytes: impl Stream<Item = std::io::Result<Bytes>> + Send + Unpin + 'static,
    ) -> Result<Import, LoadError> {
        let loader = self.clone();
        let whole = async move {
            let read = loader.read_and_store(tenant, list, import, mapping, bytes).await;
            loader.end(tenant, import, read).await
        };
        tokio::spawn(whole).await.map_err(|_| LoadError::Stopped)?
    }

    /// Completes an upload or rolls it back; tried until the ledger takes it, because a list with an upload that never
    /// ends can't be used.
    async fn end(
        &self,
        tenant: TenantId,
        import: ImportId,
        read: Result<(ImportTotals, ParseReport), LoadError>,
    ) -> Result<Import, LoadError> {
        let mut delay = RetryDelay::new(Duration::from_millis(200), Duration::from_secs(10));
        loop {
            let ended = match &read {
                Ok((totals, report)) => {
                    let fields = &report.fields;
                    let report =
                        serde_json::to_value(report).map_err(|_| LedgerError::Corrupt("an import's report"))?;
                    self.ledger.complete_import(import, totals, fields, &report).await
                }
                Err(error) => self.ledger.roll_back_import(import, &error.to_string()).await,
            };
            match ended {
                Err(LedgerError::Unavailable(why)) => {
                    tracing::warn!(%import, why, "an upload cannot be ended yet; trying again");
                    tokio::time::sleep(delay.next_wait()).await;
                }
                ended => {
                    ended?;
                    break;
                }
            }
        }
        count(&read?.0);
        Ok(self.ledger.import(tenant, import).await?)
    }

    async fn read_and_store(
        &self,
        tenant: TenantId,
        list: ListId,
        import: ImportId,
        mapping: Mapping,
        bytes: impl Stream<Item = std::io::Result<Bytes>> + Send + Unpin,
    ) -> Result<(ImportTotals, ParseReport), LoadError> {
        let parser = RowParser::new(mapping)?;
        let keys = self.ledger.tenant_keys(tenant).await?;
        let (pieces, pieces_in) = mpsc::channel(PIECES_WAITING);
        let (batches, batches_in) = mpsc::channel(BATCHES_BETWEEN);
        let parsing = tokio::task::spawn_blocking(move || parse(parser, pieces_in, &batches));

        let feeding = feed(bytes, pieces);
        let storing = self.store(tenant, list, import, &keys, batches_in);
        let (fed, stored) = tokio::join!(feeding, storing);
        let parsed = parsing.await.map_err(|_| LedgerError::Unavailable("the parser stopped".to_owned()))?;
        let mut totals = stored?;
        fed?;
        let report = parsed?;
        totals.rows = report.rows;
        totals.rejected = report.rejected;
        Ok((totals, report))
    }

    async fn store(
        &self,
        tenant: TenantId,
        list: ListId,
        import: ImportId,
        keys: &TenantKeys,
        batches: mpsc::Receiver<Vec<Row>>,
    ) -> Result<ImportTotals, LoadError> {
        let mut totals = ImportTotals::default();
        let mut sealed = stream::unfold(batches, |mut batches| async move { Some((batches.recv().await?, batches)) })
            .map(|rows| self.seal(tenant, list, import, keys.clone(), rows))
            .buffered(SEALED_AT_ONCE)
            .boxed();
        while let Some(contacts) = sealed.next().await {
            let counts = self.ledger.store_contacts(contacts?).await?;
            totals.added += counts.added;
            totals.updated += counts.updated;
            totals.duplicate += counts.duplicate;
            totals.blocked += counts.blocked;
        }
        Ok(totals)
    }

    async fn seal(
        &self,
        tenant: TenantId,
        list: ListId,
        import: ImportId,
        keys: TenantKeys,
        rows: Vec<Row>,
    ) -> Result<NewContacts, LoadError> {
        let first = self.ledger.contact_ids(rows.len()).await?;
        let (entropy, master) = (self.entropy.clone(), self.master.clone());
        let sealing = tokio::task::spawn_blocking(move || {
            let domains = master.domain_hashes();
            (first.0..)
                .zip(&rows)
                .map(|(id, row)| seal_row(id, row, &keys, &domains, entropy.as_ref()))
                .collect::<Vec<_>>()
        });
        let contacts = sealing.await.map_err(|_| LedgerError::Unavailable("the sealing stopped".to_owned()))?;
        Ok(NewContacts { import, list, tenant, contacts })
    }
}

async fn feed(
    mut bytes: impl Stream<Item = std::io::Result<Bytes>> + Send + Unpin,
    pieces: mpsc::Sender<Option<Bytes>>,
) -> Result<(), LoadError> {
    while let Some(piece) = bytes.next().await {
        let piece = piece.map_err(LoadError::BrokenOff)?;
        if pieces.send(Some(piece)).await.is_err() {
            // The parser has given up and says why.
            return Ok(());
        }
    }
    // Only now is the file known to be whole.
    let _ = pieces.send(None).await;
    Ok(())
}

/// Parses on a thread of its own, until the file ends, breaks off or cannot be read.
fn parse(
    mut parser: RowParser,
    mut pieces: mpsc::Receiver<Option<Bytes>>,
    batches: &mpsc::Sender<Vec<Row>>,
) -> Result<ParseReport, LoadError> {
    let mut rows = Vec::with_capacity(BATCH_ROWS);
    loop {
        match pieces.blocking_recv() {
            Some(Some(piece)) => parser.feed(&piece, &mut rows)?,
            Some(None) => {
                let report = parser.finish(&mut rows)?;
                hand_over(&mut rows, 1, batches)?;
                return Ok(report);
            }
            None => return Err(LoadError::Stopped),
        }
        hand_over(&mut rows, BATCH_ROWS, batches)?;
    }
}

/// Sends the rows on in whole batches while there are at least `least`.
fn hand_over(rows: &mut Vec<Row>, least: usize, batches: &mpsc::Sender<Vec<Row>>) -> Result<(), LoadError> {
    while rows.len() >= least {
        let rest = rows.split_off(rows.len().min(BATCH_ROWS));
        let batch = std::mem::replace(rows, rest);
        batches.blocking_send(batch).map_err(|_| LoadError::Stopped)?;
    }
    Ok(())
}

fn seal_row(id: i64, row: &Row, keys: &TenantKeys, domains: &DomainHashes, entropy: &dyn Entropy) -> ContactRow {
    let id = dispatch_schemas::ids::ContactId(id);
    let (key, wrapped) = keys.new_contact(id, entropy);
    let address =
        |column, channel, value: &str| (key.seal(column, value.as_bytes(), entropy), keys.address_hash(channel, value));
    let fields = row.fields.iter().next().is_some().then(|| serde_json::to_vec(&row.fields).ok()).flatten();
    ContactRow {
        id,
        key: wrapped,
        email: row.email.as_ref().map(|email| address(Column::Email, Channel::Email, email.as_str())),
        phone: row.phone.as_ref().map(|phone| address(Column::Phone, Channel::Sms, phone.as_str())),
        fields: fields.map(|fields| key.seal(Column::Fields, &fields, entropy)),
        email_destination: row.email.as_ref().map(|email| domains.hash(email.domain())),
        phone_destination: row.phone.as_ref().map(|phone| country_number(phone.country().as_str())),
    }
}

/// A country's two letters as a number, for limits per country.
#[must_use]
pub fn country_number(country: &str) -> i64 {
    country.bytes().fold(0, |number, letter| (number << 8) | i64::from(letter))
}

fn count(totals: &ImportTotals) {
    for (outcome, rows) in [
        ("added", totals.added),
        ("updated", totals.updated),
        ("duplicate", totals.duplicate),
        ("blocked", totals.blocked),
        ("rejected", totals.rejected),
    ] {
        metrics::counter!("dispatch_import_rows_total", "outcome" => outcome).increment(rows);
    }
}
