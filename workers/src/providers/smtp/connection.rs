//! One connection to the relay, and one mail over it after the other.
//!
//! MAIL, RCPT and DATA leave in one write where the relay allows it (PIPELINING, RFC 2920), so that a mail costs two
//! round trips instead of four.

use std::time::Duration;

use tokio::time::timeout;

use super::{
    super::Code,
    dialogue::{Dialogue, Wire},
    mime::Mail,
    opening::Extensions,
    replies::{Ending, Reply, Stage},
};

/// How long a good-bye may take: it is a courtesy.
const QUIT_PATIENCE: Duration = Duration::from_millis(200);

/// After the last of several pipelined commands was refused, the rest of the replies come at once or not at all.
const DRAIN_PATIENCE: Duration = Duration::from_secs(5);

const TIMED_OUT: Code = Code::known("smtp_timeout");
const RESET_REFUSED: Code = Code::known("smtp_reset_refused");

/// Why a mail cannot go over a connection that is otherwise fine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Misfit {
    /// The address needs SMTPUTF8, which the relay does not offer.
    NoUtf8,
    /// The mail is larger than the relay takes.
    TooLarge,
}

impl Misfit {
    /// The reason, for a verdict.
    pub(super) const fn code(self) -> Code {
        match self {
            Self::NoUtf8 => Code::known("smtp_utf8_unsupported"),
            Self::TooLarge => Code::known("smtp_too_large"),
        }
    }
}

/// What the next transaction finds.
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// Nothing under way.
    Ready,
    /// The relay still holds the sender of a refused mail.
    NeedsReset,
    /// No further mail may go this way.
    Spent,
}

/// A connection, ready for mails.
pub(super) struct Connection {
    dialogue: Dialogue<Box<dyn Wire>>,
    extensions: Extensions,
    answer_timeout: Duration,
    state: State,
    stage: Stage,
    mails: usize,
}

impl Connection {
    /// Over a dialogue that is through with greeting and login.
    pub(super) fn new(dialogue: Dialogue<Box<dyn Wire>>, extensions: Extensions, answer_timeout: Duration) -> Self {
        Self { dialogue, extensions, answer_timeout, state: State::Ready, stage: Stage::Sender, mails: 0 }
    }

    /// How many mails it has carried, or tried to.
    pub(super) const fn mails(&self) -> usize {
        self.mails
    }

    /// Whether another mail may go this way.
    pub(super) fn is_usable(&self) -> bool {
        self.state != State::Spent
    }

    /// Whether the relay has given it up while it lay idle.
    pub(super) fn is_stale(&self) -> bool {
        self.dialogue.is_stale()
    }

    /// Whether this mail can go over this connection.
    pub(super) fn check(&self, mail: &Mail) -> Result<(), Misfit> {
        if mail.needs_utf8() && !self.extensions.smtputf8 {
            return Err(Misfit::NoUtf8);
        }
        if self.extensions.size_max.is_some_and(|max| mail.content.len() > max) {
            return Err(Misfit::TooLarge);
        }
        Ok(())
    }

    /// Hands one mail over. Never takes longer than the answer timeout.
    pub(super) async fn transact(&mut self, mail: &Mail) -> Ending {
        self.mails += 1;
        let ended = timeout(self.answer_timeout, self.converse(mail)).await;
        match ended {
            Ok(Ok(reply)) => Ending::Replied(self.stage, reply),
            Ok(Err(code)) => self.broken(code),
            Err(_) => self.broken(TIMED_OUT),
        }
    }

    fn broken(&mut self, code: Code) -> Ending {
        self.state = State::Spent;
        Ending::Broken(self.stage, code)
    }

    /// The transaction, to the reply that ends it; `stage` says how far it came, also when it is cut short.
    async fn converse(&mut self, mail: &Mail) -> Result<Reply, Code> {
        let steps = self.steps(mail);
        let (first, _) = steps.first().map_or((Stage::Sender, ""), |(stage, command)| (*stage, command.as_str()));
        self.stage = first;
        if self.extensions.pipelining {
            let commands: String = steps.iter().map(|(_, command)| command.as_str()).collect();
            self.dialogue.say(commands.as_bytes()).await?;
        }
        for (nth, (stage, command)) in steps.iter().enumerate() {
            self.stage = *stage;
            if !self.extensions.pipelining {
                self.dialogue.say(command.as_bytes()).await?;
            }
            let reply = self.dialogue.reply().await?;
            if *stage == Stage::Reset && !stage.is_passed_by(&reply) {
                return Err(RESET_REFUSED);
            }
            if !stage.is_passed_by(&reply) {
                let unanswered = if self.extensions.pipelining { steps.len() - nth - 1 } else { 0 };
                self.state = self.after_refusal(&reply, unanswered).await;
                return Ok(reply);
            }
        }
        self.dialogue.expect_quiet()?;
        self.stage = Stage::Content;
        self.dialogue.say(&mail.content).await?;
        let reply = self.dialogue.reply().await?;
        self.state = if reply.code == 421 { State::Spent } else { State::Ready };
        Ok(reply)
    }

    fn steps(&self, mail: &Mail) -> Vec<(Stage, String)> {
        let mut steps = Vec::with_capacity(4);
        if self.state == State::NeedsReset {
            steps.push((Stage::Reset, "RSET\r\n".to_owned()));
        }
        if mail.needs_utf8() {
            steps.push((Stage::SenderUtf8, format!("MAIL FROM:<{}> BODY=8BITMIME SMTPUTF8\r\n", mail.from)));
        } else {
            steps.push((Stage::Sender, format!("MAIL FROM:<{}>\r\n", mail.from)));
        }
        steps.push((Stage::Recipient, format!("RCPT TO:<{}>\r\n", mail.to)));
        steps.push((Stage::Data, "DATA\r\n".to_owned()));
        steps
    }

    /// What state a refusal leaves, when the replies to `unanswered` later commands are still to come. A relay that
    /// wants the mail all the same (354) gets the connection's end instead: without the final dot it has nothing.
    async fn after_refusal(&mut self, reply: &Reply, unanswered: usize) -> State {
        if reply.code == 421 {
            return State::Spent;
        }
        let drain = async {
            for _ in 0..unanswered {
                let reply = self.dialogue.reply().await?;
                if matches!(reply.code, 354 | 421) {
                    return Ok(State::Spent);
                }
            }
            Ok::<_, Code>(State::NeedsReset)
        };
        match timeout(DRAIN_PATIENCE, drain).await {
            Ok(Ok(state)) => state,
            Ok(Err(_)) | Err(_) => State::Spent,
        }
    }

    /// Takes leave; the answer is not waited for.
    pub(super) async fn quit(mut self) {
        let _ = timeout(QUIT_PATIENCE, self.dialogue.say(b"QUIT\r\n")).await;
    }
}
