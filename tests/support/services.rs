//! A PostgreSQL and a RabbitMQ of a test's own, which can be killed.

use std::{
    net::SocketAddr,
    path::Path,
    process::{Command, Stdio},
};

use reqwest::Url;
use tempfile::TempDir;

/// One of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Service {
    /// Where the ledger is.
    Postgres,
    /// Where the jobs are.
    RabbitMq,
}

impl Service {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Postgres, Self::RabbitMq];

    const fn name(self) -> &'static str {
        match self {
            Self::Postgres => "postgres",
            Self::RabbitMq => "rabbitmq",
        }
    }
}

/// Both services, stopped and gone with this value.
#[derive(Debug)]
pub struct Services {
    folder: TempDir,
    postgres: Url,
    rabbitmq: Url,
}

impl Services {
    /// Makes and starts both.
    #[must_use]
    pub fn start() -> Self {
        Self::start_some(None)
    }

    /// Makes both and starts one.
    #[must_use]
    pub fn start_only(service: Service) -> Self {
        Self::start_some(Some(service))
    }

    fn start_some(service: Option<Service>) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        run(folder.path(), "start", service);
        let variables = run(folder.path(), "env", None);
        let url = |name: &str| {
            let line = variables.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
            line.and_then(|url| url.parse().ok()).expect("the script says where the services are")
        };
        let (postgres, rabbitmq) = (url("DISPATCH_TEST_POSTGRES_URL"), url("DISPATCH_TEST_AMQP_URL"));
        Self { folder, postgres, rabbitmq }
    }

    /// Where a service is.
    #[must_use]
    pub fn url(&self, service: Service) -> &Url {
        match service {
            Service::Postgres => &self.postgres,
            Service::RabbitMq => &self.rabbitmq,
        }
    }

    /// The URL of a service that is reached at another address.
    #[must_use]
    pub fn url_at(&self, service: Service, address: SocketAddr) -> String {
        let mut url = self.url(service).clone();
        url.set_port(Some(address.port())).expect("a URL with a host takes a port");
        url.into()
    }

    /// The address it listens on.
    #[must_use]
    pub fn address(&self, service: Service) -> SocketAddr {
        let port = self.url(service).port().expect("the script names ports");
        SocketAddr::from(([127, 0, 0, 1], port))
    }

    /// Ends a service as a crash would.
    pub async fn kill(&self, service: Service) {
        self.run("kill", service).await;
    }

    /// Stops a service in order.
    pub async fn stop(&self, service: Service) {
        self.run("stop", service).await;
    }

    /// Takes all it has kept from RabbitMQ, which is stopped.
    pub async fn wipe_rabbitmq(&self) {
        self.run("wipe", Service::RabbitMq).await;
    }

    /// Starts a service that was killed or stopped; returns when it takes connections.
    pub async fn start_again(&self, service: Service) {
        self.run("start", service).await;
    }

    /// Copies PostgreSQL's data as it is now, while it runs.
    pub async fn copy_postgres(&self) {
        self.run("copy", Service::Postgres).await;
    }

    /// Kills PostgreSQL and lets the copy take its place, as a standby does that was behind.
    pub async fn fail_over_to_the_copy(&self) {
        self.run("failover", Service::Postgres).await;
    }

    async fn run(&self, what: &'static str, service: Service) {
        let folder = self.folder.path().to_owned();
        let done = tokio::task::spawn_blocking(move || run(&folder, what, Some(service))).await;
        done.expect("the script has run");
    }
}

impl Drop for Services {
    fn drop(&mut self) {
        run(self.folder.path(), "stop", None);
    }
}

/// Runs `tests/services`; returns what it prints.
fn run(folder: &Path, what: &str, service: Option<Service>) -> String {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("services");
    let output = Command::new(script)
        .arg(what)
        .arg(folder)
        .args(service.map(Service::name))
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .expect("tests/services can be run");
    assert!(output.status.success() || what == "stop", "tests/services {what} failed: {}", output.status);
    String::from_utf8(output.stdout).expect("it prints text")
}
