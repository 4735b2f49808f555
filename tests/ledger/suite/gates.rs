//! Who must not be written to.

use dispatch_schemas::{
    api::contacts::GatesClosed,
    states::{Channel, DeliveryState, StopReason},
};

use super::{
    Fixture,
    people::{address, crowd, email},
    sending::{accepted, numbers, to},
    world::World,
};

impl World {
    /// Closes the e-mail gate of one of the crowd.
    async fn close(&self, number: usize, reason: StopReason) -> GatesClosed {
        let gate = self.email(&address(number));
        self.ledger.close_gates(self.tenant, Channel::Email, &[gate], reason).await.unwrap()
    }
}

pub(crate) async fn a_closed_gate_stops_the_delivery_with_its_reason(fixture: &dyn Fixture) {
    let world = World::new(fixture).await;
    let reasons: Vec<_> = StopReason::ALL.iter().filter(|reason| **reason != StopReason::Cancelled).collect();
    let sending = world.running_to_crowd(reasons.len() + 1).await;
    for (number, reason) in reasons.iter().enumerate() {
        world.close(number, **reason).await;
    }
    let seqs: Vec<i64> = (0..=7).collect();
    let last = i64::try_from(reasons.len()).unwrap();
    assert_eq!(numbers(&sending.claim(&seqs).await), [last]);
    for (seq, reason) in (0_i64..).zip(&reasons) {
        sending.assert_stands(seq, DeliveryState::Stopped, reason.as_str()).await;
        assert_eq!(sending.progress().await.reasons[reason.as_str()], 1);
    }
    world.close(reasons.len(), StopReason::Suppressed).await;
    assert!(sending.claim(&seqs).await.attempt.is_none());
}

pub(crate) async fn an_opt_out_from_advertising_does_not_stop_a_service_message(fixture: &dyn Fixture) {
    let world = World::new(fixture).await;
    let list = world.list_of("crowd", &crowd(4)).await;
    world.close(0, StopReason::Unsubscribed).await;
    world.close(1, StopReason::NoConsent).await;
    world.close(2, StopReason::Unsubscribed).await;
    world.close(2, StopReason::Complained).await;
    let service = world.running(&to(&[list]).for_service()).await;
    assert_eq!(numbers(&service.claim(&[0, 1, 2, 3]).await), [0, 1, 3]);
    service.assert_stands(2, DeliveryState::Stopped, "complained").await;
    let marketing = world.running(&to(&[list])).await;
    assert_eq!(numbers(&marketing.claim(&[0, 1, 2, 3]).await), [3]);
}

pub(crate) async fn a_gate_closed_after_a_claim_is_reported_in_flight(fixture: &dyn Fixture) {
    let world = World::new(fixture).await;
    let sending = world.running_to_crowd(5).await;
    let attempt = sending.claim_all(&[0, 1, 2]).await;
    let gates = [world.email(&address(1)), world.email(&address(2)), world.email(&address(4))];
    let close = || world.ledger.close_gates(world.tenant, Channel::Email, &gates, StopReason::Unsubscribed);
    assert_eq!(close().await.unwrap(), GatesClosed { closed: 3, already_closed: 0, in_flight: 2 });
    sending.record_all(attempt, &[0, 1], &accepted()).await;
    assert_eq!(close().await.unwrap(), GatesClosed { closed: 0, already_closed: 3, in_flight: 1 });
    sending.record_all(attempt, &[2], &accepted()).await;
    assert_eq!(close().await.unwrap().in_flight, 0);
    assert_eq!(numbers(&sending.claim(&[3, 4]).await), [3]);
    sending.assert_stands(1, DeliveryState::Accepted, "answer").await;
}

pub(crate) async fn in_flight_counts_one_channel_and_every_campaign(fixture: &dyn Fixture) {
    let world = World::new(fixture).await;
    let anna = email("anna@example.org").with_phone("+33612345678");
    let one = world.list_of("one", &[anna.clone(), email("ben@example.org")]).await;
    let two = world.list_of("two", &[email("ben@example.org"), anna]).await;
    let mails = [world.running(&to(&[one])).await, world.running(&to(&[two])).await];
    let text = world.running(&to(&[one]).by_sms()).await;
    for mail in &mails {
        mail.claim_all(&[0, 1]).await;
    }
    text.claim_all(&[0]).await;
    let mut in_flight = Vec::new();
    for (channel, gate) in [
        (Channel::Email, world.email("anna@example.org")),
        (Channel::Sms, world.phone("+33612345678")),
        (Channel::Email, world.email("nobody@example.org")),
    ] {
        let closed = world.ledger.close_gates(world.tenant, channel, &[gate], StopReason::Complained).await.unwrap();
        in_flight.push(closed.in_flight);
    }
    assert_eq!(in_flight, [2, 1, 0]);
}

pub(crate) async fn a_gate_is_closed_once_per_reason(fixture: &dyn Fixture) {
    let world = World::new(fixture).await;
    let once = GatesClosed { closed: 1, already_closed: 0, in_flight: 0 };
    assert_eq!(world.close(0, StopReason::Suppressed).await, once);
    assert_eq!(world.close(0, StopReason::Suppressed).await, GatesClosed { closed: 0, already_closed: 1, ..once });
    assert_eq!(world.close(0, StopReason::Complained).await, once);
}

pub(crate) async fn an_opened_gate_lets_through_unless_another_reason_holds(fixture: &dyn Fixture) {
    let world = World::new(fixture).await;
    let sending = world.running_to_crowd(2).await;
    for number in [0, 1] {
        world.close(number, StopReason::Suppressed).await;
    }
    world.close(1, StopReason::Complained).await;
    let gates = [world.email(&address(0)), world.email(&address(1)), world.email("nobody@example.org")];
    assert_eq!(world.ledger.open_gates(world.tenant, &gates, StopReason::Unsubscribed).await.unwrap(), 0);
    assert_eq!(world.ledger.open_gates(world.tenant, &gates, StopReason::Suppressed).await.unwrap(), 2);
    assert_eq!(numbers(&sending.claim(&[0, 1]).await), [0]);
    sending.assert_stands(1, DeliveryState::Stopped, "complained").await;
}

pub(crate) async fn a_gate_is_its_tenants_own(fixture: &dyn Fixture) {
    let mut world = World::new(fixture).await;
    let first = world.tenant;
    world.close(0, StopReason::Suppressed).await;
    let hash = world.email(&address(0));
    world.become_tenant("second").await;
    assert_ne!(world.email(&address(0)), hash, "one tenant's hashes say nothing about another's");
    let sending = world.running_to_crowd(1).await;
    // Not even one that knows the hash closes or opens a gate of another.
    let own = world.email(&address(0));
    world.ledger.close_gates(first, Channel::Email, &[own], StopReason::Suppressed).await.unwrap();
    assert_eq!(world.ledger.open_gates(world.tenant, &[hash], StopReason::Suppressed).await.unwrap(), 0);
    assert_eq!(numbers(&sending.claim(&[0]).await), [0]);
    assert!(world.ledger.suppressions(world.tenant, None, 10).await.unwrap().is_empty());
}

pub(crate) async fn suppressions_are_listed_in_pages(fixture: &dyn Fixture) {
    let world = World::new(fixture).await;
    for number in 0..5 {
        world.close(number, StopReason::Suppressed).await;
    }
    world.close(0, StopReason::Complained).await;
    let gate = world.phone("+33612345678");
    world.ledger.close_gates(world.tenant, Channel::Sms, &[gate], StopReason::Unsubscribed).await.unwrap();
    let all = world.ledger.suppressions(world.tenant, None, 100).await.unwrap();
    assert_eq!(all.len(), 7);
    assert_eq!(all.iter().filter(|gate| gate.channel == Channel::Sms).count(), 1);
    assert!(all.iter().all(|gate| gate.closed_at.as_ms() == world.now_ms() && gate.address_hash.len() == 32));

    let mut paged = Vec::new();
    let mut after = None;
    loop {
        let page = world.ledger.suppressions(world.tenant, after, 2).await.unwrap();
        let Some(last) = page.last() else { break };
        let mut hash = [0; 16];
        for (at, byte) in hash.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&last.address_hash[at * 2..at * 2 + 2], 16).unwrap();
        }
        after = Some((dispatch_workers::sealing::AddressHash(hash), last.reason));
        paged.extend(page);
    }
    assert_eq!(paged, all);
}
