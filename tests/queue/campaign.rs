//! A campaign from a SQLite ledger through RabbitMQ, whose queues are emptied, doubled and shuffled meanwhile.

use std::{collections::HashMap, sync::Arc, time::Duration};

use dispatch_engine::{
    engine::{Opened, open_ledger},
    plans::PlanBook,
    queue::{Batch, Queue, RabbitQueue},
    scheduler::{Desk, Scheduler},
    settings::Settings,
};
use dispatch_schemas::{
    ids::CampaignId,
    states::{Channel, Lane},
};
use dispatch_tests::support::{
    checker::{self, Books, Faults},
    people::People,
    platform::Platform,
    stage::{Account, Stage},
    wait,
};
use dispatch_workers::{
    clock::{Clock, SystemClock, TimestampMs},
    delivery::{self, NoJournal, Plane, Recording, work},
    limits::Limits,
    providers::{self, Ingredients},
};
use lapin::options::QueuePurgeOptions;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::broker::Broker;

const RECIPIENTS: usize = 20_000;
/// Far more than is fetched ahead, so that most of it is in the queue.
const WINDOW: usize = 8_000;
const WORKERS: usize = 4;
const COMPLETES_WITHIN: Duration = Duration::from_secs(120);

/// A clock on which the scheduler's patience passes in a second.
struct Hastened(SystemClock);

const HASTE: u32 = 30;

impl Clock for Hastened {
    fn now_ms(&self) -> TimestampMs {
        self.0.now_ms()
    }

    fn monotonic(&self) -> Duration {
        self.0.monotonic() * HASTE
    }
}

/// A scheduler and workers, wired to one queue.
struct Running {
    desk: Arc<Desk>,
    stop: CancellationToken,
    tasks: JoinSet<()>,
}

async fn run(settings: &Settings, opened: &Opened, queue: &Arc<RabbitQueue>) -> Running {
    let Opened { ledger, master, clock, entropy, .. } = opened.clone();
    let limits = Arc::new(Limits::new(clock.clone()));
    let accounts = settings.providers.iter().map(|(name, provider)| {
        let built = providers::build(Ingredients {
            settings: provider.account(),
            secret: provider.secret(name).unwrap(),
            clock: clock.clone(),
            entropy: entropy.clone(),
        });
        let account = delivery::Account::new(name.as_str().into(), built.unwrap(), provider.requests_open_max);
        (name.clone(), Arc::new(account))
    });
    let plans = Arc::new(PlanBook::new(
        ledger.clone(),
        accounts.collect(),
        limits.clone(),
        clock.clone(),
        settings.workers.attempts_max,
        settings.tenants.defaults.limits,
    ));
    let desk = Arc::new(Desk::default());
    let scheduler = Scheduler {
        id: 1,
        key_places: HashMap::new(),
        ledger: ledger.clone(),
        queue: queue.clone(),
        plans: plans.clone(),
        limits: limits.clone(),
        clock: Arc::new(Hastened(SystemClock::new())),
        timing: settings.timing,
        window: settings.queue.clone(),
        desk: desk.clone(),
    };
    let plane = Arc::new(Plane {
        claims: ledger,
        limits,
        clock,
        entropy,
        send_keys: Arc::new(master.send_keys()),
        timing: settings.timing,
        journal: Arc::new(NoJournal),
        recording: Recording::default(),
    });
    let stop = CancellationToken::new();
    let mut tasks = JoinSet::new();
    tasks.spawn(scheduler.run(stop.clone().cancelled_owned()));
    for _ in 0..WORKERS {
        tasks.spawn(work(Channel::Email, Lane::Bulk, queue.clone(), plans.clone(), plane.clone()));
    }
    Running { desk, stop, tasks }
}

/// Takes everything out of the queue, and puts into it what was there before, what is done, and what is not due yet.
async fn disturb(broker: &Broker, queue: &RabbitQueue, campaign: CampaignId, accepted: usize) {
    let purge = broker.outsider().await.queue_purge("dispatch.email.bulk".into(), QueuePurgeOptions::default()).await;
    purge.unwrap();
    let mut seqs: Vec<i64> = (0..(accepted + WINDOW).min(RECIPIENTS) as i64).step_by(7).collect();
    seqs.reverse();
    for chunk in seqs.chunks(100) {
        for _ in 0..2 {
            queue.publish(Batch { campaign, channel: Channel::Email, lane: Lane::Bulk, seqs: chunk.to_vec() });
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_queue_emptied_doubled_and_shuffled_changes_nothing_but_delay() {
    let broker = Broker::new().await;
    let stage = Stage::new(&[Account { batch: 50, ..Account::new("sendgrid") }], "", 1);
    let mut settings = stage.settings();
    settings.queue.window_max = WINDOW;
    // By the scheduler's clock.
    settings.queue.window_seconds *= u64::from(HASTE);
    let opened = open_ledger(&settings).await.expect("the ledger opens");
    let platform = Platform::new(&opened, "shop").await;
    let campaign = platform.campaign_to(People::by_email("reader", RECIPIENTS), "sendgrid", |_| {}).await;
    let queue = Arc::new(broker.scheduler(4 * WINDOW).await);
    let mut running = run(&settings, &opened, &queue).await;
    platform.launch(campaign).await;
    running.desk.restart(campaign);

    for part in [1, 4, 8, 15] {
        wait::until("messages are accepted", COMPLETES_WITHIN, async || {
            (stage.sandbox.accepted() >= RECIPIENTS * part / 16).then_some(())
        })
        .await;
        disturb(&broker, &queue, campaign, stage.sandbox.accepted()).await;
    }
    wait::until("the campaign completes", COMPLETES_WITHIN, async || platform.completed(campaign).await).await;

    running.stop.cancel();
    queue.close();
    while running.tasks.join_next().await.is_some() {}
    queue.finish().await;
    let books = Books::read(platform.ledger(), &stage.ledger_file(), platform.tenant, &[campaign]).await;
    let report = checker::check(&books, &stage.sandbox.lines());
    assert_eq!(report.faults, Faults::default());
    let figures = report.of("sendgrid");
    assert_eq!((figures.accepted, figures.extra), (RECIPIENTS as u64, 0), "everybody once");
    assert_eq!(broker.depth("dispatch.set_aside").await, 0);
}
