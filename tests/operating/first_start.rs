//! The first start over a server: the ledger's key is made once and not lost.

use dispatch_engine::{engine::open_ledger, settings::Settings};
use dispatch_tests::support::fault_proxy::{FaultProxy, Network};

use crate::{database::Database, dispatch};

#[tokio::test]
async fn a_first_start_that_was_cut_off_keeps_its_key_for_the_next() {
    let database = Database::new().await;
    assert!(dispatch(&["migrate", "--ledger-url", &database.url()], &[]).await.status.success());
    let folder = tempfile::tempdir().unwrap();
    let server = format!("127.0.0.1:{}", database.port()).parse().unwrap();
    let proxy = FaultProxy::before(server).await;
    let url = database.changed_url(|url| url.set_port(Some(proxy.address().port())).unwrap());
    let mut settings = Settings::default();
    settings.ledger.url = url.parse().unwrap();
    settings.ledger.key_file = folder.path().join("dispatch.key");

    // Whether the ledger took the key is not known then.
    proxy.set(Network::LosesAnswersTo(b"INSERT INTO ledger"));
    open_ledger(&settings).await.unwrap_err();
    let key = std::fs::read(&settings.ledger.key_file).expect("a key that may be the ledger's stays");

    proxy.set(Network::Works);
    let opened = open_ledger(&settings).await.unwrap();
    assert!(!opened.made_key);
    opened.ledger.close().await;
    assert_eq!(std::fs::read(&settings.ledger.key_file).unwrap(), key);
}

#[tokio::test]
async fn a_key_made_beside_another_ones_is_refused_and_the_ledgers_own_still_opens_it() {
    let database = Database::new().await;
    assert!(dispatch(&["migrate", "--ledger-url", &database.url()], &[]).await.status.success());
    let folder = tempfile::tempdir().unwrap();
    let settings = |key: &str| {
        let mut settings = Settings::default();
        settings.ledger.url = database.url().parse().unwrap();
        settings.ledger.key_file = folder.path().join(key);
        settings
    };
    // Two machines start at once, each without a key: one of them makes the ledger's.
    let (one, other) = (settings("one.key"), settings("other.key"));
    let (first, second) = tokio::join!(open_ledger(&one), open_ledger(&other));
    let opened = [first, second].into_iter().filter_map(Result::ok).collect::<Vec<_>>();
    assert_eq!(opened.len(), 1, "one of them");
    opened[0].ledger.close().await;
    let kept: Vec<_> = [&one, &other].into_iter().filter(|settings| settings.ledger.key_file.exists()).collect();
    assert_eq!(kept.len(), 1, "the key that opens nothing is not left");
    open_ledger(kept[0]).await.unwrap().ledger.close().await;
}
