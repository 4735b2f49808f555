//! Whole files, as they come.

use bytes::Bytes;
use dispatch_engine::import::{
    fixture::{Kind, Truth, write_messy},
    loading::LoadError,
};
use dispatch_schemas::{
    api::{imports::Mapping, lists::Import},
    ids::ListId,
    states::{DeliveryState, ImportState},
};
use futures_util::stream;

use super::{Fixture, sending::to, world::World};

const ROWS: u64 = 5_000;
/// Bytes that arrive together.
const PIECE_BYTES: usize = 16 * 1_024;

fn messy() -> (Vec<u8>, Truth) {
    let mut file = Vec::new();
    let truth = write_messy(&mut file, ROWS, 42).unwrap();
    (file, truth)
}

async fn load(world: &World, list: ListId, file: &[u8]) -> Import {
    let pieces: Vec<_> = file.chunks(PIECE_BYTES).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
    let import = world.ledger.begin_import(world.tenant, list).await.unwrap();
    world.loader().load(world.tenant, list, import, Mapping::default(), stream::iter(pieces)).await.unwrap()
}

/// Contacts the file comes to: one per e-mail address, and one per number of a row that has no address of its own.
fn contacts_of(truth: &Truth) -> u64 {
    truth.distinct_emails + truth.kinds[&Kind::BadEmail]
}

pub(crate) async fn a_messy_file_comes_to_its_truth(fixture: &dyn Fixture) {
    let world = World::new(fixture).await;
    let list = world.list("messy").await;
    let (file, truth) = messy();
    let import = load(&world, list, &file).await;
    let totals = import.totals;
    assert_eq!(import.state, ImportState::Completed);
    assert_eq!((totals.rows, totals.rejected), (truth.rows, truth.rows - truth.accepted));
    assert_eq!((totals.added, totals.updated, totals.blocked), (contacts_of(&truth), 0, 0));
    assert_eq!(totals.duplicate, truth.kinds[&Kind::Duplicate]);
    assert_eq!(totals.rows, totals.added + totals.duplicate + totals.rejected);
    assert_eq!(world.place.contacts(list).await.cast_unsigned(), contacts_of(&truth));
}

pub(crate) async fn the_same_file_again_adds_nobody(fixture: &dyn Fixture) {
    let world = World::new(fixture).await;
    let list = world.list("messy").await;
    let (file, truth) = messy();
    load(&world, list, &file).await;
    let totals = load(&world, list, &file).await.totals;
    assert_eq!((totals.added, totals.updated), (0, contacts_of(&truth)));
    assert_eq!(totals.rows, totals.updated + totals.duplicate + totals.rejected);
    let stored = world.ledger.list(world.tenant, list).await.unwrap().contacts;
    assert_eq!(stored.cast_unsigned(), contacts_of(&truth));
}

pub(crate) async fn a_file_that_breaks_off_leaves_nothing(fixture: &dyn Fixture) {
    let world = World::new(fixture).await;
    let list = world.list("messy").await;
    let (file, truth) = messy();
    let half = Bytes::copy_from_slice(&file[..file.len() / 2]);
    let broken = stream::iter([Ok(half), Err(std::io::ErrorKind::ConnectionReset.into())]);
    let import = world.ledger.begin_import(world.tenant, list).await.unwrap();
    let refused = world.loader().load(world.tenant, list, import, Mapping::default(), broken).await;
    assert!(matches!(refused, Err(LoadError::BrokenOff(_))));
    assert_eq!(world.ledger.import(world.tenant, import).await.unwrap().state, ImportState::Failed);
    assert_eq!((world.place.contacts(list).await, world.place.changes().await), (0, 0));
    assert_eq!(load(&world, list, &file).await.totals.added, contacts_of(&truth));
}

pub(crate) async fn a_loaded_list_is_written_to_once_per_address(fixture: &dyn Fixture) {
    let world = World::new(fixture).await;
    let (one, two) = (world.list("one").await, world.list("two").await);
    let (file, truth) = messy();
    load(&world, one, &file).await;
    load(&world, two, &file).await;
    let mail = world.running(&to(&[one, two])).await;
    mail.assert_states(&[(DeliveryState::Ready, truth.distinct_emails)]).await;
    let text = world.running(&to(&[two, one]).by_sms()).await;
    text.assert_states(&[(DeliveryState::Ready, truth.distinct_phones)]).await;
}
