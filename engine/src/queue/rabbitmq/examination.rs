//! A look at the broker, for whoever runs it. It makes nothing and takes nothing.

use std::time::Duration;

use lapin::{
    BasicProperties, Channel, Connection, ExchangeKind,
    options::{BasicPublishOptions, ConfirmSelectOptions, ExchangeDeclareOptions, QueueDeclareOptions},
    types::FieldTable,
};

use super::{
    link::{BrokerError, Link, is_not_found},
    topology::{self, EXCHANGES, QueueForm, table},
};

/// How long a broker without an alarm may take to confirm a message.
const CONFIRM_WITHIN: Duration = Duration::from_secs(5);
/// Names no queue: what is published to it is dropped by the broker.
const NOBODYS: &str = "dispatch.doctor";

/// What was found on a broker.
#[derive(Debug, Clone)]
pub struct Examined {
    /// The queues and exchanges by name, and how each is.
    pub things: Vec<(String, Thing)>,
    /// Messages nobody could work on.
    pub set_aside: u32,
    /// Whether it takes messages.
    pub takes: Takes,
}

/// How a queue or an exchange is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Thing {
    /// As it must be.
    Well,
    /// Not there: the next engine makes it.
    Missing,
    /// Of another kind or with other arguments, in the broker's words.
    Other(String),
}

/// Whether a broker takes messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Takes {
    /// At once.
    Promptly,
    /// An alarm of its memory or its disk holds every publisher up.
    Alarmed,
    /// It did not confirm a message in time.
    Slowly,
}

/// Looks at the broker as the engine would use it.
///
/// # Errors
/// When it cannot be reached, or refuses us.
pub async fn examine(link: &Link) -> Result<Examined, BrokerError> {
    let connection = link.connect("dispatch doctor").await?;
    let mut things = Vec::new();
    let mut set_aside = 0;
    for form in topology::queues() {
        let (thing, messages) = queue(link, &connection, &form).await?;
        if form.name == topology::SET_ASIDE {
            set_aside = messages;
        }
        things.push((form.name, thing));
    }
    for name in EXCHANGES {
        things.push((format!("exchange {name}"), exchange(link, &connection, name).await?));
    }
    let takes = takes(link, &connection).await?;
    // What was looked at was seen, however the goodbye goes.
    let _ = link.answer(connection.close(200, "looked".into())).await;
    Ok(Examined { things, set_aside, takes })
}

/// A queue, and the messages in it. Declaring again what is there tells whether it is the same.
async fn queue(link: &Link, connection: &Connection, form: &QueueForm) -> Result<(Thing, u32), BrokerError> {
    // A channel does not outlive a refusal.
    let channel = link.channel(connection).await?;
    let name = || form.name.as_str().into();
    let look = QueueDeclareOptions::default().passive();
    let found = told(link, channel.queue_declare(name(), look, FieldTable::default())).await?;
    let messages = match found {
        Ok(queue) => queue.message_count(),
        Err(thing) => return Ok((thing, 0)),
    };
    let same = channel.queue_declare(name(), QueueDeclareOptions::durable(), table(&form.arguments));
    let same = told(link, same).await?;
    close(&channel).await;
    Ok((same.map_or_else(|thing| thing, |_| Thing::Well), messages))
}

async fn exchange(link: &Link, connection: &Connection, name: &str) -> Result<Thing, BrokerError> {
    let channel = link.channel(connection).await?;
    for options in [
        ExchangeDeclareOptions { passive: true, ..ExchangeDeclareOptions::default() },
        ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() },
    ] {
        let declared = channel.exchange_declare(name.into(), ExchangeKind::Fanout, options, FieldTable::default());
        if let Err(thing) = told(link, declared).await? {
            return Ok(thing);
        }
    }
    close(&channel).await;
    Ok(Thing::Well)
}

/// What an answer says of a thing.
async fn told<T>(link: &Link, asked: impl Future<Output = lapin::Result<T>>) -> Result<Result<T, Thing>, BrokerError> {
    let answer = tokio::time::timeout(super::link::ANSWER_WITHIN, asked).await;
    match answer.map_err(|_| link.lost("no answer to a look"))? {
        Ok(found) => Ok(Ok(found)),
        Err(error) if is_not_found(&error) => Ok(Err(Thing::Missing)),
        Err(error) => match link.error(&error) {
            BrokerError::Topology { why, .. } => Ok(Err(Thing::Other(why))),
            error => Err(error),
        },
    }
}

/// The broker tells of its alarms to those who publish only. The message goes to nobody.
async fn takes(link: &Link, connection: &Connection) -> Result<Takes, BrokerError> {
    let channel = link.channel(connection).await?;
    link.answer(channel.confirm_select(ConfirmSelectOptions::default())).await?;
    let published = async {
        let properties = BasicProperties::default();
        let options = BasicPublishOptions::default();
        channel.basic_publish("".into(), NOBODYS.into(), options, b"", properties).await?.await
    };
    match tokio::time::timeout(CONFIRM_WITHIN, published).await {
        Ok(Ok(_)) => Ok(Takes::Promptly),
        Ok(Err(error)) => Err(link.error(&error)),
        Err(_) if connection.status().blocked() => Ok(Takes::Alarmed),
        Err(_) => Ok(Takes::Slowly),
    }
}

async fn close(channel: &Channel) {
    // It goes with its connection otherwise.
    let _ = tokio::time::timeout(CONFIRM_WITHIN, channel.close(200, "looked".into())).await;
}
