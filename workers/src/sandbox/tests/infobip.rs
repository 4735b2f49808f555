use serde_json::{Value, json};

use super::{Sandbox, WitnessVerdict, keys, verdicts, witness_key};

const PATH: &str = "/sms/3/messages";
const AUTH: (&str, &str) = ("authorization", "App a-key");

fn message(id: &str) -> Value {
    json!({
        "sender": "Example",
        "destinations": [{"to": "385910000000", "messageId": id}],
        "content": {"text": "Hello Anna", "language": {"languageCode": "AUTODETECT"}},
        "options": {
            "validityPeriod": {"amount": 720, "timeUnit": "MINUTES"},
            "deliveryTimeWindow": {
                "days": ["MONDAY", "TUESDAY"],
                "from": {"hour": 7, "minute": 0},
                "to": {"hour": 18, "minute": 0},
            },
            "campaignReferenceId": "spring-7",
        },
        "webhooks": {
            "delivery": {"url": "https://hooks.example.com/infobip", "intermediateReport": false, "notify": true},
            "contentType": "application/json",
            "callbackData": id,
        },
    })
}

fn messages(ids: &[&str]) -> Value {
    json!({
        "messages": ids.iter().map(|id| message(id)).collect::<Vec<_>>(),
        "options": {"tracking": {"shortenUrl": false, "trackClicks": false}, "includeSmsCountInResponse": true},
    })
}

fn status_ids(answer: &Value) -> Vec<u64> {
    answer["messages"].as_array().unwrap().iter().map(|message| message["status"]["id"].as_u64().unwrap()).collect()
}

#[tokio::test]
async fn messages_are_accepted_one_by_one() {
    let sandbox = Sandbox::start("").await;
    let answer = sandbox.post(PATH, AUTH, &messages(&["a", "b"])).await;
    assert_eq!(answer.status, 200);
    let body = answer.json();
    assert_eq!(status_ids(&body), [26, 26]);
    assert!(body["bulkId"].is_string());
    assert_eq!(body["messages"][1]["messageId"], "b");
    assert_eq!(body["messages"][1]["destination"], "385910000000");
    assert_eq!(body["messages"][1]["status"]["groupName"], "PENDING");
    assert_eq!(body["messages"][1]["details"], json!({"messageCount": 1}));
    let line = sandbox.last_line();
    assert_eq!((line.provider.as_str(), keys(&line)), ("infobip", vec![Some("a"), Some("b")]));
    assert_eq!(verdicts(&line), [WitnessVerdict::Accepted; 2]);
    assert_eq!(line.recipients[0].to, witness_key().hash("+385910000000"));
}

#[tokio::test]
async fn a_known_message_id_is_rejected_as_a_duplicate_even_when_the_first_answer_was_lost() {
    let sandbox = Sandbox::start("infobip.half_answer=1").await;
    assert!(sandbox.try_post(PATH, AUTH, &messages(&["a"])).await.is_err());
    sandbox.control("/sandbox/faults", "").await;
    let answer = sandbox.post(PATH, AUTH, &messages(&["a", "b", "b"])).await;
    assert_eq!(answer.status, 200);
    assert_eq!(status_ids(&answer.json()), [23, 26, 23]);
    assert_eq!(answer.json()["messages"][0]["status"]["groupId"], 5);
    assert_eq!(
        verdicts(&sandbox.last_line()),
        [WitnessVerdict::Duplicate, WitnessVerdict::Accepted, WitnessVerdict::Duplicate]
    );
}

#[tokio::test]
async fn a_message_that_cannot_go_is_rejected_and_the_others_go() {
    let sandbox = Sandbox::start("").await;
    let mut body = messages(&["a", "b", "c", "d"]);
    body["messages"][0]["destinations"][0]["to"] = json!("123");
    body["messages"][1]["content"]["text"] = json!("x".repeat(25 * 153 + 1));
    body["messages"][2]["content"]["text"] = json!("x".repeat(25 * 153));
    let answer = sandbox.post(PATH, AUTH, &body).await;
    assert_eq!((answer.status, status_ids(&answer.json())), (200, vec![52, 25, 26, 26]));
    assert_eq!(answer.json()["messages"][2]["details"]["messageCount"], 25);
    use WitnessVerdict::{Accepted, Refused};
    assert_eq!(verdicts(&sandbox.last_line()), [Refused, Refused, Accepted, Accepted]);
}

#[tokio::test]
async fn the_log_can_be_asked_by_message_id_again_and_again() {
    let sandbox = Sandbox::start("infobip.accept_then_drop=1").await;
    assert!(sandbox.try_post(PATH, AUTH, &messages(&["a", "b"])).await.is_err());
    sandbox.control("/sandbox/faults", "").await;
    let mut bad = messages(&["c"]);
    bad["messages"][0]["destinations"][0]["to"] = json!("123");
    sandbox.post(PATH, AUTH, &bad).await;
    for _ in 0..2 {
        let found = sandbox.get("/sms/3/logs?messageId=a,c,never&messageId=b", AUTH).await;
        assert_eq!(found.status, 200);
        let found = found.json();
        let results = found["results"].as_array().unwrap();
        let fates: Vec<_> = results
            .iter()
            .map(|of| (of["messageId"].as_str().unwrap(), of["status"]["groupName"].as_str().unwrap()))
            .collect();
        assert_eq!(fates, [("a", "DELIVERED"), ("c", "REJECTED"), ("b", "DELIVERED")]);
        assert!(results[0]["sentAt"].as_str().unwrap().ends_with("+0000"));
    }
    let found = sandbox.get("/sms/3/logs?messageId=a,b&limit=1", AUTH).await.json();
    assert_eq!(found["results"].as_array().unwrap().len(), 1);
    for query in ["", "?limit=1001", "?messageId=a&bulkId=x", &format!("?messageId={}", "a,".repeat(1025))] {
        let refused = sandbox.get(&format!("/sms/3/logs{query}"), AUTH).await;
        assert_eq!((refused.status, &refused.json()["errorCode"]), (400, &json!("E400")), "{query}");
    }
    assert_eq!(sandbox.get("/sms/3/logs?messageId=a", ("authorization", "App wrong")).await.status, 401);
}

#[tokio::test]
async fn the_log_answers_120_questions_a_minute() {
    let sandbox = Sandbox::start("").await;
    for _ in 0..120 {
        assert_eq!(sandbox.get("/sms/3/logs?messageId=a", AUTH).await.status, 200);
    }
    assert_eq!(sandbox.get("/sms/3/logs?messageId=a", AUTH).await.status, 429);
}

#[tokio::test]
async fn a_report_is_given_once() {
    let sandbox = Sandbox::start("").await;
    sandbox.post(PATH, AUTH, &messages(&["a", "b", "c"])).await;
    let ids = |found: &Value| -> Vec<String> {
        found["results"].as_array().unwrap().iter().map(|of| of["messageId"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(ids(&sandbox.get("/sms/3/reports?messageId=b", AUTH).await.json()), ["b"]);
    assert_eq!(ids(&sandbox.get("/sms/3/reports?limit=1", AUTH).await.json()), ["a"]);
    assert_eq!(ids(&sandbox.get("/sms/3/reports", AUTH).await.json()), ["c"]);
    assert!(ids(&sandbox.get("/sms/3/reports", AUTH).await.json()).is_empty());
}

#[tokio::test]
async fn what_the_vendor_refuses_is_refused_with_its_path_and_nobody_is_accepted() {
    let sandbox = Sandbox::start("").await;
    let window = |from: Value, to: Value| json!({"days": ["MONDAY"], "from": from, "to": to});
    let at = |hour: u32| json!({"hour": hour, "minute": 0});
    for (pointer, value, property) in [
        ("/messages/1/sender", json!(""), "messages[1].sender"),
        ("/messages/1/sender", json!(null), "messages[1].sender"),
        ("/messages/1/destinations", json!([]), "messages[1].destinations"),
        ("/messages/1/destinations/0/to", json!(null), "messages[1].destinations[0].to"),
        ("/messages/1/destinations/0/to", json!("+33-CALL"), "messages[1].destinations[0].to"),
        ("/messages/1/destinations/0/to", json!("1".repeat(65)), "messages[1].destinations[0].to"),
        ("/messages/1/destinations/0/messageId", json!("x".repeat(201)), "messages[1].destinations[0].messageId"),
        ("/messages/1/content", json!(null), "messages[1].content"),
        ("/messages/1/content/text", json!(""), "messages[1].content.text"),
        ("/messages/1/content/language/languageCode", json!("FR"), "messages[1].content.language.languageCode"),
        ("/messages/1/content/transliteration", json!("FRENCH"), "messages[1].content.transliteration"),
        ("/messages/1/options/validityPeriod/amount", json!(0), "messages[1].options.validityPeriod.amount"),
        ("/messages/1/options/validityPeriod/timeUnit", json!("DAYS"), "messages[1].options.validityPeriod.timeUnit"),
        ("/messages/1/options/deliveryTimeWindow/days", json!([]), "messages[1].options.deliveryTimeWindow.days"),
        (
            "/messages/1/options/deliveryTimeWindow",
            window(at(7), json!(null)),
            "messages[1].options.deliveryTimeWindow",
        ),
        ("/messages/1/options/deliveryTimeWindow", window(at(7), at(7)), "messages[1].options.deliveryTimeWindow"),
        (
            "/messages/1/options/deliveryTimeWindow",
            window(at(24), at(7)),
            "messages[1].options.deliveryTimeWindow.from",
        ),
        ("/messages/1/options/campaignReferenceId", json!("x".repeat(256)), "messages[1].options.campaignReferenceId"),
        ("/messages/1/webhooks/callbackData", json!("x".repeat(4001)), "messages[1].webhooks.callbackData"),
        ("/messages/1/webhooks/delivery/url", json!("hooks"), "messages[1].webhooks.delivery.url"),
        ("/messages/1/webhooks/contentType", json!("text/html"), "messages[1].webhooks.contentType"),
        ("/options/schedule", json!({"bulkId": "x".repeat(101)}), "options.schedule.bulkId"),
    ] {
        let mut body = messages(&["a", "b"]);
        let (parent, name) = pointer.rsplit_once('/').unwrap();
        body.pointer_mut(parent).unwrap()[name] = value;
        let answer = sandbox.post(PATH, AUTH, &body).await;
        assert_eq!(answer.status, 400, "{pointer}: {}", answer.body);
        let error = answer.json();
        assert_eq!(error["violations"][0]["property"], property, "{}", answer.body);
        let mut names: Vec<_> = error.as_object().unwrap().keys().map(String::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ["action", "description", "errorCode", "resources", "violations"]);
        assert!(verdicts(&sandbox.last_line()).iter().all(|verdict| *verdict == WitnessVerdict::Refused));
    }
    for body in [json!({}), json!({"messages": []}), json!({"messages": [{"destinations": "x"}]})] {
        let answer = sandbox.post(PATH, AUTH, &body).await;
        assert_eq!((answer.status, &answer.json()["errorCode"]), (400, &json!("E400")), "{body}");
    }
    let answer = sandbox.post(PATH, ("authorization", "App wrong"), &messages(&["a"])).await;
    assert_eq!((answer.status, &answer.json()["errorCode"]), (401, &json!("E401")));
    assert_eq!(sandbox.post("/sms/4/messages", AUTH, &messages(&["a"])).await.json()["errorCode"], "E404");
    let answer = sandbox.post(PATH, AUTH, &messages(&["a", "b"])).await;
    assert_eq!(status_ids(&answer.json()), [26, 26], "no refusal spent an id");
}
