//! Text to records: RFC 4180 with CR, LF or CRLF, read in pieces with a bound on everything.
//!
//! One bad row costs one row. A line that is too long is skipped as it streams by. A quotation mark that is never
//! closed would make the rest of the file one cell: when a quoted cell runs past the limit, or ends where no quoted
//! cell can end, its first line is reported and reading goes on at the next line.

use csv_core::ReadRecordResult;

use super::report::Wrong;

/// Bytes of one record, and so the most memory a record takes; a row of a contact list has a few hundred.
pub const RECORD_BYTES_MAX: usize = 256 << 10;
/// Columns of one record.
pub const COLUMNS_MAX: usize = 1_000;
/// Bytes that may be read again because of unclosed quotation marks, beside [`REREAD_TIMES`] what was read in all; past
/// that, the rest of the file is read as one that does not quote. A file made for the purpose would otherwise cost
/// [`RECORD_BYTES_MAX`] for every line of a few bytes; rows with a slip here and there stay far below.
const REREAD_BYTES: u64 = 64 << 20;
/// See [`REREAD_BYTES`].
const REREAD_TIMES: u64 = 4;

/// A record that cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BadRecord {
    /// The line where it begins, from 1.
    pub line: u64,
    /// Why.
    pub wrong: Wrong,
}

/// A record: the cells of one row, unquoted.
#[derive(Clone, Copy)]
pub struct Record<'a> {
    /// The line where it begins, from 1.
    pub line: u64,
    text: &'a str,
    ends: &'a [usize],
}

impl<'a> Record<'a> {
    /// How many cells there are; at least one.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there is no cell.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// The cell in column `at`, from 0; empty where the record has none.
    #[must_use]
    pub fn cell(&self, at: usize) -> &'a str {
        let start = if at == 0 { 0 } else { self.ends.get(at - 1).copied().unwrap_or(usize::MAX) };
        self.ends.get(at).and_then(|end| self.text.get(start..*end)).unwrap_or_default()
    }

    /// All cells.
    pub fn cells(&self) -> impl Iterator<Item = &'a str> {
        (0..self.len()).map(|at| self.cell(at))
    }
}

impl std::fmt::Debug for Record<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Record(line {}, {} cells)", self.line, self.ends.len())
    }
}

/// Reads records from text handed in piece by piece: [`feed`](Self::feed), then [`next_record`](Self::next_record)
/// until there is none; at the end [`finish`](Self::finish) and the same again.
pub struct RecordReader {
    csv: csv_core::Reader,
    delimiter: u8,
    /// Text from the beginning of the current record on.
    text: Vec<u8>,
    /// Where the current record begins in `text`.
    start: usize,
    /// How far `csv` has read in `text`.
    read: usize,
    /// The line of `start`.
    line: u64,
    /// Whether a CR stood before `start`: an LF there ends no further line.
    after_cr: bool,
    /// Whether the rest of the line at `start` is to be passed over.
    skipping: bool,
    ended: bool,
    /// Whether quotation marks mean anything.
    quotes: bool,
    /// Bytes before `text`.
    passed: u64,
    /// Bytes read again because of unclosed quotation marks.
    reread: u64,
    cells: Vec<u8>,
    cells_length: usize,
    ends: Vec<usize>,
    ends_length: usize,
    too_wide: bool,
}

impl std::fmt::Debug for RecordReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "RecordReader(line {})", self.line)
    }
}

impl RecordReader {
    /// A reader for columns separated by `delimiter`; the first line of its text is line `line`.
    #[must_use]
    pub fn new(delimiter: u8, line: u64) -> Self {
        Self {
            csv: csv_core::ReaderBuilder::new().delimiter(delimiter).build(),
            delimiter,
            text: Vec::new(),
            start: 0,
            read: 0,
            line,
            after_cr: false,
            skipping: false,
            ended: false,
            quotes: true,
            passed: 0,
            reread: 0,
            cells: vec![0; 1 << 10],
            cells_length: 0,
            ends: vec![0; COLUMNS_MAX],
            ends_length: 0,
            too_wide: false,
        }
    }

    /// Takes more text, in UTF-8. Memory: what is fed and not yet read, and a record.
    pub fn feed(&mut self, text: &[u8]) {
        self.text.drain(..self.start);
        self.passed += self.start as u64;
        self.read -= self.start;
        self.start = 0;
        self.text.extend_from_slice(text);
    }

    /// Says that there is no more text.
    pub fn finish(&mut self) {
        self.ended = true;
    }

    /// The next record that is wholly there. Lines without a single character are no records.
    pub fn next_record(&mut self) -> Option<Result<Record<'_>, BadRecord>> {
        let line = match self.advance()? {
            Ok(line) => line,
            Err(bad) => return Some(Err(bad)),
        };
        // Always whole characters: cells are cut at ASCII characters, out of valid text.
        let text = self.cells.get(..self.cells_length).map(std::str::from_utf8);
        let ends = self.ends.get(..self.ends_length);
        match (text, ends) {
            (Some(Ok(text)), Some(ends)) => Some(Ok(Record { line, text, ends })),
            _ => Some(Err(BadRecord { line, wrong: Wrong::NotText })),
        }
    }

    /// Reads to the end of a record; its line.
    fn advance(&mut self) -> Option<Result<u64, BadRecord>> {
        loop {
            if self.skipping && !self.skip_line() {
                return None;
            }
            if self.read == self.start {
                self.skip_line_ends();
                self.begin_record();
            }
            let limit = self.text.len().min(self.start + RECORD_BYTES_MAX + 1);
            if self.read == limit {
                if limit > self.start + RECORD_BYTES_MAX {
                    return Some(Err(self.too_long()));
                }
                if !self.ended || self.start == limit {
                    return None;
                }
            }
            let (result, read, written, ended) = self.csv.read_record(
                self.text.get(self.read..limit).unwrap_or_default(),
                self.cells.get_mut(self.cells_length..).unwrap_or_default(),
                self.ends.get_mut(self.ends_length..).unwrap_or_default(),
            );
            self.read += read;
            self.cells_length += written;
            self.ends_length += ended;
            match result {
                ReadRecordResult::InputEmpty => {}
                ReadRecordResult::OutputFull => self.cells.resize(self.cells.len() * 2, 0),
                ReadRecordResult::OutputEndsFull => {
                    self.too_wide = true;
                    self.ends_length = 0;
                }
                ReadRecordResult::Record => return Some(self.end_record()),
                ReadRecordResult::End => return None,
            }
        }
    }

    fn begin_record(&mut self) {
        self.read = self.start;
        self.cells_length = 0;
        self.ends_length = 0;
        self.too_wide = false;
    }

    /// Passes over line ends where a record could begin.
    fn skip_line_ends(&mut self) {
        while let Some(byte @ (b'\r' | b'\n')) = self.text.get(self.start).copied() {
            self.line += u64::from(byte == b'\r' || !self.after_cr);
            self.after_cr = byte == b'\r';
            self.start += 1;
        }
        self.after_cr &= self.start == self.text.len();
    }

    /// Passes over the rest of a line; whether its end is there.
    fn skip_line(&mut self) -> bool {
        let rest = self.text.get(self.start..).unwrap_or_default();
        match rest.iter().position(|byte| is_line_end(*byte)) {
            Some(at) => {
                self.start += at;
                self.skipping = false;
            }
            None => self.start = self.text.len(),
        }
        self.read = self.start;
        !self.skipping
    }

    /// The record has passed the limit: because of its quotation mark if it has several lines, else because of its
    /// only one.
    fn too_long(&mut self) -> BadRecord {
        if let Some(bad) = self.give_up_on_quote() {
            return bad;
        }
        self.start += RECORD_BYTES_MAX + 1;
        self.skipping = true;
        self.csv.reset();
        BadRecord { line: self.line, wrong: Wrong::LineTooLong }
    }

    /// Goes back to the second line of the current record, if there is one.
    fn give_up_on_quote(&mut self) -> Option<BadRecord> {
        let record = self.text.get(self.start..self.read)?;
        let first = record.iter().position(|byte| is_line_end(*byte))?;
        self.reread += (self.read - self.start) as u64;
        self.start += first;
        self.read = self.start;
        if self.reread > REREAD_BYTES + REREAD_TIMES * (self.passed + self.start as u64) {
            self.quotes = false;
            self.csv = csv_core::ReaderBuilder::new().delimiter(self.delimiter).quoting(false).build();
        }
        self.csv.reset();
        Some(BadRecord { line: self.line, wrong: Wrong::UnclosedQuote })
    }

    /// Looks at the record that has just been read, and moves on to the next one.
    fn end_record(&mut self) -> Result<u64, BadRecord> {
        let line = self.line;
        let record = self.text.get(self.start..self.read).unwrap_or_default();
        let content = match record {
            [content @ .., end] if is_line_end(*end) => content,
            cut => cut,
        };
        let wrong = |wrong| Err(BadRecord { line, wrong });
        let line_ends = content.iter().fold(0_u64, |count, byte| count + u64::from(is_line_end(*byte)));
        let is_cut = content.len() == record.len();
        if self.quotes && (line_ends > 0 || is_cut) {
            match quoting(content, self.delimiter) {
                Quoting::Open if line_ends == 0 => {
                    self.start = self.read;
                    return wrong(Wrong::UnclosedQuote);
                }
                Quoting::Open | Quoting::Loose if line_ends > 0 => {
                    return self.give_up_on_quote().map_or_else(|| wrong(Wrong::UnclosedQuote), Err);
                }
                _ => {}
            }
        }
        let has_nul = content.contains(&0);
        let pairs = if line_ends > 1 { content.windows(2).filter(|two| *two == b"\r\n").count() as u64 } else { 0 };
        self.line += line_ends - pairs;
        // The line end stays for `skip_line_ends`, which counts it.
        self.start += content.len();
        self.read = self.start;
        if has_nul {
            return wrong(Wrong::Nul);
        }
        if self.too_wide { wrong(Wrong::TooManyColumns) } else { Ok(line) }
    }
}

const fn is_line_end(byte: u8) -> bool {
    matches!(byte, b'\r' | b'\n')
}

/// How a record uses quotation marks.
enum Quoting {
    /// As RFC 4180 has it, or not at all.
    Sound,
    /// Something stands between a closing mark and the end of its cell.
    Loose,
    /// A mark is not closed.
    Open,
}

fn quoting(record: &[u8], delimiter: u8) -> Quoting {
    #[derive(Clone, Copy)]
    enum At {
        CellStart,
        Cell,
        Quoted,
        Mark,
    }
    let mut at = At::CellStart;
    for byte in record {
        at = match (at, *byte) {
            (At::CellStart, b'"') | (At::Mark, b'"') => At::Quoted,
            (At::Quoted, b'"') => At::Mark,
            (At::Quoted, _) => At::Quoted,
            (_, byte) if byte == delimiter => At::CellStart,
            (At::Mark, _) => return Quoting::Loose,
            _ => At::Cell,
        };
    }
    if matches!(at, At::Quoted) { Quoting::Open } else { Quoting::Sound }
}

#[cfg(test)]
#[path = "records_tests.rs"]
mod tests;
