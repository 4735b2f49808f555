//! Reads a JSON body strictly: bounded depth, no member twice, nothing after the value.
//!
//! What it returns is only well-formed; [`shape`](super::shape) says whether it is what the route wants. No error
//! repeats a value of the body.

use std::{cell::RefCell, fmt};

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// How deep arrays and objects may be nested. The deepest body of this API has 4 levels.
pub const DEPTH_MAX: usize = 32;

/// Why a body is not read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JsonError {
    /// There is none.
    #[error("the body is empty; a JSON object is wanted")]
    Empty,
    /// It is not JSON (RFC 8259).
    #[error("the body is not JSON: something is wrong at line {line}, column {column}")]
    Syntax {
        /// From 1.
        line: usize,
        /// From 1.
        column: usize,
    },
    /// A number no machine can hold.
    #[error("the number at line {line}, column {column} is too large to be one")]
    Number {
        /// From 1.
        line: usize,
        /// From 1.
        column: usize,
    },
    /// Nested too deep.
    #[error("the body is nested more than {DEPTH_MAX} levels deep")]
    Depth,
    /// A member is there twice; which one would count depends on the reader, so neither does.
    #[error("a member stands twice in the object at `{pointer}`; leave one out")]
    Duplicate {
        /// The object, as a JSON pointer.
        pointer: String,
    },
}

/// Reads one JSON value.
///
/// # Errors
/// When the bytes are not exactly one JSON value within the limits.
pub fn read(bytes: &[u8]) -> Result<Value, JsonError> {
    if bytes.trim_ascii().is_empty() {
        return Err(JsonError::Empty);
    }
    let fault = RefCell::new(None);
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let outcome = Node { depth: 0, place: &Place::Root, fault: &fault }
        .deserialize(&mut reader)
        .and_then(|value| reader.end().map(|()| value));
    outcome.map_err(|error| {
        let (line, column) = (error.line(), error.column());
        fault.take().unwrap_or_else(|| {
            if error.to_string().starts_with("number out of range") {
                JsonError::Number { line, column }
            } else {
                JsonError::Syntax { line, column }
            }
        })
    })
}

/// One step of a JSON pointer (RFC 6901).
pub(super) fn escaped(member: &str) -> String {
    member.replace('~', "~0").replace('/', "~1")
}

/// Whether a member's name can be repeated in an answer. Names are the client's words: one that looks like anything
/// but a name may hold somebody's address.
pub(super) fn is_plain_name(name: &str) -> bool {
    const NAME_MAX: usize = 64;
    !name.is_empty()
        && name.len() <= NAME_MAX
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'))
        && !name.bytes().all(|byte| byte.is_ascii_digit())
}

/// Where the reader stands; a chain on the stack, so that a good body costs no allocation for it.
enum Place<'a> {
    Root,
    Member(&'a Place<'a>, &'a str),
    Item(&'a Place<'a>, usize),
}

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root => Ok(()),
            Self::Member(parent, name) if is_plain_name(name) => write!(f, "{parent}/{}", escaped(name)),
            Self::Member(parent, _) => write!(f, "{parent}/…"),
            Self::Item(parent, index) => write!(f, "{parent}/{index}"),
        }
    }
}

struct Node<'a> {
    depth: usize,
    place: &'a Place<'a>,
    fault: &'a RefCell<Option<JsonError>>,
}

impl Node<'_> {
    fn fail<E: serde::de::Error>(&self, fault: JsonError) -> E {
        *self.fault.borrow_mut() = Some(fault);
        E::custom("refused")
    }

    fn descend<E: serde::de::Error>(&self) -> Result<usize, E> {
        if self.depth == DEPTH_MAX { Err(self.fail(JsonError::Depth)) } else { Ok(self.depth + 1) }
    }
}

impl<'de> DeserializeSeed<'de> for Node<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Node<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom("not a number"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let depth = self.descend()?;
        let mut list = Vec::new();
        loop {
            let place = Place::Item(self.place, list.len());
            match items.next_element_seed(Node { depth, place: &place, fault: self.fault })? {
                Some(item) => list.push(item),
                None => return Ok(Value::Array(list)),
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let depth = self.descend()?;
        let mut object = Map::new();
        while let Some(name) = members.next_key::<String>()? {
            if object.contains_key(&name) {
                return Err(self.fail(JsonError::Duplicate { pointer: self.place.to_string() }));
            }
            let place = Place::Member(self.place, &name);
            let value = members.next_value_seed(Node { depth, place: &place, fault: self.fault })?;
            object.insert(name, value);
        }
        Ok(Value::Object(object))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_body_that_is_json_reads_as_serde_json_reads_it() {
        let text = r#"{"a":[1,-2,3.5,true,null,"é"],"b":{"c":{}}}"#;
        assert_eq!(read(text.as_bytes()).unwrap(), serde_json::from_str::<Value>(text).unwrap());
    }

    #[test]
    fn nesting_past_the_limit_is_refused_long_before_the_stack_ends() {
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert!(read(nested(DEPTH_MAX).as_bytes()).is_ok());
        assert_eq!(read(nested(DEPTH_MAX + 1).as_bytes()), Err(JsonError::Depth));
        assert_eq!(read(nested(10_000).as_bytes()), Err(JsonError::Depth));
        assert_eq!(read("{\"a\":".repeat(10_000).as_bytes()), Err(JsonError::Depth));
    }

    #[test]
    fn a_member_that_stands_twice_is_refused_with_its_place() {
        let error = read(br#"{"list":[{"a":1,"a":1}]}"#).unwrap_err();
        assert_eq!(error, JsonError::Duplicate { pointer: "/list/0".to_owned() });
        assert_eq!(read(br#"{"a":1,"\u0061":2}"#), Err(JsonError::Duplicate { pointer: String::new() }));
    }

    #[test]
    fn what_is_not_one_json_value_is_refused() {
        for text in ["{", "[1,]", "{} {}", "nul", "{'a':1}", "\"\\ud800\"", "01", "+1", "NaN", "{\"a\":1}x"] {
            assert!(matches!(read(text.as_bytes()), Err(JsonError::Syntax { line: 1, .. })), "{text}");
        }
        assert!(matches!(read(b"\"\xff\""), Err(JsonError::Syntax { .. })));
        assert_eq!(read(b" \n"), Err(JsonError::Empty));
        assert!(matches!(read(b"[1e400]"), Err(JsonError::Number { line: 1, .. })));
    }

    #[test]
    fn an_error_repeats_nothing_of_the_body_that_could_be_an_address() {
        for text in [r#"{"anna@example.org":{"b":1,"b":2}}"#, r#"{"a":"anna@example.org" x}"#] {
            assert!(!read(text.as_bytes()).unwrap_err().to_string().contains("anna"), "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_reader_panic(bytes: Vec<u8>, text in r#"[\[\]{}":,0-9eE+\-a-z\\ ]{0,60}"#) {
            let _ = read(&bytes);
            if let Ok(value) = read(text.as_bytes()) {
                prop_assert_eq!(value, serde_json::from_str::<Value>(&text).unwrap());
            }
        }
    }
}
