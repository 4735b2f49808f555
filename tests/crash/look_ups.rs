//! Many unknown outcomes whose provider's log can be asked, and not often.

use std::time::Duration;

use dispatch_engine::engine::{Engine, Roles, open_ledger};
use dispatch_schemas::states::UnknownPolicy;
use dispatch_tests::support::{
    checker::{self, Books},
    people::People,
    platform::Platform,
    seed::Seed,
    stage::{Account, Stage},
    wait,
};

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
