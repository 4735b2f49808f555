//! The GSM 7-bit default alphabet (3GPP TS 23.038, 6.2.1 and 6.2.1.1).

/// The characters that take one septet, in the order of their codes from 0x00. Left out is 0x1B, the escape to the
/// extension table: it is no character.
const BASIC: &str = "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞÆæßÉ !\"#¤%&'()*+,-./0123456789:;<=>?¡ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§¿abcdefghijklmnopqrstuvwxyzäöñüà";

/// The characters of the extension table: an escape and a code, two septets.
const EXTENSION: &str = "\u{c}^{}\\[~]|€";

/// How many septets a character takes; none when it is not in the alphabet.
pub(super) fn septets(c: char) -> Option<usize> {
    // First what most texts are made of, without a search.
    if c.is_ascii_alphanumeric() || c == ' ' || BASIC.contains(c) {
        Some(1)
    } else {
        EXTENSION.contains(c).then_some(2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tables_are_whole() {
        // 128 codes less the escape; ten characters of the extension table.
        assert_eq!(BASIC.chars().count(), 127);
        assert_eq!(EXTENSION.chars().count(), 10);
        let mut all: Vec<char> = BASIC.chars().chain(EXTENSION.chars()).collect();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), 137);
    }

    #[test]
    fn codes_are_where_the_standard_has_them() {
        let code = |c: char| {
            let at = BASIC.chars().position(|known| known == c).unwrap();
            // The escape is left out.
            if at >= 0x1b { at + 1 } else { at }
        };
        for (c, expected) in [
            ('@', 0x00),
            ('\n', 0x0a),
            ('\r', 0x0d),
            ('Δ', 0x10),
            ('Ξ', 0x1a),
            ('Æ', 0x1c),
            (' ', 0x20),
            ('¤', 0x24),
            ('0', 0x30),
            ('¡', 0x40),
            ('A', 0x41),
            ('Ä', 0x5b),
            ('§', 0x5f),
            ('¿', 0x60),
            ('a', 0x61),
            ('ä', 0x7b),
            ('à', 0x7f),
        ] {
            assert_eq!(code(c), expected, "{c}");
        }
    }

    #[test]
    fn look_alikes_are_not_in_the_alphabet() {
        for c in ['ç', 'á', 'ê', '`', '’', '“', '–', '…', '\t', '\u{a0}', 'Α', 'µ', '\u{1b}', '\0'] {
            assert_eq!(septets(c), None, "{c:?}");
        }
    }
}
