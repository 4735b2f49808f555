//! Small things are not held up by large ones. By the order in the witness, not by time.

use std::collections::HashSet;

use dispatch_schemas::{api::limits::Windows, states::Channel};
use dispatch_tests::support::{
    people::People,
    platform::Platform,
    sandbox::{accepted_in, name_of},
    stage::Account,
    wait,
};
use sqlx::{Connection as _, SqliteConnection, sqlite::SqliteConnectOptions};

use crate::rig::{COMPLETES_WITHIN, Rig};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tenant_with_100_recipients_does_not_wait_for_another_with_20_000() {
    const LARGE: usize = 20_000;
    const SMALL: usize = 100;
    let rig = Rig::new(&[Account { batch: 50, per_minute: Some(60 * 1_000), ..Account::new("sendgrid") }]).await;
    let large = rig.launch(People::by_email("many", LARGE), "sendgrid").await;
    rig.accepted(LARGE / 20).await;

    let other = Platform::new(&rig.engine.opened, "corner shop").await;
    let people = People::by_email("few", SMALL);
    let small = other.campaign_to(people, "sendgrid", |_| {}).await;
    let accepted_before = rig.stage.sandbox.accepted();
    other.launch(small).await;
    rig.engine.campaign_changed(small);
    wait::until("the small campaign completes", COMPLETES_WITHIN, async || other.completed(small).await).await;

    let names: HashSet<String> = (0..SMALL).map(|number| name_of(&people.address(number))).collect();
    let lines = rig.stage.sandbox.lines();
    let last = lines.iter().rposition(|line| line.recipients.iter().any(|recipient| names.contains(&recipient.to)));
    let before_last: usize = lines[..=last.expect("it was sent")].iter().map(accepted_in).sum();
    let overtaken_by = before_last - accepted_before - SMALL;
    eprintln!("of the large campaign {overtaken_by} were sent while the small one was");
    assert!(overtaken_by < LARGE / 4, "{overtaken_by} of the large campaign went first");
    assert!(rig.platform.completed(large).await.is_none(), "the large campaign still goes on");
    rig.platform.ledger().cancel(rig.platform.tenant, large).await.expect("it can be cancelled");
    rig.engine.campaign_changed(large);
    rig.engine.drain().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_single_message_overtakes_a_running_campaign() {
    const RECIPIENTS: usize = 4_000;
    let rig = Rig::new(&[Account { per_second: Some(300), ..Account::new("smtp") }]).await;
    let template = rig.platform.template("Receipt", Channel::Email).await;
    let campaign = rig.launch(People::by_email("customer", RECIPIENTS), "smtp").await;
    rig.accepted(200).await;
    let mut waited_for = Vec::new();
    for nth in 0..5 {
        let before = rig.stage.sandbox.accepted();
        let to = format!("buyer{nth}@people.example");
        rig.platform.message(&template, "smtp", &to, "Buyer").await;
        rig.engine.desk.wake();
        let name = name_of(&to);
        let at = wait::until("the message is sent", COMPLETES_WITHIN, async || {
            let lines = rig.stage.sandbox.lines();
            lines.iter().position(|line| line.recipients.iter().any(|recipient| recipient.to == name))
        })
        .await;
        waited_for.push(at.saturating_sub(before));
    }
    eprintln!("sent before a single message that was ready: {waited_for:?}");
    // The queue holds two seconds of the campaign, and the ledger thousands more.
    assert!(waited_for.iter().all(|others| *others < 300), "{waited_for:?}");
    rig.platform.ledger().cancel(rig.platform.tenant, campaign).await.expect("it can be cancelled");
    rig.engine.campaign_changed(campaign);
    rig.engine.drain().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_campaign_that_cannot_be_read_does_not_hold_up_others() {
    let rig = Rig::new(&[Account { batch: 20, ..Account::new("sendgrid") }]).await;
    let damaged = rig.platform.campaign_to(People::by_email("damaged", 50), "sendgrid", |_| {}).await;
    let options = SqliteConnectOptions::new().filename(rig.stage.ledger_file());
    let mut file = SqliteConnection::connect_with(&options).await.expect("the file opens");
    let damage = sqlx::query("UPDATE campaign SET content = '{' WHERE id = ?").bind(damaged.0).execute(&mut file).await;
    assert_eq!(damage.expect("a row is changed").rows_affected(), 1);
    // Found by the scheduler before the other one.
    rig.go(damaged).await;
    wait::until("its recipients are found", COMPLETES_WITHIN, async || {
        (rig.platform.progress(damaged).await.states["ready"] == 50).then_some(())
    })
    .await;
    let whole = rig.launch(People::by_email("whole", 200), "sendgrid").await;
    rig.completed(whole).await;
    assert_eq!(rig.platform.progress(damaged).await.states["ready"], 50, "it waits until it is mended");
    rig.engine.drain().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_campaign_that_is_out_of_permits_does_not_hold_up_its_neighbour() {
    let rig = Rig::new(&[Account { batch: 20, ..Account::new("sendgrid") }]).await;
    let slow = rig
        .platform
        .campaign_to(People::by_email("slow", 2_000), "sendgrid", |new| {
            new.limits = Windows { per_second: Some(5), ..Windows::default() };
        })
        .await;
    rig.go(slow).await;
    rig.accepted(5).await;
    let quick = rig.launch(People::by_email("quick", 2_000), "sendgrid").await;
    rig.completed(quick).await;
    assert!(rig.platform.completed(slow).await.is_none());
    let lines = rig.stage.sandbox.lines();
    let of_slow = lines.iter().map(accepted_in).sum::<usize>() - 2_000;
    assert!(of_slow < 1_000, "{of_slow} of the slow campaign went while the quick one did");
    rig.platform.ledger().cancel(rig.platform.tenant, slow).await.expect("it can be cancelled");
    rig.engine.campaign_changed(slow);
    rig.engine.drain().await;
}
