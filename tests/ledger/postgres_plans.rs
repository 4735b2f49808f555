//! The statements that really ran are explained on full tables, once as planned for the values at hand and once as
//! planned for any: none may read a table of millions from end to end, and each finds deliveries by their whole key in
//! one partition.

use dispatch_engine::ledger::{
    End, FactBook as _, Orphan, Report, Revisited, Schedule as _, Verdict,
    postgres::{PostgresLedger, SETTINGS},
};
use dispatch_schemas::states::{FactKind, StopReason};
use dispatch_workers::{
    delivery::{Claim, Claims as _, Counts, Outcome, Timing},
    message::SendKey,
    providers::{Class, Code, callbacks::Traces},
};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection, Row as _};
use tracing_subscriber::layer::SubscriberExt as _;

use crate::{
    own_process,
    postgres_rows::{CAMPAIGN, Database, MONTH, record},
    statements::Statements,
};

const DELIVERIES: i64 = 60_000;
/// How many numbers an explained batch has.
const BATCH: i64 = 1_000;
/// Begins what is said of a step that finds deliveries by less than their whole key.
const BY_KEY: &str = "finds deliveries by";

#[test]
fn no_statement_reads_a_large_table_from_end_to_end() {
    if !own_process::is_own() {
        // What other tests run beside this one is none of its business.
        return own_process::run("postgres_plans::no_statement_reads_a_large_table_from_end_to_end", "");
    }
    let statements = Statements::default();
    tracing::subscriber::set_global_default(tracing_subscriber::registry().with(statements.clone())).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let database = Database::with_deliveries(DELIVERIES).await;
        run_batches(&database).await;
        let seen = statements.take();
        // Of a campaign that began a moment ago the server has no statistics: what is known of a column goes with its
        // type. Small tables may be read as it likes.
        database
            .run(
                "ALTER TABLE delivery ALTER campaign_id TYPE bigint, ALTER seq TYPE bigint, ALTER state TYPE text,
                                      ALTER attempt_id TYPE bigint",
            )
            .await;
        let mut wrong = faults_of(&database, &seen, "never counted").await;
        wrong.retain(|fault| fault.contains(BY_KEY));
        fill_other_tables(&database).await;
        wrong.extend(faults_of(&database, &seen, "counted").await);
        assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
    });
}

/// What is wrong with the plans of these statements.
async fn faults_of(database: &Database, seen: &std::collections::BTreeSet<String>, what: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    for mode in ["force_custom_plan", "force_generic_plan"] {
        let mut explained = 0;
        let mut conn = database.connect_with(&SETTINGS).await;
        sqlx::query(AssertSqlSafe(format!("SET plan_cache_mode = {mode}"))).execute(&mut conn).await.unwrap();
        for sql in seen {
            let verb = sql.split_whitespace().next().unwrap_or("").to_ascii_uppercase();
            if matches!(verb.as_str(), "SELECT" | "INSERT" | "UPDATE" | "DELETE" | "WITH") && sql.contains('$') {
                explained += 1;
                let plan = explain(&mut conn, sql).await;
                look_at(&plan, &mut |step| {
                    if let Some(fault) = fault(step) {
                        wrong.push(format!("{what}, {mode}: {fault}\n  in {sql}"));
                    }
                });
            }
        }
        assert!(explained > 25, "the statements were seen: {explained}");
        conn.close().await.unwrap();
    }
    wrong
}

/// All that runs once per batch, chunk or sweep.
async fn run_batches(database: &Database) {
    let ledger = database.open().await;
    let (plan, remembered) = (
        database.plan(Class::ClientId),
        database.plan(Class::KeyWithTtl { safe_for: std::time::Duration::from_secs(600) }),
    );
    let unknown = Outcome::Unknown { code: Code::known("timeout"), look_at_ms: 0 };
    let deferred = Outcome::Retry { at_ms: 0, code: Code::known("busy"), counts: Counts::AsAttempt, alone: false };
    let accepted = |id: i64| Outcome::Accepted { provider_id: Some(id.to_string()) };

    database.run("INSERT INTO gate SELECT 1, email_hash, 'unsubscribed', 'email', 0 FROM contact WHERE id = 4").await;
    ledger.destinations(&plan, &[0, 1, 7]).await.unwrap();
    ledger.destinations(&plan, &[0, 1]).await.unwrap();
    ledger.defer(&plan, &[(0, 0), (9, 0)]).await.unwrap();
    ledger.wake_waiting(1, 100).await.unwrap();
    for seqs in [vec![0, 1, 2, 3, 4], vec![6, 7, 9, 11]] {
        let attempt = database.claim(&ledger, &plan, &seqs).await.attempt.unwrap();
        let mut outcomes: Vec<_> = seqs.iter().map(|seq| (*seq, accepted(*seq))).collect();
        outcomes[0].1 = deferred.clone();
        outcomes[1].1 = unknown.clone();
        let now_ms = 1;
        let batch = dispatch_workers::delivery::Record { plan: &plan, attempt, outcomes, now_ms };
        ledger.record(&batch).await.unwrap();
        let late = seqs.iter().map(|seq| (*seq, accepted(*seq))).collect();
        ledger.record(&dispatch_workers::delivery::Record { outcomes: late, ..batch }).await.unwrap();
    }
    let attempt = database.claim(&ledger, &plan, &[20, 21]).await.attempt.unwrap();
    record(&ledger, &plan, attempt, &[20, 21], &accepted(1)).await;
    for seqs in [[30, 31], [33, 35]] {
        let root = database.claim(&ledger, &remembered, &seqs).await.attempt.unwrap();
        record(&ledger, &remembered, root, &seqs, &unknown).await;
        for group in ledger.unknown_due(1, 10).await.unwrap() {
            for verdict in [Verdict::Later(0), Verdict::Absent] {
                let verdicts: Vec<_> =
                    group.deliveries.iter().map(|delivery| (delivery.seq, verdict.clone())).collect();
                ledger.settle(CAMPAIGN, group.attempt, &verdicts, 1).await.unwrap();
            }
        }
        for again in database.claim(&ledger, &remembered, &seqs).await.again {
            let token = database.token();
            ledger.claim_again(&Claim { plan: &remembered, seqs: &again.seqs, token }, again.root).await.unwrap();
        }
    }
    for seqs in [[40, 41], [43, 45]] {
        database.claim(&ledger, &plan, &seqs).await;
    }
    ledger.reap(i64::MAX / 2, 1, &Timing::default()).await.unwrap();
    hear(&ledger).await;
    ledger.ready_from(CAMPAIGN, 50, 5).await.unwrap();
    ledger.ready_from(CAMPAIGN, 28, 5).await.unwrap();
    ledger.end_waiting(CAMPAIGN, End::Stopped(StopReason::Cancelled), 100, 10, 1).await.unwrap();
    ledger.brief(CAMPAIGN).await.unwrap_err();
    ledger.complete(CAMPAIGN, 1).await.unwrap();
    ledger.past_sends(0).await.unwrap();
    ledger.start_due(1).await.unwrap();
    ledger.close_expired(1).await.unwrap();
    ledger.forget_old_answers(1).await.unwrap();
    database.assert_adds_up().await;
}

/// What runs once per batch of callbacks.
async fn hear(ledger: &PostgresLedger) {
    let report = |number: u8, seq| Report {
        id: [number; 16],
        campaign: CAMPAIGN,
        seq,
        kind: FactKind::Delivered,
        at_ms: 1,
        proves_acceptance: true,
        provider_id: Some("m1".to_owned()),
    };
    let orphan = Orphan {
        id: [9; 16],
        account: "main".to_owned(),
        kind: FactKind::Delivered,
        at_ms: 1,
        proves_acceptance: true,
        traces: Traces::default(),
        address: None,
        arrived_at_ms: 1,
    };
    ledger.unseen(&[[1; 16]]).await.unwrap();
    ledger.reported("main", &[(CAMPAIGN, 1), (CAMPAIGN, 60)]).await.unwrap();
    ledger.members("main", &[SendKey([1; 16])]).await.unwrap();
    ledger.addresses(&[(CAMPAIGN, 1), (CAMPAIGN, 60)]).await.unwrap();
    // Two that are claimed, and one that nobody tried.
    ledger.apply(&[report(1, 40), report(2, 45), report(3, 60)], &[orphan], 1).await.unwrap();
    let found = Revisited { found: vec![report(9, 61)], missed: vec![([8; 16], Some(1))] };
    ledger.revisit(&found, 1).await.unwrap();
    ledger.orphans_due(1, 10).await.unwrap();
}

/// As many rows everywhere that reading all of them would be felt.
async fn fill_other_tables(database: &Database) {
    database
        .run("INSERT INTO gate SELECT 1, sha256((i + 1000000)::text::bytea), 'suppressed', 'email', 0 FROM generate_series(1, 50000) i")
        .await;
    database
        .run(
            "INSERT INTO attempt (id, campaign_id, tenant_id, month, root_id, token, ranges, deliveries, open,
                                  claimed_at_ms, ended_at_ms)
             SELECT -i, 1000, 1, 203106, -i, decode(lpad(to_hex(i), 32, '0'), 'hex'), '[]', 0, 0, i, i
               FROM generate_series(1, 50000) i",
        )
        .await;
    database
        .run(
            "INSERT INTO waiting (campaign_id, seq, tenant_id, month, state, next_at_ms)
             SELECT 1000, 1000000 + i, 1, 203106, CASE i % 2 WHEN 0 THEN 'unknown' ELSE 'retry_wait' END, 1000 + i
               FROM generate_series(1, 50000) i",
        )
        .await;
    database
        .run("INSERT INTO report_seen SELECT decode(lpad(to_hex(i), 32, '0'), 'hex'), 1 FROM generate_series(1, 50000) i")
        .await;
    database
        .run(
            "INSERT INTO fact (month, campaign_id, seq, tenant_id, first_at_ms, last_at_ms, reports, kind)
             SELECT 203106, 1000, i, 1, 1, 1, 1, 'deferred' FROM generate_series(1, 50000) i ON CONFLICT DO NOTHING",
        )
        .await;
    database.run("ANALYZE").await;
}

/// The plan of a statement for a batch of [`BATCH`] deliveries.
async fn explain(conn: &mut PgConnection, sql: &str) -> serde_json::Value {
    sqlx::raw_sql(AssertSqlSafe(format!("PREPARE looked_at AS {sql}"))).execute(&mut *conn).await.unwrap();
    let types: Vec<String> =
        sqlx::query("SELECT parameter_types::text[] FROM pg_prepared_statements WHERE name = 'looked_at'")
            .fetch_one(&mut *conn)
            .await
            .unwrap()
            .get(0);
    let numbers: Vec<String> = (1..=BATCH).map(|number| (number * 2).to_string()).collect();
    // Every number is the campaign's: it stands for one of its deliveries, one of its attempts and so on as well.
    let values: Vec<String> = types
        .iter()
        .map(|kind| match kind.as_str() {
            "integer" => MONTH.to_string(),
            "smallint" => "1".to_owned(),
            "bigint" => CAMPAIGN.0.to_string(),
            "bigint[]" => format!("'{{{}}}'", numbers.join(",")),
            "text[]" => format!("array_fill('x'::text, ARRAY[{BATCH}])"),
            "text" => "'ready'".to_owned(),
            "boolean" => "false".to_owned(),
            "bytea" => "'\\x00'".to_owned(),
            "integer[]" => format!("array_fill({MONTH}, ARRAY[{BATCH}])"),
            "bytea[]" => format!("array_fill('\\x00'::bytea, ARRAY[{BATCH}])"),
            "boolean[]" => format!("array_fill(false, ARRAY[{BATCH}])"),
            kind => panic!("a parameter of type {kind} in {sql}"),
        })
        .collect();
    let call = if values.is_empty() { String::new() } else { format!("({})", values.join(", ")) };
    let plan: serde_json::Value =
        sqlx::raw_sql(AssertSqlSafe(format!("EXPLAIN (FORMAT JSON) EXECUTE looked_at {call}")))
            .fetch_one(&mut *conn)
            .await
            .unwrap()
            .get(0);
    sqlx::raw_sql("DEALLOCATE looked_at").execute(conn).await.unwrap();
    plan
}

fn look_at(plan: &serde_json::Value, look: &mut impl FnMut(&serde_json::Map<String, serde_json::Value>)) {
    match plan {
        serde_json::Value::Array(steps) => steps.iter().for_each(|step| look_at(step, look)),
        serde_json::Value::Object(step) => {
            if step.contains_key("Node Type") {
                look(step);
            }
            step.values().for_each(|part| look_at(part, look));
        }
        _ => {}
    }
}

/// What is wrong with a step of a plan.
fn fault(step: &serde_json::Map<String, serde_json::Value>) -> Option<String> {
    let text = |name: &str| step.get(name).and_then(serde_json::Value::as_str).unwrap_or("");
    let (node, table, index) = (text("Node Type"), text("Relation Name"), text("Index Name"));
    let (condition, is_keyed) = (text("Index Cond"), step.contains_key("Index Cond"));
    let is_large = |name: &str| {
        const LARGE: [&str; 8] =
            ["delivery", "contact", "gate", "attempt", "message", "waiting", "fact_2", "report_seen"];
        LARGE.iter().any(|large| name.starts_with(large))
    };
    if node == "Seq Scan" && is_large(table) {
        return Some(format!("reads {table} whole"));
    }
    if matches!(node, "Hash Join" | "Merge Join") {
        return Some(format!("joins by {node}"));
    }
    if matches!(node, "Index Scan" | "Index Only Scan" | "Bitmap Index Scan") && is_large(index) && !is_keyed {
        return Some(format!("reads all of {index}"));
    }
    if index.starts_with("delivery_") {
        if ["(month = ", "(campaign_id = ", "(seq "].iter().any(|part| !condition.contains(part)) {
            return Some(format!("{BY_KEY} {condition}"));
        }
        // Without a month at hand all partitions are in the plan, and the month read from a row picks one.
        let picks_one = ["waiting.month", "j.month"].iter().any(|row| condition.contains(&format!("(month = {row})")));
        if !index.starts_with(&format!("delivery_{MONTH}")) && !picks_one {
            return Some(format!("looks into {index}"));
        }
    }
    None
}
