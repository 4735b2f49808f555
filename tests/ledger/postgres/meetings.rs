//! Several processes at once.

use std::{collections::HashSet, sync::Arc};

use dispatch_engine::ledger::{Ledger, LedgerError, MessageTerms, Once, Report, SealedMessage, UPLOAD_SILENT_MS};
use dispatch_schemas::{
    api::{lists::NewList, templates::NewTemplate},
    states::{Channel, DeliveryState, FactKind, ImportState, Purpose, StopReason},
};
use futures_util::future::join_all;
use sqlx::{Connection as _, Row as _};

use crate::{
    InSchemas, change, engine,
    suite::{
        people::{crowd, email},
        sending::{ACCOUNT, content},
        world::World,
    },
};

const ANNA: &str = "anna@example.org";

impl World {
    /// The ledger as another process has it open.
    async fn elsewhere(&self) -> Arc<dyn Ledger> {
        self.place.open(&self.master, self.clock.clone(), self.entropy.clone(), self.second_place.clone()).await
    }
}

#[tokio::test]
async fn of_calls_with_one_key_one_takes_effect_and_all_have_its_answer() {
    let world = World::new(&InSchemas).await;
    let other = world.elsewhere().await;
    let once = Once { route: "POST /v1/lists", key: "k".to_owned(), fingerprint: [1; 32] };
    let new = NewList { name: "one".to_owned(), source: world.source };
    let calls = (0..12).map(|at| {
        let ledger = if at % 2 == 0 { &world.ledger } else { &other };
        ledger.create_list(world.tenant, &new, Some(&once))
    });
    let answers: Vec<_> = join_all(calls).await.into_iter().map(Result::unwrap).collect();
    assert_eq!(answers.iter().filter(|answer| !answer.replayed).count(), 1);
    assert!(answers.iter().all(|answer| answer.value == answers[0].value));
    assert_eq!(world.ledger.lists(world.tenant).await.unwrap().len(), 1);
}

#[tokio::test]
async fn reports_that_two_processes_apply_at_once_count_once() {
    let world = World::new(&InSchemas).await;
    let other = world.elsewhere().await;
    let sending = world.running_to_crowd(40).await;
    let seqs: Vec<i64> = (0..40).collect();
    sending.claim_all(&seqs).await;
    let report = |number: u8, kind, seq| Report {
        id: [number; 16],
        campaign: sending.id,
        seq,
        kind,
        at_ms: world.now_ms() + i64::from(number),
        proves_acceptance: true,
        provider_id: None,
    };
    let kinds = [FactKind::Accepted, FactKind::Deferred, FactKind::Delivered];
    let mut reports: Vec<Report> =
        (0..120_u8).map(|number| report(number, kinds[usize::from(number) % 3], i64::from(number) / 3)).collect();
    let backwards: Vec<Report> = reports.iter().rev().cloned().collect();
    let now_ms = world.now_ms();
    let halves = reports.split_off(60);
    let applying = [&reports, &backwards, &halves, &backwards, &reports].into_iter().enumerate().map(|(at, part)| {
        let ledger = if at % 2 == 0 { &world.ledger } else { &other };
        ledger.apply(part, &[], now_ms)
    });
    let done: Vec<_> = join_all(applying).await.into_iter().map(Result::unwrap).collect();
    assert_eq!(done.iter().map(|done| done.applied).sum::<u64>(), 120);
    let reported = sending.progress().await.reported;
    assert_eq!(reported, kinds.map(|kind| (kind.to_string(), 40)).into());
    sending.assert_states(&[(DeliveryState::Accepted, 40)]).await;
    world.clock.advance(3_600_000);
    assert_eq!(sending.reap().await, 0, "the attempt has ended");
}

#[tokio::test]
async fn a_key_whose_first_call_fails_serves_the_next() {
    let world = World::new(&InSchemas).await;
    world.list("taken").await;
    let once = Once { route: "POST /v1/lists", key: "k".to_owned(), fingerprint: [1; 32] };
    let refused = NewList { name: "taken".to_owned(), source: world.source };
    let calls = (0..4).map(|_| world.ledger.create_list(world.tenant, &refused, Some(&once)));
    for refused in join_all(calls).await {
        assert!(matches!(refused, Err(LedgerError::Conflict { code: "name-taken", .. })), "{refused:?}");
    }
    let free = NewList { name: "free".to_owned(), source: world.source };
    assert!(!world.ledger.create_list(world.tenant, &free, Some(&once)).await.unwrap().replayed);
}

#[tokio::test]
async fn a_contacts_id_is_never_given_twice() {
    let world = World::new(&InSchemas).await;
    let other = world.elsewhere().await;
    let counts: Vec<usize> = (0..60).map(|at| [1, 1, 7, 500][at % 4]).collect();
    let taking = counts.iter().enumerate().map(|(at, count)| {
        let ledger = if at % 3 == 0 { &other } else { &world.ledger };
        ledger.contact_ids(*count)
    });
    let firsts = join_all(taking).await;
    let ids: Vec<i64> =
        firsts.into_iter().zip(&counts).flat_map(|(first, count)| (first.unwrap().0..).take(*count)).collect();
    assert_eq!(ids.iter().collect::<HashSet<_>>().len(), counts.iter().sum::<usize>());
}

#[tokio::test]
async fn whoever_is_erased_beside_an_upload_does_not_come_back() {
    let world = World::new(&InSchemas).await;
    let other = world.elsewhere().await;
    for round in 0..24 {
        // New to the list in the even rounds, known in the odd ones.
        let people = if round % 2 == 0 { crowd(1) } else { vec![email(format!("{round}{ANNA}"))] };
        let list = world.list_of(&format!("list {round}"), &people).await;
        let (address, number) = (format!("{round}{ANNA}"), format!("+3361234{round:04}"));
        let row = email(address.as_str()).with_phone(&number).named("Anna");
        let mut upload = world.upload(list).await;
        let uploading = async {
            upload.store(&crowd(50)).await;
            upload.store(&[row]).await;
            upload.complete().await
        };
        let erasing = async {
            for _ in 0..round * 3 {
                tokio::task::yield_now().await;
            }
            let addresses = [(Channel::Email, world.email(&address)), (Channel::Sms, world.phone(&number))];
            other.erase(world.tenant, &addresses).await.unwrap();
        };
        let (import, ()) = tokio::join!(uploading, erasing);
        assert_eq!(import.state, ImportState::Completed);
        for hash in [world.email(&address), world.phone(&number)] {
            assert!(!world.place.holds(world.tenant, &hash.0).await, "round {round}");
        }
        let counted = world.ledger.list(world.tenant, list).await.unwrap().contacts;
        assert_eq!(counted, world.place.contacts(list).await, "round {round}");
        assert_eq!(world.place.changes().await, 0);
    }
}

#[tokio::test]
async fn an_upload_whose_process_lives_is_left_to_it() {
    let world = World::new(&InSchemas).await;
    let other = world.elsewhere().await;
    let list = world.list("crowd").await;
    let mut upload = world.upload(list).await;
    world.clock.advance(UPLOAD_SILENT_MS);
    upload.store(&crowd(3)).await;
    world.clock.advance(UPLOAD_SILENT_MS);
    assert_eq!(other.recover_imports().await.unwrap(), 0, "it was heard of not long ago");
    world.clock.advance(1);
    assert_eq!(other.recover_imports().await.unwrap(), 1);
    // The process was frozen, not dead: it is told.
    let late = upload.try_store(&crowd(5)).await;
    assert!(matches!(late, Err(LedgerError::Conflict { code: "import-ended", .. })), "{late:?}");
    assert_eq!(world.place.contacts(list).await, 0);
}

#[tokio::test]
async fn an_upload_is_ended_by_many_at_once() {
    let world = World::new(&InSchemas).await;
    let other = world.elsewhere().await;
    let list = world.list_of("crowd", &crowd(2)).await;
    let mut upload = world.upload(list).await;
    upload.store(&crowd(700)).await;
    let id = upload.id;
    let mut totals = dispatch_schemas::api::lists::ImportTotals::default();
    (totals.added, totals.updated) = (698, 2);
    let ends = [&world.ledger, &other, &world.ledger]
        .map(|ledger| ledger.complete_import(id, &totals, &[], &serde_json::Value::Null));
    for done in join_all(ends).await {
        done.unwrap();
    }
    assert_eq!(world.ledger.list(world.tenant, list).await.unwrap().contacts, 700);
    let late = world.ledger.roll_back_import(id, "too late").await;
    assert!(matches!(late, Err(LedgerError::Conflict { code: "import-ended", .. })), "{late:?}");
    assert_eq!(world.place.contacts(list).await, 700);
}

#[tokio::test]
async fn messages_of_one_stream_are_numbered_without_a_gap() {
    let world = World::new(&InSchemas).await;
    let other = world.elsewhere().await;
    let template = NewTemplate { name: "receipt".to_owned(), source: content(Channel::Email) };
    let template = world.ledger.create_template(world.tenant, &template, None).await.unwrap().value;
    let terms = MessageTerms { source: world.source, purpose: Purpose::Service, account: ACCOUNT.to_owned() };
    let first = world.ledger.contact_ids(20).await.unwrap();
    let sending = (0..20).map(|at| {
        let ledger = if at % 2 == 0 { &world.ledger } else { &other };
        let id = dispatch_schemas::ids::ContactId(first.0 + at);
        let message = SealedMessage {
            address_hash: world.email(ANNA),
            channel: Channel::Email,
            contact: world.sealed(id, &email(ANNA)),
            variables: b"{}".to_vec(),
        };
        ledger.create_message(world.tenant, &template, &terms, message, None)
    });
    let sent: Vec<_> = join_all(sending).await.into_iter().map(|sent| sent.unwrap().value).collect();
    let mut numbers: Vec<i64> = sent.iter().map(|(_, seq)| *seq).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (0..20).collect::<Vec<_>>());
    assert!(sent.iter().all(|(stream, _)| *stream == sent[0].0), "one stream");
    let counts = world.place.counts(sent[0].0).await;
    counts.assert_add_up();
    assert_eq!(counts.audience, 20);
}

/// Lets the first `losses` inserts into a table end as if another transaction had been in their way.
async fn lose(world: &World, losses: u32) -> sqlx::PgConnection {
    let mut conn = engine(&world.place.whereabouts().display().to_string()).await;
    let sql = format!(
        "CREATE SEQUENCE tries;
         CREATE FUNCTION lose() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
             IF nextval('tries') <= {losses} THEN RAISE EXCEPTION USING ERRCODE = '40P01'; END IF;
             RETURN NEW; END $$;
         CREATE TRIGGER lose BEFORE INSERT ON list FOR EACH ROW EXECUTE FUNCTION lose()"
    );
    change(&mut conn, sql).await;
    conn
}

#[tokio::test]
async fn a_call_that_lost_to_another_transaction_is_done_again() {
    let world = World::new(&InSchemas).await;
    lose(&world, 2).await;
    let once = Once { route: "POST /v1/lists", key: "k".to_owned(), fingerprint: [1; 32] };
    let new = NewList { name: "one".to_owned(), source: world.source };
    assert!(!world.ledger.create_list(world.tenant, &new, Some(&once)).await.unwrap().replayed);
    assert_eq!(world.ledger.lists(world.tenant).await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_call_that_always_loses_says_so_in_the_end() {
    let world = World::new(&InSchemas).await;
    let mut conn = lose(&world, u32::MAX).await;
    let new = NewList { name: "one".to_owned(), source: world.source };
    let lost = world.ledger.create_list(world.tenant, &new, None).await;
    assert!(matches!(&lost, Err(LedgerError::Unavailable(why)) if why.contains("in its way")), "{lost:?}");
    let tries: i64 = sqlx::query("SELECT last_value FROM tries").fetch_one(&mut conn).await.unwrap().get(0);
    assert!((2..=10).contains(&tries), "{tries}");
    assert!(world.ledger.lists(world.tenant).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_closing_waits_for_whoever_holds_the_gates_and_no_longer() {
    let world = World::new(&InSchemas).await;
    let schema = world.place.whereabouts().display().to_string();
    let mut conn = engine(&schema).await;
    let mut claim = conn.begin().await.unwrap();
    sqlx::query("SELECT pg_advisory_xact_lock_shared($1)").bind(world.tenant.0).execute(&mut *claim).await.unwrap();
    let gate = [world.email(ANNA)];
    let mut closing = Box::pin(world.ledger.close_gates(world.tenant, Channel::Email, &gate, StopReason::Suppressed));
    // Another tenant's closing goes past it.
    let other = world.ledger.tenant("second").await.unwrap().id;
    tokio::select! {
        biased;
        early = &mut closing => panic!("it did not wait: {early:?}"),
        done = world.ledger.close_gates(other, Channel::Email, &gate, StopReason::Suppressed) => {
            assert_eq!(done.unwrap().closed, 1);
        }
    }
    claim.commit().await.unwrap();
    assert_eq!(closing.await.unwrap().closed, 1);
}
