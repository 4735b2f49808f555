//! The provider against relays over real sockets: the fake one, and ones that follow a script.

use std::{
    collections::VecDeque,
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use async_trait::async_trait;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

use super::*;
use crate::{
    clock::{SystemEntropy, TimestampMs},
    message::{Body, Mailbox, Piece, SendKey, Skeleton, Slots, Token},
    providers::AccountSettings,
    sandbox::{
        Fault, FaultPlan, Observation, Witness, smtp as fake,
        witness::{WitnessKey, WitnessVerdict},
    },
};

mod faults;
mod reuse;
mod steps;
mod tls;

/// Far enough that no test comes near it.
const IN_TIME: Duration = Duration::from_secs(3_600);

const KEY: SendKey = SendKey([7; 16]);

/// A clock that moves when it is told to.
#[derive(Default)]
struct StillClock(AtomicU64);

impl StillClock {
    fn pass(&self, time: Duration) {
        self.0.fetch_add(time.as_secs(), Ordering::SeqCst);
    }
}

impl Clock for StillClock {
    fn now_ms(&self) -> TimestampMs {
        1_700_000_000_000
    }

    fn monotonic(&self) -> Duration {
        Duration::from_secs(self.0.load(Ordering::SeqCst))
    }
}

/// A witness that remembers.
struct Memory {
    key: WitnessKey,
    lines: Mutex<Vec<Observation>>,
}

impl Memory {
    fn lines(&self) -> Vec<Observation> {
        self.lines.lock().unwrap().clone()
    }

    fn accepted(&self) -> usize {
        let of_line = |line: &Observation| {
            line.recipients.iter().filter(|recipient| recipient.verdict == WitnessVerdict::Accepted).count()
        };
        self.lines().iter().map(of_line).sum()
    }
}

#[async_trait]
impl Witness for Memory {
    async fn log(&self, seen: Observation) -> io::Result<()> {
        self.lines.lock().unwrap().push(seen);
        Ok(())
    }

    fn hash(&self, address: &str) -> String {
        self.key.hash(address)
    }
}

/// Faults in a given order, then none.
struct Planned(Mutex<VecDeque<Fault>>);

impl FaultPlan for Planned {
    fn draw(&self, _: &'static str) -> Fault {
        self.0.lock().unwrap().pop_front().unwrap_or(Fault::None)
    }
}

/// The fake relay, behind a door that counts its connections and can be shut on them.
struct FakeRelay {
    witness: Arc<Memory>,
    door: Door,
    _serving: JoinSet<()>,
}

async fn fake_relay(faults: &[Fault]) -> FakeRelay {
    let witness = Arc::new(Memory { key: WitnessKey::new(&[1; 32]), lines: Mutex::default() });
    let plan = Arc::new(Planned(Mutex::new(faults.iter().copied().collect())));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut serving = JoinSet::new();
    let seen = Arc::clone(&witness);
    serving.spawn(async move { fake::serve(listener, seen, plan, 60_000).await.unwrap() });
    FakeRelay { witness, door: Door::before(address).await, _serving: serving }
}

struct Door {
    address: SocketAddr,
    opened: Arc<AtomicUsize>,
    open: Arc<Mutex<JoinSet<()>>>,
    _keeper: JoinSet<()>,
}

impl Door {
    async fn before(behind: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let opened = Arc::new(AtomicUsize::new(0));
        let open = Arc::new(Mutex::new(JoinSet::new()));
        let mut keeper = JoinSet::new();
        let (count, through) = (Arc::clone(&opened), Arc::clone(&open));
        keeper.spawn(async move {
            loop {
                let (mut client, _) = listener.accept().await.unwrap();
                count.fetch_add(1, Ordering::SeqCst);
                through.lock().unwrap().spawn(async move {
                    let mut relay = TcpStream::connect(behind).await.unwrap();
                    let _ = tokio::io::copy_bidirectional(&mut client, &mut relay).await;
                });
            }
        });
        Self { address, opened, open, _keeper: keeper }
    }

    fn connections(&self) -> usize {
        self.opened.load(Ordering::SeqCst)
    }

    /// Closes every open connection, and returns when they are closed.
    async fn shut(&self) {
        let mut open = std::mem::take(&mut *self.open.lock().unwrap());
        open.shutdown().await;
    }
}

/// A relay that follows a script on each of its connections: what it wants to hear next, and what it says then. An
/// empty expectation speaks at once. When a script is through, the connection is closed.
struct Scripted {
    address: SocketAddr,
    /// Every line heard.
    heard: Arc<Mutex<Vec<String>>>,
    _serving: JoinSet<()>,
}

type Script = Vec<(&'static str, &'static str)>;

async fn scripted(scripts: Vec<Script>) -> Scripted {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let heard = Arc::new(Mutex::new(Vec::new()));
    let hearing = Arc::clone(&heard);
    let mut serving = JoinSet::new();
    serving.spawn(async move {
        for script in scripts {
            let (stream, _) = listener.accept().await.unwrap();
            follow(stream, &script, &hearing).await;
        }
    });
    Scripted { address, heard, _serving: serving }
}

async fn follow(stream: TcpStream, script: &Script, heard: &Mutex<Vec<String>>) {
    let mut stream = BufReader::new(stream);
    for (wanted, said) in script {
        let mut line = String::new();
        while !wanted.is_empty() && !line.starts_with(wanted) {
            line.clear();
            if stream.read_line(&mut line).await.unwrap_or(0) == 0 {
                return;
            }
            heard.lock().unwrap().push(line.clone());
        }
        if stream.write_all(said.as_bytes()).await.is_err() {
            return;
        }
    }
}

fn settings(url: String) -> AccountSettings {
    AccountSettings {
        kind: "smtp".to_owned(),
        url: Some(url),
        user: None,
        key_file: None,
        recipients_per_request: None,
        requests_open_max: 4,
        connect_timeout_s: 5,
        answer_timeout_s: 30,
        ca_file: None,
    }
}

fn plain(address: SocketAddr) -> AccountSettings {
    settings(format!("smtp://{address}"))
}

struct Account {
    provider: Arc<dyn Provider>,
    clock: Arc<StillClock>,
}

fn account(settings: AccountSettings) -> Account {
    let clock = Arc::new(StillClock::default());
    let ingredients = Ingredients {
        settings,
        secret: "pass word".to_owned().into(),
        clock: Arc::clone(&clock) as Arc<dyn Clock>,
        entropy: Arc::new(SystemEntropy::default()),
    };
    Account { provider: build(ingredients).unwrap(), clock }
}

fn message() -> Message {
    Message {
        body: Body::Email {
            from: Mailbox { address: "news@shop.example".to_owned(), name: None },
            reply_to: None,
            subject: Skeleton { pieces: vec![Piece::Fixed("For ".into()), Piece::Slot(0)] },
            html: Some(Skeleton::fixed("<p>Hello</p>")),
            text: None,
        },
    }
}

fn recipient(to: &str) -> Recipient {
    let mut slots = Slots::default();
    slots.push("you");
    Recipient { key: KEY, to: to.to_owned(), slots, list_unsubscribe: None }
}

impl Account {
    async fn send_to(&self, recipient: Recipient, send_by: Duration) -> (Verdict, Option<Signal>) {
        let request =
            Request { message: &message(), recipients: &[recipient], token: Token([0; 16]), batch_key: KEY, send_by };
        let mut answer = self.provider.send(&request).await;
        assert_eq!(answer.verdicts.len(), 1);
        (answer.verdicts.remove(0), answer.signal)
    }

    async fn send(&self) -> (Verdict, Option<Signal>) {
        self.send_to(recipient("jean@dest.example"), IN_TIME).await
    }

    async fn expect_accepted(&self) {
        let (verdict, signal) = self.send().await;
        assert!(matches!(verdict, Verdict::Accepted { provider_id: Some(_) }) && signal.is_none(), "{verdict:?}");
    }
}
