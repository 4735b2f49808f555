//! Suppressing and erasing people while their campaign runs.

use std::collections::BTreeMap;

use dispatch_schemas::states::{Channel, DeliveryState, StopReason};
use dispatch_tests::support::{
    checker::Faults,
    people::People,
    platform::count,
    sandbox::{accepted_in, name_of},
    stage::Account,
    wait,
};

use crate::rig::Rig;

const RECIPIENTS: usize = 1_500;
/// Every such person opts out, in the order in which they are to be written to.
const EVERY: usize = 5;
/// How many opt out between two looks at how far the campaign is.
const AT_ONCE: usize = 10;

/// A gate that was closed.
struct Closing {
    answered_ms: i64,
    in_flight: u64,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_is_written_to_after_an_opt_out_but_for_what_it_reported_in_flight() {
    let accounts = [
        Account { per_minute: Some(60 * 300), batch: 20, ..Account::new("sendgrid") },
        Account { per_second: Some(300), ..Account::new("smtp") },
    ];
    let rig = Rig::new(&accounts).await;
    let groups = [People::by_email("batched", RECIPIENTS), People::by_email("single", RECIPIENTS)];
    let campaigns = [rig.launch(groups[0], "sendgrid").await, rig.launch(groups[1], "smtp").await];
    rig.accepted(RECIPIENTS / 10).await;

    let mut closings = BTreeMap::new();
    for turn in (0..RECIPIENTS / EVERY).step_by(AT_ONCE) {
        for people in groups {
            for nth in turn..turn + AT_ONCE {
                // In turn the one who was just written to, perhaps, and one whose turn comes last.
                let number = if nth % 2 == 0 { nth * EVERY } else { RECIPIENTS - 1 - nth * EVERY };
                let address = people.address(number);
                let closing = opt_out(&rig, &address, nth).await;
                closings.insert(name_of(&address), closing);
            }
        }
        // Spread over the campaign, not over time.
        let due = RECIPIENTS / 10 + turn * 4;
        rig.accepted(due.min(RECIPIENTS)).await;
    }
    let ends = [rig.completed(campaigns[0]).await, rig.completed(campaigns[1]).await];

    let lines = rig.stage.sandbox.lines();
    let mut written_to = 0;
    for line in &lines {
        for recipient in &line.recipients {
            let Some(closing) = closings.get_mut(&recipient.to) else { continue };
            written_to += 1;
            if line.t_ms > closing.answered_ms {
                assert!(closing.in_flight > 0, "a request began after its answer, line {}", line.seq);
                closing.in_flight -= 1;
            }
        }
    }
    let stopped: u64 = ends.iter().map(|end| count(end, DeliveryState::Stopped)).sum();
    let accepted: u64 = ends.iter().map(|end| count(end, DeliveryState::Accepted)).sum();
    eprintln!("opt_outs={} of them after their message={written_to} stopped={stopped}", closings.len());
    assert_eq!(stopped + accepted, 2 * RECIPIENTS as u64);
    assert_eq!(accepted, lines.iter().map(|line| accepted_in(line) as u64).sum::<u64>());
    assert_eq!(stopped, closings.len() as u64 - written_to, "who opted out was written to before or never");
    assert!(stopped > 50, "the campaign was over before people opted out");
    for end in &ends {
        assert!(end.reasons.keys().all(|reason| reason == "suppressed" || reason == "erased"), "{:?}", end.reasons);
    }
    let report = rig.check(&campaigns).await;
    // Whom the ledger has forgotten, the witness still names.
    assert!(report.faults.unexpected.len() as u64 <= written_to);
    assert_eq!(report.faults, Faults { unexpected: report.faults.unexpected.clone(), ..Faults::default() });
    rig.engine.drain().await;
}

/// Suppresses or erases in turn.
async fn opt_out(rig: &Rig, address: &str, nth: usize) -> Closing {
    let (ledger, tenant) = (rig.platform.ledger(), rig.platform.tenant);
    let hash = rig.platform.address_hash(Channel::Email, address).await;
    let in_flight = if nth % 4 < 2 {
        let closed = ledger.close_gates(tenant, Channel::Email, &[hash], StopReason::Suppressed).await;
        closed.expect("a gate closes").in_flight
    } else {
        ledger.erase(tenant, &[(Channel::Email, hash)]).await.expect("a person is erased").in_flight
    };
    Closing { answered_ms: wait::now_ms(), in_flight }
}
