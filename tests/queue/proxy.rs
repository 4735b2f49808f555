//! A proxy before the broker that can cut connections, refuse them, and speak for the broker.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::broadcast,
};

/// `connection.blocked` and `connection.unblocked`: class 10, methods 60 and 61 (RabbitMQ's extension of AMQP 0-9-1).
const BLOCKED: &[u8] = &[1, 0, 0, 0, 0, 0, 9, 0, 10, 0, 60, 4, b't', b'e', b's', b't', 0xCE];
const UNBLOCKED: &[u8] = &[1, 0, 0, 0, 0, 0, 4, 0, 10, 0, 61, 0xCE];

/// What is done to every connection.
#[derive(Debug, Clone, Copy)]
enum Act {
    Cut,
    Say(&'static [u8]),
}

/// A proxy on a port of its own.
pub(crate) struct Proxy {
    port: u16,
    away: Arc<AtomicBool>,
    acts: broadcast::Sender<Act>,
}

impl Proxy {
    pub(crate) async fn before(broker: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (acts, _) = broadcast::channel(16);
        let away = Arc::new(AtomicBool::new(false));
        let (of, is_away) = (acts.clone(), away.clone());
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                if !is_away.load(Ordering::SeqCst) {
                    tokio::spawn(forward(client, broker.clone(), of.subscribe()));
                }
            }
        });
        Self { port, away, acts }
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// From now on new connections end at once, or not any more.
    pub(crate) fn set_away(&self, away: bool) {
        self.away.store(away, Ordering::SeqCst);
    }

    /// Ends all connections in the middle of whatever they do.
    pub(crate) fn cut(&self) {
        self.act(Act::Cut);
    }

    /// Says that the broker takes no messages.
    pub(crate) fn block(&self) {
        self.act(Act::Say(BLOCKED));
    }

    /// Says that it takes messages again.
    pub(crate) fn unblock(&self) {
        self.act(Act::Say(UNBLOCKED));
    }

    fn act(&self, act: Act) {
        self.acts.send(act).expect("there are connections");
    }
}

async fn forward(client: TcpStream, broker: String, mut acts: broadcast::Receiver<Act>) {
    let server = TcpStream::connect(broker).await.unwrap();
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let up = tokio::spawn(async move {
        let _ = tokio::io::copy(&mut from_client, &mut to_server).await;
    });
    // By whole frames, so that there is a place between two of them: type, channel, length, that many bytes, end.
    let mut frames = Vec::new();
    loop {
        tokio::select! {
            biased;
            act = acts.recv() => match act {
                Ok(Act::Say(frame)) => {
                    if to_client.write_all(frame).await.is_err() {
                        break;
                    }
                }
                Ok(Act::Cut) | Err(_) => break,
            },
            read = from_server.read_buf(&mut frames) => {
                if !matches!(read, Ok(1..)) {
                    break;
                }
                let whole = whole_frames(&frames);
                if to_client.write_all(&frames[..whole]).await.is_err() {
                    break;
                }
                frames.drain(..whole);
            }
        }
    }
    up.abort();
}

fn whole_frames(bytes: &[u8]) -> usize {
    let mut at = 0;
    while let Some(head) = bytes.get(at..at + 7) {
        let length = u32::from_be_bytes([head[3], head[4], head[5], head[6]]) as usize;
        if bytes.len() < at + length + 8 {
            break;
        }
        at += length + 8;
    }
    at
}
