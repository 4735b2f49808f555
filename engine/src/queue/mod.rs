//! The queue: a bounded window of jobs between the scheduler and the workers.
//!
//! It is a wake-up hint. A job lost, doubled or late changes nothing but delay, because the ledger decides at the
//! claim; so the queue needs no memory of its own across a restart.

mod in_process;

use dispatch_schemas::{
    ids::CampaignId,
    states::{Channel, Lane},
};
use dispatch_workers::delivery::Jobs;

pub use in_process::InProcessQueue;

/// Jobs of one campaign that travel together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// Whose.
    pub campaign: CampaignId,
    /// By which channel.
    pub channel: Channel,
    /// In which lane.
    pub lane: Lane,
    /// The deliveries' numbers, ascending.
    pub seqs: Vec<i64>,
}

/// The scheduler's end of the queue; the workers' is [`Jobs`].
pub trait Queue: Jobs {
    /// Puts jobs in. The caller has asked [`room`](Queue::room) before.
    fn publish(&self, batch: Batch);

    /// How many more jobs a channel's lane takes.
    fn room(&self, channel: Channel, lane: Lane) -> usize;

    /// Jobs of a campaign that are in the queue or with a worker.
    fn outstanding(&self, campaign: CampaignId) -> usize;

    /// Takes the jobs that workers gave back undone.
    fn take_returned(&self) -> Vec<Batch>;

    /// Jobs in the queue, by channel and lane.
    fn depths(&self) -> Vec<(Channel, Lane, usize)>;

    /// Lets workers finish what they hold and take no more.
    fn close(&self);

    /// Completes when there is room again, or jobs were given back.
    fn changed(&self) -> futures_util::future::BoxFuture<'_, ()>;
}
