//! Bodies: reading them up to a limit, and sending them whole or by half.

use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use hyper::body::{Body, Frame, Incoming, SizeHint};

/// A body that is too large is read to its end up to this size, so that its sender is listening when it is refused.
const READ_OVER_BYTES_MAX: usize = 64 << 20;

/// The body has more bytes than allowed.
pub(super) struct TooLarge;

/// Reads a body.
///
/// # Errors
/// When the connection breaks before its end.
pub(super) async fn read(mut body: Incoming, bytes_max: usize) -> Result<Result<Bytes, TooLarge>, hyper::Error> {
    let mut first = Bytes::new();
    let mut whole = BytesMut::new();
    let mut length = 0;
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame?.into_data() else { continue };
        length += data.len();
        if length > bytes_max {
            if length > READ_OVER_BYTES_MAX {
                break;
            }
        } else if first.is_empty() {
            // Most bodies come in one piece, which then need not be copied.
            first = data;
        } else {
            if whole.is_empty() {
                let rest = usize::try_from(body.size_hint().lower()).unwrap_or(0);
                whole.reserve((length + rest).min(bytes_max));
                whole.extend_from_slice(&first);
            }
            whole.extend_from_slice(&data);
        }
    }
    Ok(if length > bytes_max {
        Err(TooLarge)
    } else if whole.is_empty() {
        Ok(first)
    } else {
        Ok(whole.freeze())
    })
}

/// The body of an answer.
pub(in crate::sandbox) struct AnswerBody {
    bytes: Option<Bytes>,
    length: usize,
    end: End,
}

enum End {
    /// All bytes are there.
    Whole,
    /// What there is must reach the client first; then the connection breaks.
    Flush,
    Break,
}

impl AnswerBody {
    pub(in crate::sandbox) fn whole(bytes: Bytes) -> Self {
        Self { length: bytes.len(), bytes: Some(bytes).filter(|bytes| !bytes.is_empty()), end: End::Whole }
    }

    /// Half of it, with the length of the whole announced. An answer without a body gets one to be cut.
    pub(super) fn half(bytes: Bytes) -> Self {
        let bytes = if bytes.is_empty() { Bytes::from_static(b"{}") } else { bytes };
        Self { length: bytes.len(), bytes: Some(bytes.slice(..bytes.len().div_ceil(2))), end: End::Flush }
    }
}

/// The second half that never comes.
#[derive(Debug)]
pub(in crate::sandbox) struct Cut;

impl fmt::Display for Cut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("cut in the middle")
    }
}

impl std::error::Error for Cut {}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = Cut;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        if let Some(bytes) = self.bytes.take() {
            return Poll::Ready(Some(Ok(Frame::data(bytes))));
        }
        match self.end {
            End::Whole => Poll::Ready(None),
            End::Flush => {
                // A body that is not ready makes hyper write out what it has.
                self.end = End::Break;
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            End::Break => Poll::Ready(Some(Err(Cut))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.bytes.is_none() && matches!(self.end, End::Whole)
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.length as u64)
    }
}
