//! Opening the file: what is refused, with which words, and that nothing is changed then.

use std::{path::Path, sync::Arc};

use dispatch_engine::ledger::{
    Campaigns as _, Gates as _, Ledger as _, LedgerError, Tenants as _, sqlite::SqliteLedger,
};
use dispatch_schemas::{
    api::limits::Windows,
    states::{CampaignState, Channel, StopReason},
};
use dispatch_workers::{clock::SystemEntropy, sealing::MasterKey};
use futures_util::FutureExt as _;
use sqlx::{Connection as _, SqliteConnection, sqlite::SqliteConnectOptions};

use crate::{Folder, InFolders, suite::world::World};

async fn open(file: &Path, master: &MasterKey) -> Result<SqliteLedger, LedgerError> {
    let clock = Arc::new(dispatch_workers::clock::SystemClock::new());
    SqliteLedger::open(file, master.clone(), clock, Arc::new(SystemEntropy::default())).await
}

fn new_key() -> MasterKey {
    MasterKey::generate(&SystemEntropy::default())
}

/// The words of a refusal to open.
fn told(refused: Result<SqliteLedger, LedgerError>) -> String {
    match refused {
        Err(LedgerError::Open(told)) => told,
        Err(in_use @ LedgerError::InUse(_)) => in_use.to_string(),
        Err(other) => panic!("not a refusal to open: {other}"),
        Ok(_) => panic!("it was opened"),
    }
}

/// Changes a file past the ledger.
async fn change(file: &Path, sql: &'static str) {
    let options = SqliteConnectOptions::new().filename(file).create_if_missing(true);
    let mut conn = SqliteConnection::connect_with(&options).await.unwrap();
    sqlx::raw_sql(sql).execute(&mut conn).await.unwrap();
    conn.close().await.unwrap();
}

/// Opens a ledger once, so that there is one.
async fn made(folder: &Folder, master: &MasterKey) {
    open(&folder.file(), master).await.unwrap().close().await;
}

#[tokio::test]
async fn a_second_process_is_kept_out() {
    let (folder, master) = (Folder::new(), new_key());
    let first = open(&folder.file(), &master).await.unwrap();
    let told = told(open(&folder.file(), &master).await);
    assert!(told.contains("is open in another process; stop that one first"), "{told}");
    assert!(told.contains(&folder.file().display().to_string()));
    first.close().await;
    open(&folder.file(), &master).await.unwrap();
}

#[tokio::test]
async fn a_closed_ledger_is_whole_in_its_file_alone() {
    let world = World::new(&InFolders).await;
    let sending = world.running_to_crowd(20).await;
    let opted_out = world.ledger.tenant_keys(world.tenant).await.unwrap().address_hash(Channel::Email, "anna@shop.eu");
    world.ledger.close_gates(world.tenant, Channel::Email, &[opted_out], StopReason::Unsubscribed).await.unwrap();
    world.ledger.close().await;
    let log = format!("{}-wal", world.place.whereabouts().display());
    assert!(std::fs::metadata(&log).map_or(0, |log| log.len()) == 0, "the log is gone or empty");
    let refused = world.ledger.check().await.unwrap_err();
    assert!(matches!(&refused, LedgerError::Unavailable(why) if why.contains("closed")), "{refused}");
    // Once is enough.
    world.ledger.close().await;

    let copy = Folder::new();
    std::fs::copy(world.place.whereabouts(), copy.file()).unwrap();
    let ledger = open(&copy.file(), &world.master).await.unwrap();
    let progress = ledger.progress(world.tenant, sending.id).await.unwrap();
    assert_eq!((progress.state, progress.audience), (CampaignState::Running, 20));
    let closed = ledger.suppressions(world.tenant, None, 10).await.unwrap();
    assert_eq!(closed.len(), 1);
    assert_eq!(closed[0].reason, StopReason::Unsubscribed);
}

#[tokio::test]
async fn a_ledger_that_is_dropped_keeps_its_lock_until_it_has_written() {
    const WRITES: u32 = 500;
    let (folder, master) = (Folder::new(), new_key());
    let ledger = open(&folder.file(), &master).await.unwrap();
    let tenant = ledger.tenant("shop").await.unwrap().id;
    let limits = |per_second| Windows { per_second: Some(per_second), ..Windows::default() };
    for number in 1..=WRITES {
        // Handed to the writer, without a rest in which it could work; nobody waits for the answer.
        let written = tokio::task::unconstrained(ledger.set_tenant_limits(tenant, limits(number))).now_or_never();
        assert!(written.is_none(), "nothing was written while nobody waited");
    }
    drop(ledger);
    let reopened = loop {
        match open(&folder.file(), &master).await {
            Ok(ledger) => break ledger,
            Err(LedgerError::InUse(_)) => tokio::task::yield_now().await,
            Err(error) => panic!("{error}"),
        }
    };
    assert_eq!(reopened.tenant_limits(tenant).await.unwrap(), limits(WRITES));
}

#[tokio::test]
async fn another_key_is_refused() {
    let (folder, master) = (Folder::new(), new_key());
    made(&folder, &master).await;
    let told = told(open(&folder.file(), &new_key()).await);
    assert!(told.contains("the key file does not belong to the ledger"), "{told}");
    open(&folder.file(), &master).await.unwrap();
}

#[tokio::test]
async fn a_database_of_another_program_is_left_as_it_was() {
    let folder = Folder::new();
    change(&folder.file(), "CREATE TABLE invoice (id INTEGER PRIMARY KEY); INSERT INTO invoice VALUES (7)").await;
    let before = std::fs::read(folder.file()).unwrap();
    let told = told(open(&folder.file(), &new_key()).await);
    assert!(told.contains("is a database of another program"), "{told}");
    assert!(std::fs::read(folder.file()).unwrap() == before, "not a byte was changed");
}

#[tokio::test]
async fn a_file_that_is_no_database_is_left_as_it_was() {
    let folder = Folder::new();
    let text = "email,phone\n".repeat(500);
    std::fs::write(folder.file(), &text).unwrap();
    let told = told(open(&folder.file(), &new_key()).await);
    assert!(told.contains("not a database"), "{told}");
    assert_eq!(std::fs::read_to_string(folder.file()).unwrap(), text);
}

#[tokio::test]
async fn a_missing_table_is_named() {
    let (folder, master) = (Folder::new(), new_key());
    made(&folder, &master).await;
    change(&folder.file(), "DROP TABLE gate").await;
    let told = told(open(&folder.file(), &master).await);
    assert!(told.contains("its gate is missing; restore the file from a backup"), "{told}");
}

#[tokio::test]
async fn a_newer_schema_is_refused() {
    let (folder, master) = (Folder::new(), new_key());
    made(&folder, &master).await;
    change(
        &folder.file(),
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
         VALUES (9999, 'from the future', 1, x'00', 0)",
    )
    .await;
    let told = told(open(&folder.file(), &master).await);
    assert!(told.contains("was made by a newer version of Dispatch (it has schema 9999)"), "{told}");
}

#[tokio::test]
async fn a_folder_that_is_not_there_is_named() {
    let folder = Folder::new();
    let deeper = folder.file().join("deeper");
    let told = told(open(&deeper.join("ledger.db"), &new_key()).await);
    let says = format!("does not exist; make it (mkdir -p -m 700 {})", deeper.display());
    assert!(told.contains(&says), "{told}");
}

#[tokio::test]
async fn a_folder_is_no_ledger() {
    let folder = Folder::new();
    std::fs::create_dir(folder.file()).unwrap();
    let told = told(open(&folder.file(), &new_key()).await);
    assert!(told.contains("is a folder; ledger.url names a file, such as"), "{told}");
}

#[tokio::test]
async fn what_was_answered_is_there_after_a_kill() {
    let world = World::new(&InFolders).await;
    let sending = world.running_to_crowd(20).await;
    let attempt = sending.claim_all(&[0, 1, 2]).await;
    sending.record_all(attempt, &[0], &crate::suite::sending::accepted()).await;
    // What a killed process leaves: the file and its log, as they are at this moment.
    let (from, to) = (world.place.whereabouts(), Folder::new());
    for ending in ["", "-wal"] {
        let name = |file: &Path| format!("{}{ending}", file.display());
        std::fs::copy(name(&from), name(&to.file())).unwrap();
    }
    let ledger = open(&to.file(), &world.master).await.unwrap();
    let progress = dispatch_engine::ledger::Campaigns::progress(&ledger, world.tenant, sending.id).await.unwrap();
    assert_eq!((progress.states["accepted"], progress.states["claimed"], progress.states["ready"]), (1, 2, 17));
}
