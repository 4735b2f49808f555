//! The moment a request leaves.
//!
//! Whether a failed request was sent must not be guessed from an error. Its body is handed out once, here, and only
//! before its deadline; until then it can be called off for good. So "nothing left" is a fact, whether the name did
//! not resolve, the connection was refused, TLS failed or the wait for a connection took too long. An HTTP client may
//! go on with another connection as long as the body is still here, and never after.

use std::{
    fmt,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};

use crate::{clock::Clock, providers::Code};

/// The deadline for the first byte passed.
pub(super) const TOO_LATE: Code = Code::known("send_deadline_passed");

const HERE: u8 = 0;
const LEFT: u8 = 1;
const CALLED_OFF: u8 = 2;
const LATE: u8 = 3;

/// Whether the body of a request is still here.
#[derive(Debug, Default)]
pub(super) struct Departure(AtomicU8);

impl Departure {
    /// Keeps the body here for good. False when it has left already.
    pub(super) fn call_off(&self) -> bool {
        self.leave_for(CALLED_OFF) || self.0.load(Ordering::Acquire) != LEFT
    }

    /// Whether it was kept because its deadline had passed.
    pub(super) fn was_too_late(&self) -> bool {
        self.0.load(Ordering::Acquire) == LATE
    }

    fn leave_for(&self, state: u8) -> bool {
        self.0.compare_exchange(HERE, state, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }
}

/// The body was called off or its deadline passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Kept;

impl fmt::Display for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the request was held back")
    }
}

impl std::error::Error for Kept {}

/// A request body that leaves in one piece, before its deadline or not at all.
pub(super) struct Departing {
    bytes: Option<Bytes>,
    send_by: Duration,
    clock: Arc<dyn Clock>,
    departure: Arc<Departure>,
}

impl Departing {
    pub(super) fn new(bytes: Bytes, send_by: Duration, clock: Arc<dyn Clock>, departure: Arc<Departure>) -> Self {
        Self { bytes: Some(bytes), send_by, clock, departure }
    }
}

impl Body for Departing {
    type Data = Bytes;
    type Error = Kept;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Kept>>> {
        let Some(bytes) = self.bytes.take() else { return Poll::Ready(None) };
        let state = if self.clock.monotonic() < self.send_by { LEFT } else { LATE };
        let goes = self.departure.leave_for(state) && state == LEFT;
        Poll::Ready(Some(if goes { Ok(Frame::data(bytes)) } else { Err(Kept) }))
    }

    fn is_end_stream(&self) -> bool {
        self.bytes.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
    }
}
