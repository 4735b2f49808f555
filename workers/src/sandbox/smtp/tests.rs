//! The fake relay, spoken to line by line.

use std::sync::Mutex;

use async_trait::async_trait;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::TcpStream,
};

use super::*;
use crate::sandbox::witness::WitnessVerdict;

const KEY: &str = "00112233-4455-6677-8899-aabbccddeeff";

/// Remembers what it is told; a disk that is full, if so made.
#[derive(Default)]
struct Memory {
    lines: Mutex<Vec<Observation>>,
    disk: Disk,
}

#[derive(Default, PartialEq, Eq)]
enum Disk {
    #[default]
    Fine,
    Full,
}

#[async_trait]
impl Witness for Memory {
    async fn log(&self, seen: Observation) -> io::Result<()> {
        if self.disk == Disk::Full {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.lines.lock().unwrap().push(seen);
        Ok(())
    }

    fn hash(&self, address: &str) -> String {
        format!("#{address}")
    }
}

struct NoFaults;

impl FaultPlan for NoFaults {
    fn draw(&self, _: &'static str) -> Fault {
        Fault::None
    }
}

struct Client {
    stream: BufReader<TcpStream>,
    witness: Arc<Memory>,
    _serving: JoinSet<()>,
}

async fn client(disk: Disk) -> Client {
    let witness = Arc::new(Memory { disk, ..Memory::default() });
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut serving = JoinSet::new();
    let seen = Arc::clone(&witness);
    serving.spawn(async move { serve(listener, seen, Arc::new(NoFaults), 0).await.unwrap() });
    let stream = BufReader::new(TcpStream::connect(address).await.unwrap());
    let mut client = Client { stream, witness, _serving: serving };
    assert_eq!(client.code().await, 220);
    client
}

impl Client {
    async fn say(&mut self, words: &str) {
        self.stream.write_all(words.as_bytes()).await.unwrap();
    }

    /// The code of the next reply.
    async fn code(&mut self) -> u16 {
        loop {
            let mut line = String::new();
            self.stream.read_line(&mut line).await.unwrap();
            if line.as_bytes()[3] == b' ' {
                return line[..3].parse().unwrap();
            }
        }
    }

    async fn ask(&mut self, command: &str) -> u16 {
        self.say(&format!("{command}\r\n")).await;
        self.code().await
    }

    async fn expect_end(&mut self) {
        let mut rest = Vec::new();
        self.stream.read_to_end(&mut rest).await.unwrap();
        assert_eq!(rest, b"");
    }
}

#[tokio::test]
async fn commands_out_of_order_are_refused() {
    let mut client = client(Disk::Fine).await;
    for (command, code) in [
        ("MAIL FROM:<a@b.example>", 503),
        ("AUTH PLAIN AGEAYg==", 503),
        ("EHLO [127.0.0.1]", 250),
        ("RCPT TO:<c@d.example>", 503),
        ("DATA", 503),
        ("MAIL FROM:<a@b.example>", 250),
        ("MAIL FROM:<a@b.example>", 503),
        ("DATA", 554),
        ("RCPT TO:<c@d.example>", 250),
        ("RSET", 250),
        ("RCPT TO:<c@d.example>", 503),
        ("NOOP", 250),
        ("VRFY c@d.example", 500),
        ("QUIT", 221),
    ] {
        assert_eq!(client.ask(command).await, code, "{command}");
    }
    client.expect_end().await;
    assert_eq!(*client.witness.lines.lock().unwrap(), []);
}

#[tokio::test]
async fn commands_that_are_malformed_or_too_much_are_refused() {
    let mut client = client(Disk::Fine).await;
    client.ask("EHLO x").await;
    for (command, code) in [
        ("MAIL TO:<a@b.example>", 501),
        ("MAIL FROM:a@b.example", 501),
        ("MAIL FROM:<zoé@b.example> SMTPUTF8", 555),
        ("MAIL FROM:<a@b.example> SIZE=99999999", 552),
        ("MAIL FROM:<a@b.example> SIZE=1000 BODY=8BITMIME", 250),
        ("RCPT TO:<nobody>", 501),
        ("RCPT TO:<c@d.example> NOTIFY=NEVER", 501),
    ] {
        assert_eq!(client.ask(command).await, code, "{command}");
    }
    assert_eq!(client.ask(&"X".repeat(2_000)).await, 500);
}

#[tokio::test]
async fn pipelined_mails_are_answered_in_order_and_witnessed() {
    let mut client = client(Disk::Fine).await;
    let envelope = "MAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\nRCPT TO:<e@f.example>\r\nDATA\r\n";
    client.say(&format!("EHLO x\r\n{envelope}")).await;
    for code in [250, 250, 250, 250, 354] {
        assert_eq!(client.code().await, code);
    }
    client.say(&format!("Message-ID: <{KEY}@b.example>\r\n\r\nHello\r\n.\r\n{envelope}")).await;
    for code in [250, 250, 250, 250, 354] {
        assert_eq!(client.code().await, code);
    }
    let recipient = |to: &str| WitnessRecipient {
        key: Some(KEY.to_owned()),
        to: format!("#{to}"),
        verdict: WitnessVerdict::Accepted,
    };
    let expected = Observation {
        provider: "smtp",
        token: None,
        batch_key: None,
        mode: "ok",
        status: 250,
        recipients: vec![recipient("c@d.example"), recipient("e@f.example")],
    };
    assert_eq!(*client.witness.lines.lock().unwrap(), [expected]);
}

#[tokio::test]
async fn a_flawed_mail_is_refused_and_witnessed_as_refused() {
    let mut client = client(Disk::Fine).await;
    client.ask("EHLO x").await;
    client.ask("MAIL FROM:<a@b.example>").await;
    client.ask("RCPT TO:<c@d.example>").await;
    client.ask("DATA").await;
    assert_eq!(client.ask("Subject: x\r\n\r\nsmuggled\n.\r\nMAIL FROM:<v@b.example>\r\n.").await, 554);
    let lines = client.witness.lines.lock().unwrap().clone();
    assert_eq!(lines.len(), 1);
    assert_eq!((lines[0].status, lines[0].recipients[0].verdict), (554, WitnessVerdict::Refused));
    assert_eq!(client.ask("NOOP").await, 250);
}

#[tokio::test]
async fn what_the_witness_cannot_write_is_not_answered() {
    let mut client = client(Disk::Full).await;
    client.ask("EHLO x").await;
    client.ask("MAIL FROM:<a@b.example>").await;
    client.ask("RCPT TO:<c@d.example>").await;
    client.ask("DATA").await;
    client.say("Subject: x\r\n\r\nx\r\n.\r\n").await;
    client.expect_end().await;
}

#[tokio::test]
async fn a_client_that_speaks_another_language_is_hung_up_on() {
    let mut client = client(Disk::Fine).await;
    client.say(&"GET / HTTP/1.1\r\n".repeat(21)).await;
    for _ in 0..21 {
        assert_eq!(client.code().await, 500);
    }
    client.expect_end().await;
}
