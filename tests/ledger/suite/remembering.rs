//! What the second place remembers, and a ledger is told that has forgotten.

use dispatch_engine::{
    quarantine,
    second_place::{Claimed, Hash, Note},
};
use dispatch_schemas::{
    ids::CampaignId,
    states::{CampaignState, Channel, DeliveryState, StopReason},
};
use dispatch_workers::sealing::AddressHash;
use tempfile::{TempDir, tempdir};

use super::{
    Fixture,
    forgetting::claimed,
    people::{address, crowd},
    sending::{numbers, to},
    world::World,
};

/// How far the second place says that the ledger was.
const FURTHER: i64 = 50;

impl World {
    /// A process starts: it looks, works off what it finds, and says whether that was anything.
    async fn starts(&self) -> bool {
        let (warden, standing) = self.warden();
        warden.look().await.unwrap();
        let was_held = standing.quarantine().is_some();
        assert_eq!(self.ledger.epoch().await.unwrap().is_held(), was_held);
        warden.beat().await.unwrap();
        assert_eq!(self.ledger.epoch().await.unwrap().quarantine, None);
        was_held
    }
}

/// A world with a second place.
async fn beside(fixture: &dyn Fixture) -> (World, TempDir) {
    let folder = tempdir().unwrap();
    (World::beside(fixture, Some(folder.path())).await, folder)
}

pub(crate) async fn what_is_closed_and_claimed_is_in_the_second_place(fixture: &dyn Fixture) {
    let (world, folder) = beside(fixture).await;
    let list = world.list_of("crowd", &[crowd(1).remove(0).with_phone("+33600000001")]).await;
    let sending = world.running(&to(&[list])).await;
    let (tenant, email, phone) = (world.tenant, world.email(&address(0)), world.phone("+33600000001"));
    let token = world.token();
    let attempt = world.ledger.claim(&sending.claim_of(&[0], token)).await.unwrap().attempt.unwrap();
    world.ledger.close_gates(tenant, Channel::Email, &[email], StopReason::Complained).await.unwrap();
    world.ledger.open_gates(tenant, &[email], StopReason::Complained).await.unwrap();
    world.ledger.erase(tenant, &[(Channel::Email, email)]).await.unwrap();
    world.ledger.pause(tenant, sending.id, "for now").await.unwrap();
    world.ledger.resume(tenant, sending.id).await.unwrap();
    world.ledger.cancel(tenant, sending.id).await.unwrap();
    world.ledger.close_tenant(tenant, "unpaid").await.unwrap();
    world.ledger.open_tenant(tenant).await.unwrap();

    let noted = world.as_another_process(folder.path()).since(world.now_ms()).await.unwrap();
    let notes: Vec<Note> = noted.into_iter().map(|noted| noted.note).collect();
    let (campaign, reason, addresses) = (sending.id, StopReason::Complained, vec![Hash::from(email)]);
    assert_eq!(
        notes,
        [
            Note::Claimed(Claimed { token: Hash(token.0), ..claimed(&sending, attempt.0, &[(0, 0)]) }),
            Note::Closed { tenant, channel: Channel::Email, reason, addresses: addresses.clone() },
            Note::Opened { tenant, reason, addresses },
            // Twice where it was named and found: it is one all the same.
            Note::Erased {
                tenant,
                addresses: vec![
                    (Channel::Email, email.into()),
                    (Channel::Email, email.into()),
                    (Channel::Sms, phone.into())
                ]
            },
            Note::Paused { tenant, campaign },
            Note::Resumed { tenant, campaign },
            Note::Cancelled { tenant, campaign },
            Note::TenantClosed { tenant, reason: "unpaid".to_owned() },
            Note::TenantOpened { tenant },
        ]
    );
    let written: Vec<u8> = std::fs::read_dir(folder.path())
        .unwrap()
        .flat_map(|file| std::fs::read(file.unwrap().path()).unwrap())
        .collect();
    let text = String::from_utf8_lossy(&written);
    assert!(!text.contains(&address(0)) && !text.contains("600000001"));
}

pub(crate) async fn a_claim_that_cannot_be_noted_is_given_back(fixture: &dyn Fixture) {
    let (world, folder) = beside(fixture).await;
    let sending = world.running_to_crowd(2).await;
    std::fs::remove_dir_all(folder.path()).unwrap();
    let refused = world.ledger.claim(&sending.claim_of(&[0, 1], world.token())).await.unwrap_err();
    assert!(refused.to_string().contains("second place"), "{refused}");
    sending.assert_states(&[(DeliveryState::Ready, 2)]).await;
    assert_eq!(sending.recipient(0).await.attempts, 0);
    std::fs::create_dir(folder.path()).unwrap();
    sending.claim_all(&[0, 1]).await;
}

pub(crate) async fn a_closing_that_cannot_be_noted_is_not_answered(fixture: &dyn Fixture) {
    let (world, folder) = beside(fixture).await;
    let sending = world.running_to_crowd(1).await;
    std::fs::remove_dir_all(folder.path()).unwrap();
    let email = [world.email(&address(0))];
    let close = async || world.ledger.close_gates(world.tenant, Channel::Email, &email, StopReason::Suppressed).await;
    let refused = close().await.unwrap_err();
    assert!(refused.to_string().contains("second place"), "{refused}");
    std::fs::create_dir(folder.path()).unwrap();
    assert_eq!(close().await.unwrap().already_closed, 1, "it holds all the same");
    sending.claim(&[0]).await;
    sending.assert_stands(0, DeliveryState::Stopped, "suppressed").await;
}

/// What a process noted that the ledger has forgotten.
async fn forgot(world: &World, folder: &TempDir, head: Option<i64>, notes: Vec<Note>) {
    let place = world.as_another_process(folder.path());
    for note in notes {
        place.note(world.now_ms(), note).await.unwrap();
    }
    if let Some(head) = head {
        place.remember_head(head).await.unwrap();
    }
}

fn suppressed(world: &World, addresses: &[AddressHash]) -> Note {
    let addresses = addresses.iter().copied().map(Hash::from).collect();
    Note::Closed { tenant: world.tenant, channel: Channel::Email, reason: StopReason::Suppressed, addresses }
}

pub(crate) async fn a_ledger_behind_its_second_place_is_told_what_it_forgot(fixture: &dyn Fixture) {
    let (world, folder) = beside(fixture).await;
    let list = world.list_of("crowd", &crowd(6)).await;
    let sending = world.launched(&to(&[list])).await;
    let (erased, opted_out) = (world.email(&address(4)), world.email(&address(5)));
    assert!(!world.starts().await);
    let gone = Note::Erased { tenant: world.tenant, addresses: vec![(Channel::Email, erased.into())] };
    let claim = Note::Claimed(claimed(&sending, 5, &[(1, 2)]));
    forgot(&world, &folder, Some(FURTHER), vec![claim, suppressed(&world, &[opted_out]), gone]).await;

    assert!(world.starts().await);
    assert!(world.ledger.epoch().await.unwrap().head >= FURTHER);
    sending.expand_all(1_000).await;
    sending.assert_states(&[(DeliveryState::Ready, 4), (DeliveryState::Unknown, 2)]).await;
    assert_eq!(numbers(&sending.claim(&[0, 1, 2, 3, 4, 5]).await), [0, 3]);
    sending.assert_stands(4, DeliveryState::Stopped, "erased").await;
    sending.assert_stands(5, DeliveryState::Stopped, "suppressed").await;
    assert!(!world.place.holds(world.tenant, &erased.0).await);
    assert!(!world.starts().await, "it is told once");
}

pub(crate) async fn a_ledger_that_lost_a_moment_is_told_what_it_forgot(fixture: &dyn Fixture) {
    let (world, folder) = beside(fixture).await;
    let sending = world.running_to_crowd(3).await;
    assert!(!world.starts().await);
    // Less than a move of the head.
    forgot(&world, &folder, None, vec![Note::Claimed(claimed(&sending, 5, &[(1, 1)]))]).await;
    assert!(world.starts().await);
    sending.assert_states(&[(DeliveryState::Ready, 2), (DeliveryState::Unknown, 1)]).await;
    world.clock.advance(1);
    let first = world.email(&address(0));
    forgot(&world, &folder, None, vec![suppressed(&world, &[first])]).await;
    assert!(world.starts().await);
    assert_eq!(numbers(&sending.claim(&[0, 1, 2]).await), [2]);
}

pub(crate) async fn what_was_opened_again_stays_open(fixture: &dyn Fixture) {
    let (world, folder) = beside(fixture).await;
    let sending = world.running_to_crowd(2).await;
    let (first, second) = (world.email(&address(0)), world.email(&address(1)));
    let opened =
        Note::Opened { tenant: world.tenant, reason: StopReason::Suppressed, addresses: vec![Hash::from(first)] };
    let (tenant, campaign) = (world.tenant, sending.id);
    let others = [Note::Paused { tenant, campaign }, Note::Resumed { tenant, campaign }];
    let mut notes = vec![suppressed(&world, &[first, second]), opened];
    notes.extend(others);
    forgot(&world, &folder, Some(FURTHER), notes).await;
    assert!(world.starts().await);
    assert_eq!(numbers(&sending.claim(&[0, 1]).await), [0]);
}

pub(crate) async fn a_draft_that_was_sent_is_not_sent_again(fixture: &dyn Fixture) {
    let (world, folder) = beside(fixture).await;
    let list = world.list_of("crowd", &crowd(2)).await;
    let draft = world.drafted(&to(&[list])).await.id;
    let untouched = world.drafted(&to(&[list])).await.id;
    let sending = world.sending(draft).await;
    let unheard_of = Claimed { campaign: CampaignId(77), ..claimed(&sending, 6, &[(0, 1)]) };
    let notes = vec![Note::Claimed(claimed(&sending, 5, &[(0, 1)])), Note::Claimed(unheard_of)];
    forgot(&world, &folder, Some(FURTHER), notes).await;
    assert!(world.starts().await);
    let state = async |id| world.ledger.campaign(world.tenant, id).await.unwrap().state;
    assert_eq!(state(draft).await, CampaignState::Cancelled);
    assert_eq!(state(untouched).await, CampaignState::Draft);
}

pub(crate) async fn a_ledger_that_forgot_nothing_goes_on(fixture: &dyn Fixture) {
    let (world, _folder) = beside(fixture).await;
    let sending = world.running_to_crowd(3).await;
    assert!(!world.starts().await);
    sending.claim_all(&[0]).await;
    let email = [world.email(&address(1))];
    world.ledger.close_gates(world.tenant, Channel::Email, &email, StopReason::Suppressed).await.unwrap();
    world.ledger.pause(world.tenant, sending.id, "for now").await.unwrap();
    world.ledger.erase(world.tenant, &[(Channel::Email, world.email(&address(2)))]).await.unwrap();
    let id = sending.id;
    drop(sending);
    let world = world.reopened().await;
    assert!(!world.starts().await);
    world.ledger.cancel(world.tenant, id).await.unwrap();
    assert!(!world.starts().await);
}

pub(crate) async fn an_operator_may_accept_duplicates_and_nobody_who_opted_out(fixture: &dyn Fixture) {
    let (world, folder) = beside(fixture).await;
    let sending = world.running_to_crowd(3).await;
    let opted_out = world.email(&address(2));
    let notes = vec![Note::Claimed(claimed(&sending, 5, &[(0, 1)])), suppressed(&world, &[opted_out])];
    forgot(&world, &folder, Some(FURTHER), notes).await;
    let ledger = world.ledger.as_ref();
    assert_eq!(quarantine::accept_duplicates(ledger, "anna").await.unwrap(), None);
    let (warden, _) = world.warden();
    warden.look().await.unwrap();
    let ended = quarantine::accept_duplicates(ledger, "anna").await.unwrap().unwrap();
    assert!(ended.reason.contains("50"), "{}", ended.reason);
    assert_eq!(numbers(&sending.claim(&[0, 1, 2]).await), [0, 1]);
    sending.assert_stands(2, DeliveryState::Stopped, "suppressed").await;
    assert!(!world.starts().await, "what was accepted once is not asked about again");
}
