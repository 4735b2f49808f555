//! Reading a mail to its final dot, and what is wrong with it.

use std::str::FromStr as _;

use memchr::memchr_iter;

use super::input::LINE_MAX;
use crate::message::SendKey;

/// Most octets of a mail, as offered with SIZE.
pub(super) const SIZE_MAX: usize = 10 * 1024 * 1024;

/// Why a mail is refused once it has been read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flaw {
    /// A line of more than 1,000 octets.
    LineTooLong,
    /// CR or LF alone: relays that differ about them can be made to see two mails in one.
    BareLineEnding,
    /// More octets than offered.
    TooLarge,
    /// An octet beyond ASCII without `BODY=8BITMIME`.
    EightBit,
}

impl Flaw {
    /// The reply to the final dot.
    pub(super) const fn reply(self) -> (u16, &'static str) {
        match self {
            Self::LineTooLong => (500, "500 5.5.2 Line too long\r\n"),
            Self::BareLineEnding => (554, "554 5.6.0 CR or LF alone\r\n"),
            Self::TooLarge => (552, "552 5.3.4 Message too large\r\n"),
            Self::EightBit => (554, "554 5.6.1 8-bit content was not announced\r\n"),
        }
    }
}

/// How a mail may be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Charset {
    /// In ASCII.
    #[default]
    SevenBit,
    /// In any octets (RFC 6152).
    EightBit,
}

/// A mail on its way in.
#[derive(Debug)]
pub(super) struct Content {
    charset: Charset,
    part: Part,
    place: Place,
    size: usize,
    flaw: Option<Flaw>,
    key: Option<SendKey>,
}

#[derive(Debug, PartialEq, Eq)]
enum Part {
    Headers,
    Body,
}

/// Where the octets to read next stand.
#[derive(Debug, PartialEq, Eq)]
enum Place {
    LineStart,
    /// Behind a part of a line that was too long to keep: what looks like the final dot here is none.
    WithinLine,
}

/// A mail that was read to its end.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Received {
    /// What is wrong with it.
    pub(super) flaw: Option<Flaw>,
    /// The send key in its `Message-ID`.
    pub(super) key: Option<SendKey>,
}

impl Content {
    /// Nothing read yet.
    pub(super) const fn new(charset: Charset) -> Self {
        Self { charset, part: Part::Headers, place: Place::LineStart, size: 0, flaw: None, key: None }
    }

    /// Reads the whole lines at the start of `octets`; says how many octets they take, and whether they end the mail.
    pub(super) fn read(&mut self, octets: &[u8]) -> (usize, Option<Received>) {
        let mut start = 0;
        for newline in memchr_iter(b'\n', octets) {
            let line = octets.get(start..=newline).unwrap_or_default();
            start = newline + 1;
            let begun = std::mem::replace(&mut self.place, Place::LineStart);
            if begun == Place::LineStart && line == b".\r\n" {
                return (start, Some(Received { flaw: self.flaw, key: self.key }));
            }
            self.read_line(line);
        }
        let rest = octets.len() - start;
        if rest > LINE_MAX {
            // What the line holds no longer matters, but its end does: one octet is kept, which may be its CR.
            self.note(Flaw::LineTooLong);
            self.place = Place::WithinLine;
            return (octets.len() - 1, None);
        }
        (start, None)
    }

    fn read_line(&mut self, line: &[u8]) {
        self.size = self.size.saturating_add(line.len());
        if self.size > SIZE_MAX {
            self.note(Flaw::TooLarge);
        }
        // A stuffed dot does not count.
        if line.len() - usize::from(line.starts_with(b".")) > LINE_MAX {
            self.note(Flaw::LineTooLong);
        }
        match line.strip_suffix(b"\r\n") {
            Some(text) if !text.contains(&b'\r') => {}
            _ => self.note(Flaw::BareLineEnding),
        }
        if self.charset == Charset::SevenBit && !line.is_ascii() {
            self.note(Flaw::EightBit);
        }
        if self.part == Part::Headers {
            if line == b"\r\n" {
                self.part = Part::Body;
            } else if let Some(key) = message_id_key(line) {
                self.key = Some(key);
            }
        }
    }

    /// The first flaw is the one that is answered.
    fn note(&mut self, flaw: Flaw) {
        self.flaw.get_or_insert(flaw);
    }
}

/// The send key in `Message-ID: <key@domain>`.
fn message_id_key(line: &[u8]) -> Option<SendKey> {
    let (name, value) = line.split_at_checked(b"Message-ID:".len())?;
    if !name.eq_ignore_ascii_case(b"Message-ID:") {
        return None;
    }
    let value = std::str::from_utf8(value).ok()?.trim().strip_prefix('<')?;
    let (key, _) = value.split_once('@')?;
    SendKey::from_str(key).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "00112233-4455-6677-8899-aabbccddeeff";

    fn read_in_pieces(mail: &[u8], piece: usize) -> (Received, usize) {
        let mut content = Content::new(Charset::SevenBit);
        let (mut start, mut end) = (0, 0);
        loop {
            end = (end + piece).min(mail.len());
            let (taken, received) = content.read(&mail[start..end]);
            start += taken;
            if let Some(received) = received {
                return (received, start);
            }
            assert!(end < mail.len(), "the mail has an end");
        }
    }

    fn flaw_of(mail: &[u8]) -> Option<Flaw> {
        let (whole, taken) = read_in_pieces(mail, mail.len());
        for piece in [1, 7, 999, 1001] {
            assert_eq!(read_in_pieces(mail, piece), (Received { flaw: whole.flaw, key: whole.key }, taken), "{piece}");
        }
        whole.flaw
    }

    #[test]
    fn the_key_is_read_however_the_mail_arrives() {
        let mail = format!("From: a@b.example\r\nMESSAGE-id: <{KEY}@b.example>\r\n\r\nHello\r\n.\r\nQUIT\r\n");
        for piece in [1, 2, 10, 1000] {
            let (received, taken) = read_in_pieces(mail.as_bytes(), piece);
            assert_eq!(received, Received { flaw: None, key: Some(KEY.parse().unwrap()) });
            assert_eq!(&mail[taken..], "QUIT\r\n");
        }
    }

    #[test]
    fn a_message_id_in_the_body_is_not_the_mails() {
        let mail = format!("Subject: x\r\n\r\nMessage-ID: <{KEY}@b.example>\r\n.\r\n");
        assert_eq!(read_in_pieces(mail.as_bytes(), 1000).0.key, None);
    }

    #[test]
    fn flaws_are_found() {
        let long = format!("{}\r\n.\r\n", "a".repeat(999));
        assert_eq!(flaw_of(long.as_bytes()), Some(Flaw::LineTooLong));
        let longer = format!("{}\r\n.\r\n", "a".repeat(5_000));
        assert_eq!(flaw_of(longer.as_bytes()), Some(Flaw::LineTooLong));
        let dot_at_the_cut = format!("{}.\r\nno end\r\n.\r\n", "a".repeat(1_000));
        assert_eq!(flaw_of(dot_at_the_cut.as_bytes()), Some(Flaw::LineTooLong));
        let just_fits = format!("{}\r\n.{}\r\n.\r\n", "a".repeat(998), ".".repeat(998));
        assert_eq!(flaw_of(just_fits.as_bytes()), None);
        assert_eq!(flaw_of(b"a\nb\r\n.\r\n"), Some(Flaw::BareLineEnding));
        assert_eq!(flaw_of(b"a\r\n.\n.\r\n"), Some(Flaw::BareLineEnding));
        assert_eq!(flaw_of(b"a\rb\r\n.\r\n"), Some(Flaw::BareLineEnding));
        assert_eq!(flaw_of("é\r\n.\r\n".as_bytes()), Some(Flaw::EightBit));
    }

    #[test]
    fn a_mail_beyond_the_size_offered_is_read_to_its_end_and_refused() {
        let mut content = Content::new(Charset::SevenBit);
        let line = [b"a".repeat(998).as_slice(), b"\r\n"].concat();
        for _ in 0..=SIZE_MAX / line.len() {
            assert_eq!(content.read(&line), (1000, None));
        }
        let (_, received) = content.read(b".\r\n");
        assert_eq!(received.unwrap().flaw, Some(Flaw::TooLarge));
    }
}
