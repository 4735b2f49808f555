//! The queue: what every queue must do, and what is RabbitMQ's own.
//!
//! The tests with RabbitMQ need a broker: `DISPATCH_TEST_AMQP_URL` names it, such as `amqp://guest:guest@127.0.0.1:5672`,
//! and `DISPATCH_TEST_RABBITMQ_MANAGEMENT_URL` its management API, such as `http://guest:guest@127.0.0.1:15672`. Each
//! test has a virtual host of its own there, which is gone after it.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "functions of tests; a failed expectation is the failed test"
)]

mod broker;
mod campaign;
mod closing;
mod command;
mod losses;
mod proxy;
mod refusals;
mod setting_aside;
mod speed;
mod suite;
mod topology;

use std::sync::Arc;

use async_trait::async_trait;
use dispatch_engine::queue::{InProcessQueue, Queue};

use broker::Broker;
use suite::Fixture;

struct InProcess;

#[async_trait(?Send)]
impl Fixture for InProcess {
    async fn queue(&self, capacity: usize) -> Arc<dyn Queue> {
        Arc::new(InProcessQueue::new(capacity))
    }
}

#[async_trait(?Send)]
impl Fixture for Broker {
    async fn queue(&self, capacity: usize) -> Arc<dyn Queue> {
        Arc::new(self.scheduler(capacity).await)
    }
}

suite::conformance!(in_process, InProcess);
suite::conformance!(rabbitmq, Broker::new().await);
