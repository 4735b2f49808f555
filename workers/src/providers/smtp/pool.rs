//! The connections of an account, kept open and used again.
//!
//! No more are open than the account may have requests; each carries a bounded number of mails, and one that lies
//! idle is closed. The lock guards the list alone and is never held while anything is waited for.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use tokio::sync::{Semaphore, SemaphorePermit};

use super::{connection::Connection, opening, relay::Relay, replies::Ending};
use crate::clock::Clock;

/// Mails over one connection. Relays cut long ones off (SendGrid at 5,000), and a fresh one spreads over a balancer.
pub(super) const MAILS_PER_CONNECTION_MAX: usize = 1_000;

/// A connection idle for longer is closed; relays close them after a minute or a few (RFC 5321 §4.5.3.2.7: five).
pub(super) const IDLE_MAX: Duration = Duration::from_secs(30);

/// The connections of an account.
pub(super) struct Pool {
    relay: Relay,
    clock: Arc<dyn Clock>,
    slots: Semaphore,
    shelf: Mutex<Shelf>,
}

/// The connections nobody uses now. The last in is the first out, so that those too many grow old at the front.
#[derive(Default)]
struct Shelf {
    idle: Vec<Idle>,
    keeper: Keeper,
}

/// A connection on the shelf, and since when.
pub(super) struct Idle {
    connection: Connection,
    since: Duration,
}

/// The task that closes old connections.
#[derive(Default, PartialEq, Eq)]
enum Keeper {
    #[default]
    Absent,
    Present,
}

impl Pool {
    /// An empty pool of at most `open_max` connections.
    pub(super) fn new(relay: Relay, open_max: usize, clock: Arc<dyn Clock>) -> Arc<Self> {
        Arc::new(Self { relay, clock, slots: Semaphore::new(open_max), shelf: Mutex::default() })
    }

    /// The right to use one connection; waits for it.
    pub(super) async fn slot(&self) -> Option<SemaphorePermit<'_>> {
        // Fails when the semaphore is closed, which nobody does.
        self.slots.acquire().await.ok()
    }

    /// A connection that was used before and is still good.
    pub(super) fn idle(&self) -> Option<Connection> {
        let now = self.clock.monotonic();
        loop {
            let Idle { connection, since } = self.shelf().idle.pop()?;
            if now.saturating_sub(since) <= IDLE_MAX && !connection.is_stale() {
                return Some(connection);
            }
        }
    }

    /// A new connection.
    pub(super) async fn open(&self) -> Result<Connection, Ending> {
        let opened = opening::open(&self.relay).await;
        let outcome = if opened.is_ok() { "opened" } else { "failed" };
        metrics::counter!("dispatch_smtp_connections_total", "outcome" => outcome).increment(1);
        opened
    }

    /// Takes a connection back; one that is used up is closed.
    pub(super) async fn give_back(self: &Arc<Self>, connection: Connection) {
        if !connection.is_usable() {
            return;
        }
        if connection.mails() >= MAILS_PER_CONNECTION_MAX {
            connection.quit().await;
            return;
        }
        let since = self.clock.monotonic();
        let mut shelf = self.shelf();
        shelf.idle.push(Idle { connection, since });
        if shelf.keeper == Keeper::Absent {
            shelf.keeper = Keeper::Present;
            drop(shelf);
            tokio::spawn(close_old(Arc::downgrade(self)));
        }
    }

    /// Takes those off the shelf that are too old; none when the shelf is empty and the keeper may go.
    pub(super) fn old(&self) -> Option<Vec<Idle>> {
        let now = self.clock.monotonic();
        let mut shelf = self.shelf();
        if shelf.idle.is_empty() {
            shelf.keeper = Keeper::Absent;
            return None;
        }
        let count = shelf.idle.partition_point(|idle| now.saturating_sub(idle.since) > IDLE_MAX);
        Some(shelf.idle.drain(..count).collect())
    }

    fn shelf(&self) -> MutexGuard<'_, Shelf> {
        // Nothing that holds the lock can leave the list half changed.
        self.shelf.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Closes connections that lie idle, until there are none or the pool is gone.
async fn close_old(pool: Weak<Pool>) {
    loop {
        tokio::time::sleep(IDLE_MAX / 2).await;
        let Some(old) = pool.upgrade().and_then(|pool| pool.old()) else { return };
        for idle in old {
            idle.connection.quit().await;
        }
    }
}
