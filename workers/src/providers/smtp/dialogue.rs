//! Speaking with a relay: commands out, replies in, over whatever carries them.

use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::TcpStream,
};
use tokio_rustls::client::TlsStream;

use super::{
    super::Code,
    replies::{Parsed, Reply, parse},
};

/// First size of the buffer for replies: an EHLO answer fits.
const REPLY_BUFFER: usize = 1024;

const CLOSED: Code = Code::known("smtp_closed");
const UNREADABLE: Code = Code::known("smtp_answer_unreadable");

/// TCP, bare or under TLS.
pub(super) trait Wire: AsyncRead + AsyncWrite + Send + Sync + Unpin {
    /// The socket underneath.
    fn tcp(&self) -> &TcpStream;
}

impl Wire for TcpStream {
    fn tcp(&self) -> &TcpStream {
        self
    }
}

impl Wire for TlsStream<TcpStream> {
    fn tcp(&self) -> &TcpStream {
        self.get_ref().0
    }
}

impl Wire for Box<dyn Wire> {
    fn tcp(&self) -> &TcpStream {
        (**self).tcp()
    }
}

/// Commands out, replies in.
pub(super) struct Dialogue<W> {
    wire: W,
    unread: Vec<u8>,
}

impl<W: Wire> Dialogue<W> {
    /// Over a wire on which nothing was read yet.
    pub(super) fn over(wire: W) -> Self {
        Self { wire, unread: Vec::with_capacity(REPLY_BUFFER) }
    }

    /// Sends octets.
    pub(super) async fn say(&mut self, octets: &[u8]) -> Result<(), Code> {
        self.wire.write_all(octets).await.map_err(|_| CLOSED)?;
        self.wire.flush().await.map_err(|_| CLOSED)
    }

    /// Waits for the next reply.
    pub(super) async fn reply(&mut self) -> Result<Reply, Code> {
        loop {
            match parse(&self.unread) {
                Parsed::Whole(reply, taken) => {
                    self.unread.drain(..taken);
                    return Ok(reply);
                }
                Parsed::Unreadable => return Err(UNREADABLE),
                Parsed::Partial => {}
            }
            match self.wire.read_buf(&mut self.unread).await {
                Ok(1..) => {}
                Ok(0) | Err(_) => return Err(CLOSED),
            }
        }
    }

    /// The wire, when no octet is waiting on it that nobody asked for.
    ///
    /// # Errors
    /// When one is. Before TLS it was put there by whoever sits on the line, to be taken for the relay's word later.
    pub(super) fn into_quiet_wire(self) -> Result<W, Code> {
        if self.unread.is_empty() { Ok(self.wire) } else { Err(UNREADABLE) }
    }

    /// That every reply so far was asked for: an extra one would be taken for the answer to the next command, and a
    /// mail for accepted that is not.
    pub(super) fn expect_quiet(&self) -> Result<(), Code> {
        if self.unread.is_empty() { Ok(()) } else { Err(UNREADABLE) }
    }

    /// Whether the relay has closed the connection, or said something into the silence (a 421, mostly).
    pub(super) fn is_stale(&self) -> bool {
        let nothing_yet = |error: &std::io::Error| error.kind() == std::io::ErrorKind::WouldBlock;
        !self.unread.is_empty() || !self.wire.tcp().try_read(&mut [0]).is_err_and(|error| nothing_yet(&error))
    }
}

impl<W: Wire + 'static> Dialogue<W> {
    /// The same dialogue, whatever carries it.
    pub(super) fn boxed(self) -> Dialogue<Box<dyn Wire>> {
        Dialogue { wire: Box::new(self.wire), unread: self.unread }
    }
}
