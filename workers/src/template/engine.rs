//! minijinja, set up for contact data: strict, bounded, and with nothing in reach but a list of known names.

use std::{error::Error as _, sync::Arc};

use minijinja::{
    AutoEscape, Environment, Error, ErrorKind, Output, State, UndefinedBehavior,
    value::{Enumerator, Object, Value},
};

use super::{
    budget::{MAX_FUEL, MAX_RECURSION},
    error::{RenderError, TemplateError},
    escape::{Guard, html, percent_encoded},
};

/// Filters a template may use. Not there: `safe`, which would let data in unescaped; `attr`, `map`, `select` and
/// their kin, which reach attributes or other filters by name; `tojson`, `pprint`, which are for programs.
pub(super) const FILTERS: [&str; 37] = [
    "abs",
    "batch",
    "bool",
    "capitalize",
    "count",
    "d",
    "default",
    "e",
    "escape",
    "first",
    "float",
    "format",
    "indent",
    "int",
    "join",
    "last",
    "length",
    "lines",
    "list",
    "lower",
    "max",
    "min",
    "replace",
    "reverse",
    "round",
    "slice",
    "sort",
    "split",
    "string",
    "style",
    "sum",
    "title",
    "trim",
    "unique",
    "upper",
    "url",
    "urlencode",
];

/// Tests a template may use.
pub(super) const TESTS: [&str; 31] = [
    "boolean",
    "defined",
    "divisibleby",
    "endingwith",
    "eq",
    "equalto",
    "even",
    "false",
    "float",
    "ge",
    "greaterthan",
    "gt",
    "in",
    "int",
    "integer",
    "iterable",
    "le",
    "lessthan",
    "lower",
    "lt",
    "mapping",
    "ne",
    "none",
    "number",
    "odd",
    "sequence",
    "startingwith",
    "string",
    "true",
    "undefined",
    "upper",
];

/// The one global function: loops over numbers stay under fuel.
pub(super) const RANGE: &str = "range";

/// What `loop` knows inside a `for`.
pub(super) const LOOP_FIELDS: [&str; 11] =
    ["changed", "cycle", "depth", "depth0", "first", "index", "index0", "last", "length", "nextitem", "previtem"];

/// An environment that escapes for HTML what is in templates whose names begin with `html`, and nothing else.
pub(super) fn environment() -> Environment<'static> {
    let mut env = Environment::new();
    env.set_debug(false);
    env.set_undefined_behavior(UndefinedBehavior::Strict);
    env.set_fuel(Some(MAX_FUEL));
    env.set_recursion_limit(MAX_RECURSION);
    env.set_auto_escape_callback(|name| if name.starts_with("html") { AutoEscape::Html } else { AutoEscape::None });
    env.set_formatter(write_value);
    for name in ["debug", "dict", "namespace"] {
        env.remove_global(name);
    }
    env.remove_filter("safe");
    env.add_filter("escape", escape);
    env.add_filter("e", escape);
    env.add_filter("urlencode", |value: String| percent_encoded(&value));
    env.add_filter(Guard::Url.filter(), |value: Value| guarded(Guard::Url, value));
    env.add_filter(Guard::Style.filter(), |value: Value| guarded(Guard::Style, value));
    env
}

/// A name in place of an unknown one, when one is near.
pub(super) fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    const NEAR: f64 = 0.8;
    known
        .into_iter()
        .map(|candidate| (strsim::jaro_winkler(name, candidate), candidate))
        .filter(|(likeness, _)| *likeness >= NEAR)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| candidate)
}

/// What a source that cannot be parsed is answered.
pub(super) fn syntax_error(part: &str, source: &str, error: &Error) -> TemplateError {
    let what = error.detail().map_or_else(|| error.kind().to_string(), str::to_owned);
    TemplateError::at(part, source, error.range().map_or(0, |range| range.start), what)
}

/// What a failed rendering is called. `absent` is the first variable of the template that has no value.
pub(super) fn render_error(error: &Error, absent: Option<&str>) -> RenderError {
    if error.kind() == ErrorKind::OutOfFuel {
        return RenderError::TooMuchWork;
    }
    let mut cause = error.source();
    while let Some(inner) = cause {
        if inner.is::<Unsafe>() {
            return RenderError::UnsafeValue;
        }
        cause = inner.source();
    }
    match absent {
        // Operations on a value that is not there fail in several ways; all of them mean this.
        Some(name) => RenderError::Missing { name: name.to_owned() },
        // Only the kind: minijinja's details quote values.
        None => RenderError::Failed(error.kind().to_string()),
    }
}

/// The variables of a template as minijinja looks them up. A variable without a value is undefined.
#[derive(Debug)]
pub(super) struct Root {
    /// Sorted.
    pub(super) names: Arc<Vec<String>>,
    /// One for each name.
    pub(super) values: Vec<Value>,
}

impl Object for Root {
    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        let name = key.as_str()?;
        let at = self.names.binary_search_by(|known| known.as_str().cmp(name)).ok()?;
        self.values.get(at).filter(|value| !value.is_undefined()).cloned()
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::NonEnumerable
    }
}

fn write_value(out: &mut Output, state: &mut State, value: &Value) -> Result<(), Error> {
    if !matches!(state.auto_escape(), AutoEscape::Html) || value.is_safe() {
        return out.write_fmt(format_args!("{value}")).map_err(Error::from);
    }
    let mut outcome = Ok(());
    let mut write = |text: &str| html(text, |piece| outcome = outcome.and_then(|()| out.write_str(piece)));
    match value.as_str() {
        Some(text) => write(text),
        None => write(&value.to_string()),
    }
    outcome.map_err(Error::from)
}

fn escape(value: Value) -> Value {
    // An undefined value stays one, so that writing it fails.
    if value.is_safe() || value.is_undefined() {
        return value;
    }
    let mut escaped = String::new();
    html(&value.to_string(), |piece| escaped.push_str(piece));
    Value::from_safe_string(escaped)
}

fn guarded(guard: Guard, value: Value) -> Result<Value, Error> {
    let admitted = match value.as_str() {
        Some(text) => guard.admits(text),
        None => value.is_undefined() || guard.admits(&value.to_string()),
    };
    if admitted {
        return Ok(value);
    }
    Err(Error::new(ErrorKind::InvalidOperation, "a value is not safe where it stands").with_source(Unsafe))
}

/// Marks the error of a guard.
#[derive(Debug, thiserror::Error)]
#[error("not safe where it stands")]
struct Unsafe;
