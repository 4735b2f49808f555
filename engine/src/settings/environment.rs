//! Environment variables over the settings of the file.

use std::collections::BTreeMap;

use super::{
    catalogue,
    document::{Document, Entry, Node, Value},
    problem::{Place, Problem, nearest},
};

const PREFIX: &str = "DISPATCH_";

/// Between the parts of a setting's name.
const SEPARATOR: &str = "__";

/// The short name of the variable for `logging.filter`.
const LOG_VARIABLE: &str = "DISPATCH_LOG";

/// What the variables came to.
pub(super) struct Overrides {
    /// The names of those that were taken as settings.
    pub(super) used: Vec<String>,
    /// Those that look like settings and are none.
    pub(super) problems: Vec<Problem>,
}

/// Writes the variables into the document.
///
/// A name without `__` may be someone else's (Kubernetes sets `DISPATCH_PORT` for a service called `dispatch`), so it
/// is a problem only when it is a setting's name but for the underscores or a letter.
pub(super) fn overlay(document: &mut Document, env: impl Iterator<Item = (String, String)>) -> Overrides {
    let mut overrides = Overrides { used: Vec::new(), problems: Vec::new() };
    let mut variables: Vec<_> = env.filter(|(name, value)| name.starts_with(PREFIX) && !value.is_empty()).collect();
    variables.sort_unstable();
    // Last, so that the short name wins over the long one.
    variables.sort_by_key(|(name, _)| name == LOG_VARIABLE);
    for (name, value) in variables {
        let rest = name.strip_prefix(PREFIX).unwrap_or_default().to_ascii_lowercase();
        let path: Vec<&str> = match name.as_str() {
            LOG_VARIABLE => vec!["logging", "filter"],
            _ => rest.split(SEPARATOR).collect(),
        };
        // Variables are in capitals and settings in small letters, all but the names of countries.
        let country;
        let path: Vec<&str> = match path.as_slice() {
            ["limits", "countries", letters, rest @ ..] => {
                country = letters.to_ascii_uppercase();
                ["limits", "countries", &country].into_iter().chain(rest.iter().copied()).collect()
            }
            _ => path,
        };
        match path.as_slice() {
            [_] => overrides.problems.extend(misspelt(&name)),
            path if path.iter().any(|part| part.is_empty()) => overrides.problems.push(no_setting(&name)),
            path => {
                set(&mut document.root, path, value, &Place::Variable(name.clone()));
                overrides.used.push(name);
            }
        }
    }
    overrides
}

/// The variable of a setting, by its full name.
pub(super) fn variable(key: &str) -> String {
    format!("{PREFIX}{}", key.to_ascii_uppercase().replace('.', SEPARATOR))
}

/// The variable that was meant by one whose first parts are those of `key` but for a typing error: with those parts
/// mended and, where that is no setting yet, the nearest one there is.
pub(super) fn nearest_to(name: &str, key: &str) -> String {
    let mended = variable(key);
    let rest = name.split(SEPARATOR).skip(mended.split(SEPARATOR).count());
    let mended = rest.fold(mended, |mended, part| mended + SEPARATOR + part);
    let known: Vec<String> =
        catalogue::keys().iter().filter(|key| !key.contains('*')).map(|key| variable(key)).collect();
    let same_table = |candidate: &&String| candidate.split(SEPARATOR).next() == mended.split(SEPARATOR).next();
    let known = known.iter().filter(same_table).map(String::as_str);
    nearest(&mended, known).map_or_else(|| mended.clone(), str::to_owned)
}

fn set(node: &mut Node, path: &[&str], value: String, place: &Place) {
    let [first, rest @ ..] = path else {
        *node = Node { value: Value::Word(value), place: Some(place.clone()) };
        return;
    };
    if !matches!(node.value, Value::Table(_)) {
        node.value = Value::Table(BTreeMap::new());
    }
    if let Value::Table(entries) = &mut node.value {
        let entry = entries.entry((*first).to_owned()).or_insert_with(|| Entry {
            key: place.clone(),
            node: Node { value: Value::Table(BTreeMap::new()), place: Some(place.clone()) },
        });
        set(&mut entry.node, rest, value, place);
    }
}

fn misspelt(name: &str) -> Option<Problem> {
    let squeezed = |name: &str| name.replace('_', "");
    let meant = catalogue::keys()
        .into_iter()
        .filter(|key| !key.contains('*'))
        .map(|key| variable(&key))
        .find(|known| strsim::damerau_levenshtein(&squeezed(known), &squeezed(name)) <= 1)?;
    let message = format!("there is no such setting; did you mean {meant}, with two underscores between the parts?");
    Some(Problem { key: name.to_owned(), place: Some(Place::Variable(name.to_owned())), message })
}

fn no_setting(name: &str) -> Problem {
    Problem {
        key: name.to_owned(),
        place: Some(Place::Variable(name.to_owned())),
        message: "there is no such setting; a name is DISPATCH_ and the setting's parts with two underscores between \
                  them, as in DISPATCH_LEDGER__URL"
            .to_owned(),
    }
}
