//! What crosses a boundary of Dispatch.
//!
//! Ids and states shared by every part ([`ids`], [`states`]), what providers report of a message ([`facts`]), addresses that can only be made valid ([`address`]),
//! the job as it travels through the queue ([`job`]), the types of the HTTP API ([`api`]) and the SQL migrations
//! of the ledger (`migrations/`). This crate does no I/O and knows no other crate of the workspace.

pub mod address;
pub mod api;
pub mod facts;
pub mod ids;
pub mod job;
pub mod states;
