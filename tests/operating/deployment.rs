//! The files in `config/` that start an installation.

use std::{path::PathBuf, str::FromStr as _, time::Duration};

use dispatch_engine::{
    engine::{Role, drain_within},
    settings::{LedgerUrl, Settings},
};
use dispatch_workers::delivery::Timing;
use saphyr::{LoadableYamlNode as _, Yaml};

/// What a process needs beyond its drain to answer its callers and to close the ledger.
const CLOSES_WITHIN: Duration = Duration::from_secs(10);

fn text(name: &str) -> String {
    let file = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../config").join(name);
    std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

fn loaded(text: &str, variables: &[(String, String)]) -> Settings {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), text).unwrap();
    Settings::load(Some(file.path()), variables.iter().cloned()).unwrap_or_else(|error| panic!("{error}"))
}

/// The seconds of `120s` or `120`.
fn seconds(text: &str) -> Duration {
    Duration::from_secs(text.trim_end_matches('s').parse().unwrap())
}

fn assert_outlasts_a_drain(what: &str, given: Duration) {
    let wanted = drain_within(&Timing::default()) + CLOSES_WITHIN;
    assert!(given >= wanted, "{what}: a stop may take {wanted:?}, and it is killed after {given:?}");
}

#[test]
fn no_service_manager_kills_a_process_that_still_waits_for_its_providers() {
    for unit in ["systemd/dispatch.service", "systemd/dispatch@.service"] {
        let text = text(unit);
        let value = text.lines().find_map(|line| line.strip_prefix("TimeoutStopSec=")).unwrap();
        assert_outlasts_a_drain(unit, seconds(value));
    }
    for (name, service) in dispatch_services(&compose()) {
        assert_outlasts_a_drain(&name, seconds(service["stop_grace_period"].as_str().unwrap()));
    }
}

#[test]
fn both_units_are_hardened_alike() {
    let hardened = |unit: &str| {
        let text = text(unit);
        let (_, after) = text.split_once("LimitNOFILE").unwrap();
        after.to_owned()
    };
    assert_eq!(hardened("systemd/dispatch.service"), hardened("systemd/dispatch@.service"));
    assert!(text("systemd/dispatch@.service").contains("ExecStart=/usr/local/bin/dispatch serve --roles %i\n"));
}

#[test]
fn production_settings_load_with_everything_that_is_commented_out() {
    let text = text("production.toml");
    let as_shipped = loaded(&text, &[]);
    assert!(as_shipped.ledger.url.file().is_some());
    // A commented setting has no space after its mark; the second ledger takes the first one's place.
    let is_setting = |line: &str| line.starts_with(|c: char| c == '[' || c.is_ascii_lowercase());
    let uncommented: Vec<&str> = text
        .lines()
        .filter(|line| !line.starts_with("url = \"sqlite:"))
        .map(|line| line.strip_prefix('#').filter(|rest| is_setting(rest)).unwrap_or(line))
        .collect();
    let settings = loaded(&uncommented.join("\n"), &[]);
    assert!(matches!(settings.ledger.url, LedgerUrl::Postgres(_)) && !settings.ledger.url.has_password());
    assert!(settings.queue.url.is_some() && settings.queue.ca_file.is_some());
    assert!(settings.workers.journal_folder.is_some());
}

fn compose() -> Yaml<'static> {
    let text: &'static str = text("compose.yaml").leak();
    Yaml::load_from_str(text).unwrap().remove(0)
}

/// A mapping with what `<<` brings into it.
fn merged<'a>(node: &'a Yaml<'static>) -> Vec<(String, &'a Yaml<'static>)> {
    let mapping = node.as_mapping().unwrap();
    let mut all: Vec<(String, &Yaml<'static>)> = Vec::new();
    let own = mapping.iter().filter(|(key, _)| key.as_str() != Some("<<"));
    let brought = mapping.iter().filter(|(key, _)| key.as_str() == Some("<<")).flat_map(|(_, value)| merged(value));
    for (key, value) in own.map(|(key, value)| (key.as_str().unwrap().to_owned(), value)).chain(brought) {
        if all.iter().all(|(known, _)| *known != key) {
            all.push((key, value));
        }
    }
    all
}

/// One service, by the names of its settings.
type Service<'a> = std::collections::BTreeMap<String, &'a Yaml<'static>>;

/// The services that run Dispatch.
fn dispatch_services<'a>(compose: &'a Yaml<'static>) -> Vec<(String, Service<'a>)> {
    let services =
        merged(&compose["services"]).into_iter().map(|(name, node)| (name, merged(node).into_iter().collect()));
    services.filter(|(_, service): &(String, Service<'_>)| service["image"].as_str() == Some("dispatch")).collect()
}

fn words(node: &Yaml<'_>) -> Vec<String> {
    node.as_sequence().unwrap().iter().map(|word| word.as_str().unwrap().to_owned()).collect()
}

#[test]
fn every_container_starts_with_settings_that_load_and_a_role_that_there_is() {
    let compose = compose();
    let (mut roles, mut listening, mut journals) = (Vec::new(), Vec::new(), Vec::new());
    for (name, service) in dispatch_services(&compose) {
        let variables: Vec<(String, String)> = merged(service["environment"])
            .into_iter()
            .map(|(key, value)| (key, without_variables(value.as_str().unwrap())))
            .collect();
        let settings = loaded("", &variables);
        assert_eq!(settings.source.variables.len(), variables.len(), "{name}: each variable is a setting");
        assert!(settings.ledger.url.file().is_none() && settings.queue.url.is_some(), "{name}");
        let command = words(service["command"]);
        if command.first().map(String::as_str) != Some("serve") {
            continue;
        }
        let after = |option: &str| command.iter().skip_while(|word| *word != option).nth(1).unwrap().clone();
        let role = Role::from_str(&after("--roles")).unwrap();
        if role == Role::Worker {
            journals.push(settings.workers.journal_folder.expect("a worker on PostgreSQL keeps a journal"));
        }
        roles.push(role.as_str());
        listening.push(after("--listen").rsplit_once(':').unwrap().1.to_owned());
    }
    roles.sort_unstable();
    assert_eq!(roles, ["api", "callbacks", "scheduler", "worker", "worker"]);
    journals.dedup();
    assert_eq!(journals.len(), 2, "each worker has a journal of its own");

    let scrape: &'static str = text("prometheus/scrape.yml").leak();
    let scrape = Yaml::load_from_str(scrape).unwrap().remove(0);
    let targets = scrape["scrape_configs"][0]["static_configs"].as_sequence().unwrap().iter();
    let scraped = targets.flat_map(|group| words(&group["targets"]));
    let mut scraped: Vec<String> = scraped.map(|target| target.rsplit_once(':').unwrap().1.to_owned()).collect();
    scraped.sort_unstable();
    listening.sort_unstable();
    assert_eq!(scraped, listening, "every process is measured");
}

/// A text with `x` for each `${NAME:?why}`.
fn without_variables(text: &str) -> String {
    let mut parts = text.split("${");
    let first = parts.next().unwrap().to_owned();
    parts.fold(first, |whole, part| format!("{whole}x{}", part.split_once('}').unwrap().1))
}
