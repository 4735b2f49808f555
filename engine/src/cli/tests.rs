//! The command line against a served API over a real ledger.

mod campaigns;
mod opt_outs;
mod uploads;

use std::{
    io::{self, Write},
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use clap::{CommandFactory as _, Parser as _};
use dispatch_schemas::states::StallReason;
use secrecy::ExposeSecret as _;
use serde_json::Value;

use super::{Cli, CliError, Command, execute, orders, output::Output, tenants};
use crate::api::{server, tests::world::World};

/// Keeps what is printed.
#[derive(Clone, Default)]
struct Printed(Arc<Mutex<Vec<u8>>>);

impl Write for Printed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Printed {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

/// A world that is served, and a folder with its key.
struct Served {
    world: World,
    url: String,
    dir: tempfile::TempDir,
}

impl Served {
    async fn new() -> Self {
        let world = World::new().await;
        let listener = server::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(server::serve(listener, world.router.clone(), std::future::pending()));
        Self::of(world, url)
    }

    /// A world that somebody else serves at this address.
    fn of(world: World, url: String) -> Self {
        let dir = tempfile::tempdir().unwrap();
        write_secret(&dir.path().join("key"), &world.key);
        Self { world, url, dir }
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    /// Runs a command line as this world's user.
    async fn run(&self, line: &[&str]) -> Result<String, CliError> {
        let (said, outcome) = self.say(line).await;
        outcome.map(|()| said)
    }

    /// The same, with what was printed even when it failed.
    async fn say(&self, line: &[&str]) -> (String, Result<(), CliError>) {
        let printed = Printed::default();
        let outcome = self.run_into(line, &printed).await;
        (printed.text(), outcome)
    }

    async fn run_into(&self, line: &[&str], printed: &Printed) -> Result<(), CliError> {
        let key = self.dir.path().join("key");
        let engine = ["--url", &self.url, "--api-key-file", key.to_str().unwrap()];
        run_into(&[line, &engine].concat(), printed).await
    }
}

fn write_secret(path: &Path, text: &str) {
    std::fs::write(path, text).unwrap();
    #[cfg(unix)]
    std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
}

async fn run_into(line: &[&str], printed: &Printed) -> Result<(), CliError> {
    let cli = Cli::try_parse_from([&["dispatch"], line].concat()).unwrap();
    execute(cli.command, &mut Output::to(printed.clone())).await
}

#[test]
fn every_subcommand_explains_itself_with_an_example() {
    let mut cli = Cli::command();
    cli.build();
    cli.clone().debug_assert();
    assert!(cli.render_long_help().to_string().contains("Exit codes:"));
    for command in cli.get_subcommands_mut().filter(|command| command.get_name() != "help") {
        let help = command.render_long_help().to_string();
        assert!(help.contains("Example"), "{}", command.get_name());
        assert!(command.get_about().is_some(), "{}", command.get_name());
    }
}

#[tokio::test]
async fn a_key_that_was_made_works_until_it_is_revoked() {
    let served = Served::new().await;
    let act = async |line: &[&str]| {
        let cli = Cli::try_parse_from([&["dispatch", "keys"], line].concat()).unwrap();
        let Command::Keys(args) = cli.command else { panic!("not keys") };
        let printed = Printed::default();
        let (order, form) = args.action.into_order();
        orders::print(order.carry_out(&served.world.opened()).await?, form, &mut Output::to(printed.clone()))?;
        Ok::<_, CliError>(printed.text())
    };
    let made = act(&["create", "--tenant", "acme", "--permissions", "read", "--label", "crm", "--json"]).await.unwrap();
    let made: Value = serde_json::from_str(&made).unwrap();
    write_secret(&served.dir.path().join("key"), made["key"].as_str().unwrap());
    let refused = served.run(&["suppress", "--channel", "email", "a@example.org"]).await.unwrap_err();
    let CliError::Refused(problem) = refused else { panic!("{refused}") };
    assert_eq!((problem.status, problem.kind.as_str()), (403, "/problems/not-permitted"));

    let id = made["id"].as_str().unwrap();
    let listed = act(&["list", "--tenant", "acme"]).await.unwrap();
    assert!(
        listed
            .lines()
            .any(|line| line.contains(id) && line.contains("acme") && line.contains("good") && line.contains("crm")),
        "{listed}"
    );
    act(&["revoke", id]).await.unwrap();
    let listed = act(&["list"]).await.unwrap();
    assert!(listed.lines().any(|line| line.contains(id) && line.contains("revoked")), "{listed}");
    assert!(matches!(act(&["list", "--tenant", "nobody"]).await, Err(CliError::Usage(_))));
}

#[tokio::test]
async fn a_tenant_is_closed_with_a_reason_and_opened() {
    let served = Served::new().await;
    let act = async |line: &[&str]| {
        let cli = Cli::try_parse_from([&["dispatch", "tenants"], line].concat()).unwrap();
        let Command::Tenants(args) = cli.command else { panic!("not tenants") };
        let printed = Printed::default();
        let (order, form) = args.action.into_order();
        orders::print(order.carry_out(&served.world.opened()).await?, form, &mut Output::to(printed.clone()))?;
        Ok::<_, CliError>(printed.text())
    };
    let said = act(&["close", "acme", "--reason", "unpaid since March"]).await.unwrap();
    assert_eq!(said, "acme is closed; 0 messages were on their way before.\n");
    let listed = act(&["list"]).await.unwrap();
    let line = |name: &str| listed.lines().find(|line| line.contains(name)).unwrap();
    assert!(line("acme").contains("closed 2027-01-15") && line("acme").contains("unpaid since March"), "{listed}");
    assert!(line("globex").contains("open"), "{listed}");
    let by_id = served.world.tenant.to_string();
    assert_eq!(act(&["open", &by_id]).await.unwrap(), "acme is open.\n");
    let opened: Value = serde_json::from_str(act(&["list", "--json"]).await.unwrap().lines().next().unwrap()).unwrap();
    assert_eq!((&opened["name"], &opened["closed"]), (&Value::from("acme"), &Value::Null));
    for wrong in [
        ["close", "acme", "--reason", " "],
        ["close", "nobody", "--reason", "x"],
        ["close", "acme", "--reason", "a\nb"],
    ] {
        assert!(matches!(act(&wrong).await, Err(CliError::Usage(_))), "{wrong:?}");
    }
    let folder = served.dir.path().join("dispatch.toml");
    std::fs::write(
        &folder,
        format!("[ledger]\nurl = {:?}\n", format!("sqlite:{}/none.db", served.dir.path().display())),
    )
    .unwrap();
    let line = ["dispatch", "tenants", "list", "--config", folder.to_str().unwrap()];
    let Command::Tenants(args) = Cli::try_parse_from(line).unwrap().command else { panic!("not tenants") };
    let refused = tenants::run(args, &mut Output::to(Printed::default())).await.unwrap_err();
    assert!(refused.to_string().contains("there is no ledger"), "{refused}");
    assert!(!served.dir.path().join("none.db").exists(), "looking makes none");
}

#[tokio::test]
async fn a_contact_list_is_made_and_uploaded() {
    let served = Served::new().await;
    let file = served.file("people.csv", "Mail,Town\na@example.org,X\nb@example.org,Y\n");
    let file = file.to_str().unwrap();
    let unknown = served.run(&["import", "--list", "people", file]).await.unwrap_err();
    assert!(unknown.to_string().contains("--legal-basis"), "{unknown}");

    let line =
        ["import", "--list", "people", "--legal-basis", "consent", "--email", "Mail", "--field", "city=Town", file];
    let said = served.run(&line).await.unwrap();
    assert!(said.contains("2  rows read"), "{said}");
    let said: Value =
        serde_json::from_str(&served.run(&["import", "--list", "people", "--json", file]).await.unwrap()).unwrap();
    assert_eq!(said["state"], "completed");

    let missing = served.run(&["import", "--list", "people", "/nonexistent.csv"]).await.unwrap_err();
    assert!(matches!(missing, CliError::Usage(_)));
    let broken = served.file("broken.csv", "a\0b\n");
    let refused = served.run(&["import", "--list", "people", broken.to_str().unwrap()]).await.unwrap_err();
    assert!(matches!(&refused, CliError::Refused(problem) if problem.status == 422), "{refused}");
}

#[tokio::test]
async fn a_key_that_is_not_taken_is_said_with_where_it_came_from() {
    let served = Served::new().await;
    let key = served.dir.path().join("key");
    let another = crate::api::credentials::ApiKeyText::generate(&dispatch_workers::clock::SystemEntropy::default());
    for text in ["dsp_live_half", another.reveal().expose_secret()] {
        write_secret(&key, text);
        let error = served.run(&["campaign", "list"]).await.unwrap_err().to_string();
        for part in [key.to_str().unwrap(), "--api-key-file", "dispatch keys create --tenant NAME"] {
            assert!(error.contains(part), "{error}");
        }
        assert!(!error.contains(text), "{error}");
    }
}

#[tokio::test]
async fn a_sandbox_beside_an_earlier_ones_log_says_which_file_and_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("witness.jsonl");
    std::fs::write(&log, "").unwrap();
    let line = ["sandbox", "--http", "127.0.0.1:0", "--smtp", "127.0.0.1:0", "--witness", log.to_str().unwrap()];
    let Command::Sandbox(args) = Cli::try_parse_from([&["dispatch"], &line[..]].concat()).unwrap().command else {
        panic!("not sandbox")
    };
    let error = super::sandbox::run(*args).await.unwrap_err();
    assert!(matches!(&error, CliError::Usage(text) if text.contains(log.to_str().unwrap())), "{error}");
    assert!(error.to_string().contains("--witness"), "{error}");
}

#[tokio::test]
async fn a_campaign_is_made_launched_looked_at_and_stopped() {
    let served = Served::new().await;
    served.world.filled_list("people", 3).await;
    let content = served.file(
        "spring.json",
        r#"{"channel":"email","from":{"address":"shop@example.org"},"subject":"Hi","text":"Hi {{ first_name }}"}"#,
    );
    let create = ["campaign", "create", "--name", "Spring", "--list", "people", "--purpose", "marketing", "--json"];
    let hours = ["--window", "22:00-06:00", "--window-days", "fri-sun", "--time-zone", "Europe/Paris"];
    let made = served.run(&[&create[..], &["--content", content.to_str().unwrap()], &hours].concat()).await.unwrap();
    let made: Value = serde_json::from_str(&made).unwrap();
    assert_eq!(made["sending_window"]["days"], serde_json::json!(["fri", "sat", "sun"]));
    let id = made["id"].as_str().unwrap();
    assert!(made["warnings"][0].as_str().unwrap().contains("first_name"));

    let act = async |what: &str| served.run(&["campaign", what, id]).await;
    let early = act("pause").await.unwrap_err();
    assert!(matches!(&early, CliError::Refused(problem) if problem.status == 409), "{early}");
    assert!(act("launch").await.unwrap().contains("is running"));
    served.world.stalls(id, StallReason::NoWorker).await;
    let status = act("status").await.unwrap();
    assert!(status.contains("running, waiting: no_worker"), "{status}");
    served.world.stalls(id, StallReason::OutsideWindow).await;
    let status = act("status").await.unwrap();
    assert!(status.contains("running, waiting: outside_window until 2027-01-15T21:00:00.000Z"), "{status}");
    assert!(act("pause").await.unwrap().contains("is paused"));
    assert!(act("resume").await.unwrap().contains("is running"));
    assert!(act("cancel").await.unwrap().contains("is cancelled"));
    assert!(act("recipients").await.unwrap().starts_with("       SEQ  STATUS"));
    let again = act("launch").await.unwrap_err();
    assert!(matches!(&again, CliError::Refused(problem) if problem.status == 409), "{again}");
}

#[tokio::test]
async fn an_engine_that_is_not_there_is_said_so() {
    let served = Served::new().await;
    let free = server::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap().local_addr().unwrap();
    let key = served.dir.path().join("key");
    let line = ["suppress", "--channel", "email", "a@example.org", "--api-key-file", key.to_str().unwrap(), "--url"];
    let url = format!("http://{free}");
    let error = run_into(&[&line[..], &[&url]].concat(), &Printed::default()).await.unwrap_err();
    assert!(matches!(&error, CliError::Unavailable(_)), "{error}");
    assert!(error.to_string().contains("dispatch serve"), "{error}");

    write_secret(&key, "dsp_live_half");
    let error = served.run(&["suppress", "--channel", "email", "a@example.org"]).await.unwrap_err();
    assert!(matches!(error, CliError::Usage(_)));
}
