//! Making the mail of one recipient, as it goes over the wire to a relay: 10 KB of page, two places filled.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use dispatch_workers::{
    message::{Body, Mailbox, Message, Piece, Recipient, SendKey, Skeleton, Slots},
    providers::smtp::mime::compose,
};

const PAGE_BYTES: usize = 10_000;
const NOW_MS: i64 = 1_700_000_000_000;

/// Lines longer than a mail's, with a letter beyond ASCII here and there, as pages have them.
const LINE: &str = "<p>Une offre d'été rien que pour vous : <a href=\"https://shop.example/o?x=1\">voir</a></p>\n";

fn personal(text: &str) -> Skeleton {
    Skeleton {
        pieces: vec![Piece::Fixed("Bonjour ".into()), Piece::Slot(0), Piece::Fixed(text.into()), Piece::Slot(1)],
    }
}

fn message(text: Option<Skeleton>) -> Message {
    let from = Mailbox { address: "news@shop.example".to_owned(), name: Some("L'équipe".to_owned()) };
    let html = Some(personal(&LINE.repeat(PAGE_BYTES / LINE.len())));
    Message { body: Body::Email { from, reply_to: None, subject: personal(", c'est l'été "), html, text } }
}

fn recipient() -> Recipient {
    let mut slots = Slots::default();
    slots.push("Zoé");
    slots.push("de Grenoble");
    Recipient {
        key: SendKey([7; 16]),
        to: "zoe@dest.example".to_owned(),
        slots,
        list_unsubscribe: Some("https://u.shop.example/o/0123456789abcdef".to_owned()),
    }
}

fn compose_mails(c: &mut Criterion) {
    let recipient = recipient();
    let mut group = c.benchmark_group("smtp/compose");
    for (name, message) in [
        ("html_10_kb", message(None)),
        ("text_and_html_11_kb", message(Some(personal(&"Une offre d'été rien que pour vous.\n".repeat(30))))),
    ] {
        let wire_bytes = compose(&message, &recipient, NOW_MS).map_or(0, |mail| mail.wire_bytes());
        group.throughput(Throughput::Bytes(wire_bytes as u64));
        group.bench_function(name, |b| b.iter(|| compose(black_box(&message), black_box(&recipient), NOW_MS)));
    }
    group.finish();
}

criterion_group!(benches, compose_mails);
criterion_main!(benches);
