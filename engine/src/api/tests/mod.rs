//! The API over a real ledger: what a client sees.

mod authentication;
mod bodies;
mod campaigns;
mod people;
mod uploads;
pub(crate) mod world;
