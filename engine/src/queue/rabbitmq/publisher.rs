//! Sends jobs to the broker, and what has to be told or set aside.
//!
//! Confirms are pipelined: a window of messages is on its way at any time, and confirms are awaited in the order of
//! sending. Each lost connection takes the jobs of the window and the buffer with it; the scheduler is told, and
//! publishes what is still ready again.

use std::{
    collections::VecDeque,
    future::poll_fn,
    pin::{Pin, pin},
    task::{Context, Poll, Waker},
    time::Duration,
};

use dispatch_schemas::states::{Channel as SendChannel, Lane};
use dispatch_workers::delivery::RetryDelay;
use futures_util::{
    FutureExt as _, Stream, StreamExt as _,
    future::{BoxFuture, MaybeDone, maybe_done},
};
use lapin::{
    BasicProperties, Channel, Confirmation, Event,
    options::{BasicPublishOptions, ConfirmSelectOptions},
    types::ShortString,
};

use super::{
    Shared,
    books::{Books, Parcel},
    link::BrokerError,
    returned, set_aside,
    topology::{self, Found},
    wire,
};

/// Messages sent and not confirmed at any time. Fewer make the broker wait between them (one by one is 30 times
/// slower); each costs about a kilobyte.
const WINDOW: usize = 2_000;

/// Free places in the window before it is filled again: filling it one by one would cost a wake-up each.
const REFILL_AT: usize = 500;

/// Waits between tries to connect.
pub(super) const RECONNECT: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(10));

/// A message that is persistent, so that it outlives the broker's process.
const PERSISTENT: u8 = 2;

/// Publishes until the queue closes, over as many connections as it takes.
pub(super) async fn run(shared: &Shared) {
    let mut delay = RetryDelay::new(RECONNECT.0, RECONNECT.1);
    loop {
        let began = shared.clock.monotonic();
        let Err(error) = session(shared).await else { return };
        if shared.clock.monotonic() > began + RECONNECT.1 {
            delay.reset();
        }
        metrics::gauge!("dispatch_queue_connected", "connection" => "publisher").set(0.0);
        tracing::warn!(%error, "the queue takes no jobs; trying again");
        shared.books().publisher_trouble = Some(error.to_string());
        tokio::select! {
            () = tokio::time::sleep(delay.next_wait()) => {}
            () = shared.consumers_ended.cancelled() => return,
        }
    }
}

async fn session(shared: &Shared) -> Result<(), BrokerError> {
    let link = &shared.link;
    let connection = tokio::select! {
        connection = link.connect("dispatch publisher") => connection?,
        // Nothing that is in the books is worth waiting for when the process ends.
        () = shared.consumers_ended.cancelled() => return Ok(()),
    };
    if topology::ensure(&connection, link).await? == Found::Made {
        shared.books().tell_lost();
    }
    let channel = link.channel(&connection).await?;
    link.answer(channel.confirm_select(ConfirmSelectOptions::default())).await?;
    // Not before: looking for queues that are not there are errors too.
    let mut events = pin!(connection.events_listener());
    shared.books().open();
    if connection.status().blocked() {
        blocked(shared);
    }
    shared.changed.notify_one();
    metrics::gauge!("dispatch_queue_connected", "connection" => "publisher").set(1.0);

    let mut window = VecDeque::with_capacity(WINDOW);
    let ended = pump(shared, &channel, events.as_mut(), &mut window).await;
    metrics::gauge!("dispatch_queue_blocked").set(0.0);
    shared.books().shut(window.drain(..).map(|sent| sent.parcel));
    if ended.is_ok() {
        // Everything is confirmed; whether the broker hears the goodbye changes nothing.
        let _ = link.answer(connection.close(200, "done".into())).await;
    }
    ended
}

/// A parcel on its way.
struct Sent<'a> {
    parcel: Parcel,
    confirm: MaybeDone<BoxFuture<'a, lapin::Result<Confirmation>>>,
}

async fn pump<'a>(
    shared: &Shared,
    channel: &'a Channel,
    mut events: Pin<&mut (impl Stream<Item = Event> + Send)>,
    window: &mut VecDeque<Sent<'a>>,
) -> Result<(), BrokerError> {
    let names = Names::new();
    loop {
        let parcels = {
            let mut books = shared.books();
            let free = WINDOW - window.len();
            if free >= REFILL_AT && !books.blocked { books.next(free) } else { Vec::new() }
        };
        for parcel in parcels {
            let mut confirm = maybe_done(send(channel, &names, &parcel, shared.clock.now_ms()));
            // Hands the frames over; who waits for the confirm is woken when it is the first of the window.
            let _ = confirm.poll_unpin(&mut Context::from_waker(Waker::noop()));
            window.push_back(Sent { parcel, confirm });
        }
        if window.is_empty() && shared.consumers_ended.is_cancelled() && shared.books().is_empty() {
            return Ok(());
        }
        let has_sent = !window.is_empty();
        tokio::select! {
            event = events.next() => match event {
                Some(Event::ConnectionBlocked(_)) => blocked(shared),
                Some(Event::ConnectionUnblocked) => unblocked(shared),
                Some(Event::Error(error)) => return Err(shared.link.error(&error)),
                None => return Err(shared.link.lost("it was closed")),
                Some(_) => {}
            },
            () = poll_fn(|cx| first_done(window, cx)), if has_sent => settle(shared, window)?,
            () = shared.outbox.notified() => {}
            () = shared.consumers_ended.cancelled(), if !has_sent && !shared.consumers_ended.is_cancelled() => {}
        }
    }
}

fn blocked(shared: &Shared) {
    tracing::warn!("RabbitMQ takes no messages: an alarm is set there (memory or disk); jobs wait in the ledger");
    metrics::gauge!("dispatch_queue_blocked").set(1.0);
    shared.books().blocked = true;
}

fn unblocked(shared: &Shared) {
    tracing::info!("RabbitMQ takes messages again");
    metrics::gauge!("dispatch_queue_blocked").set(0.0);
    shared.books().blocked = false;
    shared.changed.notify_one();
}

fn first_done(window: &mut VecDeque<Sent<'_>>, cx: &mut Context<'_>) -> Poll<()> {
    window.front_mut().map_or(Poll::Pending, |first| first.confirm.poll_unpin(cx))
}

/// Books all confirms that are there, in the order of sending.
fn settle(shared: &Shared, window: &mut VecDeque<Sent<'_>>) -> Result<(), BrokerError> {
    let mut missing = None;
    let mut books = shared.books();
    while let Some(mut first) = window.pop_front() {
        if first.confirm.poll_unpin(&mut Context::from_waker(Waker::noop())).is_pending() {
            window.push_front(first);
            break;
        }
        match Pin::new(&mut first.confirm).take_output() {
            Some(Ok(confirm)) => {
                // The confirm of one message may carry another one that was returned, so the names are read from that.
                let is_ack = confirm.is_ack();
                if let Some(returned) = confirm.take_message() {
                    missing = Some(returned.routing_key.to_string());
                }
                booked(&mut books, first.parcel, is_ack);
            }
            Some(Err(error)) => {
                window.push_front(first);
                return Err(shared.link.error(&error));
            }
            None => {}
        }
    }
    drop(books);
    match missing {
        None => Ok(()),
        Some(queue) => {
            metrics::counter!("dispatch_queue_refused_total", "why" => "unroutable").increment(1);
            Err(shared.link.lost(&format!("the queue {queue} is gone; it is being made anew")))
        }
    }
}

fn booked(books: &mut Books, parcel: Parcel, is_ack: bool) {
    match (parcel, is_ack) {
        (Parcel::Job { line, .. }, true) => books.confirmed(line),
        (Parcel::Job { line, campaign, seq }, false) => {
            metrics::counter!("dispatch_queue_refused_total", "why" => "nacked").increment(1);
            books.refused(line, campaign, seq);
        }
        (Parcel::Misfit(misfit, tags, tag), true) => {
            metrics::counter!("dispatch_queue_set_aside_total", "reason" => misfit.reason.as_str()).increment(1);
            tags.settle([tag]);
        }
        (Parcel::Misfit(misfit, tags, tag), false) => books.set_aside(*misfit, tags, tag),
        // They come again when the scheduler looks for what does not move.
        (Parcel::Returned(_) | Parcel::Lost, _) => {}
    }
}

/// The queues' names, made once.
struct Names(Vec<((SendChannel, Lane), ShortString)>);

impl Names {
    fn new() -> Self {
        Self(topology::lines().map(|line| (line, topology::queue(line.0, line.1).into())).collect())
    }

    fn of(&self, line: (SendChannel, Lane)) -> ShortString {
        self.0.iter().find(|(of, _)| *of == line).map(|(_, name)| name.clone()).unwrap_or_default()
    }
}

fn send<'a>(
    channel: &'a Channel,
    names: &Names,
    parcel: &Parcel,
    now_ms: i64,
) -> BoxFuture<'a, lapin::Result<Confirmation>> {
    match parcel {
        Parcel::Job { line, campaign, seq } => {
            let queue = names.of(*line);
            let job = wire::Written::new(*campaign, *seq);
            let properties = BasicProperties::default().with_delivery_mode(PERSISTENT);
            let mandatory = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
            Box::pin(async move {
                let sent = channel.basic_publish(ShortString::default(), queue, mandatory, job.as_bytes(), properties);
                sent.await?.await
            })
        }
        Parcel::Returned(batch) => tell(channel, returned::write(batch)),
        Parcel::Lost => tell(channel, returned::write_lost()),
        Parcel::Misfit(misfit, ..) => Box::pin(set_aside::publish(channel, misfit.as_ref().clone(), now_ms)),
    }
}

/// Tells every scheduler.
fn tell(channel: &Channel, message: Vec<u8>) -> BoxFuture<'_, lapin::Result<Confirmation>> {
    Box::pin(async move {
        let (to, options) = (topology::RETURNED.into(), BasicPublishOptions::default());
        let properties = BasicProperties::default();
        channel.basic_publish(to, ShortString::default(), options, &message, properties).await?.await
    })
}
