//! Several processes at once: nothing is claimed twice, nothing passes a closing, and two schedulers do each thing once.

use std::{
    collections::HashSet,
    sync::atomic::{AtomicBool, Ordering},
};

use dispatch_engine::ledger::{End, Schedule as _, Verdict, postgres::PostgresLedger};
use dispatch_schemas::states::StopReason;
use dispatch_workers::{
    delivery::{Claim, Claims as _, Counts, Outcome, Timing},
    limits::{LimitStore as _, PauseRow},
    providers::{Class, Code},
};
use futures_util::{
    future::{join, join_all},
    poll,
};
use sqlx::{Connection as _, PgConnection, Row as _};

use crate::postgres_rows::{CAMPAIGN, Database, TENANT, numbers, record};

const NOW_MS: i64 = 1;

fn unknown() -> Outcome {
    Outcome::Unknown { code: Code::known("timeout"), look_at_ms: 0 }
}

fn deferred() -> Outcome {
    Outcome::Retry { at_ms: 0, code: Code::known("busy"), counts: Counts::AsAttempt, alone: false }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_two_processes_claim_at_once_is_claimed_once() {
    const DELIVERIES: i64 = 2_000;
    let database = Database::with_deliveries(DELIVERIES).await;
    let plan = database.plan(Class::ClientId);
    let (database, plan) = (&database, &plan);
    let claimed = join_all((0..4).map(|process| async move {
        let ledger = database.open().await;
        let mut claimed = Vec::new();
        for first in (0..DELIVERIES).step_by(100) {
            // Two take the batches from the front, two every other number, all of them the same ones.
            let step = 1 + process % 2;
            let seqs: Vec<i64> = (first..(first + 200).min(DELIVERIES)).step_by(step).collect();
            claimed.extend(numbers(&database.claim(&ledger, plan, &seqs).await));
        }
        claimed
    }))
    .await
    .concat();
    let each: HashSet<i64> = claimed.iter().copied().collect();
    assert_eq!(each.len(), claimed.len(), "none is claimed twice");
    // What one left because another had it locked, the other has.
    assert_eq!(i64::try_from(each.len()).unwrap(), DELIVERIES);
    database.assert_adds_up().await;
}

/// Closes one person's gate as the platform's half does: under the tenant's lock.
async fn close_gate(conn: &mut PgConnection, seq: i64) {
    let mut transaction = conn.begin().await.unwrap();
    sqlx::query("SELECT pg_advisory_xact_lock($1)").bind(TENANT.0).execute(&mut *transaction).await.unwrap();
    let closed = sqlx::query(
        "INSERT INTO gate SELECT 1, email_hash, 'unsubscribed', 'email', 0 FROM contact WHERE id = $1 ON CONFLICT DO NOTHING",
    )
    .bind(seq + 1)
    .execute(&mut *transaction)
    .await
    .unwrap();
    assert_eq!(closed.rows_affected(), 1);
    transaction.commit().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nothing_is_claimed_after_its_closing_has_returned() {
    const DELIVERIES: i64 = 300;
    let database = Database::with_deliveries(DELIVERIES).await;
    let plan = database.plan(Class::ClientId);
    let (database, plan, done) = (&database, &plan, &AtomicBool::new(false));
    let closed = &std::sync::Mutex::new(HashSet::new());
    let work = join_all((0..3).map(|_| async move {
        let ledger = database.open().await;
        let all: Vec<i64> = (0..DELIVERIES).collect();
        let mut rounds = 0;
        while !done.load(Ordering::SeqCst) || rounds < 3 {
            let before: HashSet<i64> = closed.lock().unwrap().clone();
            let claimed = database.claim(&ledger, plan, &all).await;
            let seqs = numbers(&claimed);
            assert!(seqs.iter().all(|seq| !before.contains(seq)), "claimed after its gate had closed");
            if let Some(attempt) = claimed.attempt {
                record(&ledger, plan, attempt, &seqs, &Outcome::Released { alone: false }).await;
            }
            rounds += 1;
        }
    }));
    let close = async {
        let mut conn = database.connect().await;
        for seq in (0..DELIVERIES).step_by(3) {
            close_gate(&mut conn, seq).await;
            closed.lock().unwrap().insert(seq);
        }
        // A pause is a closing too.
        let mut transaction = conn.begin().await.unwrap();
        sqlx::query("SELECT pg_advisory_xact_lock($1)").bind(TENANT.0).execute(&mut *transaction).await.unwrap();
        sqlx::query("UPDATE campaign SET state = 'paused'").execute(&mut *transaction).await.unwrap();
        transaction.commit().await.unwrap();
        closed.lock().unwrap().extend(0..DELIVERIES);
        done.store(true, Ordering::SeqCst);
    };
    join(work, close).await;
    database.assert_adds_up().await;
}

/// How many of the ledger's connections hold a tenant's lock and do nothing.
async fn frozen_claims(conn: &mut PgConnection) -> i64 {
    sqlx::query(
        "SELECT count(*) FROM pg_stat_activity a JOIN pg_locks l ON l.pid = a.pid
          WHERE a.datname = current_database() AND a.state = 'idle in transaction' AND l.locktype = 'advisory'
            AND l.mode = 'ShareLock' AND l.granted",
    )
    .fetch_one(conn)
    .await
    .unwrap()
    .get(0)
}

#[tokio::test]
async fn a_claimer_that_freezes_does_not_hold_up_a_closing() {
    let database = Database::with_deliveries(10).await;
    let plan = database.plan(Class::ClientId);
    let ledger = database.open().await;
    let mut conn = database.connect_with(&[("lock_timeout", "10s")]).await;
    let claim = Claim { plan: &plan, seqs: &[0, 1, 2, 3], token: database.token() };
    let mut claiming = ledger.claim(&claim);
    // A process is frozen when nobody goes on with what it does.
    while frozen_claims(&mut conn).await == 0 {
        assert!(poll!(&mut claiming).is_pending(), "the claim is under way");
        tokio::task::yield_now().await;
    }
    close_gate(&mut conn, 2).await;
    // It wakes up to find its transaction gone.
    assert!(claiming.await.is_err());
    let claimed = database.claim(&ledger, &plan, &[0, 1, 2, 3]).await;
    assert_eq!(numbers(&claimed), [0, 1, 3]);
    database.assert_adds_up().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_schedulers_find_each_recipient_once() {
    const CONTACTS: i64 = 5_000;
    let database = Database::with_contacts(CONTACTS).await;
    let database = &database;
    let added = join_all((0..4).map(|_| async move {
        let ledger = database.open().await;
        let mut added = 0;
        loop {
            match ledger.expand(CAMPAIGN, 300, NOW_MS).await.unwrap() {
                0 => return added,
                more => added += more,
            }
        }
    }))
    .await;
    assert_eq!(added.iter().sum::<u64>(), u64::try_from(CONTACTS).unwrap());
    let found = "SELECT count(DISTINCT contact_id) FROM delivery WHERE seq BETWEEN 0 AND 4999";
    assert_eq!(database.count(found).await, CONTACTS);
    assert_eq!(database.count("SELECT next_seq FROM expansion WHERE done").await, CONTACTS);
    database.assert_adds_up().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_schedulers_that_do_everything_at_once_count_each_thing_once() {
    const DELIVERIES: i64 = 400;
    let database = Database::with_deliveries(DELIVERIES).await;
    let plan = database.plan(Class::ClientId);
    let (database, plan) = (&database, &plan);
    let work = |process: i64| async move {
        let ledger = database.open().await;
        for round in 0..20 {
            let first = (round * 37 + process * 101) % DELIVERIES;
            let seqs: Vec<i64> = (first..(first + 60).min(DELIVERIES)).collect();
            let claimed = database.claim(&ledger, plan, &seqs).await;
            let (Some(attempt), seqs) = (claimed.attempt, numbers(&claimed)) else { continue };
            // Some of them twice, some never: what is reaped meanwhile and comes late is accepted all the same.
            for (part, outcome) in [(0, unknown()), (1, deferred()), (2, Outcome::Accepted { provider_id: None })] {
                let part: Vec<i64> = seqs.iter().copied().filter(|seq| (seq + round) % 4 == part).collect();
                record(&ledger, plan, attempt, &part, &outcome).await;
                record(&ledger, plan, attempt, &part, &outcome).await;
            }
        }
    };
    let schedule = |process: i64| async move {
        let ledger = database.open().await;
        for round in 0..20 {
            sweep(&ledger, process + round).await;
        }
    };
    join(join_all((0..3).map(work)), join_all((0..2).map(schedule))).await;
    database.assert_adds_up().await;
    assert_eq!(database.count("SELECT count(*) FROM delivery").await, DELIVERIES);

    // All that is left is ended by both at once.
    database.run("UPDATE campaign SET state = 'cancelled'").await;
    let ended = join_all((0..2).map(|_| async move {
        let ledger = database.open().await;
        ledger.reap(i64::MAX / 2, NOW_MS, &Timing::default()).await.unwrap();
        for group in ledger.unknown_due(i64::MAX / 2, 1_000).await.unwrap() {
            let verdicts: Vec<_> = group.deliveries.iter().map(|delivery| (delivery.seq, Verdict::Absent)).collect();
            ledger.settle(CAMPAIGN, group.attempt, &verdicts, NOW_MS).await.unwrap();
        }
        let mut from = Some(0);
        while let Some(at) = from {
            from = ledger.end_waiting(CAMPAIGN, End::Stopped(StopReason::Cancelled), at, 70, NOW_MS).await.unwrap();
        }
        ledger.complete(CAMPAIGN, NOW_MS).await.unwrap()
    }))
    .await;
    database.assert_adds_up().await;
    assert_eq!(database.count("SELECT count(*) FROM waiting").await, 0);
    assert_eq!(ended.iter().filter(|ended| **ended).count(), 1, "a campaign ends once");
}

/// What a scheduler does with time, in an order of its own.
async fn sweep(ledger: &PostgresLedger, round: i64) {
    match round % 3 {
        0 => drop(ledger.wake_waiting(NOW_MS, 50).await.unwrap()),
        1 => drop(ledger.reap(i64::MAX / 2, NOW_MS, &Timing::default()).await.unwrap()),
        _ => {
            for group in ledger.unknown_due(i64::MAX / 2, 10).await.unwrap() {
                let verdicts: Vec<_> = group
                    .deliveries
                    .iter()
                    .map(|delivery| {
                        let verdict = match delivery.seq % 4 {
                            0 => Verdict::Resend,
                            1 => Verdict::Absent,
                            2 => Verdict::Later(NOW_MS + delivery.seq),
                            _ => Verdict::Accepted { evidence: "log", provider_id: Some(delivery.seq.to_string()) },
                        };
                        (delivery.seq, verdict)
                    })
                    .collect();
                ledger.settle(CAMPAIGN, group.attempt, &verdicts, NOW_MS).await.unwrap();
            }
        }
    }
}

#[tokio::test]
async fn schedulers_that_live_know_each_other() {
    let database = Database::with_contacts(1).await;
    let (one, other) = (database.open().await, database.open().await);
    assert_eq!(one.beat(7, 1_000, 500).await.unwrap(), [7]);
    assert_eq!(other.beat(3, 1_200, 500).await.unwrap(), [3, 7]);
    assert_eq!(other.beat(3, 1_501, 500).await.unwrap(), [3], "one that is silent is dead");
    assert_eq!(one.beat(7, 1_600, 500).await.unwrap(), [3, 7], "and comes back with its next beat");
}

#[tokio::test]
async fn a_wait_that_a_provider_asks_for_is_heard_once_its_last_refusal_is_over() {
    let database = Database::with_deliveries(1).await;
    let ledger = database.open().await;
    let pause = |refused: Option<&str>, since_ms: i64, until_ms: i64| PauseRow {
        account: "main".into(),
        refused: refused.map(str::to_owned),
        since_ms,
        until_ms,
    };
    let refusal = pause(Some("http_401"), 0, 300_000);
    ledger.pause(&refusal).await.unwrap();
    ledger.pause(&pause(None, 299_999, 900_000)).await.unwrap();
    assert_eq!(ledger.pauses().await.unwrap(), [refusal], "it is not shortened by a wait");
    let wait = pause(None, 300_000, 360_000);
    ledger.pause(&wait).await.unwrap();
    ledger.pause(&pause(None, 310_000, 350_000)).await.unwrap();
    assert_eq!(ledger.pauses().await.unwrap(), [wait], "nor is a long wait by a short one");
}
