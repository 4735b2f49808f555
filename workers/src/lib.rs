//! The data plane of Dispatch.
//!
//! Takes jobs, waits for permits, claims, renders, sends, records: the one story of a delivery ([`delivery`]) over
//! batches, and what it needs on the way: [`template`]s, [`limits`], [`sealing`], [`providers`] and their
//! [`sandbox`]. It knows no SQL, no broker and no HTTP route; the engine hands those in through the seams.

pub mod abort;
pub mod clock;
pub mod delivery;
pub mod limits;
pub mod message;
pub mod providers;
pub mod sandbox;
pub mod sealing;
pub mod sms;
pub mod template;
