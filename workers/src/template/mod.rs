//! Templates.

use dispatch_schemas::api::templates::TemplateSource;

use crate::message::{Message, Slots};

/// The values a recipient's slots are filled from: a flat set of named strings. Personal data.
#[derive(Clone, Default)]
pub struct Data(());

/// The data is not a JSON object of strings.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the data is not a JSON object whose values are strings")]
pub struct DataError;

impl Data {
    /// Adds the members of a JSON object of strings; a later value of a name replaces an earlier one.
    ///
    /// # Errors
    /// When `json` is not a JSON object of strings.
    pub fn add_json(&mut self, json: &[u8]) -> Result<(), DataError> {
        let _ = json;
        Err(DataError)
    }
}

/// Why a template cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct TemplateError {
    /// What is wrong.
    pub message: String,
}

/// Why a recipient's slots cannot be filled. Never holds a value of the recipient.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RenderError {
    /// A variable has neither a value nor a default.
    #[error("the variable `{name}` has no value and no default")]
    Missing {
        /// Its name.
        name: String,
    },
    /// Another fault, or a budget passed.
    #[error("the template could not be rendered: {0}")]
    Failed(String),
}

/// The part of a compiled template that fills slots.
#[derive(Debug)]
pub struct Template(());

impl Template {
    /// Compiles a source into the fixed part of its message and the filler of its slots.
    ///
    /// # Errors
    /// When a part does not parse, is too large, names something a recipient cannot have, or may not stand where it
    /// does.
    pub fn compile(source: &TemplateSource) -> Result<(Message, Self), TemplateError> {
        let _ = source;
        Err(TemplateError { message: String::new() })
    }

    /// Fills the slots for one recipient.
    ///
    /// # Errors
    /// When a variable is missing or a budget is passed.
    pub fn render(&self, data: &Data) -> Result<Slots, RenderError> {
        let _ = data;
        Err(RenderError::Failed(String::new()))
    }
}
