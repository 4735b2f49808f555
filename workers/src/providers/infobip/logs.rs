//! The log, asked by our own ids: `GET /sms/3/logs?messageId=…`, for the last 48 hours, 120 requests a minute.
//!
//! Its sister `/sms/3/reports` hands out each report once and must never be asked: it would take the delivery reports
//! away from whoever waits for them.

use std::collections::HashMap;

use reqwest::Url;
use serde::Deserialize;

use super::statuses::Status;
use crate::{
    message::SendKey,
    providers::{
        Code, Finding, LookUpError, Question, Verdict,
        http::{Client, KeyText},
    },
};

/// The vendor takes 2,048 characters of ids; each of ours is 36 and a comma.
pub(super) const IDS_PER_REQUEST: usize = 2_048 / 37;

/// Most rows in an answer. Without it the log shows 50.
const ROWS_MAX: usize = 1_000;

/// A row holds the message's text (up to 4,000 characters) and some 700 bytes; an id may have two rows.
const ANSWER_BYTES_MAX: usize = 2 << 20;

#[derive(Deserialize)]
struct Log {
    results: Vec<Row>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    message_id: String,
    status: Status,
}

/// Asks for all questions, one request after the other.
pub(super) async fn look_up(questions: &[Question], client: &Client, url: &Url) -> Result<Vec<Finding>, LookUpError> {
    let mut findings = Vec::with_capacity(questions.len());
    for asked in questions.chunks(IDS_PER_REQUEST) {
        let mut url = url.clone();
        url.set_query(Some(&query(asked)));
        let reply = client.get(url, ANSWER_BYTES_MAX).await.map_err(LookUpError)?;
        if reply.status != 200 {
            return Err(LookUpError(Code::numbered("http", u32::from(reply.status))));
        }
        let Some(Log { results }) = reply.json() else {
            return Err(LookUpError(Code::known("unreadable_answer")));
        };
        let found = by_key(&results);
        findings.extend(asked.iter().map(|question| found.get(&question.key).cloned().unwrap_or(Finding::Absent)));
    }
    Ok(findings)
}

fn query(asked: &[Question]) -> String {
    let mut query = format!("limit={ROWS_MAX}&messageId=");
    for (nth, question) in asked.iter().enumerate() {
        if nth > 0 {
            query.push(',');
        }
        query.push_str(KeyText::new(question.key).as_str());
    }
    query
}

/// What the rows say of each id. A refused repeat may have a row of its own beside the message it repeats, so a row is
/// believed only as far as no other row of its id says more ([`weight`]).
fn by_key(rows: &[Row]) -> HashMap<SendKey, Finding> {
    let mut verdicts: HashMap<SendKey, Verdict> = HashMap::with_capacity(rows.len());
    for row in rows {
        let Ok(key) = row.message_id.parse::<SendKey>() else { continue };
        let verdict = row.status.verdict();
        match verdicts.get_mut(&key) {
            Some(known) if weight(known) >= weight(&verdict) => {}
            Some(known) => *known = verdict,
            None => drop(verdicts.insert(key, verdict)),
        }
    }
    verdicts.into_iter().map(|(key, verdict)| (key, finding(verdict))).collect()
}

/// A message taken over is one, whatever else is said of its id. A row that cannot be read may be such a one, so beside
/// it a refusal proves nothing. And "duplicate" says only that there was a message with the id, which may have been
/// taken over or refused: that message's own row tells.
const fn weight(verdict: &Verdict) -> u8 {
    match verdict {
        Verdict::Accepted { .. } => 3,
        Verdict::Throttled(_) | Verdict::NotSent(_) | Verdict::Unknown(_) => 2,
        Verdict::Refused(_) | Verdict::Deferred(_) | Verdict::AccountRefused(_) => 1,
        Verdict::Duplicate => 0,
    }
}

fn finding(verdict: Verdict) -> Finding {
    match verdict {
        Verdict::Accepted { provider_id } => Finding::Accepted { provider_id },
        // None of the messages that the log has under this id was taken over, and the id may be used up.
        Verdict::Refused(code) | Verdict::Deferred(code) | Verdict::AccountRefused(code) => Finding::Refused(code),
        Verdict::Duplicate | Verdict::Throttled(_) | Verdict::NotSent(_) | Verdict::Unknown(_) => Finding::CannotTell,
    }
}
