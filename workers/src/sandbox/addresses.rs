//! What counts as an address at the providers' doors.

/// Longest address (RFC 5321 section 4.5.3.1.3: a path of 256 octets, less its angle brackets).
const EMAIL_BYTES_MAX: usize = 254;

/// Whether a provider of e-mail takes it: `local@domain` in ASCII, no quoted local part, and a domain with a dot.
pub(super) fn is_email(text: &str) -> bool {
    let Some((local, domain)) = text.rsplit_once('@') else { return false };
    text.len() <= EMAIL_BYTES_MAX && is_local(local) && is_domain(domain)
}

fn is_local(local: &str) -> bool {
    let atom = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-/=?^_`{|}~".contains(&byte);
    local.len() <= 64 && local.split('.').all(|part| !part.is_empty() && part.bytes().all(atom))
}

fn is_domain(domain: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    domain.contains('.') && domain.split('.').all(label)
}

/// Whether it is digits alone, with or without a plus sign, as many as `count` allows.
pub(super) fn is_phone(text: &str, count: std::ops::RangeInclusive<usize>) -> bool {
    let digits = text.strip_prefix('+').unwrap_or(text);
    count.contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_email_address_is_told_from_what_is_none() {
        for good in ["a@x.eu", "anna.o'neil+news@mail.example.org", "x@xn--mnchen-3ya.de"] {
            assert!(is_email(good), "{good}");
        }
        let (long_local, long_label) = (format!("{}@x.eu", "a".repeat(65)), format!("a@{}.eu", "x".repeat(64)));
        for bad in [
            "",
            " ",
            "a",
            "@x.eu",
            "a@",
            "a@x",
            "a@b@c.eu",
            "a..b@x.eu",
            ".a@x.eu",
            "a.@x.eu",
            "a b@x.eu",
            "a@x.eu.",
            "a@-x.eu",
            "a@x.eu\r\nBcc: v@y.eu",
            "A <a@x.eu>",
            "a@x.eu;b@y.eu",
            "a@[127.0.0.1]",
            "ü@x.eu",
            "a@münchen.de",
            &long_local,
            &long_label,
        ] {
            assert!(!is_email(bad), "{bad:?}");
        }
    }

    #[test]
    fn a_phone_number_is_digits_alone() {
        for good in ["+33612345678", "33612345678"] {
            assert!(is_phone(good, 6..=15), "{good}");
        }
        for bad in ["", "+", "12345", "1234567890123456", "+33 6", "++33612345678", "33-CALL", "٣٣٦١٢٣٤٥"] {
            assert!(!is_phone(bad, 6..=15), "{bad:?}");
        }
    }
}
