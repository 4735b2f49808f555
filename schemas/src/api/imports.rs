//! Imports: what a contact list's columns mean, and what came of its rows.

use std::{borrow::Cow, collections::BTreeMap};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::address::Country;

/// Which column of a CSV file holds what, by the names in its first row.
///
/// When neither `email` nor `phone` is named, the columns for these, for names and for the locale are found by their
/// usual names in several languages. When either is named, only what is named is read. Columns that end up unread are
/// dropped and counted.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Mapping {
    /// The column of e-mail addresses.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub email: Option<String>,
    /// The column of phone numbers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phone: Option<String>,
    /// The column of given names; read as the field `first_name`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_name: Option<String>,
    /// The column of family names; read as the field `last_name`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_name: Option<String>,
    /// The column of whole names; read as the field `name`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The column of locales or languages; read as the field `locale`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub locale: Option<String>,
    /// Further columns to keep: by field name (`[a-z][a-z0-9_]{0,39}`), the column.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub fields: BTreeMap<String, String>,
    /// The country of phone numbers written without one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default_country: Option<Country>,
}

/// Something wrong with a row, or with one cell of it. Never holds the cell's text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RowProblem {
    /// The line of the file where the row begins, from 1. Lines are counted as an editor counts them.
    pub line: u64,
    /// The column's name in the file; none when the row as a whole is wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub column: Option<String>,
    /// What is wrong: a short name that stays the same, such as `no_at`.
    #[schema(value_type = String)]
    pub code: Cow<'static, str>,
    /// What is wrong, as a sentence.
    #[schema(value_type = String)]
    pub message: Cow<'static, str>,
}

/// How often one thing was wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ProblemCount {
    /// The column's name in the file; none for rows as a whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub column: Option<String>,
    /// What is wrong.
    #[schema(value_type = String)]
    pub code: Cow<'static, str>,
    /// How many times.
    pub count: u64,
}

/// What was found in a file. `rows = accepted + rejected`, at any moment.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct ParseReport {
    /// Rows below the first, blank ones left out.
    pub rows: u64,
    /// Rows with at least one address that can be used.
    pub accepted: u64,
    /// Rows with none, or that could not be read; each has at least one problem.
    pub rejected: u64,
    /// Problems of rows and cells together. An accepted row can have some too: a bad e-mail beside a good phone.
    pub problem_count: u64,
    /// The first problems, in the order of the file; cut at 1,000.
    pub problems: Vec<RowProblem>,
    /// All problems, counted by column and code.
    pub problem_counts: Vec<ProblemCount>,
    /// The encoding that was read, by its WHATWG name.
    pub encoding: String,
    /// Characters that were no text in that encoding and became U+FFFD.
    pub damaged_characters: u64,
    /// What separates columns: `,`, `;`, `|` or a tab.
    pub delimiter: char,
    /// The fields that were read beside the addresses, by name: what a template can be filled from.
    #[serde(default)]
    pub fields: Vec<String>,
    /// Columns of the file that were not read.
    pub dropped_columns: u64,
}
