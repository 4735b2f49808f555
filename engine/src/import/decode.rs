//! Bytes of unknown encoding to text, piece by piece.
//!
//! A byte order mark decides; else NUL bytes in the pattern of UTF-16; else the first bytes outside ASCII, wherever in
//! the file they come: they are UTF-8, or a guess is made from them and what follows. The outcome depends on the bytes
//! alone, never on how they were cut into pieces.

use chardetng::{EncodingDetector, Iso2022JpDetection, Utf8Detection};
use encoding_rs::{DecoderResult, Encoding, UTF_8, UTF_16BE, UTF_16LE};

/// Bytes at the beginning that are looked at for UTF-16 without a mark.
const BEGINNING_BYTES: usize = 1 << 10;
/// Bytes from the first one outside ASCII on that the guess is made from: a few hundred names.
const SAMPLE_BYTES: usize = 64 << 10;
/// Room for text that is decoded from another encoding, at a time.
const OUTPUT_BYTES: usize = 16 << 10;
const REPLACEMENT: &str = "\u{fffd}";

/// The file is no text at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the file is {what}, not CSV; open it and export the list as CSV")]
pub struct NotText {
    /// What it looks like.
    pub what: &'static str,
}

/// Beginnings of files that people upload in place of a CSV file.
const NOT_TEXT: [(&[u8], &str); 5] = [
    (b"PK\x03\x04", "a zip archive or an Excel workbook (.xlsx)"),
    (b"\x1f\x8b", "compressed with gzip"),
    (b"\xd0\xcf\x11\xe0", "an old Excel workbook (.xls)"),
    (b"%PDF-", "a PDF document"),
    (b"BZh", "compressed with bzip2"),
];

/// A decoder that finds out the encoding by itself. Memory: [`SAMPLE_BYTES`] and the piece in hand.
#[derive(Debug)]
pub struct Decoder {
    state: State,
    damaged: u64,
}

enum State {
    /// Not enough bytes to see a mark or UTF-16.
    Beginning(Vec<u8>),
    /// Nothing but ASCII so far; the last byte, which the guess wants to see.
    Ascii(Option<u8>),
    /// The first bytes outside ASCII are being gathered.
    Sampling { before: Option<u8>, sample: Vec<u8> },
    /// UTF-8; the bytes of a character that was cut.
    Utf8(Vec<u8>),
    /// Another encoding.
    Other(Box<encoding_rs::Decoder>),
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Beginning(_) => "Beginning",
            Self::Ascii(_) => "Ascii",
            Self::Sampling { .. } => "Sampling",
            Self::Utf8(_) => "Utf8",
            Self::Other(_) => "Other",
        })
    }
}

impl Default for Decoder {
    fn default() -> Self {
        Self { state: State::Beginning(Vec::new()), damaged: 0 }
    }
}

impl Decoder {
    /// The encoding as far as it is known.
    #[must_use]
    pub fn encoding(&self) -> &'static Encoding {
        match &self.state {
            State::Other(decoder) => decoder.encoding(),
            _ => UTF_8,
        }
    }

    /// Characters that were no text in the encoding and became U+FFFD.
    #[must_use]
    pub const fn damaged_characters(&self) -> u64 {
        self.damaged
    }

    /// Takes the next bytes and hands on text in any number of pieces. UTF-8 is handed on where it lies.
    ///
    /// # Errors
    /// When the file is no text.
    pub fn feed(&mut self, bytes: &[u8], sink: &mut impl FnMut(&str)) -> Result<(), NotText> {
        match &mut self.state {
            State::Beginning(gathered) => {
                let (now, later) = bytes.split_at(bytes.len().min(BEGINNING_BYTES - gathered.len()));
                gathered.extend_from_slice(now);
                if gathered.len() < BEGINNING_BYTES {
                    return Ok(());
                }
                self.begin(sink)?;
                self.feed(later, sink)
            }
            State::Ascii(before) => {
                let (ascii, rest) = bytes.split_at(Encoding::ascii_valid_up_to(bytes));
                *before = ascii.last().copied().or(*before);
                sink(std::str::from_utf8(ascii).unwrap_or_default());
                if !rest.is_empty() {
                    self.state = State::Sampling { before: *before, sample: Vec::new() };
                    return self.feed(rest, sink);
                }
                Ok(())
            }
            State::Sampling { sample, .. } => {
                let (now, later) = bytes.split_at(bytes.len().min(SAMPLE_BYTES - sample.len()));
                sample.extend_from_slice(now);
                if sample.len() < SAMPLE_BYTES {
                    return Ok(());
                }
                self.decide(sink)?;
                self.feed(later, sink)
            }
            State::Utf8(cut) => {
                self.damaged += utf8(cut, bytes, sink);
                Ok(())
            }
            State::Other(decoder) => {
                self.damaged += other(decoder, bytes, Last::No, sink);
                Ok(())
            }
        }
    }

    /// Hands on what was still being held: there are no more bytes.
    ///
    /// # Errors
    /// When the file is no text.
    pub fn finish(&mut self, sink: &mut impl FnMut(&str)) -> Result<(), NotText> {
        if matches!(self.state, State::Beginning(_)) {
            self.begin(sink)?;
        }
        if matches!(self.state, State::Sampling { .. }) {
            self.decide(sink)?;
        }
        match &mut self.state {
            State::Utf8(cut) if !cut.is_empty() => {
                cut.clear();
                self.damaged += 1;
                sink(REPLACEMENT);
            }
            State::Other(decoder) => self.damaged += other(decoder, &[], Last::Yes, sink),
            _ => {}
        }
        Ok(())
    }

    /// Looks at the beginning of the file.
    fn begin(&mut self, sink: &mut impl FnMut(&str)) -> Result<(), NotText> {
        let State::Beginning(gathered) = std::mem::replace(&mut self.state, State::Ascii(None)) else {
            return Ok(());
        };
        if let Some((_, what)) = NOT_TEXT.iter().find(|(magic, _)| gathered.starts_with(magic)) {
            return Err(NotText { what });
        }
        let mut rest = gathered.as_slice();
        if let Some((encoding, mark)) = Encoding::for_bom(rest) {
            rest = rest.get(mark..).unwrap_or_default();
            self.state = if encoding == UTF_8 { State::Utf8(Vec::new()) } else { of_encoding(encoding) };
        } else if let Some(encoding) = utf16_by_its_nuls(rest) {
            self.state = of_encoding(encoding);
        }
        self.feed(rest, sink)
    }

    /// Looks at the first bytes outside ASCII.
    fn decide(&mut self, sink: &mut impl FnMut(&str)) -> Result<(), NotText> {
        let State::Sampling { before, sample } = std::mem::replace(&mut self.state, State::Ascii(None)) else {
            return Ok(());
        };
        let is_utf8 = std::str::from_utf8(&sample).map_or_else(|wrong| wrong.error_len().is_none(), |_| true);
        self.state = if is_utf8 {
            State::Utf8(Vec::new())
        } else {
            let mut detector = EncodingDetector::new(Iso2022JpDetection::Deny);
            detector.feed(before.as_slice(), false);
            detector.feed(&sample, sample.len() < SAMPLE_BYTES);
            of_encoding(detector.guess(None, Utf8Detection::Deny))
        };
        self.feed(&sample, sink)
    }
}

fn of_encoding(encoding: &'static Encoding) -> State {
    State::Other(Box::new(encoding.new_decoder_without_bom_handling()))
}

/// Text in UTF-16 is full of NULs, and most of them stand at odd places (little endian) or at even ones.
fn utf16_by_its_nuls(beginning: &[u8]) -> Option<&'static Encoding> {
    let pairs = beginning.len() / 2;
    let nuls_at = |offset: usize| beginning.iter().skip(offset).step_by(2).filter(|byte| **byte == 0).count();
    let (even, odd) = (nuls_at(0), nuls_at(1));
    if pairs < 2 || even.max(odd) * 2 < pairs || even.min(odd) * 8 > pairs {
        return None;
    }
    Some(if odd > even { UTF_16LE } else { UTF_16BE })
}

/// Hands on UTF-8; what is none becomes U+FFFD and is counted.
fn utf8(cut: &mut Vec<u8>, bytes: &[u8], sink: &mut impl FnMut(&str)) -> u64 {
    let mut damaged = 0;
    let mut rest = bytes;
    while !cut.is_empty() {
        let Some((next, later)) = rest.split_first() else {
            return damaged;
        };
        cut.push(*next);
        match std::str::from_utf8(cut) {
            Ok(character) => {
                sink(character);
                cut.clear();
                rest = later;
            }
            Err(wrong) if wrong.error_len().is_none() => rest = later,
            // The new byte is not part of the broken character: it is looked at again.
            Err(_) => {
                damaged += 1;
                sink(REPLACEMENT);
                cut.clear();
            }
        }
    }
    for chunk in rest.utf8_chunks() {
        sink(chunk.valid());
        let invalid = chunk.invalid();
        if invalid.is_empty() {
            continue;
        }
        let at_the_end = std::ptr::eq(invalid.as_ptr_range().end, rest.as_ptr_range().end);
        if at_the_end && std::str::from_utf8(invalid).is_err_and(|wrong| wrong.error_len().is_none()) {
            cut.extend_from_slice(invalid);
        } else {
            damaged += 1;
            sink(REPLACEMENT);
        }
    }
    damaged
}

#[derive(Clone, Copy, PartialEq)]
enum Last {
    Yes,
    No,
}

/// Hands on text of another encoding.
fn other(decoder: &mut encoding_rs::Decoder, bytes: &[u8], last: Last, sink: &mut impl FnMut(&str)) -> u64 {
    let mut damaged = 0;
    let mut rest = bytes;
    let mut text = String::with_capacity(OUTPUT_BYTES);
    loop {
        let (result, read) = decoder.decode_to_string_without_replacement(rest, &mut text, last == Last::Yes);
        rest = rest.get(read..).unwrap_or_default();
        sink(&text);
        text.clear();
        match result {
            DecoderResult::InputEmpty => return damaged,
            DecoderResult::OutputFull => {}
            DecoderResult::Malformed(..) => {
                damaged += 1;
                sink(REPLACEMENT);
            }
        }
    }
}

#[cfg(test)]
#[path = "decode_tests.rs"]
mod tests;
