//! Mail domains: ASCII, lower case, ready for DNS.

use std::borrow::Cow;

use idna::uts46::{AsciiDenyList, DnsLength, Hyphens, Uts46};

use super::AddressError;

/// Octets of a domain in text form (RFC 1035, 3.1: 255 on the wire, less the first length and the root).
const DOMAIN_MAX: usize = 253;
/// Octets of a part between dots (RFC 1035, 2.3.4).
const LABEL_MAX: usize = 63;

/// The domain in lower-case ASCII, labels of other scripts as A-labels (`xn--…`).
///
/// Plain ASCII is only looked over; `idna` (UTS 46, STD3 rules) does the rest.
pub(super) fn normalise(domain: &str) -> Result<Cow<'_, str>, AddressError> {
    if domain.is_empty() {
        return Err(AddressError::NoDomain);
    }
    if domain.starts_with('[') {
        return Err(AddressError::IpAddress);
    }
    if domain.contains('%') {
        return Err(AddressError::Percent);
    }
    if domain.is_ascii() && !has_a_label(domain) {
        check(domain)?;
        return Ok(if domain.bytes().any(|byte| byte.is_ascii_uppercase()) {
            domain.to_ascii_lowercase().into()
        } else {
            domain.into()
        });
    }
    let ascii = Uts46::new()
        .to_ascii(domain.as_bytes(), AsciiDenyList::STD3, Hyphens::CheckFirstLast, DnsLength::Ignore)
        .map_err(|_| AddressError::Domain)?;
    check(&ascii)?;
    Ok(ascii)
}

/// Whether a label claims to be an A-label, and so must be checked to be one.
fn has_a_label(domain: &str) -> bool {
    domain.as_bytes().windows(4).any(|four| four.eq_ignore_ascii_case(b"xn--"))
}

/// The rules of host names (RFC 1123, 2.1) for a domain in ASCII; at least two labels, the last no number.
fn check(domain: &str) -> Result<(), AddressError> {
    let mut labels = 0_usize;
    let mut last_is_number = false;
    for label in domain.as_bytes().split(|byte| *byte == b'.') {
        let [first, ..] = label else {
            return Err(AddressError::Domain);
        };
        if label.len() > LABEL_MAX {
            return Err(AddressError::DomainTooLong);
        }
        let mut numbers = 0_usize;
        for byte in label {
            match byte {
                b'0'..=b'9' => numbers += 1,
                b'a'..=b'z' | b'A'..=b'Z' | b'-' => {}
                _ => return Err(AddressError::Domain),
            }
        }
        if *first == b'-' || label.last() == Some(&b'-') {
            return Err(AddressError::Domain);
        }
        last_is_number = numbers == label.len();
        labels += 1;
    }
    if domain.len() > DOMAIN_MAX {
        return Err(AddressError::DomainTooLong);
    }
    match labels {
        1 => Err(AddressError::NoDot),
        4 if last_is_number => Err(AddressError::IpAddress),
        _ if last_is_number => Err(AddressError::Domain),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_short_way_for_ascii_gives_what_idna_gives(domain in "[a-zA-Z0-9.-]{1,40}") {
            let long_way = Uts46::new()
                .to_ascii(domain.as_bytes(), AsciiDenyList::STD3, Hyphens::CheckFirstLast, DnsLength::Verify);
            match (normalise(&domain), long_way) {
                (Ok(short), Ok(long)) => prop_assert_eq!(short, long),
                (Err(AddressError::NoDot | AddressError::IpAddress | AddressError::Domain), _) => {}
                (short, long) => prop_assert!(false, "{:?} {:?}", short, long.is_ok()),
            }
        }

        #[test]
        fn what_is_normal_stays_as_it_is(domain in "([a-zß-öø-ÿα-ωа-я]{1,8}\\.){1,3}[a-z]{2,6}") {
            if let Ok(once) = normalise(&domain) {
                prop_assert_eq!(normalise(&once).unwrap(), once.clone());
                prop_assert!(once.is_ascii());
            }
        }
    }

    #[test]
    fn a_masked_a_label_is_refused() {
        for domain in ["xn--example-.eu", "xn--.eu", "XN--a.eu", "mail.xn--a-.eu"] {
            assert_eq!(normalise(domain), Err(AddressError::Domain), "{domain}");
        }
    }
}
