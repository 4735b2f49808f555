//! Quoted-printable (RFC 2045 §6.7) for text, in one pass.
//!
//! Line endings of any kind become CRLF. Lines are at most 76 octets. A dot that would begin a line is encoded, so
//! that nothing a body says looks like the end of the mail, and no encoded line can hold `=_`, so that a boundary
//! that begins with it never occurs in a body.

use memchr::memchr2;

/// RFC 2045: 76 octets, of which one is kept for the `=` of a soft line break.
const LINE_MAX: usize = 75;

/// What an octet outside the literal ones takes: `=` and two digits.
const ESCAPE_LEN: usize = 3;

/// Encodes `text` to the end of `out`.
pub(super) fn encode(text: &str, out: &mut Vec<u8>) {
    let mut rest = text.as_bytes();
    while let Some(at) = memchr2(b'\r', b'\n', rest) {
        let (line, ending) = rest.split_at(at);
        encode_line(line, out);
        out.extend_from_slice(b"\r\n");
        rest = ending.strip_prefix(b"\r\n").or_else(|| ending.get(1..)).unwrap_or_default();
    }
    encode_line(rest, out);
}

fn encode_line(line: &[u8], out: &mut Vec<u8>) {
    let mut column = 0;
    let mut rest = line;
    while let Some((first, after)) = rest.split_first() {
        let ends_with_blank = after.is_empty() && matches!(first, b' ' | b'\t');
        let begins_with_dot = column == 0 && *first == b'.';
        if !is_literal(*first) || ends_with_blank || begins_with_dot {
            if column + ESCAPE_LEN > LINE_MAX {
                out.extend_from_slice(b"=\r\n");
                column = 0;
            }
            out.extend_from_slice(&[b'=', digit(first >> 4), digit(first & 0xf)]);
            column += ESCAPE_LEN;
            rest = after;
            continue;
        }
        if column == LINE_MAX {
            out.extend_from_slice(b"=\r\n");
            column = 0;
            continue;
        }
        let run = literal_run(rest).min(LINE_MAX - column);
        let (literal, later) = rest.split_at(run);
        out.extend_from_slice(literal);
        column += run;
        rest = later;
    }
}

/// How many octets from the start stand for themselves; at least 1 when the first does. A blank at the end of the
/// line is left out: it must not stand there (rule 3).
fn literal_run(rest: &[u8]) -> usize {
    let run = rest.iter().position(|byte| !is_literal(*byte)).unwrap_or(rest.len());
    let ends_line = run == rest.len();
    if ends_line && run > 1 && matches!(rest.last(), Some(b' ' | b'\t')) { run - 1 } else { run }
}

const fn is_literal(byte: u8) -> bool {
    matches!(byte, b'\t' | b' '..=b'<' | b'>'..=b'~')
}

const fn digit(nibble: u8) -> u8 {
    if nibble < 10 { b'0' + nibble } else { b'A' + nibble - 10 }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::encode;

    fn encoded(text: &str) -> String {
        let mut out = Vec::new();
        encode(text, &mut out);
        String::from_utf8(out).unwrap()
    }

    /// The decoder of RFC 2045, as plainly as it can be written.
    fn decoded(text: &str) -> Vec<u8> {
        let joined = text.replace("=\r\n", "");
        let mut bytes = joined.bytes();
        let mut out = Vec::new();
        while let Some(byte) = bytes.next() {
            if byte == b'=' {
                let pair = [bytes.next().unwrap(), bytes.next().unwrap()];
                out.push(u8::from_str_radix(std::str::from_utf8(&pair).unwrap(), 16).unwrap());
            } else {
                out.push(byte);
            }
        }
        out
    }

    #[test]
    fn what_is_not_plain_ascii_is_escaped() {
        assert_eq!(encoded("L'été = 100 %"), "L'=C3=A9t=C3=A9 =3D 100 %");
        assert_eq!(encoded("nul\0 del\x7f tab\there"), "nul=00 del=7F tab\there");
    }

    #[test]
    fn every_line_ending_becomes_crlf() {
        assert_eq!(encoded("a\nb\r\nc\rd\n\n"), "a\r\nb\r\nc\r\nd\r\n\r\n");
    }

    #[test]
    fn a_blank_never_ends_a_line() {
        assert_eq!(encoded("a \nb\t\n \n"), "a=20\r\nb=09\r\n=20\r\n");
    }

    #[test]
    fn a_dot_never_begins_a_line() {
        assert_eq!(encoded(".\n..a\n"), "=2E\r\n=2E.a\r\n");
        let long = format!("{}.com", "a".repeat(75));
        assert_eq!(encoded(&long), format!("{}=\r\n=2Ecom", "a".repeat(75)));
    }

    proptest! {
        #[test]
        fn what_is_encoded_can_be_read_back(text in "(?s)[ -~éß☃\t\r\n.=]{0,400}") {
            let wire = encoded(&text);
            let canonical = text.replace("\r\n", "\n").replace('\r', "\n").replace('\n', "\r\n");
            prop_assert_eq!(decoded(&wire), canonical.into_bytes());
            prop_assert!(wire.is_ascii());
            for line in wire.split("\r\n") {
                prop_assert!(line.len() <= 76 && !line.contains(['\r', '\n']), "{:?}", line);
                prop_assert!(!line.starts_with('.') && !line.ends_with([' ', '\t']) && !line.contains("=_"));
            }
        }
    }
}
