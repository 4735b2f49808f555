//! Messages nobody can work on: kept apart with their reason, for an operator to look at.
//!
//! Nothing depends on them. A job that was set aside is still in the ledger and is published again from there; a message
//! that is no job was not ours. What it held is not kept unless it is a few numbers, because it may be about a person.

use std::{collections::BTreeMap, time::Duration};

use dispatch_schemas::states::{Channel as SendChannel, Lane};
use futures_util::StreamExt as _;
use lapin::{
    BasicProperties, Channel, Confirmation, Connection,
    message::Delivery,
    options::{
        BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions, ConfirmSelectOptions,
        QueueDeclareOptions,
    },
    types::{AMQPValue, FieldTable, ShortString},
};
use serde::Serialize;

use super::{
    link::{BrokerError, Link},
    topology, wire,
};

/// How long the next message is waited for before a look counts as over: another process may have taken it.
const NEXT_WITHIN: Duration = Duration::from_secs(5);

/// How often is looked whether the messages are back.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// Why a message is set aside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// It is no job.
    Malformed,
    /// It is a job of a version that the program did not know.
    UnknownVersion,
    /// Its campaign is gone, or this program cannot send it.
    CampaignGone,
    /// It was delivered too often without an acknowledgement.
    DeliveryLimit,
    /// The message does not say.
    Unknown,
}

impl Reason {
    /// All.
    pub const ALL: [Self; 5] =
        [Self::Malformed, Self::UnknownVersion, Self::CampaignGone, Self::DeliveryLimit, Self::Unknown];

    /// The word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::UnknownVersion => "unknown_version",
            Self::CampaignGone => "campaign_gone",
            Self::DeliveryLimit => "delivery_limit",
            Self::Unknown => "unknown",
        }
    }

    fn of(word: &str) -> Self {
        Self::ALL.into_iter().find(|reason| reason.as_str() == word).unwrap_or(Self::Unknown)
    }
}

impl std::str::FromStr for Reason {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        let wanted = || Self::ALL.map(Self::as_str).join(", ");
        Self::ALL
            .into_iter()
            .find(|reason| reason.as_str() == word)
            .ok_or_else(|| format!("it is one of: {}", wanted()))
    }
}

impl Serialize for Reason {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// A message on its way to be set aside.
#[derive(Debug, Clone)]
pub(super) struct Misfit {
    pub(super) reason: Reason,
    line: (SendChannel, Lane),
    bytes: usize,
    body: Option<Vec<u8>>,
}

impl Misfit {
    /// A message of `bytes` bytes from a queue, with what is kept of it.
    pub(super) const fn new(reason: Reason, line: (SendChannel, Lane), bytes: usize, body: Option<Vec<u8>>) -> Self {
        Self { reason, line, bytes, body }
    }
}

/// Publishes a message to where it is set aside.
pub(super) async fn publish(channel: &Channel, misfit: Misfit, now_ms: i64) -> lapin::Result<Confirmation> {
    let mut headers = FieldTable::default();
    headers.insert("reason".into(), AMQPValue::LongString(misfit.reason.as_str().into()));
    headers.insert("queue".into(), AMQPValue::LongString(topology::queue(misfit.line.0, misfit.line.1).into()));
    headers.insert("bytes".into(), AMQPValue::LongLongInt(i64::try_from(misfit.bytes).unwrap_or(i64::MAX)));
    headers.insert("at_ms".into(), AMQPValue::LongLongInt(now_ms));
    let properties = BasicProperties::default().with_delivery_mode(2).with_headers(headers);
    let body = misfit.body.unwrap_or_default();
    let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
    channel.basic_publish(topology::SET_ASIDE.into(), ShortString::default(), options, &body, properties).await?.await
}

/// A message that is set aside: ids and where it comes from, nothing of what it held.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Kept {
    /// Why.
    pub reason: Reason,
    /// Of which queue, if it says.
    pub queue: Option<String>,
    /// When, milliseconds since 1970, if it says.
    pub at_ms: Option<i64>,
    /// How long it was, bytes.
    pub bytes: i64,
    /// The job's campaign, if it is a job.
    pub campaign: Option<i64>,
    /// The job's number, if it is a job.
    pub seq: Option<i64>,
    /// Whether it can be put back into its queue.
    pub replayable: bool,
}

impl Kept {
    fn of(delivery: &Delivery) -> Self {
        let none = FieldTable::default();
        let headers = delivery.properties.headers().as_ref().unwrap_or(&none);
        let ours = |name: &str| headers.inner().get(name);
        let at_ms =
            ours("at_ms").and_then(number).or_else(|| Some(number(died(headers)?.inner().get("time")?)? * 1_000));
        let (reason, queue) = match ours("reason").and_then(text) {
            Some(word) => (Reason::of(&word), ours("queue").and_then(text)),
            // Without our headers it was dead-lettered by the broker, which has its own.
            None => {
                let of = |name: &str| died(headers).and_then(|death| death.inner().get(name).and_then(text));
                (of("reason").map_or(Reason::Unknown, |word| Reason::of(&word)), of("queue"))
            }
        };
        let queue = queue.filter(|queue| topology::lines().any(|line| topology::queue(line.0, line.1) == *queue));
        let job = wire::read(&delivery.data).ok();
        let is_kept = job.is_some() || (reason == Reason::UnknownVersion && !delivery.data.is_empty());
        let length = i64::try_from(delivery.data.len()).unwrap_or(i64::MAX);
        Self {
            reason,
            at_ms,
            bytes: ours("bytes").and_then(number).unwrap_or(length),
            campaign: job.map(|(campaign, _)| campaign.0),
            seq: job.map(|(_, seq)| seq),
            replayable: is_kept && queue.is_some(),
            queue,
        }
    }
}

/// The newest death in the broker's header.
fn died(headers: &FieldTable) -> Option<&FieldTable> {
    match headers.inner().get("x-death") {
        Some(AMQPValue::FieldArray(deaths)) => match deaths.as_slice().first() {
            Some(AMQPValue::FieldTable(death)) => Some(death),
            _ => None,
        },
        _ => None,
    }
}

fn text(value: &AMQPValue) -> Option<String> {
    match value {
        AMQPValue::LongString(text) => Some(text.to_string()),
        AMQPValue::ShortString(text) => Some(text.to_string()),
        _ => None,
    }
}

fn number(value: &AMQPValue) -> Option<i64> {
    match value {
        AMQPValue::LongLongInt(number) => Some(*number),
        AMQPValue::LongInt(number) => Some(i64::from(*number)),
        AMQPValue::Timestamp(seconds) => i64::try_from(*seconds).ok(),
        _ => None,
    }
}

/// What an operation came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Outcome {
    /// Messages put back or dropped.
    pub done: u64,
    /// Messages that stay.
    pub left: u64,
}

/// An operator's look at what is set aside.
pub struct SetAside {
    link: Link,
    connection: Connection,
}

impl std::fmt::Debug for SetAside {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SetAside({:?})", self.link)
    }
}

enum Verdict {
    Stays,
    Goes,
}

impl SetAside {
    /// Connects to the broker, declaring what is missing there.
    ///
    /// # Errors
    /// [`BrokerError`]
    pub async fn open(link: Link) -> Result<Self, BrokerError> {
        let connection = link.connect("dispatch jobs").await?;
        topology::ensure(&connection, &link).await?;
        Ok(Self { link, connection })
    }

    /// How many messages there are, by reason.
    ///
    /// # Errors
    /// [`BrokerError`]
    pub async fn count(&self) -> Result<BTreeMap<Reason, u64>, BrokerError> {
        let mut counts = BTreeMap::new();
        self.each(async |_, kept, _| {
            *counts.entry(kept.reason).or_default() += 1;
            Ok(Verdict::Stays)
        })
        .await?;
        Ok(counts)
    }

    /// The oldest messages, at most `limit`.
    ///
    /// # Errors
    /// [`BrokerError`]
    pub async fn list(&self, limit: usize) -> Result<Vec<Kept>, BrokerError> {
        let mut list = Vec::new();
        self.each(async |_, kept, _| {
            if list.len() < limit {
                list.push(kept);
            }
            Ok(Verdict::Stays)
        })
        .await?;
        Ok(list)
    }

    /// Puts jobs back into their queues: all, or those of one reason. What is no job stays.
    ///
    /// # Errors
    /// [`BrokerError`]; what was put back until then stays put back.
    pub async fn replay(&self, only: Option<Reason>) -> Result<Outcome, BrokerError> {
        self.each(async |channel, kept, body| {
            let (true, Some(queue)) = (kept.replayable && only.is_none_or(|only| only == kept.reason), &kept.queue)
            else {
                return Ok(Verdict::Stays);
            };
            let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
            let properties = BasicProperties::default().with_delivery_mode(2);
            let sent =
                channel.basic_publish(ShortString::default(), queue.as_str().into(), options, body, properties).await?;
            let confirm = sent.await?;
            let taken = confirm.is_ack() && confirm.take_message().is_none();
            Ok(if taken { Verdict::Goes } else { Verdict::Stays })
        })
        .await
    }

    /// Drops messages for good: all, or those of one reason.
    ///
    /// # Errors
    /// [`BrokerError`]; what was dropped until then stays dropped.
    pub async fn drop(&self, only: Option<Reason>) -> Result<Outcome, BrokerError> {
        self.each(async |_, kept, _| {
            Ok(if only.is_none_or(|only| only == kept.reason) { Verdict::Goes } else { Verdict::Stays })
        })
        .await
    }

    /// Looks at each message that is there now. Those that stay are back when the channel closes.
    async fn each(
        &self,
        mut look: impl AsyncFnMut(&Channel, Kept, &[u8]) -> lapin::Result<Verdict>,
    ) -> Result<Outcome, BrokerError> {
        let link = &self.link;
        let channel = link.channel(&self.connection).await?;
        link.answer(channel.confirm_select(ConfirmSelectOptions::default())).await?;
        let mut left = self.ready(&channel).await?;
        // All of them stay unacknowledged while we look, so that none is seen twice.
        link.answer(channel.basic_qos(0, BasicQosOptions::default())).await?;
        let options = BasicConsumeOptions::default();
        let consuming = channel.basic_consume(topology::SET_ASIDE.into(), "".into(), options, FieldTable::default());
        let mut consumer = link.answer(consuming).await?;
        let mut outcome = Outcome::default();
        while left > 0 {
            let Ok(next) = tokio::time::timeout(NEXT_WITHIN, consumer.next()).await else { break };
            let delivery =
                next.ok_or_else(|| link.lost("the queue was deleted"))?.map_err(|error| link.error(&error))?;
            left -= 1;
            let kept = Kept::of(&delivery);
            match look(&channel, kept, &delivery.data).await.map_err(|error| link.error(&error))? {
                Verdict::Stays => outcome.left += 1,
                Verdict::Goes => {
                    outcome.done += 1;
                    let acked = channel.basic_ack(delivery.delivery_tag, BasicAckOptions::default());
                    link.answer(acked).await?;
                }
            }
        }
        drop(consumer);
        link.answer(channel.close(200, "seen".into())).await?;
        self.back(outcome.left).await?;
        Ok(outcome)
    }

    /// Waits until the messages that were looked at are back, so that the next look sees them. It gives up after a
    /// while, for another look may have them.
    async fn back(&self, messages: u64) -> Result<(), BrokerError> {
        let channel = self.link.channel(&self.connection).await?;
        let mut waited = Duration::ZERO;
        while u64::from(self.ready(&channel).await?) < messages && waited < NEXT_WITHIN {
            tokio::time::sleep(LOOK_AGAIN).await;
            waited += LOOK_AGAIN;
        }
        self.link.answer(channel.close(200, "seen".into())).await
    }

    /// Messages that nobody has.
    async fn ready(&self, channel: &Channel) -> Result<u32, BrokerError> {
        let passive = QueueDeclareOptions::default().passive();
        let queue = channel.queue_declare(topology::SET_ASIDE.into(), passive, FieldTable::default());
        Ok(self.link.answer(queue).await?.message_count())
    }
}
