//! What templates promise, and what they refuse.

mod needs;
mod properties;
mod refusals;
mod rendering;

use std::collections::BTreeMap;

use dispatch_schemas::api::templates::{Content, Sender, TemplateSource};

use super::{Data, RenderError, Rendered, Template, TemplateError};
use crate::message::{Body, Message, Skeleton};

/// A source to be varied by one part at a time.
fn email(subject: &str, html: Option<&str>, text: Option<&str>) -> TemplateSource {
    TemplateSource {
        content: Content::Email {
            from: Sender { address: "news@shop.example".to_owned(), name: None },
            reply_to: None,
            subject: subject.to_owned(),
            html: html.map(str::to_owned),
            text: text.map(str::to_owned),
        },
        defaults: BTreeMap::new(),
    }
}

fn page(html: &str) -> TemplateSource {
    email("s", Some(html), None)
}

fn text(text: &str) -> TemplateSource {
    email("s", None, Some(text))
}

fn data(fields: &[(&str, &str)]) -> Data {
    let mut data = Data::default();
    for (name, value) in fields {
        data.add(name, value).unwrap();
    }
    data
}

/// What a recipient gets: the skeletons with the slots spliced in.
fn spliced(message: &Message, template: &Template, data: &Data) -> Result<Rendered, RenderError> {
    let slots = template.render(data)?;
    let part = |skeleton: &Skeleton| skeleton.spliced(&slots);
    Ok(match &message.body {
        Body::Email { subject, html, text, .. } => {
            Rendered::Email { subject: part(subject), html: html.as_ref().map(part), text: text.as_ref().map(part) }
        }
        Body::Sms { text, .. } => Rendered::Sms { text: part(text) },
    })
}

/// The parts of an e-mail for one recipient, after checking that both ways of rendering agree on them.
fn rendered(source: &TemplateSource, fields: &[(&str, &str)]) -> Result<(String, String, String), RenderError> {
    let (message, template) = Template::compile(source).unwrap();
    let data = data(fields);
    let spliced = spliced(&message, &template, &data);
    let whole = template.render_whole(&data);
    assert!(spliced == whole, "the two ways of rendering differ: {spliced:?}, {whole:?}");
    match spliced? {
        Rendered::Email { subject, html, text } => Ok((subject, html.unwrap_or_default(), text.unwrap_or_default())),
        Rendered::Sms { text } => Ok((String::new(), String::new(), text)),
    }
}

fn page_for(html: &str, fields: &[(&str, &str)]) -> String {
    rendered(&page(html), fields).unwrap().1
}

fn refusal(source: &TemplateSource) -> String {
    match Template::compile(source) {
        Ok(_) => panic!("compiled, but should not: {source:?}"),
        Err(TemplateError { message }) => message,
    }
}
