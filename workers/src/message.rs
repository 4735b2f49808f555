//! What is handed to a provider: one message for many recipients.
//!
//! A [`Message`] is the campaign's part, compiled once: fixed text with places for what depends on the recipient
//! ([`Skeleton`]). A [`Recipient`] brings only what fills those places ([`Slots`]).

use std::fmt;

use dispatch_schemas::states::Channel;

/// A piece of a [`Skeleton`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// The same for everybody.
    Fixed(Box<str>),
    /// Filled from the recipient's slot of this number.
    Slot(u16),
}

/// One part of a message: fixed text with slots.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Skeleton {
    /// In reading order. Two `Fixed` never stand side by side.
    pub pieces: Vec<Piece>,
}

impl Skeleton {
    /// A part without slots.
    #[must_use]
    pub fn fixed(text: &str) -> Self {
        Self { pieces: if text.is_empty() { Vec::new() } else { vec![Piece::Fixed(text.into())] } }
    }

    /// Writes the finished part for one recipient to the end of `out`.
    pub fn splice(&self, slots: &Slots, out: &mut String) {
        for piece in &self.pieces {
            match piece {
                Piece::Fixed(text) => out.push_str(text),
                Piece::Slot(number) => out.push_str(slots.get(*number)),
            }
        }
    }

    /// The finished part for one recipient.
    #[must_use]
    pub fn spliced(&self, slots: &Slots) -> String {
        let mut out = String::new();
        self.splice(slots, &mut out);
        out
    }

    /// The part with `tag(n)` in the place of slot `n`, for providers that fill places themselves.
    #[must_use]
    pub fn tagged(&self, tag: impl Fn(u16) -> String) -> String {
        let mut out = String::new();
        for piece in &self.pieces {
            match piece {
                Piece::Fixed(text) => out.push_str(text),
                Piece::Slot(number) => out.push_str(&tag(*number)),
            }
        }
        out
    }

    /// The numbers of the slots this part uses, in reading order, repeats included.
    pub fn slot_numbers(&self) -> impl Iterator<Item = u16> + '_ {
        self.pieces.iter().filter_map(|piece| match piece {
            Piece::Slot(number) => Some(*number),
            Piece::Fixed(_) => None,
        })
    }
}

/// What fills the slots for one recipient; one allocation for all of them. Personal data: has no readable `Debug`.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Slots {
    text: String,
    ends: Vec<u32>,
}

impl Slots {
    /// Room for `slots` values of an ordinary length.
    #[must_use]
    pub fn with_capacity(slots: usize) -> Self {
        /// Names and links; longer values grow the string once or twice.
        const ORDINARY_BYTES: usize = 32;
        Self { text: String::with_capacity(slots * ORDINARY_BYTES), ends: Vec::with_capacity(slots) }
    }

    /// Appends the value of the next slot: whatever `write` pushes onto the string it is given (which already holds
    /// the values before; it may only append).
    ///
    /// # Errors
    /// Hands back `write`'s error; the slot is then not added.
    pub fn push_with<E>(&mut self, write: impl FnOnce(&mut String) -> Result<(), E>) -> Result<(), E> {
        let before = self.text.len();
        let outcome = write(&mut self.text);
        if outcome.is_err() {
            self.text.truncate(before);
        } else {
            self.ends.push(u32::try_from(self.text.len()).unwrap_or(u32::MAX));
        }
        outcome
    }

    /// Appends the value of the next slot.
    pub fn push(&mut self, value: &str) {
        self.text.push_str(value);
        self.ends.push(u32::try_from(self.text.len()).unwrap_or(u32::MAX));
    }

    /// The value of slot `number`; empty when there is none.
    #[must_use]
    pub fn get(&self, number: u16) -> &str {
        let at = usize::from(number);
        let start = if at == 0 { 0 } else { self.ends.get(at - 1).map_or(0, |end| *end as usize) };
        self.ends.get(at).and_then(|end| self.text.get(start..*end as usize)).unwrap_or("")
    }

    /// How many slots are filled.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether no slot is filled.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Bytes of all values together.
    #[must_use]
    pub fn total_bytes(&self) -> usize {
        self.text.len()
    }
}

impl fmt::Debug for Slots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Slots({} values, {} bytes)", self.ends.len(), self.text.len())
    }
}

/// Who an e-mail is from, or where replies go. The address is ASCII (A-label domain); the name is plain text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mailbox {
    /// `local@domain`.
    pub address: String,
    /// Shown beside the address.
    pub name: Option<String>,
}

/// The parts of a message that depend on the channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Body {
    /// An e-mail: at least one of `html` and `text` is there.
    Email {
        /// The sender.
        from: Mailbox,
        /// Where replies go, when not to `from`.
        reply_to: Option<Mailbox>,
        /// One line.
        subject: Skeleton,
        /// The page, escaped by context already.
        html: Option<Skeleton>,
        /// The plain text.
        text: Option<Skeleton>,
    },
    /// A text message.
    Sms {
        /// At most 11 letters and digits, or at most 15 digits.
        sender: String,
        /// The text, before it is cut into segments.
        text: Skeleton,
    },
}

/// The campaign's part of what is sent: the same for every recipient.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Content by channel.
    pub body: Body,
}

impl Message {
    /// The channel this message goes by.
    #[must_use]
    pub const fn channel(&self) -> Channel {
        match self.body {
            Body::Email { .. } => Channel::Email,
            Body::Sms { .. } => Channel::Sms,
        }
    }
}

/// The id under which a provider knows one delivery. 128 bits that look random to an outsider,
/// shown as a UUID. Stable over the attempts of a delivery until a definite refusal.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SendKey(pub [u8; 16]);

impl fmt::Display for SendKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, byte) in self.0.iter().enumerate() {
            if matches!(at, 4 | 6 | 8 | 10) {
                f.write_str("-")?;
            }
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for SendKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::str::FromStr for SendKey {
    type Err = NotASendKey;

    fn from_str(text: &str) -> Result<Self, NotASendKey> {
        let mut bytes = [0_u8; 16];
        let mut digits = 0_usize;
        for (at, byte) in text.bytes().enumerate() {
            if matches!(at, 8 | 13 | 18 | 23) {
                if byte != b'-' {
                    return Err(NotASendKey);
                }
                continue;
            }
            let digit = char::from(byte).to_digit(16).ok_or(NotASendKey)?;
            let slot = bytes.get_mut(digits / 2).ok_or(NotASendKey)?;
            *slot = (*slot << 4) | u8::try_from(digit).map_err(|_| NotASendKey)?;
            digits += 1;
        }
        if digits == 32 { Ok(Self(bytes)) } else { Err(NotASendKey) }
    }
}

/// The text is not a send key: 32 hexadecimal digits in UUID form are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a send key is 32 hexadecimal digits in UUID form")]
pub struct NotASendKey;

/// Names one provider request. Random, 128 bits, used once, durable in the ledger before the request leaves.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Token(pub [u8; 16]);

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// One recipient of a [`Message`]. Personal data: has no readable `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct Recipient {
    /// Our id for this delivery, echoed by the provider where it can.
    pub key: SendKey,
    /// The normalised address: `local@a-label.domain`, or `+` and digits.
    pub to: String,
    /// What fills the message's slots.
    pub slots: Slots,
    /// The one-click unsubscribe URL of this recipient (RFC 8058), when the message must carry one.
    pub list_unsubscribe: Option<String>,
}

impl fmt::Debug for Recipient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Recipient({}, {:?})", self.key, self.slots)
    }
}
