//! What SendGrid refuses in a request to send.

use std::{borrow::Cow, collections::HashSet};

use super::{MailSend, Mailbox, Personalization, wrong};
use crate::sandbox::{
    addresses::is_email,
    fake::{ApiAnswer, Now},
    json::Pairs,
};

const PERSONALIZATIONS_MAX: usize = 1000;
const RECIPIENTS_MAX: usize = 1000;
const SUBSTITUTIONS_BYTES_MAX: usize = 10_000;
const CUSTOM_ARGS_BYTES_MAX: usize = 10_000;
const CATEGORIES_MAX: usize = 10;
const CATEGORY_CHARS_MAX: usize = 255;
const GROUPS_TO_DISPLAY_MAX: usize = 25;
/// Mail is scheduled at most 72 hours ahead.
const SEND_AT_AHEAD_S_MAX: i64 = 72 * 3600;

/// Headers SendGrid sets itself and lets nobody else set.
const RESERVED_HEADERS: [&str; 12] = [
    "x-sg-id",
    "x-sg-eid",
    "received",
    "dkim-signature",
    "content-type",
    "content-transfer-encoding",
    "to",
    "from",
    "subject",
    "reply-to",
    "cc",
    "bcc",
];

/// Refuses the whole request with the first field that is wrong, as the vendor does.
pub(super) fn check(send: &MailSend<'_>, now: Now) -> Result<(), ApiAnswer> {
    check_envelope(send, now)?;
    check_content(send)?;
    let personalizations = send.personalizations.as_deref().unwrap_or(&[]);
    if !(1..=PERSONALIZATIONS_MAX).contains(&personalizations.len()) {
        return Err(wrong(
            "personalizations",
            "The personalizations field is required, must have at least one personalization and at most 1000.",
        ));
    }
    let recipients: usize = personalizations.iter().map(|of| of.to.len() + of.cc.len() + of.bcc.len()).sum();
    if recipients > RECIPIENTS_MAX {
        return Err(wrong("personalizations", "There may be at most 1000 recipients in to, cc and bcc together."));
    }
    let mut known = HashSet::with_capacity(recipients);
    for (at, personalization) in personalizations.iter().enumerate() {
        check_personalization(personalization, at, send, now)?;
        check_recipients(personalization, at, &mut known)?;
    }
    Ok(())
}

fn check_envelope(send: &MailSend<'_>, now: Now) -> Result<(), ApiAnswer> {
    let from = send.from.as_ref().ok_or_else(|| wrong("from", "The from object must be provided for every email."))?;
    if !from.has_valid_address() {
        return Err(wrong("from.email", "The from email does not contain a valid address."));
    }
    if send.reply_to.is_some() && send.reply_to_list.is_some() {
        return Err(wrong("reply_to", "reply_to and reply_to_list cannot be used together."));
    }
    if send.reply_to.iter().any(|to| !to.has_valid_address()) {
        return Err(wrong("reply_to.email", "The reply_to email does not contain a valid address."));
    }
    if let Some(at) = send.reply_to_list.iter().flatten().position(|to| !to.has_valid_address()) {
        return Err(wrong(format!("reply_to_list.{at}.email"), "The email does not contain a valid address."));
    }
    let categories = send.categories.as_deref().unwrap_or(&[]);
    let unique: HashSet<&str> = categories.iter().map(|category| &**category).collect();
    if categories.len() > CATEGORIES_MAX || unique.len() < categories.len() {
        return Err(wrong("categories", "There may be at most 10 categories, each of them once."));
    }
    if let Some(at) = categories.iter().position(|category| category.chars().count() > CATEGORY_CHARS_MAX) {
        return Err(wrong(format!("categories.{at}"), "A category may have at most 255 characters."));
    }
    if let Some(asm) = &send.asm {
        if asm.group_id.is_none() {
            return Err(wrong("asm.group_id", "The asm group_id is required."));
        }
        if asm.groups_to_display.len() > GROUPS_TO_DISPLAY_MAX {
            return Err(wrong("asm.groups_to_display", "There may be at most 25 groups to display."));
        }
    }
    if send.ip_pool_name.as_deref().is_some_and(|name| !(2..=64).contains(&name.len())) {
        return Err(wrong("ip_pool_name", "The ip_pool_name must have 2 to 64 characters."));
    }
    check_send_at(send.send_at, || "send_at".into(), now)?;
    check_headers(send.headers.as_ref(), || "headers".into())?;
    check_custom_args(send.custom_args.as_ref(), || "custom_args".into())
}

fn check_content(send: &MailSend<'_>) -> Result<(), ApiAnswer> {
    let contents = send.content.as_deref().unwrap_or(&[]);
    if contents.is_empty() && send.template_id.is_none() {
        return Err(wrong("content", "Unless a valid template_id is provided, the content parameter is required."));
    }
    let mut rank_before = 0;
    for (at, content) in contents.iter().enumerate() {
        if content.value.as_deref().is_none_or(str::is_empty) {
            return Err(wrong(
                format!("content.{at}.value"),
                "The content value must be a string at least one character in length.",
            ));
        }
        let rank = match content.r#type.as_deref() {
            None | Some("") => return Err(wrong(format!("content.{at}.type"), "The content type is required.")),
            Some("text/plain") => 0,
            Some("text/html") => 1,
            Some(_) => 2,
        };
        if rank < rank_before {
            return Err(wrong(
                format!("content.{at}.type"),
                "If present, text/plain must be first, followed by text/html, followed by any other content.",
            ));
        }
        rank_before = rank;
    }
    for (at, attachment) in send.attachments.iter().flatten().enumerate() {
        if attachment.content.as_deref().is_none_or(str::is_empty) {
            return Err(wrong(format!("attachments.{at}.content"), "The attachment content is required."));
        }
        if attachment.filename.is_none() {
            return Err(wrong(format!("attachments.{at}.filename"), "The attachment filename is required."));
        }
        if attachment.disposition.as_deref().is_some_and(|word| !matches!(word, "inline" | "attachment")) {
            return Err(wrong(format!("attachments.{at}.disposition"), "It must be inline or attachment."));
        }
    }
    Ok(())
}

fn check_personalization(of: &Personalization<'_>, at: usize, send: &MailSend<'_>, now: Now) -> Result<(), ApiAnswer> {
    let field = |name: &str| format!("personalizations.{at}.{name}");
    if send.template_id.is_none() && of.subject.as_ref().or(send.subject.as_ref()).is_none_or(|text| text.is_empty()) {
        return Err(wrong(
            "subject",
            "The subject is required. You can get around this requirement if you use a template with a subject \
             defined or if every personalization has a subject defined.",
        ));
    }
    if of.from.as_ref().is_some_and(|from| !from.has_valid_address()) {
        return Err(wrong(field("from.email"), "The from email does not contain a valid address."));
    }
    if let Some(substitutions) = &of.substitutions {
        if send.template_id.as_deref().is_some_and(|id| id.starts_with("d-")) {
            return Err(wrong(field("substitutions"), "Substitutions may not be used with dynamic templating."));
        }
        if substitutions.bytes() > SUBSTITUTIONS_BYTES_MAX {
            return Err(wrong(field("substitutions"), "Substitutions may have at most 10000 bytes."));
        }
    }
    check_send_at(of.send_at, || field("send_at"), now)?;
    check_headers(of.headers.as_ref(), || field("headers"))?;
    check_custom_args(of.custom_args.as_ref(), || field("custom_args"))
}

fn check_recipients<'a>(
    of: &'a Personalization<'_>,
    at: usize,
    known: &mut HashSet<Cow<'a, str>>,
) -> Result<(), ApiAnswer> {
    if of.to.is_empty() {
        return Err(invalid_to(at));
    }
    for (list, mailboxes) in of.lists() {
        for (nth, mailbox) in mailboxes.iter().enumerate() {
            let Some(email) = mailbox.email.as_deref().filter(|email| is_email(email)) else {
                return Err(match list {
                    "to" => invalid_to(at),
                    _ => wrong(
                        format!("personalizations.{at}.{list}.{nth}.email"),
                        "The email does not contain a valid address.",
                    ),
                });
            };
            if mailbox.name.as_deref().is_some_and(|name| name.contains([',', ';'])) {
                return Err(wrong(
                    format!("personalizations.{at}.{list}.{nth}.name"),
                    "The name may not contain a comma or a semicolon.",
                ));
            }
            let lower = if email.bytes().any(|byte| byte.is_ascii_uppercase()) {
                Cow::Owned(email.to_ascii_lowercase())
            } else {
                Cow::Borrowed(email)
            };
            if let Some(email) = known.replace(lower) {
                // The vendor quotes the address here, and so tests that nobody logs what it says.
                let message = format!(
                    "Each email address in the personalization block should be unique between to, cc, and bcc. We \
                     found the first duplicate instance of [{email}] in the personalizations.{at}.{list} field."
                );
                return Err(wrong("personalizations", &message));
            }
        }
    }
    Ok(())
}

fn check_send_at(send_at: Option<i64>, field: impl Fn() -> String, now: Now) -> Result<(), ApiAnswer> {
    match send_at {
        Some(at) if at > now.wall_ms / 1000 + SEND_AT_AHEAD_S_MAX => {
            Err(wrong(field(), "Scheduled sending is possible at most 72 hours in advance."))
        }
        _ => Ok(()),
    }
}

fn check_headers(headers: Option<&Pairs<'_>>, field: impl Fn() -> String) -> Result<(), ApiAnswer> {
    for (name, value) in headers.into_iter().flat_map(Pairs::iter) {
        if RESERVED_HEADERS.iter().any(|reserved| reserved.eq_ignore_ascii_case(name)) {
            return Err(wrong(format!("{}.{name}", field()), "This header is reserved and may not be set."));
        }
        let sound = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_graphic() && byte != b':');
        if !sound || !value.bytes().all(|byte| (0x20..0x7f).contains(&byte)) {
            return Err(wrong(field(), "Header names and values must be ASCII without control characters."));
        }
    }
    Ok(())
}

fn check_custom_args(args: Option<&Pairs<'_>>, field: impl Fn() -> String) -> Result<(), ApiAnswer> {
    match args {
        Some(args) if args.bytes() >= CUSTOM_ARGS_BYTES_MAX => {
            Err(wrong(field(), "Custom arguments must be smaller than 10000 bytes."))
        }
        _ => Ok(()),
    }
}

fn invalid_to(at: usize) -> ApiAnswer {
    wrong(
        format!("personalizations.{at}.to"),
        "The to array is required for all personalization objects, and must have at least one email object with a \
         valid email address.",
    )
}

impl Mailbox<'_> {
    fn has_valid_address(&self) -> bool {
        self.email.as_deref().is_some_and(is_email)
    }
}
