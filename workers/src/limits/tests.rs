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
    let mut granted: Vec<(Duration, usize)> = Vec::new();
    while granted.iter().map(|(_, n)| n).sum::<usize>() < 300 {
        let permits = limits.permits(&scope, 40, Duration::from_secs(10)).await.unwrap().count();
        granted.push((clock.monotonic(), permits));
    }
    for (start, _) in &granted {
        let window = *start..*start + Duration::from_millis(990);
        let inside: usize = granted.iter().filter(|(at, _)| window.contains(at)).map(|(_, n)| n).sum();
        assert!(inside <= 200, "{inside} in a second");
    }
}

#[tokio::test]
async fn permits_that_were_not_used_can_be_had_again() {
    let limits = limits();
    let scope = [Scope::Tenant(TenantId(1))];
    limits.set(&scope[0], Windows { per_day: Some(50), ..Windows::default() }, &Past::new()).await.unwrap();
    let permits = limits.permits(&scope, 50, Duration::ZERO).await.unwrap();
    limits.give_back(&permits, 20).await;
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
