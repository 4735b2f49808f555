//! What a recipient costs to render: plain fields, fields a filter works on, a block with conditions, and the same
//! page rendered whole.

use std::{collections::BTreeMap, hint::black_box};

use criterion::{Criterion, criterion_group, criterion_main};
use dispatch_schemas::api::templates::{Content, Sender, TemplateSource};
use dispatch_workers::template::{Data, Template};

/// A recipient's fields, as a contact list has them.
const FIELDS: &[u8] = br#"{"first_name":"Zo\u00eb & Ada","last_name":"Lovelace","city":"K\u00f6ln","lang":"de",
    "plan":"gold","link":"https://shop.example/o/8f3a?c=1","points":"1200","since":"2019"}"#;

fn source(inner: &str) -> TemplateSource {
    let paragraph = "<p style=\"margin: 0\">A paragraph of a newsletter, as long as they are.</p>\n".repeat(25);
    TemplateSource {
        content: Content::Email {
            from: Sender { address: "news@shop.example".to_owned(), name: None },
            reply_to: None,
            subject: "News".to_owned(),
            html: Some(format!("<html><body>{paragraph}{inner}{paragraph}</body></html>")),
            text: None,
        },
        defaults: BTreeMap::new(),
    }
}

fn rendering(c: &mut Criterion) {
    let plain = "<p>Dear {{ first_name }} {{ last_name }}</p><a href=\"{{ link }}\">x</a>";
    let filtered = "<p>Dear {{ first_name|upper }} {{ last_name }}</p>";
    let block = "{% if plan == 'gold' %}<p>{{ points }} points since {{ since }}</p>{% else %}<p>Join!</p>{% endif %}";
    let mut data = Data::default();
    if data.add_json(FIELDS).is_err() {
        return;
    }
    let mut group = c.benchmark_group("template");
    for (name, inner) in [("three plain slots", plain), ("a filter and a plain slot", filtered), ("a block", block)] {
        let Ok((_, template)) = Template::compile(&source(inner)) else { continue };
        group.bench_function(name, |b| b.iter(|| template.render(black_box(&data))));
        group.bench_function(format!("{name}, whole page"), |b| b.iter(|| template.render_whole(black_box(&data))));
    }
    group.bench_function("eight fields from JSON", |b| {
        b.iter(|| {
            let mut data = Data::default();
            data.add_json(black_box(FIELDS)).map(|()| data)
        });
    });
    group.bench_function("compile", |b| b.iter(|| Template::compile(black_box(&source(block)))));
    group.finish();
}

criterion_group!(benches, rendering);
criterion_main!(benches);
