//! Every metric there is.

use dispatch_schemas::states::{Channel, Lane, StallReason, StopReason};
use dispatch_workers::providers::REGISTRY;

/// One metric.
#[derive(Debug, Clone, Copy)]
pub struct Metric {
    /// Its name, with unit and `_total` as Prometheus wants them.
    pub name: &'static str,
    /// What it does with its values.
    pub kind: Kind,
    /// What one is.
    pub unit: Unit,
    /// Its labels, in the order they are given.
    pub labels: &'static [Label],
    /// What it tells, in a sentence.
    pub meaning: &'static str,
    /// Where it stands in the page.
    pub area: Area,
}

/// What a metric does with its values.
#[derive(Debug, Clone, Copy)]
pub enum Kind {
    /// Adds up, from the start of the process.
    Counter,
    /// Shows the last one.
    Gauge,
    /// Counts them by size, in buckets with these upper bounds.
    Histogram(&'static [f64]),
}

impl Kind {
    /// Prometheus' word for it, and the macro's.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram(_) => "histogram",
        }
    }
}

/// What a value counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Deliveries, each to one recipient.
    Deliveries,
    /// Things of the kind the name says.
    Count,
    /// Seconds.
    Seconds,
    /// Bytes.
    Bytes,
}

impl Unit {
    /// The word in the page.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Deliveries => "deliveries",
            Self::Count => "count",
            Self::Seconds => "seconds",
            Self::Bytes => "bytes",
        }
    }
}

/// A label. Its values are bounded, whatever the program is given.
#[derive(Debug, Clone, Copy)]
pub struct Label {
    /// Its name.
    pub key: &'static str,
    /// What it may say.
    pub values: Values,
}

/// What a label may say.
#[derive(Debug, Clone, Copy)]
pub enum Values {
    /// One of these words.
    Words(fn() -> Vec<&'static str>),
    /// What bounds it.
    BoundedBy(&'static str),
}

/// The question a metric helps to answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Area {
    /// RabbitMQ.
    Queue,
    /// Sends.
    Sending,
    /// Limits.
    Limits,
    /// Deliveries and campaigns.
    Progress,
    /// Callbacks.
    Callbacks,
    /// Uncertain outcomes.
    Safety,
    /// The ledger.
    Ledger,
    /// Imports and gates.
    Contacts,
    /// The API.
    Api,
    /// The process.
    Process,
}

impl Area {
    /// All, in the order of the page.
    pub const ALL: &[Self] = &[
        Self::Progress,
        Self::Queue,
        Self::Sending,
        Self::Limits,
        Self::Callbacks,
        Self::Safety,
        Self::Ledger,
        Self::Contacts,
        Self::Api,
        Self::Process,
    ];

    /// Its heading in the page.
    #[must_use]
    pub const fn heading(self) -> &'static str {
        match self {
            Self::Queue => "Do jobs travel?",
            Self::Sending => "What do the providers say?",
            Self::Limits => "What holds sending back?",
            Self::Progress => "Does work move, and where does it wait?",
            Self::Callbacks => "What do the providers report later?",
            Self::Safety => "Was anything left undecided?",
            Self::Ledger => "Is the ledger well?",
            Self::Contacts => "What comes in, and who opted out?",
            Self::Api => "Is the API well?",
            Self::Process => "What runs here?",
        }
    }
}

const fn label(key: &'static str, words: fn() -> Vec<&'static str>) -> Label {
    Label { key, values: Values::Words(words) }
}

const fn bounded(key: &'static str, by: &'static str) -> Label {
    Label { key, values: Values::BoundedBy(by) }
}

const CHANNEL: Label = label("channel", || Channel::ALL.iter().map(|channel| channel.as_str()).collect());
const PROVIDER: Label = label("provider", || REGISTRY.iter().map(|entry| entry.kind).collect());
const LANE: Label = label("lane", || Lane::ALL.iter().map(|lane| lane.as_str()).collect());
const VERDICT: Label = label("verdict", || VERDICTS.to_vec());
const SCOPE: Label = label("scope", || vec!["account", "tenant", "campaign", "destination", "none"]);
const OPERATION: Label = bounded("operation", "one word per operation of the ledger, such as `claim` or `record`");
const ROUTE: Label = bounded("route", "the API's route templates, such as `/v1/campaigns/{id}`; never a path");

const VERDICTS: [&str; 8] =
    ["accepted", "duplicate", "refused", "deferred", "throttled", "account_refused", "not_sent", "unknown"];

/// Bounds for what a provider or client waits for.
const WAITS: &[f64] = &[0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];
/// Bounds for the local disk.
const DISK: &[f64] = &[0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0];
/// Bounds for what waits on disk: while all is well, and while the ledger is away.
const LAGS: &[f64] = &[0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0, 120.0, 600.0, 3_600.0, 86_400.0];
/// Bounds for batches of up to a request's worth of recipients.
const BATCHES: &[f64] = &[1.0, 2.0, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1_000.0, 5_000.0];
/// Bounds for waits for permits, which look around four times a second.
const PERMIT_WAITS: &[f64] = &[0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.15, 0.2, 0.25];

macro_rules! metrics {
    ($($area:ident { $($name:literal $kind:expr, $unit:ident, [$($label:expr),*], $meaning:literal;)+ })+) => {
        /// Every metric, by area.
        pub const METRICS: &[Metric] = &[$($(Metric {
            name: $name,
            kind: $kind,
            unit: Unit::$unit,
            labels: &[$($label),*],
            meaning: $meaning,
            area: Area::$area,
        },)+)+];
    };
}

metrics! {
    Progress {
        "dispatch_deliveries" Kind::Gauge, Deliveries,
            [label("state", || vec!["ready", "claimed", "unknown", "retry_wait"]), CHANNEL],
            "Deliveries that are not final, by the state they are in.";
        "dispatch_queue_jobs" Kind::Gauge, Count, [CHANNEL, LANE],
            "Jobs handed to the workers and not finished. Near zero while deliveries are `ready`: the workers are faster \
             than the hand-over.";
        "dispatch_oldest_waiting_seconds" Kind::Gauge, Seconds, [CHANNEL],
            "How long the running campaign that has waited longest has finished no delivery, though some are due. Grows \
             while something is stuck.";
        "dispatch_campaigns" Kind::Gauge, Count,
            [label("state", || vec!["scheduled", "running", "paused"])],
            "Campaigns that are not over, by state.";
        "dispatch_stalled_campaigns" Kind::Gauge, Count,
            [label("reason", || StallReason::ALL.iter().map(|reason| reason.as_str()).collect())],
            "Running campaigns that do not move, by what they wait for.";
        "dispatch_jobs_without_campaign_total" Kind::Counter, Count, [],
            "Jobs dropped because their campaign is gone. More than a few after a restart mean that ledger and queue do \
             not belong together.";
    }
    Queue {
        "dispatch_queue_connected" Kind::Gauge, Count,
            [label("connection", || vec!["publisher", "consumer"])],
            "1 while the connection to RabbitMQ stands. Publishing and consuming have one each.";
        "dispatch_queue_blocked" Kind::Gauge, Count, [],
            "1 while RabbitMQ takes no messages because of an alarm (memory or disk) of its own. Jobs wait in the ledger; \
             what is in the queue goes on being sent.";
        "dispatch_queue_refused_total" Kind::Counter, Count,
            [label("why", || vec!["nacked", "unroutable", "dropped", "unreadable"])],
            "Jobs that RabbitMQ did not take: its queue is full (`nacked`), was deleted (`unroutable`), there was no \
             connection (`dropped`), or what came back was not of our making (`unreadable`). All come again from the \
             ledger.";
        "dispatch_queue_set_aside_total" Kind::Counter, Count,
            [label("reason", || vec!["malformed", "unknown_version", "campaign_gone"])],
            "Messages set aside because nobody can work on them; `dispatch jobs list` shows them.";
    }
    Sending {
        "dispatch_sends_total" Kind::Counter, Deliveries, [PROVIDER, CHANNEL, VERDICT],
            "Recipients a request was made for, by what became of it. The rate of `accepted` is the speed.";
        "dispatch_request_seconds" Kind::Histogram(WAITS), Seconds, [PROVIDER, CHANNEL],
            "From the start of a provider request to its last byte.";
        "dispatch_request_recipients" Kind::Histogram(BATCHES), Deliveries, [PROVIDER, CHANNEL],
            "Recipients in one provider request. Far below the account's batch: campaigns are small, or recipients \
             travel alone after a refusal.";
        "dispatch_smtp_connections_total" Kind::Counter, Count,
            [label("outcome", || vec!["opened", "failed"])],
            "Connections to SMTP relays. Many more than mails divided by 1,000: the relay closes them early.";
        "dispatch_claim_batch_size" Kind::Histogram(BATCHES), Deliveries, [],
            "Deliveries won by one claim.";
    }
    Limits {
        "dispatch_permits_granted_total" Kind::Counter, Deliveries, [],
            "Sends that passed every limit.";
        "dispatch_permits_denied_total" Kind::Counter, Count, [SCOPE],
            "Questions for permits that had to wait, by whose limit was the tightest.";
        "dispatch_permit_wait_seconds" Kind::Histogram(PERMIT_WAITS), Seconds, [],
            "Length of one wait for permits; a long wait is made of several.";
        "dispatch_permits_late_total" Kind::Counter, Deliveries, [],
            "Sends that left later than their permits were good for, and were counted anew. Many: the machine is short of \
             CPU, or the ledger is slow.";
        "dispatch_deferred_total" Kind::Counter, Deliveries, [SCOPE],
            "Deliveries put back into the ledger until their domain or country has room again.";
        "dispatch_limit_conflicts_total" Kind::Counter, Count, [],
            "Changes to shared limits made again because another process was first. Several to each grant: more \
             processes share a limit than it can feed.";
    }
    Callbacks {
        "dispatch_callbacks_accepted_total" Kind::Counter, Count, [PROVIDER],
            "Callbacks that were taken: their provider's, and on disk.";
        "dispatch_callbacks_rejected_total" Kind::Counter, Count,
            [label("reason", || vec!["unknown_account", "unsigned", "forged", "stale", "elsewhere", "too_large",
                                     "too_many", "cut", "full", "failed", "late"])],
            "Callbacks that were not taken. `unsigned`, `forged`, `stale` and `elsewhere`: somebody else called, or the \
             settings know the provider by the wrong key. `full`, `failed` and `late`: the provider was told to come \
             again.";
        "dispatch_callback_reports_total" Kind::Counter, Count,
            [label("outcome", || vec!["applied", "duplicate", "orphan", "not_kept", "unreadable", "unknown_kind"])],
            "Reports in callbacks, by what became of them: applied, applied before, about a message nobody knows, of a \
             kind that is not kept (opened, clicked), no report at all. `unknown_kind` counts those of a kind this version \
             does not know beside that; they are kept.";
        "dispatch_callback_orphans_found_total" Kind::Counter, Count, [],
            "Reports whose message became known when they were looked at again.";
        "dispatch_callback_spool_bytes" Kind::Gauge, Bytes, [],
            "Bytes of callbacks that wait to be applied. Grows while the ledger is away.";
        "dispatch_callback_spool_age_seconds" Kind::Gauge, Seconds, [],
            "How long the oldest callback has waited to be applied.";
        "dispatch_callback_spool_failures_total" Kind::Counter, Count, [],
            "Writes to the spool that failed and callbacks in it that could not be read: look at the disk.";
        "dispatch_callback_lag_seconds" Kind::Histogram(LAGS), Seconds, [],
            "From a callback's arrival to its reports in the ledger.";
    }
    Safety {
        "dispatch_claims_expired_total" Kind::Counter, Deliveries, [],
            "Deliveries whose attempt ended without an outcome and became unknown. Expected after a crash; otherwise \
             workers or providers hang.";
        "dispatch_unknown_settled_total" Kind::Counter, Deliveries,
            [label("how", || vec!["log", "refused", "absent", "asked_again", "resend", "final", "late_answer", "callback"])],
            "Unknown outcomes that were settled, by what settled them.";
        "dispatch_quarantine" Kind::Gauge, Count, [],
            "1 while the ledger is in quarantine because it has forgotten its last commits: nothing is sent. `/readyz` \
             and `dispatch doctor` say why.";
    }
    Ledger {
        "dispatch_ledger_seconds" Kind::Histogram(DISK), Seconds, [OPERATION],
            "How long an operation of the ledger takes, its wait for the writer included.";
        "dispatch_ledger_batch_size" Kind::Histogram(BATCHES), Count, [OPERATION],
            "Rows one operation of the ledger touches.";
        "dispatch_ledger_unavailable_total" Kind::Counter, Count, [],
            "Runs broken off because the ledger could not be reached. Nothing is lost: they come again.";
        "dispatch_journal_failures_total" Kind::Counter, Count, [],
            "Writes to the journal of outcomes that failed. Sending goes on, but after a crash some outcomes will be \
             unknown: look at the disk.";
        "dispatch_second_place_failures_total" Kind::Counter, Count, [],
            "Writes to the second place that failed. Opt-outs and other closings are refused and nothing is sent until it \
             can be written again.";
    }
    Contacts {
        "dispatch_import_rows_total" Kind::Counter, Count,
            [label("outcome", || vec!["added", "updated", "duplicate", "blocked", "rejected"])],
            "Rows of imported files, by what became of them.";
        "dispatch_gates_closed_total" Kind::Counter, Count,
            [label("reason", || StopReason::ALL.iter().map(|reason| reason.as_str()).collect())],
            "Addresses or contacts closed to further messages, by why.";
    }
    Api {
        "dispatch_api_requests_total" Kind::Counter, Count,
            [ROUTE, bounded("method", "the HTTP methods the API knows"), bounded("status", "HTTP status codes")],
            "Requests answered.";
        "dispatch_api_seconds" Kind::Histogram(WAITS), Seconds, [ROUTE],
            "From a request's head to its answer's head.";
    }
    Process {
        "dispatch_build_info" Kind::Gauge, Count,
            [bounded("version", "the version of this program"),
             bounded("commit", "the commit it was built from, `unknown` when the build did not say")],
            "Always 1; its labels say what runs.";
        "dispatch_process_resident_memory_bytes" Kind::Gauge, Bytes, [],
            "Memory the process holds (resident set). Does not grow with the size of a campaign.";
    }
}

/// The metric of this name.
#[must_use]
pub fn metric(name: &str) -> Option<&'static Metric> {
    METRICS.iter().find(|metric| metric.name == name)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use dispatch_workers::{
        limits::Scope,
        providers::{Code, Verdict},
    };

    use super::*;

    #[test]
    fn names_follow_prometheus_and_are_unique() {
        let mut seen = HashSet::new();
        for metric in METRICS {
            let name = metric.name;
            assert!(seen.insert(name), "{name} stands twice");
            assert!(name.starts_with("dispatch_"), "{name}");
            assert!(name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'), "{name}");
            assert_eq!(matches!(metric.kind, Kind::Counter), name.ends_with("_total"), "{name}");
            assert_eq!(metric.unit == Unit::Seconds, name.ends_with("_seconds"), "{name}");
            assert!(metric.meaning.ends_with('.'), "{name}");
        }
    }

    #[test]
    fn buckets_grow() {
        for metric in METRICS {
            if let Kind::Histogram(buckets) = metric.kind {
                assert!(buckets.is_sorted_by(|a, b| a < b) && !buckets.is_empty(), "{}", metric.name);
            }
        }
    }

    #[test]
    fn the_words_of_verdicts_and_scopes_are_the_workers_own() {
        let code = || Code::known("x");
        let verdicts = [
            Verdict::Accepted { provider_id: None },
            Verdict::Duplicate,
            Verdict::Refused(code()),
            Verdict::Deferred(code()),
            Verdict::Throttled(code()),
            Verdict::AccountRefused(code()),
            Verdict::NotSent(code()),
            Verdict::Unknown(code()),
        ];
        assert_eq!(verdicts.map(|verdict| verdict.label()), VERDICTS);
        let Values::Words(words) = SCOPE.values else { panic!("scopes are words") };
        for scope in [Scope::Account("a".into()), Scope::Destination(1)] {
            assert!(words().contains(&scope.label()));
        }
    }
}
