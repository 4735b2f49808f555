//! Searching bytes for words, in the forms in which words hide.

use base64::{Engine as _, engine::general_purpose::STANDARD_NO_PAD};

/// Words in all their forms.
pub(crate) struct Needles(Vec<Needle>);

struct Needle {
    word: &'static str,
    form: &'static str,
    text: String,
}

impl Needles {
    pub(crate) fn of(words: &[&'static str]) -> Self {
        Self(words.iter().flat_map(|word| forms(word)).collect())
    }

    /// What is found in some bytes, each with the place and the form.
    pub(crate) fn found_in(&self, place: &str, bytes: &[u8]) -> Vec<String> {
        // All forms are ASCII and NUL, so what is not text between them does not matter.
        let text = String::from_utf8_lossy(bytes).to_ascii_lowercase();
        let found = self.0.iter().filter_map(|needle| Some((needle, text.find(&needle.text.to_ascii_lowercase())?)));
        found
            .map(|(needle, at)| {
                let around: String = text[..at].chars().rev().take(80).collect::<Vec<_>>().into_iter().rev().collect();
                format!("{place}: {} ({}) at {at}, after …{around:?}", needle.word, needle.form)
            })
            .collect()
    }
}

fn forms(word: &'static str) -> Vec<Needle> {
    let hex = |separator: &str| word.bytes().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(separator);
    let wide = |order: [&str; 2]| word.chars().map(|letter| format!("{}{letter}{}", order[0], order[1])).collect();
    let mut forms: Vec<(&'static str, String)> = vec![
        ("as it is", word.to_owned()),
        ("hexadecimal", hex("")),
        ("hexadecimal with spaces", hex(" ")),
        ("percent-encoded", format!("%{}", hex("%"))),
        ("as a list of numbers", word.bytes().map(|byte| byte.to_string()).collect::<Vec<_>>().join(", ")),
        ("UTF-16, little-endian", wide(["", "\0"])),
        ("UTF-16, big-endian", wide(["\0", ""])),
    ];
    forms.extend((0..3).map(|shift| ("base64", base64_inside(word, shift))));
    forms.into_iter().map(|(form, text)| Needle { word, form, text }).collect()
}

/// The digits of base64 that a word always has, wherever it stands, when `shift` bytes of a group come before it.
fn base64_inside(word: &str, shift: usize) -> String {
    let encoded = STANDARD_NO_PAD.encode([&vec![0; shift], word.as_bytes()].concat());
    let (first, last) = ((shift * 8).div_ceil(6), (shift + word.len()) * 8 / 6);
    encoded[first..last].to_owned()
}

#[cfg(test)]
mod tests {
    use base64::engine::general_purpose::URL_SAFE;

    use super::*;

    const WORD: &str = "Nachtigall";

    fn is_found(bytes: &[u8]) -> bool {
        !Needles::of(&[WORD]).found_in("here", bytes).is_empty()
    }

    #[test]
    fn a_word_is_found_in_each_form_among_other_bytes() {
        let hidden = |text: &[u8]| [b"\xff\xfe\0 before ".as_slice(), text, b"\xc3 after"].concat();
        assert!(is_found(&hidden(WORD.as_bytes())));
        assert!(is_found(&hidden(WORD.to_uppercase().as_bytes())));
        assert!(is_found(&hidden(b"4e616368746967616c6c")));
        assert!(is_found(&hidden(b"4E 61 63 68 74 69 67 61 6C 6C")));
        assert!(is_found(&hidden(b"%4E%61%63%68%74%69%67%61%6c%6c")));
        assert!(is_found(&hidden(b"[78, 97, 99, 104, 116, 105, 103, 97, 108, 108]")));
        let wide: Vec<u16> = WORD.encode_utf16().collect();
        assert!(is_found(&hidden(&wide.iter().flat_map(|unit| unit.to_le_bytes()).collect::<Vec<_>>())));
        assert!(is_found(&hidden(&wide.iter().flat_map(|unit| unit.to_be_bytes()).collect::<Vec<_>>())));
        for before in 0..6 {
            let whole = format!("{}{WORD}, and more", "x".repeat(before));
            assert!(is_found(&hidden(URL_SAFE.encode(whole).as_bytes())), "{before} bytes before it");
        }
    }

    #[test]
    fn other_words_are_not() {
        assert!(!is_found(b"nightingale 6e6967687469 bmlnaHRpbmdhbGU="));
    }
}
