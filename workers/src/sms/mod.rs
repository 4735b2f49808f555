//! Text messages: how many segments a text takes.
//!
//! A text goes out in the GSM 7-bit default alphabet when all its characters are in it, else in UCS-2 as a whole
//! (3GPP TS 23.038, 4 and 6.2.1; locking and single shift tables of other languages are not used, because providers
//! do not). A text too long for one message is cut into segments that each carry a header of six octets (3GPP TS
//! 23.040, 9.2.3.24.1), and each segment is paid for.

mod alphabet;
mod opt_out;

use self::alphabet::septets;
pub use self::opt_out::is_opt_out;

/// How a text is encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Encoding {
    /// The GSM 7-bit default alphabet and its extension table: units are septets.
    Gsm7,
    /// UTF-16: units are code units of two octets.
    Ucs2,
}

impl Encoding {
    /// How many units a text may have to go out as one message: 140 octets.
    #[must_use]
    pub const fn units_alone(self) -> usize {
        match self {
            Self::Gsm7 => 160,
            Self::Ucs2 => 70,
        }
    }

    /// How many units fit into each segment of a longer text: 140 octets less a header of six.
    #[must_use]
    pub const fn units_in_segment(self) -> usize {
        match self {
            Self::Gsm7 => 153,
            Self::Ucs2 => 67,
        }
    }
}

/// What a text takes to be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Segments {
    /// How the text is encoded.
    pub encoding: Encoding,
    /// Unicode characters of the text.
    pub characters: usize,
    /// Septets or UTF-16 code units of the text.
    pub units: usize,
    /// How many segments the text is cut into; 0 for an empty text.
    pub segments: usize,
    /// How many units fit into each of them.
    pub units_per_segment: usize,
}

/// The most a provider takes as one text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Maximum {
    /// Segments.
    pub segments: usize,
    /// Unicode characters.
    pub characters: usize,
}

/// The most Infobip takes (Infobip, "SMS messages over HTTP API": at most 25 parts; 4,000 characters).
pub const INFOBIP_MAXIMUM: Maximum = Maximum { segments: 25, characters: 4_000 };

impl Segments {
    /// Whether the text is within what a provider takes.
    #[must_use]
    pub const fn fits(&self, maximum: Maximum) -> bool {
        self.segments <= maximum.segments && self.characters <= maximum.characters
    }
}

/// Counts the segments of a text. A character that takes two units is never cut: neither an escaped one of the
/// extension table nor a surrogate pair.
#[must_use]
pub fn segments(text: &str) -> Segments {
    let encoding = if text.chars().all(|c| septets(c).is_some()) { Encoding::Gsm7 } else { Encoding::Ucs2 };
    let width = |c: char| match encoding {
        Encoding::Gsm7 => septets(c).unwrap_or(0),
        Encoding::Ucs2 => c.len_utf16(),
    };
    let units: usize = text.chars().map(width).sum();
    let characters = text.chars().count();
    if units <= encoding.units_alone() {
        let segments = usize::from(units > 0);
        return Segments { encoding, characters, units, segments, units_per_segment: encoding.units_alone() };
    }
    let room = encoding.units_in_segment();
    let (mut segments, mut used) = (1, 0);
    for width in text.chars().map(width) {
        if used + width > room {
            segments += 1;
            used = 0;
        }
        used += width;
    }
    Segments { encoding, characters, units, segments, units_per_segment: room }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn counted(text: &str) -> (Encoding, usize, usize) {
        let counted = segments(text);
        (counted.encoding, counted.units, counted.segments)
    }

    #[test]
    fn a_text_in_the_default_alphabet_changes_segments_at_160_and_every_153() {
        for (length, expected) in [
            (0, 0),
            (1, 1),
            (160, 1),
            (161, 2),
            (306, 2),
            (307, 3),
            (459, 3),
            (460, 4),
            (25 * 153, 25),
            (25 * 153 + 1, 26),
        ] {
            assert_eq!(counted(&"a".repeat(length)), (Encoding::Gsm7, length, expected), "{length}");
        }
    }

    #[test]
    fn a_text_in_ucs2_changes_segments_at_70_and_every_67() {
        for (length, expected) in [(1, 1), (70, 1), (71, 2), (134, 2), (135, 3), (201, 3), (202, 4)] {
            assert_eq!(counted(&"ж".repeat(length)), (Encoding::Ucs2, length, expected), "{length}");
        }
    }

    #[test]
    fn one_character_outside_the_alphabet_changes_the_whole_text() {
        assert_eq!(counted(&"a".repeat(160)), (Encoding::Gsm7, 160, 1));
        assert_eq!(counted(&("a".repeat(159) + "ç")), (Encoding::Ucs2, 160, 3));
        assert_eq!(counted("ÇA VA À ÉVRY ?").0, Encoding::Ucs2, "the alphabet has à, but not À");
        assert_eq!(counted("Ça va à Évry ?").0, Encoding::Gsm7);
    }

    #[test]
    fn a_character_of_the_extension_table_takes_two_septets() {
        assert_eq!(counted("€"), (Encoding::Gsm7, 2, 1));
        assert_eq!(counted(&"€".repeat(80)), (Encoding::Gsm7, 160, 1));
        assert_eq!(counted(&("€".repeat(80) + "a")), (Encoding::Gsm7, 161, 2));
        // 153 is odd: a segment of these holds 76, and a septet stays empty.
        assert_eq!(counted(&"€".repeat(152)), (Encoding::Gsm7, 304, 2));
        assert_eq!(counted(&"€".repeat(153)), (Encoding::Gsm7, 306, 3));
    }

    #[test]
    fn an_escaped_character_is_not_cut_at_the_end_of_a_segment() {
        // Fits by units (306), but the 153rd and 154th septets belong together.
        let cut = "a".repeat(152) + "€" + &"a".repeat(152);
        assert_eq!(counted(&cut), (Encoding::Gsm7, 306, 3));
        let whole = "a".repeat(151) + "€" + &"a".repeat(153);
        assert_eq!(counted(&whole), (Encoding::Gsm7, 306, 2));
    }

    #[test]
    fn an_emoji_takes_two_units_and_is_not_cut() {
        assert_eq!(counted("😀"), (Encoding::Ucs2, 2, 1));
        assert_eq!(counted(&"😀".repeat(35)), (Encoding::Ucs2, 70, 1));
        assert_eq!(counted(&"😀".repeat(36)), (Encoding::Ucs2, 72, 2));
        // 67 is odd: a segment of these holds 33.
        assert_eq!(counted(&"😀".repeat(66)), (Encoding::Ucs2, 132, 2));
        assert_eq!(counted(&"😀".repeat(67)), (Encoding::Ucs2, 134, 3));
        assert_eq!(counted(&("ж".repeat(66) + "😀" + &"ж".repeat(66))), (Encoding::Ucs2, 134, 3));
        assert_eq!(counted(&("ж".repeat(65) + "😀" + &"ж".repeat(67))), (Encoding::Ucs2, 134, 2));
    }

    #[test]
    fn a_text_says_how_much_fits_where() {
        assert_eq!(segments("a").units_per_segment, 160);
        assert_eq!(segments(&"a".repeat(161)).units_per_segment, 153);
        assert_eq!(segments("ж").units_per_segment, 70);
        assert_eq!(segments(&"ж".repeat(71)).units_per_segment, 67);
        assert_eq!(segments("").segments, 0);
    }

    #[test]
    fn a_providers_maximum_is_in_segments_and_in_characters() {
        assert!(segments(&"a".repeat(25 * 153)).fits(INFOBIP_MAXIMUM));
        assert!(!segments(&"a".repeat(25 * 153 + 1)).fits(INFOBIP_MAXIMUM));
        assert!(segments(&"ж".repeat(25 * 67)).fits(INFOBIP_MAXIMUM));
        assert!(!segments(&"ж".repeat(2_000)).fits(INFOBIP_MAXIMUM));
        let few_parts = Maximum { segments: 100, characters: 10 };
        assert!(segments(&"😀".repeat(10)).fits(few_parts));
        assert!(!segments(&"😀".repeat(11)).fits(few_parts));
    }

    proptest! {
        #[test]
        fn segments_hold_all_units_and_waste_at_most_one_each(text in "[a€жé😀]{0,400}") {
            let counted = segments(&text);
            let room = counted.units_per_segment;
            prop_assert!(counted.units <= counted.segments * room);
            // All segments but the last hold all they can but one unit.
            prop_assert!(counted.segments < 2 || counted.units > (counted.segments - 1) * (room - 1));
            prop_assert_eq!(counted.characters, text.chars().count());
        }
    }
}
