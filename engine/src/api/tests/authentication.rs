use std::time::Duration;

use axum::{
    body::Body,
    http::{Method, Request},
};
use dispatch_schemas::{
    api::keys::Permission,
    ids::{CampaignId, ImportId, ListId, TemplateId},
};
use dispatch_workers::clock::SystemEntropy;
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};

use super::world::{World, campaign, request};
use crate::api::{credentials::ApiKeyText, openapi};

const FORGED: &str = "dsp_live_0000000000000_0000000000000000000000000000000000000000000_000000";

#[tokio::test]
async fn whatever_is_wrong_with_a_key_the_answer_is_the_same() {
    let world = World::new().await;
    let cut = world.key[..40].to_owned();
    let unknown = ApiKeyText::generate(&SystemEntropy::default()).reveal().expose_secret().to_owned();
    let revoked = world.key_with(world.tenant, Permission::ALL).await;
    world.ledger.revoke_key(ApiKeyText::parse(&revoked).unwrap().id).await.unwrap();

    let get = |key: String| world.send(request(Method::GET, "/v1/lists", &key).body(Body::empty()).unwrap());
    let mut answers = Vec::new();
    for key in [cut, unknown, revoked, FORGED.to_owned(), String::new(), world.key.replace("live", "test")] {
        answers.push(get(key).await.text);
    }
    let none = Request::get("/v1/lists").body(Body::empty()).unwrap();
    let none = world.send(none).await;
    assert_eq!(none.problem(), (401, "not-authenticated".to_owned()));
    assert_eq!(none.headers["www-authenticate"], "Bearer realm=\"dispatch\"");
    answers.push(none.text);
    world.clock.advance(Duration::from_secs(2 * 86_400));
    answers.push(get(world.key.clone()).await.text);
    assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:#?}");
}

#[tokio::test]
async fn two_authorization_headers_are_no_authorization() {
    let world = World::new().await;
    let doubled = request(Method::GET, "/v1/lists", &world.key).header("authorization", "Bearer x");
    assert_eq!(world.send(doubled.body(Body::empty()).unwrap()).await.status, 401);
}

#[tokio::test]
async fn a_key_in_the_url_is_refused_even_beside_a_good_one() {
    let world = World::new().await;
    for query in ["api_key=x", "KEY=x", "q=dsp_live_0", "access_token=1"] {
        let got = world.get(&format!("/v1/lists?{query}")).await;
        assert_eq!(got.problem(), (400, "key-in-url".to_owned()), "{query}");
    }
}

#[tokio::test]
async fn a_key_revoked_past_this_process_is_refused_within_five_seconds() {
    let world = World::new().await;
    assert_eq!(world.get("/v1/lists").await.status, 200);
    world.ledger.revoke_key(ApiKeyText::parse(&world.key).unwrap().id).await.unwrap();
    world.clock.advance(Duration::from_secs(5));
    assert_eq!(world.get("/v1/lists").await.status, 401);
}

#[tokio::test]
async fn who_sends_many_wrong_keys_is_made_to_wait() {
    let world = World::new().await;
    assert_eq!(world.get("/v1/lists").await.status, 200);
    let mut last = None;
    for _ in 0..40 {
        let key = ApiKeyText::generate(&SystemEntropy::default()).reveal().expose_secret().to_owned();
        last = Some(world.call(Method::GET, "/v1/lists", &key, &Value::Null).await);
    }
    let last = last.unwrap();
    assert_eq!(last.problem(), (429, "too-many-failures".to_owned()));
    assert!(last.headers.contains_key("retry-after"));
    // A key that is known already goes on working.
    assert_eq!(world.get("/v1/lists").await.status, 200);
    world.clock.advance(Duration::from_secs(11));
    let key = ApiKeyText::generate(&SystemEntropy::default()).reveal().expose_secret().to_owned();
    assert_eq!(world.call(Method::GET, "/v1/lists", &key, &Value::Null).await.status, 401);
}

/// Every operation of the description: method, path with ids that name nothing, the permission it says it needs.
fn operations() -> Vec<(Method, String, Option<String>)> {
    let described = serde_json::to_value(openapi()).unwrap();
    let mut operations = Vec::new();
    for (path, methods) in described["paths"].as_object().unwrap() {
        let id = match path.split('/').nth(2) {
            Some("lists") => ListId(7).to_string(),
            Some("imports") => ImportId(7).to_string(),
            Some("templates") => TemplateId(7).to_string(),
            Some("campaigns") => CampaignId(7).to_string(),
            _ => "00000000-0000-0000-0000-000000000007".to_owned(),
        };
        for (method, operation) in methods.as_object().unwrap() {
            let permission = operation["security"][0]["api_key"][0].as_str().map(str::to_owned);
            let method = method.to_uppercase().parse().unwrap();
            operations.push((method, path.replace("{id}", &id), permission));
        }
    }
    operations
}

#[tokio::test]
async fn every_route_takes_keys_with_its_own_permission_and_no_others() {
    let world = World::new().await;
    for held in Permission::ALL {
        let key = world.key_with(world.tenant, &[*held]).await;
        for (method, path, needed) in operations() {
            let got = world.call(method.clone(), &path, &key, &json!({})).await;
            match needed {
                Some(needed) if needed != held.as_str() => {
                    assert_eq!(got.problem(), (403, "not-permitted".to_owned()), "{held:?}: {method} {path}");
                }
                _ => assert!(
                    !matches!(got.status.as_u16(), 401 | 403 | 405 | 500..),
                    "{held:?}: {method} {path} {}",
                    got.text
                ),
            }
        }
    }
}

#[tokio::test]
async fn without_a_key_only_what_machines_ask_is_answered() {
    let world = World::new().await;
    for (method, path, needed) in operations() {
        let got = world.send(Request::builder().method(&method).uri(&path).body(Body::empty()).unwrap()).await;
        assert_eq!(got.status.as_u16() == 401, needed.is_some(), "{method} {path} {}", got.status);
    }
}

#[tokio::test]
async fn another_tenants_things_do_not_exist() {
    let world = World::new().await;
    let list = world.filled_list("ours", 1).await;
    let list = list.as_str().unwrap();
    let template = json!({"name": "t", "channel": "sms", "sender": "Shop", "text": "Hi"});
    let template = world.post("/v1/templates", &template).await.good()["id"].clone();
    let campaign_id = world.post("/v1/campaigns", &campaign(&[&json!(list)])).await.good()["id"].clone();
    let campaign_id = campaign_id.as_str().unwrap();
    let message = json!({"template": template, "to": "+33612345678", "source": world.source().await});
    let message = world.post("/v1/messages", &message).await.good()["id"].clone();
    world.heard();

    let mut paths = vec![
        (Method::GET, format!("/v1/lists/{list}")),
        (Method::GET, format!("/v1/templates/{}", template.as_str().unwrap())),
        (Method::POST, format!("/v1/templates/{}/preview", template.as_str().unwrap())),
        (Method::GET, format!("/v1/messages/{}", message.as_str().unwrap())),
    ];
    paths.extend(
        ["", "/progress", "/recipients"].map(|rest| (Method::GET, format!("/v1/campaigns/{campaign_id}{rest}"))),
    );
    paths.extend(
        ["pause", "resume", "cancel", "retry"]
            .map(|rest| (Method::POST, format!("/v1/campaigns/{campaign_id}/{rest}"))),
    );
    for (method, path) in paths {
        let got = world.call(method.clone(), &path, &world.foreign_key, &json!({})).await;
        assert_eq!(got.problem(), (404, "not-found".to_owned()), "{method} {path}");
    }
    let launch = request(Method::POST, &format!("/v1/campaigns/{campaign_id}/launch"), &world.foreign_key)
        .header("idempotency-key", "k");
    assert_eq!(world.send(launch.body(Body::empty()).unwrap()).await.status, 404);
    let upload = request(Method::POST, &format!("/v1/lists/{list}/imports"), &world.foreign_key)
        .header("content-type", "text/csv");
    assert_eq!(world.send(upload.body(Body::from("email\n")).unwrap()).await.status, 404);
    let theirs = world.call(Method::POST, "/v1/campaigns", &world.foreign_key, &campaign(&[&json!(list)])).await;
    assert_eq!(theirs.problem(), (422, "validation-failed".to_owned()));
    assert_eq!(world.heard(), [""; 0]);
}
