//! A CSV file, from bytes to rows.

use dispatch_schemas::api::imports::{Mapping, ParseReport};

use super::{
    decode::{Decoder, NotText},
    delimiter,
    mapping::{self, Columns, MappingError},
    records::{BadRecord, RecordReader},
    report::{Report, Wrong},
    row::{Row, RowReader},
};

/// Text at the beginning that is kept to find the delimiter in.
const BEGINNING_BYTES: usize = 16 << 10;
/// Text that is handed to the record reader at a time, which copies it.
const PIECE_BYTES: usize = 64 << 10;

/// Why a file as a whole cannot be read. A bad row never is a reason.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FileError {
    /// Nothing is in it.
    #[error("the file is empty; it needs a first row with the names of its columns")]
    Empty,
    /// It is no text.
    #[error(transparent)]
    NotText(#[from] NotText),
    /// Its first row cannot be read.
    #[error("the names of the columns cannot be read in line {line}: {wrong}")]
    Header {
        /// The line.
        line: u64,
        /// Why.
        wrong: Wrong,
    },
    /// Its columns cannot be made out.
    #[error(transparent)]
    Mapping(#[from] MappingError),
}

/// Reads a CSV file handed in piece by piece; memory does not grow with the file.
///
/// ```
/// use dispatch_engine::import::parse::RowParser;
///
/// let mut parser = RowParser::new(Default::default())?;
/// let mut rows = Vec::new();
/// parser.feed(b"courriel;pr\xe9nom\nAnna@Example.ORG;Ren\xe9e\n", &mut rows)?;
/// parser.feed(b"not an address;Bo\n", &mut rows)?;
/// let report = parser.finish(&mut rows)?;
///
/// assert_eq!(rows[0].email.as_ref().map(|email| email.as_str()), Some("anna@example.org"));
/// assert_eq!(rows[0].fields.get("first_name"), Some("Renée"));
/// assert_eq!((report.rows, report.accepted, report.rejected), (2, 1, 1));
/// assert_eq!((report.problems[0].line, &*report.problems[0].code), (3, "no_at"));
/// # Ok::<(), dispatch_engine::import::parse::FileError>(())
/// ```
#[derive(Debug)]
pub struct RowParser {
    decoder: Decoder,
    reading: Reading,
}

/// What is behind the decoder.
#[derive(Debug)]
struct Reading {
    mapping: Mapping,
    stage: Stage,
    delimiter: u8,
    report: Report,
}

#[derive(Debug)]
enum Stage {
    Beginning(Text),
    Header(RecordReader),
    Rows(RecordReader, RowReader),
    Failed(FileError),
}

/// Text of the file. Personal data: has no readable `Debug`.
#[derive(Default)]
struct Text(String);

impl std::fmt::Debug for Text {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Text({} bytes)", self.0.len())
    }
}

impl RowParser {
    /// A parser for one file.
    ///
    /// # Errors
    /// When the mapping cannot fit any file.
    pub fn new(mapping: Mapping) -> Result<Self, FileError> {
        mapping::check(&mapping)?;
        let stage = Stage::Beginning(Text::default());
        let reading = Reading { mapping, stage, delimiter: b',', report: Report::default() };
        Ok(Self { decoder: Decoder::default(), reading })
    }

    /// Takes the next bytes of the file, and appends the rows that are whole.
    ///
    /// # Errors
    /// When the file cannot be read; the same again each time after.
    pub fn feed(&mut self, bytes: &[u8], out: &mut Vec<Row>) -> Result<(), FileError> {
        let Self { decoder, reading } = self;
        if let Err(wrong) = decoder.feed(bytes, &mut |text| reading.take(text, out)) {
            reading.fail(wrong);
        }
        reading.outcome()
    }

    /// Says that there are no more bytes, and appends the last rows.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn finish(mut self, out: &mut Vec<Row>) -> Result<ParseReport, FileError> {
        let Self { decoder, reading } = &mut self;
        if let Err(wrong) = decoder.finish(&mut |text| reading.take(text, out)) {
            reading.fail(wrong);
        }
        reading.end(out);
        let columns = match &self.reading.stage {
            Stage::Failed(error) => return Err(error.clone()),
            Stage::Beginning(_) | Stage::Header(_) => return Err(FileError::Empty),
            Stage::Rows(_, rows) => rows.columns(),
        };
        let fields = columns.fields.iter().map(|(name, _)| name.to_string()).collect();
        let dropped_columns = columns.dropped as u64;
        Ok(ParseReport {
            encoding: self.decoder.encoding().name().to_owned(),
            damaged_characters: self.decoder.damaged_characters(),
            delimiter: char::from(self.reading.delimiter),
            fields,
            dropped_columns,
            ..self.reading.report.into_report()
        })
    }

    /// Rows read so far, good and bad.
    #[must_use]
    pub const fn rows(&self) -> u64 {
        self.reading.report.rows()
    }
}

impl Reading {
    fn take(&mut self, text: &str, out: &mut Vec<Row>) {
        if let Stage::Beginning(beginning) = &mut self.stage {
            beginning.0.push_str(text);
            if beginning.0.len() >= BEGINNING_BYTES {
                self.begin(out);
            }
            return;
        }
        self.read(text, out);
    }

    /// Looks at the beginning of the text for the delimiter, then reads it.
    fn begin(&mut self, out: &mut Vec<Row>) {
        let Stage::Beginning(beginning) = &mut self.stage else {
            return;
        };
        let Text(text) = std::mem::take(beginning);
        let (delimiter, declared) = delimiter::declared(&text).unwrap_or_else(|| {
            let beginning = text.get(..text.floor_char_boundary(BEGINNING_BYTES)).unwrap_or_default();
            (delimiter::detect(beginning), 0)
        });
        self.delimiter = delimiter;
        self.stage = Stage::Header(RecordReader::new(delimiter, if declared > 0 { 2 } else { 1 }));
        self.read(text.get(declared..).unwrap_or_default(), out);
    }

    fn read(&mut self, text: &str, out: &mut Vec<Row>) {
        for piece in text.as_bytes().chunks(PIECE_BYTES) {
            if let Stage::Header(records) | Stage::Rows(records, _) = &mut self.stage {
                records.feed(piece);
            }
            self.drain(out);
        }
    }

    /// Reads what is left.
    fn end(&mut self, out: &mut Vec<Row>) {
        self.begin(out);
        if let Stage::Header(records) | Stage::Rows(records, _) = &mut self.stage {
            records.finish();
        }
        self.drain(out);
    }

    fn drain(&mut self, out: &mut Vec<Row>) {
        if let Stage::Header(records) = &mut self.stage {
            let columns = match records.next_record() {
                None => return,
                Some(Ok(header)) => {
                    Columns::find(&header.cells().collect::<Vec<_>>(), &self.mapping).map_err(FileError::from)
                }
                Some(Err(BadRecord { line, wrong })) => Err(FileError::Header { line, wrong }),
            };
            let placeholder = Stage::Failed(FileError::Empty);
            self.stage = match (columns, std::mem::replace(&mut self.stage, placeholder)) {
                (Ok(columns), Stage::Header(records)) => Stage::Rows(records, RowReader::new(columns)),
                (Err(error), _) => Stage::Failed(error),
                (_, other) => other,
            };
        }
        if let Stage::Rows(records, rows) = &mut self.stage {
            while let Some(record) = records.next_record() {
                match record {
                    Ok(record) => out.extend(rows.read(&record, &mut self.report)),
                    Err(BadRecord { line, wrong }) => {
                        self.report.reject();
                        self.report.note(line, None, wrong);
                    }
                }
            }
        }
    }

    fn fail(&mut self, error: impl Into<FileError>) {
        self.stage = Stage::Failed(error.into());
    }

    fn outcome(&self) -> Result<(), FileError> {
        match &self.stage {
            Stage::Failed(error) => Err(error.clone()),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
#[path = "parse_tests.rs"]
mod tests;
