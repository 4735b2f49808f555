//! What RabbitMQ does with nothing around it.

use std::{collections::VecDeque, error::Error, time::Duration};

use dispatch_workers::clock::{Clock as _, SystemClock};
use futures_util::StreamExt as _;
use lapin::{
    BasicProperties, Connection, ConnectionProperties,
    options::{
        BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions, ConfirmSelectOptions,
        QueueDeclareOptions, QueueDeleteOptions,
    },
    types::{AMQPValue, FieldTable},
};

/// Confirms that may be outstanding.
const WINDOW: usize = 2_000;
/// Deliveries acknowledged together.
const ACKED_TOGETHER: usize = 500;
const QUEUE: &str = "dispatch_bench";

/// How long each took.
pub(super) struct Bare {
    pub(super) published: Duration,
    pub(super) consumed: Duration,
    pub(super) together: Duration,
}

pub(super) async fn measure(url: &str, jobs: usize, clock: &SystemClock) -> Result<Bare, Box<dyn Error>> {
    let connection = Connection::connect(url, ConnectionProperties::default()).await?;
    let channel = connection.create_channel().await?;
    let mut arguments = FieldTable::default();
    arguments.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
    channel.queue_declare(QUEUE.into(), QueueDeclareOptions::durable(), arguments).await?;

    let began = clock.monotonic();
    publish(&connection, jobs).await?;
    let published = clock.monotonic().saturating_sub(began);
    let began = clock.monotonic();
    consume(&connection, jobs).await?;
    let consumed = clock.monotonic().saturating_sub(began);
    let began = clock.monotonic();
    tokio::try_join!(publish(&connection, jobs), consume(&connection, jobs))?;
    let together = clock.monotonic().saturating_sub(began);

    channel.queue_delete(QUEUE.into(), QueueDeleteOptions::default()).await?;
    connection.close(200, "measured".into()).await?;
    Ok(Bare { published, consumed, together })
}

async fn publish(connection: &Connection, jobs: usize) -> Result<(), Box<dyn Error>> {
    let channel = connection.create_channel().await?;
    channel.confirm_select(ConfirmSelectOptions::default()).await?;
    let persistent = BasicProperties::default().with_delivery_mode(2);
    let mut open = VecDeque::with_capacity(WINDOW);
    for number in 0..jobs {
        if open.len() == WINDOW
            && let Some(confirm) = open.pop_front()
        {
            let _: lapin::Confirmation = Box::pin(confirm).await?;
        }
        let job = format!(r#"{{"v":1,"campaign":"cmp_0123456789ABC","seq":{number}}}"#);
        let options = BasicPublishOptions::default();
        open.push_back(
            channel.basic_publish("".into(), QUEUE.into(), options, job.as_bytes(), persistent.clone()).await?,
        );
    }
    for confirm in open {
        confirm.await?;
    }
    Ok(())
}

async fn consume(connection: &Connection, jobs: usize) -> Result<(), Box<dyn Error>> {
    let channel = connection.create_channel().await?;
    channel.basic_qos(2 * ACKED_TOGETHER as u16, BasicQosOptions::default()).await?;
    let mut deliveries =
        channel.basic_consume(QUEUE.into(), "".into(), BasicConsumeOptions::default(), FieldTable::default()).await?;
    for number in 1..=jobs {
        let delivery = deliveries.next().await.ok_or("the consumer ended")??;
        if number % ACKED_TOGETHER == 0 || number == jobs {
            channel.basic_ack(delivery.delivery_tag, BasicAckOptions { multiple: true }).await?;
        }
    }
    channel.close(200, "consumed".into()).await?;
    Ok(())
}
