//! What providers report of deliveries after they took them.

use dispatch_engine::ledger::{Applied, ORPHAN_LOOKS_MS, Orphan, Report, Revisited, Verdict};
use dispatch_schemas::states::{DeliveryState, DeliveryStatus, FactKind};
use dispatch_workers::{
    message::SendKey,
    providers::callbacks::{EventId, Traces},
    sealing::SendKeys,
};

use super::{
    Fixture,
    people::{address, crowd},
    sending::{ACCOUNT, Sending, accepted, deferred, failed, numbers, to},
    world::{START_MS, World},
};

/// The id of a report.
fn id(number: u8) -> EventId {
    [number; 16]
}

impl Sending<'_> {
    /// A report about one of its deliveries.
    fn report(&self, number: u8, seq: i64, kind: FactKind) -> Report {
        Report {
            id: id(number),
            campaign: self.id,
            seq,
            kind,
            at_ms: START_MS + i64::from(number),
            proves_acceptance: true,
            provider_id: None,
        }
    }

    async fn apply(&self, reports: &[Report]) -> Applied {
        self.world.ledger.apply(reports, &[], self.world.now_ms()).await.unwrap()
    }

    async fn status(&self, seq: i64) -> DeliveryStatus {
        self.recipient(seq).await.status
    }
}

const fn applied(applied: u64, duplicates: u64) -> Applied {
    Applied { applied, duplicates, orphans: 0 }
}

pub(crate) async fn a_report_is_kept_and_tells_what_became_of_the_message(fixture: &dyn Fixture) {
    let world = World::new(fixture).await;
    let sending = world.running_to_crowd(2).await;
    let attempt = sending.claim_all(&[0, 1]).await;
    sending.record_all(attempt, &[0, 1], &accepted()).await;
    assert_eq!(sending.status(0).await, DeliveryStatus::Accepted);
    sending.apply(&[sending.report(1, 0, FactKind::Accepted), sending.report(2, 0, FactKind::Delivered)]).await;
    let recipient = sending.recipient(0).await;
    assert_eq!((recipient.state, recipient.status), (DeliveryState::Accepted, DeliveryStatus::Delivered));
    let delivered = recipient.reports["delivered"];
    assert_eq!(
        (delivered.first_at.as_ms(), delivered.last_at.as_ms(), delivered.count),
        (START_MS + 2, START_MS + 2, 1)
    );
    assert_eq!(recipient.detail.as_deref(), Some("answer"), "how it was accepted is as it was");
    sending.apply(&[sending.report(3, 0, FactKind::BouncedHard), sending.report(4, 1, FactKind::Complained)]).await;
    assert_eq!(sending.status(0).await, DeliveryStatus::BouncedHard, "mail servers may bounce late");
    assert_eq!(sending.status(1).await, DeliveryStatus::Accepted, "a complaint stands beside it");
    let reported = sending.progress().await.reported;
    let expected = [("accepted", 1), ("bounced_hard", 1), ("complained", 1), ("delivered", 1)];
    assert_eq!(reported, expected.map(|(kind, count)| (kind.to_owned(), count)).into());
    sending.assert_states(&[(DeliveryState::Accepted, 2)]).await;
}

pub(crate) async fn a_report_that_comes_again_counts_once(fixture: &dyn Fixture) {
    let world = World::new(fixture).await;
    let sending = world.running_to_crowd(1).await;
    let attempt = sending.claim_all(&[0]).await;
    sending.record_all(attempt, &[0], &accepted()).await;
    let one = sending.report(7, 0, FactKind::Deferred);
    assert_eq!(world.ledger.unseen(&[id(7), id(8)]).await.unwrap(), [id(7), id(8)].into());
    assert_eq!(sending.apply(&[one.clone(), one.clone()]).await, applied(1, 1));
    assert_eq!(sending.apply(std::slice::from_ref(&one)).await, applied(0, 1));
    assert_eq!(world.ledger.unseen(&[id(7), id(8)]).await.unwrap(), [id(8)].into());
    let earlier = Report { at_ms: START_MS - 5_000, ..sending.report(8, 0, FactKind::Deferred) };
    assert_eq!(sending.apply(&[earlier, one]).await, applied(1, 1));
    let deferred = sending.recipient(0).await.reports["deferred"];
    assert_eq!(
        (deferred.first_at.as_ms(), deferred.last_at.as_ms(), deferred.count),
        (START_MS - 5_000, START_MS + 7, 2)
    );
    assert_eq!(sending.progress().await.reported["deferred"], 1, "one recipient, however often it was reported");
}

pub(crate) async fn the_same_reports_in_any_order_and_grouping_come_to_the_same(fixture: &dyn Fixture) {
    let world = World::new(fixture).await;
    let list = world.list_of("crowd", &crowd(3)).await;
    let kinds =
        [FactKind::Delivered, FactKind::Deferred, FactKind::BouncedSoft, FactKind::Deferred, FactKind::Complained];
    let mut outcomes = Vec::new();
    for (number, order) in [[0, 1, 2, 3, 4], [4, 3, 2, 1, 0], [2, 4, 0, 3, 1]].into_iter().enumerate() {
        let sending = world.running(&to(&[list])).await;
        let attempt = sending.claim_all(&[0]).await;
        sending.record_all(attempt, &[0], &accepted()).await;
        let reports: Vec<Report> = order
            .into_iter()
            .map(|at| {
                let own = u8::try_from(number * 10 + at).unwrap();
                Report { at_ms: START_MS + at as i64, ..sending.report(own, 0, kinds[at]) }
            })
            .collect();
        for together in reports.chunks(number + 1) {
            sending.apply(together).await;
            sending.apply(&reports[..1]).await;
        }
        let recipient = sending.recipient(0).await;
        outcomes.push((recipient.status, recipient.reports, sending.progress().await.reported));
    }
    assert!(outcomes.windows(2).all(|pair| pair[0] == pair[1]), "{outcomes:?}");
}

pub(crate) async fn a_report_proves_acceptance_in_any_state(fixture: &dyn Fixture) {
    let world = World::new(fixture).await;
    let sending = world.running_to_crowd(6).await;
    let attempt = sending.claim_all(&[0, 1, 2]).await;
    let later = world.now_ms() + 60_000;
    sending.record(attempt, &[(0, failed()), (1, deferred(later)), (2, super::sending::unknown(later))]).await;
    let attempt = sending.lose_all(&[3]).await;
    sending.settle_all(attempt, &[3], &Verdict::Final).await;
    sending.claim_all(&[4]).await;
    let reports: Vec<Report> =
        (0..6).map(|seq| sending.report(u8::try_from(seq).unwrap() + 1, seq, FactKind::Accepted)).collect();
    assert_eq!(sending.apply(&reports).await, applied(6, 0));
    for seq in 0..6 {
        sending.assert_stands(seq, DeliveryState::Accepted, "callback").await;
    }
    sending.assert_states(&[(DeliveryState::Accepted, 6)]).await;
    world.clock.advance(3_600_000);
    assert!(sending.unknown_due().await.is_empty(), "nothing is in doubt any more");
    world.ledger.wake_waiting(world.now_ms(), 100).await.unwrap();
    sending.assert_states(&[(DeliveryState::Accepted, 6)]).await;
    assert!(sending.claim(&[0, 1, 2, 3, 4, 5]).await.attempt.is_none(), "nobody is written to twice");
}

pub(crate) async fn a_report_that_proves_nothing_changes_no_state(fixture: &dyn Fixture) {
    let world = World::new(fixture).await;
    let sending = world.running_to_crowd(1).await;
    sending.lose_all(&[0]).await;
    let refused = Report { proves_acceptance: false, ..sending.report(1, 0, FactKind::RejectedByProvider) };
    sending.apply(&[refused]).await;
    let recipient = sending.recipient(0).await;
    assert_eq!((recipient.state, recipient.status), (DeliveryState::Unknown, DeliveryStatus::RejectedByProvider));
}

pub(crate) async fn a_report_before_the_record_is_believed_and_the_record_changes_nothing(fixture: &dyn Fixture) {
    let world = World::new(fixture).await;
    let sending = world.running_to_crowd(2).await;
    let attempt = sending.claim_all(&[0, 1]).await;
    let report = Report { provider_id: Some("m1.filter".to_owned()), ..sending.report(1, 0, FactKind::Delivered) };
    sending.apply(&[report]).await;
    sending.assert_states(&[(DeliveryState::Accepted, 1), (DeliveryState::Claimed, 1)]).await;
    sending.record(attempt, &[(0, failed()), (1, accepted())]).await;
    sending.assert_stands(0, DeliveryState::Accepted, "callback").await;
    assert_eq!(sending.recipient(0).await.provider_id.as_deref(), Some("m1.filter"));
    sending.assert_states(&[(DeliveryState::Accepted, 2)]).await;
    world.clock.advance(3_600_000);
    assert_eq!(sending.reap().await, 0, "the attempt has ended with the last of its deliveries");
}

pub(crate) async fn a_delivery_that_was_never_sent_is_not_accepted_by_a_report(fixture: &dyn Fixture) {
    let world = World::new(fixture).await;
    let sending = world.running_to_crowd(1).await;
    let gate = [world.email(&address(0))];
    let (channel, reason) =
        (dispatch_schemas::states::Channel::Email, dispatch_schemas::states::StopReason::Suppressed);
    world.ledger.close_gates(world.tenant, channel, &gate, reason).await.unwrap();
    assert!(sending.claim(&[0]).await.attempt.is_none());
    sending.apply(&[sending.report(1, 0, FactKind::Delivered)]).await;
    sending.assert_stands(0, DeliveryState::Stopped, "suppressed").await;
}

pub(crate) async fn the_variables_of_a_message_go_when_a_report_ends_it(fixture: &dyn Fixture) {
    let world = World::new(fixture).await;
    let template = world.template().await;
    let (campaign, seq) = world.try_message(&template, "anna@example.org", None).await.unwrap().value;
    let sending = world.sending(campaign).await;
    sending.claim_all(&[seq]).await;
    assert_eq!(world.place.variables().await, 1);
    sending.apply(&[sending.report(1, seq, FactKind::Delivered)]).await;
    assert_eq!(world.place.variables().await, 0);
    let message = world.ledger.message(world.tenant, campaign, seq).await.unwrap();
    assert_eq!((message.state, message.status), (DeliveryState::Accepted, DeliveryStatus::Delivered));
    assert_eq!(message.reports["delivered"].count, 1);
}

pub(crate) async fn a_delivery_is_found_for_the_account_that_sends_it_only(fixture: &dyn Fixture) {
    let world = World::new(fixture).await;
    let sending = world.running_to_crowd(2).await;
    let asked = [(sending.id, 0), (sending.id, 1), (sending.id, 2)];
    let found = world.ledger.reported(ACCOUNT, &asked).await.unwrap();
    assert_eq!(found.len(), 2);
    let second = &found[&(sending.id, 1)];
    assert_eq!((second.tenant, second.seq, second.is_accepted), (world.tenant, 1, false));
    assert_eq!(world.ledger.addresses(&asked).await.unwrap()[&(sending.id, 1)], world.email(&address(1)));
    let claimed = sending.claim_all(&[0]).await;
    sending.record_all(claimed, &[0], &accepted()).await;
    let found = world.ledger.reported(ACCOUNT, &asked).await.unwrap();
    assert_eq!([0, 1].map(|seq| found[&(sending.id, seq)].is_accepted), [true, false]);
    assert!(world.ledger.reported("another", &asked).await.unwrap().is_empty());
    assert_eq!(world.ledger.tenants_of(ACCOUNT).await.unwrap(), [world.tenant]);
    assert!(world.ledger.tenants_of("another").await.unwrap().is_empty());
    world.ledger.erase(world.tenant, &[(sending.plan.channel, world.email(&address(1)))]).await.unwrap();
    assert_eq!(world.ledger.reported(ACCOUNT, &asked).await.unwrap().len(), 2);
    let addresses = world.ledger.addresses(&asked).await.unwrap();
    assert_eq!(addresses.len(), 1, "of an erased person there is no address");
}

pub(crate) async fn the_members_of_a_request_are_found_by_its_key(fixture: &dyn Fixture) {
    let world = World::new(fixture).await;
    let sending = world.running_to_crowd(5).await.with_keys_remembered();
    let token = world.token();
    let claimed = world.ledger.claim(&sending.claim_of(&[0, 1, 3], token)).await.unwrap();
    assert_eq!(numbers(&claimed), [0, 1, 3]);
    let attempt = claimed.attempt.unwrap();
    sending.record_all(attempt, &[0, 1, 3], &super::sending::unknown(world.now_ms())).await;
    let key = SendKeys::batch_key(token);
    let members = |found: std::collections::HashMap<SendKey, Vec<dispatch_engine::ledger::Member>>| {
        let mut seqs: Vec<i64> = found.values().flatten().map(|member| member.delivery.seq).collect();
        seqs.sort_unstable();
        seqs
    };
    let find =
        async |account: &'static str, keys: &[SendKey]| members(world.ledger.members(account, keys).await.unwrap());
    assert_eq!(find(ACCOUNT, &[key, SendKey([9; 16])]).await, [0, 1, 3]);
    assert_eq!(find("another", &[key]).await, [0_i64; 0]);
    // The request is asked again under its first key.
    sending.settle_all(attempt, &[0, 1, 3], &Verdict::AskAgain).await;
    let again = sending.claim_again(attempt).await;
    assert_eq!(numbers(&again), [0, 1, 3]);
    assert_eq!(find(ACCOUNT, &[key]).await, [0, 1, 3]);
}

fn orphan(number: u8, traces: Traces) -> Orphan {
    Orphan {
        id: id(number),
        account: ACCOUNT.to_owned(),
        kind: FactKind::Delivered,
        at_ms: START_MS + i64::from(number),
        proves_acceptance: true,
        traces,
        address: Some([7; 16]),
        arrived_at_ms: START_MS,
    }
}

pub(crate) async fn a_report_without_a_message_is_kept_and_looked_at_again(fixture: &dyn Fixture) {
    let world = World::new(fixture).await;
    let sending = world.running_to_crowd(1).await;
    let traces = Traces {
        key: Some(SendKey([1; 16])),
        request_key: Some(SendKey([2; 16])),
        provider_id: Some("m-1".to_owned()),
    };
    let kept = [orphan(1, traces), orphan(2, Traces::default())];
    let done = world.ledger.apply(&[], &kept, world.now_ms()).await.unwrap();
    assert_eq!(done, Applied { applied: 0, duplicates: 0, orphans: 2 });
    let again = world.ledger.apply(&[], &kept, world.now_ms()).await.unwrap();
    assert_eq!(again, Applied { applied: 0, duplicates: 2, orphans: 0 });
    assert!(world.ledger.orphans_due(world.now_ms(), 10).await.unwrap().is_empty());
    world.clock.advance(ORPHAN_LOOKS_MS[0]);
    let mut due = world.ledger.orphans_due(world.now_ms(), 10).await.unwrap();
    due.sort_unstable_by_key(|orphan| orphan.id);
    assert_eq!(due, kept);

    let revisited = Revisited {
        found: vec![sending.report(1, 0, FactKind::Delivered)],
        missed: vec![(id(2), Some(START_MS + ORPHAN_LOOKS_MS[1]))],
    };
    world.ledger.revisit(&revisited, world.now_ms()).await.unwrap();
    assert_eq!(sending.status(0).await, DeliveryStatus::Delivered);
    assert_eq!(sending.progress().await.reported["delivered"], 1);
    assert!(world.ledger.orphans_due(world.now_ms(), 10).await.unwrap().is_empty());
    world.clock.advance(ORPHAN_LOOKS_MS[1]);
    let due = world.ledger.orphans_due(world.now_ms(), 10).await.unwrap();
    assert_eq!(due.iter().map(|orphan| orphan.id).collect::<Vec<_>>(), [id(2)]);
    world.ledger.revisit(&Revisited { found: vec![], missed: vec![(id(2), None)] }, world.now_ms()).await.unwrap();
    world.clock.advance(ORPHAN_LOOKS_MS[1] * 10);
    assert!(world.ledger.orphans_due(world.now_ms(), 10).await.unwrap().is_empty(), "it is not looked at for ever");
}

pub(crate) async fn what_is_too_old_is_forgotten(fixture: &dyn Fixture) {
    let world = World::new(fixture).await;
    let sending = world.running_to_crowd(1).await;
    sending.apply(&[sending.report(1, 0, FactKind::Delivered)]).await;
    world.ledger.apply(&[], &[orphan(2, Traces::default())], world.now_ms()).await.unwrap();
    let (before, after) = (START_MS, START_MS + 1);
    assert_eq!(world.ledger.forget_reports(before, before).await.unwrap(), 0);
    assert_eq!(world.ledger.forget_reports(before, after).await.unwrap(), 1, "the orphan");
    assert_eq!(world.ledger.unseen(&[id(1), id(2)]).await.unwrap().len(), 0);
    assert_eq!(world.ledger.forget_reports(after, after).await.unwrap(), 2);
    assert_eq!(world.ledger.unseen(&[id(1), id(2)]).await.unwrap().len(), 2);
    assert_eq!(sending.status(0).await, DeliveryStatus::Delivered, "what it said stays");
}
