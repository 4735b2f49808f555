//! What types cannot say: ranges, and settings that must agree with each other.

use std::ops::RangeInclusive;

use dispatch_schemas::states::Channel;
use dispatch_workers::{
    clock::{SystemClock, SystemEntropy},
    providers::{self, AccountError, Ingredients, REGISTRY},
};
use reqwest::Url;
use tracing_subscriber::EnvFilter;

use crate::ledger::{is_country, is_domain};

use super::{
    Settings,
    accounts::ProviderSettings,
    document::{Document, join},
    problem::{Problem, nearest},
};

/// Most jobs of one campaign outside the ledger: what a worker sends in seconds, so that a pause acts at once.
const WINDOW_MAX: usize = 50_000;

/// Most jobs in the queue; a job is two numbers, so they fit beside everything else.
const CAPACITY_MAX: usize = 1_000_000;

/// Longest time a timer may be set to, milliseconds: 30 days. Sums of them cannot overflow.
const TIMER_MAX_MS: u64 = 30 * 24 * 3_600_000;

/// Longest wait for one request, milliseconds; a pause or cancel waits for open requests.
const ANSWER_MAX_MS: u64 = 300_000;

/// Most requests one account may have open; more than any provider's documented limit.
const REQUESTS_OPEN_MAX: usize = 1_024;

/// Most recipients any provider takes in one request.
const RECIPIENTS_MAX: usize = 1_000;

/// Least room for callbacks that wait: some of the largest.
const SPOOL_BYTES_MIN: u64 = 16 << 20;

/// Longest time that personal data may wait outside the ledger, seconds: seven days.
const SPOOL_AGE_MAX_S: u64 = 7 * 24 * 3_600;

/// Longest name of an account.
const NAME_BYTES_MAX: usize = 40;

/// Every problem of settings that have the right shape.
pub(super) fn validate(settings: &Settings, document: &Document) -> Vec<Problem> {
    let mut found = Found { document, problems: Vec::new() };
    queue(settings, &mut found);
    api(settings, &mut found);
    callbacks(settings, &mut found);
    workers(settings, &mut found);
    timing(settings, &mut found);
    for (name, account) in &settings.providers {
        provider(name, account, settings, &mut found);
    }
    for channel in Channel::ALL {
        route(*channel, settings, &mut found);
    }
    destinations(settings, &mut found);
    found.problems
}

struct Found<'a> {
    document: &'a Document,
    problems: Vec<Problem>,
}

impl Found<'_> {
    fn add(&mut self, path: &[&str], message: impl Into<String>) {
        let key = path.iter().fold(String::new(), |key, part| join(&key, part));
        self.problems.push(Problem { key, place: self.document.place(path), message: message.into() });
    }

    fn range<N: Copy + PartialOrd + std::fmt::Display>(&mut self, path: &[&str], value: N, range: RangeInclusive<N>) {
        if !range.contains(&value) {
            self.add(path, format!("out of range; wanted: {} to {}", range.start(), range.end()));
        }
    }
}

fn queue(settings: &Settings, found: &mut Found<'_>) {
    let queue = &settings.queue;
    found.range(&["queue", "window_max"], queue.window_max, 1..=WINDOW_MAX);
    found.range(&["queue", "window_seconds"], queue.window_seconds, 1..=60);
    found.range(&["queue", "capacity"], queue.capacity, 1..=CAPACITY_MAX);
    if queue.window_max > queue.capacity {
        found.add(&["queue", "capacity"], "must be at least `queue.window_max`, or a campaign could fill it alone");
    }
}

fn api(settings: &Settings, found: &mut Found<'_>) {
    found.range(&["api", "body_bytes_max"], settings.api.body_bytes_max, 1_024..=64 << 20);
    found.range(&["api", "import_bytes_max"], settings.api.import_bytes_max, 1_024..=1 << 40);
    if EnvFilter::builder().parse(&settings.logging.filter).is_err() {
        found.add(&["logging", "filter"], "wanted: a level (error, warn, info, debug, trace) or levels by module, as in \"warn,dispatch_engine=debug\"");
    }
}

fn callbacks(settings: &Settings, found: &mut Found<'_>) {
    let callbacks = &settings.callbacks;
    found.range(&["callbacks", "spool_bytes_max"], callbacks.spool_bytes_max, SPOOL_BYTES_MIN..=1 << 40);
    found.range(&["callbacks", "spool_age_max_s"], callbacks.spool_age_max_s, 60..=SPOOL_AGE_MAX_S);
    if callbacks.proxies().is_none() {
        found
            .add(&["callbacks", "proxies"], "wanted: networks separated by commas, as in \"10.0.0.0/8, 127.0.0.1/32\"");
    }
    for (name, account) in &settings.providers {
        let calls_back = providers::entry(&account.kind).is_none_or(|entry| entry.callbacks.is_some());
        if account.callbacks.is_some() && !calls_back {
            found.add(&["providers", name, "callbacks"], format!("{} does not call back; remove it", account.kind));
        }
    }
}

fn workers(settings: &Settings, found: &mut Found<'_>) {
    found.range(&["workers", "email_runs"], settings.workers.email_runs, 1..=256);
    found.range(&["workers", "sms_runs"], settings.workers.sms_runs, 1..=256);
    found.range(&["workers", "attempts_max"], settings.workers.attempts_max, 1..=100);
}

fn timing(settings: &Settings, found: &mut Found<'_>) {
    let timing = &settings.timing;
    found.range(&["timing", "send_deadline_ms"], timing.send_deadline_ms, 1..=ANSWER_MAX_MS);
    found.range(&["timing", "answer_timeout_ms"], timing.answer_timeout_ms, 1..=ANSWER_MAX_MS);
    for (key, value) in [
        ("reaper_grace_ms", timing.reaper_grace_ms),
        ("provider_lag_ms", timing.provider_lag_ms),
        ("evidence_window_ms", timing.evidence_window_ms),
        ("retry_first_ms", timing.retry_first_ms),
        ("retry_max_ms", timing.retry_max_ms),
        ("ask_again_ms", timing.ask_again_ms),
    ] {
        found.range(&["timing", key], value, 1..=TIMER_MAX_MS);
    }
    if timing.retry_first_ms > timing.retry_max_ms {
        found.add(&["timing", "retry_first_ms"], "must not pass `timing.retry_max_ms`");
    }
}

fn provider(name: &str, account: &ProviderSettings, settings: &Settings, found: &mut Found<'_>) {
    let path = |key| ["providers", name, key];
    let is_name = name.len() <= NAME_BYTES_MAX
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
        && !name.contains("__");
    if !is_name {
        // So that every account's key has an environment variable.
        found.add(
            &["providers", name],
            format!("wanted: a name of at most {NAME_BYTES_MAX} of a-z, 0-9 and single _, beginning with a letter"),
        );
    }
    if account.channel().is_none() {
        let kinds = || REGISTRY.iter().map(|entry| entry.kind);
        let known = kinds().collect::<Vec<_>>().join(", ");
        let meant = nearest(&account.kind, kinds()).map(|kind| format!("; did you mean \"{kind}\"?"));
        found.add(&path("kind"), format!("wanted: one of {known}{}", meant.unwrap_or_default()));
    }
    if let Some(url) = &account.url {
        let (schemes, wanted): (&[&str], _) = match account.kind.as_str() {
            "smtp" => (&["smtp", "smtps"], "smtp://host:port or smtps://host:port"),
            _ => (&["https", "http"], "https://host (http:// for a loopback address only)"),
        };
        if !is_bare_url(url, schemes) {
            let message = format!("wanted: {wanted}, without user or password; those have settings of their own");
            found.add(&path("url"), message);
        }
    }
    if let Some(recipients) = account.recipients_per_request {
        found.range(&path("recipients_per_request"), recipients, 1..=RECIPIENTS_MAX);
    }
    found.range(&path("requests_open_max"), account.requests_open_max, 1..=REQUESTS_OPEN_MAX);
    found.range(&path("connect_timeout_s"), account.connect_timeout_s, 1..=60);
    found.range(&path("answer_timeout_s"), account.answer_timeout_s, 1..=ANSWER_MAX_MS / 1_000);
    if account.answer_timeout_s.saturating_mul(1_000) > settings.timing.answer_timeout_ms {
        found.add(
            &path("answer_timeout_s"),
            format!(
                "must not pass `timing.answer_timeout_ms`, which is {} ms, or its requests are called lost while they \
                 are still open",
                settings.timing.answer_timeout_ms
            ),
        );
    }
}

fn route(channel: Channel, settings: &Settings, found: &mut Found<'_>) {
    let path = ["routes", channel.as_str()];
    let serving = || settings.providers.iter().filter(|(_, account)| account.channel() == Some(channel));
    let names = serving().map(|(name, _)| name.as_str()).collect::<Vec<_>>();
    match settings.routes.of(channel) {
        Some(name) if names.contains(&name) => {}
        Some(_) if names.is_empty() => found.add(&path, format!("no account in [providers] sends {channel}")),
        Some(_) => found.add(&path, format!("wanted: an account that sends {channel}, one of {}", names.join(", "))),
        None if names.len() > 1 => {
            found.add(&path, format!("{} send {channel}; say which of them does by default", names.join(", ")));
        }
        None => {}
    }
}

fn destinations(settings: &Settings, found: &mut Found<'_>) {
    for domain in settings.limits.domains.keys() {
        if !is_domain(domain) {
            found.add(
                &["limits", "domains", domain],
                "wanted: a domain as in DNS, lower-case and in quotes, as in [limits.domains.\"gmail.com\"]; one with \
                 other letters in its xn-- form",
            );
        }
    }
    for country in settings.limits.countries.keys() {
        if !is_country(country) {
            found.add(
                &["limits", "countries", country],
                "wanted: a country's two capital letters (ISO 3166-1), as in [limits.countries.FR]",
            );
        }
    }
}

/// Whether this is an absolute URL with a host and nothing that could be a secret.
fn is_bare_url(text: &str, schemes: &[&str]) -> bool {
    Url::parse(text).is_ok_and(|url| {
        schemes.contains(&url.scheme())
            && url.has_host()
            && url.username().is_empty()
            && url.password().is_none()
            && url.query().is_none()
            && url.fragment().is_none()
    })
}

impl Settings {
    /// What only the machine can tell of the accounts: whether their key files are there and private, and they can be
    /// built. No provider is asked.
    #[must_use]
    pub fn check(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        let mut add = |key: String, message: String| problems.push(Problem { key, place: None, message });
        for (name, account) in &self.providers {
            if let Some(own) = &account.callbacks {
                let refused = match (own.credentials(), providers::entry(&account.kind).and_then(|e| e.callbacks)) {
                    (Err(error), _) => Some(error.to_string()),
                    (Ok(credentials), Some(callbacks)) => {
                        (callbacks.verifier)(&credentials).err().map(|error| error.to_string())
                    }
                    (Ok(_), None) => None,
                };
                if let Some(refused) = refused {
                    add(format!("providers.{name}.callbacks"), refused);
                }
            }
            match account.secret(name) {
                Err(error) => add(format!("providers.{name}.key_file"), error.to_string()),
                Ok(secret) => {
                    let ingredients = Ingredients {
                        settings: account.account(),
                        secret,
                        clock: std::sync::Arc::new(SystemClock::new()),
                        entropy: std::sync::Arc::new(SystemEntropy::default()),
                    };
                    if let Err(error @ (AccountError::Kind { .. } | AccountError::Setting(_))) =
                        providers::build(ingredients)
                    {
                        add(format!("providers.{name}"), error.to_string());
                    }
                }
            }
        }
        problems
    }
}
