//! The queues and exchanges on the broker: what they are called, and how they are declared.
//!
//! All of it is declared at each connection, so an empty virtual host is enough. `config/rabbitmq/definitions.json` is
//! the same as RabbitMQ's definitions, for brokers on which programs may not declare.

use dispatch_schemas::states::{Channel, Lane};
use lapin::{
    Connection, ExchangeKind,
    options::{
        ExchangeDeclareOptions, ExchangeDeleteOptions, QueueBindOptions, QueueDeclareOptions, QueueDeleteOptions,
    },
    types::{AMQPValue, FieldTable},
};
use serde_json::{Value, json};

use super::link::{BrokerError, Link, is_not_found};

/// Carries jobs that were not done to every scheduler.
pub const RETURNED: &str = "dispatch.returned";

/// The exchange and the queue for messages that cannot be worked on.
pub const SET_ASIDE: &str = "dispatch.set_aside";

/// Deliveries of one message without an acknowledgement before it is set aside. Lost connections count too, so it is
/// not small.
const DELIVERY_LIMIT: i64 = 20;

/// Most jobs in one queue, whatever the settings say; a policy may set less. Beyond it the broker refuses to take more.
const LENGTH_MAX: i64 = 1_000_000;

/// Most messages that stay set aside; the oldest go first.
const SET_ASIDE_MAX: i64 = 100_000;

/// Looking through what is set aside counts as a delivery on some versions, and must not use a limit up.
const LOOKS_MAX: i64 = 1_000_000;

/// The queue of a channel's lane.
#[must_use]
pub fn queue(channel: Channel, lane: Lane) -> String {
    format!("dispatch.{}.{}", channel.as_str(), lane.as_str())
}

/// Every channel and lane.
pub(super) fn lines() -> impl Iterator<Item = (Channel, Lane)> {
    Channel::ALL.iter().flat_map(|channel| Lane::ALL.iter().map(|lane| (*channel, *lane)))
}

/// A queue as it is declared.
pub(super) struct QueueForm {
    pub(super) name: String,
    pub(super) arguments: Vec<(&'static str, Value)>,
}

/// Every queue.
pub(super) fn queues() -> Vec<QueueForm> {
    let of_jobs = lines().map(|(channel, lane)| QueueForm {
        name: queue(channel, lane),
        arguments: vec![
            ("x-queue-type", json!("quorum")),
            ("x-delivery-limit", json!(DELIVERY_LIMIT)),
            ("x-dead-letter-exchange", json!(SET_ASIDE)),
            ("x-dead-letter-strategy", json!("at-least-once")),
            // Without this the strategy above does not hold.
            ("x-overflow", json!("reject-publish")),
            ("x-max-length", json!(LENGTH_MAX)),
        ],
    });
    let set_aside = QueueForm {
        name: SET_ASIDE.to_owned(),
        arguments: vec![
            ("x-queue-type", json!("quorum")),
            ("x-delivery-limit", json!(LOOKS_MAX)),
            ("x-overflow", json!("drop-head")),
            ("x-max-length", json!(SET_ASIDE_MAX)),
        ],
    };
    of_jobs.chain([set_aside]).collect()
}

/// The exchanges, all of them durable and of type `fanout`.
pub(super) const EXCHANGES: [&str; 2] = [RETURNED, SET_ASIDE];

/// What the program declares, as RabbitMQ's definitions of one virtual host.
#[must_use]
pub fn definitions() -> Value {
    let exchange = |name: &&str| json!({"name": name, "type": "fanout", "durable": true, "auto_delete": false, "internal": false, "arguments": {}});
    let queue = |form: &QueueForm| {
        let arguments: serde_json::Map<_, _> =
            form.arguments.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect();
        json!({"name": form.name, "durable": true, "auto_delete": false, "arguments": arguments})
    };
    json!({
        "exchanges": EXCHANGES.iter().map(exchange).collect::<Vec<_>>(),
        "queues": queues().iter().map(queue).collect::<Vec<_>>(),
        "bindings": [{
            "source": SET_ASIDE, "destination": SET_ASIDE, "destination_type": "queue", "routing_key": "", "arguments": {},
        }],
    })
}

/// Whether the queues were there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    /// All of them.
    All,
    /// At least one had to be made, so what was in it is gone.
    Made,
}

/// Declares everything.
///
/// # Errors
/// [`BrokerError::Topology`] when something of the name is there in another form.
pub(super) async fn ensure(connection: &Connection, link: &Link) -> Result<Found, BrokerError> {
    let mut found = Found::All;
    let mut channel = link.channel(connection).await?;
    for form in queues() {
        let look = channel.queue_declare(
            form.name.as_str().into(),
            QueueDeclareOptions::default().passive(),
            FieldTable::default(),
        );
        match tokio::time::timeout(super::link::ANSWER_WITHIN, look).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) if is_not_found(&error) => {
                found = Found::Made;
                channel = link.channel(connection).await?;
            }
            Ok(Err(error)) => return Err(link.error(&error)),
            Err(_) => return Err(link.lost("no answer to a declaration")),
        }
    }
    for name in EXCHANGES {
        let durable = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
        link.answer(channel.exchange_declare(name.into(), ExchangeKind::Fanout, durable, FieldTable::default()))
            .await?;
    }
    for form in queues() {
        let arguments = table(&form.arguments);
        link.answer(channel.queue_declare(form.name.as_str().into(), QueueDeclareOptions::durable(), arguments))
            .await?;
    }
    let binding = channel.queue_bind(
        SET_ASIDE.into(),
        SET_ASIDE.into(),
        "".into(),
        QueueBindOptions::default(),
        FieldTable::default(),
    );
    link.answer(binding).await?;
    link.answer(channel.close(200, "declared".into())).await?;
    Ok(found)
}

/// Whether the virtual host has any of the queues: an engine uses it, or has used it.
///
/// # Errors
/// When the broker does not answer.
pub async fn is_used(link: &Link) -> Result<bool, BrokerError> {
    let connection = link.connect("dispatch look").await?;
    let mut used = false;
    for form in queues() {
        // A channel does not outlive a look at what is not there.
        let channel = link.channel(&connection).await?;
        let look = channel.queue_declare(
            form.name.as_str().into(),
            QueueDeclareOptions::default().passive(),
            FieldTable::default(),
        );
        match tokio::time::timeout(super::link::ANSWER_WITHIN, look).await {
            Ok(Ok(_)) => used = true,
            Ok(Err(error)) if is_not_found(&error) => {}
            Ok(Err(error)) => return Err(link.error(&error)),
            Err(_) => return Err(link.lost("no answer to a look")),
        }
    }
    // What was looked at was seen, however the goodbye goes.
    let _ = link.answer(connection.close(200, "looked".into())).await;
    Ok(used)
}

/// Removes all that [`definitions`] describes, with the jobs in it.
///
/// # Errors
/// When the broker does not answer.
pub async fn remove(link: &Link) -> Result<(), BrokerError> {
    let connection = link.connect("dispatch remove").await?;
    let channel = link.channel(&connection).await?;
    for form in queues() {
        link.answer(channel.queue_delete(form.name.as_str().into(), QueueDeleteOptions::default())).await?;
    }
    for name in EXCHANGES {
        link.answer(channel.exchange_delete(name.into(), ExchangeDeleteOptions::default())).await?;
    }
    // What was removed is gone, however the goodbye goes.
    let _ = link.answer(connection.close(200, "removed".into())).await;
    Ok(())
}

/// Arguments as the client library takes them.
pub(super) fn table(arguments: &[(&'static str, Value)]) -> FieldTable {
    let mut table = FieldTable::default();
    for (key, value) in arguments {
        let value = match value {
            Value::String(text) => AMQPValue::LongString(text.as_str().into()),
            other => AMQPValue::LongLongInt(other.as_i64().unwrap_or_default()),
        };
        table.insert((*key).into(), value);
    }
    table
}
