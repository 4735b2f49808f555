//! What can be wrong with a template, and with a recipient's data for it.

use super::budget::{MAX_FUEL, MAX_OUTPUT_BYTES};

/// Why a template cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct TemplateError {
    /// The part, the line where there is one, what is wrong and what to do.
    pub message: String,
}

impl TemplateError {
    /// An error of a whole part or field.
    pub(super) fn in_part(part: &str, message: impl std::fmt::Display) -> Self {
        Self { message: format!("{part}: {message}") }
    }

    /// An error at a byte of a part's source.
    pub(super) fn at(part: &str, source: &str, offset: usize, message: impl std::fmt::Display) -> Self {
        Self { message: format!("{part}, line {}: {message}", line_of(source, offset)) }
    }
}

/// The line of a byte of a source, from 1.
pub(super) fn line_of(source: &str, offset: usize) -> usize {
    let before = source.as_bytes().get(..offset).unwrap_or(source.as_bytes());
    before.iter().filter(|byte| **byte == b'\n').count() + 1
}

/// Why a recipient's message cannot be rendered. Never holds a value of the recipient.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RenderError {
    /// A variable has neither a value nor a default.
    #[error("the variable `{name}` has no value and no default")]
    Missing {
        /// Its name.
        name: String,
    },
    /// A value that begins a link has a scheme that could run code (`javascript:`, `data:`, …), or a value inside a
    /// `style` attribute is more than a plain word, number or colour.
    #[error("a value is not safe where it stands, in a link or a style")]
    UnsafeValue,
    /// The message would be longer than [`MAX_OUTPUT_BYTES`].
    #[error("the message would be longer than {MAX_OUTPUT_BYTES} bytes")]
    TooLong,
    /// Rendering took more than [`MAX_FUEL`].
    #[error("the template takes too much work: more than {MAX_FUEL} units of fuel for one recipient")]
    TooMuchWork,
    /// An operation of the template failed on this recipient's values: its kind, never the value.
    #[error("the template could not be rendered: {0}")]
    Failed(String),
}
