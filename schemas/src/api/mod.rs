//! The types of the HTTP API.

pub mod limits;
pub mod templates;
