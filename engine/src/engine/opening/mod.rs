//! From the settings to an open ledger and its key.

use std::{net::SocketAddr, path::Path, sync::Arc};

use dispatch_workers::{
    clock::{Clock, Entropy, SystemClock, SystemEntropy, random},
    limits::LimitStore,
    sealing::{KeyFileError, MasterKey},
};
use sqlx::postgres::PgConnectOptions;

use super::LedgerClock;
use crate::{
    ledger::{
        Ledger, LedgerError,
        postgres::PostgresLedger,
        sqlite::{self, Found, LedgerLock, SqliteLedger},
    },
    second_place::{Place, SecondPlace, SecondPlaceError},
    segments::FolderError,
    settings::{BrokerSecretError, LedgerSettings, Problem, Settings},
};

/// Why the engine does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The ledger cannot be opened.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The master key cannot be read or made.
    #[error(transparent)]
    Key(#[from] KeyFileError),
    /// The ledger is there, its key is not.
    #[error(
        "the ledger {ledger} exists, but its key file {key_file} does not; put the key back or set ledger.key_file \
         (without that key its contacts cannot be read by anyone)"
    )]
    KeyMissing {
        /// The ledger.
        ledger: String,
        /// Where its key should be.
        key_file: String,
    },
    /// There is no key yet, and no folder to make it in.
    #[error(
        "the folder {folder} of the key file {key_file} does not exist; make it (mkdir -p -m 700 {folder}), or name \
         another file in ledger.key_file"
    )]
    KeyFolder {
        /// The folder.
        folder: String,
        /// The key file.
        key_file: String,
    },
    /// The scheduler's jobs would not reach the workers.
    #[error(
        "this process has the roles {roles}, so its jobs travel to other processes: name a RabbitMQ in queue.url, or \
         give it the roles scheduler and worker both"
    )]
    QueueNotShared {
        /// The roles.
        roles: String,
    },
    /// What the queue needs cannot be read.
    #[error(transparent)]
    Broker(#[from] BrokerSecretError),
    /// The folder of the journal or of the callbacks cannot be used.
    #[error("{setting}: {why}")]
    Folder {
        /// The setting that names it.
        setting: &'static str,
        /// What is wrong.
        why: FolderError,
    },
    /// Callbacks cannot be taken.
    #[error(
        "callbacks cannot be taken on {listen}: {why}; stop the program that has the port, or name another in \
         callbacks.listen"
    )]
    Callbacks {
        /// The address.
        listen: SocketAddr,
        /// Why not.
        why: std::io::ErrorKind,
    },
    /// The second place cannot be used.
    #[error(transparent)]
    SecondPlace(#[from] SecondPlaceError),
    /// A provider account cannot be used.
    #[error("the account `{name}` in [providers] cannot be used: {why}")]
    Account {
        /// Its name.
        name: String,
        /// What is wrong.
        why: String,
    },
}

/// An open ledger and what opens it.
#[derive(Clone)]
pub struct Opened {
    /// The ledger. Whoever is done with it closes it.
    pub ledger: Arc<dyn Ledger>,
    /// The key that opens everything in it.
    pub master: MasterKey,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub entropy: Arc<dyn Entropy>,
    /// Whether the key was made just now: somebody must be told where it is.
    pub made_key: bool,
    /// What processes that share it have in common.
    pub shared: Option<SharedLedger>,
}

/// What processes that share a ledger have in common.
#[derive(Clone)]
pub struct SharedLedger {
    /// Its clock, which all go by.
    pub clock: Arc<LedgerClock>,
    /// Where their limits are.
    pub limits: Arc<dyn LimitStore>,
}

impl std::fmt::Debug for Opened {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Opened")
    }
}

/// The ledger of the settings, found but not opened: nothing has been made or changed. A file is kept from other
/// processes.
#[derive(Debug)]
pub struct ClaimedLedger<'a> {
    settings: &'a Settings,
    place: ClaimedPlace,
}

#[derive(Debug)]
enum ClaimedPlace {
    File(LedgerLock),
    Server(Box<PgConnectOptions>),
}

/// Keeps other processes out of the ledger of the settings, if it is a file.
///
/// # Errors
/// When another process has it, or there can be none at that place.
pub fn claim_ledger(settings: &Settings) -> Result<ClaimedLedger<'_>, StartError> {
    let url = &settings.ledger.url;
    let place = match (url.file(), url.server()) {
        (_, Some(server)) => ClaimedPlace::Server(Box::new(server?)),
        (file, None) => ClaimedPlace::File(LedgerLock::take(file.unwrap_or_else(|| Path::new("")))?),
    };
    Ok(ClaimedLedger { settings, place })
}

/// Opens the ledger of the settings. A file and its key are made at the first start; a database must have been made
/// ready by `dispatch migrate`, its key is made by the first process that comes.
///
/// # Errors
/// [`StartError`] with what to do.
pub async fn open_ledger(settings: &Settings) -> Result<Opened, StartError> {
    claim_ledger(settings)?.open().await
}

impl ClaimedLedger<'_> {
    /// Opens it, making it and its key at the first start. Where that fails no key is left that opens nothing.
    ///
    /// # Errors
    /// [`StartError`] with what to do.
    pub async fn open(self) -> Result<Opened, StartError> {
        let settings = &self.settings.ledger;
        match self.place {
            ClaimedPlace::File(lock) => open_file(lock, settings).await,
            ClaimedPlace::Server(options) => open_server(*options, settings).await,
        }
    }

    /// Whether the same may be tried again: the ledger is a server that does not answer yet.
    #[must_use]
    pub const fn may_come(&self) -> bool {
        matches!(self.place, ClaimedPlace::Server(_))
    }
}

async fn open_file(lock: LedgerLock, settings: &LedgerSettings) -> Result<Opened, StartError> {
    let (ledger, key_file) = (lock.path().to_owned(), settings.key_file.as_path());
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let entropy: Arc<dyn Entropy> = Arc::new(SystemEntropy::default());
    let found = sqlite::look(&ledger).await?;
    let is_made = matches!(found, Found::Ledger(_));
    let (master, made_key) = master_key(is_made, &ledger.display().to_string(), key_file, entropy.as_ref())?;
    match SqliteLedger::open_locked(lock, master.clone(), clock.clone(), entropy.clone()).await {
        Ok(ledger) => {
            let ledger = match second_place(settings, &master, entropy.as_ref()) {
                Ok(second_place) => ledger.with_second_place(second_place),
                Err(error) => {
                    ledger.close().await;
                    return Err(error.into());
                }
            };
            Ok(Opened { ledger: Arc::new(ledger), master, clock, entropy, made_key, shared: None })
        }
        Err(error) => {
            let is_made = std::fs::metadata(&ledger).is_ok_and(|file| file.len() > 0);
            if made_key && !is_made {
                // One that stays behind is taken by the next start.
                let _ = std::fs::remove_file(key_file);
            }
            Err(error.into())
        }
    }
}

async fn open_server(options: PgConnectOptions, settings: &LedgerSettings) -> Result<Opened, StartError> {
    let (name, key_file) = (settings.url.to_string(), settings.key_file.as_path());
    let clock = Arc::new(LedgerClock::new());
    let entropy: Arc<dyn Entropy> = Arc::new(SystemEntropy::default());
    let is_made = PostgresLedger::key_of(&options).await?.is_some();
    let (master, made_key) = master_key(is_made, &name, key_file, entropy.as_ref())?;
    match PostgresLedger::open(options.clone(), master.clone(), clock.clone(), entropy.clone()).await {
        Ok(ledger) => {
            let ledger = Arc::new(ledger.with_second_place(second_place(settings, &master, entropy.as_ref())?));
            clock.ask(ledger.as_ref()).await?;
            let shared = Some(SharedLedger { clock: clock.clone(), limits: ledger.clone() });
            Ok(Opened { ledger, master, clock, entropy, made_key, shared })
        }
        Err(error) => {
            // Where the server went away the ledger may have taken the key: only one that lost to another process's
            // certainly opens nothing.
            let theirs = if made_key { PostgresLedger::key_of(&options).await.ok().flatten() } else { None };
            if theirs.is_some_and(|theirs| theirs != master.fingerprint()) {
                let _ = std::fs::remove_file(key_file);
            }
            Err(error.into())
        }
    }
}

/// The second place of the settings, for this process.
fn second_place(
    settings: &LedgerSettings,
    master: &MasterKey,
    entropy: &dyn Entropy,
) -> Result<SecondPlace, SecondPlaceError> {
    let Some(folder) = &settings.second_place_folder else { return Ok(SecondPlace::none()) };
    let (fingerprint, process) = (master.fingerprint(), random(entropy));
    SecondPlace::open(Place { folder, days: settings.second_place_days, fingerprint: &fingerprint, process })
}

fn master_key(
    is_made: bool,
    ledger: &str,
    key_file: &Path,
    entropy: &dyn Entropy,
) -> Result<(MasterKey, bool), StartError> {
    if key_file.exists() {
        return Ok((MasterKey::read(key_file)?, false));
    }
    refuse_key_place(is_made, ledger, key_file)?;
    let key = MasterKey::generate(entropy);
    match key.write_new(key_file) {
        Ok(()) => Ok((key, true)),
        // Another process of this machine was first.
        Err(KeyFileError::Io { source, .. }) if source.kind() == std::io::ErrorKind::AlreadyExists => {
            Ok((MasterKey::read(key_file)?, false))
        }
        Err(error) => Err(error.into()),
    }
}

/// Says why no key may or can be made.
fn refuse_key_place(is_made: bool, ledger: &str, key_file: &Path) -> Result<(), StartError> {
    if is_made {
        return Err(StartError::KeyMissing { ledger: ledger.to_owned(), key_file: key_file.display().to_string() });
    }
    match key_file.parent() {
        Some(folder) if !folder.as_os_str().is_empty() && !folder.is_dir() => Err(StartError::KeyFolder {
            folder: folder.display().to_string(),
            key_file: key_file.display().to_string(),
        }),
        _ => Ok(()),
    }
}

/// What [`open_ledger`] would refuse. Makes and changes nothing and takes no lock, so an engine may be running.
pub async fn check_ledger(settings: &Settings) -> Vec<Problem> {
    let url = &settings.ledger.url;
    let key_file = settings.ledger.key_file.as_path();
    let problem = |key: &str, message: String| Problem { key: key.to_owned(), place: None, message };
    let found = match (url.file(), url.server()) {
        (Some(file), _) => sqlite::look(file).await.map(|found| match found {
            Found::Ledger(key) => (true, key),
            Found::Nothing => (false, None),
        }),
        (None, Some(Ok(options))) => PostgresLedger::key_of(&options).await.map(|key| (key.is_some(), key)),
        (None, Some(Err(error))) => Err(error),
        (None, None) => Ok((false, None)),
    };
    let (is_made, key) = match found {
        Ok(found) => found,
        Err(error) => return vec![problem("ledger.url", error.to_string())],
    };
    let name = url.file().map_or_else(|| url.to_string(), |file| file.display().to_string());
    let refused = match MasterKey::read(key_file) {
        _ if !key_file.exists() => refuse_key_place(is_made, &name, key_file).err().map(|error| error.to_string()),
        Ok(master) if key.is_some_and(|theirs| theirs != master.fingerprint()) => {
            Some(sqlite::another_key(Path::new(&name)).to_string())
        }
        Err(error) => Some(error.to_string()),
        Ok(_) => None,
    };
    let no_folder = settings.ledger.second_place_folder.as_ref().filter(|folder| !folder.is_dir()).map(|folder| {
        problem(
            "ledger.second_place_folder",
            format!("{} is no folder; make it, apart from the ledger", folder.display()),
        )
    });
    refused.map(|message| problem("ledger.key_file", message)).into_iter().chain(no_folder).collect()
}

#[cfg(test)]
mod tests;
