//! The types of the HTTP API.
