//! Opening a ledger for the first time, and with what does not belong to it.

use super::*;

fn settings(folder: &Path) -> Settings {
    let mut settings = Settings::default();
    settings.ledger.url = crate::settings::LedgerUrl::sqlite(folder.join("ledger.db"));
    settings.ledger.key_file = folder.join("ledger.key");
    settings
}

async fn made(settings: &Settings) {
    open_ledger(settings).await.unwrap().ledger.close().await;
}

async fn checked(settings: &Settings) -> Vec<String> {
    check_ledger(settings).await.iter().map(ToString::to_string).collect()
}

#[tokio::test]
async fn the_first_start_makes_a_key_and_the_next_one_uses_it() {
    let folder = tempfile::tempdir().unwrap();
    let settings = settings(folder.path());
    assert!(checked(&settings).await.is_empty());
    let opened = open_ledger(&settings).await.unwrap();
    assert!(opened.made_key);
    assert!(checked(&settings).await.is_empty(), "while it is open");
    opened.ledger.close().await;
    assert!(!open_ledger(&settings).await.unwrap().made_key);
}

#[tokio::test]
async fn a_ledger_whose_key_file_is_gone_is_refused_and_no_new_key_is_made() {
    let folder = tempfile::tempdir().unwrap();
    let settings = settings(folder.path());
    made(&settings).await;
    std::fs::remove_file(&settings.ledger.key_file).unwrap();
    let refused = open_ledger(&settings).await.unwrap_err();
    assert!(matches!(refused, StartError::KeyMissing { .. }), "{refused}");
    assert!(!settings.ledger.key_file.exists());
    assert_eq!(checked(&settings).await, [format!("`ledger.key_file`: {refused}")]);
}

#[tokio::test]
async fn another_ledgers_key_is_found_by_the_check_as_by_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let mut settings = settings(folder.path());
    made(&settings).await;
    settings.ledger.key_file = folder.path().join("other.key");
    MasterKey::generate(&SystemEntropy::default()).write_new(&settings.ledger.key_file).unwrap();
    let refused = open_ledger(&settings).await.unwrap_err();
    assert!(refused.to_string().contains("does not belong to the ledger"), "{refused}");
    assert_eq!(checked(&settings).await, [format!("`ledger.key_file`: {refused}")]);
}

#[tokio::test]
async fn a_ledger_where_none_can_be_is_refused_with_the_way_out_and_leaves_no_key() {
    let folder = tempfile::tempdir().unwrap();
    let mut settings = settings(folder.path());
    let not_there = folder.path().join("var/lib");
    std::fs::write(folder.path().join("text.db"), "email,phone\n".repeat(500)).unwrap();
    for (file, says) in [
        (not_there.join("ledger.db"), format!("mkdir -p -m 700 {}", not_there.display())),
        (folder.path().to_owned(), "is a folder; ledger.url names a file".to_owned()),
        (folder.path().join("text.db"), "not a database".to_owned()),
    ] {
        settings.ledger.url = crate::settings::LedgerUrl::sqlite(file);
        let refused = open_ledger(&settings).await.unwrap_err();
        assert!(refused.to_string().contains(&says), "{refused}");
        assert!(!settings.ledger.key_file.exists(), "{refused}");
        assert_eq!(checked(&settings).await, [format!("`ledger.url`: {refused}")]);
    }
}

#[tokio::test]
async fn a_key_that_has_no_folder_is_refused_before_there_is_a_ledger() {
    let folder = tempfile::tempdir().unwrap();
    let mut settings = settings(folder.path());
    settings.ledger.key_file = folder.path().join("keys/ledger.key");
    let refused = open_ledger(&settings).await.unwrap_err();
    assert!(matches!(refused, StartError::KeyFolder { .. }), "{refused}");
    assert!(!settings.ledger.url.file().unwrap().exists());
    assert_eq!(checked(&settings).await, [format!("`ledger.key_file`: {refused}")]);
}
