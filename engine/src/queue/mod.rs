//! The queue: a bounded window of jobs between the scheduler and the workers.
//!
//! It is a wake-up hint. A job lost, doubled or late changes nothing but delay, because the ledger decides at the
//! claim; so the queue needs no memory of its own across a restart. [`InProcessQueue`] serves one process,
//! [`RabbitQueue`] any number of them.

mod in_process;
pub mod rabbitmq;

use dispatch_schemas::{
    ids::CampaignId,
    states::{Channel, Lane},
};
use dispatch_workers::delivery::Jobs;
use futures_util::future::BoxFuture;

pub use in_process::InProcessQueue;
pub use rabbitmq::RabbitQueue;

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

    /// Jobs of a campaign that are in the queue or with a worker; `None` when the queue is shared with other processes
    /// and cannot know. Then the ledger's counts say how many there must be.
    fn outstanding(&self, campaign: CampaignId) -> Option<usize>;

    /// Takes the jobs that workers gave back undone.
    fn take_returned(&self) -> Vec<Batch>;

    /// True once after the queue may have lost what was published: its connection broke, or it was found made anew.
    /// Whatever is ready must be published again then.
    fn take_lost(&self) -> bool;

    /// Why jobs do not travel just now, for the operator; nothing when they do.
    fn trouble(&self) -> Option<String>;

    /// Jobs in the queue, by channel and lane.
    fn depths(&self) -> Vec<(Channel, Lane, usize)>;

    /// Lets workers finish what they hold and take no more.
    fn close(&self);

    /// Completes when there is room again, or jobs were given back.
    fn changed(&self) -> BoxFuture<'_, ()>;

    /// Completes after [`close`](Queue::close), when all that was handed in has left the process or cannot leave it.
    fn finish(&self) -> BoxFuture<'_, ()>;
}
