use phonenumber::{Mode, Type, metadata::DATABASE};
use proptest::prelude::*;

use super::*;

fn country(letters: &str) -> Option<Country> {
    Some(letters.parse().unwrap())
}

#[test]
fn spellings_of_one_number_are_one_number() {
    for (text, home, normal) in [
        ("+33612345678", None, "+33612345678"),
        ("+33 6 12 34 56 78", None, "+33612345678"),
        (" +33-6.12/34 (56) 78 ", None, "+33612345678"),
        ("+33\u{a0}6\u{202f}12\u{2011}34 56 78", None, "+33612345678"),
        ("\u{202a}+33 6 12 34 56 78\u{202c}", None, "+33612345678"),
        ("'+33612345678", None, "+33612345678"),
        ("+33 (0)6 12 34 56 78", None, "+33612345678"),
        ("0033612345678", None, "+33612345678"),
        ("0612345678", country("FR"), "+33612345678"),
        ("33612345678", country("FR"), "+33612345678"),
        ("00 33 6 12 34 56 78", country("FR"), "+33612345678"),
        ("011 33 6 12 34 56 78", country("US"), "+33612345678"),
        ("+33612345678", country("DE"), "+33612345678"),
        ("0151 23456789", country("DE"), "+4915123456789"),
        ("(202) 555-0143", country("US"), "+12025550143"),
        ("1 202 555 0143", country("US"), "+12025550143"),
        ("06 698 12345", country("IT"), "+390669812345"),
        ("+39 (0)6 698 12345", None, "+390669812345"),
        ("8 912 345-67-89", country("RU"), "+79123456789"),
        ("07911 123456", country("GB"), "+447911123456"),
    ] {
        let number = PhoneNumber::parse(text, home).unwrap_or_else(|wrong| panic!("{text}: {wrong}"));
        assert_eq!(number.as_str(), normal, "{text}");
    }
}

#[test]
fn a_number_knows_its_country_even_where_countries_share_a_code() {
    for (text, letters) in [
        ("+33612345678", "FR"),
        ("+12025550143", "US"),
        ("+14165550143", "CA"),
        ("+18765550143", "JM"),
        ("+447400123456", "GB"),
        ("+447911123456", "GG"),
        ("+77012345678", "KZ"),
        ("+79123456789", "RU"),
        ("+390669812345", "VA"),
        ("+358401234567", "FI"),
    ] {
        let number = PhoneNumber::parse(text, None).unwrap_or_else(|wrong| panic!("{text}: {wrong}"));
        assert_eq!(number.country().as_str(), letters, "{text}");
    }
}

#[test]
fn what_is_no_number_is_refused_with_its_reason() {
    let huge = "1".repeat(1 << 20);
    for (text, home, wrong) in [
        ("", None, AddressError::Empty),
        ("   ", None, AddressError::Empty),
        ("0612345678", None, AddressError::NoCountry),
        ("+330612345678", None, AddressError::TrunkPrefix),
        ("+33-CALL", None, AddressError::Letters),
        ("+33 6 12 34 56 78 ext. 9", None, AddressError::Letters),
        ("+3361234567890123", None, AddressError::TooLong),
        ("+336123456789012345678901", None, AddressError::TooLong),
        ("+33899123456", None, AddressError::ServiceNumber),
        ("+33800123456", None, AddressError::ServiceNumber),
        ("0899123456", country("FR"), AddressError::ServiceNumber),
        ("36180", country("FR"), AddressError::ShortNumber),
        ("36180", None, AddressError::NoCountry),
        ("+36180", None, AddressError::ShortNumber),
        ("112", country("FR"), AddressError::ShortNumber),
        ("+٣٣٦١٢٣٤٥٦٧٨", None, AddressError::NotAscii),
        ("+３３６１２３４５６７８", None, AddressError::NotAscii),
        ("＋33612345678", None, AddressError::NotAscii),
        ("+", None, AddressError::ShortNumber),
        ("+ ", None, AddressError::ShortNumber),
        ("3.36123E+10", None, AddressError::SpreadsheetNumber),
        ("3,36123E+10", country("FR"), AddressError::SpreadsheetNumber),
        ("33612345678.0", country("FR"), AddressError::SpreadsheetNumber),
        ("+1+1", None, AddressError::PhoneCharacters),
        ("=cmd|' /C calc'!A0", None, AddressError::PhoneCharacters),
        ("+33612345678; +33612345679", None, AddressError::TwoAddresses),
        ("+33612345678,+33612345679", None, AddressError::TwoAddresses),
        ("+336123\n45678", None, AddressError::Control),
        ("+336\u{fffd}", None, AddressError::Damaged),
        ("+210 123 45 67", None, AddressError::UnknownCallingCode),
        ("+0033612345678", None, AddressError::UnknownCallingCode),
        ("+800 12345678", None, AddressError::NotGeographic),
        ("+979 123456789", None, AddressError::NotGeographic),
        ("+33 1 23", None, AddressError::ShortNumber),
        ("+33 1 23 45", None, AddressError::NotInPlan),
        ("+1 2530000", None, AddressError::NotInPlan),
        ("+44 791234567", None, AddressError::NotInPlan),
        ("061234567", country("FR"), AddressError::NotInPlan),
        (&huge, None, AddressError::TooLong),
    ] {
        let shown = text.get(..text.len().min(40)).unwrap_or(text);
        assert_eq!(PhoneNumber::parse(text, home).unwrap_err(), wrong, "{shown:?}");
    }
}

#[test]
fn debug_shows_the_country_only() {
    assert_eq!(format!("{:?}", PhoneNumber::parse("+33612345678", None).unwrap()), "PhoneNumber(FR, ***)");
}

/// The uses that a subscriber's number can have, by the crate's own names.
fn is_subscriber(kind: Type) -> bool {
    matches!(kind, Type::FixedLine | Type::Mobile | Type::FixedLineOrMobile | Type::Voip | Type::PersonalNumber)
}

/// An example number of a country, and what the crate makes of it.
struct Example {
    home: Country,
    text: String,
    theirs: phonenumber::PhoneNumber,
    kind: Type,
}

impl Example {
    /// The crate takes the first digits of some examples for a domestic prefix, and forgets leading zeros when it asks
    /// for the kind.
    fn is_read_whole(&self) -> bool {
        self.theirs.format().mode(Mode::E164).to_string() == self.text && self.theirs.national().zeros() == 0
    }
}

/// Every example number of every country.
fn examples() -> Vec<Example> {
    let mut found = Vec::new();
    for metadata in DATABASE.iter() {
        let Ok(home) = metadata.id().parse::<Country>() else {
            continue;
        };
        let all = metadata.descriptors();
        let descriptors = [
            all.fixed_line(),
            all.mobile(),
            all.toll_free(),
            all.premium_rate(),
            all.shared_cost(),
            all.personal_number(),
            all.voip(),
            all.pager(),
            all.uan(),
            all.voicemail(),
        ];
        for example in descriptors.into_iter().flatten().filter_map(|descriptor| descriptor.example()) {
            let text = format!("+{}{example}", metadata.country_code());
            let theirs = phonenumber::parse(None, &text).unwrap();
            let kind = theirs.number_type(&DATABASE);
            found.push(Example { home, text, theirs, kind });
        }
    }
    assert!(found.len() > 900, "{}", found.len());
    found
}

#[test]
fn every_countrys_example_numbers_are_judged_as_the_crate_judges_them() {
    let (mut compared, mut apart) = (0, 0);
    for Example { home, text, theirs, kind } in examples().into_iter().filter(|example| {
        apart += usize::from(!example.is_read_whole());
        example.is_read_whole()
    }) {
        let ours = PhoneNumber::parse(&text, None);
        assert_eq!(ours.is_ok(), is_subscriber(kind), "{home} {text} {kind:?}: {ours:?}");
        if let Ok(ours) = ours {
            assert_eq!(ours.as_str(), text);
            assert_eq!(ours.country().as_str(), theirs.country().id().unwrap().as_ref());
        }
        compared += 1;
    }
    assert!(compared > 900, "{compared} compared, {apart} not");
}

#[test]
fn every_countrys_example_numbers_are_numbers() {
    for Example { home, text, .. } in examples() {
        let ours = PhoneNumber::parse(&text, None);
        let known = matches!(ours, Ok(_) | Err(AddressError::ServiceNumber | AddressError::ShortNumber));
        assert!(known, "{home} {text}: {ours:?}");
    }
}

#[test]
fn every_countrys_example_numbers_are_read_as_dialled_at_home() {
    for example in examples().into_iter().filter(|example| example.is_read_whole() && is_subscriber(example.kind)) {
        let national = example.theirs.format().mode(Mode::National).to_string();
        let ours = PhoneNumber::parse(&national, Some(example.home));
        let ours = ours.as_ref().map(PhoneNumber::as_str);
        assert_eq!(ours, Ok(example.text.as_str()), "{} {national}", example.home);
    }
}

/// Whether the crate takes a number although every pattern of its country matches only the beginning of it.
fn is_matched_in_part(number: &phonenumber::PhoneNumber) -> bool {
    let national = number.national().to_string();
    let descriptors = number.metadata(&DATABASE).unwrap().descriptors();
    let [fixed, mobile, voip, personal] =
        [descriptors.fixed_line(), descriptors.mobile(), descriptors.voip(), descriptors.personal_number()];
    let general = Some(descriptors.general());
    let is_whole = |descriptor: Option<&phonenumber::metadata::Descriptor>| {
        descriptor.is_some_and(|descriptor| {
            let pattern = format!("^(?:{})$", descriptor.national_number().as_str());
            regex::RegexBuilder::new(&pattern).ignore_whitespace(true).build().unwrap().is_match(&national)
        })
    };
    !(is_whole(general) && [fixed, mobile, voip, personal].into_iter().any(is_whole))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn numbers_near_the_examples_are_judged_as_the_crate_judges_them(
        example: prop::sample::Index,
        kept in 4_usize..12,
        rest in "[0-9]{0,9}",
    ) {
        static EXAMPLES: std::sync::LazyLock<Vec<Example>> = std::sync::LazyLock::new(examples);
        let example = &EXAMPLES[example.index(EXAMPLES.len())].text;
        let text = format!("{}{rest}", &example[..kept.min(example.len())]);
        let ours = PhoneNumber::parse(&text, None);
        let theirs = phonenumber::parse(None, &text).ok();
        let read_whole = theirs.filter(|theirs| theirs.format().mode(Mode::E164).to_string() == text);
        match (ours, read_whole) {
            (Ok(ours), Some(theirs)) => {
                prop_assert!(theirs.is_valid());
                if theirs.national().zeros() == 0 {
                    prop_assert!(is_subscriber(theirs.number_type(&DATABASE)));
                    let country = theirs.country().id().unwrap();
                    prop_assert_eq!(ours.country().to_string(), country.as_ref());
                }
            }
            // The crate has taken the first digits for a domestic prefix.
            (Ok(_), None) => {}
            (Err(wrong), Some(theirs)) if is_subscriber(theirs.number_type(&DATABASE)) => {
                let short_or_long = matches!(wrong, AddressError::ShortNumber | AddressError::TooLong);
                prop_assert!(short_or_long || is_matched_in_part(&theirs), "{}: {}", text, wrong);
            }
            (Err(_), _) => {}
        }
    }

    #[test]
    fn no_text_makes_the_parser_panic(text in "[+0-9() .eE-]{0,24}", noise: String, letters in "FR|DE|IT|US|AR|BR|MX") {
        let home = country(&letters);
        let _ = PhoneNumber::parse(&noise, home);
        if let Ok(number) = PhoneNumber::parse(&text, home) {
            prop_assert_eq!(PhoneNumber::parse(number.as_str(), None).unwrap(), number);
        }
    }
}
