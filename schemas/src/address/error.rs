//! Why a text is not an address.

use serde::{Deserialize, Serialize};

/// Why a text is not an address. Carries nothing of the text: it may be printed, counted and stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, thiserror::Error, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AddressError {
    /// Nothing but spaces.
    #[error("it is empty")]
    Empty,
    /// Past what an address may have: 254 octets for e-mail, 15 digits for a phone number.
    #[error("it is longer than an address can be")]
    TooLong,
    /// A line break, NUL or other control character inside.
    #[error("it contains a line break or another control character")]
    Control,
    /// A zero-width, soft-hyphen or writing-direction character inside.
    #[error("it contains an invisible character")]
    Invisible,
    /// U+FFFD: some program before misread the encoding.
    #[error("it contains a character that was lost when the encoding was misread")]
    Damaged,
    /// Several addresses in one place.
    #[error("it holds more than one address; give each a row of its own")]
    TwoAddresses,
    /// No `@`.
    #[error("there is no @ in it")]
    NoAt,
    /// More than one `@`.
    #[error("there is more than one @ in it")]
    ManyAts,
    /// `Name <address>`.
    #[error("it has a name and angle brackets around; only the address itself belongs here")]
    DisplayName,
    /// A quoted local part (`"a b"@…`), refused by policy: no mailbox in use has one, many relays mangle them.
    #[error("it has quotation marks, which no address in use needs")]
    Quoted,
    /// `%`: an encoded character or the old source route.
    #[error("it contains a percent sign")]
    Percent,
    /// Nothing before the `@`.
    #[error("there is nothing before the @")]
    NoLocal,
    /// Past 64 octets before the `@` (RFC 5321, 4.5.3.1.1).
    #[error("the part before the @ is longer than 64 characters")]
    LocalTooLong,
    /// A dot first, last or doubled before the `@`.
    #[error("the part before the @ begins or ends with a dot, or has two in a row")]
    LocalDots,
    /// A character that is not allowed before the `@`.
    #[error("the part before the @ has a character that is not allowed there")]
    LocalCharacters,
    /// Letters outside ASCII before the `@`: would need SMTPUTF8 all the way, which no provider here offers.
    #[error("the part before the @ has letters outside a-z, which the providers cannot deliver to")]
    LocalNotAscii,
    /// Nothing after the `@`.
    #[error("there is nothing after the @")]
    NoDomain,
    /// A domain of one label, such as `localhost`.
    #[error("the domain has no dot")]
    NoDot,
    /// An IP address instead of a domain.
    #[error("there is an IP address in place of the domain")]
    IpAddress,
    /// Past 253 octets, or a label past 63.
    #[error("the domain, or a part of it between dots, is too long")]
    DomainTooLong,
    /// Not a domain name (RFC 1123, UTS 46).
    #[error("the domain is not a valid domain name")]
    Domain,
    /// Letters in a phone number.
    #[error("it has letters in it")]
    Letters,
    /// Digits or signs of another script in a phone number.
    #[error("it has digits or signs other than 0-9; write it with those")]
    NotAscii,
    /// A character that has no place in a phone number.
    #[error("it has a character that does not belong in a phone number")]
    PhoneCharacters,
    /// What a spreadsheet makes of a long number: `3.36123E+10`, `33612345678.0`.
    #[error("a spreadsheet has turned it into a rounded number; format the column as text and export it again")]
    SpreadsheetNumber,
    /// Neither `+` nor a country to assume.
    #[error("it has no country code; write it with + and the country code, or give the import a default country")]
    NoCountry,
    /// No country has that calling code.
    #[error("it begins with a country code that does not exist")]
    UnknownCallingCode,
    /// `+33 0…`: the domestic prefix kept behind the country code.
    #[error("it has the domestic prefix (often 0) after the country code; leave that out")]
    TrunkPrefix,
    /// A short or emergency number.
    #[error("it is too short for a subscriber's number")]
    ShortNumber,
    /// Premium-rate, shared-cost, toll-free and company numbers, pagers, voice mail.
    #[error("it is a service number (premium, shared cost, toll-free and the like), not a subscriber's")]
    ServiceNumber,
    /// A number of no country, such as `+870` and `+979`.
    #[error("it belongs to no country")]
    NotGeographic,
    /// No number in that country's numbering plan.
    #[error("it is not a valid number in that country")]
    NotInPlan,
}

impl AddressError {
    /// A short name that stays the same: for reports and counts.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::Empty => "empty",
            Self::TooLong => "too_long",
            Self::Control => "control",
            Self::Invisible => "invisible",
            Self::Damaged => "damaged",
            Self::TwoAddresses => "two_addresses",
            Self::NoAt => "no_at",
            Self::ManyAts => "many_ats",
            Self::DisplayName => "display_name",
            Self::Quoted => "quoted",
            Self::Percent => "percent",
            Self::NoLocal => "no_local",
            Self::LocalTooLong => "local_too_long",
            Self::LocalDots => "local_dots",
            Self::LocalCharacters => "local_characters",
            Self::LocalNotAscii => "local_not_ascii",
            Self::NoDomain => "no_domain",
            Self::NoDot => "no_dot",
            Self::IpAddress => "ip_address",
            Self::DomainTooLong => "domain_too_long",
            Self::Domain => "domain",
            Self::Letters => "letters",
            Self::NotAscii => "not_ascii",
            Self::PhoneCharacters => "phone_characters",
            Self::SpreadsheetNumber => "spreadsheet_number",
            Self::NoCountry => "no_country",
            Self::UnknownCallingCode => "unknown_calling_code",
            Self::TrunkPrefix => "trunk_prefix",
            Self::ShortNumber => "short_number",
            Self::ServiceNumber => "service_number",
            Self::NotGeographic => "not_geographic",
            Self::NotInPlan => "not_in_plan",
        }
    }
}

/// Whether a character is one a reader cannot see: zero-width, soft hyphen, direction marks, variation selectors,
/// tags, blank fillers (Unicode's Default_Ignorable_Code_Point, and the line and paragraph separators).
pub(super) const fn is_invisible(c: char) -> bool {
    matches!(c,
        '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}'..='\u{1160}' | '\u{17b4}'..='\u{17b5}' | '\u{180b}'..='\u{180f}'
        | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{3164}'
        | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}' | '\u{1bca0}'..='\u{1bca3}'
        | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}')
}

/// What is wrong with characters that no address has, wherever they stand.
pub(super) fn screen(text: &str) -> Result<(), AddressError> {
    // A fold without early exit: the compiler turns it into wide instructions, and texts are short.
    if text.bytes().fold(false, |bad, byte| bad | (byte < 0x20) | (byte == 0x7f)) {
        return Err(AddressError::Control);
    }
    if text.is_ascii() {
        return Ok(());
    }
    for c in text.chars() {
        if c.is_control() {
            return Err(AddressError::Control);
        }
        if is_invisible(c) {
            return Err(AddressError::Invisible);
        }
        if c == char::REPLACEMENT_CHARACTER {
            return Err(AddressError::Damaged);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_the_name_it_has_on_the_wire() {
        for error in [AddressError::Empty, AddressError::ManyAts, AddressError::NotInPlan, AddressError::TrunkPrefix] {
            assert_eq!(serde_json::to_value(error).unwrap(), error.code());
        }
    }
}
