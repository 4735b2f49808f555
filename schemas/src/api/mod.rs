//! The types of the HTTP API, by resource.
//!
//! What is sent in refuses members it does not know; what is sent out may grow new ones.

pub mod campaigns;
pub mod contacts;
pub mod imports;
pub mod keys;
pub mod limits;
pub mod lists;
pub mod messages;
pub mod problems;
pub mod sending_window;
pub mod templates;
pub mod time;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// One page of a longer list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Page<T> {
    /// The entries.
    pub data: Vec<T>,
    /// Hand this back as `cursor` for the next page; absent on the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
}
