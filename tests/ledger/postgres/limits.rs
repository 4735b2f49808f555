//! Limits that two processes share, by a clock that moves when it is told to.
//!
//! A process learns what others changed when it looks ([`Limits::follow`], ten times a second) or when a change of its
//! own meets theirs. Here it looks when the test says so.

use std::{sync::Arc, time::Duration};

use dispatch_engine::ledger::postgres::PostgresLedger;
use dispatch_schemas::{
    api::limits::Windows,
    ids::{CampaignId, TenantId},
};
use dispatch_workers::{
    clock::Clock as _,
    limits::{Limits, Past, Pause, Permits, Scope},
    providers::Code,
};
use futures_util::future::{join, join_all};

use crate::{InSchemas, options, suite::world::World};

const TENANT: Scope = Scope::Tenant(TenantId(1));
/// A process that waits by a clock that stands still never gives up.
const HOWEVER_LONG: Duration = Duration::from_millis(1);
/// A wait that should end fails the test after this long instead of hanging it.
const WITHIN: Duration = Duration::from_secs(60);

impl World {
    /// The limits as a process of its own has them, over its own connections.
    async fn process(&self) -> Limits {
        let (clock, entropy) = (self.clock.clone(), self.entropy.clone());
        let ledger = PostgresLedger::open(options(&self.schema()), self.master.clone(), clock, entropy).await.unwrap();
        Limits::shared(self.clock.clone(), Arc::new(ledger))
    }

    /// Two processes that have both set the same limit for the tenant, at once.
    async fn processes(&self, limit: Windows) -> [Limits; 2] {
        let (one, other) = join(self.process(), self.process()).await;
        let past = Past::new();
        let (first, second) = join(one.set(&TENANT, limit, &past), other.set(&TENANT, limit, &past)).await;
        first.and(second).unwrap();
        [one, other]
    }
}

/// What a process gets without waiting.
async fn got(limits: &Limits, wanted: usize) -> usize {
    limits.permits(&[TENANT], wanted, Duration::ZERO).await.unwrap().count()
}

/// One look at what others have changed.
async fn look(limits: &Limits) {
    limits.follow(std::future::ready(())).await;
}

fn per_day(most: u32) -> Windows {
    Windows { per_day: Some(most), ..Windows::default() }
}

/// What was granted, by the clock that both processes share.
struct Grants {
    period_ms: i64,
    limit: usize,
    /// What for when, in milliseconds since 1970.
    all: Vec<(i64, usize)>,
}

impl Grants {
    fn add(&mut self, permits: &Permits) {
        if !permits.is_empty() {
            self.all.push((i64::try_from(permits.due().as_millis()).unwrap(), permits.count()));
        }
    }

    fn judge(&self) {
        for (end_ms, _) in &self.all {
            let inside = self.all.iter().filter(|(at, _)| (end_ms - self.period_ms + 1..=*end_ms).contains(at));
            let inside: usize = inside.map(|(_, granted)| granted).sum();
            assert!(inside <= self.limit, "{inside} in {} ms, limit {}", self.period_ms, self.limit);
        }
    }

    /// A permit counts for the period and three of its 125 parts more.
    const fn whole_ms(&self) -> i64 {
        self.period_ms + (self.period_ms * 3 + 124) / 125
    }
}

/// Two processes take all they can get, time after time, for so many periods. The even pace of a second goes by the
/// machine's clock, which must not be behind the test's.
async fn taken_by_two(limit: Windows, every_ms: u64, periods: i64) {
    let world = World::new(&InSchemas).await;
    let [one, other] = world.processes(limit).await;
    let (period, most) = limit.iter().next().unwrap();
    let period_ms = i64::try_from(period.as_millis()).unwrap();
    let limit = usize::try_from(most).unwrap();
    let mut grants = Grants { period_ms, limit, all: Vec::new() };
    world.clock.advance(grants.whole_ms());
    let begin_ms = world.now_ms();
    let end_ms = begin_ms + periods * period_ms;
    while world.now_ms() < end_ms {
        // More than there is, several at once.
        let asking = [&one, &other, &one, &other];
        for granted in join_all(asking.map(|limits| limits.permits(&[TENANT], limit, Duration::ZERO))).await {
            grants.add(&granted.unwrap());
        }
        if period_ms <= 1_000 {
            tokio::time::sleep(Duration::from_millis(every_ms)).await;
        }
        world.clock.advance(i64::try_from(every_ms).unwrap());
    }
    grants.judge();
    let total: usize = grants.all.iter().filter(|(at, _)| *at < end_ms).map(|(_, granted)| granted).sum();
    let at_most = limit * usize::try_from(periods).unwrap();
    assert!(total * 100 >= at_most * 95, "{total} of {at_most} used");
}

#[tokio::test]
async fn no_second_holds_more_than_the_limit_of_two_processes_and_it_is_used() {
    taken_by_two(Windows { per_second: Some(600), ..Windows::default() }, 7, 3).await;
}

#[tokio::test]
async fn no_minute_holds_more_than_the_limit_of_two_processes_and_it_is_used() {
    taken_by_two(Windows { per_minute: Some(500), ..Windows::default() }, 900, 4).await;
}

#[tokio::test]
async fn processes_whose_scopes_overlap_share_each_to_the_last_permit() {
    const TOGETHER: usize = 300;
    let world = World::new(&InSchemas).await;
    let [one, other] = world.processes(per_day(300)).await;
    let (account, campaign) = (Scope::Account("main".into()), Scope::Campaign(CampaignId(1)));
    for (limits, scope) in [(&one, &account), (&other, &campaign)] {
        limits.set(scope, per_day(200), &Past::new()).await.unwrap();
    }
    let scopes = [(&one, [account, TENANT]), (&other, [TENANT, campaign])];
    let taking = (0..8).map(|asker| {
        let (limits, scopes) = &scopes[asker % 2];
        async move {
            let mut taken = 0;
            loop {
                match limits.permits(scopes, 1 + asker, Duration::ZERO).await.unwrap().count() {
                    0 => return taken,
                    granted => taken += granted,
                }
            }
        }
    });
    let taken = join_all(taking).await;
    assert_eq!(taken.iter().sum::<usize>(), TOGETHER);
    for own in [0, 1] {
        assert!(taken.iter().skip(own).step_by(2).sum::<usize>() <= 200, "{taken:?}");
    }
}

#[tokio::test]
async fn a_lowered_limit_holds_at_once_for_both() {
    let world = World::new(&InSchemas).await;
    let [one, other] = world.processes(per_day(100)).await;
    assert_eq!(got(&other, 30).await, 30);
    one.set(&TENANT, per_day(40), &Past::new()).await.unwrap();
    assert_eq!(got(&other, 50).await, 10, "nobody told it, and what it took is counted");
    assert_eq!(got(&one, 1).await, 0);
}

#[tokio::test]
async fn a_raised_limit_lets_go_who_waits_in_another_process() {
    let world = World::new(&InSchemas).await;
    let [one, other] = world.processes(per_day(10)).await;
    assert_eq!(got(&one, 10).await, 10);
    assert_eq!(got(&other, 1).await, 0);
    let waiting = async { other.permits(&[TENANT], 50, HOWEVER_LONG).await.unwrap().count() };
    let raising = async {
        one.set(&TENANT, per_day(25), &Past::new()).await.unwrap();
        std::future::pending::<()>().await;
    };
    let granted = tokio::select! {
        granted = waiting => granted,
        () = raising => unreachable!(),
        () = other.follow(tokio::time::sleep(WITHIN)) => panic!("the wait goes on"),
    };
    assert_eq!(granted, 15);
    assert_eq!(got(&one, 1).await, 0);
}

#[tokio::test]
async fn a_limit_that_is_new_is_known_to_the_other_after_a_look() {
    let world = World::new(&InSchemas).await;
    let (one, other) = (world.process().await, world.process().await);
    one.set(&TENANT, per_day(20), &Past::new()).await.unwrap();
    look(&other).await;
    assert_eq!(got(&other, 50).await, 20);
    assert_eq!(got(&one, 1).await, 0);
}

#[tokio::test]
async fn a_removed_limit_is_gone_for_both() {
    let world = World::new(&InSchemas).await;
    let [one, other] = world.processes(per_day(10)).await;
    let third = world.process().await;
    look(&third).await;
    assert_eq!(got(&other, 10).await, 10);
    one.remove(&TENANT).await.unwrap();
    assert_eq!(got(&one, 1_000).await, 1_000);
    assert_eq!(got(&third, 10).await, 10, "what seemed to be all there is was more");
    assert_eq!(got(&third, 1_000).await, 1_000);
    look(&other).await;
    assert_eq!(got(&other, 1_000).await, 1_000);
    // It comes back as a new one.
    other.set(&TENANT, per_day(7), &vec![(Duration::ZERO, 2)]).await.unwrap();
    look(&one).await;
    assert_eq!(got(&one, 10).await, 5);
}

#[tokio::test]
async fn a_limit_that_a_living_process_wants_is_not_removed_by_one_that_does_not() {
    let world = World::new(&InSchemas).await;
    let [one, other] = world.processes(per_day(10)).await;
    one.want(&[TENANT], Duration::from_secs(20)).await.unwrap();
    // Less is no word about more.
    one.want(&[TENANT], Duration::from_secs(1)).await.unwrap();
    world.clock.advance(19_000);
    other.remove_unwanted(&[TENANT]).await.unwrap();
    assert_eq!((got(&one, 6).await, got(&other, 6).await), (6, 4));
    world.clock.advance(1_000);
    other.remove_unwanted(&[TENANT]).await.unwrap();
    look(&one).await;
    assert!(!one.is_limited(&TENANT) && !other.is_limited(&TENANT), "who wanted it has not been heard of for a while");
}

#[tokio::test]
async fn permits_given_back_can_be_had_by_the_other() {
    let world = World::new(&InSchemas).await;
    let [one, other] = world.processes(per_day(50)).await;
    let permits = one.permits(&[TENANT], 50, Duration::ZERO).await.unwrap();
    assert_eq!(got(&other, 1).await, 0);
    one.give_back(&[(&permits, 20)]).await;
    look(&other).await;
    assert_eq!(got(&other, 50).await, 20);
    assert_eq!(got(&one, 50).await, 0);
}

#[tokio::test]
async fn what_a_process_took_before_it_died_stays_counted() {
    let world = World::new(&InSchemas).await;
    let windows = Windows { per_minute: Some(50), ..per_day(60) };
    let [one, other] = world.processes(windows).await;
    world.clock.advance(62_000);
    assert_eq!(got(&one, 30).await, 30);
    drop(one);
    assert_eq!(got(&other, 15).await, 15);
    drop(other);
    let next = world.process().await;
    next.set(&TENANT, windows, &Past::new()).await.unwrap();
    assert_eq!(got(&next, 50).await, 5);
    world.clock.advance(62_000);
    assert_eq!(got(&next, 50).await, 10);
}

#[tokio::test]
async fn an_account_paused_by_one_is_paused_for_the_other() {
    let world = World::new(&InSchemas).await;
    let (one, other) = (world.process().await, world.process().await);
    let account: Arc<str> = "main".into();
    let asked_to_wait = Pause::Until(world.clock.monotonic() + Duration::from_secs(30));
    one.pause(&account, asked_to_wait.clone()).await;
    look(&other).await;
    assert_eq!(other.paused("main"), Some(asked_to_wait));
    world.clock.advance(30_000);
    assert_eq!(other.paused("main"), None, "it is over for both by itself");

    let refused = Pause::Refused(Code::known("http_401"));
    other.pause(&account, refused.clone()).await;
    one.pause(&account, Pause::Until(world.clock.monotonic() + Duration::from_secs(3_600))).await;
    look(&one).await;
    assert_eq!(one.paused("main"), Some(refused), "a wait does not shorten a refusal");
    one.resume("main").await;
    // A look that began when it was told might have missed it; one that begins later does not.
    world.clock.advance(1);
    look(&other).await;
    assert_eq!((one.paused("main"), other.paused("main")), (None, None));
}
