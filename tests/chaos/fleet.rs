//! The engine's processes, and what is done to them.

use std::{
    fs::File,
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use dispatch_tests::support::{
    engine_process::EngineProcess,
    fault_proxy::{FaultProxy, Network},
    services::{Service, Services},
};

use crate::plan::{Blow, Strike};

/// The processes of a run: two that answer the API and schedule, three that send, one that takes callbacks.
pub(crate) const ROLES: [&str; 6] = ["api,scheduler", "api,scheduler", "worker", "worker", "worker", CALLBACKS];
/// The role of the one that takes callbacks.
pub(crate) const CALLBACKS: &str = "callbacks";
/// The ones that answer the API.
pub(crate) const API_MEMBERS: usize = 2;
/// What an orchestrator grants a process that was told to end.
const GRACE: Duration = Duration::from_secs(10);

/// What was done.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Blows {
    pub(crate) kills: u64,
    pub(crate) freezes: u64,
    pub(crate) terminations: u64,
    /// Processes that were told to end, did not within the grace, and were killed.
    pub(crate) impatient: u64,
    /// Processes that ended without being told to.
    pub(crate) gave_up: u64,
    /// Processes that ended badly though they were told to end.
    pub(crate) ended_badly: u64,
}

/// One process of the fleet and its own way to the services.
pub(crate) struct Member {
    roles: &'static str,
    settings: PathBuf,
    variables: Vec<(String, String)>,
    log: PathBuf,
    postgres: FaultProxy,
    rabbitmq: FaultProxy,
    condition: Condition,
    again_after: Duration,
}

enum Condition {
    Runs(EngineProcess),
    Frozen(EngineProcess, Duration),
    /// Told to end at that moment.
    Ending(EngineProcess, Duration),
    /// Starts again then.
    Dead(Duration),
}

/// Where the API is answered now, process by process, of those that live.
#[derive(Debug, Clone, Default)]
pub(crate) struct Addresses(Arc<Mutex<[Option<SocketAddr>; API_MEMBERS]>>);

impl Addresses {
    /// For a call that is tried for the n-th time.
    pub(crate) fn nth(&self, nth: usize) -> Option<SocketAddr> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)[nth % API_MEMBERS]
    }
}

/// All of them.
pub(crate) struct Fleet {
    members: Vec<Member>,
    /// Where the API is answered now.
    pub(crate) addresses: Addresses,
    pub(crate) blows: Blows,
}

impl Member {
    pub(crate) async fn new(
        roles: &'static str,
        settings: PathBuf,
        mut variables: Vec<(String, String)>,
        log: PathBuf,
        services: &Services,
    ) -> Self {
        let postgres = FaultProxy::before(services.address(Service::Postgres)).await;
        let rabbitmq = FaultProxy::before(services.address(Service::RabbitMq)).await;
        let mut set = |name: &str, value: String| variables.push((name.to_owned(), value));
        set("DISPATCH_LEDGER__URL", services.url_at(Service::Postgres, postgres.address()));
        set("DISPATCH_QUEUE__URL", services.url_at(Service::RabbitMq, rabbitmq.address()));
        let condition = Condition::Dead(Duration::ZERO);
        Self { roles, settings, variables, log, postgres, rabbitmq, condition, again_after: Duration::ZERO }
    }

    /// What the network between it and a service does from now on; `None` breaks what is open, once.
    pub(crate) fn weather(&self, service: Service, network: Option<Network>) {
        let proxy = match service {
            Service::Postgres => &self.postgres,
            Service::RabbitMq => &self.rabbitmq,
        };
        match network {
            Some(network) => proxy.set(network),
            None => proxy.break_connections(),
        }
    }

    fn start(&self) -> EngineProcess {
        let log = File::options().create(true).append(true).open(&self.log).expect("a log can be opened");
        EngineProcess::start_as(&self.settings, self.roles, &self.variables, log)
    }

    /// Strikes it, unless it is dead.
    fn strike(&mut self, strike: &Strike, now: Duration, blows: &mut Blows) -> bool {
        let condition = std::mem::replace(&mut self.condition, Condition::Dead(now));
        self.again_after = strike.again_after;
        let (condition, struck) = match (condition, strike.blow) {
            (Condition::Dead(then), _) => (Condition::Dead(then), false),
            (Condition::Runs(process) | Condition::Frozen(process, _) | Condition::Ending(process, _), Blow::Kill) => {
                process.kill();
                blows.kills += 1;
                (Condition::Dead(now + strike.again_after), true)
            }
            (Condition::Runs(process), Blow::Freeze(lasts)) => {
                process.signal("STOP");
                blows.freezes += 1;
                (Condition::Frozen(process, now + lasts), true)
            }
            (Condition::Runs(process), Blow::Terminate) => {
                process.signal("TERM");
                blows.terminations += 1;
                (Condition::Ending(process, now), true)
            }
            (other, _) => (other, false),
        };
        self.condition = condition;
        struck
    }

    /// What is due: thawing, starting again, and losing patience.
    fn go_on(&mut self, now: Duration, blows: &mut Blows) {
        let condition = std::mem::replace(&mut self.condition, Condition::Dead(now));
        self.condition = match condition {
            Condition::Dead(then) if then <= now => Condition::Runs(self.start()),
            Condition::Frozen(process, until) if until <= now => {
                process.signal("CONT");
                Condition::Runs(process)
            }
            Condition::Ending(mut process, since) => match process.exit() {
                Some(status) => {
                    // One that ended by the signal itself had not begun.
                    blows.ended_badly += u64::from(status.code().is_some_and(|code| code != 0));
                    Condition::Dead(now + self.again_after)
                }
                None if now - since > GRACE => {
                    process.kill();
                    blows.impatient += 1;
                    Condition::Dead(now + self.again_after)
                }
                None => Condition::Ending(process, since),
            },
            Condition::Runs(mut process) => match process.exit() {
                Some(_) => {
                    blows.gave_up += 1;
                    Condition::Dead(now + Duration::from_millis(500))
                }
                None => Condition::Runs(process),
            },
            other => other,
        };
    }
}

impl Fleet {
    pub(crate) fn new(members: Vec<Member>) -> Self {
        Self { members, addresses: Addresses::default(), blows: Blows::default() }
    }

    /// One of them.
    pub(crate) fn member(&self, which: usize) -> &Member {
        &self.members[which]
    }

    /// Strikes the process of the strike, or the next one that can be struck like that.
    pub(crate) fn strike(&mut self, strike: &Strike, now: Duration) {
        let count = self.members.len();
        for nth in 0..count {
            if self.members[(strike.member + nth) % count].strike(strike, now, &mut self.blows) {
                break;
            }
        }
        self.go_on(now);
    }

    /// What is due now.
    pub(crate) fn go_on(&mut self, now: Duration) {
        for member in &mut self.members {
            member.go_on(now, &mut self.blows);
        }
        let mut addresses = self.addresses.0.lock().unwrap_or_else(PoisonError::into_inner);
        for (address, member) in addresses.iter_mut().zip(&self.members) {
            *address = match &member.condition {
                Condition::Runs(process) => Some(process.address()),
                _ => None,
            };
        }
    }

    /// Thaws and starts everything at once, under a network that works.
    pub(crate) fn heal(&mut self, now: Duration) {
        for member in &mut self.members {
            for service in Service::ALL {
                member.weather(service, Some(Network::Works));
            }
            match &mut member.condition {
                Condition::Dead(then) | Condition::Frozen(_, then) => *then = now,
                Condition::Runs(_) | Condition::Ending(..) => {}
            }
        }
        self.go_on(now);
    }

    /// Tells all of them to end, and returns how many did not end well.
    pub(crate) fn end(&mut self) -> u64 {
        let mut badly = 0;
        for member in &mut self.members {
            match std::mem::replace(&mut member.condition, Condition::Dead(Duration::MAX)) {
                Condition::Runs(process) | Condition::Frozen(process, _) | Condition::Ending(process, _) => {
                    badly += u64::from(!process.terminate().success());
                }
                Condition::Dead(_) => {}
            }
        }
        badly
    }
}
