//! What Infobip refuses in a request to send, as violations that name the field by its path.

use super::{Amount, Content, DeliveryTimeWindow, Message, Messages, TimeOfDay, Violation, violated};
use crate::sandbox::{fake::ApiAnswer, json::Text};

const TO_CHARS_MAX: usize = 64;
const MESSAGE_ID_CHARS_MAX: usize = 200;
const REFERENCE_CHARS_MAX: usize = 255;
const CALLBACK_DATA_CHARS_MAX: usize = 4000;
const BULK_ID_CHARS_MAX: usize = 100;
/// The fake lists so many and stops: a body of ten megabytes could hold a million.
const VIOLATIONS_MAX: usize = 100;

const DAYS: [&str; 7] = ["MONDAY", "TUESDAY", "WEDNESDAY", "THURSDAY", "FRIDAY", "SATURDAY", "SUNDAY"];
const LANGUAGES: [&str; 5] = ["NONE", "TR", "ES", "PT", "AUTODETECT"];
const TRANSLITERATIONS: [&str; 12] = [
    "NONE",
    "TURKISH",
    "GREEK",
    "CYRILLIC",
    "SERBIAN_CYRILLIC",
    "CENTRAL_EUROPEAN",
    "BALTIC",
    "NON_UNICODE",
    "PORTUGUESE",
    "COLOMBIAN",
    "BULGARIAN_CYRILLIC",
    "ALL",
];

/// Refuses the whole request with all that is wrong in it.
pub(super) fn check(send: &Messages<'_>) -> Result<(), ApiAnswer> {
    let mut wrong = Vec::new();
    let messages = send.messages.as_deref().unwrap_or(&[]);
    if messages.is_empty() {
        violate(&mut wrong, "messages", "must not be empty");
    }
    for (at, message) in messages.iter().enumerate() {
        check_message(message, at, &mut wrong);
        if wrong.len() >= VIOLATIONS_MAX {
            break;
        }
    }
    let schedule = send.options.as_ref().and_then(|options| options.schedule.as_ref());
    if let Some(schedule) = schedule {
        check_length(schedule.bulk_id.as_ref(), BULK_ID_CHARS_MAX, || "options.schedule.bulkId".into(), &mut wrong);
        if let Some(limit) = &schedule.sending_speed_limit {
            check_amount(limit, &["MINUTE", "HOUR", "DAY"], "options.schedule.sendingSpeedLimit", &mut wrong);
        }
    }
    if wrong.is_empty() { Ok(()) } else { Err(violated(&wrong)) }
}

fn check_message(message: &Message<'_>, at: usize, wrong: &mut Vec<Violation>) {
    let field = |name: &str| format!("messages[{at}].{name}");
    if message.sender.as_deref().is_none_or(str::is_empty) {
        violate(wrong, field("sender"), "must not be empty");
    }
    let destinations = message.destinations.as_deref().unwrap_or(&[]);
    if destinations.is_empty() {
        violate(wrong, field("destinations"), "must not be empty");
    }
    for (nth, destination) in destinations.iter().enumerate() {
        let to = destination.to.as_deref().unwrap_or("");
        let digits = to.strip_prefix('+').unwrap_or(to);
        if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            violate(wrong, field(&format!("destinations[{nth}].to")), "must be a phone number");
        }
        let of_destination = |name: &str| field(&format!("destinations[{nth}].{name}"));
        check_length(destination.to.as_ref(), TO_CHARS_MAX, || of_destination("to"), wrong);
        check_length(destination.message_id.as_ref(), MESSAGE_ID_CHARS_MAX, || of_destination("messageId"), wrong);
    }
    match &message.content {
        None => violate(wrong, field("content"), "must not be null"),
        Some(content) => check_content(content, field, wrong),
    }
    if let Some(options) = &message.options {
        let reference = options.campaign_reference_id.as_ref();
        check_length(reference, REFERENCE_CHARS_MAX, || field("options.campaignReferenceId"), wrong);
        if let Some(platform) = &options.platform {
            let entity = || field("options.platform.entityId");
            check_length(platform.entity_id.as_ref(), REFERENCE_CHARS_MAX, entity, wrong);
            let application = || field("options.platform.applicationId");
            check_length(platform.application_id.as_ref(), REFERENCE_CHARS_MAX, application, wrong);
        }
        if let Some(period) = &options.validity_period {
            check_amount(period, &["SECONDS", "MINUTES", "HOURS"], &field("options.validityPeriod"), wrong);
        }
        if let Some(window) = &options.delivery_time_window {
            check_window(window, &field("options.deliveryTimeWindow"), wrong);
        }
    }
    if let Some(webhooks) = &message.webhooks {
        let data = webhooks.callback_data.as_ref();
        check_length(data, CALLBACK_DATA_CHARS_MAX, || field("webhooks.callbackData"), wrong);
        let url = webhooks.delivery.as_ref().and_then(|delivery| delivery.url.as_deref());
        if url.is_some_and(|url| !url.starts_with("https://") && !url.starts_with("http://")) {
            violate(wrong, field("webhooks.delivery.url"), "must be a valid URL");
        }
        if webhooks.content_type.as_deref().is_some_and(|word| !matches!(word, "application/json" | "application/xml"))
        {
            violate(wrong, field("webhooks.contentType"), "must be application/json or application/xml");
        }
    }
}

fn check_content(content: &Content<'_>, field: impl Fn(&str) -> String, wrong: &mut Vec<Violation>) {
    match (content.text.as_deref(), content.hex.as_deref()) {
        (None | Some(""), None) => violate(wrong, field("content.text"), "must not be empty"),
        (Some(_), Some(_)) => violate(wrong, field("content"), "must have either text or hex"),
        (Some(_), None) | (None, Some(_)) => {}
    }
    check_word(content.transliteration.as_ref(), &TRANSLITERATIONS, || field("content.transliteration"), wrong);
    let code = content.language.as_ref().and_then(|language| language.language_code.as_ref());
    check_word(code, &LANGUAGES, || field("content.language.languageCode"), wrong);
}

fn check_amount(amount: &Amount<'_>, units: &[&str], field: &str, wrong: &mut Vec<Violation>) {
    if amount.amount.is_none_or(|amount| amount < 1) {
        violate(wrong, format!("{field}.amount"), "must be greater than 0");
    }
    check_word(amount.time_unit.as_ref(), units, || format!("{field}.timeUnit"), wrong);
}

/// At least one day; both times or neither, an hour or more apart.
fn check_window(window: &DeliveryTimeWindow<'_>, field: &str, wrong: &mut Vec<Violation>) {
    let days = window.days.as_deref().unwrap_or(&[]);
    if days.is_empty() {
        violate(wrong, format!("{field}.days"), "must not be empty");
    }
    for (at, day) in days.iter().enumerate() {
        check_word(Some(day), &DAYS, || format!("{field}.days[{at}]"), wrong);
    }
    match (window.from, window.to) {
        (None, None) => {}
        (Some(from), Some(to)) => match (minute_of_day(from), minute_of_day(to)) {
            (Some(from), Some(to)) if to - from >= 60 => {}
            (Some(_), Some(_)) => violate(wrong, field, "must have from and to an hour apart"),
            (None, _) => violate(wrong, format!("{field}.from"), "must be a time of the day"),
            (_, None) => violate(wrong, format!("{field}.to"), "must be a time of the day"),
        },
        _ => violate(wrong, field, "must have both from and to, or neither"),
    }
}

fn minute_of_day(time: TimeOfDay) -> Option<i32> {
    let (hour, minute) = (time.hour?, time.minute?);
    ((0..24).contains(&hour) && (0..60).contains(&minute)).then_some(hour * 60 + minute)
}

fn check_word(word: Option<&Text<'_>>, words: &[&str], field: impl FnOnce() -> String, wrong: &mut Vec<Violation>) {
    if word.is_some_and(|word| !words.contains(&&**word)) {
        violate(wrong, field(), "must be one of the documented values");
    }
}

fn check_length(text: Option<&Text<'_>>, chars_max: usize, field: impl FnOnce() -> String, wrong: &mut Vec<Violation>) {
    // A character has at least a byte: most texts need no counting.
    if text.is_some_and(|text| text.len() > chars_max && text.chars().count() > chars_max) {
        violate(wrong, field(), "is too long");
    }
}

fn violate(wrong: &mut Vec<Violation>, property: impl Into<String>, violation: &'static str) {
    if wrong.len() < VIOLATIONS_MAX {
        wrong.push(Violation { property: property.into(), violation });
    }
}
