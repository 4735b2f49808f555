use axum::{
    body::Body,
    http::{Method, Request},
};
use serde_json::{Value, json};

use super::world::{World, campaign, request};
use crate::api::Health;

async fn problem_of(world: &World, kind: &str, body: impl Into<Body>) -> (u16, String) {
    let request = request(Method::POST, "/v1/sources", &world.key).header("content-type", kind);
    world.send(request.body(body.into()).unwrap()).await.problem()
}

#[tokio::test]
async fn a_body_that_is_not_what_it_should_be_is_refused_with_its_reason() {
    let world = World::new().await;
    let json_kind = "application/json; charset=utf-8";
    let malformed = (400, "malformed-request".to_owned());
    let invalid = (422, "validation-failed".to_owned());
    assert_eq!(problem_of(&world, "text/plain", "{}").await, (415, "media-type".to_owned()));
    assert_eq!(problem_of(&world, json_kind, "").await, malformed);
    assert_eq!(problem_of(&world, json_kind, "{\"name\":").await, malformed);
    assert_eq!(problem_of(&world, json_kind, "[".repeat(10_000)).await, malformed);
    assert_eq!(problem_of(&world, json_kind, r#"{"name":"a","name":"b"}"#).await, malformed);
    assert_eq!(problem_of(&world, json_kind, r#"{"name":1e400}"#).await, malformed);
    assert_eq!(problem_of(&world, json_kind, "[]").await, invalid);
    assert_eq!(problem_of(&world, json_kind, r#"{"naem":"a"}"#).await, invalid);
    let large = format!(r#"{{"name":"{}"}}"#, "x".repeat(1 << 20));
    assert_eq!(problem_of(&world, json_kind, large).await, (413, "too-large".to_owned()));

    let zipped = request(Method::POST, "/v1/sources", &world.key)
        .header("content-type", "application/json")
        .header("content-encoding", "gzip");
    assert_eq!(world.send(zipped.body(Body::from("{}")).unwrap()).await.status, 415);
    let missing = world.send(request(Method::POST, "/v1/sources", &world.key).body(Body::from("{}")).unwrap()).await;
    assert_eq!(missing.status, 415);
}

#[tokio::test]
async fn a_body_that_breaks_off_changes_nothing() {
    let world = World::new().await;
    let chunks = futures_util::stream::iter([Ok(r#"{"name":"a","#), Err(std::io::Error::other("gone"))]);
    assert_eq!(problem_of(&world, "application/json", Body::from_stream(chunks)).await.0, 400);
    assert_eq!(world.get("/v1/sources").await.good()["data"], json!([]));
}

#[tokio::test]
async fn what_does_not_exist_and_wrong_methods_are_problems_too() {
    let world = World::new().await;
    for path in ["/", "/v2/lists", "/v1/lists/../keys", "/v1/lists/%2e%2e/keys", "/v1/lists/%252e%252e"] {
        assert_eq!(world.get(path).await.problem(), (404, "not-found".to_owned()), "{path}");
    }
    let patch = world.call(Method::PATCH, "/v1/lists", &world.key, &json!({})).await;
    assert_eq!(patch.problem(), (405, "method-not-allowed".to_owned()));
    assert!(patch.headers["allow"].to_str().unwrap().contains("POST"));
}

#[tokio::test]
async fn an_id_of_another_kind_names_nothing() {
    let world = World::new().await;
    let got = world.get("/v1/campaigns/lst_0000000000007").await;
    assert_eq!(got.status, 404);
    assert!(got.json()["detail"].as_str().unwrap().contains("cmp_"), "{}", got.text);
}

#[tokio::test]
async fn every_problem_has_a_page_at_its_type() {
    let world = World::new().await;
    for kind in crate::api::problem::Kind::ALL {
        let got = world.send(Request::get(format!("/problems/{}", kind.slug)).body(Body::empty()).unwrap()).await;
        assert!(got.status == 200 && got.text.starts_with(kind.title), "{}", kind.slug);
    }
    assert_eq!(world.get("/problems/conflict/campaign-launched").await.status, 200);
    assert_eq!(world.get("/problems/nothing").await.status, 404);
}

#[tokio::test]
async fn no_address_comes_back_in_an_error() {
    let world = World::new().await;
    let canary = "anna.canary@example.org";
    let phone = "+33 6 12 34 56 78 CANARY";
    let mut answers = Vec::new();
    for path in [
        "/v1/sources",
        "/v1/lists",
        "/v1/suppressions",
        "/v1/erasures",
        "/v1/templates",
        "/v1/campaigns",
        "/v1/messages",
    ] {
        for text in [canary, phone] {
            let fields =
                ["name", "kind", "source", "addresses", "channel", "email", "phone", "template", "to", "account", text];
            let body: serde_json::Map<String, Value> =
                fields.iter().map(|field| ((*field).to_owned(), json!(text))).collect();
            answers.push(world.post(path, &Value::Object(body)).await);
            answers.push(world.post(path, &json!([text])).await);
            answers.push(world.post(&format!("{path}/{canary}"), &json!(text)).await);
        }
    }
    let bad = json!({"addresses": ["anna.canary@", "@canary", canary], "channel": "email"});
    answers.push(world.post("/v1/suppressions", &bad).await);
    for query in
        ["state=anna.canary@example.org", "limit=anna.canary", "anna.canary@example.org=1", "cursor=anna.canary"]
    {
        answers.push(world.get(&format!("/v1/campaigns/cmp_0000000000007/recipients?{query}")).await);
    }
    for answer in answers {
        assert!(answer.status.is_client_error(), "{}", answer.text);
        let said = answer.text.to_lowercase();
        assert!(!said.contains("canary") && !said.contains("6 12 34"), "{}", answer.text);
    }
}

#[tokio::test]
async fn all_that_is_wrong_with_a_campaign_is_said_at_once() {
    let world = World::new().await;
    let mut body = campaign(&[&json!("lst_1"), &json!(7)]);
    body["send_at"] = json!("2027-02-30T09:00:00Z");
    body["expires_at"] = json!("2027-03-01T09:00:00");
    body["limits"] = json!({"per_second": -1, "per_minute": 4_000_000_000_u64, "per_year": 1});
    body["purpose"] = json!("spam");
    let errors = world.post("/v1/campaigns", &body).await.json()["errors"].clone();
    let mut pointers: Vec<&str> = errors.as_array().unwrap().iter().map(|e| e["pointer"].as_str().unwrap()).collect();
    pointers.sort_unstable();
    assert_eq!(
        pointers,
        [
            "/expires_at",
            "/limits/per_minute",
            "/limits/per_second",
            "/limits/per_year",
            "/lists/0",
            "/lists/1",
            "/purpose",
            "/send_at",
        ]
    );
}

#[tokio::test]
async fn the_engine_answers_the_machines_that_watch_it() {
    let world = World::new().await;
    assert_eq!(world.get("/healthz").await.text, "ok\n");
    for (worker, status, says) in [
        (Health::Well, 200, "ok"),
        (Health::Impaired("one account is refused".to_owned()), 200, "degraded: one account is refused"),
        (Health::Down("all accounts are refused".to_owned()), 503, "all accounts are refused"),
    ] {
        *world.told.worker.lock().unwrap() = worker;
        let ready = world.get("/readyz").await;
        let text = format!("scheduler: ok\nworker: {says}\nledger: ok\n");
        assert_eq!((ready.status.as_u16(), ready.text), (status, text));
    }
    assert!(world.get("/metrics").await.text.contains("dispatch_build_info"));
    assert_eq!(world.get("/openapi.json").await.json()["openapi"], "3.1.0");
}
