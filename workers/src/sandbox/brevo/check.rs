//! What Brevo refuses in a request to send e-mail.

use super::{Email, Mailbox, Version, invalid, missing};
use crate::sandbox::{addresses::is_email, fake::ApiAnswer, json::Pairs};

const VERSIONS_MAX: usize = 1000;
const RECIPIENTS_MAX: usize = 2000;
const RECIPIENTS_PER_VERSION_MAX: usize = 99;
const NAME_CHARS_MAX: usize = 70;
const PARAMS_BYTES_MAX: usize = 100 * 1024;
const ALL_PARAMS_BYTES_MAX: usize = 1000 * 1024;

/// Headers that are a message's own and cannot be set as custom ones.
const STANDARD_HEADERS: [&str; 10] =
    ["from", "to", "cc", "bcc", "subject", "reply-to", "date", "content-type", "mime-version", "message-id"];

/// Refuses the whole request with the first parameter that is wrong.
pub(super) fn check(send: &Email<'_>) -> Result<(), ApiAnswer> {
    if send.template_id.is_none() {
        check_content(send)?;
    }
    if let Some(reply_to) = &send.reply_to {
        check_mailbox(reply_to, "replyTo")?;
    }
    check_headers(send)?;
    if let Some(batch_id) = &send.batch_id
        && !is_uuid(batch_id)
    {
        return Err(invalid("batchId is not a valid UUID"));
    }
    if send.tags.iter().flatten().any(|tag| tag.is_empty()) {
        return Err(invalid("tags must not be empty"));
    }
    for attachment in send.attachment.iter().flatten() {
        match (&attachment.content, &attachment.name, &attachment.url) {
            (Some(_), Some(_), _) | (None, _, Some(_)) => {}
            (Some(_), None, _) => return Err(missing("attachment name is missing")),
            (None, _, None) => return Err(missing("attachment content or url is missing")),
        }
    }
    match &send.versions {
        None => check_lists([&send.to, &send.cc, &send.bcc].map(Option::as_deref), "")?,
        Some(versions) => check_versions(versions)?,
    }
    let recipients = send.recipients().count();
    if recipients > RECIPIENTS_MAX {
        return Err(invalid("the total of recipients must not exceed 2000"));
    }
    let own = send.params.iter();
    let params: usize =
        own.chain(send.versions.iter().flatten().filter_map(|of| of.params.as_ref())).map(|of| of.0).sum();
    if params > ALL_PARAMS_BYTES_MAX {
        return Err(invalid("the total of params must not exceed 1000 KB"));
    }
    Ok(())
}

fn check_content(send: &Email<'_>) -> Result<(), ApiAnswer> {
    let sender = send.sender.as_ref().ok_or_else(|| missing("sender is missing"))?;
    match &sender.email {
        Some(email) if !is_email(email) => return Err(invalid("valid sender email required")),
        None if sender.id.is_none() => return Err(missing("sender email is missing")),
        Some(_) | None => {}
    }
    if sender.name.as_ref().is_some_and(|name| name.chars().count() > NAME_CHARS_MAX) {
        return Err(invalid("sender name must not exceed 70 characters"));
    }
    if send.subject.as_ref().is_none_or(|subject| subject.is_empty()) {
        return Err(missing("subject is missing"));
    }
    // A version may bring content of its own only where the request has some.
    if [&send.html, &send.text].into_iter().all(|content| content.as_ref().is_none_or(|text| text.is_empty())) {
        return Err(missing("htmlContent or textContent is missing"));
    }
    Ok(())
}

fn check_headers(send: &Email<'_>) -> Result<(), ApiAnswer> {
    for (name, value) in send.headers.iter().flat_map(Pairs::iter) {
        if STANDARD_HEADERS.iter().any(|standard| standard.eq_ignore_ascii_case(name)) {
            return Err(invalid("standard headers are not supported in headers"));
        }
        let sound = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_graphic() && byte != b':');
        if !sound || !value.bytes().all(|byte| (0x20..0x7f).contains(&byte)) {
            return Err(invalid("headers is not valid"));
        }
    }
    if let Some(key) = send.header("idempotencyKey")
        && !is_uuid(key)
    {
        return Err(invalid("idempotencyKey must be a valid UUID"));
    }
    Ok(())
}

fn check_versions(versions: &[Version<'_>]) -> Result<(), ApiAnswer> {
    if !(1..=VERSIONS_MAX).contains(&versions.len()) {
        return Err(invalid("messageVersions must have 1 to 1000 versions"));
    }
    for version in versions {
        check_lists(version.lists(), " in messageVersions")?;
        if version.lists().into_iter().flatten().map(<[_]>::len).sum::<usize>() > RECIPIENTS_PER_VERSION_MAX {
            return Err(invalid("a version of messageVersions must not exceed 99 recipients"));
        }
        if let Some(reply_to) = &version.reply_to {
            check_mailbox(reply_to, "replyTo in messageVersions")?;
        }
        if [&version.subject, &version.html, &version.text].into_iter().flatten().any(|text| text.is_empty()) {
            return Err(invalid("subject, htmlContent and textContent must not be empty in messageVersions"));
        }
        if version.params.is_some_and(|params| params.0 > PARAMS_BYTES_MAX) {
            return Err(invalid("params must not exceed 100 KB in messageVersions"));
        }
    }
    Ok(())
}

fn check_lists(lists: [Option<&[Mailbox<'_>]>; 3], place: &str) -> Result<(), ApiAnswer> {
    if lists[0].is_none_or(<[_]>::is_empty) {
        return Err(missing(&format!("to is missing{place}")));
    }
    for (list, name) in lists.into_iter().zip(["to", "cc", "bcc"]) {
        for mailbox in list.into_iter().flatten() {
            check_mailbox(mailbox, name)?;
        }
    }
    Ok(())
}

fn check_mailbox(mailbox: &Mailbox<'_>, place: &str) -> Result<(), ApiAnswer> {
    if !mailbox.email.as_deref().is_some_and(is_email) {
        return Err(invalid(&format!("email is not valid in {place}")));
    }
    if mailbox.name.as_ref().is_some_and(|name| name.is_empty() || name.chars().count() > NAME_CHARS_MAX) {
        return Err(invalid(&format!("name is not valid in {place}")));
    }
    Ok(())
}

/// Whether it is a UUID in its usual form (RFC 9562 section 4).
fn is_uuid(text: &str) -> bool {
    text.len() == 36
        && text.bytes().enumerate().all(|(at, byte)| match at {
            8 | 13 | 18 | 23 => byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        })
}
