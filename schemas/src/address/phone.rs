//! Phone numbers.

use std::{fmt, hash};

use super::{
    AddressError, Country,
    phone_text::Written,
    plan::{self, Placed, Plan, Use},
};

/// Digits of an international number (ITU-T E.164, 6.1).
const DIGITS_MAX: usize = 15;
/// Fewer digits than this, country code included, are nobody's number anywhere: the shortest are Niue's `683 4…`.
const DIGITS_MIN: usize = 7;

/// A subscriber's phone number in E.164 form: `+`, country code, national number, all in digits 0-9.
///
/// Exists only when the number is one of its country's numbering plan. A landline is taken: in many countries it gets
/// text messages, and whether to send there is the campaign's question. Service numbers (premium rate, toll-free and
/// the like), short numbers and numbers of no country are refused.
#[derive(Clone)]
pub struct PhoneNumber {
    text: Box<str>,
    country: Country,
}

impl PhoneNumber {
    /// Reads a number as people write it: `+33 6 12 34 56 78`, `0033 612345678`, `+49 (0)151 …`; with a default
    /// country also as dialled there: `06 12 34 56 78`.
    ///
    /// What follows `+` is an international number to the digit: a domestic zero kept there (`+33 06…`) is refused
    /// rather than guessed away, except in brackets.
    ///
    /// # Errors
    /// Says what is wrong, without the text.
    pub fn parse(text: &str, default_country: Option<Country>) -> Result<Self, AddressError> {
        let written = Written::read(text)?;
        if written.plus {
            return international(written.digits(), written.optional_zero_at);
        }
        match default_country.and_then(plan::of_country) {
            Some(home) => dialled(home, written.digits()),
            None => match written.digits().strip_prefix("00") {
                Some(digits) => international(digits, None),
                None => Err(AddressError::NoCountry),
            },
        }
    }

    /// `+` and digits.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The country whose numbering plan holds it.
    #[must_use]
    pub const fn country(&self) -> Country {
        self.country
    }

    fn of(plan: &Plan, national: &str) -> Result<Self, AddressError> {
        let text = format!("+{}{national}", plan.calling_code);
        match plan.use_of(national) {
            _ if text.len() > 1 + DIGITS_MAX => Err(AddressError::TooLong),
            Some(Use::Subscriber) => Ok(Self { text: text.into_boxed_str(), country: plan.country }),
            Some(Use::Service) => Err(AddressError::ServiceNumber),
            None => Err(AddressError::NotInPlan),
        }
    }
}

impl PartialEq for PhoneNumber {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for PhoneNumber {}

impl hash::Hash for PhoneNumber {
    fn hash<H: hash::Hasher>(&self, state: &mut H) {
        self.text.hash(state);
    }
}

impl fmt::Debug for PhoneNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PhoneNumber({}, ***)", self.country)
    }
}

/// Reads digits that begin with a country code; a zero that stood in brackets after `optional_zero_at` digits belongs
/// to the number only where the domestic prefix is not a zero (as in Italy).
fn international(digits: &str, optional_zero_at: Option<usize>) -> Result<PhoneNumber, AddressError> {
    if digits.len() > DIGITS_MAX {
        return Err(AddressError::TooLong);
    }
    if digits.len() < DIGITS_MIN {
        return Err(AddressError::ShortNumber);
    }
    let (plan, national) = match plan::place(digits) {
        Placed::In(plan, national) | Placed::Nowhere(plan, national) => (plan, national),
        Placed::NotGeographic => return Err(AddressError::NotGeographic),
        Placed::NoCode => return Err(AddressError::UnknownCallingCode),
    };
    match optional_zero_at {
        Some(at) if at != digits.len() - national.len() => return Err(AddressError::PhoneCharacters),
        Some(_) if !plan.dials_zero_at_home() => {
            return international(&format!("{}0{national}", plan.calling_code), None);
        }
        _ => {}
    }
    let number = PhoneNumber::of(plan, national);
    let Err(AddressError::NotInPlan) = number else {
        return number;
    };
    let bare = plan.without_domestic_prefix(national);
    if bare != national && plan.use_of(&bare).is_some() {
        return Err(AddressError::TrunkPrefix);
    }
    Err(AddressError::NotInPlan)
}

/// Reads digits as dialled at home.
fn dialled(home: &Plan, digits: &str) -> Result<PhoneNumber, AddressError> {
    if let Some(abroad) = home.after_international_prefix(digits) {
        let number = international(abroad, None);
        if number.is_ok() {
            return number;
        }
    }
    let national = home.without_domestic_prefix(digits);
    let refused = match of_neighbours(home, &national) {
        Err(AddressError::NotInPlan | AddressError::TooLong) => AddressError::NotInPlan,
        settled => return settled,
    };
    // The country code without its `+`.
    if digits.strip_prefix(&*home.calling_code.to_string()).is_some() {
        let number = international(digits, None);
        if number.is_ok() {
            return number;
        }
    }
    Err(if digits.len() < DIGITS_MIN { AddressError::ShortNumber } else { refused })
}

/// A national number of this country, or of one that shares its calling code and is dialled from here the same way.
fn of_neighbours(home: &Plan, national: &str) -> Result<PhoneNumber, AddressError> {
    match plan::place(&format!("{}{national}", home.calling_code)) {
        Placed::In(plan, rest) if rest == national => PhoneNumber::of(plan, national),
        _ => Err(AddressError::NotInPlan),
    }
}

#[cfg(test)]
#[path = "phone_tests.rs"]
mod tests;
