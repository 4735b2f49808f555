//! `dispatch config check` and `dispatch config print`.

use std::io::{self, Write};

use clap::Subcommand;

use super::{error::CliError, output::Output, settings_file::SettingsArgs};
use crate::{
    engine::check_ledger,
    settings::{Problem, Settings},
};

const EXAMPLE: &str = "\
Examples:
  dispatch config check --config config/production.toml
  dispatch config print";

/// What `dispatch config` takes.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLE)]
pub struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Say where the settings come from and whether this machine can work with them
    Check(SettingsArgs),
    /// Print the settings in force as TOML, secrets masked
    Print(SettingsArgs),
}

/// Runs `dispatch config`.
///
/// # Errors
/// When the settings cannot be read, or the check found something.
pub async fn run(args: Args, out: &mut Output) -> Result<(), CliError> {
    match args.action {
        Action::Check(file) => match check(&file.load()?, &mut out.writer()).await?.len() {
            0 => Ok(()),
            1 => Err(CliError::Usage("the settings have a problem, see above".to_owned())),
            problems => Err(CliError::Usage(format!("the settings have {problems} problems, see above"))),
        },
        Action::Print(file) => Ok(print(&file.load()?, &mut out.writer())?),
    }
}

/// Says where the settings came from and what the machine makes of them: ledger, key files, accounts. Returns the
/// problems; the command succeeds when there are none. Changes nothing; an engine may be running.
///
/// # Errors
/// When `out` cannot be written.
pub async fn check(settings: &Settings, out: &mut (impl Write + Send)) -> io::Result<Vec<Problem>> {
    match &settings.source.file {
        Some(file) => writeln!(out, "Settings from {}.", file.display())?,
        None => writeln!(out, "No settings file; the defaults are in force.")?,
    }
    if !settings.source.variables.is_empty() {
        writeln!(out, "Overridden by {}.", settings.source.variables.join(", "))?;
    }
    let mut problems = check_ledger(settings).await;
    problems.extend(settings.check());
    for problem in &problems {
        writeln!(out, "{problem}")?;
    }
    if problems.is_empty() {
        let accounts = settings.providers.len();
        writeln!(out, "All is well: {accounts} provider {}.", if accounts == 1 { "account" } else { "accounts" })?;
    }
    Ok(problems)
}

/// Prints the settings in force as TOML, secrets as `***`.
///
/// # Errors
/// When `out` cannot be written.
pub fn print(settings: &Settings, out: &mut impl Write) -> io::Result<()> {
    out.write_all(settings.print_masked().map_err(io::Error::other)?.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The defaults, but not with the ledger of whoever runs this.
    fn defaults(folder: &std::path::Path) -> Settings {
        let mut settings = Settings::default();
        settings.ledger.url = crate::settings::LedgerUrl::sqlite(folder.join("dispatch.db"));
        settings.ledger.key_file = folder.join("dispatch.key");
        settings
    }

    #[tokio::test]
    async fn the_defaults_are_well_and_print_as_settings_again() {
        let mut out = Vec::new();
        let folder = tempfile::tempdir().unwrap();
        let settings = defaults(folder.path());
        assert!(check(&settings, &mut out).await.unwrap().is_empty());
        assert!(String::from_utf8(out).unwrap().ends_with("All is well: 0 provider accounts.\n"));

        let mut printed = Vec::new();
        print(&settings, &mut printed).unwrap();
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), &printed).unwrap();
        let again = Settings::load(Some(file.path()), std::iter::empty()).unwrap();
        assert_eq!(again.ledger.key_file, settings.ledger.key_file);
    }

    #[tokio::test]
    async fn problems_are_printed_and_returned() {
        let mut out = Vec::new();
        let account = "kind = \"sendgrid\"";
        let settings = Settings {
            providers: [("main".to_owned(), toml::from_str(account).unwrap())].into(),
            ..defaults(std::path::Path::new("/nonexistent"))
        };
        let problems = check(&settings, &mut out).await.unwrap();
        let keys: Vec<&str> = problems.iter().map(|problem| problem.key.as_str()).collect();
        assert_eq!(keys, ["ledger.url", "providers.main.key_file"]);
        let printed = String::from_utf8(out).unwrap();
        assert!(printed.contains("DISPATCH_PROVIDERS__MAIN__KEY"), "{printed}");
        assert!(printed.contains("the folder /nonexistent of the ledger"), "{printed}");
    }
}
