//! Unknown outcomes that their provider's log settles: many of them, though it can't be asked often, and those that asking
//! again does not settle.

use std::time::Duration;

use dispatch_engine::engine::{Engine, Roles, open_ledger};
use dispatch_schemas::{
    ids::CampaignId,
    states::{DeliveryState, UnknownPolicy},
};
use dispatch_tests::support::{
    checker::{self, Books},
    people::People,
    platform::{Platform, count},
    seed::Seed,
    stage::{Account, Stage},
    wait,
};
use dispatch_workers::sandbox::witness::{WitnessLine, WitnessVerdict};

/// Their errors are more than the log of Infobip answers in a minute one by one.
const RECIPIENTS: usize = 1_500;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_is_asked_about_many_requests_at_once() {
    let seed = Seed::of_this_run();
    eprintln!("{}", seed.how_to_repeat());
    // One message in a request; a quarter is answered with an error that tells nothing, of messages taken over or not.
    // Three in a row look like an account that is away, which rests for a while.
    let stage = Stage::new(&[Account::new("infobip")], "fail_after_accept=0.15, fail_before=0.1", seed.number());
    let opened = open_ledger(&stage.settings()).await.expect("the ledger opens");
    let platform = Platform::new(&opened, "shop").await;
    let engine = Engine::start(&stage.settings(), opened, Roles::all()).await.expect("the engine starts");
    let campaign = platform
        .campaign_to(People::by_sms("customer", RECIPIENTS), "infobip", |new| {
            new.unknown_policy = Some(UnknownPolicy::Verify);
        })
        .await;
    platform.launch(campaign).await;
    engine.campaign_changed(campaign);
    wait::until("every message was tried", Duration::from_secs(120), async || {
        (stage.sandbox.lines().len() >= RECIPIENTS).then_some(())
    })
    .await;
    stage.sandbox.set_faults("").await;
    wait::until("the log settles them", Duration::from_secs(60), async || platform.completed(campaign).await).await;

    let books = Books::read(platform.ledger(), &stage.ledger_file(), platform.tenant, &[campaign]).await;
    let report = checker::check(&books, &stage.sandbox.lines());
    engine.drain().await;
    eprintln!("{:?}", report.of("infobip"));
    assert_eq!(report.faults, checker::Faults::default());
    let figures = report.of("infobip");
    assert_eq!((figures.accepted, figures.extra), (RECIPIENTS as u64, 0));
}

/// Recipients of a request that has one key for all of them.
const TOGETHER: usize = 3;

async fn one_request_of_brevo() -> (Stage, Platform, Engine, CampaignId) {
    let account = Account { batch: TOGETHER, ..Account::new("brevo") };
    let stage = Stage::new(&[account], "accept_then_drop=1", 1);
    let opened = open_ledger(&stage.settings()).await.expect("the ledger opens");
    let platform = Platform::new(&opened, "shop").await;
    let engine = Engine::start(&stage.settings(), opened, Roles::all()).await.expect("the engine starts");
    let campaign = platform
        .campaign_to(People::by_email("customer", TOGETHER), "brevo", |new| {
            new.unknown_policy = Some(UnknownPolicy::Verify);
        })
        .await;
    platform.launch(campaign).await;
    engine.campaign_changed(campaign);
    seen(&stage, "the request is taken", |verdict, _| verdict == WitnessVerdict::Accepted).await;
    (stage, platform, engine, campaign)
}

/// Waits until the witness saw a recipient like that.
async fn seen(stage: &Stage, what: &str, is_it: impl Fn(WitnessVerdict, &WitnessLine) -> bool) {
    wait::until(what, Duration::from_secs(30), async || {
        let lines = stage.sandbox.lines();
        lines.iter().any(|line| line.recipients.iter().any(|one| is_it(one.verdict, line))).then_some(())
    })
    .await;
}

async fn all_were_accepted_once(stage: &Stage, platform: &Platform, campaign: CampaignId) {
    let books = Books::read(platform.ledger(), &stage.ledger_file(), platform.tenant, &[campaign]).await;
    let report = checker::check(&books, &stage.sandbox.lines());
    assert_eq!(report.faults, checker::Faults::default());
    let figures = report.of("brevo");
    assert_eq!((figures.accepted, figures.undecided, figures.extra), (TOGETHER as u64, 0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_duplicate_that_proves_nothing_is_settled_by_the_log() {
    let (stage, platform, engine, campaign) = one_request_of_brevo().await;
    // Whoever refuses a repeat may remember its key for the refusal.
    stage.sandbox.set_faults("throttle=1").await;
    seen(&stage, "its repeat is refused", |verdict, line| {
        verdict == WitnessVerdict::Refused && line.mode == "throttle"
    })
    .await;
    stage.sandbox.set_faults("").await;
    seen(&stage, "the next is a duplicate", |verdict, line| verdict == WitnessVerdict::Duplicate && line.mode == "ok")
        .await;
    wait::until("the log settles it", Duration::from_secs(60), async || platform.completed(campaign).await).await;
    engine.drain().await;
    all_were_accepted_once(&stage, &platform, campaign).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_campaign_that_was_cancelled_learns_from_the_log_what_was_taken() {
    let (stage, platform, engine, campaign) = one_request_of_brevo().await;
    platform.ledger().cancel(platform.tenant, campaign).await.expect("it can be cancelled");
    engine.campaign_changed(campaign);
    wait::until("the log settles it", Duration::from_secs(60), async || {
        let progress = platform.progress(campaign).await;
        (count(&progress, DeliveryState::Accepted) == TOGETHER as u64).then_some(())
    })
    .await;
    engine.drain().await;
    all_were_accepted_once(&stage, &platform, campaign).await;
}
