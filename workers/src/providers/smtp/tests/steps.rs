//! Each step of the dialogue going wrong.

use super::*;

const GREETING: (&str, &str) = ("", "220 relay.example\r\n");
const HELLO: (&str, &str) = ("EHLO", "250 relay.example\r\n");
const MAIL: (&str, &str) = ("MAIL FROM:<news@shop.example>", "250 ok\r\n");
const RCPT: (&str, &str) = ("RCPT TO:<jean@dest.example>", "250 ok\r\n");
const DATA: (&str, &str) = ("DATA", "354 go on\r\n");

async fn outcome(script: &[(&'static str, &'static str)]) -> (Verdict, Option<Signal>) {
    let relay = scripted(vec![script.to_vec()]).await;
    account(plain(relay.address)).send().await
}

async fn outcome_of_login(script: &[(&'static str, &'static str)]) -> ((Verdict, Option<Signal>), Vec<String>) {
    let relay = scripted(vec![script.to_vec()]).await;
    let account = account(AccountSettings { user: Some("us".to_owned()), ..plain(relay.address) });
    let outcome = account.send().await;
    let heard = relay.heard.lock().unwrap().clone();
    (outcome, heard)
}

fn not_sent(code: &'static str) -> (Verdict, Option<Signal>) {
    (Verdict::NotSent(Code::known(code)), None)
}

fn stopped(code: &'static str) -> (Verdict, Option<Signal>) {
    (Verdict::AccountRefused(Code::known(code)), Some(Signal::Stop(Code::known(code))))
}

#[tokio::test]
async fn nobody_listening_is_not_sent() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    assert_eq!(account(plain(address)).send().await, not_sent("smtp_unreachable"));
}

#[tokio::test]
async fn a_relay_that_hangs_up_before_the_mail_has_nothing() {
    let steps = [GREETING, HELLO, MAIL, RCPT, ("DATA", "")];
    for through in 0..steps.len() {
        let mut script = steps[..=through].to_vec();
        script[through].1 = "";
        assert_eq!(outcome(&script).await, not_sent("smtp_closed"), "step {through}");
    }
}

#[tokio::test]
async fn a_relay_that_babbles_before_the_mail_has_nothing() {
    let steps = [GREETING, HELLO, MAIL, RCPT, DATA];
    for through in 0..steps.len() {
        let mut script = steps[..=through].to_vec();
        script[through].1 = "HTTP/1.1 400 Bad Request\r\n";
        assert_eq!(outcome(&script).await, not_sent("smtp_answer_unreadable"), "step {through}");
    }
}

#[tokio::test]
async fn a_relay_that_hangs_up_or_babbles_after_the_mail_may_have_it() {
    for said in ["", "2", "25", "250", "250-first\r\n", "nonsense\r\n", "354 more?\r\n"] {
        let (verdict, signal) = outcome(&[GREETING, HELLO, MAIL, RCPT, DATA, (".", said)]).await;
        assert!(matches!(verdict, Verdict::Unknown(_)) && signal.is_none(), "{said:?}: {verdict:?}");
    }
}

#[tokio::test]
async fn a_relay_that_hangs_up_within_the_mail_may_have_it() {
    let (verdict, _) = outcome(&[GREETING, HELLO, MAIL, RCPT, DATA]).await;
    assert!(matches!(verdict, Verdict::Unknown(_)), "{verdict:?}");
}

#[tokio::test]
async fn a_reply_nobody_asked_for_is_not_taken_for_acceptance() {
    let extra = ("DATA", "354 go on\r\n250 ok: queued as never\r\n");
    assert_eq!(outcome(&[GREETING, HELLO, MAIL, RCPT, extra]).await, not_sent("smtp_answer_unreadable"));
}

#[tokio::test]
async fn a_relay_that_is_unwelcoming_or_busy_is_left_alone_for_a_while() {
    let (verdict, signal) = outcome(&[("", "554 no service\r\n")]).await;
    assert_eq!(verdict, Verdict::AccountRefused(Code::known("smtp_554")));
    assert!(matches!(signal, Some(Signal::Wait(_))));
    for script in [vec![("", "421 busy\r\n")], vec![GREETING, HELLO, ("MAIL", "451 later\r\n")]] {
        let (verdict, signal) = outcome(&script).await;
        assert!(matches!(verdict, Verdict::Throttled(_)) && matches!(signal, Some(Signal::Wait(_))), "{verdict:?}");
    }
    assert_eq!(outcome(&[GREETING, ("EHLO", "502 what?\r\n")]).await, not_sent("smtp_502"));
}

#[tokio::test]
async fn a_refused_sender_stops_the_account_and_a_refused_recipient_does_not() {
    assert_eq!(outcome(&[GREETING, HELLO, ("MAIL", "550 not yours\r\n")]).await, stopped("smtp_550"));
    let (verdict, signal) = outcome(&[GREETING, HELLO, MAIL, ("RCPT", "450 later\r\n")]).await;
    assert_eq!((verdict, signal), (Verdict::Deferred(Code::known("smtp_450")), None));
    let (verdict, signal) = outcome(&[GREETING, HELLO, MAIL, RCPT, ("DATA", "554 no\r\n")]).await;
    assert_eq!((verdict, signal), (Verdict::Refused(Code::known("smtp_554")), None));
}

#[tokio::test]
async fn a_pipelining_relay_that_wants_the_mail_of_a_refused_recipient_gets_the_end_of_the_connection() {
    let hello = ("EHLO", "250-relay.example\r\n250 PIPELINING\r\n");
    let refused = ("RCPT", "550 no such user\r\n");
    let first = vec![GREETING, hello, MAIL, refused, DATA, (".", "250 ok: queued as never\r\n")];
    let second = vec![GREETING, HELLO, MAIL, RCPT, DATA, (".", "250 ok: queued as second\r\n")];
    let relay = scripted(vec![first, second]).await;
    let account = account(plain(relay.address));
    assert_eq!(account.send().await.0, Verdict::Refused(Code::known("smtp_550")));
    assert_eq!(account.send().await.0, Verdict::Accepted { provider_id: Some("second".to_owned()) });
    let on_the_first: Vec<_> = relay.heard.lock().unwrap().iter().map(|line| line[..4].to_owned()).take(5).collect();
    assert_eq!(on_the_first, ["EHLO", "MAIL", "RCPT", "DATA", "EHLO"]);
}

#[tokio::test]
async fn a_mail_larger_than_the_relay_takes_is_refused_unsent() {
    let (verdict, _) = outcome(&[GREETING, ("EHLO", "250-relay.example\r\n250 SIZE 100\r\n"), ("MAIL", "")]).await;
    assert_eq!(verdict, Verdict::Refused(Code::known("smtp_too_large")));
}

#[tokio::test]
async fn an_address_beyond_ascii_goes_where_it_is_understood_and_its_refusal_is_its_own() {
    let hello = ("EHLO", "250-relay.example\r\n250-8BITMIME\r\n250 SMTPUTF8\r\n");
    let mail = ("MAIL FROM:<news@shop.example> BODY=8BITMIME SMTPUTF8", "250 ok\r\n");
    let rcpt = ("RCPT TO:<zoé@dest.example>", "250 ok\r\n");
    let relay = scripted(vec![vec![GREETING, hello, mail, rcpt, DATA, (".", "250 ok: queued as z\r\n")]]).await;
    let (verdict, _) = account(plain(relay.address)).send_to(recipient("zoé@dest.example"), IN_TIME).await;
    assert_eq!(verdict, Verdict::Accepted { provider_id: Some("z".to_owned()) });
    assert!(relay.heard.lock().unwrap().iter().any(|line| line == "To: zoé@dest.example\r\n"));

    let relay = scripted(vec![vec![GREETING, hello, ("MAIL", "550 no\r\n")]]).await;
    let (verdict, signal) = account(plain(relay.address)).send_to(recipient("zoé@dest.example"), IN_TIME).await;
    assert_eq!((verdict, signal), (Verdict::Refused(Code::known("smtp_550")), None));
}

#[tokio::test]
async fn a_refused_login_stops_the_account() {
    let offer = ("EHLO", "250-relay.example\r\n250 AUTH PLAIN LOGIN\r\n");
    for (said, expected) in [
        ("535 wrong\r\n", stopped("smtp_535")),
        ("451 Authentication failed: Maximum credits exceeded\r\n", stopped("smtp_no_credit")),
    ] {
        let (outcome, heard) = outcome_of_login(&[GREETING, offer, ("AUTH", said)]).await;
        assert_eq!(outcome, expected);
        // The NUL-parted form of RFC 4616.
        assert_eq!(heard.last().map(String::as_str), Some("AUTH PLAIN AHVzAHBhc3Mgd29yZA==\r\n"));
    }
    let (outcome, _) = outcome_of_login(&[GREETING, offer, ("AUTH", "454 later\r\n")]).await;
    assert!(matches!(outcome, (Verdict::Throttled(_), Some(Signal::Wait(_)))), "{outcome:?}");
}

#[tokio::test]
async fn where_only_login_is_offered_it_is_used_and_where_nothing_is_the_account_stops() {
    let offer = ("EHLO", "250-relay.example\r\n250 AUTH CRAM-MD5 LOGIN\r\n");
    let dialogue =
        [("AUTH LOGIN", "334 VXNlcm5hbWU6\r\n"), ("dXM=", "334 UGFzc3dvcmQ6\r\n"), ("cGFzcyB3b3Jk", "235 ok\r\n")];
    let rest = [MAIL, RCPT, DATA, (".", "250 ok: queued as l\r\n")];
    let script = [&[GREETING, offer][..], &dialogue, &rest].concat();
    let ((verdict, _), _) = outcome_of_login(&script).await;
    assert!(matches!(verdict, Verdict::Accepted { .. }), "{verdict:?}");

    let (outcome, _) = outcome_of_login(&[GREETING, HELLO, ("AUTH", "")]).await;
    assert_eq!(outcome, stopped("smtp_auth_missing"));
}
