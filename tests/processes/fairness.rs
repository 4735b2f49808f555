//! A tenant's small campaign, and a person who waits for a single message, beside another tenant's large campaign.

use std::collections::HashSet;

use dispatch_schemas::states::{Channel, DeliveryState};
use dispatch_tests::support::{
    given_services::GivenServices,
    people::People,
    platform::Platform,
    sandbox::{accepted_in, name_of},
    stage::Account,
    wait,
};
use serde_json::json;

use crate::fleet::{Fleet, Ground, ROLES, WITHIN};

/// More than are sent while the small ones are: all of them would fit into the queue at once.
const LARGE: usize = 30_000;
const SMALL: usize = 100;
/// Recipients in a request.
const BATCH: usize = 20;
/// How long the provider takes for an answer: with the requests that are open at once some 2,000 messages a second.
const ANSWERS_MS: u64 = 60;
/// Single messages, one after the other.
const MESSAGES: usize = 10;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_small_campaign_and_single_messages_do_not_wait_for_a_large_one() {
    let given = GivenServices::new().await;
    // Without a limit: the large one goes as fast as the provider answers.
    let account = Account { batch: BATCH, requests_open: 2, ..Account::new("sendgrid") };
    let ground = Ground::slow(&[account], &given.ledger_url(None), &given.queue_url(), ANSWERS_MS);
    let fleet = Fleet::at_work(ground, &ROLES).await;
    let other = Platform::new(&fleet.opened, "corner shop").await;
    let people = People::by_email("few", SMALL);
    let small = other.campaign_to(people, "sendgrid", |_| {}).await;
    let template = fleet.platform.template("Receipt", Channel::Email).await.id;
    let large = fleet.launch(People::by_email("many", LARGE), "sendgrid").await;
    fleet.accepted(LARGE / 10).await;

    let (before, began_ms) = (fleet.ground.stage.sandbox.accepted(), wait::now_ms());
    other.launch(small).await;
    wait::until("the small campaign completes", WITHIN, async || other.completed(small).await).await;
    let names: HashSet<String> = (0..SMALL).map(|number| name_of(&people.address(number))).collect();
    let lines = fleet.ground.stage.sandbox.lines();
    let last = lines.iter().rposition(|line| line.recipients.iter().any(|recipient| names.contains(&recipient.to)));
    let last = last.expect("it was sent");
    let overtaken_by = lines[..=last].iter().map(accepted_in).sum::<usize>() - before - SMALL;
    eprintln!("{overtaken_by} of the large one went first, in {} ms", lines[last].t_ms - began_ms);

    let mut answered = Vec::new();
    for nth in 0..MESSAGES {
        let to = format!("buyer{nth}@people.example");
        let message = json!({
            "template": template, "to": to, "source": fleet.platform.source, "variables": {"first_name": "Buyer"},
        });
        fleet.post(nth % 2, "/v1/messages", &message.to_string()).await;
        answered.push((name_of(&to), wait::now_ms()));
        fleet.until(wait::now_ms() + 100).await;
    }
    let arrived = wait::until("the messages are sent", WITHIN, async || {
        let lines = fleet.ground.stage.sandbox.lines();
        let of = |name: &String| lines.iter().find(|line| line.recipients.iter().any(|each| each.to == *name));
        answered.iter().map(|(name, _)| of(name).map(|line| line.t_ms)).collect::<Option<Vec<i64>>>()
    })
    .await;
    let waited: Vec<i64> = arrived.iter().zip(&answered).map(|(at, (_, answered_ms))| at - answered_ms).collect();
    let goes_on = fleet.look(large).await;
    eprintln!("from the answer to the provider, ms: {waited:?}; of the large one {} are done", goes_on.count_final());
    assert!(!goes_on.ended, "the large campaign still goes on");
    assert!(overtaken_by < LARGE / 3, "{overtaken_by} of the large campaign went first");
    assert!(waited.iter().all(|ms| *ms <= 1_000), "from the answer to the provider, ms: {waited:?}");

    fleet.post(0, &format!("/v1/campaigns/{large}/cancel"), "{}").await;
    let ended = fleet.ended(large).await;
    assert_eq!(ended.count(DeliveryState::UnknownFinal), 0, "what a slow provider was not asked is not unknown");
    assert_eq!(fleet.faults(&[large]).await.duplicated, Vec::<String>::new());
    fleet.end().await;
}
