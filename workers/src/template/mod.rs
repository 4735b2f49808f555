//! Templates: what is the same for everybody, apart from what each recipient fills in.
//!
//! [`Template::compile`] checks a source and cuts it once per campaign into a [`Message`] of fixed text with numbered
//! slots and a [`Template`] that fills them. A recipient then costs its slots, not the page: a slot that is a plain
//! variable is looked up, escaped and pushed; only what computes something runs minijinja. Splicing the slots into
//! the message yields, byte for byte, what minijinja makes of the whole part ([`Template::render_whole`]).
//!
//! Authors are checked before anything is sent (syntax, names, places in the page, sizes), recipients' data is never
//! read as a template, and both are held to the budgets in [`budget`].

pub mod budget;
mod cut;
mod data;
mod engine;
mod error;
mod escape;
mod fixed;
mod html;
mod names;
mod nesting;
mod places;
mod range;
mod vouched;

use std::{fmt, sync::Arc};

use dispatch_schemas::api::templates::{Content, TemplateSource};
use minijinja::{Environment, value::Value};

use self::{
    budget::{MAX_FUEL, MAX_OUTPUT_BYTES},
    cut::{Cutter, Filler, WholePart},
    engine::{Root, environment, render_error},
    escape::Escape,
};
pub use self::{
    data::{Data, DataError},
    error::{RenderError, TemplateError},
};
use crate::message::{Body, Message, Piece, Skeleton, Slots};

/// The part of a compiled template that fills slots.
pub struct Template {
    env: Environment<'static>,
    /// By slot number.
    fillers: Vec<Filler>,
    /// By slot number: how often it stands in the message.
    places: Vec<usize>,
    fixed_bytes: usize,
    /// Sorted.
    variables: Arc<Vec<String>>,
    /// One for each variable.
    defaults: Vec<Option<Box<str>>>,
    parts: Vec<WholePart>,
    /// By variable.
    needs: Vec<Need>,
}

/// A variable that a recipient must have a value for: the template has no default for it, and uses it without asking
/// whether it is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Need {
    /// Its name.
    pub variable: String,
    /// The part that first uses it: `subject`, `html` or `text`.
    pub part: &'static str,
    /// The line of that part, from 1.
    pub line: usize,
}

/// A message rendered whole for one recipient. Personal data: has no readable `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub enum Rendered {
    /// An e-mail.
    Email {
        /// One line.
        subject: String,
        /// The page.
        html: Option<String>,
        /// The plain text.
        text: Option<String>,
    },
    /// A text message.
    Sms {
        /// The text.
        text: String,
    },
}

impl Template {
    /// Compiles a source into the fixed part of its message and the filler of its slots.
    ///
    /// # Errors
    /// When a part does not parse, is empty or too large, names something a recipient cannot have, or has a value where
    /// it may not stand; when a sender is not an address, or not fixed. The message names the part and the line.
    pub fn compile(source: &TemplateSource) -> Result<(Message, Self), TemplateError> {
        let mut cutter = Cutter::new(environment());
        let body = match &source.content {
            Content::Email { from, reply_to, subject, html, text } => {
                if html.is_none() && text.is_none() {
                    return Err(TemplateError { message: "the e-mail has neither `html` nor `text`".to_owned() });
                }
                Body::Email {
                    from: fixed::mailbox("from", from)?,
                    reply_to: reply_to.as_ref().map(|sender| fixed::mailbox("reply_to", sender)).transpose()?,
                    subject: filled(Part::Subject, cutter.cut(Part::Subject, subject)?, "an e-mail needs a subject")?,
                    html: html
                        .as_ref()
                        .map(|html| filled(Part::Html, cutter.cut(Part::Html, html)?, OR_LEAVE_OUT))
                        .transpose()?,
                    text: text
                        .as_ref()
                        .map(|text| filled(Part::Text, cutter.cut(Part::Text, text)?, OR_LEAVE_OUT))
                        .transpose()?,
                }
            }
            Content::Sms { sender, text } => Body::Sms {
                sender: fixed::sms_sender(sender)?,
                text: filled(Part::Text, cutter.cut(Part::Text, text)?, "a text message needs a text")?,
            },
        };
        Ok((Message { body }, Self::of(cutter, source)))
    }

    fn of(cutter: Cutter, source: &TemplateSource) -> Self {
        let Cutter { env, mut fillers, places, fixed_bytes, variables, mut parts, mut needs, .. } = cutter;
        let mut sorted: Vec<(String, usize)> = variables.into_iter().zip(0..).collect();
        sorted.sort_unstable();
        let mut new_numbers = vec![0; sorted.len()];
        for (new, (_, old)) in sorted.iter().enumerate() {
            new_numbers[*old] = new;
        }
        for filler in &mut fillers {
            match filler {
                Filler::Variable { variable, .. } => *variable = new_numbers[*variable],
                Filler::Template { variables, .. } => variables.iter_mut().for_each(|old| *old = new_numbers[*old]),
            }
        }
        for part in &mut parts {
            part.variables.iter_mut().for_each(|old| *old = new_numbers[*old]);
        }
        let variables: Vec<String> = sorted.into_iter().map(|(name, _)| name).collect();
        let defaults =
            variables.iter().map(|name| source.defaults.get(name).map(|text| text.as_str().into())).collect();
        needs.retain(|need| !source.defaults.contains_key(&need.variable));
        needs.sort_unstable_by(|one, other| one.variable.cmp(&other.variable));
        Self { env, fillers, places, fixed_bytes, variables: Arc::new(variables), defaults, parts, needs }
    }

    /// The names of the recipient's fields the template uses, sorted. Also of those it can do without because it
    /// has a default for them, or asks whether they are there.
    #[must_use]
    pub fn variables(&self) -> &[String] {
        &self.variables
    }

    /// The variables that a recipient must have a value for, by name.
    #[must_use]
    pub fn needs(&self) -> &[Need] {
        &self.needs
    }

    /// Fills the slots for one recipient.
    ///
    /// # Errors
    /// When a variable is missing, a value is not safe where it stands, or a budget is passed.
    pub fn render(&self, data: &Data) -> Result<Slots, RenderError> {
        let mut slots = Slots::with_capacity(self.fillers.len());
        let mut engine = Engine { template: self, data, root: None, fuel: 0 };
        let mut output = self.fixed_bytes;
        for (filler, places) in self.fillers.iter().zip(&self.places) {
            let before = slots.total_bytes();
            match filler {
                Filler::Variable { variable, escape, guard } => {
                    let value = self.value(*variable, data).ok_or_else(|| self.missing(*variable))?;
                    if guard.is_some_and(|guard| !guard.admits(value)) {
                        return Err(RenderError::UnsafeValue);
                    }
                    slots.push_with(|out| {
                        escape.push(value, out);
                        Ok::<_, RenderError>(())
                    })?;
                }
                Filler::Template { name, escape, variables } => {
                    let rendered = engine.run(name, variables)?;
                    slots.push_with(|out| {
                        escape.push_rendered(&rendered, out);
                        Ok::<_, RenderError>(())
                    })?;
                }
            }
            output = output.saturating_add((slots.total_bytes() - before).saturating_mul(*places));
            if output > MAX_OUTPUT_BYTES {
                return Err(RenderError::TooLong);
            }
        }
        Ok(slots)
    }

    /// Renders each part as one whole, for a preview. The same bytes as splicing the slots, and slower.
    ///
    /// # Errors
    /// As [`Self::render`].
    pub fn render_whole(&self, data: &Data) -> Result<Rendered, RenderError> {
        let mut engine = Engine { template: self, data, root: None, fuel: 0 };
        let (mut subject, mut html, mut text) = (None, None, None);
        let mut output = 0_usize;
        for WholePart { part, variables } in &self.parts {
            let mut whole = String::new();
            part.escape().push_rendered(&engine.run(part.name(), variables)?, &mut whole);
            output = output.saturating_add(whole.len());
            if output > MAX_OUTPUT_BYTES {
                return Err(RenderError::TooLong);
            }
            match part {
                Part::Subject => subject = Some(whole),
                Part::Html => html = Some(whole),
                Part::Text => text = Some(whole),
            }
        }
        Ok(match subject {
            Some(subject) => Rendered::Email { subject, html, text },
            None => Rendered::Sms { text: text.unwrap_or_default() },
        })
    }

    fn value<'v>(&'v self, variable: usize, data: &'v Data) -> Option<&'v str> {
        let name = self.variables.get(variable)?;
        data.get(name).or_else(|| self.defaults.get(variable)?.as_deref())
    }

    fn missing(&self, variable: usize) -> RenderError {
        RenderError::Missing { name: self.variables.get(variable).cloned().unwrap_or_default() }
    }
}

impl fmt::Debug for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Template({} slots, {} variables)", self.fillers.len(), self.variables.len())
    }
}

impl fmt::Debug for Rendered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Email { html, text, .. } => {
                let bytes = |part: &Option<String>| part.as_ref().map_or(0, String::len);
                write!(f, "Rendered::Email({} bytes of HTML, {} of text)", bytes(html), bytes(text))
            }
            Self::Sms { text } => write!(f, "Rendered::Sms({} bytes)", text.len()),
        }
    }
}

/// What to do about an empty part of an e-mail.
const OR_LEAVE_OUT: &str = "write something, or leave the part out";

/// A part that says something to somebody. What stands in it may still come out empty for one recipient.
fn filled(part: Part, skeleton: Skeleton, remedy: &str) -> Result<Skeleton, TemplateError> {
    if skeleton.pieces.iter().all(|piece| matches!(piece, Piece::Fixed(text) if text.trim().is_empty())) {
        return Err(TemplateError::in_part(part.name(), format_args!("it is empty; {remedy}")));
    }
    Ok(skeleton)
}

/// Runs minijinja for one recipient, under one budget of fuel.
struct Engine<'t> {
    template: &'t Template,
    data: &'t Data,
    /// Made when the first slot needs it.
    root: Option<Value>,
    fuel: u64,
}

impl Engine<'_> {
    /// What the environment's template `name` writes. `variables` are those it uses, in reading order.
    fn run(&mut self, name: &str, variables: &[usize]) -> Result<String, RenderError> {
        let Self { template, data, root, fuel } = self;
        let root = root.get_or_insert_with(|| {
            let value = |variable| template.value(variable, data).map_or(Value::UNDEFINED, Value::from);
            let values = (0..template.variables.len()).map(value).collect();
            Value::from_object(Root { names: Arc::clone(&template.variables), values })
        });
        let rendered = template.env.get_template(name).and_then(|compiled| compiled.render_captured(root.clone()));
        let rendered = rendered.map_err(|error| {
            let absent: Vec<&str> = variables
                .iter()
                .filter(|variable| template.value(**variable, data).is_none())
                .filter_map(|at| template.variables.get(*at).map(String::as_str))
                .collect();
            // One the template asks for is not the reason while another is missing.
            let is_needed = |name: &&&str| template.needs.iter().any(|need| need.variable == **name);
            render_error(&error, absent.iter().find(is_needed).or(absent.first()).copied())
        })?;
        // minijinja's tank is full at every run; this one is not.
        *fuel = fuel.saturating_add(rendered.state().fuel_levels().map_or(0, |(used, _)| used));
        if *fuel > MAX_FUEL {
            return Err(RenderError::TooMuchWork);
        }
        Ok(rendered.into_output())
    }
}

/// A part of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Subject,
    Html,
    Text,
}

impl Part {
    /// Its name in messages, and that of its template in the environment.
    const fn name(self) -> &'static str {
        match self {
            Self::Subject => "subject",
            Self::Html => "html",
            Self::Text => "text",
        }
    }

    const fn escape(self) -> Escape {
        match self {
            Self::Subject => Escape::OneLine,
            Self::Html => Escape::Html,
            Self::Text => Escape::Plain,
        }
    }
}

#[cfg(test)]
mod tests;
