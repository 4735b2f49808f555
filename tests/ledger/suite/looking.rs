//! How far it has come, and who received what.

use dispatch_engine::ledger::{Held, RecipientFilter};
use dispatch_schemas::states::{CampaignState, Channel, DeliveryState, StallReason, StopReason};
use dispatch_workers::delivery::Outcome;

use super::{
    Fixture,
    people::{address, crowd, email},
    sending::{accepted, failed, throttled, to},
    world::World,
};

pub(crate) async fn progress_adds_up_and_names_reasons(fixture: &dyn Fixture) {
    let world = World::new(fixture).await;
    let sending = world.running_to_crowd(8).await;
    let gate = world.email(&address(7));
    world.ledger.close_gates(world.tenant, Channel::Email, &[gate], StopReason::Complained).await.unwrap();
    sending.claim(&[7]).await;
    let attempt = sending.claim_all(&[0, 1, 2, 3, 4]).await;
    sending.record(attempt, &[(0, accepted()), (1, failed()), (2, throttled(0)), (3, Outcome::Erased)]).await;
    let progress = sending.progress().await;
    assert_eq!((progress.id, progress.state, progress.expanded), (sending.id, CampaignState::Running, true));
    assert_eq!(progress.audience, 8);
    assert_eq!(progress.states.len(), DeliveryState::ALL.len(), "every state is there");
    let stands = |state: DeliveryState| progress.states[state.as_str()];
    assert_eq!((stands(DeliveryState::Stopped), stands(DeliveryState::Expired)), (2, 0));
    let reasons: Vec<_> = progress.reasons.iter().map(|(reason, count)| (reason.as_str(), *count)).collect();
    assert_eq!(reasons, [("bad_address", 1), ("complained", 1), ("erased", 1)]);
    sending
        .assert_states(&[
            (DeliveryState::Ready, 2),
            (DeliveryState::Claimed, 1),
            (DeliveryState::Accepted, 1),
            (DeliveryState::Failed, 1),
            (DeliveryState::RetryWait, 1),
            (DeliveryState::Stopped, 2),
        ])
        .await;
}

pub(crate) async fn recipients_are_listed_in_pages_and_by_state(fixture: &dyn Fixture) {
    let world = World::new(fixture).await;
    let sending = world.running_to_crowd(10).await;
    let attempt = sending.claim_all(&[1, 4, 8]).await;
    sending.record_all(attempt, &[1, 4, 8], &accepted()).await;
    let page = async |state, after, limit| -> Vec<i64> {
        let filter = RecipientFilter { state, after, limit };
        let page = world.ledger.recipients(world.tenant, sending.id, filter).await.unwrap();
        page.iter().map(|recipient| recipient.seq).collect()
    };
    assert_eq!(page(None, None, 4).await, [0, 1, 2, 3]);
    assert_eq!(page(None, Some(3), 100).await, [4, 5, 6, 7, 8, 9]);
    assert!(page(None, Some(9), 100).await.is_empty());
    assert_eq!(page(Some(DeliveryState::Accepted), None, 2).await, [1, 4]);
    assert_eq!(page(Some(DeliveryState::Accepted), Some(4), 2).await, [8]);
    assert!(page(Some(DeliveryState::Failed), None, 2).await.is_empty());
}

pub(crate) async fn an_address_is_shown_masked(fixture: &dyn Fixture) {
    let world = World::new(fixture).await;
    let list = world.list_of("one", &[email("anna@example.org").with_phone("+33612345678")]).await;
    let mail = world.running(&to(&[list])).await.recipient(0).await;
    assert_eq!(mail.address_masked.as_deref(), Some("a***@e***.org"));
    let gate = world.email("anna@example.org");
    world.ledger.close_gates(world.tenant, Channel::Email, &[gate], StopReason::Suppressed).await.unwrap();
    let listed = world.ledger.suppressions(world.tenant, None, 1).await.unwrap();
    assert_eq!(mail.address_hash, Some(listed[0].address_hash.clone()), "it is the hash of the suppressions");
    let text = world.running(&to(&[list]).by_sms()).await.recipient(0).await;
    assert_eq!(text.address_masked.as_deref(), Some("+336******78"));
    assert_ne!(text.send_key, mail.send_key);
}

pub(crate) async fn evidence_is_sealed_and_by_number(fixture: &dyn Fixture) {
    let world = World::new(fixture).await;
    let sending = world.running_to_crowd(5).await;
    let rows = world.ledger.evidence(sending.id, Channel::Email, 1, 2).await.unwrap();
    assert_eq!(rows.iter().map(|row| row.seq).collect::<Vec<_>>(), [2, 3]);
    for row in &rows {
        let contact = row.contact.as_ref().unwrap();
        let shown = String::from_utf8_lossy(&contact.address).into_owned();
        assert!(!shown.contains("person"));
        assert!(world.keys.open_contact(contact.id, &contact.key).is_ok());
    }
}

pub(crate) async fn campaigns_are_listed_newest_first(fixture: &dyn Fixture) {
    let world = World::new(fixture).await;
    let list = world.list_of("crowd", &crowd(1)).await;
    let mut made = Vec::new();
    for number in 0..6 {
        made.push(world.drafted(&to(&[list])).await.id);
        // Some at one moment.
        world.clock.advance(number % 2);
    }
    let mut listed = Vec::new();
    let mut after = None;
    loop {
        let page = world.ledger.campaigns(world.tenant, after, 2).await.unwrap();
        let Some(last) = page.last() else { break };
        after = Some((last.created_at.as_ms(), last.id));
        listed.extend(page);
    }
    assert!(listed.is_sorted_by(|newer, older| newer.created_at >= older.created_at));
    let mut ids: Vec<_> = listed.iter().map(|campaign| campaign.id).collect();
    assert_eq!(listed[0], world.ledger.campaign(world.tenant, ids[0]).await.unwrap());
    ids.sort_unstable();
    made.sort_unstable();
    assert_eq!(ids, made, "each once, whatever the page it is on");
}

pub(crate) async fn the_scheduler_sees_what_is_unfinished(fixture: &dyn Fixture) {
    let world = World::new(fixture).await;
    let sending = world.running_to_crowd(9).await;
    let attempt = sending.claim_all(&[0, 1, 2, 3]).await;
    sending.record(attempt, &[(0, accepted()), (1, failed()), (2, throttled(0))]).await;
    sending.lose_all(&[4, 5]).await;
    world.drafted(&to(&[world.list("empty").await])).await;
    let briefs = world.ledger.unfinished().await.unwrap();
    assert_eq!(briefs.len(), 1, "a draft is not the scheduler's");
    let brief = &briefs[0];
    assert_eq!((brief.id, brief.tenant, brief.expanded), (sending.id, world.tenant, true));
    let counts = (brief.ready, brief.claimed, brief.unknown, brief.waiting, brief.finished);
    assert_eq!(counts, (3, 1, 2, 1, 2));
    assert!(brief.has_open_deliveries());
}

pub(crate) async fn why_a_campaign_does_not_move_is_said_while_it_runs(fixture: &dyn Fixture) {
    let world = World::new(fixture).await;
    let sending = world.running_to_crowd(1).await;
    let list = world.list_of("others", &[email("other@x.eu")]).await;
    let other = world.running(&to(&[list])).await;
    let ledger = &world.ledger;
    let said = async || {
        let mut briefs = ledger.unfinished().await.unwrap();
        let noted = [sending.id, other.id].map(|id| {
            let at = briefs.iter().position(|brief| brief.id == id);
            at.and_then(|at| briefs.remove(at).stall)
        });
        let shown = [sending.progress().await.stall, other.progress().await.stall];
        (noted, shown)
    };
    let (limit, worker) = (Some(StallReason::Limit), Some(StallReason::NoWorker));
    assert_eq!(said().await, ([None; 2], [None; 2]));
    ledger.note_stalls(&[(sending.id, limit), (other.id, worker)]).await.unwrap();
    assert_eq!(said().await, ([limit, worker], [limit, worker]));
    ledger.note_stalls(&[(sending.id, worker), (other.id, None)]).await.unwrap();
    assert_eq!(said().await, ([worker, None], [worker, None]));
    ledger.note_stalls(&[(sending.id, None), (other.id, limit)]).await.unwrap();
    assert_eq!(said().await, ([None, limit], [None, limit]));

    ledger.note_stalls(&[(sending.id, limit)]).await.unwrap();
    ledger.pause(world.tenant, sending.id, "operator").await.unwrap();
    assert_eq!(sending.progress().await.stall, None, "it does not move because it is paused");
    ledger.resume(world.tenant, sending.id).await.unwrap();
    let attempt = sending.claim_all(&[0]).await;
    sending.record_all(attempt, &[0], &accepted()).await;
    assert!(ledger.complete(sending.id, world.now_ms()).await.unwrap());
    // A scheduler that looked before its end.
    ledger.note_stalls(&[(sending.id, limit)]).await.unwrap();
    assert_eq!(said().await, ([None, limit], [None, limit]));
}

pub(crate) async fn a_sending_window_is_kept_as_it_was_given(fixture: &dyn Fixture) {
    let world = World::new(fixture).await;
    let list = world.list_of("crowd", &crowd(1)).await;
    let (whenever, draft) = (world.running(&to(&[list])).await.id, to(&[list]).between("22:00", "06:00"));
    let id = world.launched(&draft).await.id;
    let (ledger, given) = (&world.ledger, draft.sending_window);
    assert!(given.is_some());
    assert_eq!(ledger.campaign(world.tenant, id).await.unwrap().sending_window, given);
    assert_eq!(ledger.brief(id).await.unwrap().unwrap().sending_window, given);
    assert_eq!(ledger.campaign(world.tenant, whenever).await.unwrap().sending_window, None);
    for brief in ledger.unfinished().await.unwrap() {
        assert_eq!(brief.sending_window, given.clone().filter(|_| brief.id == id));
        // It is eight o'clock.
        assert_eq!(brief.held(world.now_ms()), (brief.id == id).then_some(Held::OutsideWindow));
    }
}
