//! How the API says no: problem documents of RFC 9457.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A problem document (RFC 9457), sent as `application/problem+json`. Never repeats an address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ProblemDocument {
    /// What kind of problem, as a path under the API's own address; programs go by this.
    #[serde(rename = "type")]
    pub kind: String,
    /// The kind in words; always the same for a kind.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// What happened this time and what to do.
    pub detail: String,
    /// The places of the request that are wrong, at most 100.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<FieldError>,
}

/// One wrong place of a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FieldError {
    /// Where: a JSON pointer into the body (RFC 6901), or the name of a query parameter or header.
    pub pointer: String,
    /// What is wrong there and what to do.
    pub detail: String,
}

impl FieldError {
    /// A wrong place and what is wrong there.
    pub fn new(pointer: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { pointer: pointer.into(), detail: detail.into() }
    }
}
