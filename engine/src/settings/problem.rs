//! What is wrong with the settings, said so that it can be mended.

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
};

/// Where a setting was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// In a file.
    Line {
        /// The file.
        file: Arc<Path>,
        /// Its line, from 1.
        line: usize,
        /// The column, from 1, in bytes.
        column: usize,
    },
    /// In an environment variable of this name.
    Variable(String),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Line { file, line, column } => write!(f, "{}, line {line}, column {column}", file.display()),
            Self::Variable(name) => write!(f, "environment variable {name}"),
        }
    }
}

/// One thing that is wrong. Never quotes a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The setting's full name, such as `ledger.url`.
    pub key: String,
    /// Where it was written; none when it was not.
    pub place: Option<Place>,
    /// What is wrong and what is wanted.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Some(place) => write!(f, "`{}` ({place}): {}", self.key, self.message),
            None => write!(f, "`{}`: {}", self.key, self.message),
        }
    }
}

/// Why the settings cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// The file cannot be read.
    #[error("the settings file {} cannot be read: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is not TOML.
    #[error("the settings cannot be read as TOML ({place}): {message}")]
    Syntax {
        /// Where it stops being TOML.
        place: Place,
        /// What is wrong there.
        message: String,
    },
    /// Settings that are unknown, of the wrong kind or out of range; all that could be found, at least one.
    #[error("{}", listed(.0))]
    Problems(Vec<Problem>),
}

fn listed(problems: &[Problem]) -> String {
    match problems {
        [problem] => format!("a setting is wrong: {problem}"),
        problems => {
            let lines: String = problems.iter().map(|problem| format!("\n  {problem}")).collect();
            format!("{} settings are wrong:{lines}", problems.len())
        }
    }
}

/// The one of `known` that is most like `word`, if any is like it at all.
pub(super) fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // A typing error or two in a short word, one in four letters of a long one.
    let changes_max = (word.chars().count() / 4).max(2);
    known
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(word, candidate), candidate))
        .filter(|(changes, candidate)| *changes <= changes_max && *changes < candidate.chars().count())
        .min_by_key(|(changes, _)| *changes)
        .map(|(_, candidate)| candidate)
}
