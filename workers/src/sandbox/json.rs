//! Pieces of a request's JSON, read without copying what need not be copied.

use std::{borrow::Cow, fmt, ops::Deref};

use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, MapAccess, SeqAccess, Visitor},
};

/// A string, borrowed from the body where it holds no escapes. (Serde borrows a `Cow` only where it is not inside an
/// `Option` or a `Vec`; this is.)
#[derive(Deserialize)]
#[serde(transparent)]
pub(super) struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

impl Deref for Text<'_> {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

/// An object whose values are strings, in the order written.
#[derive(Default)]
pub(super) struct Pairs<'a>(Vec<(Text<'a>, Text<'a>)>);

impl Pairs<'_> {
    /// The value of this name; the last, where it stands twice.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().rfind(|(known, _)| &**known == name).map(|(_, value)| &**value)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (&**name, &**value))
    }

    /// What the object takes as JSON without escapes, spaces and line breaks.
    pub(super) fn bytes(&self) -> usize {
        2 + self.0.iter().map(|(name, value)| name.len() + value.len() + 6).sum::<usize>().saturating_sub(1)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Pairs<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;

        impl<'de> Visitor<'de> for Reader {
            type Value = Pairs<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object whose values are strings")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Pairs<'de>, A::Error> {
                let mut pairs = Vec::new();
                while let Some(pair) = map.next_entry()? {
                    pairs.push(pair);
                }
                Ok(Pairs(pairs))
            }
        }

        deserializer.deserialize_map(Reader)
    }
}

/// An object of anything, of which only the size counts: about what it takes as JSON without spaces.
#[derive(Clone, Copy)]
pub(super) struct ObjectSize(pub(super) usize);

impl<'de> Deserialize<'de> for ObjectSize {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Measure).map(Self)
    }
}

struct ValueSize(usize);

impl<'de> Deserialize<'de> for ValueSize {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Measure).map(Self)
    }
}

struct Measure;

impl<'de> Visitor<'de> for Measure {
    type Value = usize;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<usize, A::Error> {
        let mut size = 2;
        while let Some((name, value)) = map.next_entry::<Text<'de>, ValueSize>()? {
            size += name.len() + 4 + value.0;
        }
        Ok(size)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<usize, A::Error> {
        let mut size = 2;
        while let Some(value) = seq.next_element::<ValueSize>()? {
            size += value.0 + 1;
        }
        Ok(size)
    }

    fn visit_str<E>(self, text: &str) -> Result<usize, E> {
        Ok(text.len() + 2)
    }

    fn visit_bool<E>(self, _: bool) -> Result<usize, E> {
        Ok("false".len())
    }

    fn visit_unit<E>(self) -> Result<usize, E> {
        Ok("null".len())
    }

    fn visit_u64<E>(self, number: u64) -> Result<usize, E> {
        Ok(number.checked_ilog10().map_or(1, |digits| digits as usize + 1))
    }

    fn visit_i64<E>(self, number: i64) -> Result<usize, E> {
        Ok(number.unsigned_abs().checked_ilog10().map_or(1, |digits| digits as usize + 2))
    }

    fn visit_f64<E>(self, number: f64) -> Result<usize, E> {
        Ok(number.to_string().len())
    }
}

/// An object of anything, of which only matters that it is one.
pub(super) struct Object;

impl<'de> Deserialize<'de> for Object {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;

        impl<'de> Visitor<'de> for Reader {
            type Value = Object;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Object, A::Error> {
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                Ok(Object)
            }
        }

        deserializer.deserialize_map(Reader)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_string_without_escapes_is_borrowed_wherever_it_stands() {
        let texts: Vec<Option<Text<'_>>> = serde_json::from_str(r#"["plain", "esc\naped", null]"#).unwrap();
        assert!(matches!(texts[0].as_ref().unwrap().0, Cow::Borrowed("plain")));
        assert_eq!(&**texts[1].as_ref().unwrap(), "esc\naped");
        assert!(texts[2].is_none());
    }

    #[test]
    fn an_object_weighs_what_it_takes_as_json() {
        for json in [r"{}", r#"{"k":"v"}"#, r#"{"k":"v","name":"Anna"}"#] {
            assert_eq!(serde_json::from_str::<Pairs<'_>>(json).unwrap().bytes(), json.len(), "{json}");
        }
        for json in [r"{}", r#"{"a":[1,23,-456],"b":{"c":null,"d":"text"},"e":1.5}"#] {
            let size = serde_json::from_str::<ObjectSize>(json).unwrap().0;
            assert!(size.abs_diff(json.len()) <= 3, "{json}: {size}");
        }
    }

    #[test]
    fn a_value_that_is_no_string_is_refused_where_strings_are_wanted() {
        assert!(serde_json::from_str::<Pairs<'_>>(r#"{"k":1}"#).is_err());
        assert!(serde_json::from_str::<ObjectSize>("[]").is_err());
        assert!(serde_json::from_str::<Object>("[]").is_err());
    }
}
