//! Messages nobody can work on: set aside, never looping, to be looked at, put back or dropped.

use dispatch_engine::queue::{
    Queue as _,
    rabbitmq::{
        Link,
        set_aside::{Outcome, Reason, SetAside},
    },
};
use dispatch_schemas::states::Lane;
use lapin::options::{BasicGetOptions, BasicPublishOptions};

use crate::{
    broker::Broker,
    suite::{batch, take, take_all},
};

const BULK: &str = "dispatch.email.bulk";
const ASIDE: &str = "dispatch.set_aside";

async fn set_aside(broker: &Broker) -> SetAside {
    SetAside::open(Link::new(&broker.url(None), None, None)).await.unwrap()
}

#[tokio::test]
async fn what_is_no_job_is_set_aside_and_others_go_on() {
    let broker = Broker::new().await;
    let queue = broker.scheduler(1_000).await;
    let huge = vec![b'x'; 300_000];
    for garbage in [b"canary@example.eu".as_slice(), b"", &huge, br#"{"v":1,"c":1,"s":1,"to":"canary@example.eu"}"#] {
        broker.put(BULK, garbage).await;
    }
    broker.put(BULK, br#"{"v":2,"c":5,"s":6}"#).await;
    queue.publish(batch(1, Lane::Bulk, [0]));
    assert_eq!(take_all(&queue, 1).await, [(1, 0)]);
    broker.holds(ASIDE, 5).await;

    let aside = set_aside(&broker).await;
    assert_eq!(aside.count().await.unwrap(), [(Reason::Malformed, 4), (Reason::UnknownVersion, 1)].into());
    let list = aside.list(10).await.unwrap();
    assert!(!format!("{list:?}").contains("canary"));
    assert!(list.iter().all(|kept| kept.queue.as_deref() == Some(BULK) && kept.at_ms.is_some_and(|at| at > 0)));
    assert!(list.iter().any(|kept| kept.bytes == 300_000));
    assert_eq!(aside.list(2).await.unwrap().len(), 2);
    // What was not ours to keep is gone from the broker too.
    broker.holds(ASIDE, 5).await;
    let channel = broker.outsider().await;
    while let Some(kept) = channel.basic_get(ASIDE.into(), BasicGetOptions::default()).await.unwrap() {
        assert!(kept.data.is_empty() || kept.data == br#"{"v":2,"c":5,"s":6}"#);
    }
    queue.close();
    queue.finish().await;
    assert_eq!(broker.depth(BULK).await, 0, "and none of them is in the queue any more");
}

#[tokio::test]
async fn jobs_of_a_campaign_that_is_gone_can_be_put_back_and_are_taken_again() {
    let broker = Broker::new().await;
    let queue = broker.scheduler(1_000).await;
    broker.put(BULK, b"garbage").await;
    queue.publish(batch(9, Lane::Bulk, [3]));
    take(&queue, Lane::Bulk).await.receipt.gone();
    broker.holds(ASIDE, 2).await;

    let aside = set_aside(&broker).await;
    let list = aside.list(10).await.unwrap();
    let gone = list.iter().find(|kept| kept.reason == Reason::CampaignGone).expect("it is listed");
    assert_eq!((gone.campaign, gone.seq, gone.replayable), (Some(9), Some(3), true));
    assert_eq!(aside.replay(Some(Reason::Malformed)).await.unwrap(), Outcome { done: 0, left: 2 });
    assert_eq!(aside.replay(None).await.unwrap(), Outcome { done: 1, left: 1 });
    assert_eq!(take_all(&queue, 1).await, [(9, 3)]);
    assert_eq!(aside.drop(Some(Reason::CampaignGone)).await.unwrap(), Outcome { done: 0, left: 1 });
    assert_eq!(aside.drop(None).await.unwrap(), Outcome { done: 1, left: 0 });
    broker.holds(ASIDE, 0).await;
    assert_eq!(aside.count().await.unwrap(), [].into());
}

#[tokio::test]
async fn a_job_that_kills_its_worker_again_and_again_is_set_aside_by_the_broker() {
    let broker = Broker::new().await;
    let queue = broker.scheduler(1_000).await;
    queue.publish(batch(4, Lane::Bulk, [2]));
    broker.holds(BULK, 1).await;
    let mut deliveries = 0;
    loop {
        let channel = broker.outsider().await;
        // A consumer that goes without a word, as a process that is killed does.
        match channel.basic_get(BULK.into(), BasicGetOptions::default()).await.unwrap() {
            Some(_) => deliveries += 1,
            None if broker.depth(ASIDE).await == 1 => break,
            None => {}
        }
        channel.close(200, "killed".into()).await.unwrap();
        assert!(deliveries <= 30, "it goes round and round");
    }
    let list = set_aside(&broker).await.list(10).await.unwrap();
    let [kept] = list.as_slice() else { panic!("one message: {list:?}") };
    assert_eq!((kept.reason, kept.queue.as_deref()), (Reason::DeliveryLimit, Some(BULK)));
    assert_eq!((kept.campaign, kept.seq, kept.replayable), (Some(4), Some(2), true));
    assert!(kept.at_ms.is_some());
}

#[tokio::test]
async fn a_message_with_headers_of_its_own_making_is_looked_at_without_harm() {
    let broker = Broker::new().await;
    let _queue = broker.scheduler(10).await;
    let channel = broker.outsider().await;
    let mut headers = lapin::types::FieldTable::default();
    headers.insert("reason".into(), lapin::types::AMQPValue::LongString("canary".into()));
    headers.insert("queue".into(), lapin::types::AMQPValue::LongString("someone.elses".into()));
    headers.insert("at_ms".into(), lapin::types::AMQPValue::Boolean(true));
    headers.insert("x-death".into(), lapin::types::AMQPValue::FieldArray(Vec::new().into()));
    let properties = lapin::BasicProperties::default().with_headers(headers);
    let options = BasicPublishOptions::default();
    let body = br#"{"v":1,"c":1,"s":1}"#;
    channel.basic_publish("".into(), ASIDE.into(), options, body, properties).await.unwrap().await.unwrap();
    broker.holds(ASIDE, 1).await;
    let aside = set_aside(&broker).await;
    let list = aside.list(10).await.unwrap();
    assert_eq!((list[0].reason, &list[0].queue, list[0].replayable), (Reason::Unknown, &None, false));
    assert_eq!(aside.replay(None).await.unwrap(), Outcome { done: 0, left: 1 }, "nothing is put into another's queue");
}
