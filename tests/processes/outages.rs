//! PostgreSQL and RabbitMQ go away while campaigns run, and RabbitMQ comes back with nothing.

use std::time::Duration;

use dispatch_engine::ledger::postgres::{PostgresLedger, connect_options};
use dispatch_tests::support::{
    people::People,
    services::{Service, Services},
    stage::Account,
    wait,
};

use crate::fleet::{Fleet, Ground, ROLES};

/// Messages a second, of both accounts.
const PER_SECOND: u32 = 40;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn campaigns_go_on_by_themselves_after_short_outages() {
    goes_on_after(Duration::from_secs(3)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "long: two outages of half a minute"]
async fn campaigns_go_on_by_themselves_after_outages_of_half_a_minute() {
    goes_on_after(Duration::from_secs(30)).await;
}

async fn goes_on_after(outage: Duration) {
    let services = tokio::task::spawn_blocking(Services::start).await.unwrap();
    let url = |service| services.url(service).to_string();
    let ledger_url = url(Service::Postgres);
    PostgresLedger::migrate(&connect_options(&ledger_url).unwrap(), wait::now_ms()).await.unwrap();
    let accounts =
        ["brevo", "infobip"].map(|kind| Account { batch: 10, per_second: Some(PER_SECOND / 2), ..Account::new(kind) });
    let ground = Ground::new(&accounts, &ledger_url, &url(Service::RabbitMq));
    let fleet = Fleet::at_work(ground, &ROLES).await;
    // Enough to be in the middle of it each time.
    let recipients = 600;
    let campaigns = [
        fleet.launch(People::by_email("reader", recipients), "brevo").await,
        fleet.launch(People::by_sms("caller", recipients), "infobip").await,
    ];
    let mut sent = 200;
    fleet.accepted(sent).await;
    for service in [Service::Postgres, Service::RabbitMq] {
        services.stop(service).await;
        tokio::time::sleep(outage).await;
        if service == Service::RabbitMq {
            services.wipe_rabbitmq().await;
        }
        services.start_again(service).await;
        sent = fleet.ground.stage.sandbox.accepted();
        assert!(sent < recipients * 2, "it was in the middle of the campaigns");
        fleet.accepted(sent + 50).await;
    }
    for campaign in campaigns {
        fleet.ended(campaign).await;
    }
    fleet.assert_everyone_once(&campaigns, recipients).await;
    fleet.end().await;
}
