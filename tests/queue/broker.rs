//! A virtual host on the test broker, and looks into it past the queue.

use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use dispatch_engine::{
    queue::{
        Queue as _, RabbitQueue,
        rabbitmq::{Link, Options, Side, topology::RETURNED},
    },
    settings::QueueUrl,
};
use dispatch_schemas::states::{Channel, Lane};
use dispatch_tests::support::wait;
use dispatch_workers::clock::SystemClock;
use lapin::{BasicProperties, Connection, ConnectionProperties, options::QueueDeclareOptions, types::FieldTable};
use reqwest::{Client, Method, Url};
use serde_json::{Value, json};

use crate::{proxy::Proxy, suite::WITHIN};

/// Runs side by side: few, so that little is fetched ahead.
const RUNS: usize = 1;

static NEXT: AtomicU32 = AtomicU32::new(0);

/// A virtual host of one test.
pub(crate) struct Broker {
    amqp: Url,
    management: Url,
    pub(crate) vhost: String,
}

fn variable(name: &str, example: &str) -> Url {
    let Ok(text) = std::env::var(name) else {
        panic!("{name} must name a RabbitMQ broker that tests may use, such as {example}");
    };
    text.parse().unwrap_or_else(|_| panic!("{name} must be a URL, such as {example}"))
}

impl Broker {
    pub(crate) async fn new() -> Self {
        let amqp = variable("DISPATCH_TEST_AMQP_URL", "amqp://guest:guest@127.0.0.1:5672");
        let management = variable("DISPATCH_TEST_RABBITMQ_MANAGEMENT_URL", "http://guest:guest@127.0.0.1:15672");
        let vhost = format!("dispatch-test-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let broker = Self { amqp, management, vhost };
        broker.manage(Method::PUT, &format!("vhosts/{}", broker.vhost), Some(json!({}))).await;
        let user = broker.amqp.username().to_owned();
        let all = json!({"configure": ".*", "write": ".*", "read": ".*"});
        broker.manage(Method::PUT, &format!("permissions/{}/{user}", broker.vhost), Some(all)).await;
        broker
    }

    /// One call of the management API.
    pub(crate) async fn manage(&self, method: Method, path: &str, body: Option<Value>) -> Value {
        manage(&self.management, method, path, body).await
    }

    /// The URL of the virtual host, at another port if a proxy stands before it.
    pub(crate) fn url(&self, port: Option<u16>) -> QueueUrl {
        let mut url = self.amqp.clone();
        url.set_path(&self.vhost);
        url.set_port(port.or_else(|| self.amqp.port())).unwrap();
        url.as_str().parse().unwrap()
    }

    /// The same for another user.
    pub(crate) fn url_of(&self, user: &str, password: &str) -> QueueUrl {
        let mut url = self.amqp.clone();
        url.set_path(&self.vhost);
        url.set_username(user).unwrap();
        url.set_password(Some(password)).unwrap();
        url.as_str().parse().unwrap()
    }

    /// The URL of the virtual host as a person writes it.
    pub(crate) fn plain_url(&self) -> String {
        let mut url = self.amqp.clone();
        url.set_path(&self.vhost);
        url.into()
    }

    pub(crate) fn address(&self) -> String {
        format!("{}:{}", self.amqp.host_str().unwrap(), self.amqp.port().unwrap_or(5_672))
    }

    pub(crate) fn options(&self, side: Side, capacity: usize, url: &QueueUrl) -> Options {
        Options { link: Link::new(url, None, None), side, capacity, runs: RUNS, clock: Arc::new(SystemClock::new()) }
    }

    /// A queue that can be published to, and has told that nothing is known of what was there before.
    pub(crate) async fn scheduler(&self, capacity: usize) -> RabbitQueue {
        self.standing(capacity, &self.url(None)).await
    }

    /// The same, through a proxy.
    pub(crate) async fn scheduler_behind(&self, proxy: &Proxy, capacity: usize) -> RabbitQueue {
        self.standing(capacity, &self.url(Some(proxy.port()))).await
    }

    /// Either of its connections may find queues missing in a new virtual host and tell of a loss: both have, when the
    /// one that consumes listens and the one that publishes has room.
    async fn standing(&self, capacity: usize, url: &QueueUrl) -> RabbitQueue {
        let before = self.listening().await;
        let queue = RabbitQueue::start(self.options(Side::Scheduler, capacity, url));
        wait::until("it listens", WITHIN, async || (!self.listening().await.is_subset(&before)).then_some(())).await;
        ready(&queue).await;
        queue
    }

    /// The queues of the schedulers that listen for what workers give back.
    async fn listening(&self) -> HashSet<String> {
        let bindings = self.manage(Method::GET, &format!("bindings/{}", self.vhost), None).await;
        let bindings = bindings.as_array().expect("bindings are a list");
        let own = bindings.iter().filter(|binding| binding["source"] == RETURNED);
        own.map(|binding| binding["destination"].to_string()).collect()
    }

    /// The queue of a process that works only.
    pub(crate) fn worker(&self) -> RabbitQueue {
        RabbitQueue::start(self.options(Side::Worker, 1_000, &self.url(None)))
    }

    /// A connection of an outsider.
    pub(crate) async fn outsider(&self) -> lapin::Channel {
        let mut url = self.amqp.clone();
        url.set_path(&self.vhost);
        let connection = Connection::connect(url.as_str(), ConnectionProperties::default()).await.unwrap();
        connection.create_channel().await.unwrap()
    }

    /// Puts any message into a queue.
    pub(crate) async fn put(&self, queue: &str, body: &[u8]) {
        let properties = BasicProperties::default().with_delivery_mode(2);
        let channel = self.outsider().await;
        channel.confirm_select(lapin::options::ConfirmSelectOptions::default()).await.unwrap();
        let options = lapin::options::BasicPublishOptions { mandatory: true, ..Default::default() };
        let confirm = channel.basic_publish("".into(), queue.into(), options, body, properties).await.unwrap();
        let confirm = confirm.await.unwrap();
        assert!(confirm.is_ack() && confirm.take_message().is_none(), "{queue} takes it");
    }

    /// Messages in a queue that nobody has.
    pub(crate) async fn depth(&self, queue: &str) -> u32 {
        depth(&self.outsider().await, queue).await
    }

    /// Waits until so many messages are in a queue.
    pub(crate) async fn holds(&self, queue: &str, messages: u32) {
        let channel = self.outsider().await;
        let what = format!("{queue} holds {messages}");
        wait::until(&what, WITHIN, async || (depth(&channel, queue).await == messages).then_some(())).await;
    }
}

async fn depth(channel: &lapin::Channel, queue: &str) -> u32 {
    let passive = QueueDeclareOptions::default().passive();
    channel.queue_declare(queue.into(), passive, FieldTable::default()).await.unwrap().message_count()
}

/// Waits until jobs can be published.
pub(crate) async fn ready(queue: &RabbitQueue) {
    wait::until("the queue takes jobs", WITHIN, async || (queue.room(Channel::Email, Lane::Bulk) > 0).then_some(()))
        .await;
    // Both connections find the queues missing in an empty virtual host.
    wait::until("both connections stand", WITHIN, async || queue.trouble().is_none().then_some(())).await;
    tokio::time::timeout(WITHIN, async {
        while !queue.take_lost() {
            queue.changed().await;
        }
    })
    .await
    .expect("a new connection says that jobs may be lost");
}

async fn manage(at: &Url, method: Method, path: &str, body: Option<Value>) -> Value {
    let mut url = at.clone();
    let user = url.username().to_owned();
    let password = url.password().map(str::to_owned);
    url.set_username("").unwrap();
    url.set_password(None).unwrap();
    let mut request = Client::new().request(method, format!("{}api/{path}", url.as_str())).basic_auth(user, password);
    if let Some(body) = body {
        request = request.header("content-type", "application/json").body(body.to_string());
    }
    let answer = request.timeout(Duration::from_secs(20)).send().await.expect("the management API answers");
    assert!(answer.status().is_success(), "{path}: {}", answer.status());
    serde_json::from_str(&answer.text().await.unwrap()).unwrap_or(Value::Null)
}

impl Drop for Broker {
    fn drop(&mut self) {
        let (management, path) = (self.management.clone(), format!("vhosts/{}", self.vhost));
        // A thread of its own, because this runs within the test's runtime.
        let removed = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(manage(&management, Method::DELETE, &path, None));
        });
        if removed.join().is_err() && !std::thread::panicking() {
            panic!("the virtual host {} could not be removed", self.vhost);
        }
    }
}
