//! E-mail addresses.

use std::{fmt, hash};

use super::{AddressError, domain, error::screen};

/// Octets of a whole address (RFC 5321, 4.5.3.1.3: a path of 256, less its angle brackets).
const ADDRESS_MAX: usize = 254;
/// Octets before the `@` (RFC 5321, 4.5.3.1.1).
const LOCAL_MAX: usize = 64;
/// Octets of a text that is looked at: a domain in another script takes up to four times its A-label.
const TEXT_MAX: usize = 4 * ADDRESS_MAX;

/// An e-mail address in the one form it is stored, hashed and sent in: `local@domain`, all lower-case ASCII, the
/// domain as A-labels.
///
/// Lower case before the `@` too: RFC 5321 lets a host tell `Anna@` from `anna@`, no mailbox provider does, and a list
/// that holds both would reach one person twice. Nothing else is folded: dots and `+tags` are the mailbox's business.
/// Quoted local parts, IP addresses, domains without a dot and local parts outside ASCII are refused.
#[derive(Clone)]
pub struct EmailAddress {
    text: Box<str>,
    at: u8,
}

impl EmailAddress {
    /// Reads an address; spaces around it are dropped.
    ///
    /// # Errors
    /// Says what is wrong, without the text.
    pub fn parse(text: &str) -> Result<Self, AddressError> {
        let text = text.trim();
        if text.is_empty() {
            return Err(AddressError::Empty);
        }
        if text.len() > TEXT_MAX {
            return Err(AddressError::TooLong);
        }
        screen(text)?;
        let (local, domain) = text.split_once('@').ok_or(AddressError::NoAt)?;
        if domain.contains(['@', ';', ',', ' ', '<', '>', '"']) {
            return Err(whole(text));
        }
        check_local(local).map_err(|wrong| if wrong == AddressError::LocalCharacters { whole(text) } else { wrong })?;
        let domain = domain::normalise(domain)?;
        let length = local.len() + 1 + domain.len();
        if length > ADDRESS_MAX {
            return Err(AddressError::TooLong);
        }
        let mut normal = String::with_capacity(length);
        normal.push_str(local);
        normal.make_ascii_lowercase();
        normal.push('@');
        normal.push_str(&domain);
        let at = u8::try_from(local.len()).map_err(|_| AddressError::LocalTooLong)?;
        Ok(Self { text: normal.into_boxed_str(), at })
    }

    /// The address: `local@domain`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// What follows the `@`.
    #[must_use]
    pub fn domain(&self) -> &str {
        self.text.get(usize::from(self.at) + 1..).unwrap_or_default()
    }
}

impl PartialEq for EmailAddress {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for EmailAddress {}

impl hash::Hash for EmailAddress {
    fn hash<H: hash::Hasher>(&self, state: &mut H) {
        self.text.hash(state);
    }
}

impl fmt::Debug for EmailAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("EmailAddress(***)")
    }
}

/// The rules for what stands before the `@`: RFC 5322's dot-atom, without `%`.
fn check_local(local: &str) -> Result<(), AddressError> {
    if local.is_empty() {
        return Err(AddressError::NoLocal);
    }
    let mut before = b'.';
    let mut dots = false;
    let mut strange = false;
    for byte in local.bytes() {
        dots |= byte == b'.' && before == b'.';
        strange |= !is_local(byte);
        before = byte;
    }
    if strange {
        return Err(AddressError::LocalCharacters);
    }
    if dots || before == b'.' {
        return Err(AddressError::LocalDots);
    }
    if local.len() > LOCAL_MAX { Err(AddressError::LocalTooLong) } else { Ok(()) }
}

const fn is_local(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(byte, b'.' | b'!' | b'#' | b'$' | b'&' | b'\'' | b'*' | b'+' | b'-' | b'/' | b'=' | b'?')
        || matches!(byte, b'^' | b'_' | b'`' | b'{' | b'|' | b'}' | b'~')
}

/// Names what is wrong with a text that holds something no address has, or has its signs in the wrong place.
fn whole(text: &str) -> AddressError {
    let ats = text.bytes().filter(|byte| *byte == b'@').count();
    if text.contains(['<', '>']) {
        AddressError::DisplayName
    } else if text.contains([';', ',']) || (ats > 1 && text.contains([' ', '|'])) {
        AddressError::TwoAddresses
    } else if text.contains('"') {
        AddressError::Quoted
    } else if ats > 1 {
        AddressError::ManyAts
    } else if text.contains('%') {
        AddressError::Percent
    } else {
        match text.split_once('@') {
            Some((local, _)) if !local.is_ascii() => AddressError::LocalNotAscii,
            Some((local, _)) if check_local(local).is_ok() => AddressError::Domain,
            _ => AddressError::LocalCharacters,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn spellings_of_one_mailbox_are_one_address() {
        for (text, normal) in [
            ("a@x.eu", "a@x.eu"),
            ("  Anna.Maria+news@Example.ORG\t", "anna.maria+news@example.org"),
            ("a@x.eu\r\n", "a@x.eu"),
            ("\u{a0}a@x.eu\u{a0}", "a@x.eu"),
            ("post@münchen.example", "post@xn--mnchen-3ya.example"),
            ("post@MÜNCHEN.example", "post@xn--mnchen-3ya.example"),
            ("post@mu\u{308}nchen.example", "post@xn--mnchen-3ya.example"),
            ("post@XN--MNCHEN-3YA.example", "post@xn--mnchen-3ya.example"),
            ("a@例え.jp", "a@xn--r8jz45g.jp"),
            ("a@x。eu", "a@x.eu"),
            ("o'brien/x=y?z@r3---sn.example", "o'brien/x=y?z@r3---sn.example"),
            ("{{secret}}@x.eu", "{{secret}}@x.eu"),
        ] {
            let address = EmailAddress::parse(text).unwrap_or_else(|wrong| panic!("{text}: {wrong}"));
            assert_eq!(address.as_str(), normal);
            assert_eq!(address.domain(), normal.split_once('@').unwrap().1);
        }
    }

    #[test]
    fn what_is_no_address_is_refused_with_its_reason() {
        let local_65 = format!("{}@x.eu", "l".repeat(65));
        let label_64 = format!("a@{}.eu", "d".repeat(64));
        let domain_256 = format!("a@{}eu", "d23456789.".repeat(26));
        let path_257 = format!("{}@{}eu", "l".repeat(64), "d23456789.".repeat(19));
        let huge = "a".repeat(1 << 20);
        for (text, wrong) in [
            ("", AddressError::Empty),
            ("  \t ", AddressError::Empty),
            ("a@b@c", AddressError::ManyAts),
            ("no-at-sign.example", AddressError::NoAt),
            (&local_65, AddressError::LocalTooLong),
            (&label_64, AddressError::DomainTooLong),
            (&domain_256, AddressError::DomainTooLong),
            (&path_257, AddressError::TooLong),
            ("a..b@x.eu", AddressError::LocalDots),
            (".a@x.eu", AddressError::LocalDots),
            ("a.@x.eu", AddressError::LocalDots),
            ("\"quoted space\"@x.eu", AddressError::Quoted),
            ("a@[127.0.0.1]", AddressError::IpAddress),
            ("a@127.0.0.1", AddressError::IpAddress),
            ("a@[IPv6:::1]", AddressError::IpAddress),
            ("a@localhost", AddressError::NoDot),
            ("a@x", AddressError::NoDot),
            ("a@x.eu\r\nBcc: v@y.eu", AddressError::Control),
            ("a@x.eu\nb", AddressError::Control),
            ("a@x.eu%0d%0aBcc:", AddressError::Percent),
            ("v%x.eu@relay.eu", AddressError::Percent),
            ("a\0b@x.eu", AddressError::Control),
            ("a\u{85}b@x.eu", AddressError::Control),
            ("a\u{202e}b@x.eu", AddressError::Invisible),
            ("a\u{200b}@x.eu", AddressError::Invisible),
            ("a@x\u{200d}.eu", AddressError::Invisible),
            ("\u{feff}a@x.eu", AddressError::Invisible),
            ("ren\u{fffd}@x.eu", AddressError::Damaged),
            ("ü@münchen.de", AddressError::LocalNotAscii),
            ("a@xn--example-.eu", AddressError::Domain),
            ("Name <a@x.eu>", AddressError::DisplayName),
            ("<a@x.eu>", AddressError::DisplayName),
            ("a@x;b@y", AddressError::TwoAddresses),
            ("a@x.eu, b@y.eu", AddressError::TwoAddresses),
            ("a@x.eu b@y.eu", AddressError::TwoAddresses),
            ("a＠x.eu", AddressError::NoAt),
            ("a@x.eu.", AddressError::Domain),
            ("a@.x.eu", AddressError::Domain),
            ("a@x..eu", AddressError::Domain),
            ("a@-x.eu", AddressError::Domain),
            ("a@x_y.eu", AddressError::Domain),
            ("a@x.123", AddressError::Domain),
            ("a@x .eu", AddressError::Domain),
            ("a b@x.eu", AddressError::LocalCharacters),
            ("mailto:a@x.eu", AddressError::LocalCharacters),
            ("@x.eu", AddressError::NoLocal),
            ("a@", AddressError::NoDomain),
            (&huge, AddressError::TooLong),
        ] {
            let shown = text.get(..text.len().min(40)).unwrap_or(text);
            assert_eq!(EmailAddress::parse(text).unwrap_err(), wrong, "{shown:?}");
        }
    }

    #[test]
    fn the_longest_address_is_taken() {
        let text = format!("{}@{}.eu", "l".repeat(64), ["d".repeat(63), "d".repeat(63), "d".repeat(58)].join("."));
        assert_eq!(text.len(), 254);
        assert_eq!(EmailAddress::parse(&text).unwrap().as_str(), text);
    }

    #[test]
    fn debug_does_not_show_the_address() {
        assert_eq!(format!("{:?}", EmailAddress::parse("anna@x.eu").unwrap()), "EmailAddress(***)");
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parser_panic(text in "\\PC{0,40}@\\PC{0,40}", noise: String) {
            let _ = EmailAddress::parse(&noise);
            if let Ok(address) = EmailAddress::parse(&text) {
                prop_assert_eq!(EmailAddress::parse(address.as_str()).unwrap(), address.clone());
                prop_assert!(address.as_str().bytes().all(|byte| byte.is_ascii_graphic()));
                prop_assert_eq!(address.as_str().matches('@').count(), 1);
            }
        }
    }
}
