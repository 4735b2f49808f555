//! What is declared on the broker.

use std::{collections::BTreeSet, path::PathBuf};

use dispatch_engine::queue::{
    Queue as _, RabbitQueue,
    rabbitmq::{Side, topology},
};
use dispatch_schemas::states::{Channel, Lane};
use dispatch_tests::support::wait;
use lapin::{
    options::QueueDeclareOptions,
    types::{AMQPValue, FieldTable},
};
use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    broker::Broker,
    suite::{WITHIN, batch, returned, take, take_all},
};

fn file(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../config/rabbitmq").join(name)
}

#[test]
fn the_checked_in_definitions_are_what_the_program_declares() {
    let declared = serde_json::to_string_pretty(&topology::definitions()).unwrap() + "\n";
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(file("definitions.json"), &declared).unwrap();
    }
    let checked_in = std::fs::read_to_string(file("definitions.json")).unwrap();
    assert_eq!(checked_in, declared, "run: BLESS=1 cargo test -p dispatch-tests --test queue definitions");
}

/// What the broker has, without what RabbitMQ adds by itself.
async fn on_the_broker(broker: &Broker) -> Value {
    let mut found = broker.manage(Method::GET, &format!("definitions/{}", broker.vhost), None).await;
    let mut sorted = serde_json::Map::new();
    for part in ["exchanges", "queues", "bindings"] {
        let mut items = found[part].as_array_mut().map(std::mem::take).unwrap_or_default();
        let own = |item: &Value| {
            item["name"].as_str().or_else(|| item["destination"].as_str()).is_some_and(|name| !name.starts_with("amq."))
        };
        items.retain(own);
        for item in &mut items {
            // Some versions say the type beside the arguments too.
            item.as_object_mut().unwrap().remove("type").filter(|_| part == "queues");
        }
        items.sort_by_key(|item| item["name"].to_string() + &item["destination"].to_string());
        sorted.insert(part.to_owned(), items.into());
    }
    sorted.into()
}

#[tokio::test]
async fn the_broker_has_what_the_definitions_say_whichever_way_it_came_there() {
    let (declared, imported) = (Broker::new().await, Broker::new().await);
    let queue = declared.scheduler(10).await;
    let definitions: Value = serde_json::from_slice(&std::fs::read(file("definitions.json")).unwrap()).unwrap();
    imported.manage(Method::POST, &format!("definitions/{}", imported.vhost), Some(definitions)).await;
    assert_eq!(on_the_broker(&declared).await, on_the_broker(&imported).await);
    let over_it = imported.scheduler(10).await;
    assert_eq!((queue.trouble(), over_it.trouble()), (None, None));
}

#[tokio::test]
async fn a_queue_of_the_wrong_type_is_named_with_what_to_do() {
    let broker = Broker::new().await;
    let channel = broker.outsider().await;
    let classic =
        channel.queue_declare("dispatch.email.bulk".into(), QueueDeclareOptions::durable(), FieldTable::default());
    classic.await.unwrap();
    let queue = RabbitQueue::start(broker.options(Side::Scheduler, 10, &broker.url(None)));
    let trouble = wait::until("the trouble is told", WITHIN, async || queue.trouble()).await;
    assert!(trouble.contains("dispatch.email.bulk") && trouble.contains("delete it"), "{trouble}");
    assert_eq!(queue.room(Channel::Email, Lane::Bulk), 0);
    // What it says to do, mends it.
    channel.queue_delete("dispatch.email.bulk".into(), lapin::options::QueueDeleteOptions::default()).await.unwrap();
    crate::broker::ready(&queue).await;
}

#[tokio::test]
async fn a_job_is_a_persistent_message_of_ids() {
    let broker = Broker::new().await;
    let queue = broker.scheduler(10).await;
    queue.publish(batch(7, Lane::Bulk, [3]));
    broker.holds("dispatch.email.bulk", 1).await;
    let channel = broker.outsider().await;
    let got = channel.basic_get("dispatch.email.bulk".into(), lapin::options::BasicGetOptions::default()).await;
    let message = got.unwrap().expect("there is one");
    assert_eq!(message.data, br#"{"v":1,"c":7,"s":3}"#);
    assert_eq!(message.properties.delivery_mode(), &Some(2));
    assert_eq!(message.properties.headers().as_ref().and_then(|h| h.inner().get("to")), None::<&AMQPValue>);
}

#[tokio::test]
async fn the_permissions_that_the_guide_gives_are_enough() {
    let broker = Broker::new().await;
    let guide = std::fs::read_to_string(file("README.md")).unwrap();
    let line = guide.lines().find(|line| line.contains("set_permissions")).expect("the guide sets permissions");
    let quoted: Vec<&str> = line.split('\'').skip(1).step_by(2).collect();
    let [configure, write, read] = quoted.as_slice() else { panic!("three permissions: {line}") };
    let user = &broker.vhost;
    broker.manage(Method::PUT, &format!("users/{user}"), Some(json!({"password": "p", "tags": ""}))).await;
    let permissions = json!({"configure": configure, "write": write, "read": read});
    broker.manage(Method::PUT, &format!("permissions/{user}/{user}"), Some(permissions)).await;
    let queue = RabbitQueue::start(broker.options(Side::Scheduler, 10, &broker.url_of(user, "p")));
    let stands = async || (queue.room(Channel::Email, Lane::Bulk) > 0 || queue.trouble().is_some()).then_some(());
    wait::until("it connects", WITHIN, stands).await;
    queue.publish(batch(1, Lane::Bulk, [1, 2]));
    drop(take(&queue, Lane::Bulk).await);
    let back = returned(&queue, 2).await;
    let trouble = queue.trouble();
    broker.manage(Method::DELETE, &format!("users/{user}"), None).await;
    assert_eq!((back.len(), trouble), (2, None));
}

#[tokio::test]
async fn a_full_queue_refuses_jobs_and_they_come_back() {
    let broker = Broker::new().await;
    let queue = broker.scheduler(1_000).await;
    let mut policy: Value = serde_json::from_slice(&std::fs::read(file("policy.json")).unwrap()).unwrap();
    policy["definition"]["max-length"] = 5.into();
    broker.manage(Method::PUT, &format!("policies/{}/dispatch-length", broker.vhost), Some(policy)).await;
    let applied = async || {
        let path = format!("queues/{}/dispatch.email.bulk", broker.vhost);
        let policy = &broker.manage(Method::GET, &path, None).await["policy"];
        (policy == "dispatch-length").then_some(())
    };
    wait::until("the policy applies", WITHIN, applied).await;
    // The broker begins to refuse a moment after a queue is full, so one burst may pass.
    queue.publish(batch(1, Lane::Bulk, 0..100));
    broker.holds("dispatch.email.bulk", 100).await;
    queue.publish(batch(1, Lane::Bulk, 100..600));
    let mut back = BTreeSet::new();
    wait::until("jobs come back", WITHIN, async || {
        back.extend(queue.take_returned().into_iter().flat_map(|batch| batch.seqs).map(|seq| (1, seq)));
        (back.len() + broker.depth("dispatch.email.bulk").await as usize == 600 && back.len() > 100).then_some(())
    })
    .await;
    let taken = take_all(&queue, 600 - back.len()).await;
    assert!(taken.iter().all(|job| !back.contains(job)), "a job is taken or refused, not both");
}
