//! The demo's contact list, and who in it opts out before the launch.

use std::{
    fs::File,
    io::{BufWriter, Read as _},
    path::{Path, PathBuf},
};

use dispatch_schemas::states::Channel;

use super::{DemoError, DemoOptions, io};
use crate::import::{
    fixture::{Addresses, write_clean},
    parse::RowParser,
};

/// People are chosen among the first rows of the file.
const CHOOSE_FROM_ROWS: usize = 5_000;
/// As much of the file as is read to find them, bytes.
const CHOOSE_FROM_BYTES: u64 = 1 << 20;
/// Of the people at the beginning of the file, every such one is suppressed.
const SUPPRESS_EVERY: usize = 50;
/// And every such one is erased.
const ERASE_EVERY: usize = 211;

/// By which channels the demo sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Channels {
    /// E-mail only.
    Email,
    /// SMS only.
    Sms,
    /// Both: of a made-up list, one half each.
    Both,
}

impl Channels {
    /// Whether a channel is among them.
    #[must_use]
    pub fn includes(self, channel: Channel) -> bool {
        match self {
            Self::Email => channel == Channel::Email,
            Self::Sms => channel == Channel::Sms,
            Self::Both => true,
        }
    }
}

/// The contact file: the one given, or one made up. With both channels each person of a made-up list has both
/// addresses, so half as many people make the wanted number of recipients; those who will be erased come on top.
pub(super) fn file(options: &DemoOptions, folder: &Path) -> Result<PathBuf, DemoError> {
    if let Some(csv) = &options.csv {
        return Ok(csv.clone());
    }
    let path = folder.join("contacts.csv");
    let mut out = BufWriter::new(File::create(&path).map_err(io("the contact list cannot be written"))?);
    let (people, addresses) = match options.channels {
        Channels::Email => (options.recipients, Addresses::Email),
        Channels::Sms => (options.recipients, Addresses::Phone),
        Channels::Both => (options.recipients.div_ceil(2), Addresses::Both),
    };
    let mut rows = people;
    while rows - erased_of(rows) < people {
        rows += 1;
    }
    write_clean(&mut out, rows, addresses).map_err(io("the contact list cannot be written"))?;
    Ok(path)
}

/// How many people of a list of so many rows are erased.
const fn erased_of(rows: u64) -> u64 {
    let among = if rows < CHOOSE_FROM_ROWS as u64 { rows } else { CHOOSE_FROM_ROWS as u64 };
    among / ERASE_EVERY as u64
}

/// Who opts out.
#[derive(Default)]
pub(super) struct Chosen {
    pub(super) suppressed: Vec<(Channel, String)>,
    pub(super) erased: Vec<(Channel, String)>,
}

/// Chooses some people from the beginning of the file.
pub(super) fn choose(file: &Path) -> Result<Chosen, DemoError> {
    let mut beginning = Vec::new();
    File::open(file)
        .and_then(|file| file.take(CHOOSE_FROM_BYTES).read_to_end(&mut beginning))
        .map_err(io("the contact file cannot be read"))?;
    let mut rows = Vec::new();
    // The import has said by now if there is anything wrong with the file.
    if let Ok(mut parser) = RowParser::new(Default::default())
        && parser.feed(&beginning, &mut rows).is_ok()
    {
        let _ = parser.finish(&mut rows);
    }
    if beginning.len() as u64 == CHOOSE_FROM_BYTES {
        // The last row was cut off.
        rows.pop();
    }
    let mut chosen = Chosen::default();
    for (at, row) in rows.iter().take(CHOOSE_FROM_ROWS).enumerate() {
        let email = row.email.as_ref().map(|email| (Channel::Email, email.as_str().to_owned()));
        let phone = row.phone.as_ref().map(|phone| (Channel::Sms, phone.as_str().to_owned()));
        if at % ERASE_EVERY == ERASE_EVERY - 1 {
            chosen.erased.extend(email.or(phone));
        } else if at % SUPPRESS_EVERY == SUPPRESS_EVERY - 1 {
            chosen.suppressed.extend([email, phone].into_iter().flatten());
        }
    }
    Ok(chosen)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_are_erased_as_are_made_up_on_top() {
        let folder = tempfile::tempdir().unwrap();
        for rows in [1, 210, 211, 5_000, 12_000] {
            let path = folder.path().join(format!("{rows}.csv"));
            write_clean(&mut File::create(&path).unwrap(), rows, Addresses::Both).unwrap();
            assert_eq!(choose(&path).unwrap().erased.len() as u64, erased_of(rows), "{rows}");
        }
    }
}
