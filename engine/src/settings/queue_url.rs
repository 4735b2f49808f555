//! Where RabbitMQ is.

use std::{fmt, net::IpAddr, str::FromStr};

use reqwest::Url;
use secrecy::SecretString;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// The user RabbitMQ makes at its first start, who may come from the broker's own machine only.
const FIRST_USER: &str = "guest";

/// Longest host, user or virtual host: what fits into AMQP's short string.
const PART_BYTES_MAX: usize = 255;

/// The place of a broker: `amqp://` on this machine, `amqps://` anywhere. Shown without its password.
#[derive(Clone)]
pub struct QueueUrl {
    tls: bool,
    host: String,
    port: u16,
    vhost: String,
    user: String,
    password: Option<SecretString>,
}

/// Why a text is not the place of a broker. Never quotes the text: it may hold a password.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum QueueUrlError {
    /// Without TLS to another machine.
    #[error(
        "amqp:// is for a broker on this machine only, because it sends the password in clear; wanted: amqps:// for a \
         broker elsewhere"
    )]
    Clear,
    /// Anything else.
    #[error(
        "wanted: amqps://user@host/vhost, or amqp://user@127.0.0.1/vhost for a broker on this machine, without options; \
         a virtual host with a slash in its name is written with %2f"
    )]
    Form,
}

impl QueueUrl {
    /// Whether the connection is encrypted.
    #[must_use]
    pub const fn tls(&self) -> bool {
        self.tls
    }

    /// The host's name or address, without brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// The virtual host.
    #[must_use]
    pub fn vhost(&self) -> &str {
        &self.vhost
    }

    /// The user.
    #[must_use]
    pub fn user(&self) -> &str {
        &self.user
    }

    /// The password, if the URL held one.
    #[must_use]
    pub const fn password(&self) -> Option<&SecretString> {
        self.password.as_ref()
    }
}

fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn decoded(part: &str) -> Result<String, QueueUrlError> {
    // As a query's value, in which only `+` would read differently.
    let pair = format!("x={}", part.replace('+', "%2B"));
    let text = form_urlencoded::parse(pair.as_bytes()).next().map(|(_, text)| text.into_owned()).unwrap_or_default();
    let fits =
        text.len() <= PART_BYTES_MAX && !text.chars().any(|c| c.is_control() || c == char::REPLACEMENT_CHARACTER);
    fits.then_some(text).ok_or(QueueUrlError::Form)
}

impl FromStr for QueueUrl {
    type Err = QueueUrlError;

    fn from_str(text: &str) -> Result<Self, QueueUrlError> {
        let url = Url::parse(text).map_err(|_| QueueUrlError::Form)?;
        let tls = match url.scheme() {
            "amqps" => true,
            "amqp" => false,
            _ => return Err(QueueUrlError::Form),
        };
        let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']).to_owned();
        if host.is_empty() || host.len() > PART_BYTES_MAX || url.query().is_some() || url.fragment().is_some() {
            return Err(QueueUrlError::Form);
        }
        if !tls && !is_loopback(&host) {
            return Err(QueueUrlError::Clear);
        }
        let vhost = match url.path().strip_prefix('/') {
            None | Some("") => "/".to_owned(),
            Some(name) if name.contains('/') => return Err(QueueUrlError::Form),
            Some(name) => decoded(name)?,
        };
        let user = match url.username() {
            "" => FIRST_USER.to_owned(),
            user => decoded(user)?,
        };
        let password = url.password().map(decoded).transpose()?.map(SecretString::from);
        let port = url.port().unwrap_or(if tls { 5_671 } else { 5_672 });
        Ok(Self { tls, host, port, vhost, user, password })
    }
}

impl fmt::Display for QueueUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let encoded =
            |text: &str| form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>().replace('+', "%20");
        let scheme = if self.tls { "amqps" } else { "amqp" };
        let password = if self.password.is_some() { ":***" } else { "" };
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        write!(f, "{scheme}://{}{password}@{host}:{}/{}", encoded(&self.user), self.port, encoded(&self.vhost))
    }
}

impl fmt::Debug for QueueUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "QueueUrl({self})")
    }
}

impl Serialize for QueueUrl {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Reads the setting: nothing for an empty text.
pub(super) fn optional<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<QueueUrl>, D::Error> {
    match String::deserialize(deserializer)?.as_str() {
        "" => Ok(None),
        text => text.parse().map(Some).map_err(de::Error::custom),
    }
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret as _;

    use super::*;

    #[test]
    fn the_parts_of_a_broker_s_place_are_read() {
        let url: QueueUrl = "amqps://dis%2Fpatch:s3cr%2Bt@rabbit.example.com/camp%20aigns".parse().unwrap();
        assert_eq!((url.tls(), url.host(), url.port()), (true, "rabbit.example.com", 5_671));
        assert_eq!((url.user(), url.vhost()), ("dis/patch", "camp aigns"));
        assert_eq!(url.password().unwrap().expose_secret(), "s3cr+t");
        let url: QueueUrl = "amqp://[::1]:5673".parse().unwrap();
        assert_eq!((url.host(), url.port(), url.vhost(), url.user()), ("::1", 5_673, "/", "guest"));
        assert!(url.password().is_none());
    }

    #[test]
    fn a_password_is_never_shown() {
        let url: QueueUrl = "amqps://me:canary-7@rabbit.example.com/%2f".parse().unwrap();
        assert_eq!(url.to_string(), "amqps://me:***@rabbit.example.com:5671/%2F");
        assert!(!format!("{url:?} {}", serde_json::to_string(&url).unwrap()).contains("canary"));
    }

    #[test]
    fn a_broker_elsewhere_is_reached_with_tls_or_not_at_all() {
        for text in ["amqp://rabbit.example.com", "amqp://10.0.0.1/", "amqp://localhost.example.com"] {
            assert_eq!(text.parse::<QueueUrl>().unwrap_err(), QueueUrlError::Clear, "{text}");
        }
        for text in ["amqp://localhost/x", "amqp://127.8.8.8", "amqp://[::1]"] {
            assert!(text.parse::<QueueUrl>().is_ok(), "{text}");
        }
    }

    #[test]
    fn what_is_no_place_is_refused_unquoted() {
        for text in [
            "",
            "rabbit",
            "http://localhost",
            "amqp:///x",
            "amqp://localhost/a/b",
            "amqps://x?heartbeat=0",
            "amqps://x/%ff",
        ] {
            assert_eq!(text.parse::<QueueUrl>().unwrap_err(), QueueUrlError::Form, "{text}");
        }
    }
}
