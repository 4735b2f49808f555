//! `dispatch import`, and the lists it makes.

use serde_json::json;

use super::{CliError, Served};

#[tokio::test]
async fn a_refused_first_upload_makes_no_list_and_a_repeat_just_works() {
    let served = Served::new().await;
    let file = served.file("people.csv", "anna@example.org,Anna\nb@example.org,B\n");
    let file = file.to_str().unwrap();
    let line = ["import", "--list", "people", "--legal-basis", "consent", file];
    let refused = served.run(&line).await.unwrap_err().to_string();
    assert!(refused.contains("no list was made") && !refused.contains("anna"), "{refused}");
    for path in ["/v1/lists", "/v1/sources"] {
        assert_eq!(served.world.get(path).await.good()["data"], json!([]), "{path}");
    }
    served.file("people.csv", "email,name\nanna@example.org,Anna\nb@example.org,B\n");
    assert!(served.run(&line).await.unwrap().contains("2  rows read"));
    // The basis that is stored holds: another one is not passed over.
    assert!(served.run(&line).await.unwrap().contains("2  contacts updated"));
    let other = ["import", "--list", "people", "--legal-basis", "contract", file];
    let refused = served.run(&other).await.unwrap_err();
    assert!(matches!(refused, CliError::Usage(_)) && refused.to_string().contains("consent"), "{refused}");
    assert_eq!(served.world.get("/v1/sources").await.good()["data"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn an_upload_refused_after_its_beginning_says_that_its_list_is_there() {
    let served = Served::new().await;
    // More than the engine of this test takes, and good as far as the beginning tells.
    let file = served.file("large.csv", &format!("email\n{}", "a@example.org\n".repeat(100_000)));
    let line = ["import", "--list", "people", "--legal-basis", "consent", file.to_str().unwrap()];
    let refused = served.run(&line).await.unwrap_err();
    assert!(refused.to_string().contains("was made and is empty"), "{refused}");
    served.file("large.csv", "email\na@example.org\n");
    assert!(served.run(&line).await.unwrap().contains("1  new contacts"));
}

#[tokio::test]
async fn what_looks_like_an_id_is_never_made_into_a_list() {
    let served = Served::new().await;
    let file = served.file("people.csv", "email\na@example.org\n");
    let import = async |list: &str| {
        served.run(&["import", "--list", list, "--legal-basis", "consent", file.to_str().unwrap()]).await
    };
    for id in ["lst_0000000000007", "lst_7", "cmp_0000000000007"] {
        let error = import(id).await.unwrap_err();
        assert!(matches!(&error, CliError::Usage(text) if text.contains(id)), "{error}");
    }
    assert_eq!(served.world.get("/v1/lists").await.good()["data"], json!([]));
    let id = served.world.list("people").await;
    let by_id = ["import", "--list", id.as_str().unwrap(), file.to_str().unwrap()];
    assert!(served.run(&by_id).await.unwrap().contains("in the list people"));
}
