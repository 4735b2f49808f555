//! The one writer.
//!
//! SQLite has one writer at a time; this is it. Steps wait in a bounded queue, and all that wait together are written
//! in one transaction with one fsync (group commit). A step that fails takes back its own changes only. A caller hears
//! of success after the commit, never before.
//!
//! When it is told to stop, or nobody is left to hand it steps, it writes those that wait, moves the write-ahead log into
//! the file, closes the file and frees the ledger's lock, in this order.

use std::time::Duration;

use dispatch_workers::clock::{Clock as _, SystemClock};
use futures_util::future::BoxFuture;
use sqlx::{Connection as _, Row as _, SqliteConnection, sqlite::SqliteConnectOptions};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::lock::LedgerLock;
use crate::ledger::{LedgerError, Result};

/// Steps that wait for the writer; more callers wait for room.
const WAITING_MAX: usize = 1_024;
/// Steps in one transaction: bounds how long the first waits for the last.
const STEPS_PER_COMMIT_MAX: usize = 64;

/// The pause before a file that cannot be opened is tried again: its disk is full or gone, and somebody must mend it.
const OPEN_AGAIN_AFTER: Duration = Duration::from_millis(500);

/// Hands steps to the writer, and stops it when it is dropped.
pub(super) struct Writer {
    steps: mpsc::Sender<Box<dyn Step>>,
    stop: CancellationToken,
    ended: CancellationToken,
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// One caller's work, inside a transaction it shares with others.
trait Step: Send {
    fn name(&self) -> &'static str;
    /// Does the work; true if it is to be kept.
    fn run<'c>(&'c mut self, conn: &'c mut SqliteConnection) -> BoxFuture<'c, bool>;
    /// Tells the caller: what the work came to, or why nothing was kept.
    fn answer(self: Box<Self>, lost: Option<String>);
}

struct Work<F, T> {
    name: &'static str,
    work: Option<F>,
    outcome: Option<Result<T>>,
    reply: oneshot::Sender<Result<T>>,
}

impl<F, T> Step for Work<F, T>
where
    F: for<'c> FnOnce(&'c mut SqliteConnection) -> BoxFuture<'c, Result<T>> + Send,
    T: Send,
{
    fn name(&self) -> &'static str {
        self.name
    }

    fn run<'c>(&'c mut self, conn: &'c mut SqliteConnection) -> BoxFuture<'c, bool> {
        Box::pin(async move {
            let Some(work) = self.work.take() else { return false };
            let outcome = work(conn).await;
            let keep = outcome.is_ok();
            self.outcome = Some(outcome);
            keep
        })
    }

    fn answer(self: Box<Self>, lost: Option<String>) {
        let outcome = match (self.outcome, lost) {
            (Some(Err(error)), _) => Err(error),
            (Some(Ok(value)), None) => Ok(value),
            (_, lost) => Err(LedgerError::Unavailable(lost.unwrap_or_else(|| "the writer stopped".to_owned()))),
        };
        // A caller that went away does not need its answer.
        let _ = self.reply.send(outcome);
    }
}

impl Writer {
    /// Starts the writer on a connection of its own. The lock is its from now on.
    pub(super) async fn start(options: SqliteConnectOptions, lock: LedgerLock) -> Result<Self> {
        let conn = SqliteConnection::connect_with(&options).await?;
        let (steps, waiting) = mpsc::channel(WAITING_MAX);
        let (stop, ended) = (CancellationToken::new(), CancellationToken::new());
        let end = End { lock, ended: ended.clone().drop_guard() };
        tokio::spawn(write(end, conn, options, SystemClock::new(), waiting, stop.clone()));
        Ok(Self { steps, stop, ended })
    }

    /// Takes no more steps; returns when those that waited are written, the file is closed and its lock is free.
    pub(super) async fn close(&self) {
        self.stop.cancel();
        self.ended.cancelled().await;
    }

    /// Does `work` in a transaction; returns when it is durable.
    pub(super) async fn run<F, T>(&self, name: &'static str, work: F) -> Result<T>
    where
        F: for<'c> FnOnce(&'c mut SqliteConnection) -> BoxFuture<'c, Result<T>> + Send + 'static,
        T: Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let step = Box::new(Work { name, work: Some(work), outcome: None, reply });
        let stopped = || LedgerError::Unavailable("the writer stopped".to_owned());
        self.steps.send(step).await.map_err(|_| stopped())?;
        answer.await.map_err(|_| stopped())?
    }
}

/// What the writer gives back when it ends, in this order, however it ends.
struct End {
    lock: LedgerLock,
    /// Tells whoever waits in [`Writer::close`].
    #[expect(dead_code, reason = "it speaks by being dropped")]
    ended: DropGuard,
}

async fn write(
    end: End,
    mut conn: SqliteConnection,
    options: SqliteConnectOptions,
    clock: SystemClock,
    mut waiting: mpsc::Receiver<Box<dyn Step>>,
    stop: CancellationToken,
) {
    let mut steps: Vec<Box<dyn Step>> = Vec::with_capacity(STEPS_PER_COMMIT_MAX);
    loop {
        let taken = tokio::select! {
            taken = waiting.recv_many(&mut steps, STEPS_PER_COMMIT_MAX) => taken,
            () = stop.cancelled(), if !waiting.is_closed() => {
                // What waits already is still taken.
                waiting.close();
                continue;
            }
        };
        if taken == 0 {
            break;
        }
        metrics::histogram!("dispatch_ledger_batch_size", "operation" => "commit").record(steps.len() as f64);
        let lost = write_together(&mut conn, &clock, &mut steps).await.err();
        let lost = lost.map(|error| LedgerError::from(error).into_reason());
        let broken = lost.is_some();
        if let Some(reason) = &lost {
            tracing::error!(%reason, steps = steps.len(), "the ledger could not be written");
        }
        for step in steps.drain(..) {
            step.answer(lost.clone());
        }
        if broken {
            match reconnect(conn, &options, &stop).await {
                Some(fresh) => conn = fresh,
                None => return,
            }
        }
    }
    close_file(conn, &end.lock).await;
}

/// Moves the write-ahead log into the file, so that the file alone is the whole ledger, and closes it.
async fn close_file(mut conn: SqliteConnection, lock: &LedgerLock) {
    let moved = sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)").fetch_one(&mut conn).await;
    let kept = match moved.and_then(|row| row.try_get::<i64, _>(0)) {
        Ok(0) => None,
        Ok(_) => Some("another program is reading it".to_owned()),
        Err(error) => Some(LedgerError::from(error).into_reason()),
    };
    drop(conn.close().await);
    if let Some(reason) = kept {
        tracing::warn!(
            ledger = %lock.path().display(), %reason,
            "the newest commits are still in the -wal file beside the ledger: until the next stop, copy both or neither"
        );
    }
}

async fn write_together(
    conn: &mut SqliteConnection,
    clock: &SystemClock,
    steps: &mut [Box<dyn Step>],
) -> sqlx::Result<()> {
    sqlx::query("BEGIN IMMEDIATE").execute(&mut *conn).await?;
    let alone = steps.len() == 1;
    for step in steps.iter_mut() {
        let started = clock.monotonic();
        if !alone {
            sqlx::query("SAVEPOINT step").execute(&mut *conn).await?;
        }
        let keep = step.run(conn).await;
        if alone && !keep {
            sqlx::query("ROLLBACK").execute(&mut *conn).await?;
            return Ok(());
        }
        if !keep {
            sqlx::query("ROLLBACK TO step").execute(&mut *conn).await?;
        }
        if !alone {
            sqlx::query("RELEASE step").execute(&mut *conn).await?;
        }
        metrics::histogram!("dispatch_ledger_seconds", "operation" => step.name())
            .record(clock.monotonic().saturating_sub(started).as_secs_f64());
    }
    sqlx::query("COMMIT").execute(&mut *conn).await.map(drop)
}

/// A fresh connection after a failed transaction; the old one's state is not known. None when the writer is to stop
/// before there is one.
async fn reconnect(
    old: SqliteConnection,
    options: &SqliteConnectOptions,
    stop: &CancellationToken,
) -> Option<SqliteConnection> {
    drop(old.close().await);
    loop {
        match SqliteConnection::connect_with(options).await {
            Ok(conn) => return Some(conn),
            Err(error) => {
                tracing::error!(error = %LedgerError::from(error), "the ledger cannot be opened again yet");
                tokio::select! {
                    () = tokio::time::sleep(OPEN_AGAIN_AFTER) => {}
                    () = stop.cancelled() => return None,
                }
            }
        }
    }
}
