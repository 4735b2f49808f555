//! What is done when the ledger has forgotten: a failover to a standby that was behind, or a restored copy.
//!
//! [`Warden::look`] notices it before anything is claimed, by the server's identity and by what the [second
//! place](crate::second_place) remembers, and puts the ledger into quarantine: a fact in the ledger that every process
//! sees, in which nothing is claimed, scheduled or settled. [`Warden::keep_up`] works it off. Claims that are noted and not
//! in the ledger are made again, without an outcome; where nobody noted them, everything that could have been claimed is
//! called unknown. Forgotten closings are closed again. Then the quarantine is over, and the reconciler settles what is
//! unknown as ever: by the provider's key, its log, or the campaign's policy.
//!
//! The same is done twice without harm, and several processes may do it at once.

mod closings;
mod marking;

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use dispatch_workers::{clock::Clock, delivery::Timing};

use self::closings::Closings;
use crate::{
    ledger::{Epoch, Ledger, LedgerError, Quarantine, Release},
    second_place::{Claimed, Note, Noted},
};

/// How often the head is moved and the server looked at.
const BEAT_EVERY: Duration = Duration::from_secs(1);
/// Notes this much older than the ledger's last move are looked at too: clocks of several processes and servers differ.
const MARGIN_MS: i64 = 5 * 60_000;
/// Claims the ledger is asked about at once.
const CLAIMS_ASKED: usize = 1_000;

/// What an operator can do about a quarantine.
pub const MEND: &str = "it ends by itself when all that may have been forgotten is marked; what was sent since the copy is \
                        settled then and not sent again. To let everything be sent now, twice if need be: `dispatch \
                        unquarantine --accept-duplicates`";

/// Whether the ledger is in quarantine, as far as this process knows.
#[derive(Debug, Default)]
pub struct Standing(Mutex<Option<Quarantine>>);

impl Standing {
    /// The quarantine it is in.
    #[must_use]
    pub fn quarantine(&self) -> Option<Quarantine> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, quarantine: Option<Quarantine>) {
        metrics::gauge!("dispatch_quarantine").set(f64::from(u8::from(quarantine.is_some())));
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = quarantine;
    }
}

/// Looks after a ledger's memory.
pub struct Warden {
    ledger: Arc<dyn Ledger>,
    clock: Arc<dyn Clock>,
    timing: Timing,
    standing: Arc<Standing>,
    /// The furthest this process has seen the ledger.
    seen: AtomicI64,
}

impl std::fmt::Debug for Warden {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Warden")
    }
}

impl Warden {
    /// For this ledger; `standing` is told of each quarantine.
    #[must_use]
    pub fn new(ledger: Arc<dyn Ledger>, clock: Arc<dyn Clock>, timing: Timing, standing: Arc<Standing>) -> Self {
        Self { ledger, clock, timing, standing, seen: i64::MIN.into() }
    }

    /// Looks, before anything is claimed, whether the ledger is what it was, and begins a quarantine when it is not.
    ///
    /// # Errors
    /// When the ledger or the second place does not answer.
    pub async fn look(&self) -> Result<(), LedgerError> {
        let epoch = self.ledger.epoch().await?;
        if epoch.quarantine.is_none() {
            let reason = match self.moved(&epoch) {
                Some(reason) => Some(reason),
                None => self.behind(&epoch).await?,
            };
            if let Some(reason) = reason {
                return self.enter(&reason).await;
            }
        }
        self.standing.set(epoch.quarantine);
        Ok(())
    }

    /// Moves the head on and works quarantines off, until `stop` completes.
    pub async fn keep_up(&self, stop: impl Future<Output = ()>) {
        let mut stop = std::pin::pin!(stop);
        loop {
            tokio::select! {
                biased;
                () = &mut stop => return,
                // What is half done then is done again at the next start.
                looked = self.beat() => {
                    if let Err(error) = looked {
                        tracing::warn!(%error, "whether the ledger has forgotten cannot be looked at; trying again");
                    }
                }
            }
            tokio::select! {
                biased;
                () = &mut stop => return,
                () = tokio::time::sleep(BEAT_EVERY) => {}
            }
        }
    }

    /// One beat: a quarantine is worked off, else the head is moved on.
    ///
    /// # Errors
    /// When the ledger or the second place does not answer.
    pub async fn beat(&self) -> Result<(), LedgerError> {
        let epoch = self.ledger.epoch().await?;
        self.standing.set(epoch.quarantine.clone());
        if let Some(quarantine) = &epoch.quarantine {
            return self.work_off(&epoch, quarantine).await;
        }
        if let Some(reason) = self.moved(&epoch) {
            return self.enter(&reason).await;
        }
        if self.ledger.second_place().is_there() {
            let head = self.ledger.move_head().await?;
            self.seen.fetch_max(head, Ordering::Relaxed);
            self.ledger.second_place().remember_head(head).await?;
        }
        Ok(())
    }

    /// Whether the ledger is another, or an older one, than this process had before its eyes.
    fn moved(&self, epoch: &Epoch) -> Option<String> {
        if epoch.is_elsewhere {
            return Some("the database is on another server than before, after a failover or a restore".to_owned());
        }
        let seen = self.seen.load(Ordering::Relaxed);
        (epoch.head < seen).then(|| format!("the ledger was at {seen} before and is at {} now", epoch.head))
    }

    /// Whether the second place remembers more than the ledger. Closings are closed again on the way.
    async fn behind(&self, epoch: &Epoch) -> Result<Option<String>, LedgerError> {
        let place = self.ledger.second_place();
        if let Some(head) = place.head().await?.filter(|head| *head > epoch.head) {
            return Ok(Some(format!(
                "the second place remembers the ledger at {head}, and it is at {} now: it was restored from a copy",
                epoch.head
            )));
        }
        // What was noted since the last move of the head.
        let noted = place.since(since_ms(epoch)).await?;
        let claims = self.forgotten_claims(&noted).await?.len();
        let closings = Closings::of(&noted).close_again(self.ledger.as_ref(), self.clock.now_ms()).await?;
        Ok((claims + closings > 0).then(|| {
            format!("{claims} claims and {closings} closings in the second place were not in the ledger any more")
        }))
    }

    async fn enter(&self, reason: &str) -> Result<(), LedgerError> {
        let quarantine = self.ledger.enter_quarantine(reason).await?;
        tracing::error!(reason = %quarantine.reason, "the ledger has forgotten; it is in quarantine and nothing is sent: {MEND}");
        self.standing.set(Some(quarantine));
        Ok(())
    }

    /// Marks what may have been forgotten, closes what was, and ends the quarantine.
    async fn work_off(&self, epoch: &Epoch, quarantine: &Quarantine) -> Result<(), LedgerError> {
        let place = self.ledger.second_place();
        let head = place.head().await?;
        let since_ms = since_ms(epoch);
        // Claims first: a campaign that is cancelled again finds no more recipients, and those that were sent to must be
        // found before. Nothing is claimed meanwhile, so the order costs nothing.
        let is_noted = head.is_some_and(|head| head >= epoch.head) && place.keeps(since_ms, self.clock.now_ms());
        let noted = place.since(since_ms).await?;
        if is_noted {
            let claims = self.forgotten_claims(&noted).await?;
            self.recall(quarantine, claims).await?;
        } else {
            self.doubt_everything(quarantine, epoch.moved_at_ms).await?;
        }
        Closings::of(&noted).close_again(self.ledger.as_ref(), self.clock.now_ms()).await?;
        let head = head.unwrap_or(i64::MIN).max(self.seen.load(Ordering::Relaxed));
        if self.ledger.release(quarantine.id, head, &Release::Settled).await? {
            tracing::warn!(
                reason = %quarantine.reason,
                "the quarantine is over: what may have been sent and was forgotten is unknown and is being settled"
            );
        }
        self.standing.set(None);
        Ok(())
    }

    /// The claims among the notes that the ledger does not know, oldest first.
    async fn forgotten_claims(&self, noted: &[Noted]) -> Result<Vec<(i64, Claimed)>, LedgerError> {
        let claims: Vec<(i64, Claimed)> = noted
            .iter()
            .filter_map(|noted| match &noted.note {
                Note::Claimed(claimed) => Some((noted.at_ms, claimed.clone())),
                _ => None,
            })
            .collect();
        let mut forgotten = Vec::new();
        for chunk in claims.chunks(CLAIMS_ASKED) {
            let asked: Vec<Claimed> = chunk.iter().map(|(_, claimed)| claimed.clone()).collect();
            let answers = self.ledger.forgotten(&asked).await?;
            forgotten
                .extend(chunk.iter().zip(answers).filter(|(_, forgotten)| *forgotten).map(|(claim, _)| claim.clone()));
        }
        Ok(forgotten)
    }
}

/// From when on notes may be about something that was forgotten. What an earlier quarantine has dealt with is over.
fn since_ms(epoch: &Epoch) -> i64 {
    epoch.moved_at_ms.saturating_sub(MARGIN_MS).max(epoch.released_at_ms.map_or(i64::MIN, |at| at + 1))
}

/// Ends a quarantine at once, for an operator who takes the risk that messages are sent twice. Nobody who opted out is
/// sent to all the same: forgotten closings are closed again. Returns the quarantine; nothing when there is none.
///
/// # Errors
/// When the ledger or the second place does not answer.
pub async fn accept_duplicates(ledger: &dyn Ledger, operator: &str) -> Result<Option<Quarantine>, LedgerError> {
    let epoch = ledger.epoch().await?;
    let Some(quarantine) = &epoch.quarantine else { return Ok(None) };
    let place = ledger.second_place();
    let noted = place.since(since_ms(&epoch)).await?;
    Closings::of(&noted).close_again(ledger, ledger.time_ms().await?).await?;
    let head = place.head().await?.unwrap_or(i64::MIN);
    let is_over = ledger.release(quarantine.id, head, &Release::AcceptDuplicates(operator.to_owned())).await?;
    if is_over {
        tracing::warn!(
            operator, reason = %quarantine.reason, doubted = quarantine.doubted,
            "an operator ended the quarantine: what was sent and forgotten may be sent again"
        );
    }
    Ok(is_over.then(|| quarantine.clone()))
}
