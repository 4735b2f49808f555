//! Everything at once.
//!
//! Many tasks claim, record, close gates, erase, pause, resume, reap and settle one campaign, in an order drawn from a
//! seed. Whatever the order: the counts are those of the rows at every look, nothing is claimed behind a gate that had
//! closed before, and no delivery is in two open attempts.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use dispatch_engine::ledger::{End, Verdict};
use dispatch_schemas::states::{Channel, DeliveryState, StopReason};
use dispatch_workers::delivery::Outcome;
use futures_util::future::{join, join_all};

use super::{
    Fixture,
    people::address,
    sending::{Sending, accepted, deferred, failed, numbers, unknown},
    world::World,
};

const PEOPLE: u64 = 240;
const WORKERS: u64 = 8;
/// Batches each worker takes; enough that every delivery is tried about twice.
const BATCHES: u64 = 40;
const SEEDS: u64 = 4;

/// Numbers that look random, the same for each seed (xorshift).
struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

/// How a campaign ends.
enum Ending {
    /// All its work is done.
    Done,
    /// Cancelled while workers are at it.
    Cancelled,
}

/// What all tasks have seen, in the order of the answers.
#[derive(Default)]
struct Seen {
    /// Counts up with every answer and every call.
    moment: AtomicU64,
    /// When the closing of each recipient's gate was answered.
    closed: Mutex<HashMap<i64, u64>>,
    /// When the cancelling was answered.
    cancelled: OnceLock<u64>,
    /// Deliveries in an open attempt.
    open: Mutex<HashSet<i64>>,
    done: AtomicBool,
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Seen {
    fn now(&self) -> u64 {
        self.moment.fetch_add(1, Ordering::SeqCst)
    }

    fn close(&self, seq: i64) {
        let now = self.now();
        lock(&self.closed).entry(seq).or_insert(now);
    }

    /// A claim that was called at `called` came back with these.
    fn claimed(&self, seqs: &[i64], called: u64) {
        assert!(self.cancelled.get().is_none_or(|at| *at > called), "claimed after the campaign was cancelled");
        let closed = lock(&self.closed);
        let mut open = lock(&self.open);
        for seq in seqs {
            assert!(closed.get(seq).is_none_or(|at| *at > called), "{seq} was claimed behind a gate that had closed");
            assert!(open.insert(*seq), "{seq} is in two open attempts");
        }
    }

    fn recorded(&self, seqs: &[i64]) {
        let mut open = lock(&self.open);
        for seq in seqs {
            assert!(open.remove(seq));
        }
    }
}

async fn work(sending: &Sending<'_>, seen: &Seen, mut chance: Chance) {
    for _ in 0..BATCHES {
        let first = i64::try_from(chance.below(PEOPLE)).unwrap();
        let step = if chance.below(3) == 0 { 3 } else { 1 };
        let seqs: Vec<i64> = (0..15).map(|at| first + at * step).collect();
        let called = seen.now();
        let claimed = sending.claim(&seqs).await;
        take(sending, seen, &mut chance, &claimed, called).await;
        for again in &claimed.again {
            let called = seen.now();
            let claimed = sending.claim_again(again.root).await;
            take(sending, seen, &mut chance, &claimed, called).await;
        }
    }
}

/// Records what was claimed, in one or two parts, with outcomes as they come.
async fn take(
    sending: &Sending<'_>,
    seen: &Seen,
    chance: &mut Chance,
    claimed: &dispatch_workers::delivery::Claimed,
    called: u64,
) {
    let Some(attempt) = claimed.attempt else { return };
    let seqs = numbers(claimed);
    seen.claimed(&seqs, called);
    let now_ms = sending.world.now_ms();
    let outcomes: Vec<_> = seqs
        .iter()
        .map(|seq| {
            let outcome = match chance.below(12) {
                0 => failed(),
                1 => deferred(now_ms),
                2 => Outcome::Released { alone: false },
                3 | 4 => unknown(now_ms),
                5 => Outcome::Duplicate,
                _ => accepted(),
            };
            (*seq, outcome)
        })
        .collect();
    let (one, two) = outcomes.split_at(usize::try_from(chance.below(seqs.len() as u64 + 1)).unwrap());
    for part in [one, two] {
        // Free for others from the call on: the answer may come after another has it.
        seen.recorded(&part.iter().map(|(seq, _)| *seq).collect::<Vec<_>>());
        sending.record(attempt, part).await;
        if chance.below(8) == 0 {
            sending.record(attempt, part).await;
        }
    }
}

/// Closes gates and erases people; then cancels, if that is the ending.
async fn close(sending: &Sending<'_>, seen: &Seen, ending: Ending, mut chance: Chance) {
    let world = sending.world;
    for _ in 0..40 {
        let number = usize::try_from(chance.below(PEOPLE)).unwrap();
        let gate = world.email(&address(number));
        if chance.below(3) == 0 {
            world.ledger.erase(world.tenant, &[(Channel::Email, gate)]).await.unwrap();
        } else {
            world.ledger.close_gates(world.tenant, Channel::Email, &[gate], StopReason::Unsubscribed).await.unwrap();
        }
        seen.close(i64::try_from(number).unwrap());
    }
    if matches!(ending, Ending::Cancelled) {
        world.ledger.cancel(world.tenant, sending.id).await.unwrap();
        let _ = seen.cancelled.set(seen.now());
    }
}

async fn steer(sending: &Sending<'_>, seen: &Seen, mut chance: Chance) {
    let world = sending.world;
    while !seen.done.load(Ordering::SeqCst) {
        match chance.below(6) {
            0 => {
                if world.ledger.pause(world.tenant, sending.id, "operator").await.is_err() {
                    // Only a cancelled campaign cannot be paused here.
                    continue;
                }
                let called = seen.now();
                let claimed = sending.claim(&(0..i64::try_from(PEOPLE).unwrap()).collect::<Vec<_>>()).await;
                assert!(claimed.attempt.is_none(), "claimed at {called} after the pause had returned");
                // A campaign cancelled meanwhile stays so.
                let _ = world.ledger.resume(world.tenant, sending.id).await;
            }
            1 => drop(world.ledger.wake_waiting(world.now_ms(), 50).await.unwrap()),
            _ => {
                for group in sending.unknown_due().await {
                    let verdict = match chance.below(5) {
                        0 => Verdict::Resend,
                        1 => Verdict::Absent,
                        2 => Verdict::Accepted { evidence: "log", provider_id: None },
                        3 => Verdict::Later(world.now_ms()),
                        _ => Verdict::AskAgain,
                    };
                    let seqs: Vec<_> = group.deliveries.iter().map(|delivery| delivery.seq).collect();
                    sending.settle_all(group.attempt, &seqs, &verdict).await;
                }
            }
        }
    }
}

async fn look(sending: &Sending<'_>, seen: &Seen) {
    while !seen.done.load(Ordering::SeqCst) {
        sending.states().await;
    }
}

pub(crate) async fn whatever_happens_at_once_every_recipient_is_in_one_state_and_no_closed_gate_is_passed(
    fixture: &dyn Fixture,
) {
    for seed in 1..=SEEDS {
        let world = World::new(fixture).await;
        let sending = world.running_to_crowd(usize::try_from(PEOPLE).unwrap()).await.with_keys_remembered();
        let seen = Seen::default();
        let ending = if seed % 2 == 0 { Ending::Done } else { Ending::Cancelled };
        let chance = |task: u64| Chance(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ (task + 1) << 7);
        let workers = join_all((0..WORKERS).map(|task| work(&sending, &seen, chance(task))));
        let busy = async {
            join(workers, close(&sending, &seen, ending, chance(WORKERS))).await;
            seen.done.store(true, Ordering::SeqCst);
        };
        join(busy, join(steer(&sending, &seen, chance(WORKERS + 1)), look(&sending, &seen))).await;

        world.ledger.cancel(world.tenant, sending.id).await.unwrap();
        sending.end_waiting(End::Stopped(StopReason::Cancelled), 100).await;
        let states = sending.states().await;
        assert_eq!(states.values().sum::<u64>(), PEOPLE, "seed {seed}");
        let open: Vec<_> = states.keys().filter(|state| !state.is_final()).collect();
        assert!(open.iter().all(|state| **state == DeliveryState::Unknown), "seed {seed}: {states:?}");
    }
}
