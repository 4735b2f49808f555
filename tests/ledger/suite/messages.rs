//! Single messages: deliveries of a stream that always runs.

use dispatch_engine::ledger::{MessageTerms, Once, Replayable, Result, SealedMessage, Verdict};
use dispatch_schemas::{
    api::templates::{NewTemplate, StoredTemplate},
    ids::CampaignId,
    states::{Channel, DeliveryState, Purpose, StopReason},
};
use dispatch_workers::sealing::Column;

use super::{
    Fixture,
    people::email,
    sending::{ACCOUNT, accepted, content, deferred, numbers},
    world::World,
};

const ANNA: &str = "anna@example.org";

impl World {
    pub(super) async fn template(&self) -> StoredTemplate {
        let new = NewTemplate { name: "receipt".to_owned(), source: content(Channel::Email) };
        self.ledger.create_template(self.tenant, &new, None).await.unwrap().value
    }

    async fn message(&self, template: &StoredTemplate, to: &str, once: Option<&Once>) -> Replayable<(CampaignId, i64)> {
        self.try_message(template, to, once).await.unwrap()
    }

    pub(super) async fn try_message(
        &self,
        template: &StoredTemplate,
        to: &str,
        once: Option<&Once>,
    ) -> Result<Replayable<(CampaignId, i64)>> {
        let id = self.ledger.contact_ids(1).await.unwrap();
        let message = SealedMessage {
            address_hash: self.email(to),
            channel: Channel::Email,
            contact: self.sealed(id, &email(to)),
            variables: br#"{"order":"17"}"#.to_vec(),
        };
        let terms = MessageTerms { source: self.source, purpose: Purpose::Service, account: ACCOUNT.to_owned() };
        self.ledger.create_message(self.tenant, template, &terms, message, once).await
    }
}

pub(crate) async fn a_message_is_ready_when_its_call_returns(fixture: &dyn Fixture) {
    let world = World::new(fixture).await;
    let template = world.template().await;
    let (campaign, seq) = world.message(&template, ANNA, None).await.value;
    let sending = world.sending(campaign).await;
    let claimed = sending.claim(&[seq]).await;
    let contact = claimed.deliveries[0].contact.as_ref().unwrap();
    let key = world.keys.open_contact(contact.id, &contact.key).unwrap();
    assert_eq!(key.open(Column::Email, &contact.address).unwrap(), ANNA.as_bytes());
    assert_eq!(key.open(Column::Message, contact.message.as_ref().unwrap()).unwrap(), br#"{"order":"17"}"#);
    sending.record_all(claimed.attempt.unwrap(), &[seq], &accepted()).await;
    let status = world.ledger.message(world.tenant, campaign, seq).await.unwrap();
    assert_eq!((status.state, status.detail.as_deref()), (DeliveryState::Accepted, Some("answer")));
    assert!(world.ledger.campaigns(world.tenant, None, 10).await.unwrap().is_empty(), "a stream is not shown");
    assert!(world.ledger.lists(world.tenant).await.unwrap().is_empty());
}

pub(crate) async fn a_person_written_to_twice_is_stored_once(fixture: &dyn Fixture) {
    let mut world = World::new(fixture).await;
    let template = world.template().await;
    let first = world.message(&template, ANNA, None).await.value;
    let second = world.message(&template, ANNA, None).await.value;
    let other = world.message(&template, "ben@example.org", None).await.value;
    assert_eq!((first.0, first.1, second.1, other.1), (second.0, 0, 1, 2));
    let sending = world.sending(first.0).await;
    let claimed = sending.claim(&[0, 1, 2]).await;
    let people: Vec<_> = claimed.deliveries.iter().map(|delivery| delivery.contact.as_ref().unwrap().id).collect();
    assert!(people[0] == people[1] && people[1] != people[2]);
    let owner = world.tenant;
    world.become_tenant("second").await;
    assert!(world.ledger.message(world.tenant, first.0, 0).await.is_err());
    assert!(world.ledger.message(owner, first.0, 0).await.is_ok());
}

pub(crate) async fn a_message_repeated_with_its_key_is_sent_once(fixture: &dyn Fixture) {
    let world = World::new(fixture).await;
    let template = world.template().await;
    let once = Once { route: "POST /v1/messages", key: "order-17".to_owned(), fingerprint: [1; 32] };
    let first = world.message(&template, ANNA, Some(&once)).await;
    let again = world.message(&template, ANNA, Some(&once)).await;
    assert!(again.replayed && again.value == first.value);
    assert_eq!(world.place.counts(first.value.0).await.audience, 1);
    assert_eq!(world.place.variables().await, 1);
}

pub(crate) async fn the_variables_of_a_message_go_with_its_end(fixture: &dyn Fixture) {
    let world = World::new(fixture).await;
    let template = world.template().await;
    let campaign = world.message(&template, ANNA, None).await.value.0;
    for _ in 0..3 {
        world.message(&template, ANNA, None).await;
    }
    let sending = world.sending(campaign).await;
    let attempt = sending.claim_all(&[0, 1]).await;
    sending.record(attempt, &[(0, accepted()), (1, deferred(world.now_ms() + 10))]).await;
    assert_eq!(world.place.variables().await, 3, "what is tried again needs them");
    let lost = sending.lose_all(&[2]).await;
    assert_eq!(world.place.variables().await, 3);
    sending.settle_all(lost, &[2], &Verdict::Final).await;
    assert_eq!(world.place.variables().await, 2);
    world.ledger.erase(world.tenant, &[(Channel::Email, world.email(ANNA))]).await.unwrap();
    assert!(sending.claim(&[3]).await.attempt.is_none());
    assert_eq!(world.place.variables().await, 1);
}

pub(crate) async fn a_message_behind_a_closed_gate_is_stopped(fixture: &dyn Fixture) {
    let world = World::new(fixture).await;
    let template = world.template().await;
    let gates = [world.email(ANNA)];
    let close = |reason| world.ledger.close_gates(world.tenant, Channel::Email, &gates, reason);
    close(StopReason::Unsubscribed).await.unwrap();
    let (campaign, seq) = world.message(&template, ANNA, None).await.value;
    let sending = world.sending(campaign).await;
    assert_eq!(numbers(&sending.claim(&[seq]).await), [seq], "a service message passes an opt-out");
    close(StopReason::HardBounced).await.unwrap();
    let (_, seq) = world.message(&template, ANNA, None).await.value;
    assert!(sending.claim(&[seq]).await.attempt.is_none());
    let status = world.ledger.message(world.tenant, campaign, seq).await.unwrap();
    assert_eq!((status.state, status.detail.as_deref()), (DeliveryState::Stopped, Some("hard_bounced")));
}
