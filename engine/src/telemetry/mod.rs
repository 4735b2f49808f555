//! What the program says about itself: its log ([`logging`]) and its measurements ([`metrics`]).
//!
//! Every metric stands in one table ([`catalogue`]), from which its description, its histogram buckets and
//! `docs/metrics.md` come. [`measured`] finds the metrics that sources name, so that a test can hold them to the table.
//! Neither log nor metrics ever hold an address, a name, the content of a message, or an id as a label.

pub mod catalogue;
pub mod logging;
pub mod measured;
pub mod memory;
pub mod metrics;
pub mod page;
