//! What a body must look like: which members, of which kind, within which bounds.
//!
//! A shape is checked before the body is read into its type, so that all that is wrong is said at once, each with its
//! place, and unknown members are refused in types that serde could not refuse them in. No error repeats a value.

use dispatch_schemas::api::problems::FieldError;
use serde_json::{Map, Value};

use super::strict_json::{escaped, is_plain_name};

/// Errors past this many are not listed: who fixes a hundred sends the body again anyway.
pub const ERRORS_MAX: usize = 100;

/// What a value must be.
#[derive(Debug, Clone, Copy)]
pub enum Shape {
    /// A string of at most this many bytes; what is in it is checked later.
    Text(usize),
    /// A name for people: 1 to this many characters, no control characters, not blank.
    Name(usize),
    /// A string that a parser takes. The parser says what is wanted and repeats nothing.
    Parsed(fn(&str) -> Result<(), String>),
    /// One of these words.
    Word(&'static [&'static str]),
    /// A whole number from 0 to this.
    Whole(u64),
    /// A list of `least` to `most` such values.
    List {
        /// Of what.
        of: &'static Shape,
        /// How many at least.
        least: usize,
        /// How many at most.
        most: usize,
    },
    /// An object of strings under names of the client's own.
    Texts {
        /// How many members at most.
        most: usize,
        /// Bytes of all names and values together, at most.
        bytes_max: usize,
    },
    /// An object.
    Object(&'static [Member]),
    /// An object that has exactly one of the named members.
    Either(&'static [Member], &'static [&'static str]),
    /// An object whose members depend on a word in one of them.
    Tagged(&'static str, &'static [(&'static str, &'static [Member])]),
}

/// A member of an object.
#[derive(Debug, Clone, Copy)]
pub struct Member {
    name: &'static str,
    need: Need,
    shape: &'static Shape,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Need {
    Required,
    Optional,
}

impl Member {
    /// A member that must be there.
    #[must_use]
    pub const fn required(name: &'static str, shape: &'static Shape) -> Self {
        Self { name, need: Need::Required, shape }
    }

    /// A member that may be left out or null.
    #[must_use]
    pub const fn optional(name: &'static str, shape: &'static Shape) -> Self {
        Self { name, need: Need::Optional, shape }
    }

    /// The shape of this member, if it has that name.
    #[cfg(test)]
    pub(super) fn shape_of(&self, name: &str) -> Option<&'static Shape> {
        (self.name == name).then_some(self.shape)
    }
}

/// All that is wrong with a value, at most [`ERRORS_MAX`] places.
#[must_use]
pub fn check(shape: &Shape, value: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    visit(shape, value, "", &mut errors);
    errors.truncate(ERRORS_MAX);
    errors
}

fn visit(shape: &Shape, value: &Value, at: &str, errors: &mut Vec<FieldError>) {
    if errors.len() >= ERRORS_MAX {
        return;
    }
    let mut wrong = |detail: String| errors.push(FieldError::new(at, detail));
    match (shape, value) {
        (Shape::Text(most), Value::String(text)) => {
            if text.len() > *most {
                wrong(format!("it is {} bytes long; at most {most} are taken", text.len()));
            }
        }
        (Shape::Name(most), Value::String(text)) => {
            if let Err(detail) = check_name(text, *most) {
                wrong(detail);
            }
        }
        (Shape::Parsed(parse), Value::String(text)) => {
            if let Err(detail) = parse(text) {
                wrong(detail);
            }
        }
        (Shape::Word(words), Value::String(text)) => {
            if !words.contains(&text.as_str()) {
                wrong(format!("one of these words is wanted: {}", words.join(", ")));
            }
        }
        (Shape::Whole(most), Value::Number(number)) => match number.as_u64() {
            Some(number) if number <= *most => {}
            _ => wrong(format!("a whole number from 0 to {most} is wanted")),
        },
        (Shape::List { of, least, most }, Value::Array(items)) => {
            if items.len() < *least || items.len() > *most {
                wrong(format!("{least} to {most} entries are wanted, and there are {}", items.len()));
            } else {
                for (index, item) in items.iter().enumerate() {
                    visit(of, item, &format!("{at}/{index}"), errors);
                }
            }
        }
        (Shape::Texts { most, bytes_max }, Value::Object(object)) => {
            visit_texts(object, *most, *bytes_max, at, errors);
        }
        (Shape::Object(members), Value::Object(object)) => visit_members(members, object, at, errors),
        (Shape::Either(members, names), Value::Object(object)) => {
            visit_members(members, object, at, errors);
            let given = names.iter().filter(|name| object.get(**name).is_some_and(|value| !value.is_null())).count();
            if given != 1 {
                errors.push(FieldError::new(at, format!("exactly one of `{}` is wanted", names.join("` and `"))));
            }
        }
        (Shape::Tagged(tag, cases), Value::Object(object)) => {
            let case = object.get(*tag).and_then(Value::as_str);
            if let Some((_, members)) = cases.iter().find(|(word, _)| Some(*word) == case) {
                visit_members(members, object, at, errors);
            } else {
                let words: Vec<&str> = cases.iter().map(|(word, _)| *word).collect();
                let detail = format!("one of these words is wanted: {}", words.join(", "));
                errors.push(FieldError::new(format!("{at}/{tag}"), detail));
            }
        }
        (shape, _) => wrong(format!("{} is wanted here", shape.noun())),
    }
}

impl Shape {
    const fn noun(&self) -> &'static str {
        match self {
            Self::Text(_) | Self::Name(_) | Self::Parsed(_) | Self::Word(_) => "a string",
            Self::Whole(_) => "a whole number",
            Self::List { .. } => "a list",
            Self::Texts { .. } => "an object whose values are strings",
            Self::Object(_) | Self::Either(..) | Self::Tagged(..) => "an object",
        }
    }
}

/// A name for people: not blank, on one line, at most so many characters.
fn check_name(text: &str, most: usize) -> Result<(), String> {
    if text.trim().is_empty() {
        return Err("it is empty; give it a name".to_owned());
    }
    if text.chars().count() > most {
        return Err(format!("it is longer than {most} characters"));
    }
    if text.chars().any(char::is_control) {
        return Err("it has a line break or another control character in it".to_owned());
    }
    Ok(())
}

fn visit_texts(object: &Map<String, Value>, most: usize, bytes_max: usize, at: &str, errors: &mut Vec<FieldError>) {
    let mut bytes = 0;
    for (name, value) in object {
        match value {
            Value::String(text) => bytes += name.len() + text.len(),
            _ => errors.push(FieldError::new(place(at, name), "a string is wanted here")),
        }
    }
    if object.len() > most {
        errors.push(FieldError::new(at, format!("it has {} members; at most {most} are taken", object.len())));
    }
    if bytes > bytes_max {
        errors.push(FieldError::new(at, format!("it holds {bytes} bytes; at most {bytes_max} are taken")));
    }
}

fn visit_members(members: &[Member], object: &Map<String, Value>, at: &str, errors: &mut Vec<FieldError>) {
    for name in object.keys() {
        if !members.iter().any(|member| member.name == name) {
            errors.push(FieldError::new(place(at, name), unknown(name, members.iter().map(|member| member.name))));
        }
    }
    for member in members {
        match object.get(member.name) {
            None | Some(Value::Null) if member.need == Need::Optional => {}
            None => errors.push(FieldError::new(format!("{at}/{}", member.name), "it is missing")),
            Some(value) => visit(member.shape, value, &format!("{at}/{}", member.name), errors),
        }
    }
}

/// What to say to a name that is not known: the nearest one, or all.
pub(super) fn unknown(name: &str, known: impl Iterator<Item = &'static str>) -> String {
    const DISTANCE_MAX: usize = 3;
    let known: Vec<&str> = known.collect();
    let nearest = known
        .iter()
        .map(|candidate| (strsim::damerau_levenshtein(candidate, name), candidate))
        .filter(|(distance, candidate)| *distance <= DISTANCE_MAX.min(candidate.len() / 2))
        .min();
    match nearest {
        Some((_, nearest)) => format!("this name is not known; did you mean `{nearest}`?"),
        None if known.is_empty() => "nothing is taken here".to_owned(),
        None => format!("this name is not known; known are: {}", known.join(", ")),
    }
}

fn place(at: &str, name: &str) -> String {
    if is_plain_name(name) { format!("{at}/{}", escaped(name)) } else { format!("{at}/…") }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const SHAPE: Shape = Shape::Either(
        &[
            Member::required("name", &Shape::Name(5)),
            Member::optional("rate", &Shape::Whole(100)),
            Member::optional("left", &Shape::Text(5)),
            Member::optional("right", &Shape::List { of: &Shape::Word(&["a", "b"]), least: 1, most: 2 }),
        ],
        &["left", "right"],
    );

    fn said(value: &Value) -> Vec<(String, String)> {
        check(&SHAPE, value).into_iter().map(|error| (error.pointer, error.detail)).collect()
    }

    fn pointers(value: &Value) -> Vec<String> {
        said(value).into_iter().map(|(pointer, _)| pointer).collect()
    }

    #[test]
    fn a_good_body_has_no_errors() {
        assert_eq!(said(&json!({"name": "x", "rate": null, "right": ["a", "b"]})), []);
    }

    #[test]
    fn all_that_is_wrong_is_said_at_once_with_its_place() {
        let body = json!({"nam": "x", "rate": 101, "right": ["a", "c"], "left": 7});
        assert_eq!(pointers(&body), ["/nam", "/name", "/rate", "/left", "/right/1", ""]);
        assert!(said(&body)[0].1.contains("did you mean `name`?"));
    }

    #[test]
    fn numbers_are_whole_and_in_range() {
        for rate in [json!(-1), json!(1.5), json!(-0.0), json!(u64::MAX), json!(1e300), json!("7"), json!(true)] {
            assert_eq!(pointers(&json!({"name": "x", "left": "", "rate": rate})), ["/rate"], "{rate}");
        }
    }

    #[test]
    fn a_name_is_not_blank_not_long_and_on_one_line() {
        for name in ["", "   ", "123456", "a\nb", "a\u{0}"] {
            assert_eq!(pointers(&json!({"name": name, "left": ""})), ["/name"], "{name:?}");
        }
    }

    #[test]
    fn nothing_of_the_body_that_could_be_an_address_is_repeated() {
        let body =
            json!({"anna@example.org": 1, "33612345678": 2, "name": ["anna@example.org"], "left": "anna@example.org"});
        let said = format!("{:?}", said(&body));
        assert!(!said.contains("anna") && !said.contains("336"), "{said}");
    }

    #[test]
    fn errors_are_listed_up_to_a_limit() {
        let many: Map<String, Value> = (0..500).map(|n| (format!("x{n}"), json!(1))).collect();
        assert_eq!(check(&SHAPE, &Value::Object(many)).len(), ERRORS_MAX);
    }
}
