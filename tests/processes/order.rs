//! Processes that are there before what they need.

use dispatch_engine::{
    engine::open_ledger,
    ledger::postgres::{PostgresLedger, connect_options},
};
use dispatch_schemas::states::DeliveryState;
use dispatch_tests::support::{
    engine_process::EngineProcess,
    people::People,
    platform::{Platform, count},
    services::{Service, Services},
    stage::Account,
    wait,
};

use crate::fleet::{Ground, TENANT, WITHIN};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn processes_wait_for_what_they_need_whatever_comes_first() {
    const RECIPIENTS: usize = 200;
    let services = tokio::task::spawn_blocking(Services::start).await.unwrap();
    let url = |service| services.url(service).to_string();
    let ground = Ground::new(&[Account::new("sendgrid")], &url(Service::Postgres), &url(Service::RabbitMq));
    for service in Service::ALL {
        services.stop(service).await;
    }
    let mut processes: Vec<EngineProcess> = (0..2).map(|nth| ground.start(nth, "worker")).collect();
    says(&processes, "cannot be reached").await;

    services.start_again(Service::Postgres).await;
    says(&processes, "run `dispatch migrate`").await;
    processes.push(ground.start(2, "scheduler"));
    says(&processes[2..], "run `dispatch migrate`").await;

    let options = connect_options(services.url(Service::Postgres).as_str()).unwrap();
    PostgresLedger::migrate(&options, wait::now_ms()).await.unwrap();
    // All of them make the ledger's key now, or find the one that another has made.
    says(&processes, "queue: ").await;
    processes.push(ground.start(3, "api"));
    processes[3].ready().await;
    let opened = open_ledger(&ground.settings()).await.unwrap();
    let platform = Platform::new(&opened, TENANT).await;
    let campaign = platform.campaign_to(People::by_email("reader", RECIPIENTS), "sendgrid", |_| {}).await;
    platform.launch(campaign).await;

    services.start_again(Service::RabbitMq).await;
    for process in &processes {
        process.ready().await;
    }
    let end = wait::until("the campaign completes", WITHIN, async || platform.completed(campaign).await).await;
    assert_eq!(count(&end, DeliveryState::Accepted), RECIPIENTS as u64, "{end:?}");
    assert_eq!(ground.stage.sandbox.accepted(), RECIPIENTS);
    opened.ledger.close().await;
    for process in processes {
        assert!(tokio::task::block_in_place(|| process.terminate()).success());
    }
}

/// Waits until each of them says in `/readyz` that it is not ready, with this in it.
async fn says(processes: &[EngineProcess], words: &str) {
    for process in processes {
        wait::until(&format!("it waits: {words}"), WITHIN, async || {
            let answer = reqwest::get(process.url("/readyz")).await.ok()?;
            let is_ready = answer.status().is_success();
            let text = answer.text().await.ok()?;
            (!is_ready && text.contains(words)).then_some(())
        })
        .await;
    }
}
