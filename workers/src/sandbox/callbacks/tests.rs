use super::*;

fn now(ms: u64) -> Now {
    Now { wall_ms: 1_900_000_000_000 + i64::try_from(ms).unwrap(), monotonic: Duration::from_millis(ms) }
}

fn callbacks(seed: u64, plan: &str) -> Callbacks {
    let callbacks = Callbacks::new(seed, "secret".to_owned()).unwrap();
    callbacks.call_back_to(Some(("http://127.0.0.1:1/callbacks".to_owned(), plan.parse().unwrap())));
    callbacks
}

fn people(count: usize) -> impl Iterator<Item = Taken> {
    (0..count).map(|number| Taken {
        address: format!("a{number}@x.eu"),
        key: Some(number.to_string()),
        ..Taken::default()
    })
}

const ALL_DELIVERED: &str = "deferred=0,bounced_soft=0,bounced_hard=0,rejected=0,complained=0,unsubscribed=0,doubled=0,late=0,reordered=0,forged=0";

fn told(callbacks: &Callbacks) -> Vec<(String, u64)> {
    callbacks.counts().told.into_iter().collect()
}

#[test]
fn a_seed_and_an_address_decide_what_happens_and_it_is_counted_once() {
    let (one, again, other) = (callbacks(1, "doubled=0.5"), callbacks(1, "doubled=0"), callbacks(2, ""));
    for callbacks in [&one, &again, &other] {
        callbacks.taken("sendgrid", people(2_000), now(0));
    }
    assert_eq!(told(&one), told(&again), "a doubled report is one");
    assert_ne!(told(&one), told(&other));
    let share = |kind: &str| one.counts().told.get(kind).copied().unwrap_or(0) as f64 / 2_000.0;
    assert_eq!(share("accepted"), 1.0);
    // Ten standard deviations of a share of 0.02 among 2,000.
    assert!((share("bounced_hard") - 0.02).abs() < 0.032, "{}", share("bounced_hard"));
    assert!(one.counts().pending > again.counts().pending);
}

#[test]
fn what_is_told_comes_in_its_order_unless_the_plan_says_otherwise() {
    let order = |plan: &str| {
        let callbacks = callbacks(3, &format!("{ALL_DELIVERED},{plan}"));
        callbacks.taken("sendgrid", people(50), now(0));
        let due = callbacks.waiting.lock().unwrap().due(Duration::from_secs(10), |_| 1_000);
        due.iter().map(|report| report.told).collect::<Vec<_>>()
    };
    let plain = order("");
    assert!(plain.is_sorted() && plain.len() == 100);
    assert!(!order("reordered=1").is_sorted());
}

#[test]
fn a_call_has_reports_of_one_provider_and_nothing_false_beside_the_true() {
    let callbacks = callbacks(5, "forged=0.5");
    callbacks.taken("sendgrid", people(20), now(0));
    callbacks.taken("infobip", people(20), now(0));
    let mut seen = 0;
    loop {
        let due = callbacks.waiting.lock().unwrap().due(Duration::from_secs(10), |_| 30);
        let Some(first) = due.first() else { break };
        assert!(due.len() <= 30 && due.iter().all(|one| (one.provider, one.forged) == (first.provider, first.forged)));
        seen += due.len();
    }
    assert_eq!(seen as u64, callbacks.counts().pending);
}

#[test]
fn what_is_told_is_read_by_the_provider_as_what_it_is() {
    let callbacks =
        callbacks(7, "deferred=0.2,bounced_soft=0.1,bounced_hard=0.1,rejected=0.1,complained=0.1,unsubscribed=0.1");
    for provider in ["sendgrid", "brevo", "brevo_sms", "infobip"] {
        let before = callbacks.counts().told;
        callbacks.taken(provider, people(300), now(0));
        let mut read: BTreeMap<String, u64> = BTreeMap::new();
        loop {
            let due = callbacks.waiting.lock().unwrap().due(Duration::from_secs(10), forms::together_max);
            if due.is_empty() {
                break;
            }
            if due[0].forged {
                continue;
            }
            let callbacks = crate::providers::entry(provider).unwrap().callbacks.unwrap();
            let events = (callbacks.read)("main", &forms::body(&due)).unwrap();
            assert_eq!((events.events.len(), events.unreadable), (due.len(), 0), "{provider}");
            let mut ids = std::collections::HashSet::new();
            for (event, report) in events.events.iter().zip(&due) {
                let is_stop = provider == "infobip" && report.told == Told::Unsubscribed;
                if ids.insert(event.id) && !is_stop {
                    read.entry(format!("{:?}{}", report.number, event.kind)).or_default();
                }
            }
        }
        let after = callbacks.counts().told;
        let added: u64 = after.values().sum::<u64>() - before.values().sum::<u64>();
        assert_eq!(
            read.len() as u64,
            added,
            "{provider}: every message and kind that was counted is read, and no more"
        );
    }
}

#[test]
fn a_plan_that_cannot_be_read_is_said() {
    for (plan, says) in [
        ("doubled", "`doubled` is not `what=rate`"),
        ("dubled=0.1", "`dubled=0.1` is not"),
        ("late=2", "`late=2` is not"),
        ("bounced_hard=0.9,complained=0.9", "add up to more than 1"),
    ] {
        assert!(plan.parse::<CallbackPlan>().unwrap_err().to_string().contains(says), "{plan}");
    }
}
