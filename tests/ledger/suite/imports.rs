//! Uploads: all of a file or nothing.

use dispatch_engine::ledger::{LedgerError, StoreCounts, UPLOAD_SILENT_MS};
use dispatch_schemas::{
    ids::ListId,
    states::{Channel, ImportState, StopReason},
};
use dispatch_workers::sealing::Column;

use super::{
    Fixture,
    people::{Person, crowd, email, phone},
    sending::to,
    world::World,
};

/// What a campaign would be told of the only person of a list: the fields.
async fn fields(world: &World, list: ListId) -> String {
    let sending = world.running(&to(&[list])).await;
    let claimed = sending.claim(&[0]).await;
    let contact = claimed.deliveries[0].contact.as_ref().unwrap();
    let key = world.keys.open_contact(contact.id, &contact.key).unwrap();
    String::from_utf8(key.open(Column::Fields, contact.fields.as_ref().unwrap()).unwrap()).unwrap()
}

async fn counted(world: &World, list: ListId) -> i64 {
    world.ledger.list(world.tenant, list).await.unwrap().contacts
}

pub(crate) async fn every_row_counts_once(fixture: &dyn Fixture) {
    let world = World::new(fixture).await;
    let blocked = world.email("blocked@x.eu");
    world.ledger.close_gates(world.tenant, Channel::Email, &[blocked], StopReason::Suppressed).await.unwrap();
    let list = world.list_of("crowd", &[email("old@x.eu"), phone("+33600000001")]).await;
    let mut upload = world.upload(list).await;
    let rows = [email("new@x.eu"), email("old@x.eu"), email("new@x.eu").named("N"), email("blocked@x.eu")];
    assert_eq!(upload.store(&rows).await, StoreCounts { added: 1, updated: 1, duplicate: 1, blocked: 1 });
    // Across batches too, and by phone for those who have nothing else.
    let rows =
        [email("old@x.eu"), email("new@x.eu"), phone("+33600000001"), phone("+33600000001"), phone("+33600000002")];
    assert_eq!(upload.store(&rows).await, StoreCounts { added: 1, updated: 1, duplicate: 3, blocked: 0 });
    let import = upload.complete().await;
    let totals = import.totals;
    assert_eq!(import.state, ImportState::Completed);
    assert_eq!(totals.rows, totals.added + totals.updated + totals.duplicate + totals.blocked + totals.rejected);
    assert_eq!((counted(&world, list).await, world.place.contacts(list).await), (4, 4));
}

pub(crate) async fn a_contact_keeps_its_old_values_until_the_upload_completes(fixture: &dyn Fixture) {
    let world = World::new(fixture).await;
    let old = email("anna@x.eu").named("Ana").with_phone("+33600000001");
    let list = world.list_of("one", &[old]).await;
    let mut upload = world.upload(list).await;
    upload.store(&[email("anna@x.eu").named("Anna")]).await;
    upload.roll_back().await;
    assert_eq!(fields(&world, list).await, r#"{"first_name":"Ana"}"#);

    let mut upload = world.upload(list).await;
    upload.store(&[email("anna@x.eu").named("Anna").with_phone("+33600000002")]).await;
    assert!(!world.place.holds(world.tenant, &world.phone("+33600000002").0).await, "not before it is whole");
    assert_eq!(world.place.changes().await, 1);
    upload.complete().await;
    assert_eq!(fields(&world, list).await, r#"{"first_name":"Anna"}"#);
    assert!(world.place.holds(world.tenant, &world.phone("+33600000002").0).await);
    assert!(!world.place.holds(world.tenant, &world.phone("+33600000001").0).await);
    assert_eq!(world.place.changes().await, 0);

    // A row that says less takes nothing away.
    world.add(list, &[email("anna@x.eu")]).await;
    assert_eq!(fields(&world, list).await, r#"{"first_name":"Anna"}"#);
    assert!(world.place.holds(world.tenant, &world.phone("+33600000002").0).await);
}

pub(crate) async fn an_upload_rolled_back_leaves_nothing(fixture: &dyn Fixture) {
    let world = World::new(fixture).await;
    let list = world.list_of("crowd", &crowd(3)).await;
    let mut upload = world.upload(list).await;
    upload.store(&(0..700).map(|n| email(format!("new{n}@x.eu"))).collect::<Vec<_>>()).await;
    upload.store(&crowd(2)).await;
    let import = upload.roll_back().await;
    assert_eq!((import.state, import.error.as_deref()), (ImportState::Failed, Some("the file broke off")));
    assert!(import.ended_at.is_some());
    assert_eq!((counted(&world, list).await, world.place.contacts(list).await), (3, 3));
    assert_eq!(world.place.changes().await, 0);
    assert_eq!(world.running(&to(&[list])).await.progress().await.audience, 3);
}

pub(crate) async fn an_upload_cut_off_is_removed_at_the_next_start(fixture: &dyn Fixture) {
    let world = World::new(fixture).await;
    let list = world.list_of("crowd", &crowd(3)).await;
    let mut upload = world.upload(list).await;
    let id = upload.id;
    upload.store(&[email("new@x.eu"), email(super::people::address(0)).named("P")]).await;
    let ids_given = world.ledger.contact_ids(1).await.unwrap();

    let world = world.reopened().await;
    // Where other processes may have the ledger open, one that is silent for long is dead.
    world.clock.advance(UPLOAD_SILENT_MS + 1);
    assert_eq!(world.ledger.recover_imports().await.unwrap(), 1);
    assert_eq!(world.ledger.recover_imports().await.unwrap(), 0);
    let import = world.ledger.import(world.tenant, id).await.unwrap();
    assert_eq!(import.state, ImportState::Failed);
    assert!(import.error.unwrap().contains("upload it again"));
    assert_eq!((counted(&world, list).await, world.place.contacts(list).await), (3, 3));
    assert_eq!(world.place.changes().await, 0);
    // A contact's id is never given again: what is sealed is bound to it.
    assert!(world.ledger.contact_ids(1).await.unwrap() >= ids_given);
    assert_eq!(world.add(list, &[email("new@x.eu")]).await.totals.added, 1);
}

pub(crate) async fn an_upload_that_was_being_applied_is_finished_at_the_next_start(fixture: &dyn Fixture) {
    let world = World::new(fixture).await;
    let people: Vec<Person> = (0..12_000).map(|n| email(format!("p{n}@x.eu"))).collect();
    let list = world.list_of("crowd", &people).await;
    let mut upload = world.upload(list).await;
    let id = upload.id;
    for rows in people.chunks(4_000) {
        upload.store(&rows.iter().map(|person| person.clone().named("New")).collect::<Vec<_>>()).await;
    }
    upload.store(&[email("one-more@x.eu")]).await;
    // The caller goes away while the changes are applied step by step.
    let mut completing = Box::pin(upload.complete());
    while world.place.changes().await == 12_000 {
        tokio::select! {
            biased;
            _ = &mut completing => break,
            () = tokio::task::yield_now() => {}
        }
    }
    drop(completing);
    let world = world.reopened().await;
    world.clock.advance(UPLOAD_SILENT_MS + 1);
    world.ledger.recover_imports().await.unwrap();
    let import = world.ledger.import(world.tenant, id).await.unwrap();
    assert_eq!((import.state, import.totals.added, import.totals.updated), (ImportState::Completed, 1, 12_000));
    assert_eq!(world.place.changes().await, 0);
    assert_eq!((counted(&world, list).await, world.place.contacts(list).await), (12_001, 12_001));
    assert_eq!(fields(&world, list).await, r#"{"first_name":"New"}"#);
}

pub(crate) async fn a_list_takes_one_upload_at_a_time(fixture: &dyn Fixture) {
    let world = World::new(fixture).await;
    let (list, other) = (world.list("one").await, world.list("two").await);
    let upload = world.upload(list).await;
    let refused = world.ledger.begin_import(world.tenant, list).await;
    assert!(matches!(refused, Err(LedgerError::Conflict { code: "import-running", .. })));
    world.upload(other).await;
    upload.complete().await;
    world.upload(list).await;
}

pub(crate) async fn an_upload_that_has_ended_takes_no_more_contacts(fixture: &dyn Fixture) {
    let world = World::new(fixture).await;
    let list = world.list_of("crowd", &crowd(1)).await;
    let upload = world.upload(list).await;
    world.ledger.roll_back_import(upload.id, "the file broke off").await.unwrap();
    let refused = upload.try_store(&[email("late@x.eu"), email(super::people::address(0)).named("P")]).await;
    assert!(matches!(refused, Err(LedgerError::Conflict { code: "import-ended", .. })), "{refused:?}");
    assert_eq!((world.place.contacts(list).await, world.place.changes().await), (1, 0));
}

pub(crate) async fn a_suppressed_address_is_not_stored(fixture: &dyn Fixture) {
    let world = World::new(fixture).await;
    for reason in StopReason::ALL {
        let gate = world.email(&format!("{reason}@x.eu"));
        world.ledger.close_gates(world.tenant, Channel::Email, &[gate], *reason).await.unwrap_or_default();
    }
    let people: Vec<_> = StopReason::ALL.iter().map(|reason| email(format!("{reason}@x.eu"))).collect();
    let list = world.list("crowd").await;
    let totals = world.add(list, &people).await.totals;
    // `cancelled` is a campaign's reason, never a gate's.
    assert_eq!((totals.blocked, totals.added), (StopReason::ALL.len() as u64 - 1, 1));
    assert_eq!(world.place.contacts(list).await, 1);
}

pub(crate) async fn a_contact_with_one_open_address_keeps_that_one(fixture: &dyn Fixture) {
    let world = World::new(fixture).await;
    let closed = world.phone("+33600000001");
    world.ledger.close_gates(world.tenant, Channel::Sms, &[closed], StopReason::Unsubscribed).await.unwrap();
    let list = world.list_of("crowd", &[email("anna@x.eu").with_phone("+33600000001")]).await;
    assert_eq!(world.place.contacts(list).await, 1);
    assert!(!world.place.holds(world.tenant, &closed.0).await);
    let id = world.drafted(&to(&[list]).by_sms()).await.id;
    assert!(world.ledger.launch(world.tenant, id, None).await.is_err());
    assert_eq!(world.running(&to(&[list])).await.progress().await.audience, 1);
}

pub(crate) async fn an_upload_is_its_tenants_own(fixture: &dyn Fixture) {
    let mut world = World::new(fixture).await;
    let list = world.list("one").await;
    let import = world.ledger.begin_import(world.tenant, list).await.unwrap();
    world.become_tenant("second").await;
    let foreign = world.ledger.begin_import(world.tenant, list).await;
    assert!(matches!(foreign, Err(LedgerError::NotFound("list"))));
    let foreign = world.ledger.import(world.tenant, import).await;
    assert!(matches!(foreign, Err(LedgerError::NotFound("import"))));
}

pub(crate) async fn a_list_has_the_fields_of_its_completed_uploads(fixture: &dyn Fixture) {
    let world = World::new(fixture).await;
    let (list, other) = (world.list("one").await, world.list("two").await);
    let fields = async |world: &World, list| world.ledger.list(world.tenant, list).await.unwrap().fields;
    assert_eq!(fields(&world, list).await, [""; 0]);
    world.upload(list).await.brings(&["plan", "first_name"]).complete().await;
    world.upload(list).await.brings(&["first_name", "city"]).complete().await;
    world.upload(list).await.brings(&["gone"]).roll_back().await;
    world.upload(list).await.complete().await;
    assert_eq!(fields(&world, list).await, ["city", "first_name", "plan"]);
    assert_eq!(fields(&world, other).await, [""; 0]);
    let listed = world.ledger.lists(world.tenant).await.unwrap();
    assert_eq!(listed.iter().map(|list| list.fields.len()).collect::<Vec<_>>(), [3, 0]);

    // What is known of them outlives the process.
    let world = world.reopened().await;
    assert_eq!(fields(&world, list).await, ["city", "first_name", "plan"]);
}

pub(crate) async fn a_list_keeps_the_names_of_a_bounded_number_of_fields(fixture: &dyn Fixture) {
    let world = World::new(fixture).await;
    let list = world.list("one").await;
    for upload in 0..3 {
        let names: Vec<String> = (0..400).map(|field| format!("field_{upload}_{field}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        world.upload(list).await.brings(&names).complete().await;
    }
    assert_eq!(world.ledger.list(world.tenant, list).await.unwrap().fields.len(), 1_000);
}
