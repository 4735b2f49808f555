//! What Infobip remembers of the messages it had: by id for its log, and in a queue for its reports.

use std::{collections::VecDeque, time::Duration};

use hyper::StatusCode;
use serde::Serialize;

use super::{Status, Violation, rejected, violated};
use crate::sandbox::{
    fake::{ApiAnswer, Now},
    memory::IdMap,
    timestamp,
};

/// The log reaches back for 48 hours.
const LOG_S: u64 = 48 * 3600;
/// Most results of one question; [`RESULTS_DEFAULT`] where it says nothing.
const RESULTS_MAX: usize = 1000;
const RESULTS_DEFAULT: usize = 50;
/// Most questions in a minute.
const QUESTIONS_PER_MINUTE: usize = 120;
const MINUTE: Duration = Duration::from_secs(60);
/// Longest list of message ids in a question.
const IDS_BYTES_MAX: usize = 2048;
/// Reports that wait to be fetched. Nobody need ever fetch them: the oldest make room for new ones.
const REPORTS_MAX: usize = 10_000;

/// What became of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    Delivered,
    BadDestination,
    TooLong,
}

impl Fate {
    const ALL: [Self; 3] = [Self::Delivered, Self::BadDestination, Self::TooLong];

    pub(super) const fn status(self) -> Status {
        match self {
            Self::Delivered => Status {
                group_id: 3,
                group_name: "DELIVERED",
                id: 5,
                name: "DELIVERED_TO_HANDSET",
                description: "Message delivered to handset",
            },
            Self::BadDestination => rejected(52, "REJECTED_DESTINATION", "Invalid destination address"),
            Self::TooLong => rejected(25, "REJECTED_MESSAGE_TOO_LONG", "Message has more than 25 parts"),
        }
    }
}

/// The fate and the second it was decided in: two bits and thirty.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Entry {
    fate: Fate,
    second: u32,
}

impl Entry {
    fn pack(self) -> [u8; 4] {
        let fate = Fate::ALL.iter().zip(0..).find(|(fate, _)| **fate == self.fate).map_or(0, |(_, number)| number);
        (self.second << 2 | fate).to_ne_bytes()
    }

    fn unpack(bytes: [u8; 4]) -> Self {
        let packed = u32::from_ne_bytes(bytes);
        let fate = Fate::ALL.get((packed & 3) as usize).copied().unwrap_or(Fate::Delivered);
        Self { fate, second: packed >> 2 }
    }
}

pub(super) struct Logs {
    /// Seconds count from here.
    start: Now,
    numbers: u64,
    entries: IdMap<[u8; 4]>,
    reports: VecDeque<(String, Entry)>,
    /// When the questions of the last minute came, at most [`QUESTIONS_PER_MINUTE`].
    asked: VecDeque<Duration>,
}

impl Logs {
    pub(super) fn new(now: Now) -> Self {
        Self {
            start: now,
            numbers: now.wall_ms.unsigned_abs(),
            entries: IdMap::default(),
            reports: VecDeque::new(),
            asked: VecDeque::new(),
        }
    }

    /// Counts a question. False when there were as many as a minute may have.
    pub(super) fn may_ask(&mut self, now: Now) -> bool {
        while self.asked.front().is_some_and(|at| now.monotonic.saturating_sub(*at) >= MINUTE) {
            self.asked.pop_front();
        }
        let may = self.asked.len() < QUESTIONS_PER_MINUTE;
        if may {
            self.asked.push_back(now.monotonic);
        }
        may
    }

    /// A number no other message or request of this run has.
    pub(super) fn next_number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    /// Remembers a message unless its id is known; says whether it was new.
    pub(super) fn remember(&mut self, id: &str, fate: Fate, now: Now) -> bool {
        let entry = Entry { fate, second: u32::try_from(self.second(now)).unwrap_or(u32::MAX) };
        let new = self.entries.insert_new(id, entry.pack());
        if new {
            if self.reports.len() == REPORTS_MAX {
                self.reports.pop_front();
            }
            self.reports.push_back((id.to_owned(), entry));
        }
        new
    }

    fn second(&self, now: Now) -> u64 {
        now.monotonic.saturating_sub(self.start.monotonic).as_secs()
    }

    /// `GET /sms/3/logs`: what is asked for by id. The fake keeps no ids, so it cannot list what it is not asked for.
    pub(super) fn logs(&self, query: &str, now: Now) -> ApiAnswer {
        let question = match Question::parse(query) {
            Ok(question) => question,
            Err(violation) => return violated(&[violation]),
        };
        if question.ids.is_empty() {
            return violated(&[violation("messageId", "is needed: the sandbox keeps no list of its messages")]);
        }
        let oldest = self.second(now).saturating_sub(LOG_S);
        let found = question.ids.iter().filter_map(|id| Some((id.clone(), Entry::unpack(self.entries.get(id)?))));
        let results = found.filter(|(_, entry)| u64::from(entry.second) >= oldest).take(question.limit);
        self.answer(results.collect())
    }

    /// `GET /sms/3/reports`: reports nobody has fetched yet, and each of them only this once.
    pub(super) fn take_reports(&mut self, query: &str) -> ApiAnswer {
        let question = match Question::parse(query) {
            Ok(question) => question,
            Err(violation) => return violated(&[violation]),
        };
        let mut taken = Vec::new();
        if question.ids.is_empty() {
            let count = self.reports.len().min(question.limit);
            taken.extend(self.reports.drain(..count));
        } else {
            self.reports.retain(|(id, entry)| {
                let take = taken.len() < question.limit && question.ids.contains(id);
                if take {
                    taken.push((id.clone(), *entry));
                }
                !take
            });
        }
        self.answer(taken)
    }

    fn answer(&self, found: Vec<(String, Entry)>) -> ApiAnswer {
        let result = |(message_id, entry): (String, Entry)| {
            let at = timestamp::utc(self.start.wall_ms.saturating_add(i64::from(entry.second) * 1000)) + "+0000";
            Found { message_id, sent_at: at.clone(), done_at: at, status: entry.fate.status(), error: NO_ERROR }
        };
        ApiAnswer::json(StatusCode::OK, &Results { results: found.into_iter().map(result).collect() })
    }
}

struct Question {
    ids: Vec<String>,
    limit: usize,
}

impl Question {
    fn parse(query: &str) -> Result<Self, Violation> {
        let mut question = Self { ids: Vec::new(), limit: RESULTS_DEFAULT };
        let mut ids_bytes = 0;
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            match &*name {
                "messageId" => {
                    ids_bytes += value.len();
                    question.ids.extend(value.split(',').filter(|id| !id.is_empty()).map(str::to_owned));
                }
                "limit" => {
                    let limit = value.parse().ok().filter(|limit| (1..=RESULTS_MAX).contains(limit));
                    question.limit = limit.ok_or_else(|| violation("limit", "must be from 1 to 1000"))?;
                }
                name => return Err(violation(name, "is not kept by the sandbox and cannot be asked for")),
            }
        }
        if ids_bytes > IDS_BYTES_MAX {
            return Err(violation("messageId", "must have at most 2048 characters"));
        }
        Ok(question)
    }
}

fn violation(property: &str, violation: &'static str) -> Violation {
    Violation { property: property.to_owned(), violation }
}

#[derive(Serialize)]
struct Results {
    results: Vec<Found>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Found {
    message_id: String,
    sent_at: String,
    done_at: String,
    status: Status,
    error: Error,
}

#[derive(Serialize, Clone, Copy)]
#[serde(rename_all = "camelCase")]
struct Error {
    group_id: u8,
    group_name: &'static str,
    id: u8,
    name: &'static str,
    description: &'static str,
    permanent: bool,
}

const NO_ERROR: Error =
    Error { group_id: 0, group_name: "OK", id: 0, name: "NO_ERROR", description: "No Error", permanent: false };
