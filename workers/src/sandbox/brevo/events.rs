//! What Brevo's statistics say of the messages it took: that each was requested and delivered.
//!
//! Addresses are not kept, so the events name none and cannot be asked for by address.

use hyper::StatusCode;
use serde::Serialize;

use super::{invalid, wrong};
use crate::sandbox::{
    fake::{ApiAnswer, Now},
    memory::IdMap,
    timestamp,
};

/// Stands where the vendor's event has the recipient's address.
const WITHHELD_EMAIL: &str = "withheld@sandbox.invalid";
/// Stands where the vendor's event has the recipient's number.
const WITHHELD_PHONE: &str = "0000000000";

/// The end of every message id.
const ID_DOMAIN: &str = "smtp-relay.sandbox.invalid";

/// The requests taken, in 8 bytes each and at most 43 for each of their tags.
#[derive(Default)]
pub(super) struct Events {
    requests: Vec<Taken>,
    /// Which requests have a tag: for each tag a chain through this, from the newest back.
    links: Vec<Link>,
    /// The last link of each tag, counted from 1.
    tags: IdMap<[u8; 4]>,
}

#[derive(Clone, Copy)]
struct Taken {
    at_s: u32,
    messages: u32,
}

#[derive(Clone, Copy)]
struct Link {
    request: u32,
    /// Counted from 1; 0 where the chain ends.
    before: u32,
}

/// Most requests and tags remembered: what a `u32` counts.
const COUNT_MAX: usize = u32::MAX as usize;

impl Events {
    /// Remembers a request of so many messages and returns their ids.
    pub(super) fn remember<'t>(
        &mut self,
        tags: impl Iterator<Item = &'t str>,
        messages: usize,
        now: Now,
    ) -> Vec<String> {
        let number = self.requests.len();
        let taken = Taken {
            at_s: u32::try_from(now.wall_ms / 1000).unwrap_or(0),
            messages: u32::try_from(messages).unwrap_or(u32::MAX),
        };
        if number < COUNT_MAX {
            self.requests.push(taken);
            for tag in tags {
                self.link(tag, number);
            }
        }
        (0..taken.messages).map(|nth| message_id(number, taken, nth)).collect()
    }

    /// Leaves the last request without messages.
    pub(super) fn forget_last(&mut self) {
        if let Some(last) = self.requests.last_mut() {
            last.messages = 0;
        }
    }

    /// Remembers a request of one text message, whose id is a number.
    pub(super) fn remember_sms<'t>(&mut self, tags: impl Iterator<Item = &'t str>, now: Now) -> u64 {
        let number = self.requests.len();
        self.remember(tags, 0, now);
        sms_id(number)
    }

    fn link(&mut self, tag: &str, number: usize) {
        if self.links.len() < COUNT_MAX
            && let (Ok(request), Ok(link)) = (u32::try_from(number), u32::try_from(self.links.len() + 1))
        {
            let before = self.tags.replace(tag, link.to_ne_bytes()).map_or(0, u32::from_ne_bytes);
            self.links.push(Link { request, before });
        }
    }

    /// The requests with this tag, the newest first.
    fn tagged(&self, tag: &str) -> impl Iterator<Item = usize> {
        let mut next = self.tags.get(tag).map_or(0, u32::from_ne_bytes);
        std::iter::from_fn(move || {
            let link = self.links.get((next as usize).checked_sub(1)?)?;
            next = link.before;
            Some(link.request as usize)
        })
    }

    /// `GET /v3/smtp/statistics/events`.
    pub(super) fn of_email(&self, query: &str) -> ApiAnswer {
        let question = match Question::parse(query, 2500, 5000) {
            Ok(question) => question,
            Err(refused) => return refused,
        };
        let messages: Box<dyn Iterator<Item = (usize, u32)> + '_> = match (&question.message_id, &question.tag) {
            (Some(id), _) => Box::new(self.find(id).into_iter()),
            (None, Some(tag)) => Box::new(self.tagged(tag).flat_map(|number| self.messages_of(number))),
            (None, None) => Box::new((0..self.requests.len()).rev().flat_map(|number| self.messages_of(number))),
        };
        let of_message = |(number, nth): (usize, u32)| {
            let taken = self.requests.get(number).copied().unwrap_or(Taken { at_s: 0, messages: 0 });
            ["delivered", "requests"].map(|event| EmailEvent {
                date: utc(taken),
                email: WITHHELD_EMAIL,
                event,
                message_id: message_id(number, taken, nth),
                tag: question.tag.clone(),
            })
        };
        let events = messages.flat_map(of_message).filter(|event| question.wants(event.event));
        ApiAnswer::json(StatusCode::OK, &Found { events: events.skip(question.offset).take(question.limit).collect() })
    }

    /// `GET /v3/transactionalSMS/statistics/events`.
    pub(super) fn of_sms(&self, query: &str) -> ApiAnswer {
        let question = match Question::parse(query, 50, 100) {
            Ok(question) => question,
            Err(refused) => return refused,
        };
        let numbers: Box<dyn Iterator<Item = usize> + '_> = match &question.tag {
            Some(tag) => Box::new(self.tagged(tag)),
            None => Box::new((0..self.requests.len()).rev()),
        };
        let of_message = |number: usize| {
            let date = self.requests.get(number).map(|taken| utc(*taken));
            ["delivered", "sent"].map(|event| SmsEvent {
                date: date.clone(),
                phone_number: WITHHELD_PHONE,
                event,
                message_id: sms_id(number).to_string(),
                tag: question.tag.clone(),
            })
        };
        let events = numbers.flat_map(of_message).filter(|event| question.wants(event.event));
        ApiAnswer::json(StatusCode::OK, &Found { events: events.skip(question.offset).take(question.limit).collect() })
    }

    fn messages_of(&self, number: usize) -> impl Iterator<Item = (usize, u32)> + use<> {
        (0..self.requests.get(number).map_or(0, |taken| taken.messages)).map(move |nth| (number, nth))
    }

    fn find(&self, id: &str) -> Option<(usize, u32)> {
        let mut parts = id.strip_prefix('<').unwrap_or(id).split(['.', '@']);
        let _at = parts.next()?;
        let number = usize::from_str_radix(parts.next()?, 16).ok()?;
        let nth = parts.next()?.parse::<u32>().ok()?.checked_sub(1)?;
        let taken = *self.requests.get(number)?;
        (nth < taken.messages && message_id(number, taken, nth) == id).then_some((number, nth))
    }
}

fn message_id(number: usize, taken: Taken, nth: u32) -> String {
    format!("<{}.{number:x}.{}@{ID_DOMAIN}>", taken.at_s, nth + 1)
}

/// Sixteen digits, like the vendor's: more than a 32-bit integer and nearly more than a float holds.
fn sms_id(number: usize) -> u64 {
    1_500_000_000_000_000 + number as u64
}

fn utc(taken: Taken) -> String {
    timestamp::utc(i64::from(taken.at_s) * 1000) + "Z"
}

/// What the statistics are asked.
struct Question {
    message_id: Option<String>,
    tag: Option<String>,
    event: Option<String>,
    limit: usize,
    offset: usize,
}

impl Question {
    fn parse(query: &str, limit: usize, limit_max: usize) -> Result<Self, ApiAnswer> {
        let mut question = Self { message_id: None, tag: None, event: None, limit, offset: 0 };
        let (mut start, mut end, mut days) = (false, false, false);
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            match &*name {
                "messageId" => question.message_id = Some(value.into_owned()),
                "tags" => question.tag = Some(one_tag(&value)?),
                "event" => question.event = Some(value.into_owned()),
                "limit" => {
                    let limit = value.parse().ok().filter(|limit| (1..=limit_max).contains(limit));
                    question.limit = limit.ok_or_else(|| wrong("out_of_range", "limit is out of range"))?;
                }
                "offset" => {
                    question.offset = value.parse().map_err(|_| invalid("offset is not a number"))?;
                }
                // All that is remembered lies within the days that can be asked for.
                "startDate" => start = true,
                "endDate" => end = true,
                "days" => days = true,
                "sort" if value == "desc" => {}
                _ => return Err(invalid("the sandbox keeps no addresses and cannot filter by this parameter")),
            }
        }
        if start != end {
            return Err(missing_date());
        }
        if days && start {
            return Err(invalid("days is not compatible with startDate and endDate"));
        }
        Ok(question)
    }

    fn wants(&self, event: &str) -> bool {
        self.event.as_deref().is_none_or(|wanted| wanted == event)
    }
}

fn missing_date() -> ApiAnswer {
    super::missing("startDate and endDate must be given together")
}

/// The tags are a serialised array; a tag alone is taken too.
fn one_tag(tags: &str) -> Result<String, ApiAnswer> {
    if !tags.starts_with('[') {
        return Ok(tags.to_owned());
    }
    let tags: [String; 1] =
        serde_json::from_str(tags).map_err(|_| invalid("the sandbox looks up one tag at a time"))?;
    let [tag] = tags;
    Ok(tag)
}

#[derive(Serialize)]
struct Found<E> {
    events: Vec<E>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct EmailEvent {
    date: String,
    email: &'static str,
    event: &'static str,
    message_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    tag: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct SmsEvent {
    #[serde(skip_serializing_if = "Option::is_none")]
    date: Option<String>,
    phone_number: &'static str,
    event: &'static str,
    message_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    tag: Option<String>,
}
