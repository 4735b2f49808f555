//! What a command can end with other than done, and the exit code for it.

use std::{fmt::Write as _, io, process::ExitCode};

use dispatch_schemas::api::problems::ProblemDocument;

use crate::ledger::LedgerError;

/// Why a command did not do what it was asked. The text says what to do.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// Anything without a code of its own. Exit code 1.
    #[error("{0}")]
    Failed(String),
    /// The command line, a file it names or the settings are wrong. Exit code 2.
    #[error("{0}")]
    Usage(String),
    /// The engine refused. Exit code 3.
    #[error("{}", unpacked(.0))]
    Refused(ProblemDocument),
    /// The engine cannot be reached, or is not available now. Exit code 4.
    #[error("{0}")]
    Unavailable(String),
    /// Ledger and witness disagree. Exit code 5.
    #[error("{0}")]
    Disagreement(String),
    /// Done for some of what was given and not for the rest. Exit code 6.
    #[error("{0}")]
    InPart(String),
}

impl CliError {
    /// Something failed that has no code of its own.
    pub fn failed(message: impl Into<String>) -> Self {
        Self::Failed(message.into())
    }

    /// The command line is wrong.
    pub fn usage(message: impl Into<String>) -> Self {
        Self::Usage(message.into())
    }

    /// Ledger and witness disagree.
    pub fn disagree(message: impl Into<String>) -> Self {
        Self::Disagreement(message.into())
    }

    /// The same with a sentence after it: what was done all the same, or where to look.
    #[must_use]
    pub fn and(mut self, sentence: &str) -> Self {
        let text = match &mut self {
            Self::Refused(problem) => &mut problem.detail,
            Self::Failed(text)
            | Self::Usage(text)
            | Self::Unavailable(text)
            | Self::Disagreement(text)
            | Self::InPart(text) => text,
        };
        text.push_str("; ");
        text.push_str(sentence);
        self
    }

    /// The exit code of the process.
    #[must_use]
    pub fn exit_code(&self) -> ExitCode {
        ExitCode::from(match self {
            Self::Failed(_) => 1,
            Self::Usage(_) => 2,
            Self::Refused(_) => 3,
            Self::Unavailable(_) => 4,
            Self::Disagreement(_) => 5,
            Self::InPart(_) => 6,
        })
    }
}

/// A problem document as lines: what happened, then each wrong place.
fn unpacked(problem: &ProblemDocument) -> String {
    let mut text = format!("{} ({}, {})", problem.detail, problem.status, problem.kind);
    // The detail of a single wrong place names it already.
    if problem.errors.len() > 1 {
        for error in &problem.errors {
            // Writing to a string does not fail.
            let _ = write!(text, "\n  {}: {}", error.pointer, error.detail);
        }
    }
    text
}

impl From<io::Error> for CliError {
    fn from(error: io::Error) -> Self {
        Self::Failed(format!("the answer could not be written: {error}"))
    }
}

impl From<LedgerError> for CliError {
    fn from(error: LedgerError) -> Self {
        match error {
            LedgerError::Unavailable(_) | LedgerError::Contended | LedgerError::Disconnected => {
                Self::Unavailable(error.to_string())
            }
            error => Self::Failed(error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use dispatch_schemas::api::problems::FieldError;

    use super::*;

    #[test]
    fn a_refusal_lists_each_wrong_place() {
        let refused = CliError::Refused(ProblemDocument {
            kind: "/problems/validation-failed".to_owned(),
            title: "The request is not valid".to_owned(),
            status: 422,
            detail: "2 places are wrong; `errors` lists them".to_owned(),
            errors: vec![FieldError::new("/name", "it is missing"), FieldError::new("/lists/0", "no such list")],
        });
        assert_eq!(
            refused.to_string(),
            "2 places are wrong; `errors` lists them (422, /problems/validation-failed)\n  /name: it is missing\n  \
             /lists/0: no such list"
        );
    }
}
