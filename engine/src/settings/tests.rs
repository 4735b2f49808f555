use std::{collections::BTreeSet, io::Write as _};

use secrecy::ExposeSecret as _;

use super::*;

/// Loads a settings file of this text, with these variables.
fn load(text: &str, env: &[(&str, &str)]) -> Result<Settings, SettingsError> {
    let mut file = tempfile::Builder::new().suffix(".toml").tempfile().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    Settings::load(Some(file.path()), env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())))
}

fn problems(text: &str, env: &[(&str, &str)]) -> Vec<Problem> {
    match load(text, env) {
        Err(SettingsError::Problems(problems)) => problems,
        other => panic!("problems were expected, not {other:?}"),
    }
}

/// The one problem of a text, checked for its key, line and part of its message.
fn assert_problem(text: &str, key: &str, line: usize, says: &str) {
    let found = problems(text, &[]);
    let [problem] = found.as_slice() else { panic!("one problem was expected: {found:?}") };
    assert_eq!(problem.key, key);
    assert!(matches!(problem.place, Some(Place::Line { line: found, .. }) if found == line), "{problem}");
    assert!(problem.message.contains(says), "{problem}");
}

fn printed(settings: &Settings) -> toml::Table {
    settings.print_masked().unwrap().parse().unwrap()
}

#[test]
fn an_empty_file_and_an_empty_environment_give_the_defaults() {
    let settings = load("", &[]).unwrap();
    assert_eq!(printed(&settings), printed(&Settings::default()));
    assert_eq!(settings.ledger.url.file(), Some(Path::new("dispatch.db")));
    assert_eq!(settings.timing, Timing::default());
    assert_eq!(settings.route(dispatch_schemas::states::Channel::Email), None);
}

#[test]
fn the_commented_settings_file_holds_the_defaults() {
    assert_eq!(printed(&load(EXAMPLE, &[]).unwrap()), printed(&Settings::default()));
}

#[test]
fn the_commented_settings_file_names_every_setting_and_no_other() {
    let text = catalogue::example_in_full();
    load(&text, &[]).unwrap_or_else(|error| panic!("{error}"));

    let document = Document::parse(&text, Path::new("config/dispatch.toml")).unwrap();
    let fields = reading::fields_of::<Settings>(&document);
    let mut known: BTreeSet<String> = fields.iter().map(|key| catalogue::unnamed(key)).collect();
    let tables = known.clone();
    known.retain(|key| !tables.iter().any(|other| other.starts_with(&format!("{key}."))));
    for secret in ["providers.*.key", "queue.password"] {
        assert!(known.remove(secret), "{secret} stands in a variable or a file of its own");
    }
    let written: BTreeSet<String> = catalogue::keys().into_iter().collect();
    assert_eq!(known, written);
}

#[test]
fn an_account_left_alone_has_the_defaults_its_provider_gives() {
    let text = "[providers.a]\nkind = \"sendgrid\"";
    let ours = load(text, &[]).unwrap().providers["a"].account();
    let theirs: dispatch_workers::providers::AccountSettings = toml::from_str("kind = \"sendgrid\"").unwrap();
    assert_eq!(format!("{ours:?}"), format!("{theirs:?}"));
}

#[test]
fn the_production_settings_load() {
    let settings = load(include_str!("../../../config/production.toml"), &[]).unwrap();
    assert_eq!(settings.route(dispatch_schemas::states::Channel::Sms), Some("infobip_main"));
}

#[test]
fn an_unknown_setting_is_named_with_its_line_and_the_nearest_known_one() {
    assert_problem("[ledger]\nulr = \"sqlite:a.db\"\n", "ledger.ulr", 2, "did you mean `ledger.url`?");
    assert_problem("\n[ledgr]\nurl = \"sqlite:a.db\"\n", "ledgr", 2, "did you mean `ledger`?");
    assert_problem("[timing]\nretry_maximum_ms = 5\n", "timing.retry_maximum_ms", 2, "`timing.retry_max_ms`");
    assert_problem(
        "[providers.a]\nkind = \"sendgrid\"\nlimits = { per_secnd = 5 }\n",
        "providers.a.limits.per_secnd",
        3,
        "`providers.a.limits.per_second`",
    );
}

#[test]
fn a_setting_in_the_wrong_table_is_sent_to_the_right_one() {
    assert_problem("[queue]\nattempts_max = 3\n", "queue.attempts_max", 2, "did you mean `workers.attempts_max`?");
    assert_problem("[queue]\nsomething_else = 3\n", "queue.something_else", 2, "there are: url, password_file");
}

#[test]
fn a_value_of_the_wrong_kind_says_what_is_wanted_and_never_the_value() {
    assert_problem("[workers]\nemail_runs = \"canary\"\n", "workers.email_runs", 2, "wanted: a whole number");
    assert_problem("[workers]\nattempts_max = 256\n", "workers.attempts_max", 2, "from 0 to 255");
    assert_problem("[workers]\nattempts_max = 1.5\n", "workers.attempts_max", 2, "a number with a fraction");
    assert_problem("[workers]\nemail_runs = -1\n", "workers.email_runs", 2, "0 or more");
    assert_problem("[ledger]\nurl = 5\n", "ledger.url", 2, "wanted: a text in quotes");
    assert_problem("ledger = \"canary\"\n", "ledger", 1, "wanted: a table, as in [ledger]");
    assert_problem("[api]\nlisten = \"canary\"\n", "api.listen", 2, "an IP address and a port");
    assert_problem("[logging]\nformat = \"jsn\"\n", "logging.format", 2, "did you mean \"json\"?");
    assert_problem("[providers.a]\nurl = \"https://x.example\"\n", "providers.a.kind", 1, "it is missing");
}

#[test]
fn a_value_out_of_range_names_the_range() {
    assert_problem("[queue]\nwindow_max = 60000\n", "queue.window_max", 2, "wanted: 1 to 50000");
    assert_problem("[queue]\ncapacity = 40000\n", "queue.capacity", 2, "at least `queue.window_max`");
    assert_problem("[workers]\nattempts_max = 0\n", "workers.attempts_max", 2, "wanted: 1 to 100");
    assert_problem("[timing]\nretry_first_ms = 900001\n", "timing.retry_first_ms", 2, "`timing.retry_max_ms`");
    assert_problem("[logging]\nfilter = \"a=b=c\"\n", "logging.filter", 2, "wanted: a level");
    assert_problem("[limits.countries.France]\nper_day = 5\n", "limits.countries.France", 1, "two capital letters");
    assert_problem("[limits.domains.Gmail]\nper_day = 5\n", "limits.domains.Gmail", 1, "a domain as in DNS");
    assert_problem("[providers.Main]\nkind = \"brevo\"\n", "providers.Main", 1, "a name of at most 40");
    assert_problem("[providers.a]\nkind = \"sendgird\"\n", "providers.a.kind", 2, "did you mean \"sendgrid\"?");
}

#[test]
fn every_problem_that_can_be_found_is_reported_at_once() {
    let found = problems(
        "[ledger]\nulr = \"x\"\n[queue]\nwindow_max = 60000\n",
        &[("DISPATCH_WORKERS__SMS_RUNS", "0"), ("DISPATCH_WORKERS__RUNS", "0")],
    );
    let keys: BTreeSet<&str> = found.iter().map(|problem| problem.key.as_str()).collect();
    assert_eq!(keys, BTreeSet::from(["ledger.ulr", "queue.window_max", "workers.runs", "workers.sms_runs"]));
}

#[test]
fn an_answer_timeout_beyond_the_protocols_is_refused() {
    let account = "[providers.a]\nkind = \"brevo\"\nanswer_timeout_s = 31\n";
    assert_problem(account, "providers.a.answer_timeout_s", 3, "`timing.answer_timeout_ms`, which is 30000 ms");
    load(&format!("[timing]\nanswer_timeout_ms = 31000\n{account}"), &[]).unwrap();
}

#[test]
fn a_server_whose_certificate_is_not_checked_is_refused_and_its_password_not_repeated() {
    let error = load("[ledger]\nurl = \"postgres://me:canary@db/dispatch\"\n", &[]).unwrap_err().to_string();
    assert!(error.contains("`ledger.url`") && error.contains("sslmode=verify-full"), "{error}");
    assert!(!error.contains("canary"), "{error}");
}

#[test]
fn broken_toml_is_reported_with_its_line() {
    let error = load("[ledger]\nurl = \"sqlite:a.db\nkey_file = \"b\"\n", &[]).unwrap_err();
    assert!(matches!(error, SettingsError::Syntax { place: Place::Line { line: 2, .. }, .. }), "{error}");
    let twice = load("[providers.a]\nkind = \"brevo\"\n[providers.a]\nkind = \"smtp\"\n", &[]).unwrap_err();
    assert!(matches!(twice, SettingsError::Syntax { place: Place::Line { line: 3, .. }, .. }), "{twice}");
}

#[test]
fn a_settings_file_that_was_named_must_be_there() {
    let error = Settings::load(Some(Path::new("/nonexistent/dispatch.toml")), std::iter::empty()).unwrap_err();
    assert!(matches!(error, SettingsError::Read { .. }), "{error}");
}

#[test]
fn a_variable_overrides_the_file_and_reads_as_what_is_wanted() {
    let settings = load(
        "[ledger]\nurl = \"sqlite:a.db\"\n[workers]\nemail_runs = 2\n",
        &[
            ("DISPATCH_LEDGER__URL", "sqlite:b.db"),
            ("DISPATCH_WORKERS__EMAIL_RUNS", "3"),
            ("DISPATCH_API__LISTEN", "[::1]:80"),
            ("DISPATCH_LOGGING__FORMAT", "json"),
            ("DISPATCH_LIMITS__COUNTRIES__FR__PER_SECOND", "7"),
            ("DISPATCH_TIMING__RETRY_MAX_MS", ""),
            ("DISPATCH_LOG", "debug"),
            ("HOME", "/root"),
        ],
    )
    .unwrap();
    assert_eq!(settings.ledger.url.file(), Some(Path::new("b.db")));
    assert_eq!(settings.workers.email_runs, 3);
    assert_eq!(settings.api.listen.port(), 80);
    assert_eq!(settings.logging, LoggingSettings { format: LogFormat::Json, filter: "debug".into() });
    assert_eq!(settings.limits.countries["FR"].per_second, Some(7));
    assert_eq!(settings.timing, Timing::default(), "an empty variable counts as not set");
    assert!(settings.source.variables.contains(&"DISPATCH_LEDGER__URL".to_owned()));
    assert!(!settings.print_masked().unwrap().contains("HOME"));
}

#[test]
fn a_wrong_variable_is_named() {
    for (name, value, says) in [
        ("DISPATCH_LEDGER__ULR", "sqlite:b.db", "did you mean DISPATCH_LEDGER__URL?"),
        ("DISPATCH_LEDGR__URL", "sqlite:b.db", "did you mean DISPATCH_LEDGER__URL?"),
        ("DISPATCH_LEDGR__ULR", "sqlite:b.db", "did you mean DISPATCH_LEDGER__URL?"),
        ("DISPATCH_PROVIDER__MAIN__KEY", "x", "did you mean DISPATCH_PROVIDERS__MAIN__KEY?"),
        ("DISPATCH_LEDGER__LISTEN", "x", "did you mean DISPATCH_API__LISTEN?"),
        ("DISPATCH_API__LISTEN", "localhost:80", "localhost is 127.0.0.1"),
        ("DISPATCH_WORKERS__EMAIL_RUNS", "many", "wanted: a whole number"),
        ("DISPATCH_LEDGER_URL", "sqlite:b.db", "did you mean DISPATCH_LEDGER__URL"),
        ("DISPATCH_QUEUE__", "5", "no such setting"),
    ] {
        let error = load("", &[(name, value)]).unwrap_err().to_string();
        assert!(error.contains(name) && error.contains(says), "{error}");
    }
}

#[test]
fn a_variable_of_someone_else_is_left_alone() {
    load("", &[("DISPATCH_PORT", "tcp://10.0.0.1:8025"), ("DISPATCH_SERVICE_HOST", "10.0.0.1")]).unwrap();
}

#[test]
fn a_key_comes_from_its_variable_before_its_file() {
    let text = "[providers.main]\nkind = \"sendgrid\"\nkey_file = \"/nonexistent\"\n";
    let settings = load(text, &[("DISPATCH_PROVIDERS__MAIN__KEY", "SG.canary")]).unwrap();
    let secret = settings.providers["main"].secret("main").unwrap();
    assert_eq!(secret.expose_secret(), "SG.canary");
    let without = load(text, &[]).unwrap();
    assert!(matches!(without.providers["main"].secret("main"), Err(AccountSecretError::File(_))));
}

#[test]
fn a_missing_key_names_its_variable_and_a_relay_without_user_needs_none() {
    let text = "[providers.main]\nkind = \"sendgrid\"\n[providers.relay]\nkind = \"smtp\"\nurl = \"smtp://localhost:25\"\n[routes]\nemail = \"main\"\n";
    let settings = load(text, &[]).unwrap();
    let error = settings.providers["main"].secret("main").unwrap_err().to_string();
    assert!(error.contains("DISPATCH_PROVIDERS__MAIN__KEY"), "{error}");
    assert_eq!(settings.providers["relay"].secret("relay").unwrap().expose_secret(), "");
}

#[test]
fn no_secret_is_ever_shown() {
    let text = "[providers.main]\nkind = \"sendgrid\"\n";
    let settings = load(text, &[("DISPATCH_PROVIDERS__MAIN__KEY", "canary-7f3a")]).unwrap();
    let printed = settings.print_masked().unwrap();
    assert!(printed.contains("key = \"***\""), "{printed}");
    for shown in [printed, format!("{settings:?}"), format!("{:?}", settings.check())] {
        assert!(!shown.contains("canary"), "{shown}");
    }

    for text in [
        "[providers.main]\nkind = \"sendgrid\"\nkey = \"canary-7f3a\"\n",
        "[providers.main]\nkind = \"canary-7f3a\"\n",
        "[providers.main]\nkind = \"smtp\"\nurl = \"smtp://me:canary-7f3a@relay.example:25\"\n",
        "[api]\nlisten = \"canary-7f3a:8025\"\n",
        "[routes]\nemail = \"canary-7f3a\"\n",
    ] {
        let error = load(text, &[]).unwrap_err();
        assert!(!format!("{error} {error:?}").contains("canary"), "{error}");
    }
}

#[test]
fn a_key_in_the_settings_file_is_refused_with_the_way_out() {
    let text = "[providers.main]\nkind = \"sendgrid\"\nkey = \"SG.x\"\n";
    assert_problem(text, "providers.main.key", 3, "DISPATCH_PROVIDERS__MAIN__KEY");
}

#[cfg(unix)]
#[test]
fn a_check_finds_key_files_that_others_can_read() {
    use std::os::unix::fs::PermissionsExt as _;
    let key = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(key.path(), "SG.canary\n").unwrap();
    std::fs::set_permissions(key.path(), std::fs::Permissions::from_mode(0o644)).unwrap();
    let text = format!("[providers.main]\nkind = \"sendgrid\"\nkey_file = {:?}\n", key.path());
    let found = load(&text, &[]).unwrap().check();
    let problem = found.iter().find(|problem| problem.key == "providers.main.key_file").unwrap();
    assert!(problem.message.contains("chmod 600") && !problem.message.contains("canary"), "{problem}");
}

#[test]
fn the_only_account_of_a_channel_serves_it_and_of_several_one_must_be_named() {
    use dispatch_schemas::states::Channel;
    let one = "[providers.a]\nkind = \"brevo\"\n[providers.texts]\nkind = \"infobip\"\n";
    let settings = load(one, &[]).unwrap();
    assert_eq!((settings.route(Channel::Email), settings.route(Channel::Sms)), (Some("a"), Some("texts")));

    let two = format!("{one}[providers.b]\nkind = \"sendgrid\"\n");
    let found = problems(&two, &[]);
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].key == "routes.email" && found[0].message.contains("a, b"), "{found:?}");
    let named = load(&format!("{two}[routes]\nemail = \"b\"\n"), &[]).unwrap();
    assert_eq!(named.route(Channel::Email), Some("b"));

    assert_problem(&format!("{one}[routes]\nsms = \"a\"\n"), "routes.sms", 6, "one of texts");
}

#[test]
fn a_broker_is_set_by_file_or_variable_and_its_password_never_in_the_file() {
    assert!(load("[queue]\nurl = \"\"\n", &[]).unwrap().queue.url.is_none());
    let settings = load(
        "[queue]\nurl = \"amqps://dispatch@rabbit.example.com/dispatch\"\n",
        &[("DISPATCH_QUEUE__PASSWORD", "canary-9")],
    )
    .unwrap();
    assert_eq!(settings.queue.url.as_ref().unwrap().host(), "rabbit.example.com");
    assert_eq!(settings.queue.password().unwrap().unwrap().expose_secret(), "canary-9");
    assert!(!format!("{settings:?} {}", settings.print_masked().unwrap()).contains("canary"));
    let with = load("", &[("DISPATCH_QUEUE__URL", "amqps://me:canary-8@rabbit.example.com")]).unwrap();
    assert_eq!(with.queue.password().unwrap().unwrap().expose_secret(), "canary-8");
    assert!(!format!("{with:?} {}", with.print_masked().unwrap()).contains("canary"));
    assert_problem("[queue]\npassword = \"canary\"\n", "queue.password", 2, "queue.password_file");
    assert_problem("[queue]\nurl = \"amqps://me:canary@x.example\"\n", "queue.url", 2, "queue.password_file");
    assert_problem("[queue]\nurl = \"amqp://rabbit.example.com\"\n", "queue.url", 2, "wanted: amqps://");
}
