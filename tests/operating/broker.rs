//! A virtual host of one test, on the broker of the tests.

use std::{
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use lapin::{
    BasicProperties, Connection, ConnectionProperties,
    options::{BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions},
    types::FieldTable,
};
use reqwest::{Client, Method, Url};
use serde_json::{Value, json};

static NEXT: AtomicU32 = AtomicU32::new(0);

/// A virtual host, gone afterwards.
pub(crate) struct Broker {
    amqp: Url,
    management: Url,
    vhost: String,
}

fn variable(name: &str) -> Url {
    let text = std::env::var(name).unwrap_or_else(|_| panic!("{name} must name a RabbitMQ that tests may use"));
    text.parse().unwrap_or_else(|_| panic!("{name} must be a URL"))
}

impl Broker {
    pub(crate) async fn new() -> Self {
        let vhost = format!("dispatch-operating-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let (amqp, management) =
            (variable("DISPATCH_TEST_AMQP_URL"), variable("DISPATCH_TEST_RABBITMQ_MANAGEMENT_URL"));
        let broker = Self { amqp, management, vhost };
        manage(&broker.management, Method::PUT, &format!("vhosts/{}", broker.vhost), json!({})).await;
        let all = json!({"configure": ".*", "write": ".*", "read": ".*"});
        let path = format!("permissions/{}/{}", broker.vhost, broker.amqp.username());
        manage(&broker.management, Method::PUT, &path, all).await;
        broker
    }

    pub(crate) fn url(&self) -> String {
        let mut url = self.amqp.clone();
        url.set_path(&self.vhost);
        url.into()
    }

    /// Makes queues and the rest from definitions.
    pub(crate) async fn define(&self, definitions: Value) {
        manage(&self.management, Method::POST, &format!("definitions/{}", self.vhost), definitions).await;
    }

    /// Declares a queue with no arguments, or puts a message into one.
    pub(crate) async fn declare_plain(&self, queue: &str) {
        let channel = self.channel().await;
        channel.queue_declare(queue.into(), QueueDeclareOptions::durable(), FieldTable::default()).await.unwrap();
    }

    pub(crate) async fn put(&self, queue: &str) {
        let channel = self.channel().await;
        channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
        let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
        let sent = channel.basic_publish("".into(), queue.into(), options, b"{}", BasicProperties::default()).await;
        assert!(sent.unwrap().await.unwrap().is_ack());
    }

    async fn channel(&self) -> lapin::Channel {
        let connection = Connection::connect(&self.url(), ConnectionProperties::default()).await.unwrap();
        connection.create_channel().await.unwrap()
    }
}

async fn manage(at: &Url, method: Method, path: &str, body: Value) {
    let mut url = at.clone();
    let (user, password) = (url.username().to_owned(), url.password().map(str::to_owned));
    url.set_username("").unwrap();
    url.set_password(None).unwrap();
    let request = Client::new().request(method, format!("{}api/{path}", url.as_str())).basic_auth(user, password);
    let request = request.header("content-type", "application/json").body(body.to_string());
    let answer = request.timeout(Duration::from_secs(20)).send().await.expect("the management API answers");
    assert!(answer.status().is_success(), "{path}: {}", answer.status());
}

impl Drop for Broker {
    fn drop(&mut self) {
        let (management, path) = (self.management.clone(), format!("vhosts/{}", self.vhost));
        // A thread of its own, because this runs within the test's runtime.
        let removed = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(manage(&management, Method::DELETE, &path, json!(null)));
        });
        assert!(removed.join().is_ok() || std::thread::panicking(), "a virtual host is left behind");
    }
}
