//! STARTTLS and TLS from the first octet, with certificates made on the spot.

use std::io::Write as _;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::{
    ServerConfig,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
};
use tempfile::NamedTempFile;
use tokio_rustls::TlsAcceptor;

use super::*;

/// A certificate for `name`, and the authority that issued it as a file.
fn certified(name: &str) -> (TlsAcceptor, NamedTempFile) {
    let mut authority = CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(vec![name.to_owned()]).unwrap().signed_by(&key, &authority).unwrap();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)
        .unwrap();
    let mut file = NamedTempFile::new().unwrap();
    file.write_all(authority.pem().as_bytes()).unwrap();
    (TlsAcceptor::from(Arc::new(config)), file)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Start {
    /// TLS from the first octet.
    Implicit,
    /// STARTTLS, and these words in clear after its answer.
    Upgrade(&'static str),
}

/// Ends TLS before the fake relay.
struct Terminator {
    address: SocketAddr,
    /// What was heard in clear.
    clear: Arc<Mutex<Vec<String>>>,
    _serving: JoinSet<()>,
}

async fn terminator(acceptor: TlsAcceptor, start: Start, behind: SocketAddr) -> Terminator {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let clear = Arc::new(Mutex::new(Vec::new()));
    let hearing = Arc::clone(&clear);
    let mut serving = JoinSet::new();
    serving.spawn(async move {
        loop {
            let (mut client, _) = listener.accept().await.unwrap();
            if let Start::Upgrade(injected) = start {
                client.write_all(b"220 relay.example\r\n").await.unwrap();
                let answers = ["250-relay.example\r\n250-AUTH PLAIN\r\n250 STARTTLS\r\n", "220 go on\r\n"];
                for (nth, answer) in answers.into_iter().enumerate() {
                    let heard = BufReader::new(&mut client).lines().next_line().await.unwrap().unwrap();
                    hearing.lock().unwrap().push(heard);
                    let more = if nth == 1 { injected } else { "" };
                    client.write_all(format!("{answer}{more}").as_bytes()).await.unwrap();
                }
            }
            let Ok(mut client) = acceptor.accept(client).await else { continue };
            let mut relay = TcpStream::connect(behind).await.unwrap();
            if let Start::Upgrade(_) = start {
                // Nobody greets again behind STARTTLS.
                let greeting = BufReader::new(&mut relay).lines().next_line().await.unwrap();
                assert!(greeting.unwrap().starts_with("220 "));
            }
            let _ = tokio::io::copy_bidirectional(&mut client, &mut relay).await;
        }
    });
    Terminator { address, clear, _serving: serving }
}

fn secure(url: String, authority: &NamedTempFile) -> AccountSettings {
    AccountSettings { user: Some("us".to_owned()), ca_file: Some(authority.path().to_owned()), ..settings(url) }
}

fn failed() -> Verdict {
    Verdict::NotSent(Code::known("smtp_tls_failed"))
}

#[tokio::test]
async fn mails_go_over_tls_from_the_first_octet() {
    let relay = fake_relay(&[]).await;
    let (acceptor, authority) = certified("localhost");
    let tls = terminator(acceptor, Start::Implicit, relay.door.address).await;
    let account = account(secure(format!("smtps://localhost:{}", tls.address.port()), &authority));
    account.expect_accepted().await;
    account.expect_accepted().await;
    assert_eq!((relay.door.connections(), relay.witness.accepted()), (1, 2));
}

#[tokio::test]
async fn mails_go_over_starttls_and_nothing_is_said_before_it() {
    let relay = fake_relay(&[]).await;
    let (acceptor, authority) = certified("127.0.0.1");
    let tls = terminator(acceptor, Start::Upgrade(""), relay.door.address).await;
    let account = account(secure(format!("smtp://{}", tls.address), &authority));
    account.expect_accepted().await;
    account.expect_accepted().await;
    assert_eq!((relay.door.connections(), relay.witness.accepted()), (1, 2));
    assert_eq!(*tls.clear.lock().unwrap(), ["EHLO [127.0.0.1]", "STARTTLS"]);
}

#[tokio::test]
async fn a_certificate_for_another_name_or_from_a_stranger_is_not_trusted() {
    let relay = fake_relay(&[]).await;
    let (acceptor, authority) = certified("other.example");
    let (_, stranger) = certified("localhost");
    for start in [Start::Implicit, Start::Upgrade("")] {
        let tls = terminator(acceptor.clone(), start, relay.door.address).await;
        let scheme = if start == Start::Implicit { "smtps" } else { "smtp" };
        for authority in [&authority, &stranger] {
            let account = account(secure(format!("{scheme}://localhost:{}", tls.address.port()), authority));
            assert_eq!(account.send().await, (failed(), None));
        }
    }
    assert_eq!(relay.door.connections(), 0);
}

#[tokio::test]
async fn words_slipped_in_before_the_handshake_end_the_connection() {
    let relay = fake_relay(&[]).await;
    let (acceptor, authority) = certified("127.0.0.1");
    let injected = Start::Upgrade("250-relay.example\r\n250 AUTH PLAIN\r\n235 welcome\r\n");
    let tls = terminator(acceptor, injected, relay.door.address).await;
    let account = account(secure(format!("smtp://{}", tls.address), &authority));
    assert_eq!(account.send().await.0, failed());
    assert_eq!(relay.door.connections(), 0);
}

#[tokio::test]
async fn without_starttls_no_password_is_said() {
    let (_, authority) = certified("127.0.0.1");
    let offer = ("EHLO", "250-relay.example\r\n250 AUTH PLAIN LOGIN\r\n");
    let relay = scripted(vec![vec![("", "220 relay.example\r\n"), offer, ("AUTH", "235 ok\r\n")]]).await;
    let account = account(secure(format!("smtp://{}", relay.address), &authority));
    assert_eq!(account.send().await.0, Verdict::NotSent(Code::known("smtp_starttls_missing")));
    assert_eq!(*relay.heard.lock().unwrap(), ["EHLO [127.0.0.1]\r\n"]);
}

#[tokio::test]
async fn a_relay_that_speaks_no_tls_is_not_spoken_to() {
    let relay = fake_relay(&[]).await;
    let (_, authority) = certified("localhost");
    let account = account(secure(format!("smtps://localhost:{}", relay.door.address.port()), &authority));
    assert_eq!(account.send().await.0, failed());
    assert_eq!(relay.witness.lines(), []);
}
