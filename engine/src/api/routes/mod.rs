//! The routes, one file per resource.

pub mod campaigns;
pub mod erasures;
pub mod imports;
pub mod limits;
pub mod lists;
pub mod messages;
pub mod recipients;
pub mod sources;
pub mod suppressions;
pub mod system;
pub mod templates;

use axum::{
    Json,
    http::{HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use dispatch_schemas::api::Page;
use serde::Serialize;

use super::problem::{Answer, Problem};
use crate::ledger::{LedgerError, Replayable};

/// Says that an answer is an earlier one's.
const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

/// An answer that may be an earlier one's.
fn replayable<T>(value: T, replayed: bool) -> (Option<(HeaderName, HeaderValue)>, T) {
    (replayed.then(|| (REPLAYED, HeaderValue::from_static("true"))), value)
}

/// 201 with what was made and where it is.
fn created<T: Serialize>(location: &str, made: Replayable<T>) -> Response {
    let (header, value) = replayable(made.value, made.replayed);
    let mut response = (StatusCode::CREATED, Json(value)).into_response();
    response.headers_mut().extend(header);
    if let Ok(location) = HeaderValue::try_from(location) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    response
}

/// 200 with what is there now.
fn found<T: Serialize>(value: T) -> Answer {
    Ok(Json(value).into_response())
}

/// 200 with all of a short list.
fn all<T: Serialize>(data: Vec<T>) -> Answer {
    found(Page { data, next_cursor: None })
}

/// Whether a page may have another after it. A full page may be the last: the next one is empty then, which costs a
/// call and never skips anybody.
fn is_full<T>(page: &[T], limit: u32) -> bool {
    page.len() >= limit as usize
}

/// What a body names must exist: that it does not is the body's mistake, not the path's.
fn named_at(pointer: &'static str) -> impl FnOnce(LedgerError) -> Problem {
    move |error| match error {
        LedgerError::NotFound(what) => {
            Problem::invalid_at(pointer, format!("there is no such {what}; create it first, or check the id"))
        }
        other => other.into(),
    }
}
