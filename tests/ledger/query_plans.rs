//! The statements that really ran are explained on the file they ran on: none may read a table of millions from end to
//! end, and those of every batch must find each delivery by its whole key.

use std::collections::BTreeSet;

use dispatch_engine::ledger::{End, Orphan, Report, Revisited, Verdict};
use dispatch_schemas::{
    api::campaigns::Retry,
    states::{Channel, FactKind, StopReason},
};
use dispatch_workers::{delivery::Outcome, message::SendKey, providers::callbacks::Traces};
use sqlx::{AssertSqlSafe, Row as _};
use tracing_subscriber::layer::SubscriberExt as _;

use crate::{
    InFolders, own_process,
    statements::Statements,
    suite::{
        people::{address, crowd, email, phone},
        sending::{ACCOUNT, Sending, accepted, deferred, failed, to, unknown},
        world::World,
    },
};

#[test]
fn no_statement_reads_a_large_table_from_end_to_end() {
    if !own_process::is_own() {
        // What other tests run beside this one is none of its business.
        return own_process::run("query_plans::no_statement_reads_a_large_table_from_end_to_end", "");
    }
    let statements = Statements::default();
    tracing::subscriber::set_global_default(tracing_subscriber::registry().with(statements.clone())).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let world = World::new(&InFolders).await;
        statements.take();
        run_batches(&world).await;
        let mut wrong = explain(&world, statements.take(), is_whole_read_or_campaign_read).await;
        run_the_rest(&world).await;
        wrong.extend(explain(&world, statements.take(), is_whole_read).await);
        assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
    });
}

/// All that runs once per batch, upload chunk or sweep.
async fn run_batches(world: &World) {
    let list = world.list_of("one", &crowd(40)).await;
    let mixed = [email(address(3)).named("P").with_phone("+33600000001"), phone("+33600000002"), email("new@x.eu")];
    let other = world.list_of("two", &mixed).await;
    world.add(other, &mixed).await;
    let ledger = &world.ledger;
    let gate = [world.email(&address(5))];
    ledger.close_gates(world.tenant, Channel::Email, &gate, StopReason::Unsubscribed).await.unwrap();
    world.add(other, &[email(address(5)), email("more@x.eu")]).await;
    world.running(&to(&[list, other]).by_sms()).await.claim(&[0]).await;
    let sending = world.running(&to(&[list, other])).await.with_keys_remembered();
    let now_ms = world.now_ms();

    ledger.destinations(&sending.plan, &[0, 1, 7]).await.unwrap();
    ledger.defer(&sending.plan, &[(0, now_ms), (7, now_ms)]).await.unwrap();
    ledger.wake_waiting(now_ms, 100).await.unwrap();
    let attempt = sending.claim_all(&[0, 1, 2, 3]).await;
    sending.record(attempt, &[(0, accepted()), (1, accepted()), (2, unknown(now_ms)), (3, failed())]).await;
    let attempt = sending.claim(&[5, 6, 8, 10]).await.attempt.unwrap();
    let own = |seq: i64| (seq, Outcome::Accepted { provider_id: Some(seq.to_string()) });
    sending.record(attempt, &[own(6), own(8), (10, deferred(now_ms))]).await;
    sending.record(attempt, &[own(6), own(8), own(10)]).await;
    sending.claim_all(&[12, 13, 15]).await;
    ledger
        .close_gates(world.tenant, Channel::Email, &[world.email(&address(12))], StopReason::Complained)
        .await
        .unwrap();
    world.clock.advance(3_600_000);
    sending.reap().await;
    for verdict in [Verdict::AskAgain, Verdict::Absent] {
        for group in sending.unknown_due().await {
            let seqs: Vec<_> = group.deliveries.iter().map(|delivery| delivery.seq).collect();
            sending.settle_all(group.attempt, &seqs, &verdict).await;
            for again in sending.claim(&seqs).await.again {
                if let Some(attempt) = sending.claim_again(again.root).await.attempt {
                    sending.record_all(attempt, &seqs, &Outcome::Released { alone: false }).await;
                }
            }
        }
    }
    hear(world, &sending).await;
    ledger.ready_from(sending.id, 10, 5).await.unwrap();
    ledger.unfinished().await.unwrap();
    ledger.progress(world.tenant, sending.id).await.unwrap();
    ledger.brief(sending.id).await.unwrap();
    ledger.complete(sending.id, now_ms).await.unwrap();
}

/// What runs once per batch of callbacks.
async fn hear(world: &World, sending: &Sending<'_>) {
    let (ledger, now_ms) = (&world.ledger, world.now_ms());
    let report = |number: u8, seq| Report {
        id: [number; 16],
        campaign: sending.id,
        seq,
        kind: FactKind::Delivered,
        at_ms: now_ms,
        proves_acceptance: true,
        provider_id: None,
    };
    let orphan = Orphan {
        id: [9; 16],
        account: ACCOUNT.to_owned(),
        kind: FactKind::Delivered,
        at_ms: now_ms,
        proves_acceptance: true,
        traces: Traces::default(),
        address: None,
        arrived_at_ms: now_ms,
    };
    ledger.unseen(&[[1; 16]]).await.unwrap();
    ledger.reported(ACCOUNT, &[(sending.id, 1), (sending.id, 20)]).await.unwrap();
    ledger.members(ACCOUNT, &[SendKey([1; 16])]).await.unwrap();
    ledger.addresses(&[(sending.id, 1), (sending.id, 20)]).await.unwrap();
    ledger.apply(&[report(1, 2), report(2, 20), report(3, 30)], &[orphan], now_ms).await.unwrap();
    let found = Revisited { found: vec![report(9, 21)], missed: vec![([8; 16], Some(now_ms))] };
    ledger.revisit(&found, now_ms).await.unwrap();
    ledger.orphans_due(now_ms, 10).await.unwrap();
    sending.recipient(20).await;
    ledger.forget_reports(now_ms, now_ms).await.unwrap();
}

/// What people and other machines ask for, and what ends a campaign: a campaign's rows may be gone through, never all
/// campaigns' and never all contacts.
async fn run_the_rest(world: &World) {
    let ledger = &world.ledger;
    let list = world.list_of("three", &crowd(20)).await;
    let sending = world.running(&to(&[list]).not_after(world.now_ms() + 1_000)).await;
    let attempt = sending.claim_all(&[0, 1]).await;
    sending.record_all(attempt, &[0, 1], &failed()).await;
    ledger.retry(world.tenant, sending.id, &Retry::default()).await.unwrap();
    ledger.evidence(sending.id, Channel::Email, 3, 10).await.unwrap();
    sending.recipient(3).await;
    ledger.pause(world.tenant, sending.id, "operator").await.unwrap();
    ledger.resume(world.tenant, sending.id).await.unwrap();
    let person = [(Channel::Email, world.email(&address(7))), (Channel::Sms, world.phone("+33600000001"))];
    ledger.erase(world.tenant, &person).await.unwrap();
    sending.end_waiting(End::Stopped(StopReason::Cancelled), 5).await;
    ledger.close_expired(world.now_ms() + 1_000).await.unwrap();
    ledger.cancel(world.tenant, sending.id).await.unwrap();
    let mut upload = world.upload(list).await;
    upload.store(&[email("gone@x.eu"), email(address(1)).named("P")]).await;
    upload.roll_back().await;
    ledger.close_tenant(world.tenant, "unpaid").await.unwrap();
    ledger.open_tenant(world.tenant).await.unwrap();
    ledger.past_sends(0).await.unwrap();
    ledger.suppressions(world.tenant, None, 10).await.unwrap();
    ledger.start_due(world.now_ms()).await.unwrap();
    ledger.check().await.unwrap();
}

/// The steps of the plans that a rule forbids, with their statements.
async fn explain(world: &World, statements: BTreeSet<String>, forbidden: fn(&str, &str) -> bool) -> Vec<String> {
    let mut conn = crate::reader(&world.place.whereabouts()).await;
    let mut wrong = Vec::new();
    let mut explained = 0;
    for sql in statements {
        let verb = sql.split_whitespace().next().unwrap_or("").to_ascii_uppercase();
        if !matches!(verb.as_str(), "SELECT" | "INSERT" | "UPDATE" | "DELETE" | "WITH") {
            continue;
        }
        explained += 1;
        let plan = sqlx::query(AssertSqlSafe(format!("EXPLAIN QUERY PLAN {sql}"))).fetch_all(&mut conn).await.unwrap();
        for step in &plan {
            let step: &str = step.get("detail");
            if forbidden(&sql, step) {
                wrong.push(format!("{step}\n  in {sql}"));
            }
        }
    }
    assert!(explained > 10, "the statements were seen");
    wrong
}

/// Whether a step is about this table, by its name or one of the names the statement gives it.
fn is_about(table: &str, sql: &str, step: &str) -> bool {
    let name = step.split_whitespace().nth(1).unwrap_or("");
    name == table || sql.contains(&format!("{table} {name} ")) || sql.contains(&format!("{table} {name}\n"))
}

fn is_whole_read(sql: &str, step: &str) -> bool {
    step.starts_with("SCAN")
        && ["delivery", "contact", "gate", "fact", "report_seen"].iter().any(|table| is_about(table, sql, step))
}

fn is_whole_read_or_campaign_read(sql: &str, step: &str) -> bool {
    is_whole_read(sql, step) || (step.ends_with("(campaign_id=?)") && is_about("delivery", sql, step))
}
