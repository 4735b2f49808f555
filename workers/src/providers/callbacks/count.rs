//! How many reports a body has, without reading them.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, MapAccess, SeqAccess, Visitor},
};

/// How many reports are in a body: the elements of its array, or of the array `results` of its object; one for another
/// object. `None` for what is no JSON of that shape.
#[must_use]
pub fn events_in(body: &[u8]) -> Option<usize> {
    serde_json::from_slice::<Counted>(body).ok().map(|counted| counted.0)
}

struct Counted(usize);

impl<'de> Deserialize<'de> for Counted {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Outer).map(Self)
    }
}

struct Outer;

impl<'de> Visitor<'de> for Outer {
    type Value = usize;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array or an object")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut array: A) -> Result<usize, A::Error> {
        let mut count = 0;
        while array.next_element::<IgnoredAny>()?.is_some() {
            count += 1;
        }
        Ok(count)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<usize, A::Error> {
        let mut count = None;
        while let Some(name) = object.next_key::<String>()? {
            if name == "results" {
                count = Some(object.next_value::<Results>()?.0);
            } else {
                object.next_value::<IgnoredAny>()?;
            }
        }
        Ok(count.unwrap_or(1))
    }
}

struct Results(usize);

impl<'de> Deserialize<'de> for Results {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let elements: Vec<IgnoredAny> = Vec::deserialize(deserializer)?;
        Ok(Self(elements.len()))
    }
}
