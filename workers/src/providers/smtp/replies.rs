//! What a relay says, and what it means.
//!
//! A reply is three digits and text, over one or several lines (RFC 5321 §4.2). Its first digit decides: 2 is done,
//! 3 wants more, 4 is refused for now, 5 for good. What that means depends on the step it answers.

use std::time::Duration;

use super::super::{Code, Signal, Verdict};

/// Octets of one reply, all lines together. RFC 5321 §4.5.3.1.5 allows 512 a line; a long EHLO has some thirty.
pub(super) const REPLY_BYTES_MAX: usize = 16 * 1024;

/// Octets of a queue id worth keeping; Exchange writes the longest, some 60.
const QUEUE_ID_MAX: usize = 128;

/// A relay that says 421 or greets with 4xx is left alone this long.
const THROTTLE_WAIT: Duration = Duration::from_secs(5);

/// A relay that greets with 5xx does not serve us (RFC 5321 §3.1). That is often a block of our address and sometimes
/// maintenance: asked again once a minute, it neither hammers the one nor needs an operator after the other.
const UNWELCOME_WAIT: Duration = Duration::from_secs(60);

/// A step of the dialogue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Stage {
    /// DNS and TCP.
    Connect,
    /// The first line, which the relay speaks.
    Greeting,
    /// `EHLO`.
    Hello,
    /// `STARTTLS`, and the handshake.
    Tls,
    /// `AUTH LOGIN`, and the user name: the relay prompts for what comes next.
    LoginPrompt,
    /// The proof that ends `AUTH`.
    Login,
    /// `RSET` after a refused recipient.
    Reset,
    /// `MAIL FROM`.
    Sender,
    /// `MAIL FROM` with SMTPUTF8: it depends on the recipient, and so does its refusal.
    SenderUtf8,
    /// `RCPT TO`.
    Recipient,
    /// `DATA`.
    Data,
    /// The mail itself: from its first octet to the reply to its last line.
    Content,
}

impl Stage {
    /// Whether the reply lets the dialogue go on to the next step.
    pub(super) fn is_passed_by(self, reply: &Reply) -> bool {
        match self {
            Self::Data => reply.code == 354,
            Self::LoginPrompt => reply.code == 334,
            _ => (200..300).contains(&reply.code),
        }
    }
}

/// One reply. It may quote an address: has no `Debug`.
pub(super) struct Reply {
    /// Its three digits, 200 to 599.
    pub(super) code: u16,
    /// Its lines without code, joined by LF; octets outside visible ASCII are `?`.
    pub(super) text: String,
}

/// What stands at the start of what was read.
pub(super) enum Parsed {
    /// A reply, and how many octets it took.
    Whole(Reply, usize),
    /// The beginning of a reply.
    Partial,
    /// No reply.
    Unreadable,
}

/// Reads one reply from the start of `bytes`.
pub(super) fn parse(bytes: &[u8]) -> Parsed {
    let mut code = None;
    let mut text = String::new();
    let mut taken = 0;
    for line in bytes.split_inclusive(|byte| *byte == b'\n') {
        let Some(content) = line.strip_suffix(b"\n") else { break };
        let content = content.strip_suffix(b"\r").unwrap_or(content);
        let Some((digits, after)) = content.split_first_chunk::<3>() else { return Parsed::Unreadable };
        let Some(of_line) = code_of(*digits) else { return Parsed::Unreadable };
        if *code.get_or_insert(of_line) != of_line {
            return Parsed::Unreadable;
        }
        taken += line.len();
        let (is_last, words) = match after.split_first() {
            None => (true, after),
            Some((b' ', words)) => (true, words),
            Some((b'-', words)) => (false, words),
            Some(_) => return Parsed::Unreadable,
        };
        text.extend(words.iter().map(|byte| if matches!(byte, b' '..=b'~') { char::from(*byte) } else { '?' }));
        if is_last {
            return Parsed::Whole(Reply { code: of_line, text }, taken);
        }
        text.push('\n');
    }
    if bytes.len() >= REPLY_BYTES_MAX { Parsed::Unreadable } else { Parsed::Partial }
}

fn code_of(digits: [u8; 3]) -> Option<u16> {
    let mut code = 0;
    for digit in digits {
        code = code * 10 + u16::try_from(char::from(digit).to_digit(10)?).ok()?;
    }
    (200..600).contains(&code).then_some(code)
}

/// How a dialogue ended.
pub(super) enum Ending {
    /// With this reply to this step.
    Replied(Stage, Reply),
    /// Without a readable reply to this step.
    Broken(Stage, Code),
    /// The relay cannot do what our settings ask of it.
    Unfit(Code),
}

/// What the end of a dialogue means for the recipient, and for the account.
///
/// The relay has the mail when it answers the final dot with 2xx, and not otherwise; a dialogue that breaks between
/// the first octet of the mail and that reply is the only one whose outcome is unknown.
pub(super) fn judge(ending: Ending) -> (Verdict, Option<Signal>) {
    match ending {
        Ending::Replied(stage, reply) => judge_reply(stage, &reply),
        Ending::Broken(Stage::Content, code) => (Verdict::Unknown(code), None),
        Ending::Broken(_, code) => (Verdict::NotSent(code), None),
        Ending::Unfit(code) => (Verdict::AccountRefused(code.clone()), Some(Signal::Stop(code))),
    }
}

fn judge_reply(stage: Stage, reply: &Reply) -> (Verdict, Option<Signal>) {
    let code = Code::numbered("smtp", u32::from(reply.code));
    let throttled = |code| (Verdict::Throttled(code), Some(Signal::Wait(THROTTLE_WAIT)));
    let stopped = |code: Code| (Verdict::AccountRefused(code.clone()), Some(Signal::Stop(code)));
    match (stage, reply.code) {
        (Stage::Content, 200..=299) => (Verdict::Accepted { provider_id: queue_id(&reply.text) }, None),
        (_, 421) => throttled(code),

        (Stage::Greeting, 400..=499) => throttled(code),
        (Stage::Greeting, 500..) => (Verdict::AccountRefused(code), Some(Signal::Wait(UNWELCOME_WAIT))),

        // Seen from SendGrid: `451 Authentication failed: Maximum credits exceeded`.
        (Stage::Login | Stage::LoginPrompt, 400..=499) if reply.text.to_ascii_lowercase().contains("credit") => {
            stopped(Code::known("smtp_no_credit"))
        }
        (Stage::Login | Stage::LoginPrompt, 400..=499) => throttled(code),
        (Stage::Login | Stage::LoginPrompt, 500..) => stopped(code),

        // RFC 4954 §6: these are about who we are, whatever they answer.
        (Stage::Sender | Stage::SenderUtf8 | Stage::Recipient | Stage::Data, 530 | 534 | 535 | 538) => stopped(code),
        // What is refused here is the sender, which every recipient shares.
        (Stage::Sender, 400..=499) => throttled(code),
        (Stage::Sender, 500..) => stopped(code),

        // RFC 5321 §4.5.3.1.10: 552 to RCPT means 452. A full mailbox may have room tomorrow.
        (Stage::Recipient, 552) => (Verdict::Deferred(code), None),
        (Stage::SenderUtf8 | Stage::Recipient | Stage::Data | Stage::Content, 400..=499) => {
            (Verdict::Deferred(code), None)
        }
        (Stage::SenderUtf8 | Stage::Recipient | Stage::Data | Stage::Content, 500..) => (Verdict::Refused(code), None),

        // 3xx to the final dot is no answer to it.
        (Stage::Content, _) => (Verdict::Unknown(code), None),
        (_, _) => (Verdict::NotSent(code), None),
    }
}

/// The relay's own id for the mail, where the reply says it in one of the usual ways: `queued as ID` (Postfix,
/// SendGrid), `id=ID` (Exim), `ID Message accepted for delivery` (Sendmail, OpenSMTPD), `Message Queued (ID)` (Haraka).
fn queue_id(text: &str) -> Option<String> {
    let after = |marker: &str| {
        let at = text.to_ascii_lowercase().find(marker)?;
        text.get(at + marker.len()..)?.split_whitespace().next()
    };
    let before = |marker: &str| {
        let at = text.to_ascii_lowercase().find(marker)?;
        text.get(..at)?.split_whitespace().last()
    };
    let id = after("queued as ")
        .or_else(|| after("queued (").filter(|id| id.ends_with(')')))
        .or_else(|| after("id="))
        .or_else(|| before("message accepted"))?
        .trim_matches(|letter: char| !letter.is_ascii_alphanumeric());
    // An `@` could be an address, which must not travel on as an id; a lone status such as 2.0.0 is no id.
    let is_status = id.contains('.') && id.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    let is_id = (1..=QUEUE_ID_MAX).contains(&id.len())
        && id.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'@')
        && !is_status;
    is_id.then(|| id.to_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn reply(code: u16, text: &str) -> Reply {
        Reply { code, text: text.to_owned() }
    }

    fn verdict(stage: Stage, code: u16) -> Verdict {
        judge(Ending::Replied(stage, reply(code, "said the relay"))).0
    }

    fn signal(stage: Stage, code: u16, text: &str) -> Option<Signal> {
        judge(Ending::Replied(stage, reply(code, text))).1
    }

    #[test]
    fn a_reply_over_several_lines_is_one() {
        let bytes = b"250-relay.example\r\n250-SIZE 10485760\r\n250 PIPELINING\r\n354 go on\r\n";
        let Parsed::Whole(reply, taken) = parse(bytes) else { panic!("a whole reply") };
        assert_eq!((reply.code, reply.text.as_str()), (250, "relay.example\nSIZE 10485760\nPIPELINING"));
        assert_eq!(&bytes[taken..], b"354 go on\r\n");
    }

    #[test]
    fn a_reply_cut_anywhere_is_not_taken_for_a_whole_one() {
        let whole = b"250-relay.example\r\n250 2.0.0 Ok\r\n";
        for cut in 0..whole.len() {
            assert!(matches!(parse(&whole[..cut]), Parsed::Partial), "cut at {cut}");
        }
    }

    #[test]
    fn what_is_no_reply_is_unreadable() {
        for bytes in [&b"hello\r\n"[..], b"25\r\n", b"250_ok\r\n", b"199 ok\r\n", b"650 ok\r\n", b"250-a\r\n251 b\r\n"]
        {
            assert!(matches!(parse(bytes), Parsed::Unreadable), "{bytes:?}");
        }
        assert!(matches!(parse(&vec![b'2'; REPLY_BYTES_MAX]), Parsed::Unreadable));
    }

    #[test]
    fn only_2xx_to_the_final_dot_is_acceptance() {
        for stage in
            [Stage::Greeting, Stage::Hello, Stage::Tls, Stage::Login, Stage::Sender, Stage::Recipient, Stage::Data]
        {
            for code in 200..600 {
                assert!(
                    !matches!(verdict(stage, code), Verdict::Accepted { .. } | Verdict::Unknown(_)),
                    "{stage:?} {code}"
                );
            }
        }
        for code in 200..600 {
            assert_eq!(matches!(verdict(Stage::Content, code), Verdict::Accepted { .. }), code < 300, "{code}");
            assert_eq!(
                matches!(verdict(Stage::Content, code), Verdict::Unknown(_)),
                (300..400).contains(&code),
                "{code}"
            );
        }
    }

    #[test]
    fn a_refusal_is_the_recipients_from_rcpt_on_and_the_accounts_before() {
        assert_eq!(verdict(Stage::Recipient, 550), Verdict::Refused(Code::known("smtp_550")));
        assert_eq!(verdict(Stage::Recipient, 450), Verdict::Deferred(Code::known("smtp_450")));
        assert_eq!(verdict(Stage::Recipient, 552), Verdict::Deferred(Code::known("smtp_552")));
        assert_eq!(verdict(Stage::Content, 554), Verdict::Refused(Code::known("smtp_554")));
        assert_eq!(verdict(Stage::Content, 451), Verdict::Deferred(Code::known("smtp_451")));
        assert_eq!(verdict(Stage::Sender, 553), Verdict::AccountRefused(Code::known("smtp_553")));
        assert_eq!(signal(Stage::Sender, 553, ""), Some(Signal::Stop(Code::known("smtp_553"))));
        assert_eq!(signal(Stage::Recipient, 530, ""), Some(Signal::Stop(Code::known("smtp_530"))));
        assert_eq!(signal(Stage::Recipient, 550, ""), None);
    }

    #[test]
    fn a_relay_that_closes_or_is_busy_is_waited_for() {
        for stage in [Stage::Greeting, Stage::Login, Stage::Sender, Stage::Recipient, Stage::Data, Stage::Content] {
            assert_eq!(verdict(stage, 421), Verdict::Throttled(Code::known("smtp_421")), "{stage:?}");
            assert!(matches!(signal(stage, 421, ""), Some(Signal::Wait(_))), "{stage:?}");
        }
        assert!(matches!(signal(Stage::Greeting, 554, ""), Some(Signal::Wait(_))));
    }

    #[test]
    fn credit_that_ran_out_stops_the_account_even_when_it_sounds_temporary() {
        let text = "Authentication failed: Maximum credits exceeded";
        assert_eq!(signal(Stage::Login, 451, text), Some(Signal::Stop(Code::known("smtp_no_credit"))));
        assert!(matches!(signal(Stage::Login, 454, "try later"), Some(Signal::Wait(_))));
        assert_eq!(signal(Stage::Login, 535, "no"), Some(Signal::Stop(Code::known("smtp_535"))));
    }

    #[test]
    fn the_queue_id_is_found_where_relays_put_it() {
        for (text, id) in [
            ("2.0.0 Ok: queued as 4XyZ12abc", Some("4XyZ12abc")),
            ("Ok: queued as hG-7_x.", Some("hG-7_x")),
            ("OK id=1rABcD-0001aB-Xy", Some("1rABcD-0001aB-Xy")),
            ("2.0.0 3BH9x012345 Message accepted for delivery", Some("3BH9x012345")),
            ("2.0.0: 8a9b1c2d Message accepted for delivery", Some("8a9b1c2d")),
            ("Message Queued (C0FFEE-1.1)", Some("C0FFEE-1.1")),
            ("2.0.0 Message accepted for delivery", None),
            ("queued as <a@b.example>", None),
            ("queued as ", None),
            ("Ok", None),
        ] {
            assert_eq!(queue_id(text).as_deref(), id, "{text}");
        }
        assert_eq!(queue_id(&format!("queued as {}", "a".repeat(QUEUE_ID_MAX + 1))), None);
    }

    proptest! {
        #[test]
        fn hostile_bytes_never_become_an_unprintable_text_or_an_odd_code(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Parsed::Whole(reply, taken) = parse(&bytes) {
                prop_assert!(taken <= bytes.len() && (200..600).contains(&reply.code));
                prop_assert!(reply.text.bytes().all(|byte| matches!(byte, b' '..=b'~' | b'\n')));
                let _ = queue_id(&reply.text);
            }
        }
    }
}
