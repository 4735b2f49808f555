//! The one writer.
//!
//! SQLite has one writer at a time; this is it. Steps wait in a bounded queue, and all that wait together are written
//! in one transaction with one fsync (group commit). A step that fails takes back its own changes only. A caller hears
//! of success after the commit, never before.

use std::time::Duration;

use dispatch_workers::clock::{Clock as _, SystemClock};
use futures_util::future::BoxFuture;
use sqlx::{Connection as _, SqliteConnection, sqlite::SqliteConnectOptions};
use tokio::sync::{mpsc, oneshot};

use crate::ledger::{LedgerError, Result};

/// Steps that wait for the writer; more callers wait for room.
const WAITING_MAX: usize = 1_024;
/// Steps in one transaction: bounds how long the first waits for the last.
const STEPS_PER_COMMIT_MAX: usize = 64;

/// Hands steps to the writer.
#[derive(Clone)]
pub(super) struct Writer(mpsc::Sender<Box<dyn Step>>);

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
    /// Starts the writer on a connection of its own.
    pub(super) async fn start(options: SqliteConnectOptions) -> Result<Self> {
        let conn = SqliteConnection::connect_with(&options).await?;
        let (steps, waiting) = mpsc::channel(WAITING_MAX);
        tokio::spawn(write(conn, options, SystemClock::new(), waiting));
        Ok(Self(steps))
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
        self.0.send(step).await.map_err(|_| stopped())?;
        answer.await.map_err(|_| stopped())?
    }
}

async fn write(
    mut conn: SqliteConnection,
    options: SqliteConnectOptions,
    clock: SystemClock,
    mut waiting: mpsc::Receiver<Box<dyn Step>>,
) {
    let mut steps: Vec<Box<dyn Step>> = Vec::with_capacity(STEPS_PER_COMMIT_MAX);
    while waiting.recv_many(&mut steps, STEPS_PER_COMMIT_MAX).await > 0 {
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
            conn = reconnect(conn, &options).await;
        }
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

/// A fresh connection after a failed transaction; the old one's state is not known.
async fn reconnect(old: SqliteConnection, options: &SqliteConnectOptions) -> SqliteConnection {
    drop(old.close().await);
    loop {
        match SqliteConnection::connect_with(options).await {
            Ok(conn) => return conn,
            Err(error) => {
                tracing::error!(error = %LedgerError::from(error), "the ledger cannot be opened again yet");
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
        }
    }
}
