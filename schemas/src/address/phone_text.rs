//! What people write for a phone number, read as digits.

use super::{AddressError, error::is_invisible};

/// Octets of a text that is looked at: 15 digits with generous decoration.
const TEXT_MAX: usize = 256;
/// Digits that are read: 15 of E.164, and an international prefix and a domestic zero before they are dropped.
const DIGITS_MAX: usize = 20;

/// The digits of a written number.
#[derive(Debug, Clone, Copy)]
pub(super) struct Written {
    digits: [u8; DIGITS_MAX],
    length: usize,
    /// Whether it began with `+`.
    pub(super) plus: bool,
    /// How many digits stood before a `(0)`, the zero one dials at home only. The zero is not among the digits.
    pub(super) optional_zero_at: Option<usize>,
}

impl Written {
    /// Reads the digits of a written number.
    ///
    /// Spaces, hyphens, dots, slashes, brackets and the marks that address books put around a number are dropped, and
    /// so is an apostrophe in front. Digits of other scripts are refused: `0-9` is what every system downstream takes.
    pub(super) fn read(text: &str) -> Result<Self, AddressError> {
        let text = text.trim();
        if text.len() > TEXT_MAX {
            return Err(AddressError::TooLong);
        }
        if is_spreadsheet_number(text) {
            return Err(AddressError::SpreadsheetNumber);
        }
        let text = text.strip_prefix('\'').unwrap_or(text);
        let mut written = Self { digits: [0; DIGITS_MAX], length: 0, plus: false, optional_zero_at: None };
        let mut rest = text;
        while let Some(c) = rest.chars().next() {
            if written.plus && written.length > 0 && written.optional_zero_at.is_none() && rest.starts_with("(0)") {
                written.optional_zero_at = Some(written.length);
                rest = rest.get(3..).unwrap_or_default();
                continue;
            }
            rest = rest.get(c.len_utf8()..).unwrap_or_default();
            match c {
                '0'..='9' => written.push(c)?,
                '+' if written.length == 0 && !written.plus => written.plus = true,
                _ => is_decoration(c)?,
            }
        }
        if written.length == 0 {
            return Err(if text.is_empty() { AddressError::Empty } else { AddressError::ShortNumber });
        }
        Ok(written)
    }

    fn push(&mut self, digit: char) -> Result<(), AddressError> {
        let place = self.digits.get_mut(self.length).ok_or(AddressError::TooLong)?;
        *place = u8::try_from(digit).map_err(|_| AddressError::NotAscii)?;
        self.length += 1;
        Ok(())
    }

    /// The digits, without a zero in brackets.
    pub(super) fn digits(&self) -> &str {
        self.digits.get(..self.length).and_then(|digits| std::str::from_utf8(digits).ok()).unwrap_or_default()
    }
}

fn is_decoration(c: char) -> Result<(), AddressError> {
    match c {
        ' ' | '-' | '.' | '/' | '(' | ')' | '\t' | '\u{a0}' | '\u{2009}' | '\u{202f}' => Ok(()),
        '\u{2010}'..='\u{2015}' | '\u{2212}' => Ok(()),
        ';' | ',' | '|' => Err(AddressError::TwoAddresses),
        _ if c.is_control() => Err(AddressError::Control),
        char::REPLACEMENT_CHARACTER => Err(AddressError::Damaged),
        _ if is_invisible(c) => Ok(()),
        _ if c.is_alphabetic() => Err(AddressError::Letters),
        _ if c.is_ascii() => Err(AddressError::PhoneCharacters),
        _ => Err(AddressError::NotAscii),
    }
}

/// `3.36123E+10`, `3,36E10`, `33612345678.0`: digits are lost, or a digit was added.
fn is_spreadsheet_number(text: &str) -> bool {
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    if let Some(whole) = text.strip_suffix(".0").or_else(|| text.strip_suffix(",0")) {
        return digits(whole.strip_prefix('+').unwrap_or(whole));
    }
    let Some((number, power)) = text.split_once(['E', 'e']) else {
        return false;
    };
    digits(power.strip_prefix('+').unwrap_or(power))
        && number.split_once(['.', ',']).map_or(digits(number), |(whole, part)| digits(whole) && digits(part))
}
