//! What a client sends, line by line, without copying.

use std::{io, ops::Range, time::Duration};

use memchr::memchr;
use tokio::{io::AsyncReadExt as _, net::TcpStream, time::timeout};

/// Octets read at once: several mails of a busy client, or one large one in few reads.
const BUFFER: usize = 64 * 1024;

/// RFC 5321 §4.5.3.1.6: 1,000 octets with their CRLF. Commands are given as much.
pub(super) const LINE_MAX: usize = 1_000;

/// RFC 5321 §4.5.3.2.7: a server waits five minutes for the next command.
const PATIENCE: Duration = Duration::from_secs(300);

/// The octets read and not used yet.
pub(super) struct Input {
    buffer: Vec<u8>,
    used: usize,
}

/// What stands next in the input.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line {
    /// A whole line; its place, with its line ending.
    Whole(Range<usize>),
    /// More than a line's octets, and no end of it.
    TooLong,
    /// The beginning of a line.
    Partial,
}

impl Input {
    pub(super) fn new() -> Self {
        Self { buffer: Vec::with_capacity(BUFFER), used: 0 }
    }

    /// Takes the next line, when it is there.
    pub(super) fn next_line(&mut self) -> Line {
        let unused = self.unused();
        match memchr(b'\n', unused) {
            Some(at) => {
                let start = self.used;
                self.used += at + 1;
                Line::Whole(start..self.used)
            }
            None if unused.len() > LINE_MAX => {
                self.used = self.buffer.len();
                Line::TooLong
            }
            None => Line::Partial,
        }
    }

    /// The octets at a place that [`Input::next_line`] named; valid until the next read.
    pub(super) fn at(&self, place: Range<usize>) -> &[u8] {
        self.buffer.get(place).unwrap_or_default()
    }

    /// All octets not used yet.
    pub(super) fn unused(&self) -> &[u8] {
        self.buffer.get(self.used..).unwrap_or_default()
    }

    /// Marks octets as used.
    pub(super) fn skip(&mut self, octets: usize) {
        self.used = self.buffer.len().min(self.used + octets);
    }

    /// Waits for more.
    ///
    /// # Errors
    /// When the client is gone, or silent for too long.
    pub(super) async fn read(&mut self, stream: &mut TcpStream) -> io::Result<()> {
        self.buffer.drain(..self.used);
        self.used = 0;
        // What is left is less than two lines, because a longer one is given up.
        self.buffer.reserve(BUFFER / 2);
        match timeout(PATIENCE, stream.read_buf(&mut self.buffer)).await {
            Ok(Ok(0)) => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(read) => read.map(drop),
            Err(_) => Err(io::ErrorKind::TimedOut.into()),
        }
    }
}
