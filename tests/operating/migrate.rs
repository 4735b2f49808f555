//! `dispatch migrate` against a real server.

use crate::{database::Database, dispatch, said};

const TABLES: &str = "SELECT count(*) FROM pg_tables WHERE schemaname = current_schema()";

#[tokio::test]
async fn two_at_once_make_one_ledger_and_a_third_finds_it_done() {
    let database = Database::new().await;
    let url = database.url();
    let line = ["migrate", "--ledger-url", &url];
    let (first, second) = tokio::join!(dispatch(&line, &[]), dispatch(&line, &[]));
    let both = [said(&first), said(&second)];
    assert!(first.status.success() && second.status.success(), "{both:?}");
    assert_eq!(both.iter().filter(|said| said.starts_with("Made the ledger postgres://")).count(), 1, "{both:?}");
    assert_eq!(both.iter().filter(|said| said.contains("at schema 3 already")).count(), 1, "{both:?}");
    let months = "SELECT count(*) FROM pg_inherits WHERE inhparent = 'delivery'::regclass";
    assert_eq!(database.number(months).await, 2, "this month's and the next");

    // By the settings, whose variable keeps the password from the command line.
    let again = dispatch(&["migrate"], &[("DISPATCH_LEDGER__URL", &url)]).await;
    assert!(again.status.success() && said(&again).contains("already"), "{}", said(&again));
    assert!(!said(&again).contains(&password(&url)), "{}", said(&again));
}

#[tokio::test]
async fn what_is_not_to_be_changed_is_left_as_it_is() {
    let newer = Database::new().await;
    assert!(dispatch(&["migrate", "--ledger-url", &newer.url()], &[]).await.status.success());
    newer
        .run(
            "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
              VALUES (99, '', true, '', 0)",
        )
        .await;
    let foreign = Database::new().await;
    foreign.run("CREATE TABLE invoice (id bigint)").await;
    for (database, words) in
        [(&newer, "newer version of Dispatch (it has schema 99)"), (&foreign, "has tables of another program")]
    {
        let before = database.number(TABLES).await;
        let output = dispatch(&["migrate", "--ledger-url", &database.url()], &[]).await;
        assert_eq!(output.status.code(), Some(1), "{}", said(&output));
        assert!(said(&output).contains(words), "{}", said(&output));
        assert_eq!(database.number(TABLES).await, before);
    }
}

#[tokio::test]
async fn what_hinders_it_is_said_with_an_exit_code_of_its_own_and_never_the_password() {
    let database = Database::new().await;
    // A port that was free a moment ago.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let wrong = database.changed_url(|url| url.set_password(Some("canary-7")).unwrap());
    let away = database.changed_url(|url| {
        url.set_password(Some("canary-7")).unwrap();
        url.set_port(Some(free)).unwrap();
    });
    for (url, code, words) in [
        (wrong.as_str(), 1, "refuses the role"),
        (&away, 4, "cannot be reached"),
        ("postgres://me:canary-7@db.example.org/dispatch", 2, "sslmode=verify-full"),
        ("mysql://me:canary-7@127.0.0.1/dispatch", 2, "--ledger-url: wanted"),
    ] {
        let output = dispatch(&["migrate", "--ledger-url", url], &[]).await;
        assert_eq!(output.status.code(), Some(code), "{}", said(&output));
        assert!(said(&output).contains(words) && !said(&output).contains("canary"), "{}", said(&output));
    }
}

#[tokio::test]
async fn a_file_migrates_itself() {
    let output = dispatch(&["migrate"], &[]).await;
    assert!(output.status.success(), "{}", said(&output));
    assert!(said(&output).contains("sqlite:dispatch.db needs no migration"), "{}", said(&output));
}

fn password(url: &str) -> String {
    let url: reqwest::Url = url.parse().unwrap();
    format!(":{}@", url.password().expect("the test's address has a password"))
}
