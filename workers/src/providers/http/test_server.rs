//! A server for tests that answers with exactly the bytes it is told, over a real socket, and shows what it was sent.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use dispatch_schemas::states::Channel;
use secrecy::SecretString;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::mpsc,
};

use crate::{
    clock::{Clock, SystemEntropy},
    message::{Body, Mailbox, Message, Piece, Recipient, SendKey, Skeleton, Slots, Token},
    providers::{AccountSettings, Ingredients, Provider, Question, Request},
};

/// What was read of one request.
pub(in crate::providers) struct Seen {
    pub(in crate::providers) head: String,
    pub(in crate::providers) body: Vec<u8>,
}

impl Seen {
    pub(in crate::providers) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    pub(in crate::providers) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }
}

pub(in crate::providers) struct Server {
    pub(in crate::providers) address: SocketAddr,
    seen: mpsc::UnboundedReceiver<Seen>,
}

impl Server {
    /// Answers the connections with `answers`, one each, in order, then closes them; an empty one closes at once.
    pub(in crate::providers) async fn answering<A: Into<Vec<u8>>>(answers: impl IntoIterator<Item = A>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let answers: Vec<Vec<u8>> = answers.into_iter().map(Into::into).collect();
        let (show, seen) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            for answer in answers {
                let (mut socket, _) = listener.accept().await.unwrap();
                if let Some(request) = read(&mut socket).await {
                    let _ = show.send(request);
                    // The client may hang up in the middle of an answer it does not want.
                    let _ = socket.write_all(&answer).await;
                    let _ = socket.shutdown().await;
                }
            }
        });
        Self { address, seen }
    }

    pub(in crate::providers) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The next whole request; `None` when no more will come.
    pub(in crate::providers) async fn seen(&mut self) -> Option<Seen> {
        self.seen.recv().await
    }
}

/// Reads one request; `None` when it broke off.
async fn read(socket: &mut TcpStream) -> Option<Seen> {
    let mut bytes = Vec::new();
    let head_end = loop {
        if let Some(at) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            break at + 4;
        }
        if socket.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    };
    let head = String::from_utf8(bytes[..head_end].to_vec()).unwrap();
    let mut seen = Seen { head, body: bytes.split_off(head_end) };
    let length: usize = seen.header("content-length").map_or(0, |text| text.parse().unwrap());
    while seen.body.len() < length {
        if socket.read_buf(&mut seen.body).await.ok()? == 0 {
            return None;
        }
    }
    Some(seen)
}

/// The bytes of an answer with a JSON body.
pub(in crate::providers) fn answer(status: u16, headers: &str, body: &str) -> Vec<u8> {
    typed_answer(status, "application/json", headers, body)
}

/// The bytes of an answer with a body of some type.
pub(in crate::providers) fn typed_answer(status: u16, kind: &str, headers: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!(
        "HTTP/1.1 {status} X\r\ncontent-type: {kind}\r\ncontent-length: {length}\r\nconnection: close\r\n{headers}\r\n{body}"
    )
    .into_bytes()
}

/// A clock that stands still.
pub(in crate::providers) struct StillClock {
    pub(in crate::providers) now_ms: i64,
}

/// Sun, 06 Nov 1994 08:49:37 GMT.
pub(in crate::providers) const NOW_MS: i64 = 784_111_777_000;

impl Clock for StillClock {
    fn now_ms(&self) -> i64 {
        self.now_ms
    }

    fn monotonic(&self) -> Duration {
        Duration::ZERO
    }
}

/// Before this moment of a [`StillClock`] a request may leave.
pub(in crate::providers) const SEND_BY: Duration = Duration::from_secs(5);

pub(in crate::providers) fn settings(kind: &str, url: Option<&str>) -> AccountSettings {
    AccountSettings {
        kind: kind.to_owned(),
        url: url.map(str::to_owned),
        user: None,
        key_file: None,
        recipients_per_request: None,
        requests_open_max: 4,
        connect_timeout_s: 5,
        answer_timeout_s: 30,
        ca_file: None,
    }
}

pub(in crate::providers) fn ingredients(settings: AccountSettings) -> Ingredients {
    Ingredients {
        settings,
        secret: SecretString::from("SECRET-canary"),
        clock: Arc::new(StillClock { now_ms: NOW_MS }),
        entropy: Arc::new(SystemEntropy::default()),
    }
}

/// An account of `kind` at `url`, with a clock that stands still.
pub(in crate::providers) fn account(kind: &str, url: &str) -> Arc<dyn Provider> {
    crate::providers::build(ingredients(settings(kind, Some(url)))).unwrap()
}

/// `Hi <slot 0>, <slot 1>!` on every part of the channel.
pub(in crate::providers) fn message(channel: Channel) -> Message {
    let greeting = Skeleton {
        pieces: vec![
            Piece::Fixed("Hi ".into()),
            Piece::Slot(0),
            Piece::Fixed(", ".into()),
            Piece::Slot(1),
            Piece::Fixed("!".into()),
        ],
    };
    let body = match channel {
        Channel::Email => Body::Email {
            from: Mailbox { address: "news@example.com".to_owned(), name: Some("Example".to_owned()) },
            reply_to: Some(Mailbox { address: "reply@example.com".to_owned(), name: None }),
            subject: greeting.clone(),
            html: Some(greeting.clone()),
            text: Some(greeting),
        },
        Channel::Sms => Body::Sms { sender: "Example".to_owned(), text: greeting },
    };
    Message { body }
}

pub(in crate::providers) fn slots<'a>(values: impl IntoIterator<Item = &'a str>) -> Slots {
    let mut slots = Slots::default();
    values.into_iter().for_each(|value| slots.push(value));
    slots
}

pub(in crate::providers) fn key(number: u8) -> SendKey {
    SendKey([number; 16])
}

/// The recipients 1 to `count`, each with two slots.
pub(in crate::providers) fn recipients(channel: Channel, count: u8) -> Vec<Recipient> {
    (1..=count)
        .map(|number| Recipient {
            key: key(number),
            to: match channel {
                Channel::Email => format!("person{number}@example.org"),
                Channel::Sms => format!("+3859100000{number:02}"),
            },
            slots: slots([format!("Ann {number}").as_str(), "<b>&amp;</b>"]),
            list_unsubscribe: None,
        })
        .collect()
}

pub(in crate::providers) fn request<'a>(message: &'a Message, recipients: &'a [Recipient]) -> Request<'a> {
    Request { message, recipients, token: Token([0xab; 16]), batch_key: SendKey([0xcd; 16]), send_by: SEND_BY }
}

pub(in crate::providers) fn questions(keys: impl IntoIterator<Item = SendKey>) -> Vec<Question> {
    keys.into_iter().map(|key| Question { key, batch_key: key, token: Token(key.0), claimed_at_ms: NOW_MS }).collect()
}
