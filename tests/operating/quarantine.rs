//! A quarantine as an operator meets it.

use std::{path::Path, time::Duration};

use dispatch_engine::{engine::open_ledger, settings::Settings};
use dispatch_tests::support::{engine_process::EngineProcess, wait};

use crate::{dispatch_in, said};

/// How long anything may take.
const WITHIN: Duration = Duration::from_secs(30);

/// A ledger that has begun a quarantine, in a folder with its settings, and a second place that cannot be read.
async fn held() -> (tempfile::TempDir, std::path::PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    std::fs::create_dir(folder.path().join("second")).unwrap();
    let text = format!(
        "[ledger]\nurl = {:?}\nkey_file = {:?}\nsecond_place_folder = {:?}\n",
        format!("sqlite:{}", path("dispatch.db")),
        path("dispatch.key"),
        path("second"),
    );
    std::fs::write(folder.path().join("dispatch.toml"), text).unwrap();
    let settings = Settings::load(Some(&folder.path().join("dispatch.toml")), std::iter::empty()).unwrap();
    let opened = open_ledger(&settings).await.unwrap();
    opened.ledger.enter_quarantine("the test says so").await.unwrap();
    let fingerprint: String = opened.master.fingerprint().iter().map(|byte| format!("{byte:02x}")).collect();
    opened.ledger.close().await;
    // Nobody can tell what was noted while this stands where notes are.
    let in_the_way = folder.path().join("second").join(format!("{fingerprint}-0.notes"));
    std::fs::create_dir(&in_the_way).unwrap();
    (folder, in_the_way)
}

async fn asked(engine: &EngineProcess, path: &str) -> (u16, String) {
    let answer = reqwest::get(engine.url(path)).await.unwrap();
    (answer.status().as_u16(), answer.text().await.unwrap())
}

fn start(folder: &Path) -> EngineProcess {
    EngineProcess::start(&folder.join("dispatch.toml"), None)
}

#[tokio::test]
async fn a_quarantine_says_why_everywhere_and_ends_by_itself() {
    let (folder, in_the_way) = held().await;
    let examined = said(&dispatch_in(folder.path(), &["doctor", "--offline"], &[]).await);
    assert!(examined.contains("fail  ledger.quarantine: nothing is sent: the test says so"), "{examined}");
    assert!(examined.contains("dispatch unquarantine --accept-duplicates"), "{examined}");

    let engine = start(folder.path());
    engine.ready().await;
    let (status, ready) = asked(&engine, "/readyz").await;
    let line = ready.lines().find(|line| line.starts_with("quarantine: degraded: ")).expect("it says so");
    assert!(status == 200 && line.contains("nothing is sent: the test says so"), "{ready}");
    let metrics = asked(&engine, "/metrics").await.1;
    assert!(metrics.contains("\ndispatch_quarantine 1\n"), "{metrics}");

    std::fs::remove_dir(in_the_way).unwrap();
    wait::until("the quarantine is over", WITHIN, async || {
        (!asked(&engine, "/readyz").await.1.contains("quarantine")).then_some(())
    })
    .await;
    assert!(asked(&engine, "/metrics").await.1.contains("\ndispatch_quarantine 0\n"));
    assert!(engine.terminate().success());
    let examined = said(&dispatch_in(folder.path(), &["doctor", "--offline"], &[]).await);
    assert!(examined.contains("ok    ledger.quarantine"), "{examined}");
}

#[tokio::test]
async fn an_operator_ends_a_quarantine_by_accepting_duplicates_and_not_otherwise() {
    let (folder, in_the_way) = held().await;
    let run = async |line: &[&str]| dispatch_in(folder.path(), line, &[("USER", "anna")]).await;
    assert_eq!(run(&["unquarantine"]).await.status.code(), Some(2));
    let closings_unknown = run(&["unquarantine", "--accept-duplicates"]).await;
    assert!(!closings_unknown.status.success(), "who opted out is not accepted: {}", said(&closings_unknown));
    std::fs::remove_dir(in_the_way).unwrap();
    let ended = run(&["unquarantine", "--accept-duplicates"]).await;
    assert!(ended.status.success() && said(&ended).contains("The quarantine is over (the test says so)"));
    let again = run(&["unquarantine", "--accept-duplicates", "--json"]).await;
    assert!(again.status.success() && said(&again).trim() == "null", "{}", said(&again));
}
