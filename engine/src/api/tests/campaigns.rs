use axum::{body::Body, http::Method};
use dispatch_schemas::states::StallReason;
use serde_json::{Value, json};

use super::{
    uploads::upload,
    world::{World, campaign, request},
};

async fn made(world: &World, contacts: usize) -> String {
    let list = world.filled_list("people", contacts).await;
    world.post("/v1/campaigns", &campaign(&[&list])).await.good()["id"].as_str().unwrap().to_owned()
}

async fn launch(world: &World, id: &str, once: &str) -> super::world::Got {
    let path = format!("/v1/campaigns/{id}/launch");
    let request = request(Method::POST, &path, &world.key).header("idempotency-key", once);
    world.send(request.body(Body::empty()).unwrap()).await
}

#[tokio::test]
async fn a_campaign_is_made_with_its_account_and_what_to_know_of_it() {
    let world = World::new().await;
    let list = world.filled_list("people", 1).await;
    let got = world.post("/v1/campaigns", &campaign(&[&list])).await;
    assert_eq!(got.status, 201);
    let value = got.good();
    assert_eq!(
        (&value["state"], &value["account"], &value["channel"]),
        (&json!("draft"), &json!("post"), &json!("email"))
    );
    assert!(value["warnings"][0].as_str().unwrap().contains("`first_name`"), "{value}");
    let location = got.headers["location"].to_str().unwrap();
    assert_eq!(world.get(location).await.good()["id"], value["id"]);
}

#[tokio::test]
async fn a_repeat_with_the_same_idempotency_key_returns_the_first_answer() {
    let world = World::new().await;
    let list = world.filled_list("people", 1).await;
    let first = world.post_once("/v1/campaigns", "k1", &campaign(&[&list])).await;
    let again = world.post_once("/v1/campaigns", "k1", &campaign(&[&list])).await;
    assert_eq!((again.status, &again.text), (first.status, &first.text));
    assert!(!first.headers.contains_key("idempotency-replayed"));
    assert_eq!(again.headers["idempotency-replayed"], "true");
    let mut other = campaign(&[&list]);
    other["name"] = json!("Summer");
    let other = world.post_once("/v1/campaigns", "k1", &other).await;
    assert_eq!(other.problem(), (422, "idempotency-key-reused".to_owned()));
    assert_eq!(world.get("/v1/campaigns").await.good()["data"].as_array().unwrap().len(), 1);

    for bad in ["with space", "", &"x".repeat(256), "naïve"] {
        let got = world.post_once("/v1/campaigns", bad, &campaign(&[&list])).await;
        assert_eq!(got.problem(), (400, "idempotency-key-invalid".to_owned()), "{bad:?}");
    }
}

#[tokio::test]
async fn a_launch_needs_an_idempotency_key_and_happens_once() {
    let world = World::new().await;
    let id = made(&world, 2).await;
    let bare = world.post(&format!("/v1/campaigns/{id}/launch"), &json!({})).await;
    assert_eq!(bare.problem(), (400, "idempotency-key-required".to_owned()));

    assert_eq!(launch(&world, &id, "k1").await.good()["state"], "running");
    assert_eq!(world.heard(), [format!("changed {id}")]);
    let again = launch(&world, &id, "k1").await;
    assert_eq!((again.status.as_u16(), again.headers["idempotency-replayed"].to_str().unwrap()), (200, "true"));
    assert_eq!(world.heard(), [""; 0]);
    let (status, kind) = launch(&world, &id, "k2").await.problem();
    assert_eq!((status, kind.starts_with("conflict/")), (409, true), "{kind}");
    // Another campaign with the same key is another request.
    let (status, kind) = launch(&world, "cmp_0000000000007", "k1").await.problem();
    assert_eq!((status, kind.as_str()), (422, "idempotency-key-reused"));
}

#[tokio::test]
async fn a_campaign_without_an_audience_is_not_launched() {
    let world = World::new().await;
    let list = world.list("empty").await;
    let id = world.post("/v1/campaigns", &campaign(&[&list])).await.good()["id"].clone();
    let (status, kind) = launch(&world, id.as_str().unwrap(), "k").await.problem();
    assert_eq!((status, kind.starts_with("conflict/")), (409, true), "{kind}");
}

#[tokio::test]
async fn pause_resume_and_cancel_are_told_to_the_engine_and_refused_out_of_turn() {
    let world = World::new().await;
    let id = made(&world, 2).await;
    launch(&world, &id, "k").await.good();
    let act = async |what: &str| world.post(&format!("/v1/campaigns/{id}/{what}"), &json!({})).await;
    world.stalls(&id, StallReason::NoWorker).await;
    assert_eq!(world.get(&format!("/v1/campaigns/{id}/progress")).await.good()["stall"], "no_worker");
    let paused = act("pause").await.good();
    assert_eq!((&paused["campaign"]["state"], &paused["in_flight"]), (&json!("paused"), &json!(0)));
    assert_eq!(paused["campaign"]["pause_reason"], "operator");
    assert_eq!(world.get(&format!("/v1/campaigns/{id}/progress")).await.good()["stall"], Value::Null);
    assert_eq!(act("resume").await.good()["state"], "running");
    assert_eq!(act("cancel").await.good()["campaign"]["state"], "cancelled");
    assert_eq!(world.heard(), vec![format!("changed {id}"); 4]);
    assert_eq!(act("pause").await.status, 409);
    assert_eq!(act("resume").await.status, 409);
    assert_eq!(world.heard(), [""; 0]);
    let with_body = world.post(&format!("/v1/campaigns/{id}/pause"), &json!({"reason": "x"})).await;
    assert_eq!(with_body.problem(), (400, "malformed-request".to_owned()));
}

#[tokio::test]
async fn what_cannot_be_sent_is_not_made() {
    let world = World::new().await;
    let list = world.filled_list("people", 1).await;
    let pointer = async |change: &dyn Fn(&mut Value)| {
        let mut body = campaign(&[&list]);
        change(&mut body);
        let got = world.post("/v1/campaigns", &body).await;
        assert_eq!(got.status, 422, "{}", got.text);
        let document = got.json();
        let pointer = document["errors"][0]["pointer"].as_str().unwrap_or(document["type"].as_str().unwrap());
        pointer.to_owned()
    };
    assert_eq!(pointer(&|body| body["account"] = json!("phones")).await, "/account");
    assert_eq!(pointer(&|body| body["send_at"] = json!("2001-01-01T00:00:00Z")).await, "/send_at");
    assert_eq!(pointer(&|body| body["expires_at"] = json!("2001-01-01T00:00:00Z")).await, "/expires_at");
    assert_eq!(pointer(&|body| body["lists"] = json!(["lst_0000000000007"])).await, "/lists");
    assert_eq!(pointer(&|body| body["lists"] = json!([])).await, "/lists");
    assert_eq!(pointer(&|body| body["template"] = json!("tpl_0000000000007")).await, "");
    let broken = |body: &mut Value| body["content"]["text"] = json!("Hello {{ first_name");
    assert_eq!(pointer(&broken).await, "/problems/template-invalid");
    let missing = |body: &mut Value| {
        body.as_object_mut().unwrap().remove("content");
        body["template"] = json!("tpl_0000000000007");
    };
    assert_eq!(pointer(&missing).await, "/template");
}

/// A campaign's body with this text.
fn saying(text: &str, lists: &[&Value]) -> Value {
    let mut body = campaign(lists);
    body["content"]["text"] = json!(text);
    body
}

#[tokio::test]
async fn a_variable_that_no_list_has_is_refused_where_the_campaign_is_made() {
    let world = World::new().await;
    let (people, more) = (world.filled_list("people", 1).await, world.filled_list("more", 1).await);
    let got = world.post("/v1/campaigns", &saying("Dear\n{{ frist_name }}", &[&people, &more])).await;
    assert_eq!(got.problem(), (422, "template-variable-unknown".to_owned()));
    let detail = got.json()["detail"].as_str().unwrap().to_owned();
    for said in [
        "`frist_name` (text, line 2) has no default",
        "they have `first_name`; did you mean `first_name` for `frist_name`?",
        "{{ frist_name | default('…') }}",
        "a column mapped to it",
    ] {
        assert!(detail.contains(said), "{detail}");
    }
    let got = world.post("/v1/campaigns", &saying("{{ plan }} {{ code }} {{ first_name }}", &[&people])).await;
    let detail = got.json()["detail"].as_str().unwrap().to_owned();
    assert!(detail.starts_with("`code` (text, line 1), `plan` (text, line 1) have no default"), "{detail}");
    let got = world.post("/v1/campaigns", &saying("{{ email }}", &[&people])).await;
    assert!(got.json()["detail"].as_str().unwrap().contains("address is not a field. Give"), "{}", got.text);
    assert_eq!(world.get("/v1/campaigns").await.good()["data"], json!([]));

    // The same for what a stored template needs.
    let template = json!({"name": "t", "channel": "sms", "sender": "Shop", "text": "{{ plan }}"});
    let template = world.post("/v1/templates", &template).await.good()["id"].clone();
    let mut body = campaign(&[&people]);
    body.as_object_mut().unwrap().remove("content");
    body["template"] = template;
    assert_eq!(world.post("/v1/campaigns", &body).await.problem(), (422, "template-variable-unknown".to_owned()));
}

#[tokio::test]
async fn a_variable_with_a_default_or_asked_for_first_needs_no_list() {
    let world = World::new().await;
    let list = world.filled_list("people", 1).await;
    let texts = [
        "{{ plan | default('basic') }}",
        "Hello{% if plan is defined %}, {{ plan }}{% endif %}",
        "{{ first_name }}",
        "Hello",
    ];
    for (key, text) in texts.iter().enumerate() {
        let id = world.post("/v1/campaigns", &saying(text, &[&list])).await.good()["id"].clone();
        assert_eq!(launch(&world, id.as_str().unwrap(), &format!("k{key}")).await.status, 200, "{text}");
    }
    let mut body = saying("{{ plan }}", &[&list]);
    body["content"]["defaults"] = json!({"plan": "basic"});
    assert_eq!(world.post("/v1/campaigns", &body).await.status, 201);
}

#[tokio::test]
async fn a_variable_that_one_of_the_lists_has_is_enough_and_told_with_a_warning() {
    let world = World::new().await;
    let (people, plans) = (world.filled_list("people", 1).await, world.list("plans").await);
    upload(&world, plans.as_str().unwrap(), "?email=Mail&field.plan=Plan", "Mail,Plan\na@b.eu,gold\n").await.good();
    let made = world.post("/v1/campaigns", &saying("{{ plan }}", &[&people, &plans])).await.good();
    assert!(made["warnings"][0].as_str().unwrap().contains("`plan` (text, line 1)"), "{made}");
    assert_eq!(launch(&world, made["id"].as_str().unwrap(), "k").await.status, 200);
}

#[tokio::test]
async fn a_variable_that_no_list_has_stops_the_launch_until_one_has_it() {
    let world = World::new().await;
    let list = world.list("later").await;
    let at = list.as_str().unwrap();
    // Nothing is known of a list that is empty.
    let id = world.post("/v1/campaigns", &saying("{{ plan }}", &[&list])).await.good()["id"].clone();
    let id = id.as_str().unwrap();
    assert_eq!(launch(&world, id, "k").await.problem(), (409, "conflict/audience-empty".to_owned()));
    upload(&world, at, "?email=Mail", "Mail,Plan\na@b.eu,gold\n").await.good();
    let refused = launch(&world, id, "k").await;
    assert_eq!(refused.problem(), (422, "template-variable-unknown".to_owned()));
    assert!(refused.json()["detail"].as_str().unwrap().contains("they have addresses only. Give"), "{}", refused.text);
    assert_eq!(world.get(&format!("/v1/campaigns/{id}")).await.good()["state"], "draft");
    assert_eq!(world.heard(), [""; 0]);

    upload(&world, at, "?email=Mail&field.plan=Plan", "Mail,Plan\na@b.eu,gold\n").await.good();
    assert_eq!(launch(&world, id, "k").await.good()["state"], "running");
    assert_eq!(launch(&world, id, "k").await.status, 200);
}

#[tokio::test]
async fn pages_go_on_where_the_last_ended_and_forged_cursors_are_refused() {
    let world = World::new().await;
    let list = world.filled_list("people", 1).await;
    for _ in 0..5 {
        world.post("/v1/campaigns", &campaign(&[&list])).await.good();
    }
    let (mut path, mut seen) = ("/v1/campaigns?limit=2".to_owned(), Vec::new());
    loop {
        let page = world.get(&path).await.good();
        seen.extend(
            page["data"].as_array().unwrap().iter().map(|campaign| campaign["id"].as_str().unwrap().to_owned()),
        );
        let Some(cursor) = page["next_cursor"].as_str() else { break };
        path = format!("/v1/campaigns?limit=2&cursor={cursor}");
    }
    let count = seen.len();
    seen.sort_unstable();
    seen.dedup();
    assert_eq!((count, seen.len()), (5, 5));

    let cursor = world.get("/v1/campaigns?limit=2").await.good()["next_cursor"].as_str().unwrap().to_owned();
    let path = format!("/v1/campaigns/{}/recipients?cursor={cursor}", seen[0]);
    assert_eq!(world.get(&path).await.problem(), (400, "cursor-invalid".to_owned()));
    let foreign = request(Method::GET, &format!("/v1/campaigns?cursor={cursor}"), &world.foreign_key);
    assert_eq!(world.send(foreign.body(Body::empty()).unwrap()).await.status, 400);
    assert_eq!(world.get("/v1/campaigns?cursor=abc").await.status, 400);
    assert_eq!(world.get("/v1/campaigns?limit=1001").await.problem(), (422, "validation-failed".to_owned()));
}

#[tokio::test]
async fn limits_are_set_as_a_whole_and_told_to_the_engine() {
    let world = World::new().await;
    let set = world.call(Method::PUT, "/v1/limits", &world.key, &json!({"per_second": 50})).await;
    assert_eq!(set.good(), json!({"per_second": 50}));
    assert_eq!(world.get("/v1/limits").await.good(), json!({"per_second": 50}));
    assert_eq!(world.heard(), [format!("limits {}", world.tenant)]);
    let negative = world.call(Method::PUT, "/v1/limits", &world.key, &json!({"per_second": -1})).await;
    assert_eq!(negative.status, 422);
}

#[tokio::test]
async fn a_campaigns_limits_are_set_until_it_is_cancelled_and_told_to_the_engine() {
    let world = World::new().await;
    let list = world.filled_list("people", 1).await;
    let made = world.post("/v1/campaigns", &campaign(&[&list])).await.good();
    let id = made["id"].as_str().unwrap();
    let path = format!("/v1/campaigns/{id}/limits");
    let set = world.call(Method::PUT, &path, &world.key, &json!({"per_second": 5, "per_day": 100})).await.good();
    assert_eq!(set["limits"], json!({"per_second": 5, "per_day": 100}));
    assert_eq!(world.get(&format!("/v1/campaigns/{id}")).await.good()["limits"], set["limits"]);
    assert_eq!(world.heard(), [format!("campaign limits {id}")]);
    assert_eq!(world.call(Method::PUT, &path, &world.foreign_key, &json!({})).await.status, 404);
    assert_eq!(world.call(Method::PUT, &path, &world.key, &json!({"per_week": 5})).await.status, 422);
    world.post(&format!("/v1/campaigns/{id}/cancel"), &json!({})).await.good();
    let late = world.call(Method::PUT, &path, &world.key, &json!({})).await;
    assert_eq!(late.problem(), (409, "conflict/campaign-state".to_owned()));
}

#[tokio::test]
async fn a_sending_window_is_taken_shown_and_said_when_it_opens() {
    let world = World::new().await;
    let list = world.filled_list("people", 1).await;
    let mut body = campaign(&[&list]);
    // It is eight o'clock in the morning, UTC, on a Friday.
    let window = json!({"start": "10:00", "end": "20:00", "days": ["mon", "fri"], "time_zone": "Europe/Paris"});
    body["sending_window"] = window.clone();
    let made = world.post("/v1/campaigns", &body).await.good();
    assert_eq!(made["sending_window"], window);
    assert!(!made["warnings"].to_string().contains("sending_window"));
    let id = made["id"].as_str().unwrap();
    launch(&world, id, "k").await.good();
    world.stalls(id, StallReason::OutsideWindow).await;
    let progress = world.get(&format!("/v1/campaigns/{id}/progress")).await.good();
    assert_eq!(
        (&progress["stall"], &progress["opens_at"]),
        (&json!("outside_window"), &json!("2027-01-15T09:00:00.000Z"))
    );

    body["expires_at"] = json!("2027-01-15T09:00:00Z");
    let made = world.post("/v1/campaigns", &body).await.good();
    assert!(made["warnings"].to_string().contains("does not open before `expires_at`"), "{made}");
}

#[tokio::test]
async fn a_sending_window_that_could_not_open_is_refused_with_its_place() {
    let world = World::new().await;
    let list = world.filled_list("people", 1).await;
    let good = json!({"start": "08:00", "end": "20:00", "days": ["mon"], "time_zone": "Europe/Paris"});
    for (member, value, at, said) in [
        ("start", json!("8 am"), "start", "as in 08:30"),
        ("start", json!("20:00"), "end", "closes at the moment it opens"),
        ("start", json!("24:00"), "start", "cannot open at 24:00"),
        ("end", json!("24:30"), "end", "as in 08:30"),
        ("days", json!([]), "days", "1 to 7 entries are wanted"),
        ("days", json!(["monday"]), "days/0", "mon, tue"),
        ("time_zone", json!("Europe/Lutetia"), "time_zone", "IANA database"),
        ("time_zone", json!("../../etc/passwd"), "time_zone", "IANA database"),
        ("zone", json!("UTC"), "zone", "not known"),
    ] {
        let mut body = campaign(&[&list]);
        body["sending_window"] = good.clone();
        body["sending_window"][member] = value;
        let got = world.post("/v1/campaigns", &body).await;
        assert_eq!(got.problem(), (422, "validation-failed".to_owned()));
        let error = &got.json()["errors"][0];
        assert_eq!(error["pointer"], format!("/sending_window/{at}"), "{error}");
        assert!(error["detail"].as_str().unwrap().contains(said), "{error}");
    }
    let mut body = campaign(&[&list]);
    body["sending_window"] = json!({"start": "08:00", "end": "20:00", "time_zone": "UTC"});
    assert_eq!(world.post("/v1/campaigns", &body).await.json()["errors"][0]["pointer"], "/sending_window/days");
}

#[tokio::test]
async fn a_closed_tenant_is_refused_what_sends_and_told_why() {
    let world = World::new().await;
    let draft = made(&world, 2).await;
    let list = world.list("more").await;
    let template =
        json!({"name": "t", "channel": "email", "from": {"address": "a@example.org"}, "subject": "s", "text": "t"});
    let template = world.post("/v1/templates", &template).await.good()["id"].clone();
    let message = json!({"template": template, "to": "anna@example.org", "source": world.source().await});
    world.ledger.close_tenant(world.tenant, "unpaid since March").await.unwrap();

    let refused = [
        world.post("/v1/campaigns", &campaign(&[&list])).await,
        launch(&world, &draft, "k").await,
        world.post("/v1/messages", &message).await,
    ];
    for got in refused {
        assert_eq!(got.problem(), (403, "tenant-closed".to_owned()));
        assert!(got.text.contains("unpaid since March"), "{}", got.text);
    }
    assert_eq!(world.get("/v1/campaigns").await.status, 200);
    let suppress = json!({"channel": "email", "addresses": ["anna@example.org"]});
    assert_eq!(world.post("/v1/suppressions", &suppress).await.good()["closed"], 1);
    assert_eq!(world.post("/v1/erasures", &json!({"email": "anna@example.org"})).await.status, 200);
    world.post(&format!("/v1/campaigns/{draft}/cancel"), &json!({})).await.good();

    world.ledger.open_tenant(world.tenant).await.unwrap();
    world.post("/v1/campaigns", &campaign(&[&list])).await.good();
}
