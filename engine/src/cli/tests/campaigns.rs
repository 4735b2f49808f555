//! `dispatch campaign`.

use std::net::SocketAddr;

use clap::Parser as _;
use serde_json::{Value, json};

use super::{Cli, CliError, Printed, Served};
use crate::api::{
    server,
    tests::world::{World, campaign},
};

#[tokio::test]
async fn campaigns_are_listed_page_by_page() {
    let served = Served::new().await;
    let list = served.world.filled_list("people", 1).await;
    for _ in 0..3 {
        served.world.clock.advance(std::time::Duration::from_secs(1));
        served.world.post("/v1/campaigns", &campaign(&[&list])).await.good();
    }
    let said = served.run(&["campaign", "list", "--limit", "2"]).await.unwrap();
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!((lines.len(), lines[0].split_whitespace().next()), (4, Some("ID")), "{said}");
    let cursor = lines[3].rsplit(' ').next().unwrap();
    assert!(lines[3].starts_with("Go on with: dispatch campaign list --limit 2 --cursor"), "{said}");
    let rest = served.run(&["campaign", "list", "--limit", "2", "--cursor", cursor, "--json"]).await.unwrap();
    let rest: Value = serde_json::from_str(&rest).unwrap();
    assert_eq!((rest["data"].as_array().unwrap().len(), &rest["next_cursor"]), (1, &Value::Null));
    for line in
        [&["campaign", "list", "--limit", "0"][..], &["campaign", "recipients", "cmp_0000000000007", "--limit", "0"]]
    {
        let refused = Cli::try_parse_from([&["dispatch"], line].concat()).unwrap_err().to_string();
        assert!(refused.contains("1..="), "{refused}");
    }
}

#[tokio::test]
async fn a_watch_ends_where_a_person_is_wanted_and_says_for_what() {
    let served = Served::new().await;
    let list = served.world.filled_list("people", 1).await;
    let id = served.world.post("/v1/campaigns", &campaign(&[&list])).await.good()["id"].as_str().unwrap().to_owned();
    let watch = ["campaign", "status", "--watch", &id];
    let (said, outcome) = served.say(&watch).await;
    assert!(said.contains("draft"), "{said}");
    assert!(
        matches!(&outcome, Err(CliError::Failed(text)) if text.contains(&format!("dispatch campaign launch {id}")))
    );
    served.run(&["campaign", "launch", &id]).await.unwrap();
    served.run(&["campaign", "pause", &id]).await.unwrap();
    let (said, outcome) = served.say(&watch).await;
    assert!(said.contains("paused: operator"), "{said}");
    assert!(
        matches!(&outcome, Err(CliError::Failed(text)) if text.contains(&format!("dispatch campaign resume {id}")))
    );
    assert!(served.run(&["campaign", "status", &id]).await.is_ok());
}

#[tokio::test]
async fn a_watch_outlives_a_restart_of_the_engine() {
    let world = World::new().await;
    let list = world.filled_list("people", 1).await;
    let id = world.post("/v1/campaigns", &campaign(&[&list])).await.good()["id"].as_str().unwrap().to_owned();
    world.post_once(&format!("/v1/campaigns/{id}/launch"), "k", &json!({})).await.good();
    let listener = server::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let first = tokio::spawn(server::serve(listener, world.router.clone(), async { drop(stopped.await) }));
    let served = Served::of(world, format!("http://{address}"));

    let printed = Printed::default();
    let watch = ["campaign", "status", "--watch", "--json", &id];
    let restart = async {
        while printed.text().is_empty() {
            tokio::task::yield_now().await;
        }
        stop.send(()).unwrap();
        first.await.unwrap();
        // Between the two, somebody hangs up on at least one look.
        let gone = server::bind(address).await.unwrap();
        drop(gone.accept().await.unwrap());
        drop(gone);
        served.world.post(&format!("/v1/campaigns/{id}/pause"), &json!({})).await.good();
        let listener = server::bind(address).await.unwrap();
        tokio::spawn(server::serve(listener, served.world.router.clone(), std::future::pending()));
    };
    let (outcome, ()) = tokio::join!(served.run_into(&watch, &printed), restart);
    assert!(matches!(&outcome, Err(CliError::Failed(text)) if text.contains("is paused")), "{outcome:?}");
    let last: Value = serde_json::from_str(printed.text().lines().last().unwrap()).unwrap();
    assert_eq!(last["state"], "paused");
}

#[tokio::test]
async fn a_cancelled_draft_is_told_from_one_that_was_launched() {
    let served = Served::new().await;
    let list = served.world.filled_list("people", 1).await;
    let id = served.world.post("/v1/campaigns", &campaign(&[&list])).await.good()["id"].as_str().unwrap().to_owned();
    let early = served.run(&["campaign", "retry", &id]).await.unwrap_err().to_string();
    assert!(early.contains("a campaign that is draft cannot be retried"), "{early}");
    served.run(&["campaign", "cancel", &id]).await.unwrap();
    let refused = served.run(&["campaign", "launch", &id]).await.unwrap_err().to_string();
    assert!(refused.contains("was cancelled before it was launched") && refused.contains("409"), "{refused}");
}
