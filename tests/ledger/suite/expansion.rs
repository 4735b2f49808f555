//! Finding a campaign's recipients.

use dispatch_schemas::states::{Channel, DeliveryState};
use dispatch_workers::sealing::Column;

use super::{
    Fixture,
    people::{crowd, email, phone},
    sending::{Sending, numbers, to},
    world::World,
};

/// The addresses of a campaign's recipients, by number.
async fn audience(world: &World, sending: &Sending<'_>) -> Vec<String> {
    let channel = sending.plan.channel;
    let column = if channel == Channel::Email { Column::Email } else { Column::Phone };
    let rows = world.ledger.evidence(sending.id, channel, -1, 10_000).await.unwrap();
    assert!(rows.iter().zip(0..).all(|(row, seq)| row.seq == seq), "numbers count up from 0");
    rows.into_iter()
        .map(|row| {
            let contact = row.contact.unwrap();
            let key = world.keys.open_contact(contact.id, &contact.key).unwrap();
            String::from_utf8(key.open(column, &contact.address).unwrap()).unwrap()
        })
        .collect()
}

pub(crate) async fn a_campaign_finds_its_recipients_in_chunks(fixture: &dyn Fixture) {
    let world = World::new(fixture).await;
    let list = world.list_of("crowd", &crowd(25)).await;
    let sending = world.launched(&to(&[list])).await;
    let mut found = 0;
    for _ in 0..2 {
        found += world.ledger.expand(sending.id, 10, world.now_ms()).await.unwrap();
        let progress = sending.progress().await;
        assert_eq!((progress.audience, progress.expanded), (found, false));
        sending.assert_states(&[(DeliveryState::Ready, found)]).await;
    }
    assert_eq!(found, 20);
    sending.expand_all(10).await;
    sending.assert_states(&[(DeliveryState::Ready, 25)]).await;
    assert_eq!(world.ledger.expand(sending.id, 10, world.now_ms()).await.unwrap(), 0);
    assert_eq!(world.ledger.ready_from(sending.id, 20, 3).await.unwrap(), [20, 21, 22]);
    assert_eq!(audience(&world, &sending).await, (0..25).map(super::people::address).collect::<Vec<_>>());
}

pub(crate) async fn an_expansion_goes_on_where_it_was_when_the_ledger_reopens(fixture: &dyn Fixture) {
    let mut world = World::new(fixture).await;
    let lists = [world.list_of("one", &crowd(15)).await, world.list_of("two", &crowd(23)).await];
    let id = world.launched(&to(&lists)).await.id;
    let mut chunks = 0;
    loop {
        let sending = world.sending(id).await;
        if sending.progress().await.expanded {
            break;
        }
        world.ledger.expand(id, 7, world.now_ms()).await.unwrap();
        sending.states().await;
        chunks += 1;
        world = world.reopened().await;
    }
    assert!(chunks > 5);
    let sending = world.sending(id).await;
    assert_eq!(audience(&world, &sending).await, (0..23).map(super::people::address).collect::<Vec<_>>());
}

pub(crate) async fn an_address_in_three_lists_is_written_to_once(fixture: &dyn Fixture) {
    let world = World::new(fixture).await;
    let (a, b, c, d) = (email("a@x.eu"), email("b@x.eu"), email("c@x.eu"), email("d@x.eu"));
    let one = world.list_of("one", &[b.clone(), a.clone()]).await;
    let two = world.list_of("two", &[a.clone(), c.clone(), b.clone()]).await;
    let three = world.list_of("three", &[d, c, a, b]).await;
    let sending = world.launched(&to(&[two, one, three])).await;
    sending.expand_all(2).await;
    assert_eq!(audience(&world, &sending).await, ["a@x.eu", "c@x.eu", "b@x.eu", "d@x.eu"]);
    sending.assert_states(&[(DeliveryState::Ready, 4)]).await;
}

pub(crate) async fn a_list_named_twice_is_one_list(fixture: &dyn Fixture) {
    let world = World::new(fixture).await;
    let one = world.list_of("one", &[email("a@x.eu")]).await;
    let two = world.list_of("two", &[email("b@x.eu")]).await;
    let sending = world.running(&to(&[one, one, two, one])).await;
    assert_eq!(audience(&world, &sending).await, ["a@x.eu", "b@x.eu"]);
    assert_eq!(world.ledger.campaign(world.tenant, sending.id).await.unwrap().lists, [one, two]);
    assert_eq!(world.drafted(&to(&[two, two])).await.lists, [two], "the answer says the same as a later look");
}

pub(crate) async fn a_phone_number_of_two_people_is_written_to_once(fixture: &dyn Fixture) {
    let world = World::new(fixture).await;
    let shared = "+33612345678";
    let people = [
        email("a@x.eu").with_phone(shared),
        email("b@x.eu").with_phone("+33600000002"),
        phone(shared),
        email("c@x.eu").with_phone(shared),
    ];
    let one = world.list_of("one", &people).await;
    let two = world.list_of("two", &[phone(shared), phone("+33600000003")]).await;
    let sending = world.launched(&to(&[one, two]).by_sms()).await;
    sending.expand_all(1).await;
    assert_eq!(audience(&world, &sending).await, [shared, "+33600000002", "+33600000003"]);
}

pub(crate) async fn only_contacts_with_an_address_of_the_channel_are_found(fixture: &dyn Fixture) {
    let world = World::new(fixture).await;
    let mut people: Vec<_> = (0..30).map(|number| phone(format!("+336000000{number:02}"))).collect();
    people.push(email("a@x.eu"));
    let list = world.list_of("mixed", &people).await;
    let sending = world.launched(&to(&[list])).await;
    sending.expand_all(4).await;
    assert_eq!(audience(&world, &sending).await, ["a@x.eu"]);
}

pub(crate) async fn contacts_of_an_unfinished_upload_are_not_seen(fixture: &dyn Fixture) {
    let world = World::new(fixture).await;
    let one = world.list_of("one", &[email("a@x.eu"), email("b@x.eu").with_phone("+33600000001")]).await;
    let two = world.list_of("two", &[email("c@x.eu"), phone("+33600000002")]).await;
    let mail = world.drafted(&to(&[one, two])).await.id;
    let text = world.drafted(&to(&[one, two]).by_sms()).await.id;
    for id in [mail, text] {
        world.ledger.launch(world.tenant, id, None).await.unwrap();
    }
    // An upload begun after the launch, into a list that is still to be looked at.
    let mut upload = world.upload(one).await;
    upload.store(&[email("c@x.eu"), email("d@x.eu").with_phone("+33600000002")]).await;
    let (mail, text) = (world.sending(mail).await, world.sending(text).await);
    mail.expand_all(10).await;
    text.expand_all(10).await;
    assert_eq!(audience(&world, &mail).await, ["a@x.eu", "b@x.eu", "c@x.eu"]);
    assert_eq!(audience(&world, &text).await, ["+33600000001", "+33600000002"]);
    upload.complete().await;
}

pub(crate) async fn contacts_that_came_after_the_launch_are_not_seen(fixture: &dyn Fixture) {
    let world = World::new(fixture).await;
    let list = world.list_of("one", &[email("a@x.eu"), email("b@x.eu")]).await;
    let sending = world.launched(&to(&[list])).await;
    world.ledger.expand(sending.id, 1, world.now_ms()).await.unwrap();
    world.add(list, &[email("c@x.eu")]).await;
    sending.expand_all(1).await;
    assert_eq!(audience(&world, &sending).await, ["a@x.eu", "b@x.eu"]);
    let later = world.running(&to(&[list])).await;
    assert_eq!(audience(&world, &later).await, ["a@x.eu", "b@x.eu", "c@x.eu"]);
}

pub(crate) async fn a_paused_campaign_finds_nobody(fixture: &dyn Fixture) {
    let world = World::new(fixture).await;
    let list = world.list_of("crowd", &crowd(4)).await;
    let sending = world.launched(&to(&[list])).await;
    world.ledger.pause(world.tenant, sending.id, "operator").await.unwrap();
    assert_eq!(world.ledger.expand(sending.id, 10, world.now_ms()).await.unwrap(), 0);
    world.ledger.resume(world.tenant, sending.id).await.unwrap();
    sending.expand_all(10).await;
    assert_eq!(numbers(&sending.claim(&[0, 1, 2, 3]).await), [0, 1, 2, 3]);
}
