//! Mails, read back by a parser that is not ours.

use mail_parser::{Address, MessageParser, MimeHeaders as _};
use proptest::prelude::*;

use super::*;
use crate::message::{Piece, Slots};

const KEY: &str = "00112233-4455-6677-8899-aabbccddeeff";
const NOW_MS: i64 = 1_700_000_000_000;

fn message(subject: Skeleton, text: Option<Skeleton>, html: Option<Skeleton>) -> Message {
    let from = Mailbox { address: "news@shop.example".to_owned(), name: Some("L'équipe, \"Shop\"".to_owned()) };
    let reply_to = Some(Mailbox { address: "help@shop.example".to_owned(), name: None });
    Message { body: Body::Email { from, reply_to, subject, html, text } }
}

fn recipient(slots: &[&str]) -> Recipient {
    let mut filled = Slots::default();
    slots.iter().for_each(|slot| filled.push(slot));
    Recipient {
        key: KEY.parse().unwrap(),
        to: "jean@dest.example".to_owned(),
        slots: filled,
        list_unsubscribe: Some("https://u.shop.example/o/abc?x=1".to_owned()),
    }
}

fn slot() -> Skeleton {
    Skeleton { pieces: vec![Piece::Slot(0)] }
}

/// What the relay sees: the dots unstuffed again, without the line that ends the mail.
fn received(mail: &Mail) -> Vec<u8> {
    let content = mail.content.strip_suffix(b".\r\n").unwrap();
    assert!(content.ends_with(b"\r\n"));
    let mut out = Vec::new();
    for line in content.split_inclusive(|byte| *byte == b'\n') {
        assert!(line.len() <= 1_000 && line.ends_with(b"\r\n") && line != b".\r\n");
        assert!(!line[..line.len() - 2].contains(&b'\r') && line.is_ascii());
        out.extend_from_slice(line.strip_prefix(b".").unwrap_or(line));
    }
    out
}

fn header_names(mail: &[u8]) -> Vec<String> {
    let parsed = MessageParser::default().parse(mail).unwrap();
    parsed.headers().iter().map(|header| header.name().to_owned()).collect()
}

#[test]
fn a_whole_mail_reads_like_this() {
    let text =
        Skeleton { pieces: vec![Piece::Fixed("Bonjour ".into()), Piece::Slot(0), Piece::Fixed(" !\n.\n".into())] };
    let html =
        Skeleton { pieces: vec![Piece::Fixed("<p>Bonjour ".into()), Piece::Slot(0), Piece::Fixed("</p>".into())] };
    let mail = compose(&message(slot(), Some(text), Some(html)), &recipient(&["Zoé"]), NOW_MS).unwrap();
    let expected = "\
Message-ID: <00112233-4455-6677-8899-aabbccddeeff@shop.example>\r
Date: Tue, 14 Nov 2023 22:13:20 +0000\r
From: =?utf-8?b?TCfDqXF1aXBlLCAiU2hvcCI=?= <news@shop.example>\r
To: jean@dest.example\r
Reply-To: help@shop.example\r
Subject: =?utf-8?B?Wm/DqQ==?=\r
List-Unsubscribe: <https://u.shop.example/o/abc?x=1>\r
List-Unsubscribe-Post: List-Unsubscribe=One-Click\r
MIME-Version: 1.0\r
Content-Type: multipart/alternative;\r
 boundary=\"=_00112233-4455-6677-8899-aabbccddeeff\"\r
\r
--=_00112233-4455-6677-8899-aabbccddeeff\r
Content-Type: text/plain; charset=utf-8\r
Content-Transfer-Encoding: quoted-printable\r
\r
Bonjour Zo=C3=A9 !\r
=2E\r
\r
--=_00112233-4455-6677-8899-aabbccddeeff\r
Content-Type: text/html; charset=utf-8\r
Content-Transfer-Encoding: quoted-printable\r
\r
<p>Bonjour Zo=C3=A9</p>\r
--=_00112233-4455-6677-8899-aabbccddeeff--\r
.\r
";
    assert_eq!(String::from_utf8(mail.content).unwrap(), expected);
}

#[test]
fn another_parser_reads_the_mail_as_it_was_meant() {
    let subject = "Votre offre d'été, Zoé : 20 % sur tout, =?utf-8?q?et_plus?= jusqu'à dimanche";
    let html = "<p>Προσφορά</p>\n<p>only today</p>";
    let message = message(Skeleton::fixed(subject), Some(slot()), Some(Skeleton::fixed(html)));
    let mail = received(&compose(&message, &recipient(&["Zoé,\n.\nà demain\n"]), NOW_MS).unwrap());
    let parsed = MessageParser::default().parse(&mail).unwrap();

    assert_eq!(parsed.subject(), Some(subject));
    assert_eq!(parsed.message_id(), Some("00112233-4455-6677-8899-aabbccddeeff@shop.example"));
    assert_eq!(parsed.date().unwrap().to_timestamp(), NOW_MS / 1000);
    let only = |address: &Address<'_>| {
        let address = address.first().unwrap();
        (address.name().map(str::to_owned), address.address().map(str::to_owned))
    };
    assert_eq!(
        only(parsed.from().unwrap()),
        (Some("L'équipe, \"Shop\"".to_owned()), Some("news@shop.example".to_owned()))
    );
    assert_eq!(only(parsed.to().unwrap()), (None, Some("jean@dest.example".to_owned())));
    assert_eq!(only(parsed.reply_to().unwrap()), (None, Some("help@shop.example".to_owned())));
    assert_eq!(parsed.content_type().unwrap().subtype(), Some("alternative"));
    let bare = |text: &str| text.replace("\r\n", "\n");
    assert_eq!(bare(&parsed.body_text(0).unwrap()), "Zoé,\n.\nà demain\n");
    assert_eq!(bare(&parsed.body_html(0).unwrap()), html);
}

#[test]
fn text_that_is_mostly_beyond_ascii_goes_as_base64() {
    let text = "Καλημέρα κόσμε\n".repeat(20);
    let mail = received(
        &compose(&message(Skeleton::fixed("x"), Some(Skeleton::fixed(&text)), None), &recipient(&[]), NOW_MS).unwrap(),
    );
    assert!(memmem::find(&mail, b"Content-Transfer-Encoding: base64\r\n").is_some());
    let parsed = MessageParser::default().parse(&mail).unwrap();
    assert_eq!(parsed.body_text(0).unwrap().replace("\r\n", "\n"), text);
}

#[test]
fn nothing_of_a_recipient_becomes_a_header() {
    for subject in ["Hi\r\nBcc: v@x.example", "Hi\nX: y", "Hi\rX: y", "Hi\0", "Hi\u{85}X: y", "\x1b[0m"] {
        let message = message(slot(), Some(Skeleton::fixed("x")), None);
        let outcome = compose(&message, &recipient(&[subject]), NOW_MS);
        assert_eq!(outcome.unwrap_err(), Unmailable::Header, "{subject:?}");
    }
    for url in ["https://x.example/\r\nBcc: v@x.example", "https://x.example/>,<mailto:v@x.example", "https://x é"] {
        let message = message(Skeleton::fixed("x"), Some(Skeleton::fixed("x")), None);
        let recipient = Recipient { list_unsubscribe: Some(url.to_owned()), ..recipient(&[]) };
        assert_eq!(compose(&message, &recipient, NOW_MS).unwrap_err(), Unmailable::Header, "{url:?}");
    }
    for to in [
        "a@x.example\r\nBcc: v@y.example",
        "a@x.example> SIZE=1",
        "a@b@c",
        "\"a\rb\"@x.example",
        "a@bücher.example",
        "",
    ] {
        let message = message(Skeleton::fixed("x"), Some(Skeleton::fixed("x")), None);
        let recipient = Recipient { to: to.to_owned(), ..recipient(&[]) };
        assert_eq!(compose(&message, &recipient, NOW_MS).unwrap_err(), Unmailable::Address, "{to:?}");
    }
}

#[test]
fn an_sms_or_an_empty_mail_is_refused() {
    let sms = Message { body: Body::Sms { sender: "Shop".to_owned(), text: Skeleton::fixed("x") } };
    assert_eq!(compose(&sms, &recipient(&[]), NOW_MS).unwrap_err(), Unmailable::NotAnEmail);
    let empty = message(Skeleton::fixed("x"), None, None);
    assert_eq!(compose(&empty, &recipient(&[]), NOW_MS).unwrap_err(), Unmailable::NotAnEmail);
}

#[test]
fn dots_are_stuffed_wherever_they_stand() {
    let mail = b".a\r\n.\r\n..b\r\nc.\r\n".to_vec();
    assert_eq!(stuffed([b"x\r\n".to_vec(), mail].concat()), b"x\r\n..a\r\n..\r\n...b\r\nc.\r\n.\r\n");
    assert_eq!(stuffed(b"no ending".to_vec()), b"no ending\r\n.\r\n");
}

proptest! {
    /// Whatever a recipient's data holds, the mail has the same headers, and the reader sees the data.
    #[test]
    fn hostile_values_stay_values(subject in "[ -~é☃]{0,200}", body in "(?s)[ -~é☃\r\n.=]{0,600}") {
        let subject = subject.trim();
        let message = message(slot(), Some(Skeleton { pieces: vec![Piece::Slot(1)] }), Some(Skeleton { pieces: vec![Piece::Slot(1)] }));
        let mail = received(&compose(&message, &recipient(&[subject, &body]), NOW_MS).unwrap());
        let tame = received(&compose(&message, &recipient(&["x", "y"]), NOW_MS).unwrap());
        prop_assert_eq!(header_names(&mail), header_names(&tame));
        let parsed = MessageParser::default().parse(&mail).unwrap();
        prop_assert_eq!(parsed.subject().unwrap_or_default(), subject);
        prop_assert_eq!(parsed.parts.len(), 3);
        let canonical = |text: &str| text.replace("\r\n", "\n").replace('\r', "\n");
        prop_assert_eq!(canonical(&parsed.body_text(0).unwrap()), canonical(&body));
    }
}
