//! The first row of a file and the user's mapping to columns that are read.

use std::sync::Arc;

use dispatch_schemas::{
    address::{Country, EmailAddress, PhoneNumber},
    api::imports::Mapping,
};

use super::column_names::{EMAIL, FIRST_NAME, LAST_NAME, LOCALE, NAME, PHONE, folded};

/// Fields of a contact beside its addresses: what a template can say of a person.
pub const FIELDS_MAX: usize = 50;
/// Characters of a field's name.
pub const FIELD_NAME_MAX: usize = 40;
/// Characters of a column's name in messages and reports.
const SHOWN_CHARS: usize = 60;
/// Digits from which a cell of the first row is taken for a number, not a name.
const DATA_DIGITS: usize = 5;
/// How like a name must be to be suggested for another (Jaro-Winkler, 0 to 1).
const LIKENESS: f64 = 0.75;

/// Why a file's columns cannot be made out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MappingError {
    /// The first row holds data.
    #[error(
        "the first row looks like data, not like names of columns; put a row such as `email,first_name` ({columns} \
         columns) at the top of the file"
    )]
    NoHeader {
        /// How many columns there are.
        columns: usize,
    },
    /// No column looks like e-mail or phone, and none was named.
    ///
    /// Says how many columns there are, not what they are called: in a file without a header the first row is a person.
    #[error(
        "none of the file's {columns} columns has a name known for e-mail or phone; say which column holds them, with \
         `email` or `phone`, or put a row such as `email,first_name` at the top of the file"
    )]
    NoAddressColumn {
        /// How many columns there are.
        columns: usize,
    },
    /// A column was named that is not there.
    #[error("`{for_what}` is mapped to the column `{column}`, which is not among the file's {columns}{hint}")]
    NoSuchColumn {
        /// What the column was to be read as.
        for_what: String,
        /// The column's name in the mapping, or `…` when it looks like an address.
        column: String,
        /// `; did you mean …?`, or nothing.
        hint: String,
        /// How many columns there are.
        columns: usize,
    },
    /// A column that is read is there twice.
    #[error("the file has two columns named `{column}`; rename one of them, so that it is clear which to read")]
    TwoColumns {
        /// The name.
        column: String,
    },
    /// A field's name is none.
    #[error("`{field}` cannot be a field's name: it begins with a letter and has up to 40 of a-z, 0-9 and _")]
    FieldName {
        /// The name.
        field: String,
    },
    /// A field's name that has a place of its own in the mapping.
    #[error("`{field}` has a place of its own in the mapping, beside `fields`")]
    ReservedField {
        /// The name.
        field: String,
    },
    /// More fields than a contact has.
    #[error("{fields} fields are mapped; a contact has at most {FIELDS_MAX}")]
    TooManyFields {
        /// How many are mapped.
        fields: usize,
    },
}

/// A column that is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    /// Its place in a record, from 0.
    pub at: usize,
    /// Its name in the file as reports show it: short, and its place instead should it look like an address.
    pub name: Arc<str>,
}

/// The columns that are read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Columns {
    /// The e-mail address.
    pub email: Option<Column>,
    /// The phone number.
    pub phone: Option<Column>,
    /// The fields, sorted by name.
    pub fields: Vec<(Arc<str>, Column)>,
    /// How many columns have a name.
    pub width: usize,
    /// How many of them are not read.
    pub dropped: usize,
    /// The country of phone numbers written without one.
    pub default_country: Option<Country>,
}

/// Looks a mapping over before there is a file.
///
/// # Errors
/// When a field's name is none, or there are too many.
pub fn check(mapping: &Mapping) -> Result<(), MappingError> {
    if mapping.fields.len() > FIELDS_MAX {
        return Err(MappingError::TooManyFields { fields: mapping.fields.len() });
    }
    for field in mapping.fields.keys() {
        let begins = field.bytes().next().is_some_and(|byte| byte.is_ascii_lowercase());
        let goes_on = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
        if !begins || field.len() > FIELD_NAME_MAX || !field.bytes().all(goes_on) {
            return Err(MappingError::FieldName { field: shown(field) });
        }
        if ["email", "phone"].contains(&field.as_str()) || NAMED.iter().any(|named| named.field == field) {
            return Err(MappingError::ReservedField { field: field.clone() });
        }
    }
    Ok(())
}

/// A field with a place of its own in the mapping.
struct Named {
    field: &'static str,
    mapped: fn(&Mapping) -> Option<&String>,
    usual: &'static [&'static str],
}

const NAMED: [Named; 4] = [
    Named { field: "first_name", mapped: |mapping| mapping.first_name.as_ref(), usual: FIRST_NAME },
    Named { field: "last_name", mapped: |mapping| mapping.last_name.as_ref(), usual: LAST_NAME },
    Named { field: "name", mapped: |mapping| mapping.name.as_ref(), usual: NAME },
    Named { field: "locale", mapped: |mapping| mapping.locale.as_ref(), usual: LOCALE },
];

impl Columns {
    /// Finds the columns in a file's first record.
    ///
    /// # Errors
    /// When a mapped column is missing or there twice, when no column holds addresses, or when the record looks like
    /// data.
    pub fn find(header: &[&str], mapping: &Mapping) -> Result<Self, MappingError> {
        check(mapping)?;
        let header = Header(header.iter().map(|name| name.trim()).collect());
        let by_itself = mapping.email.is_none() && mapping.phone.is_none();
        let find = |mapped: Option<&String>, for_what: &str, usual: &[&str]| match mapped {
            Some(column) => header.named(column, for_what).map(Some),
            None if by_itself => header.usual(usual),
            None => Ok(None),
        };
        let email = find(mapping.email.as_ref(), "email", EMAIL)?;
        let phone = find(mapping.phone.as_ref(), "phone", PHONE)?;
        if email.is_none() && phone.is_none() {
            header.refuse_data()?;
            return Err(MappingError::NoAddressColumn { columns: header.0.len() });
        }
        let mut fields = Vec::new();
        for named in NAMED {
            if let Some(column) = find((named.mapped)(mapping), named.field, named.usual)? {
                fields.push((named.field.into(), column));
            }
        }
        for (field, column) in &mapping.fields {
            fields.push((field.as_str().into(), header.named(column, field)?));
        }
        fields.sort_by(|(one, _), (other, _): &(Arc<str>, Column)| one.cmp(other));
        let width = header.0.len();
        let read = |at: usize| {
            let all = email.iter().chain(&phone).chain(fields.iter().map(|(_, column)| column));
            all.into_iter().any(|column| column.at == at)
        };
        let dropped = (0..width).filter(|at| !read(*at)).count();
        Ok(Self { email, phone, fields, width, dropped, default_country: mapping.default_country })
    }
}

/// The names in the first record.
struct Header<'a>(Vec<&'a str>);

impl Header<'_> {
    /// The column of exactly this name, or else of this name in other letters.
    fn named(&self, column: &str, for_what: &str) -> Result<Column, MappingError> {
        let wanted = column.trim();
        let lower = wanted.to_lowercase();
        let exact = self.only(|name| name == wanted)?;
        if let Some(found) =
            exact.map_or_else(|| self.only(|name| name.to_lowercase() == lower), |found| Ok(Some(found)))?
        {
            return Ok(found);
        }
        self.refuse_data()?;
        let likeness = |name: &str| strsim::jaro_winkler(&folded(name), &folded(wanted));
        let nearest = self.0.iter().copied().max_by(|one, other| likeness(one).total_cmp(&likeness(other)));
        let hint = match nearest.filter(|name| likeness(name) >= LIKENESS) {
            Some(name) => format!("; did you mean `{}`?", shown(name)),
            None => String::new(),
        };
        let (for_what, column) = (shown(for_what), shown(wanted));
        Err(MappingError::NoSuchColumn { for_what, column, hint, columns: self.0.len() })
    }

    /// The column that has one of these names, the likeliest first.
    fn usual(&self, names: &[&str]) -> Result<Option<Column>, MappingError> {
        for usual in names {
            if let Some(found) = self.only(|name| folded(name) == *usual)? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// The one column whose name fits.
    fn only(&self, fits: impl Fn(&str) -> bool) -> Result<Option<Column>, MappingError> {
        let mut found = self.0.iter().enumerate().filter(|(_, name)| fits(name));
        let Some((at, name)) = found.next() else {
            return Ok(None);
        };
        if found.next().is_some() {
            return Err(MappingError::TwoColumns { column: shown(name) });
        }
        if is_address(name) {
            return Err(MappingError::NoHeader { columns: self.0.len() });
        }
        let name = if may_be_data(name) { format!("column {}", at + 1) } else { shown(name) };
        Ok(Some(Column { at, name: name.into() }))
    }

    /// Data must not be listed as names in a message, and a file without names needs another remedy.
    fn refuse_data(&self) -> Result<(), MappingError> {
        if self.0.iter().any(|name| may_be_data(name)) {
            Err(MappingError::NoHeader { columns: self.0.len() })
        } else {
            Ok(())
        }
    }
}

/// Whether a text is somebody's address as a whole: then it names no column, whoever mapped it.
fn is_address(text: &str) -> bool {
    EmailAddress::parse(text).is_ok() || PhoneNumber::parse(text, None).is_ok()
}

/// Whether a name may hold an address: with an @, or with as many digits as a short phone number.
fn may_be_data(name: &str) -> bool {
    name.contains(['@', '＠', '﹫']) || name.chars().filter(|c| c.is_numeric()).count() >= DATA_DIGITS
}

/// A name as a message shows it: short, on one line, and not at all when it may hold an address. Names come from the
/// file or from whoever maps it, and people map by the first row of a file that has no names.
fn shown(name: &str) -> String {
    if may_be_data(name) {
        return "…".to_owned();
    }
    name.chars().map(|c| if c.is_control() { ' ' } else { c }).take(SHOWN_CHARS).collect()
}

#[cfg(test)]
#[path = "mapping_tests.rs"]
mod tests;
