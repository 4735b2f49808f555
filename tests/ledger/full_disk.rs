//! A ledger that finds no more room says so, loses nothing, and goes on by itself once there is room.

use std::process::Command;

use dispatch_engine::ledger::LedgerError;
use dispatch_schemas::states::DeliveryState;

use crate::{
    InFolders, own_process,
    suite::{
        people::email,
        sending::{accepted, to},
        world::World,
    },
};

/// The most bytes a file may have in the process of the test: above an empty ledger, below a large list.
const FILE_KIB: u32 = 1_024;

#[test]
fn a_full_disk_is_told_and_forgotten_when_there_is_room() {
    if own_process::is_own() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        return runtime.block_on(fill_and_make_room());
    }
    // A file at its limit fails to grow, as on a full disk; without the trap the kernel would end the process.
    let limit = format!("trap '' XFSZ; ulimit -S -f {}; ", FILE_KIB * 2);
    own_process::run("full_disk::a_full_disk_is_told_and_forgotten_when_there_is_room", &limit);
}

async fn fill_and_make_room() {
    let world = World::new(&InFolders).await;
    let sending = world.running_to_crowd(4).await;
    let attempt = sending.claim_all(&[0, 1]).await;
    let list = world.list("large").await;
    let mut upload = world.upload(list).await;
    let mut stored = 0;
    let refused = loop {
        assert!(stored < 100_000, "the limit of the process holds");
        let rows: Vec<_> = (stored..stored + 500).map(|number| email(format!("p{number}@x.eu"))).collect();
        match upload.try_store(&rows).await {
            Ok(counts) => {
                assert_eq!(counts.added, 500);
                stored += 500;
            }
            Err(refused) => break refused,
        }
    };
    let told = refused.to_string();
    assert!(matches!(refused, LedgerError::Unavailable(_)), "{told}");
    assert!(told.contains("the disk is full"), "{told}");
    assert_eq!(told.matches("the ledger cannot").count(), 1, "{told}");

    // Nothing more is claimed or recorded, and what was committed stands.
    let mut refused = 0;
    for _ in 0..50 {
        refused += usize::from(world.ledger.claim(&sending.claim_of(&[2], world.token())).await.is_err());
        refused += usize::from(
            upload.try_store(&(0..500).map(|n| email(format!("q{n}@x.eu"))).collect::<Vec<_>>()).await.is_err(),
        );
    }
    assert!(refused >= 50);
    assert_eq!(world.place.contacts(list).await, stored);

    let room = Command::new("prlimit")
        .args(["--pid", &std::process::id().to_string(), "--fsize=unlimited:"])
        .status()
        .expect("prlimit of util-linux raises the limit again");
    assert!(room.success());
    world.ledger.check().await.unwrap();
    sending.record_all(attempt, &[0, 1], &accepted()).await;
    assert_eq!(sending.states().await[&DeliveryState::Accepted], 2);
    let rows: Vec<_> = (stored..stored + 10_000).map(|number| email(format!("p{number}@x.eu"))).collect();
    upload.store(&rows).await;
    upload.complete().await;
    assert_eq!(world.place.contacts(list).await, stored + 10_000);
    let later = world.running(&to(&[list])).await;
    assert_eq!(later.progress().await.audience, u64::try_from(stored).unwrap() + 10_000);
}
