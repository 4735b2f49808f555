//! The types of the HTTP API.

pub mod imports;
pub mod limits;
pub mod templates;
