//! Whether ledger and witness agree, recipient by recipient.
//!
//! Both are read once, as streams, and cut into parts by the hash of the address; then each part is joined in memory.
//! So memory does not grow with the campaign.

use std::{
    collections::HashMap,
    fs::File,
    io::{BufReader, BufWriter, Read as _, Write as _},
    path::Path,
};

use dispatch_schemas::{
    ids::{CampaignId, TenantId},
    states::{Channel, DeliveryState},
};
use dispatch_workers::{
    sandbox::witness::{WitnessKey, WitnessVerdict, read_lines},
    sealing::{Column, TenantKeys},
};

use super::{DemoError, io};
use crate::ledger::{EvidenceRow, Ledger};

/// Parts a comparison is cut into; each holds 1/64 of the recipients.
const PARTS: usize = 64;
/// Deliveries read from the ledger at a time.
const PAGE: u32 = 5_000;
/// A record: 16 bytes of hash, one of state or verdict, one of resends.
const RECORD_BYTES: usize = 18;

/// What a comparison found.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Compared {
    /// Recipients in the ledger.
    pub(super) recipients: u64,
    /// Messages the witness accepted.
    pub(super) accepted: u64,
    /// Accepted more than once, beyond counted resends.
    pub(super) duplicates: u64,
    /// Recipients, known to either side, whose state does not match.
    pub(super) disagreements: u64,
}

/// Compares the campaigns' deliveries with the witness file.
pub(super) async fn compare(
    ledger: &dyn Ledger,
    tenant: TenantId,
    campaigns: &[CampaignId],
    witness: &Path,
    key: &WitnessKey,
    folder: &Path,
) -> Result<Compared, DemoError> {
    let parts = tempfile::tempdir_in(folder).map_err(io("no temporary folder can be made"))?;
    let mut compared = Compared::default();
    let keys = ledger.tenant_keys(tenant).await?;
    let mut known = Parts::create(parts.path(), "ledger")?;
    for campaign in campaigns {
        let channel = ledger.campaign(tenant, *campaign).await?.channel;
        let mut after = -1;
        loop {
            let page = ledger.evidence(*campaign, channel, after, PAGE).await?;
            let Some(last) = page.last() else { break };
            after = last.seq;
            compared.recipients += page.len() as u64;
            for row in &page {
                match address(row, channel, &keys) {
                    Some(address) => known.put(&key.hash(&address), row.state as u8, row.resends)?,
                    // Erased: nobody knows the address any more, so nothing may have been sent to it.
                    None if row.state == DeliveryState::Accepted => compared.disagreements += 1,
                    None => {}
                }
            }
        }
    }
    let mut seen = Parts::create(parts.path(), "witness")?;
    for line in read_lines(witness).map_err(io("the witness cannot be read"))? {
        let line = line.map_err(|error| DemoError::Sandbox(error.to_string()))?;
        for recipient in line.recipients {
            if recipient.verdict == WitnessVerdict::Accepted {
                compared.accepted += 1;
                seen.put(&recipient.to, 0, 0)?;
            }
        }
    }
    for (known, seen) in known.finish()?.into_iter().zip(seen.finish()?) {
        join(&known, &seen, &mut compared)?;
    }
    Ok(compared)
}

fn address(row: &EvidenceRow, channel: Channel, keys: &TenantKeys) -> Option<String> {
    let contact = row.contact.as_ref()?;
    let column = match channel {
        Channel::Email => Column::Email,
        Channel::Sms => Column::Phone,
    };
    let opened = keys.open_contact(contact.id, &contact.key).ok()?.open(column, &contact.address).ok()?;
    String::from_utf8(opened).ok()
}

fn join(known: &Path, seen: &Path, compared: &mut Compared) -> Result<(), DemoError> {
    let mut accepted: HashMap<[u8; 16], u32> = HashMap::new();
    for record in records(seen)? {
        *accepted.entry(record?.0).or_default() += 1;
    }
    for record in records(known)? {
        let (hash, state, resends) = record?;
        let times = accepted.remove(&hash).unwrap_or(0);
        let extra = times.saturating_sub(1 + u32::from(resends));
        compared.duplicates += u64::from(extra);
        let matches = match state {
            state if state == DeliveryState::Accepted as u8 => times >= 1,
            state if state == DeliveryState::UnknownFinal as u8 => true,
            _ => times == 0,
        };
        if !matches || extra > 0 {
            compared.disagreements += 1;
        }
    }
    // What is left was accepted for somebody the ledger does not know.
    compared.disagreements += accepted.len() as u64;
    Ok(())
}

/// Records on disk, cut by the first bits of their hash.
struct Parts {
    files: Vec<(std::path::PathBuf, BufWriter<File>)>,
}

impl Parts {
    fn create(folder: &Path, name: &str) -> Result<Self, DemoError> {
        let files = (0..PARTS).map(|part| {
            let path = folder.join(format!("{name}.{part}"));
            let file = File::create(&path).map_err(io("a temporary file cannot be written"))?;
            Ok((path, BufWriter::with_capacity(4 << 10, file)))
        });
        Ok(Self { files: files.collect::<Result<_, DemoError>>()? })
    }

    fn put(&mut self, hash: &str, state: u8, resends: u32) -> Result<(), DemoError> {
        let mut record = [0; RECORD_BYTES];
        for (at, byte) in record.iter_mut().take(16).enumerate() {
            *byte = hash.get(at * 2..at * 2 + 2).and_then(|digits| u8::from_str_radix(digits, 16).ok()).unwrap_or(0);
        }
        record[16] = state;
        record[17] = u8::try_from(resends).unwrap_or(u8::MAX);
        let part = usize::from(record[0]) % PARTS;
        match self.files.get_mut(part) {
            Some((_, file)) => file.write_all(&record).map_err(io("a temporary file cannot be written")),
            None => Ok(()),
        }
    }

    fn finish(self) -> Result<Vec<std::path::PathBuf>, DemoError> {
        self.files
            .into_iter()
            .map(|(path, mut file)| {
                file.flush().map_err(io("a temporary file cannot be written"))?;
                Ok(path)
            })
            .collect()
    }
}

type Record = ([u8; 16], u8, u8);

fn records(path: &Path) -> Result<impl Iterator<Item = Result<Record, DemoError>>, DemoError> {
    let mut file = BufReader::new(File::open(path).map_err(io("a temporary file cannot be read"))?);
    Ok(std::iter::from_fn(move || {
        let mut record = [0; RECORD_BYTES];
        match file.read_exact(&mut record) {
            Ok(()) => {
                let mut hash = [0; 16];
                hash.copy_from_slice(&record[..16]);
                Some(Ok((hash, record[16], record[17])))
            }
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => None,
            Err(error) => Some(Err(io("a temporary file cannot be read")(error))),
        }
    }))
}
