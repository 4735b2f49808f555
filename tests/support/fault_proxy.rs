//! A TCP proxy that does to a connection what networks do.
//!
//! It stands between the engine and a service. What it does can be changed at any moment, and holds for connections
//! that are open as well as for new ones.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinHandle,
};

/// What the network does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Network {
    /// Carries everything.
    Works,
    /// Carries everything, each piece this much later.
    Slow(Duration),
    /// Carries nothing and says nothing: connections hang.
    Hangs,
    /// Breaks every connection and takes no new one.
    Down,
    /// Carries what the client says, and breaks when the service answers: what was asked for may be done.
    LosesAnswers,
    /// Carries everything until the client says this; breaks then when the service answers.
    LosesAnswersTo(&'static [u8]),
    /// Carries everything until the client says this; that and what follows is held back, and never told apart from a
    /// service that is silent.
    HoldsBack(&'static [u8]),
}

#[derive(Debug, Clone, Copy)]
struct State {
    network: Network,
    /// How often everything open was broken.
    breaks: u64,
}

/// A proxy; gone when dropped.
#[derive(Debug)]
pub struct FaultProxy {
    address: SocketAddr,
    state: watch::Sender<State>,
    done: Arc<AtomicUsize>,
    accepting: JoinHandle<()>,
}

impl FaultProxy {
    /// Stands before `service`, on a free port of this machine.
    pub async fn before(service: SocketAddr) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
        let address = listener.local_addr().expect("a bound socket has an address");
        let (state, seen) = watch::channel(State { network: Network::Works, breaks: 0 });
        let done = Arc::new(AtomicUsize::new(0));
        let accepting = tokio::spawn(accept(listener, service, seen, done.clone()));
        Self { address, state, done, accepting }
    }

    /// Where to connect instead of the service.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Changes what the network does from now on.
    pub fn set(&self, network: Network) {
        self.state.send_modify(|state| state.network = network);
    }

    /// How often something was held back, or an answer lost, because of what the client said.
    #[must_use]
    pub fn done(&self) -> usize {
        self.done.load(Ordering::Relaxed)
    }

    /// Breaks what is open; new connections fare as before.
    pub fn break_connections(&self) {
        self.state.send_modify(|state| state.breaks += 1);
    }
}

impl Drop for FaultProxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(listener: TcpListener, service: SocketAddr, seen: watch::Receiver<State>, done: Arc<AtomicUsize>) {
    let seen = Arc::new(seen);
    while let Ok((client, _)) = listener.accept().await {
        if seen.borrow().network == Network::Down {
            continue;
        }
        let seen = seen.clone();
        let talk = Talk { said: Arc::default(), done: done.clone() };
        tokio::spawn(async move {
            let Ok(server) = TcpStream::connect(service).await else { return };
            let (from_client, to_client) = client.into_split();
            let (from_server, to_server) = server.into_split();
            // Either way's end is the connection's end.
            tokio::select! {
                () = carry(from_client, to_server, Way::Asking, (*seen).clone(), &talk) => {}
                () = carry(from_server, to_client, Way::Answering, (*seen).clone(), &talk) => {}
            }
        });
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Asking,
    Answering,
}

/// What was said on a connection, and what came of it on all of them.
#[derive(Debug)]
struct Talk {
    said: Arc<AtomicBool>,
    done: Arc<AtomicUsize>,
}

async fn carry(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    way: Way,
    mut seen: watch::Receiver<State>,
    talk: &Talk,
) {
    let mut piece = vec![0; 16 << 10];
    let breaks = seen.borrow_and_update().breaks;
    let is_broken = |state: State| state.network == Network::Down || state.breaks != breaks;
    loop {
        let read = tokio::select! {
            biased;
            changed = seen.changed() => {
                if changed.is_err() || is_broken(*seen.borrow_and_update()) {
                    return;
                }
                continue;
            }
            read = from.read(&mut piece) => read,
        };
        let Ok(bytes @ 1..) = read else { return };
        let state = *seen.borrow();
        match state.network {
            Network::Works => {}
            Network::Slow(wait) => tokio::time::sleep(wait).await,
            Network::Hangs => {
                let over = |state: &State| state.network != Network::Hangs || is_broken(*state);
                if !seen.wait_for(over).await.is_ok_and(|state| !is_broken(*state)) {
                    return;
                }
            }
            Network::Down => return,
            Network::LosesAnswers if way == Way::Answering => return,
            Network::LosesAnswers => {}
            Network::LosesAnswersTo(words) if way == Way::Asking => {
                if says(&piece[..bytes], words) {
                    talk.said.store(true, Ordering::Relaxed);
                }
            }
            Network::LosesAnswersTo(_) => {
                if talk.said.load(Ordering::Relaxed) {
                    talk.done.fetch_add(1, Ordering::Relaxed);
                    return;
                }
            }
            Network::HoldsBack(words) if way == Way::Asking && says(&piece[..bytes], words) => {
                talk.done.fetch_add(1, Ordering::Relaxed);
                let over = |state: &State| !matches!(state.network, Network::HoldsBack(_)) || is_broken(*state);
                if !seen.wait_for(over).await.is_ok_and(|state| !is_broken(*state)) {
                    return;
                }
            }
            Network::HoldsBack(_) => {}
        }
        if to.write_all(&piece[..bytes]).await.is_err() {
            return;
        }
    }
}

/// Whether these words are in a piece. Short ones that a client writes together are not torn apart.
fn says(piece: &[u8], words: &[u8]) -> bool {
    piece.windows(words.len()).any(|window| window == words)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A service that answers each byte with the next one.
    async fn counting() -> SocketAddr {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    while let Ok(byte) = stream.read_u8().await {
                        let _ = stream.write_u8(byte + 1).await;
                    }
                });
            }
        });
        address
    }

    async fn ask(stream: &mut TcpStream, byte: u8) -> std::io::Result<u8> {
        stream.write_u8(byte).await?;
        stream.read_u8().await
    }

    #[tokio::test]
    async fn it_carries_and_breaks_and_carries_again() {
        let proxy = FaultProxy::before(counting().await).await;
        let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
        assert_eq!(ask(&mut stream, 1).await.unwrap(), 2);
        proxy.set(Network::Slow(Duration::from_millis(1)));
        assert_eq!(ask(&mut stream, 2).await.unwrap(), 3);
        proxy.set(Network::Down);
        assert!(ask(&mut stream, 3).await.is_err());
        proxy.set(Network::Works);
        let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
        assert_eq!(ask(&mut stream, 4).await.unwrap(), 5);
        proxy.break_connections();
        assert!(ask(&mut stream, 5).await.is_err());
        let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
        proxy.set(Network::LosesAnswers);
        assert!(ask(&mut stream, 5).await.is_err());
    }

    #[tokio::test]
    async fn the_answer_to_some_words_is_lost_and_others_are_answered() {
        let proxy = FaultProxy::before(counting().await).await;
        proxy.set(Network::LosesAnswersTo(&[7]));
        let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
        assert_eq!((ask(&mut stream, 1).await.unwrap(), proxy.done()), (2, 0));
        assert!(ask(&mut stream, 7).await.is_err());
        assert_eq!(proxy.done(), 1);
    }

    #[tokio::test]
    async fn some_words_are_held_back_and_others_are_answered() {
        let proxy = FaultProxy::before(counting().await).await;
        proxy.set(Network::HoldsBack(&[7]));
        let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
        assert_eq!((ask(&mut stream, 1).await.unwrap(), proxy.done()), (2, 0));
        stream.write_u8(7).await.unwrap();
        while proxy.done() == 0 {
            tokio::task::yield_now().await;
        }
        proxy.set(Network::Works);
        assert_eq!(stream.read_u8().await.unwrap(), 8);
    }

    #[tokio::test]
    async fn what_hangs_comes_when_the_network_works_again() {
        let proxy = FaultProxy::before(counting().await).await;
        let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
        assert_eq!(ask(&mut stream, 1).await.unwrap(), 2);
        proxy.set(Network::Hangs);
        stream.write_u8(2).await.unwrap();
        proxy.set(Network::Works);
        assert_eq!(stream.read_u8().await.unwrap(), 3);
    }
}
