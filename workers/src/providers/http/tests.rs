use std::sync::atomic::{AtomicU64, Ordering};

use dispatch_schemas::states::Channel;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};

use super::{test_server::*, *};
use crate::providers::{Answer, Provider, Signal};

/// What one recipient hears from a SendGrid account at `url`.
async fn verdict_from(provider: &dyn Provider) -> Verdict {
    let recipients = recipients(Channel::Email, 1);
    let answer = provider.send(&request(&message(Channel::Email), &recipients)).await;
    assert_eq!(answer.verdicts.len(), 1);
    answer.verdicts.into_iter().next().unwrap()
}

/// A port that nobody listens on any more.
async fn closed_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port()
}

#[tokio::test]
async fn a_refused_connection_is_not_sent() {
    let provider = account("sendgrid", &format!("http://127.0.0.1:{}", closed_port().await));
    assert_eq!(verdict_from(provider.as_ref()).await, Verdict::NotSent(Code::known("connect_failed")));
}

#[tokio::test]
async fn a_server_that_does_not_speak_tls_gets_no_byte_of_a_body() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let provider = account("sendgrid", &format!("https://{}", listener.local_addr().unwrap()));
    let server = tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.unwrap();
        let mut hello = vec![0; 64];
        let _ = socket.read(&mut hello).await.unwrap();
        socket.write_all(b"HTTP/1.1 202 Accepted\r\n\r\n").await.unwrap();
        let mut rest = hello;
        let _ = socket.read_to_end(&mut rest).await;
        rest
    });
    assert_eq!(verdict_from(provider.as_ref()).await, Verdict::NotSent(Code::known("connect_failed")));
    let seen = server.await.unwrap();
    assert!(!seen.windows(6).any(|bytes| bytes == b"canary" || bytes == b"person"));
}

#[tokio::test]
async fn a_connection_that_ends_without_an_answer_leaves_the_outcome_unknown() {
    let mut server = Server::answering([b""]).await;
    let provider = account("sendgrid", &server.url());
    assert_eq!(verdict_from(provider.as_ref()).await, Verdict::Unknown(Code::known("connection_lost")));
    assert!(server.seen().await.is_some(), "the server had the whole request");
}

#[tokio::test]
async fn an_answer_that_is_not_http_leaves_the_outcome_unknown() {
    for garbage in ["garbage\r\n\r\n", "HTTP/1.1 xyz\r\n\r\n", "HTTP/9.9 202 OK\r\n\r\n", "\0\0\0\0"] {
        let server = Server::answering([garbage]).await;
        let provider = account("sendgrid", &server.url());
        assert_eq!(verdict_from(provider.as_ref()).await, Verdict::Unknown(Code::known("connection_lost")));
    }
}

#[tokio::test]
async fn silence_until_the_timeout_leaves_the_outcome_unknown() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let silent = tokio::spawn(async move {
        std::future::pending::<()>().await;
        drop(listener);
    });
    let settings = AccountSettings { answer_timeout_s: 1, ..settings("sendgrid", Some(&url)) };
    let provider = crate::providers::build(ingredients(settings)).unwrap();
    assert_eq!(verdict_from(provider.as_ref()).await, Verdict::Unknown(Code::known("answer_timeout")));
    silent.abort();
}

#[tokio::test]
async fn a_request_past_its_deadline_is_not_made() {
    let mut server = Server::answering([answer(202, "", "")]).await;
    let provider = account("sendgrid", &server.url());
    let recipients = recipients(Channel::Email, 2);
    let message = message(Channel::Email);
    let late = crate::providers::Request { send_by: Duration::ZERO, ..request(&message, &recipients) };
    let answer = provider.send(&late).await;
    assert_eq!(answer, Answer::all(&Verdict::NotSent(departure::TOO_LATE), 2));
    // The server still waits for its one request, and gets the next that is in time.
    assert!(matches!(verdict_from(provider.as_ref()).await, Verdict::Accepted { .. }));
    let seen = server.seen().await.unwrap();
    assert!(seen.json()["personalizations"].as_array().unwrap().len() == 1);
}

/// A clock that goes forward by a second whenever it is read.
struct Ticking(AtomicU64);

impl Clock for Ticking {
    fn now_ms(&self) -> i64 {
        NOW_MS
    }

    fn monotonic(&self) -> Duration {
        Duration::from_secs(self.0.fetch_add(1, Ordering::Relaxed))
    }
}

#[tokio::test]
async fn a_request_whose_deadline_passes_while_it_connects_is_held_back() {
    let mut server = Server::answering([answer(202, "", "")]).await;
    let clock = Arc::new(Ticking(AtomicU64::new(0)));
    let ingredients = Ingredients { clock, ..ingredients(settings("sendgrid", Some(&server.url()))) };
    let provider = crate::providers::build(ingredients).unwrap();
    let recipients = recipients(Channel::Email, 1);
    let message = message(Channel::Email);
    // In time when it is asked for (0 s), late when its body is wanted (1 s).
    let tight = crate::providers::Request { send_by: Duration::from_secs(1), ..request(&message, &recipients) };
    let answer = provider.send(&tight).await;
    assert_eq!(answer.verdicts, [Verdict::NotSent(departure::TOO_LATE)]);
    assert!(server.seen().await.is_none(), "the connection ended before a whole request");
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let elsewhere = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let location = format!("location: http://{}/\r\n", elsewhere.local_addr().unwrap());
    for status in [301, 302, 303, 307, 308] {
        let server = Server::answering([answer(status, &location, "")]).await;
        let provider = account("sendgrid", &server.url());
        assert_eq!(
            verdict_from(provider.as_ref()).await,
            Verdict::Unknown(Code::known("not_the_providers_answer")),
            "{status}"
        );
    }
    let nobody = futures_util::FutureExt::now_or_never(elsewhere.accept());
    assert!(nobody.is_none(), "nobody went where the answer pointed");
}

#[tokio::test]
async fn kept_connections_are_used_again() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let provider = account("sendgrid", &url);
    let server = tokio::spawn(async move {
        // One connection serves both requests; a second would never be accepted.
        let (mut socket, _) = listener.accept().await.unwrap();
        for _ in 0..2 {
            let mut bytes = Vec::new();
            while !bytes.ends_with(b"}}}") {
                assert_ne!(socket.read_buf(&mut bytes).await.unwrap(), 0);
            }
            socket.write_all(b"HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n").await.unwrap();
        }
    });
    for _ in 0..2 {
        assert!(matches!(verdict_from(provider.as_ref()).await, Verdict::Accepted { .. }));
    }
    server.await.unwrap();
}

#[tokio::test]
async fn localhost_is_this_machine_without_asking_anybody() {
    let server = Server::answering([answer(202, "", "")]).await;
    let provider = account("sendgrid", &format!("http://localhost:{}", server.address.port()));
    assert!(matches!(verdict_from(provider.as_ref()).await, Verdict::Accepted { .. }));
}

#[tokio::test]
async fn a_key_goes_where_the_provider_wants_it() {
    for (kind, header, value) in [
        ("sendgrid", "authorization", "Bearer SECRET-canary"),
        ("brevo", "api-key", "SECRET-canary"),
        ("brevo_sms", "api-key", "SECRET-canary"),
        ("infobip", "authorization", "App SECRET-canary"),
    ] {
        let mut server = Server::answering([answer(500, "", "")]).await;
        let provider = account(kind, &server.url());
        let channel = provider.contract().channel;
        let recipients = recipients(channel, 1);
        provider.send(&request(&message(channel), &recipients)).await;
        let seen = server.seen().await.unwrap();
        assert_eq!(seen.header(header), Some(value), "{kind}");
        assert_eq!(seen.header("accept"), Some("application/json"));
        assert_eq!(seen.header("content-type"), Some("application/json"));
        assert_eq!(seen.header("content-length"), Some(seen.body.len().to_string().as_str()));
    }
}

#[tokio::test]
async fn a_web_page_in_the_providers_place_opens_the_circuit() {
    for status in [200, 202, 400, 403, 404] {
        let page =
            typed_answer(status, "text/html; charset=utf-8", "", "<html>Please log in to the hotel Wi-Fi</html>");
        for kind in ["sendgrid", "brevo", "brevo_sms", "infobip"] {
            let server = Server::answering([page.clone()]).await;
            let provider = account(kind, &server.url());
            let channel = provider.contract().channel;
            let recipients = recipients(channel, 1);
            let answer = provider.send(&request(&message(channel), &recipients)).await;
            assert_eq!(answer.verdicts, [Verdict::Unknown(Code::known("not_the_providers_answer"))], "{kind} {status}");
            assert_eq!(answer.signal, Some(Signal::Wait(Duration::from_secs(30))));
        }
    }
}

fn refused(settings: AccountSettings) -> String {
    match crate::providers::build(ingredients(settings)) {
        Err(error) => error.to_string(),
        Ok(_) => panic!("an account was built"),
    }
}

#[test]
fn a_key_is_sent_over_tls_or_to_this_machine_alone() {
    for url in [
        "http://api.sendgrid.com",
        "http://10.0.0.1",
        "http://127.0.0.1.example.com",
        "http://localhost.example.com",
        "http://[::2]",
        "http://0.0.0.0",
        "ftp://api.sendgrid.com",
        "file:///etc/passwd",
        "api.sendgrid.com",
        "",
        "https://user@api.sendgrid.com",
        "https://user:password@api.sendgrid.com",
        "https://api.sendgrid.com?key=1",
        "https://api.sendgrid.com/#x",
    ] {
        let message = refused(settings("sendgrid", Some(url)));
        assert!(message.contains("`url`"), "{url}: {message}");
    }
    for url in
        ["https://api.sendgrid.com", "http://127.0.0.1:8080", "http://127.1", "http://[::1]:1", "http://localhost:9"]
    {
        assert!(crate::providers::build(ingredients(settings("sendgrid", Some(url)))).is_ok(), "{url}");
    }
}

#[test]
fn infobip_has_no_host_for_everybody() {
    assert!(refused(settings("infobip", None)).contains("url = \"https://"));
    for kind in ["sendgrid", "brevo", "brevo_sms"] {
        assert!(crate::providers::build(ingredients(settings(kind, None))).is_ok(), "{kind}");
    }
}

#[test]
fn settings_out_of_range_are_refused_by_name() {
    let good = || settings("sendgrid", None);
    let cases = [
        ("recipients_per_request", AccountSettings { recipients_per_request: Some(1_001), ..good() }),
        ("recipients_per_request", AccountSettings { recipients_per_request: Some(0), ..good() }),
        ("recipients_per_request", AccountSettings { recipients_per_request: Some(2), ..settings("brevo_sms", None) }),
        ("requests_open_max", AccountSettings { requests_open_max: 0, ..good() }),
        ("connect_timeout_s", AccountSettings { connect_timeout_s: 0, ..good() }),
        ("answer_timeout_s", AccountSettings { answer_timeout_s: 301, ..good() }),
        ("user", AccountSettings { user: Some("me".to_owned()), ..good() }),
        ("ca_file", AccountSettings { ca_file: Some("/there/is/no/such/file".into()), ..good() }),
    ];
    for (name, settings) in cases {
        let message = refused(settings);
        assert!(message.contains(&format!("`{name}`")), "{name}: {message}");
    }
}

#[test]
fn a_certificate_file_must_hold_certificates() {
    for content in ["", "not a certificate", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), content).unwrap();
        let settings = AccountSettings { ca_file: Some(file.path().to_owned()), ..settings("sendgrid", None) };
        let message = refused(settings);
        assert!(message.contains(&file.path().display().to_string()), "{message}");
    }
}

#[test]
fn a_key_that_is_no_key_is_refused_without_showing_it() {
    for key in ["", "  \n", "SECRET\ncanary", "SECRET\u{0}canary"] {
        let ingredients = Ingredients { secret: key.into(), ..ingredients(settings("sendgrid", None)) };
        let error = crate::providers::build(ingredients).err().unwrap();
        assert!(error.to_string().contains("API key"), "{error}");
        assert!(!format!("{error:?} {error}").contains("canary"));
    }
}
