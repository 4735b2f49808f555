//! The settings as written: a tree of values, each with its place.

use std::{collections::BTreeMap, ops::Range, path::Path, sync::Arc};

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{
    problem::{Place, Problem, SettingsError},
    queue_url::QueueUrl,
};

/// A settings file larger than this is some other file.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// A value and where it stands. No `Debug`: it may hold a secret.
pub(super) struct Node {
    pub(super) value: Value,
    /// None for the root of settings that no file holds.
    pub(super) place: Option<Place>,
}

/// What was written.
pub(super) enum Value {
    /// A text in quotes.
    Text(String),
    /// A variable's value: read as whatever is wanted in its place.
    Word(String),
    /// A whole number.
    Integer(i64),
    /// `true` or `false`.
    Boolean(bool),
    /// A form no setting has; what it is called.
    Other(&'static str),
    /// Settings by name.
    Table(BTreeMap<String, Entry>),
}

/// A named value of a table.
pub(super) struct Entry {
    /// Where the name stands.
    pub(super) key: Place,
    pub(super) node: Node,
}

impl Value {
    /// What this is called in a message.
    pub(super) const fn called(&self) -> &'static str {
        match self {
            Self::Text(_) | Self::Word(_) => "a text",
            Self::Integer(_) => "a whole number",
            Self::Boolean(_) => "true or false",
            Self::Other(called) => called,
            Self::Table(_) => "a table",
        }
    }
}

/// All that was written.
pub(super) struct Document {
    pub(super) root: Node,
}

impl Default for Document {
    fn default() -> Self {
        Self { root: Node { value: Value::Table(BTreeMap::new()), place: None } }
    }
}

impl Document {
    /// Reads a settings file.
    pub(super) fn read(path: &Path) -> Result<Self, SettingsError> {
        let read = |source| SettingsError::Read { path: path.to_owned(), source };
        let bytes = std::fs::metadata(path).map_err(read)?.len();
        if bytes > FILE_BYTES_MAX {
            let message = format!("it has {bytes} bytes, and settings have at most {FILE_BYTES_MAX}");
            return Err(read(std::io::Error::new(std::io::ErrorKind::FileTooLarge, message)));
        }
        let text = std::fs::read_to_string(path).map_err(read)?;
        Self::parse(&text, path)
    }

    /// Parses the text of a settings file; `path` is for messages.
    pub(super) fn parse(text: &str, path: &Path) -> Result<Self, SettingsError> {
        let lines = Lines { file: path.into(), text };
        let table = DeTable::parse(text).map_err(|error| SettingsError::Syntax {
            place: lines.place(&error.span().unwrap_or(0..0)),
            message: error.message().to_owned(),
        })?;
        let place = Some(lines.place(&(0..0)));
        Ok(Self { root: Node { value: lines.table(table.get_ref()), place } })
    }

    /// Where a setting was written, by its parts; the nearest table around it when itself was not.
    pub(super) fn place(&self, path: &[&str]) -> Option<Place> {
        let mut node = &self.root;
        for part in path {
            match &node.value {
                Value::Table(entries) => match entries.get(*part) {
                    Some(entry) => node = &entry.node,
                    None => break,
                },
                _ => break,
            }
        }
        node.place.clone()
    }

    /// Keys written into the file itself, where everyone who may read the settings can read them.
    pub(super) fn secrets_in_file(&self) -> Vec<Problem> {
        let Value::Table(root) = &self.root.value else { return Vec::new() };
        let table = |name: &str| match root.get(name).map(|entry| &entry.node.value) {
            Some(Value::Table(entries)) => Some(entries),
            _ => None,
        };
        let mut found: Vec<Problem> = table("providers")
            .into_iter()
            .flatten()
            .filter_map(|(name, entry)| match &entry.node.value {
                Value::Table(account) => account.get("key").map(|key| Problem {
                    key: format!("providers.{name}.key"),
                    place: Some(key.key.clone()),
                    message: format!(
                        "a key does not belong in the settings file; put it in a file of mode 0600 and name that in \
                         `key_file`, or set the environment variable DISPATCH_PROVIDERS__{}__KEY",
                        name.to_ascii_uppercase()
                    ),
                }),
                _ => None,
            })
            .collect();
        let queue = table("queue");
        let with_password = |entry: &&Entry| match &entry.node.value {
            Value::Text(url) => url.parse::<QueueUrl>().is_ok_and(|url| url.password().is_some()),
            _ => false,
        };
        let password = queue.and_then(|queue| queue.get("password")).map(|entry| ("queue.password", entry));
        let url = queue.and_then(|queue| queue.get("url")).filter(with_password).map(|entry| ("queue.url", entry));
        found.extend(password.into_iter().chain(url).map(|(key, entry)| {
            Problem {
                key: key.to_owned(),
                place: Some(entry.key.clone()),
                message:
                    "a password does not belong in the settings file; put it in a file of mode 0600 and name that in \
                      `queue.password_file`, or set the environment variable DISPATCH_QUEUE__PASSWORD"
                        .to_owned(),
            }
        }));
        found
    }

    /// The full names of all settings written, sorted.
    pub(super) fn keys(&self) -> Vec<String> {
        let mut keys = Vec::new();
        collect_keys(&self.root, "", &mut keys);
        keys
    }
}

fn collect_keys(node: &Node, path: &str, keys: &mut Vec<String>) {
    match &node.value {
        Value::Table(entries) => {
            for (name, entry) in entries {
                collect_keys(&entry.node, &join(path, name), keys);
            }
        }
        _ => keys.push(path.to_owned()),
    }
}

/// The name of a setting inside the table `path`.
pub(super) fn join(path: &str, name: &str) -> String {
    match (path, name.contains('.')) {
        ("", false) => name.to_owned(),
        (path, true) => format!("{path}.\"{name}\""),
        (path, false) => format!("{path}.{name}"),
    }
}

struct Lines<'a> {
    file: Arc<Path>,
    text: &'a str,
}

impl Lines<'_> {
    fn place(&self, span: &Range<usize>) -> Place {
        let before = self.text.as_bytes().get(..span.start).unwrap_or(self.text.as_bytes());
        let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
        let column = before.iter().rev().take_while(|byte| **byte != b'\n').count() + 1;
        Place::Line { file: self.file.clone(), line, column }
    }

    fn table(&self, table: &DeTable<'_>) -> Value {
        let entry = |(key, value): (&Spanned<_>, &Spanned<DeValue<'_>>)| {
            let key: &Spanned<std::borrow::Cow<'_, str>> = key;
            let node = Node { value: self.value(value.get_ref()), place: Some(self.place(&value.span())) };
            (key.get_ref().to_string(), Entry { key: self.place(&key.span()), node })
        };
        Value::Table(table.iter().map(entry).collect())
    }

    fn value(&self, value: &DeValue<'_>) -> Value {
        match value {
            DeValue::String(text) => Value::Text(text.to_string()),
            DeValue::Integer(number) => match i64::from_str_radix(number.as_str(), number.radix()) {
                Ok(number) => Value::Integer(number),
                Err(_) => Value::Other("a number beyond 64 bits"),
            },
            DeValue::Boolean(value) => Value::Boolean(*value),
            DeValue::Float(_) => Value::Other("a number with a fraction"),
            DeValue::Datetime(_) => Value::Other("a date or time"),
            DeValue::Array(_) => Value::Other("a list"),
            DeValue::Table(table) => self.table(table),
        }
    }
}
