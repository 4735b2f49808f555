use axum::http::Method;
use serde_json::json;

use super::world::World;

#[tokio::test]
async fn suppressions_are_closed_listed_and_lifted() {
    let world = World::new().await;
    let body = json!({"addresses": ["a@example.org", "A@example.org ", "b@example.org"], "channel": "email"});
    assert_eq!(world.post("/v1/suppressions", &body).await.good()["closed"], 2);
    assert_eq!(world.post("/v1/suppressions", &body).await.good()["closed"], 0);
    let page = world.get("/v1/suppressions?limit=1").await.good();
    let cursor = page["next_cursor"].as_str().unwrap();
    let rest = world.get(&format!("/v1/suppressions?cursor={cursor}")).await.good();
    assert_eq!((page["data"].as_array().unwrap().len(), rest["data"].as_array().unwrap().len()), (1, 1));
    assert_ne!(page["data"][0]["address_hash"], rest["data"][0]["address_hash"]);
    assert!(!page.to_string().contains("example"));

    let lifted = world.call(Method::DELETE, "/v1/suppressions", &world.key, &body).await.good();
    assert_eq!(lifted["opened"], 2);
    assert_eq!(world.get("/v1/suppressions").await.good()["data"], json!([]));
}

#[tokio::test]
async fn one_bad_address_suppresses_nobody_and_is_named_by_its_place() {
    let world = World::new().await;
    let body = json!({"addresses": ["+33612345678", "0612345678", "+33"], "channel": "sms"});
    let got = world.post("/v1/suppressions", &body).await;
    assert_eq!(got.status, 422);
    let detail = got.json()["detail"].as_str().unwrap().to_owned();
    assert!(detail.starts_with("2 of the 3 addresses cannot be used"), "{detail}");
    assert!(detail.ends_with("nobody was suppressed by this call"), "{detail}");
    let errors = got.json()["errors"].clone();
    assert_eq!((&errors[0]["pointer"], &errors[1]["pointer"]), (&json!("/addresses/1"), &json!("/addresses/2")));
    assert_eq!(world.get("/v1/suppressions").await.good()["data"], json!([]));
    let erased = json!({"addresses": ["a@example.org"], "channel": "email", "reason": "erased"});
    let refused = world.post("/v1/suppressions", &erased).await;
    assert_eq!(refused.status, 422);
    assert!(refused.text.contains("nobody was suppressed"), "{}", refused.text);
    let lifted = world.call(Method::DELETE, "/v1/suppressions", &world.key, &body).await;
    assert!(lifted.text.contains("nothing was lifted") && lifted.status == 422, "{}", lifted.text);
}

#[tokio::test]
async fn more_bad_addresses_than_are_listed_are_counted_all_the_same() {
    let world = World::new().await;
    let body = json!({"addresses": vec!["no address"; 250], "channel": "email"});
    let got = world.post("/v1/suppressions", &body).await.json();
    let detail = got["detail"].as_str().unwrap();
    assert!(detail.starts_with("250 of the 250") && detail.contains("lists the first"), "{detail}");
    assert_eq!(got["errors"].as_array().unwrap().len(), 100);
}

#[tokio::test]
async fn erasing_a_stranger_answers_like_erasing_somebody() {
    let world = World::new().await;
    world.filled_list("people", 1).await;
    let known = world.post("/v1/erasures", &json!({"email": "people0@example.org"})).await;
    let stranger = world.post("/v1/erasures", &json!({"email": "nobody@example.org", "phone": "+33612345678"})).await;
    assert_eq!((known.status.as_u16(), &known.text), (200, &stranger.text));
    assert_eq!(world.post("/v1/erasures", &json!({})).await.status, 422);
}

#[tokio::test]
async fn a_template_is_checked_stored_and_previewed() {
    let world = World::new().await;
    let template = json!({
        "channel": "sms", "sender": "Shop", "text": "Hi {{ name }}, see {{ link }}", "defaults": {"name": "there"},
    });
    let report = world.post("/v1/templates/validate", &template).await.good();
    assert_eq!(report["variables"], json!(["link", "name"]));
    assert_eq!(report["required"], json!(["link"]));
    assert_eq!(report["sms"], json!({"encoding": "gsm7", "segments": 1}));

    let broken = json!({"channel": "sms", "sender": "Shop", "text": "one\n{% for %}"});
    let report = world.post("/v1/templates/validate", &broken).await.good();
    assert_eq!(report["valid"], false);
    assert!(report["errors"][0].as_str().unwrap().contains("line 2"), "{report}");

    let mut named = template.clone();
    named["name"] = json!("hello");
    let stored = world.post("/v1/templates", &named).await.good();
    assert_eq!((&stored["variables"], &stored["required"]), (&json!(["link", "name"]), &json!(["link"])));
    assert!(stored["warnings"][0].as_str().unwrap().contains("`link` (text, line 1)"), "{stored}");
    let id = stored["id"].as_str().unwrap().to_owned();
    assert_eq!(world.post("/v1/templates", &named).await.status, 409);
    assert_eq!(world.get("/v1/templates").await.good()["data"][0]["name"], "hello");
    let filled = world.post(&format!("/v1/templates/{id}/preview"), &json!({"variables": {"link": "x.eu"}})).await;
    assert_eq!(filled.good()["text"], "Hi there, see x.eu");
    let missing = world.post(&format!("/v1/templates/{id}/preview"), &json!({})).await;
    assert_eq!(missing.status, 422);
    assert!(missing.json()["detail"].as_str().unwrap().contains("`link`"));
}

#[tokio::test]
async fn a_template_with_an_empty_part_is_not_stored() {
    let world = World::new().await;
    let from = json!({"address": "shop@example.org"});
    for (template, says) in [
        (json!({"channel": "sms", "sender": "Shop", "text": " \n "}), "text: it is empty"),
        (json!({"channel": "email", "from": from, "subject": "", "text": "Hello"}), "subject: it is empty"),
        (json!({"channel": "email", "from": from, "subject": "Hello"}), "neither `html` nor `text`"),
        (json!({"channel": "email", "from": from, "subject": "Hello", "html": " "}), "html: it is empty"),
    ] {
        let report = world.post("/v1/templates/validate", &template).await.good();
        assert!(report["errors"][0].as_str().unwrap().contains(says), "{report}");
        let mut named = template;
        named["name"] = json!("empty");
        let got = world.post("/v1/templates", &named).await;
        assert_eq!(got.problem(), (422, "template-invalid".to_owned()));
        assert!(got.json()["detail"].as_str().unwrap().contains(says), "{}", got.text);
    }
    assert_eq!(world.get("/v1/templates").await.good()["data"], json!([]));
}

#[tokio::test]
async fn a_single_message_is_stored_once_and_read_back_by_its_id() {
    let world = World::new().await;
    let template = json!({"name": "code", "channel": "sms", "sender": "Shop", "text": "Your code: {{ code }}"});
    let template = world.post("/v1/templates", &template).await.good()["id"].clone();
    let source = world.source().await;
    let mut body = json!({"template": template, "to": "+33612345678", "source": source, "variables": {"code": "1"}});
    let first = world.post_once("/v1/messages", "k", &body).await;
    assert_eq!((first.status.as_u16(), &first.good()["state"]), (201, &json!("ready")));
    assert_eq!(world.heard().len(), 1);
    let again = world.post_once("/v1/messages", "k", &body).await;
    assert_eq!((again.good(), world.heard()), (first.good(), Vec::new()));
    let status = world.get(first.headers["location"].to_str().unwrap()).await.good();
    assert_eq!(status, first.good());

    body["variables"] = json!({"Code": "1"});
    let missing = world.post("/v1/messages", &body).await;
    assert_eq!((missing.status.as_u16(), &missing.json()["errors"][0]["pointer"]), (422, &json!("/variables")));
    assert!(missing.json()["detail"].as_str().unwrap().contains("`code`"), "{}", missing.text);
    body["variables"] = json!({"code": "1"});
    body["to"] = json!("someone@example.org");
    assert_eq!(world.post("/v1/messages", &body).await.json()["errors"][0]["pointer"], "/to");
    body["to"] = json!("+33612345678");
    body["source"] = json!("src_0000000000007");
    assert_eq!(world.post("/v1/messages", &body).await.json()["errors"][0]["pointer"], "/source");
    assert_eq!(world.get("/v1/messages/00000000-0000-0000-0000-000000000007").await.status, 404);
    assert_eq!(world.heard(), [""; 0]);
}
