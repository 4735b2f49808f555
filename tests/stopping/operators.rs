//! Pausing, resuming and cancelling; and a provider that refuses the account, which pauses too.

use std::time::Duration;

use dispatch_engine::api::Health;
use dispatch_schemas::{
    api::campaigns::CampaignStopped,
    states::{CampaignState, DeliveryState},
};
use dispatch_tests::support::{
    checker::Faults, people::People, platform::count, sandbox::accepted_in, stage::Account, wait,
};

use crate::rig::{COMPLETES_WITHIN, Rig, accepted_after};

const RECIPIENTS: usize = 1_200;
/// A stop must be felt by then.
const FELT_WITHIN_MS: i64 = 1_000;

fn account(kind: &'static str, batch: usize) -> Account {
    Account { batch, per_minute: Some(60 * 400), ..Account::new(kind) }
}

/// What the witness may log after a stop was answered.
async fn assert_stopped(rig: &Rig, stopped: &CampaignStopped, answered_ms: i64) {
    rig.nothing_in_flight(stopped.campaign.id).await;
    // Long enough for a worker that did not hear of it to take the next second's permits.
    wait::until("a while has passed", COMPLETES_WITHIN, async || {
        (wait::now_ms() > answered_ms + FELT_WITHIN_MS + 500).then_some(())
    })
    .await;
    let lines = rig.stage.sandbox.lines();
    let late = accepted_after(&lines, answered_ms);
    assert!(late <= stopped.in_flight, "{late} after the answer, which reported {}", stopped.in_flight);
    assert_eq!(accepted_after(&lines, answered_ms + FELT_WITHIN_MS), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pause_is_felt_at_once_and_a_resume_goes_on_to_the_end() {
    let rig = Rig::new(&[account("brevo", 20)]).await;
    let campaign = rig.launch(People::by_email("customer", RECIPIENTS), "brevo").await;
    let (ledger, tenant) = (rig.platform.ledger(), rig.platform.tenant);
    for pauses in 1..=2 {
        rig.accepted(pauses * RECIPIENTS / 4).await;
        let stopped = ledger.pause(tenant, campaign, "operator").await.expect("it can be paused");
        rig.engine.campaign_changed(campaign);
        assert_stopped(&rig, &stopped, wait::now_ms()).await;
        let progress = rig.platform.progress(campaign).await;
        assert_eq!((progress.state, progress.pause_reason.as_deref()), (CampaignState::Paused, Some("operator")));
        assert!(count(&progress, DeliveryState::Ready) > 0, "it was paused in the middle");
        ledger.resume(tenant, campaign).await.expect("it can go on");
        rig.engine.campaign_changed(campaign);
    }
    let end = rig.completed(campaign).await;
    assert_eq!(count(&end, DeliveryState::Accepted), RECIPIENTS as u64);
    assert_eq!(rig.check(&[campaign]).await.faults, Faults::default());
    rig.engine.drain().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancel_is_felt_at_once_and_stops_everybody_who_is_left() {
    let rig = Rig::new(&[Account { per_second: Some(300), ..Account::new("smtp") }]).await;
    let campaign = rig.launch(People::by_email("customer", RECIPIENTS), "smtp").await;
    rig.accepted(RECIPIENTS / 4).await;
    let stopped = rig.platform.ledger().cancel(rig.platform.tenant, campaign).await.expect("it can be cancelled");
    rig.engine.campaign_changed(campaign);
    assert_stopped(&rig, &stopped, wait::now_ms()).await;
    let end = wait::until("everybody is final", COMPLETES_WITHIN, async || {
        let progress = rig.platform.progress(campaign).await;
        let open = [DeliveryState::Ready, DeliveryState::Claimed, DeliveryState::RetryWait, DeliveryState::Unknown];
        open.iter().all(|state| count(&progress, *state) == 0).then_some(progress)
    })
    .await;
    assert_eq!(end.state, CampaignState::Cancelled);
    let (accepted, stopped) = (count(&end, DeliveryState::Accepted), count(&end, DeliveryState::Stopped));
    assert_eq!((accepted + stopped, end.audience), (RECIPIENTS as u64, RECIPIENTS as u64));
    assert_eq!(end.reasons.get("cancelled"), Some(&stopped));
    assert!(stopped > 0, "it was cancelled in the middle");
    assert_eq!(rig.check(&[campaign]).await.faults, Faults::default());
    rig.engine.drain().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_key_pauses_the_campaign_with_its_reason_and_fails_nobody() {
    let rig = Rig::new(&[account("sendgrid", 20), account("infobip", 20)]).await;
    let worker = || rig.engine.readiness().into_iter().find(|(role, _)| *role == "worker").map(|(_, health)| health);
    let campaign = rig.launch(People::by_email("customer", RECIPIENTS), "sendgrid").await;
    rig.accepted(RECIPIENTS / 4).await;
    assert_eq!(worker(), Some(Health::Well));
    rig.stage.sandbox.refuse_key("sendgrid").await;
    let paused = wait::until("the campaign pauses", COMPLETES_WITHIN, async || {
        let progress = rig.platform.progress(campaign).await;
        (progress.state == CampaignState::Paused).then_some(progress)
    })
    .await;
    let reason = paused.pause_reason.unwrap_or_default();
    assert!(reason.contains("refuses the account `sendgrid`"), "{reason}");
    let mend = "mend the key in the file of `providers.sendgrid.key_file` and restart";
    assert!(reason.contains(mend) && reason.ends_with("then resume the campaign"), "{reason}");
    // The other account works.
    let Some(Health::Impaired(why)) = worker() else { panic!("{:?}", worker()) };
    assert!(why.starts_with("1 of 2 accounts are refused by their providers: `sendgrid` ("), "{why}");
    rig.nothing_in_flight(campaign).await;
    let before = rig.stage.sandbox.accepted();

    rig.stage.sandbox.refuse_key("none").await;
    rig.platform.ledger().resume(rig.platform.tenant, campaign).await.expect("it can go on");
    rig.engine.campaign_changed(campaign);
    let end = rig.completed(campaign).await;
    assert_eq!(count(&end, DeliveryState::Accepted), RECIPIENTS as u64, "{:?}", end.states);
    assert!(before < RECIPIENTS, "the key was refused in the middle");
    assert_eq!(rig.check(&[campaign]).await.faults, Faults::default());
    rig.engine.drain().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wait_that_a_provider_asks_for_is_kept_by_every_worker() {
    let account = Account { requests_open: 3, ..Account::new("infobip") };
    let rig = Rig::new(&[account]).await;
    rig.stage.sandbox.set_faults("throttle=1").await;
    let campaign = rig.launch(People::by_sms("customer", 300), "infobip").await;
    let throttled = || rig.stage.sandbox.lines().into_iter().filter(|line| line.status == 429).collect::<Vec<_>>();
    // The fake asks for one second, so this is the third time that somebody looks whether it is over.
    wait::until("the provider says 429 again", COMPLETES_WITHIN, async || {
        let lines = throttled();
        lines.first().zip(lines.last()).filter(|(first, last)| last.t_ms - first.t_ms >= 2_000).map(drop)
    })
    .await;
    for first in &throttled() {
        // Of the second that was asked for: less a little, for the answer had to be read before it began.
        let asked = first.t_ms..first.t_ms + Duration::from_millis(900).as_millis() as i64;
        let requests = rig.stage.sandbox.lines().iter().filter(|line| asked.contains(&line.t_ms)).count();
        assert!(requests <= account.requests_open, "{requests} requests while all were to wait");
    }
    rig.stage.sandbox.set_faults("").await;
    let end = rig.completed(campaign).await;
    assert_eq!(count(&end, DeliveryState::Accepted), 300, "being too fast is nobody's failure");
    let accepted: usize = rig.stage.sandbox.lines().iter().map(accepted_in).sum();
    assert_eq!(accepted, 300);
    rig.engine.drain().await;
}
