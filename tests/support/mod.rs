//! Fixtures: a sandbox and an engine as processes, lists of made-up people, looks into the ledger's file, and the
//! [`checker`].

pub mod checker;
pub mod engine_process;
pub mod fault_proxy;
pub mod given_services;
pub mod look;
pub mod people;
pub mod platform;
pub mod program;
pub mod sandbox;
pub mod seed;
pub mod server_look;
pub mod services;
pub mod stage;
pub mod wait;
