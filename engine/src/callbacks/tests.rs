//! The spool, and the way of a callback from its request to the ledger, over real sockets and a real file.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use aws_lc_rs::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use dispatch_workers::{
    clock::{Clock, SystemEntropy},
    providers::{self, callbacks::Credentials},
    sealing::MasterKey,
};
use http_body_util::StreamBody;
use hyper::body::Frame;
use secrecy::SecretString;
use tempfile::TempDir;
use tokio::net::TcpListener;

use super::{
    Callback,
    ingest::{Caller, Ingest},
    spool::{NotKept, Room, Spool, SpoolReader},
};
use crate::api::server;

const NOW_MS: i64 = 1_900_000_000_000;
const TOKEN: &str = "a token of thirty-two characters.";
const ROOM: Room = Room { bytes_max: 1 << 30, age_max: Duration::from_secs(48 * 3_600) };

/// A clock that moves when it is told to.
struct HeldClock(AtomicI64);

impl Clock for HeldClock {
    fn now_ms(&self) -> i64 {
        self.0.load(Ordering::SeqCst)
    }

    fn monotonic(&self) -> Duration {
        Duration::ZERO
    }
}

/// A spool in a folder, which may be opened several times, one after the other.
struct Place {
    folder: TempDir,
    master: MasterKey,
    clock: Arc<HeldClock>,
}

impl Place {
    fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
            master: MasterKey::generate(&SystemEntropy::default()),
            clock: Arc::new(HeldClock(AtomicI64::new(NOW_MS))),
        }
    }

    fn path(&self) -> std::path::PathBuf {
        self.folder.path().join("spool")
    }

    /// Opens it; a process that has just gone may hold its lock for a moment.
    async fn open(&self, room: Room) -> (Arc<Spool>, SpoolReader) {
        let entropy = Arc::new(SystemEntropy::default());
        loop {
            let opened = Spool::open(&self.path(), self.master.spool_keys(), room, self.clock.clone(), entropy.clone());
            match opened {
                Ok(opened) => return opened,
                Err(_) => tokio::task::yield_now().await,
            }
        }
    }

    fn segments(&self) -> Vec<std::path::PathBuf> {
        let files = std::fs::read_dir(self.path()).unwrap().map(|file| file.unwrap().path());
        let mut segments: Vec<_> = files.filter(|file| !file.ends_with("lock")).collect();
        segments.sort_unstable();
        segments
    }
}

fn callback(number: usize) -> Callback {
    Callback {
        arrived_at_ms: NOW_MS,
        kind: "sendgrid".to_owned(),
        account: "main".to_owned(),
        body: Bytes::from(format!("[\"anna{number}@example.org\"]")),
    }
}

/// Reads and applies until so many were read.
async fn read(reader: &mut SpoolReader, count: usize) -> Vec<Callback> {
    let mut callbacks = Vec::new();
    while callbacks.len() < count {
        let batch = reader.next().await.unwrap().unwrap();
        callbacks.extend(batch.callbacks.iter().cloned());
        reader.applied(&batch).await;
    }
    callbacks
}

/// Waits until there is nothing in the spool.
async fn empty(spool: &Spool) {
    while spool.bytes() > 0 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_kept_is_read_in_its_order_and_gone_when_it_is_applied() {
    let place = Place::new();
    let (spool, mut reader) = place.open(ROOM).await;
    let kept: Vec<Callback> = (0..50).map(callback).collect();
    for callback in &kept {
        spool.keep(callback).await.unwrap();
    }
    assert!(spool.bytes() > 0);
    assert_eq!(read(&mut reader, 50).await, kept);
    empty(&spool).await;
    assert!(place.segments().is_empty(), "nothing personal is left on the disk");
    spool.keep(&callback(50)).await.unwrap();
    assert_eq!(read(&mut reader, 1).await, [callback(50)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_not_applied_is_there_for_the_next_process() {
    let place = Place::new();
    let (spool, reader) = place.open(ROOM).await;
    for number in 0..3 {
        spool.keep(&callback(number)).await.unwrap();
    }
    drop((spool, reader));
    let (spool, mut reader) = place.open(ROOM).await;
    spool.keep(&callback(3)).await.unwrap();
    // Read and not applied, as by a process that dies in between.
    assert_eq!(reader.next().await.unwrap().unwrap().callbacks.len(), 3);
    drop((spool, reader));
    let (spool, mut reader) = place.open(ROOM).await;
    assert_eq!(read(&mut reader, 4).await, [0, 1, 2, 3].map(callback));
    empty(&spool).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_readable_lies_on_the_disk() {
    let place = Place::new();
    let (spool, _reader) = place.open(ROOM).await;
    spool.keep(&callback(1)).await.unwrap();
    for segment in place.segments() {
        let bytes = std::fs::read(segment).unwrap();
        for needle in [b"anna".as_slice(), b"example", b"sendgrid", b"main"] {
            assert!(!bytes.windows(needle.len()).any(|window| window == needle));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_torn_end_is_cut_and_a_changed_record_is_passed_over() {
    let place = Place::new();
    let (spool, reader) = place.open(ROOM).await;
    for number in 0..3 {
        spool.keep(&callback(number)).await.unwrap();
    }
    drop((spool, reader));
    let segment = place.segments().pop().unwrap();
    let mut bytes = std::fs::read(&segment).unwrap();
    let record = (bytes.len() - 44) / 3;
    bytes.truncate(bytes.len() - 5);
    bytes[44 + record / 2] ^= 1;
    std::fs::write(&segment, bytes).unwrap();
    let (spool, mut reader) = place.open(ROOM).await;
    spool.keep(&callback(9)).await.unwrap();
    assert_eq!(read(&mut reader, 2).await, [1, 9].map(callback));
    empty(&spool).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_key_opens_nothing() {
    let mut place = Place::new();
    let (spool, reader) = place.open(ROOM).await;
    spool.keep(&callback(1)).await.unwrap();
    drop((spool, reader));
    place.master = MasterKey::generate(&SystemEntropy::default());
    let (spool, mut reader) = place.open(ROOM).await;
    spool.keep(&callback(2)).await.unwrap();
    assert_eq!(read(&mut reader, 1).await, [callback(2)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_spool_takes_nothing_until_there_is_room_again() {
    let place = Place::new();
    let (spool, mut reader) = place.open(Room { bytes_max: 2_000, ..ROOM }).await;
    let mut kept = 0;
    while spool.keep(&callback(kept)).await.is_ok() {
        kept += 1;
    }
    assert!(kept > 3, "there is room for some");
    assert_eq!(spool.keep(&callback(0)).await, Err(NotKept::Full));
    assert!(spool.bytes() <= 2_000 + 200, "it stays in its bounds");
    read(&mut reader, kept).await;
    empty(&spool).await;
    spool.keep(&callback(0)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_oldest_waits_too_long_no_more_is_taken() {
    let place = Place::new();
    let (spool, mut reader) = place.open(ROOM).await;
    spool.keep(&callback(1)).await.unwrap();
    let batch = reader.next().await.unwrap().unwrap();
    place.clock.0.fetch_add(48 * 3_600_000 + 1, Ordering::SeqCst);
    assert_eq!(spool.keep(&callback(2)).await, Err(NotKept::Full));
    assert!(spool.trouble().unwrap().contains("the oldest callback has waited"));
    reader.applied(&batch).await;
    let none_waits = async {
        while spool.age() > Duration::ZERO {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        _ = reader.next() => panic!("there is nothing more"),
        () = none_waits => {}
    }
    spool.keep(&callback(2)).await.unwrap();
}

/// An ingest on a free port.
struct Door {
    address: SocketAddr,
    spool: Arc<Spool>,
    reader: SpoolReader,
    signer: EcdsaKeyPair,
    _folder: Place,
}

async fn door(room: Room) -> Door {
    let place = Place::new();
    let (spool, reader) = place.open(room).await;
    let signer = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).unwrap();
    const SPKI: &str = "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgA=";
    let mut key = STANDARD.decode(SPKI).unwrap();
    key.extend_from_slice(signer.public_key().as_ref());
    let mut callers = BTreeMap::new();
    for kind in ["sendgrid", "brevo", "infobip"] {
        let callbacks = providers::entry(kind).unwrap().callbacks.unwrap();
        let credentials = Credentials {
            public_keys: vec![STANDARD.encode(&key)],
            secrets: vec![SecretString::from(TOKEN)],
            signature_header: Some("x-signature".to_owned()),
            networks: (kind == "brevo").then(|| "192.0.2.0/24".to_owned()),
        };
        let verifier = (callbacks.verifier)(&credentials).unwrap();
        callers.insert(kind.to_owned(), Caller { kind: providers::entry(kind).unwrap().kind, callbacks, verifier });
    }
    let proxies = vec!["127.0.0.1/32".parse().unwrap()];
    let ingest = Arc::new(Ingest::new(callers, spool.clone(), place.clock.clone(), proxies));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(server::serve(listener, ingest.router(), std::future::pending()));
    Door { address, spool, reader, signer, _folder: place }
}

impl Door {
    fn request(&self, account: &str, body: impl Into<reqwest::Body>) -> reqwest::RequestBuilder {
        reqwest::Client::new().post(format!("http://{}/callbacks/{account}", self.address)).body(body)
    }

    fn signed(&self, body: &str) -> reqwest::RequestBuilder {
        let time = (NOW_MS / 1_000).to_string();
        let signature = self.signer.sign(&SystemRandom::new(), format!("{time}{body}").as_bytes()).unwrap();
        self.request("sendgrid", body.to_owned())
            .header("X-Twilio-Email-Event-Webhook-Signature", STANDARD.encode(signature))
            .header("X-Twilio-Email-Event-Webhook-Timestamp", time)
    }

    fn with_token(&self, body: &str, source: &str) -> reqwest::RequestBuilder {
        self.request("brevo", body.to_owned()).bearer_auth(TOKEN).header("X-Forwarded-For", source)
    }
}

async fn status(request: reqwest::RequestBuilder) -> u16 {
    request.send().await.unwrap().status().as_u16()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_providers_callback_is_on_disk_when_it_is_answered() {
    let mut door = door(ROOM).await;
    assert_eq!(status(door.signed("[{\"event\":\"delivered\"}]")).await, 204);
    assert_eq!(status(door.with_token("{}", "198.51.100.1, 192.0.2.9")).await, 204);
    let kept = read(&mut door.reader, 2).await;
    assert_eq!((kept[0].kind.as_str(), &kept[0].body[..]), ("sendgrid", b"[{\"event\":\"delivered\"}]".as_slice()));
    assert_eq!((kept[1].account.as_str(), kept[1].arrived_at_ms), ("brevo", NOW_MS));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_gets_401_and_leaves_nothing() {
    let door = door(ROOM).await;
    assert_eq!(status(door.request("sendgrid", "[]")).await, 401);
    assert_eq!(status(door.signed("[]").body("[{}]")).await, 401);
    assert_eq!(status(door.signed("[]").header("X-Twilio-Email-Event-Webhook-Signature", "AA==")).await, 401);
    assert_eq!(status(door.request("brevo", "{}").bearer_auth("guessed")).await, 401);
    assert_eq!(status(door.with_token("{}", "203.0.113.4")).await, 401, "not from the provider's network");
    assert_eq!(status(door.with_token("{}", "192.0.2.9, 203.0.113.4")).await, 401, "the last hop is ours to believe");
    assert_eq!(status(door.request("infobip", "{\"results\":[]}").header("x-signature", "00")).await, 401);
    assert_eq!(status(door.request("nobody", "[]")).await, 404);
    let url = format!("http://{}/callbacks/sendgrid", door.address);
    assert_eq!(reqwest::get(url).await.unwrap().status(), 405);
    assert_eq!(door.spool.bytes(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_past_the_bounds_is_refused_and_one_nobody_can_read_is_not() {
    let mut door = door(ROOM).await;
    assert_eq!(status(door.signed(&"x".repeat((1 << 20) + 1))).await, 413);
    let chunks = futures_util::stream::iter(
        (0..=16).map(|_| Ok::<_, std::io::Error>(Frame::data(Bytes::from(vec![b'x'; 1 << 16])))),
    );
    assert_eq!(
        status(door.request("sendgrid", reqwest::Body::wrap(StreamBody::new(chunks)))).await,
        413,
        "without its length"
    );
    assert_eq!(status(door.signed(&format!("[{}{{}}]", "{},".repeat(5_000)))).await, 413);
    assert_eq!(door.spool.bytes(), 0);
    assert_eq!(status(door.signed(&format!("[{}{{}}]", "{},".repeat(4_999)))).await, 204);
    assert_eq!(status(door.signed("<html>")).await, 204, "who calls is known, so they shall not call again for hours");
    assert_eq!(read(&mut door.reader, 2).await.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_spool_is_answered_with_what_each_provider_comes_again_on() {
    let door = door(Room { bytes_max: 10, ..ROOM }).await;
    assert_eq!(status(door.signed("[{\"event\":\"delivered\"}]")).await, 503);
    assert_eq!(status(door.with_token("{\"event\":\"delivered\"}", "192.0.2.9")).await, 429);
    assert_eq!(
        status(door.request("brevo", "{}").bearer_auth("guessed")).await,
        401,
        "a stranger is told nothing of it"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_in_use_is_said() {
    let place = Place::new();
    let (_spool, _reader) = place.open(ROOM).await;
    let entropy = Arc::new(SystemEntropy::default());
    let opened = Spool::open(&place.path(), place.master.spool_keys(), ROOM, place.clock.clone(), entropy);
    assert!(opened.unwrap_err().to_string().contains("is used by another process"));
    assert!(Path::new(&place.path()).join("lock").exists());
}
