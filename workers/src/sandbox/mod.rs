//! The sandbox: fakes of the providers over real sockets, and the witness that logs what they accepted.

use async_trait::async_trait;

pub mod smtp;
pub mod witness;

use witness::WitnessRecipient;

/// What a fake reports of one request, before it is numbered and written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observation {
    /// `sendgrid`, `brevo`, `brevo_sms`, `infobip`, `smtp`.
    pub provider: &'static str,
    /// The request's token, where it carried one.
    pub token: Option<String>,
    /// The idempotency key of the whole request, where it carried one.
    pub batch_key: Option<String>,
    /// The fault the plan drew for it, or `ok`.
    pub mode: &'static str,
    /// The HTTP status or SMTP code it is answered with; 0 when the connection is dropped instead.
    pub status: u16,
    /// Each recipient.
    pub recipients: Vec<WitnessRecipient>,
}

/// Where fakes report what they saw; returns when the line is on disk (group commit).
#[async_trait]
pub trait Witness: Send + Sync + 'static {
    /// Writes one line; it is on disk when this returns.
    ///
    /// # Errors
    /// When the disk refuses; the request must not be answered then.
    async fn log(&self, seen: Observation) -> std::io::Result<()>;

    /// The keyed hash under which an address stands in the log.
    fn hash(&self, address: &str) -> String;
}

/// What happens to a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// Nothing: it is accepted and answered.
    None,
    /// Accepted, and the connection is closed without an answer.
    AcceptThenDrop,
    /// Accepted, and answered too late.
    AcceptSlow,
    /// Refused for good.
    Refuse,
    /// Refused because the caller is too fast.
    Throttle,
    /// Refused for now.
    Unavailable,
    /// Fails before it is accepted.
    FailBefore,
    /// Accepted, and the answer says nothing of it.
    FailAfterAccept,
    /// Accepted, and answered with something unreadable.
    Garbage,
    /// The connection is closed before the request is read.
    DropBefore,
    /// Accepted, and half of the answer is sent.
    HalfAnswer,
}

/// Draws the fault of the next request of a provider from the seeded plan.
pub trait FaultPlan: Send + Sync + 'static {
    /// The fault of the next request.
    fn draw(&self, provider: &'static str) -> Fault;
}
