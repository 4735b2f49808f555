use dispatch_schemas::ids::{CampaignId, TenantId};

use super::*;
use crate::{clock::SystemClock, providers::Code};

fn limits() -> Limits {
    Limits::new(Arc::new(SystemClock::new()))
}

fn per_second(most: u32) -> Windows {
    Windows { per_second: Some(most), ..Windows::default() }
}

#[tokio::test]
async fn without_limits_all_that_is_wanted_is_granted() {
    let scopes = [Scope::Tenant(TenantId(1)), Scope::Campaign(CampaignId(1))];
    assert_eq!(limits().permits(&scopes, 1_000, Duration::ZERO).await.unwrap().count(), 1_000);
}

#[tokio::test]
async fn the_narrowest_scope_decides() {
    let limits = limits();
    let (tenant, campaign) = (Scope::Tenant(TenantId(1)), Scope::Campaign(CampaignId(1)));
    limits.set(&tenant, Windows { per_day: Some(50), ..Windows::default() }, &Past::new()).await.unwrap();
    limits.set(&campaign, Windows { per_day: Some(20), ..Windows::default() }, &Past::new()).await.unwrap();
    assert_eq!(limits.permits(&[tenant.clone(), campaign.clone()], 30, Duration::ZERO).await.unwrap().count(), 20);
    assert_eq!(limits.permits(&[tenant.clone(), campaign], 30, Duration::ZERO).await.unwrap().count(), 0);
    assert_eq!(
        limits.permits(&[tenant], 100, Duration::ZERO).await.unwrap().count(),
        30,
        "a denial takes nothing from the others"
    );
}

#[tokio::test]
async fn a_limit_raised_while_someone_waits_lets_them_go() {
    let limits = Arc::new(limits());
    let scope = Scope::Tenant(TenantId(1));
    limits.set(&scope, Windows { per_day: Some(0), ..Windows::default() }, &Past::new()).await.unwrap();
    let waiting = tokio::spawn({
        let (limits, scope) = (limits.clone(), scope.clone());
        async move { limits.permits(&[scope], 5, Duration::from_secs(60)).await.unwrap().count() }
    });
    limits.set(&scope, Windows { per_day: Some(5), ..Windows::default() }, &Past::new()).await.unwrap();
    assert_eq!(waiting.await.unwrap(), 5);
}

#[tokio::test]
async fn a_per_second_limit_is_paced_and_never_passed() {
    let limits = limits();
    let scope = [Scope::Account("main".into())];
    limits.set(&scope[0], per_second(200), &Past::new()).await.unwrap();
    let clock = SystemClock::new();
    let mut left: Vec<(Duration, usize)> = Vec::new();
    while left.iter().map(|(_, n)| n).sum::<usize>() < 300 {
        let permits = limits.permits(&scope, 40, Duration::from_secs(10)).await.unwrap();
        let share = [(&permits, permits.count())];
        limits.until_due(&share).await;
        limits.depart(&share).await.unwrap();
        left.push((clock.monotonic(), permits.count()));
    }
    for (start, _) in &left {
        let window = *start..*start + Duration::from_millis(990);
        let inside: usize = left.iter().filter(|(at, _)| window.contains(at)).map(|(_, n)| n).sum();
        assert!(inside <= 200, "{inside} in a second");
    }
}

#[tokio::test]
async fn permits_that_were_not_used_can_be_had_again() {
    let limits = limits();
    let scope = [Scope::Tenant(TenantId(1))];
    limits.set(&scope[0], Windows { per_day: Some(50), ..Windows::default() }, &Past::new()).await.unwrap();
    let permits = limits.permits(&scope, 50, Duration::ZERO).await.unwrap();
    limits.give_back(&[(&permits, 20)]).await;
    assert_eq!(limits.permits(&scope, 50, Duration::ZERO).await.unwrap().count(), 20);
}

#[tokio::test]
async fn a_request_that_cannot_be_cut_gets_all_its_permits_or_none() {
    let limits = limits();
    let scope = [Scope::Tenant(TenantId(1))];
    limits.set(&scope[0], Windows { per_day: Some(50), ..Windows::default() }, &Past::new()).await.unwrap();
    assert!(limits.permits_for_all(&scope, 51, Duration::ZERO).await.unwrap().is_empty());
    assert_eq!(limits.permits_for_all(&scope, 50, Duration::ZERO).await.unwrap().count(), 50);
}

#[tokio::test]
async fn a_refused_account_stays_refused_until_resumed() {
    let limits = limits();
    let account: Arc<str> = "main".into();
    limits.pause(&account, Pause::Refused(Code::known("http_401"))).await;
    limits.pause(&account, Pause::Until(Duration::from_secs(3_600))).await;
    assert_eq!(limits.paused("main"), Some(Pause::Refused(Code::known("http_401"))));
    limits.resume("main").await;
    assert_eq!(limits.paused("main"), None);
}

/// A store in this process. A look at it can be held between its answer's making and its arrival.
#[derive(Default)]
struct Store {
    rows: Mutex<HashMap<Scope, LimitRow>>,
    pauses: Mutex<HashMap<Arc<str>, PauseRow>>,
    held: Mutex<Option<(Arc<Notify>, Arc<Notify>)>>,
}

impl Store {
    /// Holds the next look: the first notices that its answer is made, the second lets it arrive.
    fn hold(&self) -> (Arc<Notify>, Arc<Notify>) {
        let hold = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        *self.held.lock().unwrap() = Some(hold.clone());
        hold
    }

    async fn arrive<T>(&self, answer: T) -> Result<T, LedgerUnavailable> {
        let held = self.held.lock().unwrap().take();
        if let Some((made, go)) = held {
            made.notify_one();
            go.notified().await;
        }
        tokio::task::yield_now().await;
        Ok(answer)
    }
}

#[async_trait::async_trait]
impl LimitStore for Store {
    async fn swap(&self, rows: &[LimitRow]) -> Result<Option<Vec<LimitRow>>, LedgerUnavailable> {
        tokio::task::yield_now().await;
        let mut kept = self.rows.lock().unwrap();
        let version = |scope: &Scope| kept.get(scope).map_or(0, |row| row.version);
        if rows.iter().any(|row| version(&row.scope) != row.version) {
            return Ok(Some(rows.iter().filter_map(|row| kept.get(&row.scope).cloned()).collect()));
        }
        for row in rows {
            kept.insert(row.scope.clone(), LimitRow { version: row.version + 1, ..row.clone() });
        }
        Ok(None)
    }

    async fn rows(&self, scopes: &[Scope]) -> Result<Vec<LimitRow>, LedgerUnavailable> {
        let rows = self.rows.lock().unwrap();
        Ok(scopes.iter().filter_map(|scope| rows.get(scope).cloned()).collect())
    }

    async fn versions(&self) -> Result<Vec<(Scope, i64)>, LedgerUnavailable> {
        let versions = self.rows.lock().unwrap().values().map(|row| (row.scope.clone(), row.version)).collect();
        self.arrive(versions).await
    }

    async fn remove(&self, scope: &Scope) -> Result<(), LedgerUnavailable> {
        self.rows.lock().unwrap().remove(scope);
        Ok(())
    }

    async fn want(&self, _: &[Scope], _: i64) -> Result<(), LedgerUnavailable> {
        Ok(())
    }

    async fn remove_unwanted(&self, scopes: &[Scope]) -> Result<Vec<Scope>, LedgerUnavailable> {
        let mut rows = self.rows.lock().unwrap();
        Ok(scopes.iter().filter(|scope| rows.remove(scope).is_some()).cloned().collect())
    }

    async fn pause(&self, pause: &PauseRow) -> Result<(), LedgerUnavailable> {
        self.pauses.lock().unwrap().insert(pause.account.clone(), pause.clone());
        Ok(())
    }

    async fn resume(&self, account: &str) -> Result<(), LedgerUnavailable> {
        self.pauses.lock().unwrap().remove(account);
        Ok(())
    }

    async fn pauses(&self) -> Result<Vec<PauseRow>, LedgerUnavailable> {
        let pauses = self.pauses.lock().unwrap().values().cloned().collect();
        self.arrive(pauses).await
    }
}

fn of(store: &Arc<Store>) -> Limits {
    Limits::shared(Arc::new(SystemClock::new()), store.clone())
}

async fn look(limits: &Limits) {
    limits.catch_up(limits.shared.as_ref().unwrap()).await.unwrap();
}

fn per_day(most: u32) -> Windows {
    Windows { per_day: Some(most), ..Windows::default() }
}

const WITHIN: Duration = Duration::from_secs(10);

/// Takes permits, a few at a time, until there are none.
async fn all(limits: &Limits, scopes: &[Scope]) -> usize {
    let mut all = 0;
    loop {
        match limits.permits(scopes, 3, Duration::ZERO).await.unwrap().count() {
            0 => return all,
            granted => all += granted,
        }
    }
}

#[tokio::test]
async fn a_shared_limit_is_passed_by_no_two_processes_together() {
    let store = Arc::new(Store::default());
    let (one, other, scope) = (of(&store), of(&store), [Scope::Tenant(TenantId(1))]);
    one.set(&scope[0], per_day(50), &Past::new()).await.unwrap();
    look(&other).await;
    let (mine, theirs) = tokio::join!(all(&one, &scope), all(&other, &scope));
    assert_eq!(mine + theirs, 50);
    assert!(mine > 0 && theirs > 0);
}

#[tokio::test]
async fn a_limit_set_while_others_are_looked_at_stays() {
    let store = Arc::new(Store::default());
    let (limits, scope) = (of(&store), Scope::Tenant(TenantId(1)));
    let (made, go) = store.hold();
    let set = async {
        made.notified().await;
        limits.set(&scope, per_day(5), &Past::new()).await.unwrap();
        go.notify_one();
    };
    tokio::join!(look(&limits), set);
    assert_eq!(limits.permits(std::slice::from_ref(&scope), 10, Duration::ZERO).await.unwrap().count(), 5);
    // One that another process has removed is gone with the next look.
    of(&store).remove(&scope).await.unwrap();
    look(&limits).await;
    assert_eq!(limits.permits(&[scope], 10, Duration::ZERO).await.unwrap().count(), 10);
}

#[tokio::test]
async fn a_limit_that_was_removed_and_made_anew_elsewhere_is_the_new_one() {
    let store = Arc::new(Store::default());
    let scope = [Scope::Tenant(TenantId(1))];
    for looks in [0, 1] {
        let (one, other) = (of(&store), of(&store));
        one.set(&scope[0], per_day(50), &Past::new()).await.unwrap();
        look(&other).await;
        assert_eq!(other.permits(&scope, 40, Duration::ZERO).await.unwrap().count(), 40);
        one.remove(&scope[0]).await.unwrap();
        one.set(&scope[0], per_day(20), &Past::new()).await.unwrap();
        for _ in 0..looks {
            look(&other).await;
        }
        let granted = tokio::time::timeout(WITHIN, all(&other, &scope)).await;
        assert_eq!(granted.expect("it does not ask for ever"), 20);
        one.remove(&scope[0]).await.unwrap();
    }
}

#[tokio::test]
async fn a_pause_is_not_forgotten_for_a_look_that_began_before_it() {
    let store = Arc::new(Store::default());
    let (limits, account): (_, Arc<str>) = (of(&store), "main".into());
    let pause = Pause::Refused(Code::known("http_401"));
    let (made, go) = store.hold();
    let set = async {
        made.notified().await;
        let (made, go_on) = store.hold();
        go.notify_one();
        made.notified().await;
        limits.pause(&account, pause.clone()).await;
        go_on.notify_one();
    };
    tokio::join!(look(&limits), set);
    assert_eq!(limits.paused("main"), Some(pause.clone()));
    look(&limits).await;
    assert_eq!(limits.paused("main"), Some(pause));
    of(&store).resume("main").await;
    look(&limits).await;
    assert_eq!(limits.paused("main"), None, "ended elsewhere");
}

/// A machine whose wall clock can be set, beside a monotonic one; both stand still by themselves.
#[derive(Default)]
struct Clocks {
    wall_ms: std::sync::atomic::AtomicI64,
    monotonic_ms: std::sync::atomic::AtomicI64,
}

impl Clocks {
    fn pass(&self, ms: i64) {
        self.wall_ms.fetch_add(ms, std::sync::atomic::Ordering::SeqCst);
        self.monotonic_ms.fetch_add(ms, std::sync::atomic::Ordering::SeqCst);
    }
}

impl Clock for Clocks {
    fn now_ms(&self) -> i64 {
        self.wall_ms.load(std::sync::atomic::Ordering::SeqCst)
    }

    fn monotonic(&self) -> Duration {
        Duration::from_millis(self.monotonic_ms.load(std::sync::atomic::Ordering::SeqCst).unsigned_abs())
    }
}

#[tokio::test]
async fn a_clock_set_back_by_an_hour_holds_nobody_up_for_an_hour_and_forgets_nothing() {
    let (store, clocks) = (Arc::new(Store::default()), Arc::new(Clocks::default()));
    clocks.pass(1_800_000_000_000);
    let limits = Limits::shared(clocks.clone(), store);
    let scope = [Scope::Tenant(TenantId(1))];
    limits.set(&scope[0], per_day(50), &Past::new()).await.unwrap();
    assert_eq!(limits.permits(&scope, 30, Duration::ZERO).await.unwrap().count(), 30);
    clocks.wall_ms.fetch_sub(3_600_000, std::sync::atomic::Ordering::SeqCst);
    assert_eq!(all(&limits, &scope).await, 0, "others may still go by the clock as it was");
    clocks.pass(20_000);
    assert_eq!(all(&limits, &scope).await, 20);
}
