//! The event log, asked by the tag of a request: `GET /v3/smtp/statistics/events`, for the last 30 days.
//!
//! A request's tag is its key, so one event that Brevo has been asked to send something with it ("requests") shows that
//! it took the request. Nothing is told of how late the log may be, so that it shows nothing proves nothing. Events
//! carry addresses: one event is read and no more.
//! Source: <https://developers.brevo.com/reference/get-email-event-report>, and the vendor's clients, which call the tags
//! "serialized and urlencoded array".

use reqwest::Url;
use serde::Deserialize;

use crate::{
    message::SendKey,
    providers::{
        Code, Finding, LookUpError, Question,
        http::{Client, KeyText},
    },
};

/// An event has some 500 bytes and a subject.
const ANSWER_BYTES_MAX: usize = 64 << 10;

#[derive(Deserialize)]
struct Log {
    /// Left out where there are none.
    #[serde(default)]
    events: Vec<Event>,
}

#[derive(Deserialize)]
struct Event {
    event: String,
    /// A tag, or several as the text of a JSON array.
    #[serde(default)]
    tag: String,
}

/// Asks for all questions, one request for each.
pub(super) async fn look_up(questions: &[Question], client: &Client, url: &Url) -> Result<Vec<Finding>, LookUpError> {
    let mut findings = Vec::with_capacity(questions.len());
    for question in questions {
        let mut url = url.clone();
        let key = KeyText::new(question.batch_key);
        url.query_pairs_mut()
            .append_pair("tags", &format!("[\"{}\"]", key.as_str()))
            .append_pair("event", "requests")
            .append_pair("limit", "1");
        let reply = client.get(url, ANSWER_BYTES_MAX).await.map_err(LookUpError)?;
        if reply.status != 200 {
            return Err(LookUpError(Code::numbered("http", u32::from(reply.status))));
        }
        let Some(Log { events }) = reply.json() else {
            return Err(LookUpError(Code::known("unreadable_answer")));
        };
        let is_taken = events.iter().any(|event| event.shows(question.batch_key));
        findings.push(if is_taken { Finding::Accepted { provider_id: None } } else { Finding::CannotTell });
    }
    Ok(findings)
}

impl Event {
    /// Whether it says that a request with this key was taken. One with another tag says that the filter was not
    /// understood.
    fn shows(&self, key: SendKey) -> bool {
        let is_key = |tag: &str| tag.parse::<SendKey>().is_ok_and(|tag| tag == key);
        let tags = || serde_json::from_str::<Vec<String>>(&self.tag).unwrap_or_default();
        matches!(self.event.as_str(), "requests" | "request")
            && (is_key(&self.tag) || tags().iter().any(|tag| is_key(tag)))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::providers::http::test_server::*;

    const TAKEN: Finding = Finding::Accepted { provider_id: None };

    fn log(events: &[Value]) -> Vec<u8> {
        answer(200, "", &json!({"events": events}).to_string())
    }

    fn event(name: &str, tag: &str) -> Value {
        json!({
            "email": "ann@example.org", "date": "2030-01-01T10:00:00Z", "messageId": "<1.2.3@smtp-relay.mailin.fr>",
            "event": name, "tag": tag,
        })
    }

    async fn asked(raw: Vec<u8>) -> Result<Vec<Finding>, LookUpError> {
        let server = Server::answering([raw]).await;
        account("brevo", &server.url()).look_up(&questions([key(1)])).await
    }

    #[tokio::test]
    async fn an_event_with_the_tag_of_a_request_shows_that_it_was_taken() {
        let own = key(1).to_string();
        for tag in [own.clone(), format!("[\"{own}\"]"), format!("[\"other\", \"{own}\"]")] {
            assert_eq!(asked(log(&[event("requests", &tag)])).await, Ok(vec![TAKEN]), "{tag}");
        }
    }

    #[tokio::test]
    async fn it_is_asked_by_the_key_of_a_request_for_one_event() {
        let mut server = Server::answering([log(&[]), log(&[])]).await;
        let findings = account("brevo", &server.url()).look_up(&questions([key(1), key(2)])).await;
        assert_eq!(findings, Ok(vec![Finding::CannotTell; 2]));
        for number in [1, 2] {
            let head = server.seen().await.unwrap().head;
            let tags = format!("%5B%22{}%22%5D", key(number));
            let line = format!("GET /v3/smtp/statistics/events?tags={tags}&event=requests&limit=1 HTTP/1.1\r\n");
            assert!(head.starts_with(&line), "{head}");
        }
    }

    #[tokio::test]
    async fn what_it_does_not_show_proves_nothing() {
        let other = key(2).to_string();
        for raw in [
            log(&[]),
            answer(200, "", "{}"),
            log(&[event("requests", &other)]),
            log(&[event("requests", "")]),
            log(&[event("requests", "[\"")]),
            log(&[event("error", &key(1).to_string())]),
            log(&[json!({"event": "requests"})]),
        ] {
            assert_eq!(asked(raw).await, Ok(vec![Finding::CannotTell]));
        }
    }

    #[tokio::test]
    async fn a_log_that_does_not_answer_tells_nothing() {
        for (raw, code) in [
            (answer(429, "", "{}"), "http_429"),
            (answer(401, "", "{}"), "http_401"),
            (answer(200, "", "7"), "unreadable_answer"),
            (answer(200, "", r#"{"events": 7}"#), "unreadable_answer"),
            (Vec::new(), "connection_lost"),
        ] {
            let Err(LookUpError(why)) = asked(raw).await else { panic!("{code}: an answer") };
            assert_eq!(why.as_str(), code);
        }
    }
}
