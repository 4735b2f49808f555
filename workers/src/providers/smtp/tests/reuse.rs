//! One connection for many mails, and what ends it.

use futures_util::future::join_all;

use super::{
    pool::{IDLE_MAX, MAILS_PER_CONNECTION_MAX},
    *,
};

#[tokio::test]
async fn mails_one_after_the_other_share_a_connection() {
    let relay = fake_relay(&[]).await;
    let account = account(plain(relay.door.address));
    for _ in 0..20 {
        account.expect_accepted().await;
    }
    assert_eq!((relay.door.connections(), relay.witness.accepted()), (1, 20));
}

#[tokio::test]
async fn mails_at_once_share_as_many_connections_as_may_be_open() {
    let relay = fake_relay(&[]).await;
    let account = account(plain(relay.door.address));
    join_all((0..100).map(|_| account.expect_accepted())).await;
    assert_eq!((relay.door.connections(), relay.witness.accepted()), (4, 100));
}

#[tokio::test]
async fn a_connection_is_closed_after_its_share_of_mails() {
    let relay = fake_relay(&[]).await;
    let account = account(plain(relay.door.address));
    for _ in 0..MAILS_PER_CONNECTION_MAX {
        account.expect_accepted().await;
    }
    assert_eq!(relay.door.connections(), 1);
    account.expect_accepted().await;
    assert_eq!((relay.door.connections(), relay.witness.accepted()), (2, MAILS_PER_CONNECTION_MAX + 1));
}

#[tokio::test]
async fn a_refused_recipient_leaves_the_connection_to_the_next() {
    use Fault::{FailBefore, None, Refuse};
    let relay = fake_relay(&[None, Refuse, Refuse, None, FailBefore, None]).await;
    let account = account(plain(relay.door.address));
    let mut accepted = 0;
    for _ in 0..6 {
        accepted += usize::from(matches!(account.send().await.0, Verdict::Accepted { .. }));
    }
    assert_eq!((accepted, relay.witness.accepted(), relay.door.connections()), (3, 3, 1));
}

#[tokio::test]
async fn a_connection_that_lay_idle_too_long_is_not_used_again() {
    let relay = fake_relay(&[]).await;
    let account = account(plain(relay.door.address));
    account.expect_accepted().await;
    account.clock.pass(IDLE_MAX);
    account.expect_accepted().await;
    assert_eq!(relay.door.connections(), 1);
    account.clock.pass(IDLE_MAX + Duration::from_secs(1));
    account.expect_accepted().await;
    assert_eq!(relay.door.connections(), 2);
}

#[tokio::test]
async fn connections_grow_old_without_being_asked_for() {
    let relay = fake_relay(&[]).await;
    let clock = Arc::new(StillClock::default());
    let secret = String::new().into();
    let pool = Pool::new(Relay::from_settings(&plain(relay.door.address), secret).unwrap(), 2, clock.clone());
    let (Ok(first), Ok(second)) = (pool.open().await, pool.open().await) else { panic!("the relay is there") };
    pool.give_back(first).await;
    clock.pass(Duration::from_secs(1));
    pool.give_back(second).await;
    clock.pass(IDLE_MAX);
    assert_eq!(pool.old().map(|old| old.len()), Some(1));
    clock.pass(Duration::from_secs(1));
    assert_eq!(pool.old().map(|old| old.len()), Some(1));
    assert!(pool.old().is_none() && pool.idle().is_none());
}

#[tokio::test]
async fn connections_the_relay_closed_while_idle_are_replaced_unnoticed() {
    let relay = fake_relay(&[]).await;
    let account = account(plain(relay.door.address));
    join_all((0..4).map(|_| account.expect_accepted())).await;
    let opened = relay.door.connections();
    relay.door.shut().await;
    account.expect_accepted().await;
    assert_eq!((relay.door.connections(), relay.witness.accepted()), (opened + 1, 5));
}

const ONE_MAIL: [(&str, &str); 6] = [
    ("", "220 relay.example\r\n"),
    ("EHLO", "250 relay.example\r\n"),
    ("MAIL", "250 ok\r\n"),
    ("RCPT", "250 ok\r\n"),
    ("DATA", "354 go on\r\n"),
    (".", "250 ok: queued as first\r\n"),
];

#[tokio::test]
async fn a_connection_that_dies_when_it_is_used_again_is_replaced_unnoticed() {
    // It still hears the next MAIL, so it looks alive until then.
    let dies = [&ONE_MAIL[..], &[("MAIL", "")]].concat();
    let relay = scripted(vec![dies, ONE_MAIL.to_vec()]).await;
    let account = account(plain(relay.address));
    account.expect_accepted().await;
    account.expect_accepted().await;
}

#[tokio::test]
async fn a_connection_that_dies_once_the_mail_is_begun_is_not_replaced() {
    let dies = [&ONE_MAIL[..], &[("MAIL", "250 ok\r\n"), ("RCPT", "250 ok\r\n"), ("DATA", "354 go on\r\n"), (".", "")]];
    let relay = scripted(vec![dies.concat(), ONE_MAIL.to_vec()]).await;
    let account = account(plain(relay.address));
    account.expect_accepted().await;
    assert_eq!(account.send().await.0, Verdict::Unknown(Code::known("smtp_closed")));
}
