//! From what was written to the types: a serde deserializer that knows places.
//!
//! It is strict where serde's own ones are not: an unknown name is a problem with the nearest known one, a value of the
//! wrong kind says what is wanted. A variable's text is read as whatever the setting is.

use std::{cell::RefCell, collections::btree_map, fmt, net::SocketAddr};

use secrecy::SecretString;
use serde::{
    Deserialize, Deserializer,
    de::{self, IntoDeserializer as _, MapAccess, Visitor},
};

use super::{
    catalogue,
    document::{Document, Entry, Node, Value, join},
    environment,
    problem::{Place, Problem, nearest},
};

/// Fills a type from the document. What is wrong is added to `problems`; without a value at least one was.
pub(super) fn read<'de, T: Deserialize<'de>>(document: &'de Document, problems: &mut Vec<Problem>) -> Option<T> {
    let reading = Reading::default();
    let read = T::deserialize(At { node: &document.root, path: String::new(), reading: &reading });
    problems.append(&mut reading.problems.borrow_mut());
    read.map_err(|stop| {
        let (key, place) = stop.at.unwrap_or_default();
        problems.push(Problem { key, place, message: stop.message });
    })
    .ok()
}

/// An address and port.
pub(super) fn socket_address<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SocketAddr, D::Error> {
    listen_address(&String::deserialize(deserializer)?).map_err(de::Error::custom)
}

/// Reads an address to listen on. A name may stand for several addresses, so none is taken.
///
/// # Errors
/// Says what is wanted; never quotes the text.
pub fn listen_address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| {
        let wanted = "wanted: an IP address and a port, as in 127.0.0.1:8025";
        match text.rsplit_once(':') {
            Some(("localhost", port)) if port.parse::<u16>().is_ok() => format!("{wanted}; localhost is 127.0.0.1"),
            _ => format!("{wanted} for this machine only, 0.0.0.0:8025 or [::]:8025 for all addresses it has"),
        }
    })
}

/// A secret, from a variable.
pub(super) fn secret<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<SecretString>, D::Error> {
    Ok(Some(SecretString::from(String::deserialize(deserializer)?)))
}

/// The full names of everything the program would read in the tables that stand in the document, tables included.
#[cfg(test)]
pub(super) fn fields_of<'de, T: Deserialize<'de>>(document: &'de Document) -> Vec<String> {
    let reading = Reading::default();
    T::deserialize(At { node: &document.root, path: String::new(), reading: &reading }).map(drop).unwrap();
    reading.fields.into_inner()
}

#[derive(Default)]
struct Reading {
    problems: RefCell<Vec<Problem>>,
    #[cfg(test)]
    fields: RefCell<Vec<String>>,
}

/// The first thing that cannot be read at all.
#[derive(Debug)]
struct Stop {
    message: String,
    /// The part of a table that is missing.
    missing: Option<&'static str>,
    at: Option<(String, Option<Place>)>,
}

impl Stop {
    fn new(message: String) -> Self {
        Self { message, missing: None, at: None }
    }

    fn at(mut self, path: &str, place: Option<&Place>) -> Self {
        if self.at.is_none() {
            let path = self.missing.map_or_else(|| path.to_owned(), |field| join(path, field));
            self.at = Some((path, place.cloned()));
        }
        self
    }
}

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Stop {}

impl de::Error for Stop {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self::new(message.to_string())
    }

    fn missing_field(field: &'static str) -> Self {
        Self { missing: Some(field), ..Self::new("it is missing, and has no default".to_owned()) }
    }

    fn unknown_variant(word: &str, known: &'static [&'static str]) -> Self {
        let meant = nearest(word, known.iter().copied()).map(|word| format!("; did you mean \"{word}\"?"));
        Self::new(format!("wanted: one of {}{}", known.join(", "), meant.unwrap_or_default()))
    }
}

/// A value, where it stands, and what it is called.
struct At<'de, 'r> {
    node: &'de Node,
    path: String,
    reading: &'r Reading,
}

impl At<'_, '_> {
    fn wrong(&self, wanted: &str) -> Stop {
        Stop::new(format!("{} stands here; wanted: {wanted}", self.node.value.called()))
    }

    fn integer<N: TryFrom<i64>>(&self, least: i128, most: i128) -> Result<N, Stop> {
        let wanted = match (least, most) {
            (0, most) if most > i128::from(u32::MAX) => "a whole number, 0 or more".to_owned(),
            (least, most) => format!("a whole number from {least} to {most}"),
        };
        let number = match &self.node.value {
            Value::Integer(number) => *number,
            Value::Word(word) => {
                word.trim().replace('_', "").parse().map_err(|_| Stop::new(format!("wanted: {wanted}")))?
            }
            _ => return Err(self.wrong(&wanted)),
        };
        N::try_from(number).map_err(|_| Stop::new(format!("out of range; wanted: {wanted}")))
    }
}

macro_rules! integers {
    ($($method:ident $visit:ident $type:ty;)+) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
            let number = self.integer::<$type>(<$type>::MIN.into(), <$type>::MAX.into());
            number.and_then(|number| visitor.$visit(number)).map_err(|stop| stop.at(&self.path, self.node.place.as_ref()))
        }
    )+};
}

impl<'de> Deserializer<'de> for At<'de, '_> {
    type Error = Stop;

    integers! {
        deserialize_u8 visit_u8 u8;
        deserialize_u16 visit_u16 u16;
        deserialize_u32 visit_u32 u32;
        deserialize_u64 visit_u64 u64;
        deserialize_i64 visit_i64 i64;
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        let read = match &self.node.value {
            Value::Text(text) | Value::Word(text) => visitor.visit_str(text),
            Value::Integer(number) => visitor.visit_i64(*number),
            Value::Boolean(value) => visitor.visit_bool(*value),
            Value::Table(_) => return self.deserialize_map(visitor),
            Value::Other(_) => Err(self.wrong("another form")),
        };
        read.map_err(|stop| stop.at(&self.path, self.node.place.as_ref()))
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        let read = match &self.node.value {
            Value::Boolean(value) => visitor.visit_bool(*value),
            Value::Word(word) if word == "true" => visitor.visit_bool(true),
            Value::Word(word) if word == "false" => visitor.visit_bool(false),
            _ => Err(self.wrong("true or false, without quotes")),
        };
        read.map_err(|stop| stop.at(&self.path, self.node.place.as_ref()))
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        let read = match &self.node.value {
            Value::Text(text) | Value::Word(text) => visitor.visit_str(text),
            _ => Err(self.wrong("a text in quotes")),
        };
        read.map_err(|stop| stop.at(&self.path, self.node.place.as_ref()))
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        self.deserialize_str(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Stop> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        words: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Stop> {
        let read = match &self.node.value {
            Value::Text(word) | Value::Word(word) => visitor.visit_enum(word.as_str().into_deserializer()),
            _ => Err(self.wrong(&format!("one of {}", words.join(", ")))),
        };
        read.map_err(|stop| stop.at(&self.path, self.node.place.as_ref()))
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        self.table(visitor, None)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Stop> {
        #[cfg(test)]
        self.reading.fields.borrow_mut().extend(fields.iter().map(|field| join(&self.path, field)));
        self.table(visitor, Some(fields))
    }

    serde::forward_to_deserialize_any! {
        i8 i16 i32 i128 u128 f32 f64 char bytes byte_buf unit unit_struct seq tuple tuple_struct identifier ignored_any
    }
}

impl<'de> At<'de, '_> {
    fn table<V: Visitor<'de>>(self, visitor: V, fields: Option<&'static [&'static str]>) -> Result<V::Value, Stop> {
        let read = match &self.node.value {
            Value::Table(entries) => visitor.visit_map(Table {
                entries: entries.iter(),
                current: None,
                fields,
                path: &self.path,
                reading: self.reading,
            }),
            _ => Err(self.wrong(&format!("a table, as in [{}]", self.path))),
        };
        read.map_err(|stop| stop.at(&self.path, self.node.place.as_ref()))
    }
}

/// The walk through a table.
struct Table<'de, 'r> {
    entries: btree_map::Iter<'de, String, Entry>,
    current: Option<(&'de str, &'de Entry)>,
    /// The names it may hold; none when they are the operator's choice.
    fields: Option<&'static [&'static str]>,
    path: &'r str,
    reading: &'r Reading,
}

impl<'de> MapAccess<'de> for Table<'de, '_> {
    type Error = Stop;

    fn next_key_seed<K: de::DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Stop> {
        for (name, entry) in self.entries.by_ref() {
            match self.fields {
                Some(fields) if !fields.contains(&name.as_str()) => {
                    self.reading.problems.borrow_mut().push(unknown(name, entry, fields, self.path));
                }
                _ => {
                    self.current = Some((name, entry));
                    return seed.deserialize(name.as_str().into_deserializer()).map(Some);
                }
            }
        }
        Ok(None)
    }

    fn next_value_seed<S: de::DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Stop> {
        let (name, entry) = self.current.take().ok_or_else(|| Stop::new("a value without a name".to_owned()))?;
        let path = join(self.path, name);
        let value = At { node: &entry.node, path: path.clone(), reading: self.reading };
        // Types that check a text themselves know neither its name nor its place.
        seed.deserialize(value).map_err(|stop| stop.at(&path, entry.node.place.as_ref()))
    }
}

fn unknown(name: &str, entry: &Entry, fields: &[&str], path: &str) -> Problem {
    let meant = match nearest(name, fields.iter().copied()) {
        Some(field) => Some(join(path, field)),
        // Perhaps the right name in the wrong table.
        None => catalogue::keys().into_iter().find(|key| key.rsplit('.').next() == Some(name)),
    };
    let meant = match (meant, &entry.key) {
        (Some(key), Place::Variable(whole)) => format!("did you mean {}?", environment::nearest_to(whole, &key)),
        (Some(key), Place::Line { .. }) => format!("did you mean `{key}`?"),
        (None, _) => format!("there are: {}", fields.join(", ")),
    };
    Problem {
        key: join(path, name),
        place: Some(entry.key.clone()),
        message: format!("there is no such setting; {meant}"),
    }
}
