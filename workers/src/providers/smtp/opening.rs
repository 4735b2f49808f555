//! Opening a connection: TCP, greeting, EHLO, TLS, login.

use std::{fmt::Display, net::IpAddr, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use secrecy::ExposeSecret as _;
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::client::TlsStream;

use super::{
    super::Code,
    connection::Connection,
    dialogue::{Dialogue, Wire},
    relay::{Login, Relay, Security, Tls},
    replies::{Ending, Reply, Stage},
};

const UNREACHABLE: Code = Code::known("smtp_unreachable");
const TIMED_OUT: Code = Code::known("smtp_timeout");
const TLS_FAILED: Code = Code::known("smtp_tls_failed");
const TLS_MISSING: Code = Code::known("smtp_starttls_missing");
const NOT_LOOPBACK: Code = Code::known("smtp_not_loopback");
const LOGIN_MISSING: Code = Code::known("smtp_auth_missing");

/// What the relay says it can do, in its answer to `EHLO`.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Extensions {
    /// Commands may be sent before the replies to earlier ones are read (RFC 2920).
    pub(super) pipelining: bool,
    /// The connection can be secured (RFC 3207).
    starttls: bool,
    /// Addresses may go beyond ASCII (RFC 6531).
    pub(super) smtputf8: bool,
    /// `AUTH PLAIN` (RFC 4616).
    auth_plain: bool,
    /// `AUTH LOGIN`, which has no standard and many users.
    auth_login: bool,
    /// Most octets of a mail (RFC 1870); no limit when absent.
    pub(super) size_max: Option<usize>,
}

impl Extensions {
    fn of(reply: &Reply) -> Self {
        let mut extensions = Self::default();
        for line in reply.text.lines().skip(1) {
            let mut words = line.split_ascii_whitespace().map(str::to_ascii_uppercase);
            match words.next().as_deref() {
                Some("PIPELINING") => extensions.pipelining = true,
                Some("STARTTLS") => extensions.starttls = true,
                Some("SMTPUTF8") => extensions.smtputf8 = true,
                Some("SIZE") => {
                    extensions.size_max = words.next().and_then(|octets| octets.parse().ok()).filter(|max| *max > 0);
                }
                Some("AUTH") => {
                    for mechanism in words {
                        extensions.auth_plain |= mechanism == "PLAIN";
                        extensions.auth_login |= mechanism == "LOGIN";
                    }
                }
                _ => {}
            }
        }
        extensions
    }
}

/// Connects, secures the connection and logs in.
///
/// Nagle's algorithm is off: with it on, the last octets of a mail wait for the acknowledgement of those before, some
/// 40 ms on Linux.
pub(super) async fn open(relay: &Relay) -> Result<Connection, Ending> {
    let tcp = TcpStream::connect((relay.host.as_str(), relay.port));
    let tcp = within(relay.connect_timeout, tcp, Stage::Connect, &UNREACHABLE).await?;
    // Without it a mail is slow, not wrong.
    let _ = tcp.set_nodelay(true);
    let us = hello_name(&tcp);
    match &relay.security {
        Security::Loopback if !tcp.peer_addr().is_ok_and(|peer| peer.ip().is_loopback()) => {
            Err(Ending::Broken(Stage::Connect, NOT_LOOPBACK))
        }
        Security::Loopback => greeted(Opening::over(tcp, relay), &us, relay).await,
        Security::Implicit(tls) => {
            let wire = handshake(tls, tcp, relay).await?;
            greeted(Opening::over(wire, relay), &us, relay).await
        }
        Security::StartTls(tls) => {
            let mut clear = Opening::over(tcp, relay);
            clear.greeting().await?;
            if !clear.hello(&us).await?.starttls {
                return Err(Ending::Broken(Stage::Tls, TLS_MISSING));
            }
            clear.ask(Stage::Tls, "STARTTLS\r\n").await?;
            let tcp = clear.dialogue.into_quiet_wire().map_err(|_| Ending::Broken(Stage::Tls, TLS_FAILED))?;
            let wire = handshake(tls, tcp, relay).await?;
            let mut opening = Opening::over(wire, relay);
            let extensions = opening.hello(&us).await?;
            logged_in(opening, extensions, relay).await
        }
    }
}

async fn greeted<W: Wire + 'static>(mut opening: Opening<W>, us: &str, relay: &Relay) -> Result<Connection, Ending> {
    opening.greeting().await?;
    let extensions = opening.hello(us).await?;
    logged_in(opening, extensions, relay).await
}

async fn logged_in<W: Wire + 'static>(
    mut opening: Opening<W>,
    extensions: Extensions,
    relay: &Relay,
) -> Result<Connection, Ending> {
    if let Some(login) = &relay.login {
        opening.log_in(login, &extensions).await?;
    }
    Ok(Connection::new(opening.dialogue.boxed(), extensions, relay.answer_timeout))
}

async fn handshake(tls: &Tls, tcp: TcpStream, relay: &Relay) -> Result<TlsStream<TcpStream>, Ending> {
    within(relay.connect_timeout, tls.connector.connect(tls.name.clone(), tcp), Stage::Tls, &TLS_FAILED).await
}

/// Waits for one step that has no reply. The log says why it failed, because the verdict cannot.
async fn within<T, E: Display>(
    patience: Duration,
    step: impl Future<Output = Result<T, E>>,
    stage: Stage,
    failed: &Code,
) -> Result<T, Ending> {
    match timeout(patience, step).await {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(error)) => {
            tracing::warn!(?stage, %error, "the relay could not be reached");
            Err(Ending::Broken(stage, failed.clone()))
        }
        Err(_) => Err(Ending::Broken(stage, TIMED_OUT)),
    }
}

/// How we name ourselves: the address we connect from (RFC 5321 §4.1.3), for we may have no name that resolves.
fn hello_name(tcp: &TcpStream) -> String {
    match tcp.local_addr().map(|address| address.ip()) {
        Ok(IpAddr::V4(address)) => format!("[{address}]"),
        Ok(IpAddr::V6(address)) => format!("[IPv6:{address}]"),
        Err(_) => "[127.0.0.1]".to_owned(),
    }
}

/// The dialogue before the first mail.
struct Opening<W> {
    dialogue: Dialogue<W>,
    answer_timeout: Duration,
}

impl<W: Wire> Opening<W> {
    fn over(wire: W, relay: &Relay) -> Self {
        Self { dialogue: Dialogue::over(wire), answer_timeout: relay.answer_timeout }
    }

    async fn greeting(&mut self) -> Result<(), Ending> {
        self.ask(Stage::Greeting, "").await.map(drop)
    }

    async fn hello(&mut self, us: &str) -> Result<Extensions, Ending> {
        self.ask(Stage::Hello, &format!("EHLO {us}\r\n")).await.map(|reply| Extensions::of(&reply))
    }

    async fn log_in(&mut self, login: &Login, extensions: &Extensions) -> Result<(), Ending> {
        let password = login.password.expose_secret();
        if extensions.auth_plain {
            let proof = STANDARD.encode(format!("\0{}\0{password}", login.user));
            self.ask(Stage::Login, &format!("AUTH PLAIN {proof}\r\n")).await.map(drop)
        } else if extensions.auth_login {
            self.ask(Stage::LoginPrompt, "AUTH LOGIN\r\n").await?;
            self.ask(Stage::LoginPrompt, &format!("{}\r\n", STANDARD.encode(&login.user))).await?;
            self.ask(Stage::Login, &format!("{}\r\n", STANDARD.encode(password))).await.map(drop)
        } else {
            Err(Ending::Unfit(LOGIN_MISSING))
        }
    }

    /// Sends a command and waits for a reply that leads on.
    async fn ask(&mut self, stage: Stage, command: &str) -> Result<Reply, Ending> {
        let exchange = async {
            if !command.is_empty() {
                self.dialogue.say(command.as_bytes()).await?;
            }
            self.dialogue.reply().await
        };
        match timeout(self.answer_timeout, exchange).await {
            Ok(Ok(reply)) if stage.is_passed_by(&reply) => Ok(reply),
            Ok(Ok(reply)) => Err(Ending::Replied(stage, reply)),
            Ok(Err(code)) => Err(Ending::Broken(stage, code)),
            Err(_) => Err(Ending::Broken(stage, TIMED_OUT)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extensions_are_read_in_any_case_and_order() {
        let text = "relay.example at your service\nsize 1000\nAuth login PLAIN XOAUTH2\nPipelining\n8BITMIME\nSMTPUTF8";
        let extensions = Extensions::of(&Reply { code: 250, text: text.to_owned() });
        let expected = Extensions {
            pipelining: true,
            starttls: false,
            smtputf8: true,
            auth_plain: true,
            auth_login: true,
            size_max: Some(1000),
        };
        assert_eq!(extensions, expected);
    }

    #[test]
    fn the_relays_name_is_no_extension_and_size_0_is_no_limit() {
        let extensions = Extensions::of(&Reply { code: 250, text: "STARTTLS\nSIZE 0".to_owned() });
        assert_eq!(extensions, Extensions::default());
    }
}
