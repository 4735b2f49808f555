//! Each fault of the fake relay, what the provider makes of it, and whether the witness agrees.

use super::*;

struct Case {
    fault: Fault,
    verdict: Verdict,
    /// What the witness has about the recipient, if it came that far.
    witnessed: Option<WitnessVerdict>,
    status: u16,
}

fn case(fault: Fault, verdict: Verdict, witnessed: impl Into<Option<WitnessVerdict>>, status: u16) -> Case {
    Case { fault, verdict, witnessed: witnessed.into(), status }
}

fn code(code: &'static str) -> Code {
    Code::known(code)
}

fn accepted() -> Verdict {
    Verdict::Accepted { provider_id: Some("S0".to_owned()) }
}

#[tokio::test]
async fn every_fault_has_its_verdict_and_the_witness_agrees() {
    use WitnessVerdict::{Accepted, Refused};
    let cases = [
        case(Fault::None, accepted(), Accepted, 250),
        case(Fault::AcceptThenDrop, Verdict::Unknown(code("smtp_closed")), Accepted, 0),
        case(Fault::AcceptSlow, Verdict::Unknown(code("smtp_timeout")), Accepted, 250),
        case(Fault::Refuse, Verdict::Refused(code("smtp_550")), Refused, 550),
        case(Fault::Throttle, Verdict::Throttled(code("smtp_421")), None, 421),
        case(Fault::Unavailable, Verdict::Deferred(code("smtp_451")), Refused, 451),
        case(Fault::FailBefore, Verdict::Deferred(code("smtp_451")), Refused, 451),
        case(Fault::FailAfterAccept, Verdict::Unknown(code("smtp_closed")), Accepted, 0),
        case(Fault::Garbage, Verdict::Unknown(code("smtp_answer_unreadable")), Accepted, 0),
        case(Fault::DropBefore, Verdict::NotSent(code("smtp_closed")), Refused, 0),
        case(Fault::HalfAnswer, Verdict::Unknown(code("smtp_closed")), Accepted, 0),
    ];
    for Case { fault, verdict, witnessed, status } in cases {
        let relay = fake_relay(&[fault]).await;
        let account = account(AccountSettings { answer_timeout_s: 1, ..plain(relay.door.address) });

        let (seen, signal) = account.send().await;
        assert_eq!(seen, verdict, "{fault:?}");
        assert_eq!(signal.is_some(), fault == Fault::Throttle, "{fault:?}");

        let lines = relay.witness.lines();
        assert_eq!(lines.len(), 1, "{fault:?}");
        assert_eq!((lines[0].provider, lines[0].status), ("smtp", status), "{fault:?}");
        let recipient = lines[0].recipients.first();
        assert_eq!(recipient.map(|recipient| recipient.verdict), witnessed, "{fault:?}");
        if let Some(recipient) = recipient {
            assert_eq!(recipient.to, relay.witness.hash("jean@dest.example"), "{fault:?}");
        }
        if witnessed == Some(Accepted) {
            assert_eq!(recipient.unwrap().key.as_deref(), Some(KEY.to_string().as_str()), "{fault:?}");
        }

        account.expect_accepted().await;
    }
}

#[tokio::test]
async fn a_mail_is_never_handed_over_twice_by_one_send() {
    use Fault::{AcceptThenDrop, DropBefore, FailAfterAccept, Garbage, HalfAnswer};
    for fault in [AcceptThenDrop, FailAfterAccept, Garbage, HalfAnswer, DropBefore] {
        let relay = fake_relay(&[Fault::None, fault]).await;
        let account = account(plain(relay.door.address));
        account.expect_accepted().await;
        account.send().await;
        assert_eq!(relay.witness.lines().len(), 2, "{fault:?}");
    }
}

#[tokio::test]
async fn what_is_late_or_cannot_be_a_mail_never_reaches_the_relay() {
    let relay = fake_relay(&[]).await;
    let account = account(plain(relay.door.address));
    account.clock.pass(Duration::from_secs(10));

    let (verdict, _) = account.send_to(recipient("jean@dest.example"), Duration::from_secs(10)).await;
    assert_eq!(verdict, Verdict::NotSent(code("send_deadline")));

    let mut injecting = recipient("jean@dest.example");
    injecting.slots = Slots::default();
    injecting.slots.push("you\r\nBcc: victim@dest.example");
    let (verdict, _) = account.send_to(injecting, IN_TIME).await;
    assert_eq!(verdict, Verdict::Refused(code("header_invalid")));

    let (verdict, _) = account.send_to(recipient("a@dest.example>\r\nRCPT TO:<b@dest.example"), IN_TIME).await;
    assert_eq!(verdict, Verdict::Refused(code("address_invalid")));

    let (verdict, _) = account.send_to(recipient("zoé@dest.example"), IN_TIME).await;
    assert_eq!(verdict, Verdict::Refused(code("smtp_utf8_unsupported")));

    assert_eq!(relay.witness.lines(), []);
    account.expect_accepted().await;
}

#[tokio::test]
async fn the_fake_takes_our_login() {
    let relay = fake_relay(&[]).await;
    let account = account(AccountSettings { user: Some("us".to_owned()), ..plain(relay.door.address) });
    account.expect_accepted().await;
}

#[tokio::test]
async fn a_relay_keeps_no_log_that_can_be_asked() {
    let relay = fake_relay(&[]).await;
    let account = account(plain(relay.door.address));
    let question = Question { key: KEY, batch_key: KEY, token: Token([0; 16]), claimed_at_ms: 0 };
    assert_eq!(account.provider.look_up(&[question]).await, Ok(vec![Finding::CannotTell]));
    assert_eq!(account.provider.contract().class, Class::Nothing);
}
