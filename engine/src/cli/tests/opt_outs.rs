//! `dispatch suppress`: no opt-out is lost silently.

use clap::Parser as _;
use serde_json::{Value, json};

use super::{Cli, CliError, Served};

#[tokio::test]
async fn a_bad_line_is_named_and_stops_none_of_the_others() {
    let served = Served::new().await;
    let file = served.dir.path().join("out.txt");
    std::fs::write(&file, b"\xef\xbb\xbfa@example.org\n\nnot an address\nb\xff@example.org\nc@example.org\r\n")
        .unwrap();
    let file = file.to_str().unwrap();
    let (said, outcome) = served.say(&["suppress", "--channel", "email", "--file", file]).await;
    assert_eq!(said, "2 suppressed, 0 were before. NOT suppressed: 2.\n");
    let Err(CliError::InPart(text)) = outcome else { panic!("{outcome:?}") };
    assert!(text.starts_with("NOT suppressed: 2 of the 4 addresses"), "{text}");
    assert!(text.contains("\n  line 3: ") && text.contains("\n  line 4: "), "{text}");
    assert!(!text.contains("not an address") && !text.contains("example"), "{text}");
    assert_eq!(served.world.get("/v1/suppressions").await.good()["data"].as_array().unwrap().len(), 2);

    let (said, _) = served.say(&["suppress", "--channel", "email", "--json", "--file", file]).await;
    let said: Value = serde_json::from_str(&said).unwrap();
    assert_eq!((&said["already_closed"], &said["refused"][0]["line"]), (&json!(2), &json!(3)));
    let (said, outcome) = served.say(&["suppress", "--channel", "email", "--lift", "--file", file]).await;
    assert_eq!(said, "2 suppressions of the reason suppressed lifted.\n");
    assert!(matches!(outcome, Err(CliError::InPart(_))));

    let domestic = served.run(&["suppress", "--channel", "sms", "0612345678"]).await.unwrap_err();
    assert!(matches!(&domestic, CliError::Usage(_)) && domestic.to_string().contains("nobody was suppressed"));
    assert!(!domestic.to_string().contains("default country") && !domestic.to_string().contains("0612"), "{domestic}");
}

#[test]
fn only_reasons_that_can_be_given_are_listed() {
    for reason in ["erased", "cancelled", "cancel"] {
        let line = ["dispatch", "suppress", "--channel", "email", "--reason", reason, "a@example.org"];
        let refused = Cli::try_parse_from(line).unwrap_err().to_string();
        let listed = refused.split_once("possible values").unwrap().1;
        assert!(listed.contains("hard_bounced") && !listed.contains("erased,"), "{refused}");
        assert!(!listed.contains("cancelled"), "{refused}");
    }
}
