//! The fields of a message that are the same for everybody: senders and reply addresses.

use dispatch_schemas::api::templates::Sender;

use super::error::TemplateError;
use crate::message::Mailbox;

/// The longest display name, in characters. A header line holds 998 octets (RFC 5322, 2.1.1); encoded words need up
/// to six times a name's characters.
const MAX_NAME_CHARS: usize = 128;
/// The longest address (RFC 5321, 4.5.3.1.3, less the angle brackets) and its parts (4.5.3.1.1; RFC 1035, 2.3.4).
const MAX_ADDRESS_BYTES: usize = 254;
const MAX_LOCAL_BYTES: usize = 64;
const MAX_LABEL_BYTES: usize = 63;
/// The longest sender of a text message (3GPP TS 23.040, 9.1.2.5: alphanumeric; ITU-T E.164: number).
const MAX_SMS_SENDER_CHARS: usize = 11;
const MAX_SMS_SENDER_DIGITS: usize = 15;

/// The mailbox of a sender or reply address.
pub(super) fn mailbox(field: &str, sender: &Sender) -> Result<Mailbox, TemplateError> {
    let refuse = |message: &str| Err(TemplateError::in_part(field, message));
    if let Some(name) = &sender.name {
        if has_braces(name) {
            return refuse("the name is fixed; take the braces out");
        }
        if name.trim().is_empty() || name.chars().count() > MAX_NAME_CHARS {
            return Err(TemplateError::in_part(
                field,
                format_args!(
                    "the name must have 1 to {MAX_NAME_CHARS} characters; leave it out to show the address only"
                ),
            ));
        }
        if name.chars().any(super::escape::breaks_a_line) {
            return refuse("the name contains a line break or another control character");
        }
    }
    if has_braces(&sender.address) {
        return refuse("the address is fixed; take the braces out");
    }
    if !sender.address.is_ascii() {
        return refuse("the address must be ASCII; write an international domain in its `xn--` form");
    }
    if !is_address(&sender.address) {
        return refuse("the address is not of the form `local@domain.tld`");
    }
    Ok(Mailbox { address: sender.address.clone(), name: sender.name.clone() })
}

/// The sender of a text message.
pub(super) fn sms_sender(sender: &str) -> Result<String, TemplateError> {
    let digits =
        !sender.is_empty() && sender.len() <= MAX_SMS_SENDER_DIGITS && sender.bytes().all(|b| b.is_ascii_digit());
    let name =
        !sender.is_empty() && sender.len() <= MAX_SMS_SENDER_CHARS && sender.bytes().all(|b| b.is_ascii_alphanumeric());
    if digits || name {
        return Ok(sender.to_owned());
    }
    Err(TemplateError::in_part(
        "sender",
        format_args!(
            "must be at most {MAX_SMS_SENDER_CHARS} letters and digits, or at most {MAX_SMS_SENDER_DIGITS} digits"
        ),
    ))
}

fn has_braces(text: &str) -> bool {
    text.contains(['{', '}'])
}

/// Whether ASCII text has the shape `dot-atom@host.name` (RFC 5321, 4.1.2). No quoted local part, no address literal:
/// neither is a sender anybody uses on purpose.
fn is_address(address: &str) -> bool {
    let Some((local, domain)) = address.split_once('@') else { return false };
    address.len() <= MAX_ADDRESS_BYTES
        && local.len() <= MAX_LOCAL_BYTES
        && local.split('.').all(|atom| !atom.is_empty() && atom.bytes().all(is_atom_byte))
        && domain.contains('.')
        && domain.split('.').all(is_label)
        && domain.rsplit('.').next().is_some_and(|top| top.bytes().any(|b| b.is_ascii_alphabetic()))
}

fn is_atom_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-/=?^_`|~".contains(&byte)
}

fn is_label(label: &str) -> bool {
    !label.is_empty()
        && label.len() <= MAX_LABEL_BYTES
        && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
        && !label.starts_with('-')
        && !label.ends_with('-')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sender(address: &str, name: Option<&str>) -> Result<Mailbox, TemplateError> {
        mailbox("from", &Sender { address: address.to_owned(), name: name.map(str::to_owned) })
    }

    #[test]
    fn a_plain_sender_is_taken_as_it_is() {
        let mailbox = sender("news+eu@mail.example.eu", Some("Café “Zoë”")).unwrap();
        assert_eq!(mailbox.address, "news+eu@mail.example.eu");
        assert_eq!(mailbox.name.as_deref(), Some("Café “Zoë”"));
        assert!(sender("a@xn--mnchen-3ya.de", None).is_ok());
    }

    #[test]
    fn an_address_of_another_shape_is_refused() {
        for address in [
            "",
            "a",
            "@x.eu",
            "a@",
            "a@@x.eu",
            "a@b@x.eu",
            "a b@x.eu",
            "a@x",
            "a@x.eu.",
            "a@.x.eu",
            "a@-x.eu",
            "a..b@x.eu",
            ".a@x.eu",
            "a@[127.0.0.1]",
            "a@127.0.0.1",
            "a@x.eu\r\nBcc: v@y.eu",
            "a\0@x.eu",
            "Name <a@x.eu>",
            "a@x.eu,b@x.eu",
            "ü@x.eu",
            "a@münchen.de",
            "{{ from }}@x.eu",
            "a@{{ domain }}.eu",
        ] {
            assert!(sender(address, None).is_err(), "{address:?}");
        }
        assert!(sender(&format!("{}@x.eu", "a".repeat(65)), None).is_err());
        assert!(sender(&format!("a@{}.eu", "b".repeat(64)), None).is_err());
        assert!(sender(&format!("a@{}eu", "bb.".repeat(84)), None).is_err());
    }

    #[test]
    fn a_name_that_could_break_the_header_is_refused() {
        for name in ["", " ", "a\r\nBcc: v@y.eu", "a\u{0}", "a\u{85}b", "a\u{2028}b", "{{ name }}", "{% if x %}"] {
            assert!(sender("a@x.eu", Some(name)).is_err(), "{name:?}");
        }
        assert!(sender("a@x.eu", Some(&"n".repeat(MAX_NAME_CHARS + 1))).is_err());
    }

    #[test]
    fn an_sms_sender_is_a_short_name_or_a_number() {
        for fine in ["A", "Dispatch1", "ABCDEFGHIJK", "33612345678", "123456789012345"] {
            assert_eq!(sms_sender(fine).as_deref(), Ok(fine));
        }
        for bad in ["", "ABCDEFGHIJKL", "1234567890123456", "+33612345678", "My Shop", "Zoë", "{{ s }}", "a\n"] {
            assert!(sms_sender(bad).is_err(), "{bad:?}");
        }
    }
}
