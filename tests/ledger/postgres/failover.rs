//! The server's identity: a failover or a restore elsewhere is noticed by it, with and without a second place.

use std::sync::Arc;

use dispatch_engine::quarantine::{Standing, Warden};
use dispatch_schemas::states::DeliveryState;
use dispatch_workers::delivery::Timing;

use crate::{
    InSchemas, change, engine,
    suite::{sending::numbers, world::World},
};

impl World {
    /// As if the ledger had been on another server until now.
    async fn came_from(&self, server: &str) {
        let mut conn = engine(&self.schema()).await;
        change(&mut conn, format!("UPDATE ledger_epoch SET server = '{server}'")).await;
    }
}

#[tokio::test]
async fn on_another_server_nothing_is_claimed_before_anybody_has_looked() {
    let world = World::new(&InSchemas).await;
    let sending = world.running_to_crowd(2).await;
    sending.claim_all(&[0]).await;
    world.came_from("7000000000000000000/00000001").await;
    assert!(world.ledger.epoch().await.unwrap().is_held());
    assert!(numbers(&sending.claim(&[1]).await).is_empty());
    assert_eq!(world.ledger.move_head().await.unwrap(), 0);
}

#[tokio::test]
async fn on_another_server_what_could_have_been_sent_is_doubted_once() {
    let world = World::new(&InSchemas).await;
    let sending = world.running_to_crowd(2).await;
    world.came_from("7000000000000000000/00000001").await;
    let (ledger, standing) = (world.ledger.clone(), Arc::new(Standing::default()));
    let warden = Warden::new(ledger, world.clock.clone(), Timing::default(), standing.clone());
    // A process that lives through a failover: it did not start on the new server.
    warden.beat().await.unwrap();
    assert!(standing.quarantine().unwrap().reason.contains("another server"));
    warden.beat().await.unwrap();
    assert_eq!(standing.quarantine(), None);
    sending.assert_states(&[(DeliveryState::Unknown, 2)]).await;
    assert!(!world.ledger.epoch().await.unwrap().is_held());
    warden.look().await.unwrap();
    assert_eq!(standing.quarantine(), None, "the server is the ledger's from then on");
}
