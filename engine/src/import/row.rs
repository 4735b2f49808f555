//! Records to rows: addresses made valid, fields made clean.

use std::{fmt, sync::Arc};

use dispatch_schemas::address::{EmailAddress, PhoneNumber};
use serde::ser::{Serialize, SerializeMap as _, Serializer};

use super::{
    mapping::{Column, Columns},
    records::Record,
    report::{Report, Wrong},
};

/// Characters of a field's value.
pub const VALUE_CHARS_MAX: usize = 1_000;

/// One row with at least one address. Personal data: has no readable `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct Row {
    /// The line of the file where it begins, from 1.
    pub line: u64,
    /// The e-mail address.
    pub email: Option<EmailAddress>,
    /// The phone number.
    pub phone: Option<PhoneNumber>,
    /// What else is known.
    pub fields: Fields,
}

impl fmt::Debug for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Row(line {}, {:?}, {:?}, {:?})", self.line, self.email, self.phone, self.fields)
    }
}

/// The fields of a row that have a value, sorted by name. Serializes as a map. Personal data: has no readable `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct Fields {
    names: Arc<[Arc<str>]>,
    text: String,
    /// Where each value ends in `text`; equal to the one before for a field without value.
    ends: Vec<u32>,
}

impl Fields {
    /// Names and values, sorted by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        let values = starts.zip(&self.ends).map(|(start, end)| self.text.get(start as usize..*end as usize));
        self.names.iter().zip(values).filter_map(|(name, value)| Some((&**name, value.filter(|v| !v.is_empty())?)))
    }

    /// The value of a field.
    #[must_use]
    pub fn get(&self, field: &str) -> Option<&str> {
        self.iter().find_map(|(name, value)| (name == field).then_some(value))
    }
}

impl Serialize for Fields {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for (name, value) in self.iter() {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

impl fmt::Debug for Fields {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fields({} values, {} bytes)", self.iter().count(), self.text.len())
    }
}

/// Turns records into rows.
#[derive(Debug)]
pub struct RowReader {
    columns: Columns,
    names: Arc<[Arc<str>]>,
}

impl RowReader {
    /// A reader for a file with these columns.
    #[must_use]
    pub fn new(columns: Columns) -> Self {
        let names = columns.fields.iter().map(|(name, _)| Arc::clone(name)).collect();
        Self { columns, names }
    }

    /// The columns it reads.
    #[must_use]
    pub const fn columns(&self) -> &Columns {
        &self.columns
    }

    /// Reads a record; what is wrong with it goes to the report.
    ///
    /// A row with one good address is taken, whatever is wrong with its other one, and so is a row that ends early: its
    /// last cells are empty. A row with filled cells past the last named column is refused, since its values may stand
    /// in the wrong columns. A row without any filled cell is no row, and counts nowhere.
    pub fn read(&self, record: &Record<'_>, report: &mut Report) -> Option<Row> {
        if record.len() > self.columns.width && (self.columns.width..record.len()).any(|at| !is_blank(record.cell(at)))
        {
            report.reject();
            report.note(record.line, None, Wrong::ExtraColumns);
            return None;
        }
        let email = self.address(self.columns.email.as_ref(), record, EmailAddress::parse, report);
        let home = self.columns.default_country;
        let phone = self.address(self.columns.phone.as_ref(), record, |text| PhoneNumber::parse(text, home), report);
        if matches!((&email, &phone), (Cell::Empty, Cell::Empty)) {
            if record.cells().all(is_blank) {
                return None;
            }
            report.note(record.line, None, Wrong::NoAddress);
        }
        let (email, phone) = (email.good(), phone.good());
        if email.is_none() && phone.is_none() {
            report.reject();
            return None;
        }
        report.accept();
        Some(Row { line: record.line, email, phone, fields: self.fields(record, report) })
    }

    fn address<A, E: Into<Wrong>>(
        &self,
        column: Option<&Column>,
        record: &Record<'_>,
        parse: impl FnOnce(&str) -> Result<A, E>,
        report: &mut Report,
    ) -> Cell<A> {
        let Some(column) = column else {
            return Cell::Empty;
        };
        let text = record.cell(column.at);
        if is_blank(text) {
            return Cell::Empty;
        }
        match parse(text) {
            Ok(address) => Cell::Good(address),
            Err(wrong) => {
                report.note(record.line, Some(&column.name), wrong.into());
                Cell::Bad
            }
        }
    }

    fn fields(&self, record: &Record<'_>, report: &mut Report) -> Fields {
        let mut text = String::new();
        let mut ends = Vec::with_capacity(self.columns.fields.len());
        for (_, column) in &self.columns.fields {
            let value = record.cell(column.at).trim();
            if is_too_long(value) {
                report.note(record.line, Some(&column.name), Wrong::ValueTooLong);
            } else {
                push_clean(value, &mut text);
            }
            ends.push(u32::try_from(text.len()).unwrap_or(u32::MAX));
        }
        Fields { names: Arc::clone(&self.names), text, ends }
    }
}

/// What an address cell holds.
enum Cell<A> {
    Empty,
    Bad,
    Good(A),
}

impl<A> Cell<A> {
    fn good(self) -> Option<A> {
        match self {
            Self::Good(address) => Some(address),
            Self::Empty | Self::Bad => None,
        }
    }
}

fn is_blank(cell: &str) -> bool {
    cell.trim().is_empty()
}

fn is_too_long(value: &str) -> bool {
    value.len() > VALUE_CHARS_MAX && value.chars().nth(VALUE_CHARS_MAX).is_some()
}

/// Appends a value with a space for each run of control characters: no line breaks reach a header or a log. The rest
/// stays, a leading `=` too: whoever writes the value to a spreadsheet escapes it.
fn push_clean(value: &str, out: &mut String) {
    if !value.contains(char::is_control) {
        out.push_str(value);
        return;
    }
    for (at, part) in value.split(char::is_control).filter(|part| !part.is_empty()).enumerate() {
        if at > 0 {
            out.push(' ');
        }
        out.push_str(part);
    }
}
