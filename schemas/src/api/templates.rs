//! Templates: the content of a message before it is filled for a recipient.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::time::Moment;
use crate::ids::TemplateId;

/// Who an e-mail is from, or where replies go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Sender {
    /// The address: `local@domain`.
    pub address: String,
    /// Shown beside the address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// The content of a message: minijinja templates over the recipient's fields, which are plain text.
///
/// There are no includes, imports or blocks, and no filter but those that work on text, numbers and lists. Each part
/// may have 256 KiB of source; a message may come to 512 KiB for one recipient. A recipient's values are never read
/// as templates.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "channel", rename_all = "lowercase", deny_unknown_fields)]
pub enum Content {
    /// An e-mail; `html`, `text` or both. A part that is there must say something.
    Email {
        /// The sender. Fixed: never filled from a recipient's fields.
        from: Sender,
        /// Where replies go, when not to `from`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reply_to: Option<Sender>,
        /// One line, never empty; line breaks in values become spaces.
        subject: String,
        /// The page; values are escaped for HTML. They may stand in text and in quoted attributes. At the start of a
        /// link a value may bring no scheme but `http`, `https`, `mailto`, `tel`, `sms` or `cid`, in a `style` only a
        /// word, number or colour: a recipient whose value is more fails. In scripts, style sheets, tag and attribute
        /// names and unquoted attributes no value may stand.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        html: Option<String>,
        /// The plain text; values are not changed.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        text: Option<String>,
    },
    /// A text message.
    Sms {
        /// At most 11 letters and digits, or at most 15 digits.
        sender: String,
        /// The text, never empty; values are not changed.
        text: String,
    },
}

/// A template: content, and what stands in for fields a recipient lacks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TemplateSource {
    /// The content.
    #[serde(flatten)]
    pub content: Content,
    /// By variable: the value used for recipients who have none; an empty value is one. A variable with neither fails
    /// the recipient, unless the template asks first (`{% if x is defined %}`, `{{ x|default('…') }}`). One that none
    /// of a campaign's lists has is refused when the campaign is made or launched.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub defaults: BTreeMap<String, String>,
}

/// A template to be stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NewTemplate {
    /// A name for people, 1 to 200 characters, unique for the tenant.
    pub name: String,
    /// What it is.
    #[serde(flatten)]
    pub source: TemplateSource,
}

/// A stored template.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct StoredTemplate {
    /// Its id.
    pub id: TemplateId,
    /// Its name and what it is.
    #[serde(flatten)]
    pub template: NewTemplate,
    /// When it was stored.
    pub created_at: Moment,
}

/// A template just stored, with what its author should know before using it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CreatedTemplate {
    /// The template.
    #[serde(flatten)]
    pub stored: StoredTemplate,
    /// The variables it uses, by name.
    pub variables: Vec<String>,
    /// The variables among them that a recipient must have a value for: they have no default, and the template does
    /// not ask whether they are there.
    pub required: Vec<String>,
    /// What may not come out as meant, in sentences.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// What checking a template came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TemplateReport {
    /// Whether it can be stored and sent.
    pub valid: bool,
    /// What is wrong: the part, the line and what to do.
    pub errors: Vec<String>,
    /// What may not come out as meant.
    pub warnings: Vec<String>,
    /// The variables it uses, by name.
    pub variables: Vec<String>,
    /// The variables among them that a recipient must have a value for: they have no default, and the template does
    /// not ask whether they are there.
    pub required: Vec<String>,
    /// For a text message: what its fixed text alone costs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sms: Option<SmsCost>,
}

/// What a text costs as text messages.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SmsCost {
    /// How its characters are sent: `gsm7` or `ucs2`.
    pub encoding: String,
    /// How many messages it is cut into.
    pub segments: u32,
}

/// Values to fill a template with.
#[derive(Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PreviewRequest {
    /// By variable: its value; at most 100, 10,000 bytes together.
    #[serde(default)]
    pub variables: BTreeMap<String, String>,
}

impl std::fmt::Debug for PreviewRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PreviewRequest({} variables)", self.variables.len())
    }
}

/// A template filled in: the parts its channel has.
#[derive(Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct Preview {
    /// An e-mail's subject.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// An e-mail's page.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub html: Option<String>,
    /// An e-mail's plain text, or a text message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// What the text message costs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sms: Option<SmsCost>,
}

impl std::fmt::Debug for Preview {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Preview(***)")
    }
}
