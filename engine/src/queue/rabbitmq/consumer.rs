//! Gets jobs from the broker ahead of the workers, and acknowledges what is done.
//!
//! It has a connection of its own, on which nothing is ever published: when the broker blocks publishers, jobs go on
//! being taken and acknowledged.

use std::{collections::HashSet, pin::pin, sync::Arc, time::Duration};

use dispatch_schemas::states::{Channel as SendChannel, Lane};
use dispatch_workers::delivery::RetryDelay;
use futures_util::{StreamExt as _, future::join_all};
use lapin::{
    Channel, Connection, Event,
    message::Delivery,
    options::{BasicAckOptions, BasicCancelOptions, BasicConsumeOptions, BasicQosOptions, QueueDeclareOptions},
    types::FieldTable,
};
use tokio::task::JoinSet;

use super::{
    Shared, Side,
    link::BrokerError,
    publisher::RECONNECT,
    receipts::Tags,
    returned,
    set_aside::{Misfit, Reason},
    topology::{self, Found},
    wire::{self, Unreadable},
};

/// Messages taken over from the connection in one step.
const CHUNK: usize = 1_000;

/// Single messages one process takes ahead: few, so that none waits here while another process is free.
const TRANSACTIONAL_PREFETCH: u16 = 200;

/// How often the broker is asked how much is in its queues, and how often when one has little room left.
const MEASURE_EVERY: Duration = Duration::from_secs(1);
const MEASURE_SOON: Duration = Duration::from_millis(100);

/// Consumes until the queue closes, over as many connections as it takes.
pub(super) async fn run(shared: &Arc<Shared>) {
    let mut delay = RetryDelay::new(RECONNECT.0, RECONNECT.1);
    loop {
        let began = shared.clock.monotonic();
        let Err(error) = session(shared).await else { break };
        if shared.clock.monotonic() > began + RECONNECT.1 {
            delay.reset();
        }
        metrics::gauge!("dispatch_queue_connected", "connection" => "consumer").set(0.0);
        tracing::warn!(%error, "no jobs are taken from the queue; trying again");
        shared.books().consumer_trouble = Some(error.to_string());
        tokio::select! {
            () = tokio::time::sleep(delay.next_wait()) => {}
            () = shared.closing.cancelled() => break,
        }
    }
    shared.consumers_ended.cancel();
}

async fn session(shared: &Arc<Shared>) -> Result<(), BrokerError> {
    let link = &shared.link;
    let connection = tokio::select! {
        connection = link.connect("dispatch consumer") => Arc::new(connection?),
        () = shared.closing.cancelled() => return Ok(()),
    };
    if topology::ensure(&connection, link).await? == Found::Made {
        shared.books().tell_lost();
        shared.outbox.notify_one();
        shared.changed.notify_one();
    }
    let mut tasks = JoinSet::new();
    if shared.side == Side::Scheduler {
        let (of, on) = (shared.clone(), connection.clone());
        tasks.spawn(async move { measure(&of, &on).await });
        // Before this process takes a job, so that it hears of what it gives back itself.
        let listening = returned::listen(shared, &connection).await?;
        let of = shared.clone();
        tasks.spawn(async move { returned::hear(&of, listening).await });
    }
    shared.books().consumer_trouble = None;
    metrics::gauge!("dispatch_queue_connected", "connection" => "consumer").set(1.0);
    let ended = attend(shared, &connection, &mut tasks).await;
    // Before the next connection begins: what its consumers have must not be forgotten with what these had.
    tasks.shutdown().await;
    if ended.is_ok() {
        // All that was done is acknowledged; what was not comes again.
        let _ = link.answer(connection.close(200, "done".into())).await;
    }
    ended
}

/// Keeps a task for each channel and lane that workers ask for, until one of them ends.
async fn attend(
    shared: &Arc<Shared>,
    connection: &Arc<Connection>,
    tasks: &mut JoinSet<Result<(), BrokerError>>,
) -> Result<(), BrokerError> {
    let link = &shared.link;
    let mut events = pin!(connection.events_listener());
    let mut tapped = HashSet::new();
    loop {
        for line in shared.wanted() {
            if !shared.closing.is_cancelled() && tapped.insert(line) {
                let (of, on) = (shared.clone(), connection.clone());
                tasks.spawn(async move { tap(&of, &on, line).await });
            }
        }
        if tasks.is_empty() && shared.closing.is_cancelled() {
            return Ok(());
        }
        tokio::select! {
            Some(ended) = tasks.join_next() => match ended {
                Ok(ended) => ended?,
                Err(_) => return Err(link.lost("a task of ours ended")),
            },
            event = events.next() => match event {
                Some(Event::Error(error)) => return Err(link.error(&error)),
                None => return Err(link.lost("it was closed")),
                Some(_) => {}
            },
            () = shared.tap_wanted.notified() => {}
            () = shared.closing.cancelled(), if !shared.closing.is_cancelled() => {}
        }
    }
}

/// Asks the broker again and again how much is in its queues.
async fn measure(shared: &Shared, connection: &Connection) -> Result<(), BrokerError> {
    let link = &shared.link;
    let channel = link.channel(connection).await?;
    loop {
        for line in topology::lines() {
            let confirmed = shared.books().confirmed_until_now(line);
            let name = topology::queue(line.0, line.1);
            let passive = QueueDeclareOptions::default().passive();
            let queue = link.answer(channel.queue_declare(name.into(), passive, FieldTable::default())).await?;
            let depth = usize::try_from(queue.message_count()).unwrap_or(usize::MAX);
            shared.books().measured(line, depth, confirmed);
        }
        shared.books().release_refused();
        shared.changed.notify_one();
        let soon = shared.books().is_nearly_full();
        tokio::select! {
            () = tokio::time::sleep(if soon { MEASURE_SOON } else { MEASURE_EVERY }) => {}
            () = shared.closing.cancelled() => return Ok(()),
        }
    }
}

/// Takes the jobs of one channel and lane until the connection ends or the queue closes.
async fn tap(shared: &Shared, connection: &Connection, line: (SendChannel, Lane)) -> Result<(), BrokerError> {
    let link = &shared.link;
    let prefetch = match line.1 {
        Lane::Bulk => shared.prefetch,
        Lane::Transactional => shared.prefetch.min(TRANSACTIONAL_PREFETCH),
    };
    let channel = link.channel(connection).await?;
    link.answer(channel.basic_qos(prefetch, BasicQosOptions::default())).await?;
    let queue = topology::queue(line.0, line.1);
    let consuming =
        channel.basic_consume(queue.into(), "".into(), BasicConsumeOptions::default(), FieldTable::default());
    let consumer = link.answer(consuming).await?;
    let ending = Ending { shared, line, tags: Arc::new(Tags::new(prefetch)) };
    take_jobs(shared, &channel, consumer, line, &ending.tags).await
}

/// However the consumer ends: what it had is not handed out, and what is with workers is not acknowledged elsewhere.
struct Ending<'a> {
    shared: &'a Shared,
    line: (SendChannel, Lane),
    tags: Arc<Tags>,
}

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.tags.end();
        self.shared.prefetched().forget(self.line);
    }
}

async fn take_jobs(
    shared: &Shared,
    channel: &Channel,
    consumer: lapin::Consumer,
    line: (SendChannel, Lane),
    tags: &Arc<Tags>,
) -> Result<(), BrokerError> {
    let link = &shared.link;
    let name = consumer.tag();
    let mut deliveries = consumer.ready_chunks(CHUNK);
    let mut takes = true;
    loop {
        tokio::select! {
            chunk = deliveries.next(), if takes => {
                let chunk = chunk.ok_or_else(|| link.lost("the broker ended the consumption of a queue"))?;
                arrived(shared, line, tags, chunk)?;
            }
            () = tags.settled.notified() => acknowledge(shared, channel, tags).await?,
            () = shared.closing.cancelled(), if takes => {
                takes = false;
                link.answer(channel.basic_cancel(name.clone(), BasicCancelOptions::default())).await?;
                shared.prefetched().forget(line);
            }
        }
        if !takes && tags.out() == 0 {
            return acknowledge(shared, channel, tags).await;
        }
    }
}

fn arrived(
    shared: &Shared,
    line: (SendChannel, Lane),
    tags: &Arc<Tags>,
    chunk: Vec<lapin::Result<Delivery>>,
) -> Result<(), BrokerError> {
    let mut jobs = Vec::with_capacity(chunk.len());
    let mut misfits = Vec::new();
    for delivery in chunk {
        let delivery = delivery.map_err(|error| shared.link.error(&error))?;
        let (tag, bytes) = (delivery.delivery_tag, delivery.data);
        tags.arrived(tag);
        match wire::read(&bytes) {
            Ok((campaign, seq)) => jobs.push((campaign, seq, tag)),
            Err(Unreadable::Version(body)) => {
                misfits.push((Misfit::new(Reason::UnknownVersion, line, bytes.len(), body), tag));
            }
            Err(Unreadable::Malformed) => {
                misfits.push((Misfit::new(Reason::Malformed, line, bytes.len(), None), tag));
            }
        }
    }
    if !misfits.is_empty() {
        tracing::warn!(
            messages = misfits.len(),
            queue = topology::queue(line.0, line.1),
            "messages that are no jobs are set aside; `dispatch jobs list` shows them"
        );
        let mut books = shared.books();
        misfits.into_iter().for_each(|(misfit, tag)| books.set_aside(misfit, tags.clone(), tag));
        drop(books);
        shared.outbox.notify_one();
    }
    if !jobs.is_empty() {
        shared.prefetched().add(line, tags, jobs.into_iter(), shared.clock.monotonic());
        shared.filled.notify_waiters();
    }
    Ok(())
}

async fn acknowledge(shared: &Shared, channel: &Channel, tags: &Tags) -> Result<(), BrokerError> {
    let acks = tags.acks();
    let all = BasicAckOptions { multiple: true };
    let one = BasicAckOptions::default();
    if let Some(tag) = acks.up_to {
        channel.basic_ack(tag, all).await.map_err(|error| shared.link.error(&error))?;
    }
    for acked in join_all(acks.singles.iter().map(|tag| channel.basic_ack(*tag, one))).await {
        acked.map_err(|error| shared.link.error(&error))?;
    }
    Ok(())
}
