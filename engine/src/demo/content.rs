//! What the demo sends.

use std::collections::BTreeMap;

use dispatch_schemas::{
    api::templates::{Content, Sender, TemplateSource},
    states::Channel,
};

const PARAGRAPH: &str = "<p>Fresh bread at seven, soup at noon, and on Thursdays the baker explains why the dough needs \
its night in the cold. You are welcome to stay, to read, and to bring a friend.</p>\n";

/// The demo's message for a channel; an e-mail of about `body_kb` KiB.
pub(super) fn content(channel: Channel, body_kb: usize) -> TemplateSource {
    let content = match channel {
        Channel::Email => Content::Email {
            from: Sender { address: "news@dispatch.example".to_owned(), name: Some("The Corner Bakery".to_owned()) },
            reply_to: None,
            subject: "{{ first_name }}, the spring programme is here".to_owned(),
            html: Some(format!(
                "<!doctype html>\n<html><body>\n<h1>Hello {{{{ first_name }}}} {{{{ last_name }}}}</h1>\n\
                 {{% if locale %}}<p>We write to you in {{{{ locale }}}}.</p>{{% endif %}}\n{}</body></html>\n",
                PARAGRAPH.repeat((body_kb * 1_024 / PARAGRAPH.len()).max(4)),
            )),
            text: Some("Hello {{ first_name }} {{ last_name }},\n\nthe spring programme is here.\n".to_owned()),
        },
        Channel::Sms => Content::Sms {
            sender: "Bakery".to_owned(),
            text: "Hello {{ first_name }}, the spring programme is here. STOP to 38080".to_owned(),
        },
    };
    let defaults = [("first_name", "friend"), ("last_name", ""), ("locale", "")];
    let defaults = BTreeMap::from(defaults.map(|(name, value)| (name.to_owned(), value.to_owned())));
    TemplateSource { content, defaults }
}
