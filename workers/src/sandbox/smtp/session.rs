//! One client of the relay: commands in their order, a fault drawn for each mail, the witness before the answer.

use std::{fmt::Write as _, io, sync::Arc};

use tokio::{io::AsyncWriteExt as _, net::TcpStream};

use super::{
    Fault, Office,
    content::{Charset, Content, Received, SIZE_MAX},
    input::{Input, LINE_MAX, Line},
};
use crate::sandbox::witness::{WitnessRecipient, WitnessVerdict};

/// Most recipients of a mail (RFC 5321 §4.5.3.1.8 demands at least 100).
const RECIPIENTS_MAX: usize = 100;

/// Commands the relay does not understand before it hangs up: whoever sends them is no mail client.
const ERRORS_MAX: usize = 20;

const GREETING: &str = "220 sandbox.invalid ESMTP, delivers nothing\r\n";
const OK: &str = "250 2.0.0 Ok\r\n";
const OUT_OF_ORDER: &str = "503 5.5.1 Not now\r\n";
const MALFORMED: &str = "501 5.5.4 Malformed\r\n";

/// A client.
pub(super) struct Session {
    stream: TcpStream,
    office: Arc<Office>,
    input: Input,
    /// Replies that wait for the end of what the client sent at once.
    output: String,
    phase: Phase,
    errors: usize,
}

/// How far the dialogue is.
enum Phase {
    /// `EHLO` or `HELO` is wanted.
    Connected,
    /// A mail may begin.
    Idle,
    /// A mail has begun.
    Mail(Mail),
    /// `AUTH LOGIN` prompts for what comes next.
    Prompting(Prompt),
}

enum Prompt {
    User,
    Password,
    Proof,
}

/// A mail before its content.
struct Mail {
    fault: Fault,
    charset: Charset,
    /// Their hashes.
    recipients: Vec<String>,
}

impl Mail {
    fn recipients(self, key: Option<&str>, verdict: WitnessVerdict) -> Vec<WitnessRecipient> {
        let of_one = |to| WitnessRecipient { key: key.map(str::to_owned), to, verdict };
        self.recipients.into_iter().map(of_one).collect()
    }
}

/// Whether the session goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    Command,
    Close,
}

impl Session {
    pub(super) fn new(stream: TcpStream, office: Arc<Office>) -> Self {
        Self {
            stream,
            office,
            input: Input::new(),
            output: String::with_capacity(512),
            phase: Phase::Connected,
            errors: 0,
        }
    }

    /// Serves the client until it or the relay hangs up.
    pub(super) async fn run(mut self) -> io::Result<()> {
        self.output.push_str(GREETING);
        loop {
            let next = match self.input.next_line() {
                Line::Whole(place) if place.len() <= LINE_MAX => {
                    let line = String::from_utf8_lossy(self.input.at(place)).into_owned();
                    self.obey(line.trim_ascii_end()).await?
                }
                Line::Whole(_) | Line::TooLong => self.misunderstand("500 5.5.2 Line too long\r\n"),
                Line::Partial => {
                    self.flush().await?;
                    self.input.read(&mut self.stream).await?;
                    Next::Command
                }
            };
            if next == Next::Close {
                return self.flush().await;
            }
        }
    }

    async fn flush(&mut self) -> io::Result<()> {
        if !self.output.is_empty() {
            self.stream.write_all(self.output.as_bytes()).await?;
            self.output.clear();
        }
        Ok(())
    }

    fn reply(&mut self, reply: &str) -> Next {
        self.output.push_str(reply);
        Next::Command
    }

    fn misunderstand(&mut self, reply: &str) -> Next {
        self.output.push_str(reply);
        self.errors += 1;
        if self.errors > ERRORS_MAX { Next::Close } else { Next::Command }
    }

    async fn obey(&mut self, line: &str) -> io::Result<Next> {
        if let Phase::Prompting(prompt) = &self.phase {
            let (phase, reply) = match prompt {
                Prompt::User => (Phase::Prompting(Prompt::Password), "334 UGFzc3dvcmQ6\r\n"),
                Prompt::Password | Prompt::Proof => (Phase::Idle, "235 2.7.0 Welcome\r\n"),
            };
            self.phase = phase;
            return Ok(self.reply(reply));
        }
        let (verb, argument) = line.split_once(' ').unwrap_or((line, ""));
        Ok(match verb.to_ascii_uppercase().as_str() {
            "EHLO" => {
                self.phase = Phase::Idle;
                let _ = write!(
                    self.output,
                    "250-sandbox.invalid\r\n250-PIPELINING\r\n250-SIZE {SIZE_MAX}\r\n250-AUTH PLAIN LOGIN\r\n\
                     250-ENHANCEDSTATUSCODES\r\n250 8BITMIME\r\n"
                );
                Next::Command
            }
            "HELO" => {
                self.phase = Phase::Idle;
                self.reply("250 sandbox.invalid\r\n")
            }
            "AUTH" => self.log_in(argument),
            "MAIL" => return self.begin(argument).await,
            "RCPT" => return self.add(argument).await,
            "DATA" => return self.receive().await,
            "RSET" => {
                if let Phase::Mail(_) = self.phase {
                    self.phase = Phase::Idle;
                }
                self.reply(OK)
            }
            "NOOP" => self.reply(OK),
            "QUIT" => {
                self.output.push_str("221 2.0.0 Bye\r\n");
                Next::Close
            }
            _ => self.misunderstand("500 5.5.2 Unknown command\r\n"),
        })
    }

    fn log_in(&mut self, argument: &str) -> Next {
        if !matches!(self.phase, Phase::Idle) {
            return self.misunderstand(OUT_OF_ORDER);
        }
        let (mechanism, proof) = argument.split_once(' ').unwrap_or((argument, ""));
        let (phase, reply) = match (mechanism.to_ascii_uppercase().as_str(), proof.is_empty()) {
            ("PLAIN", true) => (Phase::Prompting(Prompt::Proof), "334 \r\n"),
            ("PLAIN", false) => (Phase::Idle, "235 2.7.0 Welcome\r\n"),
            ("LOGIN", true) => (Phase::Prompting(Prompt::User), "334 VXNlcm5hbWU6\r\n"),
            ("LOGIN", false) => (Phase::Prompting(Prompt::Password), "334 UGFzc3dvcmQ6\r\n"),
            _ => return self.misunderstand("504 5.5.4 Unknown mechanism\r\n"),
        };
        self.phase = phase;
        self.reply(reply)
    }

    async fn begin(&mut self, argument: &str) -> io::Result<Next> {
        if !matches!(self.phase, Phase::Idle) {
            return Ok(self.misunderstand(OUT_OF_ORDER));
        }
        let Some((_, parameters)) = path(argument, "FROM:") else { return Ok(self.misunderstand(MALFORMED)) };
        let mut charset = Charset::SevenBit;
        for parameter in parameters.split_ascii_whitespace() {
            let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
            match (name.to_ascii_uppercase().as_str(), value.to_ascii_uppercase().as_str()) {
                ("BODY", "7BIT") => {}
                ("BODY", "8BITMIME") => charset = Charset::EightBit,
                ("SIZE", octets) if octets.parse().is_ok_and(|octets: usize| octets <= SIZE_MAX) => {}
                ("SIZE", _) => return Ok(self.reply("552 5.3.4 Message too large\r\n")),
                _ => return Ok(self.misunderstand("555 5.5.4 Unknown parameter\r\n")),
            }
        }
        let fault = self.office.faults.draw(super::PROVIDER);
        if fault == Fault::Throttle {
            self.office.log(fault, 421, Vec::new()).await?;
            self.output.push_str("421 4.7.0 Too fast\r\n");
            return Ok(Next::Close);
        }
        self.phase = Phase::Mail(Mail { fault, charset, recipients: Vec::with_capacity(1) });
        Ok(self.reply(OK))
    }

    async fn add(&mut self, argument: &str) -> io::Result<Next> {
        let Phase::Mail(mail) = &mut self.phase else { return Ok(self.misunderstand(OUT_OF_ORDER)) };
        let address = match path(argument, "TO:") {
            Some((address, "")) if address.contains('@') && address.is_ascii() => address,
            _ => return Ok(self.misunderstand(MALFORMED)),
        };
        let to = self.office.witness.hash(address);
        if mail.fault == Fault::Refuse {
            let refused = WitnessRecipient { key: None, to, verdict: WitnessVerdict::Refused };
            self.office.log(Fault::Refuse, 550, vec![refused]).await?;
            return Ok(self.reply("550 5.1.1 No such user\r\n"));
        }
        if mail.recipients.len() == RECIPIENTS_MAX {
            return Ok(self.reply("452 4.5.3 Too many recipients\r\n"));
        }
        mail.recipients.push(to);
        Ok(self.reply(OK))
    }

    async fn receive(&mut self) -> io::Result<Next> {
        match std::mem::replace(&mut self.phase, Phase::Idle) {
            Phase::Mail(mail) if mail.recipients.is_empty() => {
                self.phase = Phase::Mail(mail);
                Ok(self.reply("554 5.5.1 No valid recipients\r\n"))
            }
            Phase::Mail(mail) if mail.fault == Fault::DropBefore => {
                self.office.log(Fault::DropBefore, 0, mail.recipients(None, WitnessVerdict::Refused)).await?;
                Ok(Next::Close)
            }
            Phase::Mail(mail) => {
                self.output.push_str("354 Go on\r\n");
                self.flush().await?;
                let received = self.read_content(mail.charset).await?;
                self.settle(mail, &received).await
            }
            other => {
                self.phase = other;
                Ok(self.misunderstand(OUT_OF_ORDER))
            }
        }
    }

    async fn read_content(&mut self, charset: Charset) -> io::Result<Received> {
        let mut content = Content::new(charset);
        loop {
            let (taken, received) = content.read(self.input.unused());
            self.input.skip(taken);
            if let Some(received) = received {
                return Ok(received);
            }
            self.input.read(&mut self.stream).await?;
        }
    }

    /// Logs what becomes of a mail, then answers it.
    async fn settle(&mut self, mail: Mail, received: &Received) -> io::Result<Next> {
        let fault = mail.fault;
        let key = received.key.map(|key| key.to_string());
        let key = key.as_deref();
        if let Some(flaw) = received.flaw {
            let (status, reply) = flaw.reply();
            self.office.log(Fault::None, status, mail.recipients(key, WitnessVerdict::Refused)).await?;
            return Ok(self.reply(reply));
        }
        if matches!(fault, Fault::Unavailable | Fault::FailBefore) {
            self.office.log(fault, 451, mail.recipients(key, WitnessVerdict::Refused)).await?;
            return Ok(self.reply("451 4.3.0 Try again later\r\n"));
        }
        let status = match fault {
            Fault::AcceptThenDrop | Fault::FailAfterAccept | Fault::Garbage | Fault::HalfAnswer => 0,
            _ => 250,
        };
        self.office.log(fault, status, mail.recipients(key, WitnessVerdict::Accepted)).await?;
        match fault {
            Fault::AcceptThenDrop | Fault::FailAfterAccept => Ok(Next::Close),
            Fault::Garbage => Ok(self.reply("<html>Bad Gateway</html>\r\n")),
            Fault::HalfAnswer => {
                self.output.push_str("25");
                Ok(Next::Close)
            }
            _ => {
                if fault == Fault::AcceptSlow {
                    tokio::time::sleep(self.office.slow).await;
                }
                let queue_id = self.office.next_queue_id();
                // Writing to a String cannot fail.
                let _ = write!(self.output, "250 2.0.0 Ok: queued as S{queue_id:X}\r\n");
                Ok(Next::Command)
            }
        }
    }
}

/// The address and the parameters in `FROM:<address> parameters`.
fn path<'a>(argument: &'a str, keyword: &str) -> Option<(&'a str, &'a str)> {
    let (word, rest) = argument.split_at_checked(keyword.len())?;
    if !word.eq_ignore_ascii_case(keyword) {
        return None;
    }
    let (address, parameters) = rest.trim_ascii_start().strip_prefix('<')?.rsplit_once('>')?;
    Some((address, parameters.trim_ascii_start()))
}
