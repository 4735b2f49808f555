//! `dispatch doctor` over real services, with nothing wrong and with things wrong.

use std::{
    collections::BTreeMap,
    net::TcpListener,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Output,
};

use dispatch_engine::queue::rabbitmq::topology;
use serde_json::Value;

use crate::{broker::Broker, database::Database, dispatch_in, said};

/// A machine with its settings, its database, its broker and its provider.
struct Machine {
    folder: tempfile::TempDir,
    database: Database,
    broker: Broker,
    provider: Option<TcpListener>,
}

impl Machine {
    /// Everything as it should be.
    async fn new() -> Self {
        let provider = TcpListener::bind("127.0.0.1:0").unwrap();
        let machine = Self {
            folder: tempfile::tempdir().unwrap(),
            database: Database::new().await,
            broker: Broker::new().await,
            provider: Some(provider),
        };
        let path = |name: &str| machine.path(name).display().to_string();
        let url = format!("http://{}", machine.provider.as_ref().unwrap().local_addr().unwrap());
        let text = format!(
            "[ledger]\nkey_file = {:?}\nsecond_place_folder = {:?}\n[workers]\njournal_folder = {:?}\n[providers.main]\nkind = \"sendgrid\"\n\
             url = {url:?}\nkey_file = {:?}\n",
            path("dispatch.key"),
            path("second"),
            path("journal"),
            path("provider.key"),
        );
        std::fs::write(machine.path("dispatch.toml"), text).unwrap();
        std::fs::create_dir(machine.path("second")).unwrap();
        machine.secret("provider.key", "SG.canary-key");
        assert!(machine.run(&["migrate"]).await.status.success());
        // The first to open it makes the key.
        assert!(machine.run(&["keys", "list"]).await.status.success());
        machine.broker.define(topology::definitions()).await;
        machine
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn secret(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).unwrap();
        mode(&self.path(name), 0o600);
    }

    async fn run(&self, line: &[&str]) -> Output {
        let (ledger, queue) = (self.database.url(), self.broker.url());
        self.run_with(line, &[("DISPATCH_LEDGER__URL", &ledger), ("DISPATCH_QUEUE__URL", &queue)]).await
    }

    async fn run_with(&self, line: &[&str], variables: &[(&str, &str)]) -> Output {
        dispatch_in(self.folder.path(), line, variables).await
    }

    async fn examined(&self) -> Examined {
        Examined::read(&self.run(&["doctor", "--json"]).await)
    }
}

fn mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

/// What was said, by the names of the checks.
struct Examined {
    code: Option<i32>,
    checks: BTreeMap<String, (String, String)>,
}

impl Examined {
    fn read(output: &Output) -> Self {
        let all = said(output);
        assert!(!all.contains("canary"), "no secret is shown: {all}");
        let lines = String::from_utf8(output.stdout.clone()).unwrap();
        let checks = lines.lines().map(|line| {
            let check: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}"));
            let word = |key: &str| check[key].as_str().unwrap_or_default().to_owned();
            (word("name"), (word("level"), format!("{}; {}", word("text"), word("mend"))))
        });
        Self { code: output.status.code(), checks: checks.collect() }
    }

    fn assert_says(&self, name: &str, level: &str, words: &str) {
        let Some((found, text)) = self.checks.get(name) else { panic!("no check {name}: {:#?}", self.checks) };
        assert!(found == level && text.contains(words), "{name}: wanted {level} with `{words}`, not {found}: {text}");
    }
}

#[tokio::test]
async fn a_deployment_without_a_fault_has_none() {
    let machine = Machine::new().await;
    let examined = machine.examined().await;
    let not_ok: Vec<_> = examined.checks.iter().filter(|(_, (level, _))| level != "ok").collect();
    // How full the disk is, is this machine's own.
    let own = |name: &str| name.starts_with("disk.") || name == "database.connections";
    assert!(not_ok.iter().all(|(name, _)| own(name)), "{not_ok:#?}");
    for name in [
        "settings.file",
        "database.reached",
        "database.version",
        "database.writable",
        "database.durable",
        "database.tls",
        "database.role",
        "database.connections",
        "database.clock",
        "database.schema",
        "database.rights",
        "database.walls",
        "database.months",
        "ledger.quarantine",
        "second_place.folder",
        "key.master",
        "broker.version",
        "broker.reached",
        "broker.queues",
        "broker.set_aside",
        "broker.alarms",
        "providers.main",
        "providers.main.host",
        "journal.folder",
        "disk.journal",
    ] {
        assert!(examined.checks.contains_key(name), "{name}");
    }
    assert!(!machine.path("journal").exists(), "looking makes nothing");
    let lines = machine.run(&["doctor"]).await;
    assert!(said(&lines).contains("ok    broker.version: RabbitMQ "), "{}", said(&lines));
}

#[tokio::test]
async fn what_is_wrong_with_the_database_is_found() {
    let machine = Machine::new().await;
    let month = "SELECT min(substr(c.relname, 10)::bigint) FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
                  WHERE i.inhparent = 'delivery'::regclass";
    let first = machine.database.number(month).await;
    machine.database.run(&format!("DROP TABLE delivery_{first}; ALTER TABLE gate NO FORCE ROW LEVEL SECURITY")).await;
    let examined = machine.examined().await;
    assert_eq!(examined.code, Some(1));
    examined.assert_says("database.months", "warn", &format!("no partition for {first}"));
    examined.assert_says("database.walls", "fail", "the rows of gate are not kept apart");

    machine.database.run("DROP TABLE attempt CASCADE").await;
    let examined = machine.examined().await;
    examined.assert_says("database.schema", "fail", "its attempt is missing");
    examined.assert_says("key.master", "warn", "could not be told");

    let queue = machine.broker.url();
    let wrong = machine.database.changed_url(|url| url.set_password(Some("canary-7")).unwrap());
    let with = [("DISPATCH_LEDGER__URL", wrong.as_str()), ("DISPATCH_QUEUE__URL", &queue)];
    let examined = Examined::read(&machine.run_with(&["doctor", "--json"], &with).await);
    assert_eq!(examined.code, Some(1));
    examined.assert_says("database.reached", "fail", "refuses the role");
    examined.assert_says("broker.reached", "ok", "");

    let empty = Database::new().await;
    let empty = empty.url();
    let with = [("DISPATCH_LEDGER__URL", empty.as_str()), ("DISPATCH_QUEUE__URL", &queue)];
    let examined = Examined::read(&machine.run_with(&["doctor", "--json"], &with).await);
    examined.assert_says("database.schema", "fail", "run `dispatch migrate`");
}

#[tokio::test]
async fn what_is_wrong_with_the_broker_is_found() {
    let machine = Machine::new().await;
    machine.broker.put(topology::SET_ASIDE).await;
    machine.examined().await.assert_says("broker.set_aside", "warn", "1 messages are set aside");

    let other = Broker::new().await;
    other.declare_plain("dispatch.email.bulk").await;
    let (ledger, url) = (machine.database.url(), other.url());
    let with = [("DISPATCH_LEDGER__URL", ledger.as_str()), ("DISPATCH_QUEUE__URL", &url)];
    let output = machine.run_with(&["doctor"], &with).await;
    let lines = said(&output);
    assert_eq!(output.status.code(), Some(1), "{lines}");
    assert!(lines.contains("fail  broker.queues: dispatch.email.bulk is not as it must be"), "{lines}");
    assert!(lines.contains("warn  broker.queues: not there: dispatch.email.transactional"), "{lines}");

    // A port that was free a moment ago.
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let away = format!("amqp://guest:canary-3@127.0.0.1:{free}/x");
    let with = [("DISPATCH_LEDGER__URL", ledger.as_str()), ("DISPATCH_QUEUE__URL", &away)];
    let examined = Examined::read(&machine.run_with(&["doctor", "--json"], &with).await);
    examined.assert_says("broker.version", "fail", "no connection");
    examined.assert_says("broker.reached", "fail", "cannot be reached");
}

#[tokio::test]
async fn what_is_wrong_on_the_machine_is_found() {
    let mut machine = Machine::new().await;
    machine.provider = None;
    mode(&machine.path("provider.key"), 0o644);
    let other = tempfile::tempdir().unwrap();
    let other = other.path().join("other.key");
    let entropy = dispatch_workers::clock::SystemEntropy::default();
    dispatch_workers::sealing::MasterKey::generate(&entropy).write_new(&other).unwrap();
    std::fs::copy(&other, machine.path("dispatch.key")).unwrap();
    std::fs::write(machine.path("journal"), "a file").unwrap();
    let settings = machine.path("dispatch.toml");
    let text = std::fs::read_to_string(&settings).unwrap();
    std::fs::write(&settings, text.replace("/journal\"", "/journal/1\"")).unwrap();

    let examined = machine.examined().await;
    assert_eq!(examined.code, Some(1));
    examined.assert_says("providers.main.key_file", "fail", "chmod 600");
    examined.assert_says("providers.main.host", "fail", "no connection");
    examined.assert_says("key.master", "fail", "not the key this ledger was made with");
    examined.assert_says("journal.folder", "fail", "install -d");
    mode(&machine.path("dispatch.key"), 0o640);
    machine.examined().await.assert_says("key.master", "fail", "can be read by others");
    std::fs::remove_file(machine.path("dispatch.key")).unwrap();
    machine.examined().await.assert_says("key.master", "fail", "is not there");

    let offline = Examined::read(&machine.run(&["doctor", "--json", "--offline"]).await);
    assert!(!offline.checks.contains_key("providers.main.host"));
    // A password in a file that others can read.
    let text = std::fs::read_to_string(&settings).unwrap();
    let url = machine.database.changed_url(|url| url.set_password(Some("canary-9")).unwrap());
    std::fs::write(&settings, text.replace("[ledger]\n", &format!("[ledger]\nurl = {url:?}\n"))).unwrap();
    mode(&settings, 0o644);
    let examined = Examined::read(&machine.run_with(&["doctor", "--json"], &[]).await);
    examined.assert_says("settings.file", "fail", "holds the database's password");
}

#[tokio::test]
async fn a_file_without_faults_passes_and_warnings_count_when_asked() {
    let folder = tempfile::tempdir().unwrap();
    let plain = dispatch_in(folder.path(), &["doctor", "--json"], &[]).await;
    let examined = Examined::read(&plain);
    examined.assert_says("ledger.file", "ok", "is made at the first start");
    examined.assert_says("providers", "warn", "nothing can be sent");
    let failed = examined.checks.values().filter(|(level, _)| level == "fail").count();
    assert_eq!(examined.code, Some(i32::from(failed > 0)));
    assert_eq!(dispatch_in(folder.path(), &["doctor", "--strict"], &[]).await.status.code(), Some(1));
    assert!(std::fs::read_dir(folder.path()).unwrap().next().is_none(), "looking makes nothing");

    std::fs::write(folder.path().join("dispatch.toml"), "[ledger]\nulr = \"sqlite:x\"\n").unwrap();
    assert_eq!(dispatch_in(folder.path(), &["doctor"], &[]).await.status.code(), Some(2));
    std::fs::write(folder.path().join("dispatch.toml"), "[ledger]\nurl = \"sqlite:text.db\"\n").unwrap();
    std::fs::write(folder.path().join("text.db"), "email,phone\n".repeat(500)).unwrap();
    let examined = Examined::read(&dispatch_in(folder.path(), &["doctor", "--json"], &[]).await);
    examined.assert_says("ledger.file", "fail", "not a database");
    assert_eq!(examined.code, Some(1));
}
