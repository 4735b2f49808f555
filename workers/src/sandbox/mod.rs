//! The sandbox: fakes of the providers over real sockets, and the witness that logs what they accepted.
//!
//! It runs as a process of its own that outlives the engine's, so that what it saw can be held against what the
//! engine believes. A fake checks a request as strictly as its vendor documents, repeats or refuses what the vendor
//! would repeat or refuse, and then does what the [`FaultPlan`] drew for it. Before any answer leaves, the
//! [`Witness`] has the request's line on disk.
//!
//! Every fake is one file with the same parts in the same order: the shape of its requests, the checks, the
//! acceptance with the memory behind it, the look-ups, the errors; what the HTTP fakes share is in `fake` and `http`.
//! Neither content nor addresses are kept.

mod addresses;
mod brevo;
mod callbacks;
mod control;
mod fake;
mod faults;
mod http;
mod infobip;
mod json;
mod memory;
mod run;
mod sendgrid;
pub mod smtp;
#[cfg(test)]
mod tests;
mod timestamp;
pub mod witness;

use async_trait::async_trait;
pub use callbacks::{CallbackCounts, CallbackPlan, CallbackPlanError, SIGNATURE_HEADER};
pub use faults::{Faults, FaultsError, SeededFaults};
pub use run::{Running, SandboxError, SandboxSettings, run};
use witness::WitnessRecipient;

/// The providers there are fakes of, by the names the witness's log and the fault plan use.
pub const PROVIDERS: [&str; 5] = ["sendgrid", "brevo", "brevo_sms", "infobip", "smtp"];

/// What a fake saw of one request and decided about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observation {
    /// One of [`PROVIDERS`].
    pub provider: &'static str,
    /// The request's token, where it carried one.
    pub token: Option<String>,
    /// The idempotency key of the whole request, where it carried one.
    pub batch_key: Option<String>,
    /// [`Fault::mode`] of what was drawn for it.
    pub mode: &'static str,
    /// The HTTP status or SMTP code it is to be answered with; 0 when the connection is dropped instead.
    pub status: u16,
    /// Each recipient; none where the request could not be read.
    pub recipients: Vec<WitnessRecipient>,
}

/// Logs what the fakes saw.
#[async_trait]
pub trait Witness: Send + Sync + 'static {
    /// Logs one request; it is on disk when this returns, and only then may it be answered.
    ///
    /// # Errors
    /// When it is not on disk. The request must not be answered then.
    async fn log(&self, seen: Observation) -> std::io::Result<()>;

    /// The name of an address in the log.
    fn hash(&self, address: &str) -> String;
}

/// What goes wrong with one request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// Nothing.
    None,
    /// Accepted; the connection closes without an answer.
    AcceptThenDrop,
    /// Accepted; the answer comes late.
    AcceptSlow,
    /// Refused for good, as the vendor refuses a request it does not like.
    Refuse,
    /// Refused: too fast.
    Throttle,
    /// Refused: not available for a second.
    Unavailable,
    /// An internal error, and nothing was accepted.
    FailBefore,
    /// An internal error, but the request was accepted.
    FailAfterAccept,
    /// Accepted; the answer is not the vendor's.
    Garbage,
    /// The connection closes; nothing was accepted.
    DropBefore,
    /// Accepted; the connection closes in the middle of the answer.
    HalfAnswer,
}

impl Fault {
    /// All that can go wrong.
    pub const ALL: [Self; 10] = [
        Self::AcceptThenDrop,
        Self::AcceptSlow,
        Self::Refuse,
        Self::Throttle,
        Self::Unavailable,
        Self::FailBefore,
        Self::FailAfterAccept,
        Self::Garbage,
        Self::DropBefore,
        Self::HalfAnswer,
    ];

    /// The word in the witness's log and in [`Faults`].
    #[must_use]
    pub const fn mode(self) -> &'static str {
        match self {
            Self::None => "ok",
            Self::AcceptThenDrop => "accept_then_drop",
            Self::AcceptSlow => "accept_slow",
            Self::Refuse => "refuse",
            Self::Throttle => "throttle",
            Self::Unavailable => "unavailable",
            Self::FailBefore => "fail_before",
            Self::FailAfterAccept => "fail_after_accept",
            Self::Garbage => "garbage",
            Self::DropBefore => "drop_before",
            Self::HalfAnswer => "half_answer",
        }
    }

    /// Whether the request is accepted all the same.
    #[must_use]
    pub const fn accepts(self) -> bool {
        match self {
            Self::None
            | Self::AcceptThenDrop
            | Self::AcceptSlow
            | Self::FailAfterAccept
            | Self::Garbage
            | Self::HalfAnswer => true,
            Self::Refuse | Self::Throttle | Self::Unavailable | Self::FailBefore | Self::DropBefore => false,
        }
    }
}

/// Decides what goes wrong with each request.
pub trait FaultPlan: Send + Sync + 'static {
    /// Draws for the next request to this provider.
    fn draw(&self, provider: &'static str) -> Fault;
}
