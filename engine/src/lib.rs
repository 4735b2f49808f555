//! x
pub mod settings;
pub mod telemetry;
