//! `dispatch jobs` as a process.

use std::process::{Command, Output};

use dispatch_engine::queue::Queue as _;
use dispatch_schemas::states::Lane;
use dispatch_tests::support::program;
use serde_json::{Value, json};

use crate::{
    broker::Broker,
    suite::{batch, take},
};

async fn jobs(arguments: &[&str], variables: &[(&str, &str)]) -> Output {
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new(program::dispatch());
    command.current_dir(folder.path()).arg("jobs").args(arguments).envs(variables.iter().copied());
    tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
}

fn answer(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[tokio::test]
async fn messages_are_counted_listed_put_back_and_dropped() {
    let broker = Broker::new().await;
    let queue = broker.scheduler(100).await;
    broker.put("dispatch.email.bulk", b"canary").await;
    queue.publish(batch(9, Lane::Bulk, [3]));
    take(&queue, Lane::Bulk).await.receipt.gone();
    broker.holds("dispatch.set_aside", 2).await;
    queue.close();
    queue.finish().await;
    let url = broker.plain_url();
    let with = [("DISPATCH_QUEUE__URL", url.as_str())];

    let counted = jobs(&["count", "--json"], &with).await;
    assert_eq!(serde_json::from_str::<Value>(&answer(&counted)).unwrap(), json!({"malformed": 1, "campaign_gone": 1}));
    let listed = answer(&jobs(&["list"], &with).await);
    assert!(listed.starts_with("REASON") && listed.contains("campaign_gone") && !listed.contains("canary"), "{listed}");
    assert_eq!(answer(&jobs(&["replay", "--queue-url", &url], &[]).await), "1 put back, 1 left.\n");
    assert_eq!(answer(&jobs(&["drop", "--reason", "malformed"], &with).await), "1 dropped, 0 left.\n");
    assert_eq!(answer(&jobs(&["count"], &with).await), "Nothing is set aside.\n");
    broker.holds("dispatch.email.bulk", 1).await;
}

#[tokio::test]
async fn its_exit_codes_say_what_is_wrong_and_never_the_password() {
    let none = "amqp://guest:canary-3@127.0.0.1:1/x";
    for (arguments, code, says) in [
        (vec!["count"], 2, "no broker is named"),
        (vec!["count", "--queue-url", "amqp://guest:canary-3@rabbit.example.com"], 2, "amqps://"),
        (vec!["drop", "--reason", "old", "--queue-url", none], 2, "one of"),
        (vec!["count", "--queue-url", none], 4, "cannot be reached at 127.0.0.1:1"),
    ] {
        let output = jobs(&arguments, &[]).await;
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{error}");
        assert!(error.contains(says) && !error.contains("canary"), "{error}");
    }
}
