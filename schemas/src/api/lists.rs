//! Sources, contact lists and uploads into them.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::time::Moment;
use crate::{
    ids::{ImportId, ListId, SourceId},
    states::{ImportState, LegalBasis, SourceKind},
};

/// Where contacts come from and on what ground they may be written to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewSource {
    /// A name for people, 1 to 200 characters.
    pub name: String,
    /// Who collected the contacts, for whom.
    pub kind: SourceKind,
    /// The legal basis of GDPR Art. 6.
    pub legal_basis: LegalBasis,
    /// Where the proof is: a contract, a form, a licence. At most 500 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
}

/// A source, stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Source {
    /// Its id.
    pub id: SourceId,
    /// What it is.
    #[serde(flatten)]
    pub source: NewSource,
    /// Since when.
    pub created_at: Moment,
}

/// A contact list to be made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewList {
    /// A name for people, 1 to 200 characters, unique for the tenant.
    pub name: String,
    /// Where its contacts come from: no contact exists without a source.
    pub source: SourceId,
}

/// A contact list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct List {
    /// Its id.
    pub id: ListId,
    /// Its name.
    pub name: String,
    /// Where its contacts come from.
    pub source: SourceId,
    /// How many contacts it holds that can be written to.
    pub contacts: i64,
    /// The fields that its uploads have brought, by name: what a template can be filled from. At most 1,000.
    #[serde(default)]
    pub fields: Vec<String>,
    /// Since when.
    pub created_at: Moment,
}

/// What became of the rows of an upload; `rows = added + updated + duplicate + blocked + rejected`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct ImportTotals {
    /// Rows read, the header not counted.
    pub rows: u64,
    /// New contacts.
    pub added: u64,
    /// Contacts that were there and got this row's values.
    pub updated: u64,
    /// Rows whose address an earlier row of the same upload has.
    pub duplicate: u64,
    /// Rows of suppressed or erased people: not stored.
    pub blocked: u64,
    /// Rows without a usable address, or that could not be read.
    pub rejected: u64,
}

/// An upload into a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Import {
    /// Its id.
    pub id: ImportId,
    /// Into which list.
    pub list: ListId,
    /// Where it stands.
    pub state: ImportState,
    /// What became of its rows so far.
    pub totals: ImportTotals,
    /// What was wrong with which rows; never holds a value of a row.
    pub report: serde_json::Value,
    /// Why it failed, when it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// When it began.
    pub created_at: Moment,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<Moment>,
}
