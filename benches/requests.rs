//! Writing a request of 250 recipients for each provider: a page of 2 KB with eight slots. Divide by 250 for the cost
//! of a recipient.

use std::{hint::black_box, time::Duration};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use dispatch_workers::{
    clock::SystemEntropy,
    message::{Body, Mailbox, Message, Piece, Recipient, SendKey, Skeleton, Slots, Token},
    providers::{Request, brevo, infobip, sendgrid},
};

const RECIPIENTS: u16 = 250;
const SLOTS: u16 = 8;

/// A part of `bytes` of fixed text with the slots from `first` on spread over it.
fn part(bytes: usize, slots: std::ops::Range<u16>) -> Skeleton {
    let between = "<p style=\"margin-top: 4px\">We have something new for you.</p>\n";
    let each = bytes / slots.len().max(1);
    let fixed = |bytes: usize| Piece::Fixed(between.chars().cycle().take(bytes).collect());
    Skeleton { pieces: slots.flat_map(|slot| [fixed(each), Piece::Slot(slot)]).collect() }
}

fn email() -> Message {
    Message {
        body: Body::Email {
            from: Mailbox { address: "news@example.com".to_owned(), name: Some("Example".to_owned()) },
            reply_to: None,
            subject: part(30, 0..1),
            html: Some(part(2_000, 1..SLOTS - 1)),
            text: Some(part(500, SLOTS - 1..SLOTS)),
        },
    }
}

fn sms() -> Message {
    Message { body: Body::Sms { sender: "Example".to_owned(), text: part(100, 0..2) } }
}

fn recipients() -> Vec<Recipient> {
    (0..RECIPIENTS)
        .map(|number| {
            let mut slots = Slots::default();
            for slot in 0..SLOTS {
                slots.push(&format!("Value {slot} of person {number}"));
            }
            let [high, low] = number.to_be_bytes();
            Recipient {
                key: SendKey([high, low, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15]),
                to: format!("person{number}@example.org"),
                slots,
                list_unsubscribe: None,
            }
        })
        .collect()
}

fn requests(criterion: &mut Criterion) {
    let (email, sms, recipients, entropy) = (email(), sms(), recipients(), SystemEntropy::default());
    let request = |message| Request {
        message,
        recipients: &recipients,
        token: Token([1; 16]),
        batch_key: SendKey([2; 16]),
        send_by: Duration::ZERO,
    };
    let (email, sms) = (request(&email), request(&sms));
    let mut group = criterion.benchmark_group("request_of_250");
    group.throughput(Throughput::Elements(u64::from(RECIPIENTS)));
    group.bench_function("sendgrid", |bencher| bencher.iter(|| sendgrid::body(black_box(&email), &entropy)));
    group.bench_function("brevo", |bencher| bencher.iter(|| brevo::email_body(black_box(&email))));
    group.bench_function("infobip", |bencher| bencher.iter(|| infobip::body(black_box(&sms))));
    group.finish();
}

criterion_group!(benches, requests);
criterion_main!(benches);
