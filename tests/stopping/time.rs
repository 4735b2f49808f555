//! What happens at its time: starts, expiry, and the finding of recipients that was interrupted.

use dispatch_engine::engine::{Engine, Roles, open_ledger};
use dispatch_schemas::{
    api::time::Moment,
    states::{CampaignState, Channel, DeliveryState},
};
use dispatch_tests::support::{
    checker::{self, Books, Faults},
    people::People,
    platform::{Platform, count},
    stage::{Account, Stage},
    wait,
};

use crate::rig::{COMPLETES_WITHIN, Rig};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_sent_before_its_time() {
    let rig = Rig::new(&[Account { batch: 50, ..Account::new("sendgrid") }]).await;
    let (list, _) = rig.platform.import("Customers", People::by_email("customer", 200).csv()).await;
    let send_at_ms = wait::now_ms() + 2_500;
    let send_at = Some(Moment::from_ms(send_at_ms));
    let campaign = rig.platform.campaign(list, Channel::Email, "sendgrid", |new| new.send_at = send_at).await;
    rig.go(campaign).await;
    assert_eq!(rig.platform.progress(campaign).await.state, CampaignState::Scheduled, "launched before its time");
    rig.completed(campaign).await;
    let lines = rig.stage.sandbox.lines();
    assert!(lines.iter().all(|line| line.t_ms >= send_at_ms), "a request before its time");
    assert_eq!(rig.check(&[campaign]).await.faults, Faults::default());
    rig.engine.drain().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_was_not_sent_to_by_the_end_is_expired() {
    let rig = Rig::new(&[Account { per_second: Some(100), ..Account::new("smtp") }]).await;
    let (list, _) = rig.platform.import("Customers", People::by_email("customer", 1_000).csv()).await;
    let expires_at_ms = wait::now_ms() + 4_000;
    let expires_at = Some(Moment::from_ms(expires_at_ms));
    let campaign = rig.platform.campaign(list, Channel::Email, "smtp", |new| new.expires_at = expires_at).await;
    rig.go(campaign).await;
    let end = rig.completed(campaign).await;
    let (accepted, expired) = (count(&end, DeliveryState::Accepted), count(&end, DeliveryState::Expired));
    assert_eq!(accepted + expired, 1_000, "{:?}", end.states);
    assert!(accepted > 0 && expired > 0, "{:?}", end.states);
    // What was claimed before may still go out, until its send deadline and for as long as a request may take.
    let last = rig.stage.sandbox.lines().iter().map(|line| line.t_ms).max();
    let timing = rig.stage.settings().timing;
    let latest_ms = expires_at_ms + i64::try_from(timing.send_deadline_ms + timing.answer_timeout_ms).unwrap_or(0);
    assert!(last.is_some_and(|last| last <= latest_ms), "{last:?}, end {expires_at_ms}");
    assert_eq!(rig.check(&[campaign]).await.faults, Faults::default());
    rig.engine.drain().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn recipients_found_before_and_after_a_restart_are_each_written_to_once() {
    const RECIPIENTS: usize = 3_000;
    let stage = Stage::new(&[Account { batch: 100, ..Account::new("sendgrid") }], "", 1);
    let opened = open_ledger(&stage.settings()).await.expect("the ledger opens");
    let platform = Platform::new(&opened, "shop").await;
    let campaign = platform.campaign_to(People::by_email("customer", RECIPIENTS), "sendgrid", |_| {}).await;
    platform.launch(campaign).await;
    // A scheduler that ended after two chunks of its work, as small as they may be.
    for _ in 0..2 {
        let found = opened.ledger.expand(campaign, 700, wait::now_ms()).await.expect("a chunk is found");
        assert_eq!(found, 700);
    }
    let progress = platform.progress(campaign).await;
    assert_eq!((progress.audience, progress.expanded), (1_400, false));
    opened.ledger.close().await;

    let opened = open_ledger(&stage.settings()).await.expect("the ledger is free again");
    let platform = Platform::new(&opened, "shop").await;
    let engine = Engine::start(&stage.settings(), opened, Roles::all()).await.expect("the engine starts");
    let end =
        wait::until("the campaign completes", COMPLETES_WITHIN, async || platform.completed(campaign).await).await;
    assert_eq!((end.audience, count(&end, DeliveryState::Accepted)), (RECIPIENTS as u64, RECIPIENTS as u64));
    let books = Books::read(platform.ledger(), &stage.ledger_file(), platform.tenant, &[campaign]).await;
    assert_eq!(checker::check(&books, &stage.sandbox.lines()).faults, Faults::default());
    engine.drain().await;
}
