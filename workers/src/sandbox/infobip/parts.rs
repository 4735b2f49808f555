//! How many text messages a text takes. The fake counts by itself, so that it can disagree with the engine.

/// The basic alphabet (3GPP TS 23.038 section 6.2.1): one septet each.
const BASIC: &str = "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞÆæßÉ !\"#¤%&'()*+,-./0123456789:;<=>?¡ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§¿\
abcdefghijklmnopqrstuvwxyzäöñüà";

/// The extension (section 6.2.1.1): an escape and a septet each.
const EXTENDED: &str = "\u{c}^{}\\[~]|€";

/// Parts of a text: 160 septets or 153 in each of several, or 70 and 67 UTF-16 units where the alphabet is too small.
pub(super) fn parts(text: &str) -> usize {
    let septets = text.chars().try_fold(0, |sum, char| Some(sum + septets(char)?));
    let (units, alone, of_several) = match septets {
        Some(septets) => (septets, 160, 153),
        None => (text.encode_utf16().count(), 70, 67),
    };
    if units <= alone { 1 } else { units.div_ceil(of_several) }
}

fn septets(char: char) -> Option<usize> {
    if char.is_ascii_alphanumeric() || char == ' ' || BASIC.contains(char) {
        Some(1)
    } else {
        EXTENDED.contains(char).then_some(2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_cut_where_its_alphabet_says() {
        for (text, expected) in [
            (String::new(), 1),
            ("a".repeat(160), 1),
            ("a".repeat(161), 2),
            ("a".repeat(306), 2),
            ("a".repeat(307), 3),
            ("€".repeat(80), 1),
            ("€".repeat(81), 2),
            ("ш".repeat(70), 1),
            ("ш".repeat(71), 2),
            ("😀".repeat(35), 1),
            ("😀".repeat(36), 2),
            ("a".repeat(25 * 153), 25),
            ("a".repeat(25 * 153 + 1), 26),
        ] {
            assert_eq!(parts(&text), expected, "{} characters", text.chars().count());
        }
    }
}
