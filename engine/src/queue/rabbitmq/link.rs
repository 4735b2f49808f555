//! How a connection to the broker is made, and what it means when it fails.

use std::time::Duration;

use lapin::{
    Channel, Connection, ConnectionProperties, ErrorKind,
    tcp::OwnedTLSConfig,
    uri::{AMQPAuthority, AMQPQueryString, AMQPScheme, AMQPUri, AMQPUserInfo},
};
use secrecy::{ExposeSecret as _, SecretString};

use crate::settings::QueueUrl;

/// Longest wait for a connection or for an answer to a declaration. Declaring quorum queues takes a healthy cluster
/// well under a second.
pub(super) const ANSWER_WITHIN: Duration = Duration::from_secs(15);

/// Seconds between signs of life: a broker that is gone without a word is noticed after two of them.
const HEARTBEAT_S: u16 = 10;

/// The password of the user that RabbitMQ makes at its first start.
const FIRST_PASSWORD: &str = "guest";

const ACCESS_REFUSED: u16 = 403;
const NOT_FOUND: u16 = 404;
const PRECONDITION_FAILED: u16 = 406;
const NOT_ALLOWED: u16 = 530;

/// Why the broker does not do what it is asked. Never holds the password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BrokerError {
    /// No connection.
    #[error("RabbitMQ cannot be reached at {place}: {why}")]
    Unreachable {
        /// Host and port.
        place: String,
        /// What the network said.
        why: String,
    },
    /// Wrong user, password, virtual host or permissions.
    #[error("RabbitMQ at {place} refuses us ({why}); check user and password, the virtual host and its permissions")]
    Refused {
        /// Host and port.
        place: String,
        /// What the broker said.
        why: String,
    },
    /// A queue or exchange of our name is there, but not as we need it.
    #[error(
        "RabbitMQ at {place} has a queue or exchange of our name that is not as it must be ({why}); delete it there: it \
         is made anew, and its jobs come again from the ledger"
    )]
    Topology {
        /// Host and port.
        place: String,
        /// What the broker said.
        why: String,
    },
    /// The connection or a channel ended.
    #[error("the connection to RabbitMQ at {place} was lost: {why}")]
    Lost {
        /// Host and port.
        place: String,
        /// What was seen.
        why: String,
    },
}

/// Where the broker is and how to get in.
pub struct Link {
    uri: AMQPUri,
    place: String,
    authority: Option<String>,
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Link({})", self.place)
    }
}

impl Link {
    /// A way to the broker at `url`. `password` wins over the URL's own; `authority` is the PEM of a certificate
    /// authority to trust beside the public ones.
    #[must_use]
    pub fn new(url: &QueueUrl, password: Option<&SecretString>, authority: Option<String>) -> Self {
        let password = password.or_else(|| url.password()).map_or(FIRST_PASSWORD, |password| password.expose_secret());
        let uri = AMQPUri {
            scheme: if url.tls() { AMQPScheme::AMQPS } else { AMQPScheme::AMQP },
            authority: AMQPAuthority {
                userinfo: AMQPUserInfo { username: url.user().to_owned(), password: password.to_owned() },
                host: url.host().to_owned(),
                port: url.port(),
            },
            vhost: url.vhost().to_owned(),
            query: AMQPQueryString { heartbeat: Some(HEARTBEAT_S), ..AMQPQueryString::default() },
        };
        let host = if url.host().contains(':') { format!("[{}]", url.host()) } else { url.host().to_owned() };
        Self { uri, place: format!("{host}:{}", url.port()), authority }
    }

    /// Connects; `name` is what the broker's operator sees.
    pub(super) async fn connect(&self, name: &str) -> Result<Connection, BrokerError> {
        let properties = ConnectionProperties::default().with_connection_name(name.into());
        let config = OwnedTLSConfig { identity: None, cert_chain: self.authority.clone() };
        let connecting = async {
            let runtime = lapin::runtime::default_runtime()?;
            Connection::connect_uri_with_config(self.uri.clone(), properties, config, runtime).await
        };
        match tokio::time::timeout(ANSWER_WITHIN, connecting).await {
            Ok(Ok(connection)) => Ok(connection),
            Ok(Err(error)) => Err(match self.error(&error) {
                BrokerError::Lost { place, why } => BrokerError::Unreachable { place, why },
                error => error,
            }),
            Err(_) => Err(self.unreachable(&format!("no answer within {} s", ANSWER_WITHIN.as_secs()))),
        }
    }

    /// Opens a channel.
    pub(super) async fn channel(&self, connection: &Connection) -> Result<Channel, BrokerError> {
        self.answer(connection.create_channel()).await
    }

    /// Waits for the broker's answer, but not for ever.
    pub(super) async fn answer<T>(&self, asked: impl Future<Output = lapin::Result<T>>) -> Result<T, BrokerError> {
        match tokio::time::timeout(ANSWER_WITHIN, asked).await {
            Ok(answer) => answer.map_err(|error| self.error(&error)),
            Err(_) => Err(self.lost(&format!("no answer within {} s", ANSWER_WITHIN.as_secs()))),
        }
    }

    fn unreachable(&self, why: &str) -> BrokerError {
        BrokerError::Unreachable { place: self.place.clone(), why: why.to_owned() }
    }

    /// The connection is of no more use.
    pub(super) fn lost(&self, why: &str) -> BrokerError {
        BrokerError::Lost { place: self.place.clone(), why: why.to_owned() }
    }

    /// What an error of the client library means.
    pub(super) fn error(&self, error: &lapin::Error) -> BrokerError {
        let place = self.place.clone();
        let ErrorKind::ProtocolError(said) = error.kind() else { return self.lost(&error.to_string()) };
        let why = said.get_message().to_string();
        match said.get_id() {
            ACCESS_REFUSED | NOT_ALLOWED => BrokerError::Refused { place, why },
            PRECONDITION_FAILED if why.contains("inequivalent") => BrokerError::Topology { place, why },
            _ => BrokerError::Lost { place, why },
        }
    }
}

/// Whether the broker says that a queue is not there.
pub(super) fn is_not_found(error: &lapin::Error) -> bool {
    matches!(error.kind(), ErrorKind::ProtocolError(said) if said.get_id() == NOT_FOUND)
}
