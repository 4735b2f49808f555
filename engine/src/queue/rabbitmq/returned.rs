//! What schedulers are told: of jobs that a worker could not get to, on their way back, and of queues that had to be made
//! anew.
//!
//! Jobs are acknowledged on their queue and told to every scheduler on a fanout exchange, each of which has a queue of
//! its own there for as long as it is connected. Nothing depends on the arrival: a scheduler looks again for what is
//! ready and does not move.

use dispatch_schemas::{
    ids::CampaignId,
    states::{Channel, Lane},
};
use futures_util::StreamExt as _;
use lapin::{
    Connection, Consumer,
    options::{BasicConsumeOptions, QueueBindOptions, QueueDeclareOptions},
    types::{AMQPValue, FieldTable},
};
use serde::{Deserialize, Serialize};

use super::{Shared, link::BrokerError, topology};
use crate::queue::Batch;

/// The version of [`Returned`] this program writes.
const VERSION: u8 = 1;

/// Most jobs in one message.
pub(super) const JOBS_MAX: usize = 1_000;

/// Longest message that is read: the numbers of that many jobs and what surrounds them.
const BYTES_MAX: usize = 32 * 1_024;

/// Most messages that wait for one scheduler; older ones go first.
const WAITING_MAX: i64 = 10_000;

/// What a scheduler hears.
#[derive(Debug, PartialEq, Eq)]
enum News {
    /// Jobs that were not done.
    Returned(Batch),
    /// A queue had to be made anew.
    Lost,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Lost {
    v: u8,
    lost: bool,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Returned {
    v: u8,
    c: i64,
    channel: Channel,
    lane: Lane,
    s: Vec<i64>,
}

/// What travels.
pub(super) fn write(batch: &Batch) -> Vec<u8> {
    let returned =
        Returned { v: VERSION, c: batch.campaign.0, channel: batch.channel, lane: batch.lane, s: batch.seqs.clone() };
    // Numbers and words can be written as JSON; an empty message would be passed over.
    serde_json::to_vec(&returned).unwrap_or_default()
}

/// The word that a queue had to be made anew.
pub(super) fn write_lost() -> Vec<u8> {
    serde_json::to_vec(&Lost { v: VERSION, lost: true }).unwrap_or_default()
}

/// What has travelled; nothing when it is not of our making.
fn read(bytes: &[u8]) -> Option<News> {
    if bytes.len() > BYTES_MAX {
        return None;
    }
    if let Ok(Lost { v: VERSION, lost: true }) = serde_json::from_slice(bytes) {
        return Some(News::Lost);
    }
    let returned: Returned = serde_json::from_slice(bytes).ok().filter(|returned: &Returned| returned.v == VERSION)?;
    let seqs = returned.s;
    let fits = !seqs.is_empty() && seqs.len() <= JOBS_MAX && seqs[0] >= 0 && seqs.is_sorted_by(|a, b| a < b);
    let batch = Batch { campaign: CampaignId(returned.c), channel: returned.channel, lane: returned.lane, seqs };
    fits.then_some(News::Returned(batch))
}

/// Makes this scheduler's own queue: from then on nothing that is given back passes it by.
pub(super) async fn listen(shared: &Shared, connection: &Connection) -> Result<Consumer, BrokerError> {
    let link = &shared.link;
    let channel = link.channel(connection).await?;
    let mut arguments = FieldTable::default();
    arguments.insert("x-max-length".into(), AMQPValue::LongLongInt(WAITING_MAX));
    let own = QueueDeclareOptions::exclusive().auto_delete();
    let queue = link.answer(channel.queue_declare("".into(), own, arguments)).await?.name().clone();
    let binding = channel.queue_bind(
        queue.clone(),
        topology::RETURNED.into(),
        "".into(),
        QueueBindOptions::default(),
        FieldTable::default(),
    );
    link.answer(binding).await?;
    let options = BasicConsumeOptions { no_ack: true, exclusive: true, ..BasicConsumeOptions::default() };
    link.answer(channel.basic_consume(queue, "".into(), options, FieldTable::default())).await
}

/// Hears what is told until the connection ends or the queue closes.
pub(super) async fn hear(shared: &Shared, mut consumer: Consumer) -> Result<(), BrokerError> {
    let link = &shared.link;
    loop {
        let heard = tokio::select! {
            heard = consumer.next() => heard,
            () = shared.closing.cancelled() => return Ok(()),
        };
        let message = heard.ok_or_else(|| link.lost("a queue of ours was deleted"))?;
        let message = message.map_err(|error| link.error(&error))?;
        match read(&message.data) {
            Some(News::Returned(batch)) => shared.books().give_back(batch),
            Some(News::Lost) => shared.books().lost(),
            None => metrics::counter!("dispatch_queue_refused_total", "why" => "unreadable").increment(1),
        }
        shared.changed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(seqs: Vec<i64>) -> Batch {
        Batch { campaign: CampaignId(i64::MAX), channel: Channel::Sms, lane: Lane::Transactional, seqs }
    }

    #[test]
    fn the_fullest_message_is_read_back() {
        let full = batch((0..JOBS_MAX as i64).map(|n| i64::MAX - JOBS_MAX as i64 + n).collect());
        assert_eq!(read(&write(&full)), Some(News::Returned(full)));
        assert_eq!(read(&write_lost()), Some(News::Lost));
    }

    #[test]
    fn what_is_not_of_our_making_is_passed_over() {
        for seqs in [vec![], vec![2, 1], vec![1, 1], vec![-1], (0..=JOBS_MAX as i64).collect()] {
            assert_eq!(read(&write(&batch(seqs))), None);
        }
        for text in [
            "",
            "{}",
            r#"{"v":2,"lost":true}"#,
            r#"{"v":1,"lost":false}"#,
            r#"{"v":2,"c":1,"channel":"email","lane":"bulk","s":[1]}"#,
        ] {
            assert_eq!(read(text.as_bytes()), None);
        }
    }
}
