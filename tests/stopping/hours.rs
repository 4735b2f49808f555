//! Sending windows: a campaign stops when its window closes and goes on when it opens.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use dispatch_schemas::{
    api::{sending_window::SendingWindow, time::Moment},
    states::{CampaignState, DeliveryState, StallReason, Weekday},
};
use dispatch_tests::support::{checker::Faults, people::People, platform::count, stage::Account, wait};
use dispatch_workers::clock::{Clock, SystemClock};

use crate::rig::{COMPLETES_WITHIN, Rig, accepted_after};

const RECIPIENTS: usize = 1_200;
/// A window that closes must be felt by then.
const FELT_WITHIN_MS: i64 = 1_000;
const HOUR_MS: i64 = 3_600_000;

/// The machine's clocks, but the one on the wall shows another time.
struct OtherTime {
    clock: SystemClock,
    ahead_ms: AtomicI64,
}

impl OtherTime {
    /// Shows this moment now.
    fn showing(moment: &str) -> Arc<Self> {
        let moment: Moment = moment.parse().expect("a moment");
        Arc::new(Self { clock: SystemClock::new(), ahead_ms: AtomicI64::new(moment.as_ms() - wait::now_ms()) })
    }

    /// What the machine's own clock shows when this one shows that moment.
    fn on_the_machine(&self, moment: &str) -> i64 {
        moment.parse::<Moment>().expect("a moment").as_ms() - self.ahead_ms.load(Ordering::SeqCst)
    }

    fn advance(&self, ms: i64) {
        self.ahead_ms.fetch_add(ms, Ordering::SeqCst);
    }
}

impl Clock for OtherTime {
    fn now_ms(&self) -> i64 {
        self.clock.now_ms() + self.ahead_ms.load(Ordering::SeqCst)
    }

    fn monotonic(&self) -> Duration {
        self.clock.monotonic()
    }
}

fn window(start: &str, end: &str) -> SendingWindow {
    SendingWindow {
        start: start.parse().expect("a time"),
        end: end.parse().expect("a time"),
        days: Weekday::ALL.to_vec(),
        time_zone: "Europe/Paris".parse().expect("a zone"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_window_that_closes_is_felt_at_once_and_the_campaign_goes_on_when_it_opens() {
    for account in [
        Account { batch: 20, per_minute: Some(60 * 100), ..Account::new("brevo") },
        Account { per_second: Some(100), ..Account::new("smtp") },
    ] {
        // Eight seconds before eight in the evening.
        let clock = OtherTime::showing("2027-06-15T17:59:52Z");
        let rig = Rig::by_clock(&[account], clock.clone()).await;
        let people = People::by_email("customer", RECIPIENTS);
        let hours = Some(window("08:00", "20:00"));
        let campaign = rig.platform.campaign_to(people, account.kind, |new| new.sending_window = hours).await;
        rig.go(campaign).await;
        rig.accepted(RECIPIENTS / 20).await;
        rig.stalled(campaign, StallReason::OutsideWindow).await;
        let closed_ms = clock.on_the_machine("2027-06-15T18:00:00Z");
        assert!(wait::now_ms() >= closed_ms, "it is said to wait before its window closed");
        // Long enough for a worker that did not look to take the next second's permits.
        wait::until("a while has passed", COMPLETES_WITHIN, async || {
            (wait::now_ms() > closed_ms + 2 * FELT_WITHIN_MS).then_some(())
        })
        .await;
        rig.nothing_in_flight(campaign).await;
        assert_eq!(accepted_after(&rig.stage.sandbox.lines(), closed_ms + FELT_WITHIN_MS), 0);
        let held = rig.platform.progress(campaign).await;
        assert_eq!(held.state, CampaignState::Running);
        assert!(count(&held, DeliveryState::Ready) > 0, "it closed in the middle");

        clock.advance(12 * HOUR_MS);
        let end = rig.completed(campaign).await;
        assert_eq!(count(&end, DeliveryState::Accepted), RECIPIENTS as u64, "{:?}", end.states);
        assert_eq!(rig.check(&[campaign]).await.faults, Faults::default());
        rig.engine.drain().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_campaign_whose_window_does_not_open_before_its_end_expires() {
    let clock = OtherTime::showing("2027-06-15T10:00:00Z");
    let rig = Rig::by_clock(&[Account::new("smtp")], clock.clone()).await;
    let expires_at = Some(Moment::from_ms(clock.now_ms() + 2_500));
    let hours = Some(window("20:00", "21:00"));
    let people = People::by_email("customer", 200);
    let campaign = rig
        .platform
        .campaign_to(people, "smtp", |new| (new.expires_at, new.sending_window) = (expires_at, hours))
        .await;
    rig.go(campaign).await;
    rig.stalled(campaign, StallReason::OutsideWindow).await;
    let end = rig.completed(campaign).await;
    assert_eq!(count(&end, DeliveryState::Expired), 200, "{:?}", end.states);
    assert_eq!(rig.stage.sandbox.lines(), []);
    rig.engine.drain().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_retry_waits_for_the_window_and_a_cancel_does_not() {
    let clock = OtherTime::showing("2027-06-15T17:59:56Z");
    let rig = Rig::by_clock(&[Account::new("infobip")], clock.clone()).await;
    rig.stage.sandbox.set_faults("throttle=1").await;
    let hours = Some(window("08:00", "20:00"));
    let campaign =
        rig.platform.campaign_to(People::by_sms("customer", 50), "infobip", |new| new.sending_window = hours).await;
    rig.go(campaign).await;
    rig.stalled(campaign, StallReason::OutsideWindow).await;
    let (lines, closed_ms) = (rig.stage.sandbox.lines(), clock.on_the_machine("2027-06-15T18:00:00Z"));
    assert!(lines.iter().any(|line| line.status == 429), "it was refused for its speed while the window was open");
    rig.stage.sandbox.set_faults("").await;
    // By then every wait for a retry is over.
    wait::until("a while has passed", COMPLETES_WITHIN, async || {
        (wait::now_ms() > closed_ms + 4 * FELT_WITHIN_MS).then_some(())
    })
    .await;
    assert!(rig.stage.sandbox.lines().iter().all(|line| line.t_ms < closed_ms + FELT_WITHIN_MS));

    let ledger = rig.platform.ledger();
    ledger.cancel(rig.platform.tenant, campaign).await.expect("it can be cancelled");
    rig.engine.campaign_changed(campaign);
    let end = wait::until("everybody is final", COMPLETES_WITHIN, async || {
        let progress = rig.platform.progress(campaign).await;
        (count(&progress, DeliveryState::Stopped) == progress.audience).then_some(progress)
    })
    .await;
    assert_eq!((end.state, end.audience), (CampaignState::Cancelled, 50));
    rig.engine.drain().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unknown_outcome_is_settled_while_the_window_is_closed() {
    const PEOPLE: usize = 40;
    let clock = OtherTime::showing("2027-06-15T17:00:00Z");
    let rig = Rig::by_clock(&[Account { batch: 50, ..Account::new("infobip") }], clock.clone()).await;
    rig.stage.sandbox.set_faults("accept_then_drop=1").await;
    let hours = Some(window("08:00", "20:00"));
    let people = People::by_sms("customer", PEOPLE);
    let campaign = rig.platform.campaign_to(people, "infobip", |new| new.sending_window = hours).await;
    rig.go(campaign).await;
    wait::until("no request is answered", COMPLETES_WITHIN, async || {
        let progress = rig.platform.progress(campaign).await;
        (count(&progress, DeliveryState::Unknown) == PEOPLE as u64).then_some(())
    })
    .await;
    clock.advance(3 * HOUR_MS);
    let end = rig.completed(campaign).await;
    assert_eq!(count(&end, DeliveryState::Accepted), PEOPLE as u64, "{:?}", end.states);
    assert_eq!(rig.check(&[campaign]).await.faults, Faults::default());
    rig.engine.drain().await;
}
