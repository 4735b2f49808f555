//! RabbitMQ: whether it is there, its version, its queues, its alarms.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::{
    Check,
    reach::{self, Protection},
};
use crate::{
    queue::rabbitmq::{
        Link,
        examination::{Examined, Takes, Thing, examine as look},
    },
    settings::{QueueUrl, Settings},
};

/// The oldest version whose quorum queues can do what is asked of them: `x-dead-letter-strategy` came with 3.10.
const VERSION_MIN: (u32, u32) = (3, 10);
/// What a client says first (AMQP 0-9-1, section 4.2.2); the broker answers with who it is.
const PROTOCOL_HEADER: &[u8; 8] = b"AMQP\0\0\x09\x01";
/// Bytes of the broker's first words that are read; they have some 500.
const FIRST_WORDS_BYTES_MAX: usize = 16 << 10;
/// Bytes of a frame before its content: type, channel, length.
const FRAME_HEADER_BYTES: usize = 7;
/// How long they may take.
const FIRST_WORDS_WITHIN: Duration = Duration::from_secs(10);

pub(super) async fn examine(settings: &Settings) -> Vec<Check> {
    let Some(url) = &settings.queue.url else {
        return vec![Check::ok("broker", "none is named: each process keeps its jobs itself")];
    };
    let mut checks = vec![version(url, settings).await];
    let link = match (settings.queue.password(), settings.queue.authority()) {
        (Ok(password), Ok(authority)) => Link::new(url, password.as_ref(), authority),
        (Err(error), _) | (_, Err(error)) => {
            checks.push(Check::refused("broker.login", error.to_string()));
            return checks;
        }
    };
    match look(&link).await {
        Ok(examined) => checks.extend(judge(&examined, settings)),
        Err(error) => checks.push(Check::refused("broker.reached", error.to_string())),
    }
    checks
}

fn judge(examined: &Examined, settings: &Settings) -> Vec<Check> {
    let mut checks = vec![Check::ok("broker.reached", "it lets us in")];
    let names = |wanted: fn(&Thing) -> bool| {
        let found = examined.things.iter().filter(move |(_, thing)| wanted(thing));
        found.map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(", ")
    };
    for (name, thing) in &examined.things {
        if let Thing::Other(why) = thing {
            checks.push(Check::fail(
                "broker.queues",
                format!("{name} is not as it must be ({why})"),
                "stop the engines and delete it there: it is made anew, and its jobs come again from the ledger",
            ));
        }
    }
    let missing = names(|thing| *thing == Thing::Missing);
    if !missing.is_empty() {
        let mend = "nothing, if no engine has run on it yet: it makes them; else somebody deletes them";
        checks.push(Check::warn("broker.queues", format!("not there: {missing}"), mend));
    } else if examined.things.iter().all(|(_, thing)| *thing == Thing::Well) {
        let all = examined.things.len();
        checks.push(Check::ok("broker.queues", format!("all {all} queues and exchanges are as they must be")));
    }
    checks.push(match examined.set_aside {
        0 => Check::ok("broker.set_aside", "no message is set aside"),
        messages => Check::warn(
            "broker.set_aside",
            format!("{messages} messages are set aside because nobody could work on them"),
            "look with `dispatch jobs list`, then `dispatch jobs replay` or `dispatch jobs drop`",
        ),
    });
    checks.push(match examined.takes {
        Takes::Promptly => Check::ok("broker.alarms", "it takes messages"),
        Takes::Alarmed => Check::fail(
            "broker.alarms",
            "an alarm of its memory or its disk holds every publisher up",
            "look with `rabbitmq-diagnostics alarms`; free disk or memory there",
        ),
        Takes::Slowly => Check::warn(
            "broker.alarms",
            "it did not confirm a message in time",
            "look at its load, its disk, and whether most nodes of its cluster are up",
        ),
    });
    if settings.ledger.url.file().is_none() && !settings.queue.url.as_ref().is_some_and(QueueUrl::tls) {
        checks.push(Check::ok("broker.tls", "the connection does not leave this machine"));
    }
    checks
}

/// The broker says its version before anybody logs in.
async fn version(url: &QueueUrl, settings: &Settings) -> Check {
    let protection = if url.tls() { Protection::Tls(settings.queue.ca_file.as_deref()) } else { Protection::None };
    let asked = async {
        let mut stream = reach::connect(url.host(), url.port(), protection).await?;
        let broken = |error: std::io::Error| format!("it broke off ({})", error.kind());
        stream.write_all(PROTOCOL_HEADER).await.map_err(broken)?;
        let mut header = [0; FRAME_HEADER_BYTES];
        stream.read_exact(&mut header).await.map_err(broken)?;
        let [_, _, _, length @ ..] = header;
        let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX).min(FIRST_WORDS_BYTES_MAX);
        let mut words = vec![0; length];
        stream.read_exact(&mut words).await.map_err(broken)?;
        Ok::<_, String>(words)
    };
    let words = match tokio::time::timeout(FIRST_WORDS_WITHIN, asked).await {
        Ok(Ok(words)) => words,
        Ok(Err(why)) => {
            let text = format!("{}:{} cannot be used: {why}", url.host(), url.port());
            return Check::fail("broker.version", text, "check queue.url, and that RabbitMQ runs there");
        }
        Err(_) => {
            let text = format!("{}:{} says nothing", url.host(), url.port());
            return Check::fail("broker.version", text, "check that RabbitMQ is what listens there");
        }
    };
    let Some(version) = version_in(&words) else {
        return Check::warn("broker.version", "it does not say its version", "check that it is RabbitMQ");
    };
    let mut parts = version.split('.').map(|part| part.parse().unwrap_or(0));
    if (parts.next().unwrap_or(0), parts.next().unwrap_or(0)) < VERSION_MIN {
        let mend = format!("its quorum queues need RabbitMQ {}.{} or newer", VERSION_MIN.0, VERSION_MIN.1);
        return Check::fail("broker.version", format!("RabbitMQ {version}"), mend);
    }
    Check::ok("broker.version", format!("RabbitMQ {version}"))
}

/// The value of `version` among the broker's properties: a field's name with its length before it, `S`, and the length
/// and the bytes of a text (AMQP 0-9-1, section 4.2.5).
fn version_in(words: &[u8]) -> Option<&str> {
    const NAME: &[u8] = b"\x07versionS";
    let at = words.windows(NAME.len()).position(|window| window == NAME)? + NAME.len();
    let (length, rest) = words.get(at..)?.split_first_chunk::<4>()?;
    let text = rest.get(..usize::try_from(u32::from_be_bytes(*length)).ok()?)?;
    let is_version = text.len() <= 32 && text.iter().all(|byte| byte.is_ascii_alphanumeric() || b".-+".contains(byte));
    std::str::from_utf8(text).ok().filter(|_| is_version)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::doctor::Level;

    #[test]
    fn a_brokers_version_is_found_or_is_none() {
        assert_eq!(version_in(b"\x07productS\0\0\0\x08RabbitMQ\x07versionS\0\0\0\x063.10.8\x00"), Some("3.10.8"));
        for words in
            [&b""[..], b"\x07versionS", b"\x07versionS\0\0\0\x063.1", b"\x07versionS\0\0\0\x03\x1b[1", b"HTTP/1.1 400"]
        {
            assert_eq!(version_in(words), None, "{words:?}");
        }
    }

    #[test]
    fn each_trouble_of_a_broker_says_what_to_do() {
        let examined = Examined {
            things: vec![
                ("dispatch.email.bulk".to_owned(), Thing::Other("inequivalent arg 'x-queue-type'".to_owned())),
                ("dispatch.sms.bulk".to_owned(), Thing::Missing),
            ],
            set_aside: 3,
            takes: Takes::Alarmed,
        };
        let checks = judge(&examined, &Settings::default());
        let said = |level| {
            let found = checks.iter().filter(|check| check.level == level).map(ToString::to_string);
            found.collect::<Vec<_>>().join("\n")
        };
        for words in ["dispatch.email.bulk is not as it must be", "rabbitmq-diagnostics alarms"] {
            assert!(said(Level::Fail).contains(words), "{checks:?}");
        }
        for words in ["not there: dispatch.sms.bulk", "3 messages are set aside", "dispatch jobs list"] {
            assert!(said(Level::Warn).contains(words), "{checks:?}");
        }
    }
}
