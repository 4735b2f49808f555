//! A campaign that would rather be received twice than not at all: every extra copy is a resend that was counted.

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

/// All of these are accepted, and the engine hears nothing of it; or refused, and it does.
const FAULTS: &str = "accept_then_drop=0.08, fail_after_accept=0.08, accept_slow=0.03, throttle=0.01, unavailable=0.01";
const RECIPIENTS: usize = 2_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn extra_copies_are_exactly_the_resends_that_were_counted() {
    let seed = Seed::of_this_run();
    eprintln!("{}", seed.how_to_repeat());
    let account = Account { batch: 10, ..Account::new("sendgrid") };
    let stage = Stage::new(&[account], FAULTS, seed.number());
    let opened = open_ledger(&stage.settings()).await.expect("the ledger opens");
    let platform = Platform::new(&opened, "shop").await;
    let engine = Engine::start(&stage.settings(), opened, Roles::all()).await.expect("the engine starts");
    let campaign = platform
        .campaign_to(People::by_email("customer", RECIPIENTS), "sendgrid", |new| {
            new.unknown_policy = Some(UnknownPolicy::AtLeastOnce);
        })
        .await;
    platform.launch(campaign).await;
    engine.campaign_changed(campaign);
    wait::until("the campaign completes", Duration::from_secs(120), async || platform.completed(campaign).await).await;

    let books = Books::read(platform.ledger(), &stage.ledger_file(), platform.tenant, &[campaign]).await;
    let report = checker::check(&books, &stage.sandbox.lines());
    engine.drain().await;
    eprintln!("{:?}", report.of("sendgrid"));
    assert_eq!(report.faults, checker::Faults::default());
    let figures = report.of("sendgrid");
    assert_eq!(figures.accepted, RECIPIENTS as u64);
    assert_eq!(figures.extra, figures.resends, "each resend is a copy more, and no copy is none");
    assert!(figures.resends > 0, "with these faults something is sent again");
}
