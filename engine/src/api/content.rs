//! Templates in requests: compiled, looked at, filled for a preview.

use std::collections::BTreeMap;

use dispatch_schemas::{
    api::templates::{Content, Preview, SmsCost, TemplateReport, TemplateSource},
    states::Channel,
};
use dispatch_workers::{
    message::{Body, Message, Piece, Skeleton},
    sms,
    template::{Data, Need, RenderError, Rendered, Template},
};

use super::problem::{Answer, Kind, Problem};

/// Mail readers of Gmail cut a page off after 102 KB and hide the rest, the unsubscribe link with it.
const HTML_SHOWN_BYTES: usize = 102 * 1_024;
/// Segments past which a text message is worth a warning: each is paid for by itself.
const SEGMENTS_MANY: usize = 3;

/// Compiles a template.
///
/// # Errors
/// A problem that names the part, the line and what is wrong.
pub fn compile(source: &TemplateSource) -> Answer<(Message, Template)> {
    Template::compile(source).map_err(|error| Problem::new(Kind::TEMPLATE, error.to_string()))
}

/// The channel a content goes by.
#[must_use]
pub const fn channel(content: &Content) -> Channel {
    match content {
        Content::Email { .. } => Channel::Email,
        Content::Sms { .. } => Channel::Sms,
    }
}

/// Checks a template and says what there is to know about it.
#[must_use]
pub fn report(source: &TemplateSource) -> TemplateReport {
    let (message, template) = match Template::compile(source) {
        Ok(compiled) => compiled,
        Err(error) => {
            return TemplateReport {
                valid: false,
                errors: vec![error.to_string()],
                warnings: Vec::new(),
                variables: Vec::new(),
                required: Vec::new(),
                sms: None,
            };
        }
    };
    TemplateReport {
        valid: true,
        errors: Vec::new(),
        warnings: warnings(source, &message, &template),
        variables: template.variables().to_vec(),
        required: required(&template),
        sms: match &message.body {
            Body::Sms { text, .. } => Some(cost(&fixed(text))),
            Body::Email { .. } => None,
        },
    }
}

/// The variables a recipient must have a value for.
#[must_use]
pub fn required(template: &Template) -> Vec<String> {
    template.needs().iter().map(|need| need.variable.clone()).collect()
}

/// A variable as messages name it: with the part and the line where it first stands.
#[must_use]
pub fn named(need: &Need) -> String {
    format!("`{}` ({}, line {})", need.variable, need.part, need.line)
}

/// What of a good template may not come out as meant.
#[must_use]
pub fn warnings(source: &TemplateSource, message: &Message, template: &Template) -> Vec<String> {
    let mut warnings = Vec::new();
    let required: Vec<String> = template.needs().iter().map(named).collect();
    if !required.is_empty() {
        warnings.push(format!(
            "a recipient without a value for {} is not written to; give a default under `defaults` to reach \
             them too",
            required.join(", ")
        ));
    }
    for name in source.defaults.keys().filter(|name| template.variables().binary_search(name).is_err()) {
        warnings.push(format!("the default for `{name}` is not used: the template has no such variable"));
    }
    match &message.body {
        Body::Email { html, text, .. } => {
            let html_bytes = html.as_ref().map_or(0, |html| fixed(html).len());
            if html_bytes > HTML_SHOWN_BYTES {
                warnings.push(format!(
                    "the page has {} KB; Gmail shows the first 102 KB and hides the rest, the unsubscribe link with it",
                    html_bytes / 1_024
                ));
            }
            if text.is_none() {
                warnings.push("there is no `text` part; mail filters like to see one beside `html`".to_owned());
            }
        }
        Body::Sms { text, .. } => {
            let fixed = fixed(text);
            let cost = cost(&fixed);
            if usize::try_from(cost.segments).unwrap_or(usize::MAX) > SEGMENTS_MANY {
                warnings.push(format!("the fixed text alone takes {} messages; each is paid for", cost.segments));
            }
            if cost.encoding == "ucs2" {
                warnings.push(
                    "a character outside the GSM alphabet (an emoji or typographic quote, say) halves what fits into a \
                     message"
                        .to_owned(),
                );
            }
        }
    }
    warnings
}

/// Takes a person's variables over.
///
/// # Errors
/// When they are too many or too large.
pub fn data(variables: &BTreeMap<String, String>) -> Answer<Data> {
    let mut data = Data::default();
    for (name, value) in variables {
        data.add(name, value).map_err(|error| Problem::invalid_at("/variables", error.to_string()))?;
    }
    Ok(data)
}

/// Why a message cannot be filled, as a problem of the request's variables.
#[must_use]
pub fn unfilled(error: &RenderError) -> Problem {
    match error {
        RenderError::Missing { name } => Problem::invalid_at(
            "/variables",
            format!("a value for `{name}` is missing, and the template has no default"),
        ),
        other => Problem::invalid_at("/variables", other.to_string()),
    }
}

/// Fills a template.
///
/// # Errors
/// When the template does not compile or a variable is missing.
pub fn preview(source: &TemplateSource, variables: &BTreeMap<String, String>) -> Answer<Preview> {
    let (_, template) = compile(source)?;
    let rendered = template.render_whole(&data(variables)?).map_err(|error| unfilled(&error))?;
    Ok(match rendered {
        Rendered::Email { subject, html, text } => Preview { subject: Some(subject), html, text, sms: None },
        Rendered::Sms { text } => Preview { sms: Some(cost(&text)), text: Some(text), ..Preview::default() },
    })
}

fn fixed(skeleton: &Skeleton) -> String {
    let text = skeleton.pieces.iter().filter_map(|piece| match piece {
        Piece::Fixed(text) => Some(&**text),
        Piece::Slot(_) => None,
    });
    text.collect()
}

fn cost(text: &str) -> SmsCost {
    let counted = sms::segments(text);
    let encoding = match counted.encoding {
        sms::Encoding::Gsm7 => "gsm7",
        sms::Encoding::Ucs2 => "ucs2",
    };
    SmsCost { encoding: encoding.to_owned(), segments: u32::try_from(counted.segments).unwrap_or(u32::MAX) }
}
