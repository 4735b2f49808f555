//! A recipient's values.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, Visitor};

use super::budget::{MAX_DATA_BYTES, MAX_FIELDS};

/// The values a recipient's slots are filled from: a flat set of named strings. Personal data: has no readable
/// `Debug`.
#[derive(Clone, Default)]
pub struct Data {
    /// Names and values, one after the other: one allocation for all of them.
    text: String,
    fields: Vec<Field>,
}

/// Where a field stands in [`Data::text`]: its name, then its value.
#[derive(Clone, Copy)]
struct Field {
    name_start: u32,
    name_end: u32,
    value_end: u32,
}

/// About what a member of a recipient's JSON takes, for the first guess at how many there are.
const ORDINARY_MEMBER_BYTES: usize = 16;

/// Why values cannot be taken over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DataError {
    /// Not a JSON object whose values are strings.
    #[error("the data is not a JSON object whose values are strings")]
    NotStrings,
    /// More than a recipient may have.
    #[error("the data has more than {MAX_FIELDS} fields or {MAX_DATA_BYTES} bytes")]
    TooLarge,
}

impl Data {
    /// Adds the members of a JSON object of strings; a later value of a name replaces an earlier one.
    ///
    /// # Errors
    /// When `json` is not a JSON object of strings, or too large. Nothing is added then.
    pub fn add_json(&mut self, json: &[u8]) -> Result<(), DataError> {
        let before = (self.text.len(), self.fields.len());
        // Names and values are never longer than the JSON they stand in.
        self.text.reserve(json.len().min(MAX_DATA_BYTES));
        self.fields.reserve((json.len() / ORDINARY_MEMBER_BYTES).min(MAX_FIELDS));
        let mut reader = serde_json::Deserializer::from_slice(json);
        let outcome = Members(self).deserialize(&mut reader).and_then(|()| reader.end());
        if outcome.is_ok() {
            return Ok(());
        }
        // The reader's own error may quote a value, so it goes no further.
        let too_large = self.is_too_large();
        self.text.truncate(before.0);
        self.fields.truncate(before.1);
        Err(if too_large { DataError::TooLarge } else { DataError::NotStrings })
    }

    /// Adds one value; it replaces an earlier one of the same name.
    ///
    /// # Errors
    /// When the data would become too large.
    pub fn add(&mut self, name: &str, value: &str) -> Result<(), DataError> {
        let start = self.text.len();
        self.text.push_str(name);
        let name_end = self.text.len();
        self.text.push_str(value);
        self.end_field(start, name_end);
        if self.is_too_large() {
            self.text.truncate(start);
            self.fields.pop();
            return Err(DataError::TooLarge);
        }
        Ok(())
    }

    /// The value of a field.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        // From the end: the later value of a name is the one that counts. A recipient has a few dozen fields, and
        // names of another length are passed over without reading them, so this is faster than hashing the name.
        self.fields.iter().rev().find_map(|field| {
            let (start, end) = (field.name_start as usize, field.name_end as usize);
            if end - start != name.len() || self.text.get(start..end) != Some(name) {
                return None;
            }
            self.text.get(end..field.value_end as usize)
        })
    }

    fn end_field(&mut self, name_start: usize, name_end: usize) {
        // Saturating is never reached: the text stays under MAX_DATA_BYTES, or the field is taken back.
        let at = |place: usize| u32::try_from(place).unwrap_or(u32::MAX);
        self.fields.push(Field { name_start: at(name_start), name_end: at(name_end), value_end: at(self.text.len()) });
    }

    fn is_too_large(&self) -> bool {
        self.text.len() > MAX_DATA_BYTES || self.fields.len() > MAX_FIELDS
    }
}

impl fmt::Debug for Data {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Data({} fields, {} bytes)", self.fields.len(), self.text.len())
    }
}

/// Reads an object's members straight into the data's own string.
struct Members<'a>(&'a mut Data);

impl<'de> DeserializeSeed<'de> for Members<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Members<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of strings")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<(), A::Error> {
        let data = self.0;
        loop {
            let name_start = data.text.len();
            if members.next_key_seed(Text(&mut data.text))?.is_none() {
                return Ok(());
            }
            let name_end = data.text.len();
            members.next_value_seed(Text(&mut data.text))?;
            data.end_field(name_start, name_end);
            if data.is_too_large() {
                return Err(A::Error::custom("too large"));
            }
        }
    }
}

/// Appends a string to a string.
struct Text<'a>(&'a mut String);

impl<'de> DeserializeSeed<'de> for Text<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Text<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_str<E>(self, text: &str) -> Result<(), E> {
        self.0.push_str(text);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data(json: &str) -> Data {
        let mut data = Data::default();
        data.add_json(json.as_bytes()).unwrap();
        data
    }

    #[test]
    fn a_later_value_replaces_an_earlier_one() {
        let mut data = data(r#"{"name":"Ada","city":"","name":"Eve"}"#);
        assert_eq!(data.get("name"), Some("Eve"));
        data.add_json(br#"{"city":"K\u00f6ln"}"#).unwrap();
        assert_eq!(data.get("city"), Some("Köln"));
        assert_eq!(data.get("nam"), None);
        assert_eq!(data.get("Ada"), None);
    }

    #[test]
    fn an_empty_value_is_a_value() {
        assert_eq!(data(r#"{"name":""}"#).get("name"), Some(""));
    }

    #[test]
    fn anything_but_an_object_of_strings_is_refused_and_adds_nothing() {
        for json in [
            "",
            "[]",
            "null",
            "\"a\"",
            r#"{"a":1}"#,
            r#"{"a":null}"#,
            r#"{"a":{"b":"c"}}"#,
            r#"{"a":["b"]}"#,
            r#"{"b":"c","a":true}"#,
            r#"{"b":"c""#,
            r#"{"b":"c"} x"#,
            r#"{"b":"\ud800"}"#,
        ] {
            let mut data = data(r#"{"old":"kept"}"#);
            assert_eq!(data.add_json(json.as_bytes()), Err(DataError::NotStrings), "{json}");
            assert_eq!(data.get("old"), Some("kept"), "{json}");
            assert_eq!(data.get("b"), None, "{json}");
            assert_eq!(data.get("a"), None, "{json}");
        }
        assert_eq!(Data::default().add_json(b"{\"a\":\"\xff\"}"), Err(DataError::NotStrings));
    }

    #[test]
    fn data_beyond_its_limits_is_refused_and_adds_nothing() {
        let long = format!(r#"{{"a":"{}"}}"#, "x".repeat(MAX_DATA_BYTES));
        let mut data = data(r#"{"old":"kept"}"#);
        assert_eq!(data.add_json(long.as_bytes()), Err(DataError::TooLarge));
        assert_eq!(data.get("a"), None);
        let many: Vec<String> = (0..=MAX_FIELDS).map(|n| format!(r#""f{n}":"""#)).collect();
        assert_eq!(data.add_json(format!("{{{}}}", many.join(",")).as_bytes()), Err(DataError::TooLarge));
        assert_eq!(data.get("f0"), None);
        assert_eq!(data.add("big", &"x".repeat(MAX_DATA_BYTES)), Err(DataError::TooLarge));
        assert_eq!(data.get("old"), Some("kept"));
    }

    #[test]
    fn its_debug_output_shows_no_value() {
        let shown = format!("{:?}", data(r#"{"name":"Ada"}"#));
        assert!(!shown.contains("Ada") && !shown.contains("name"), "{shown}");
    }
}
