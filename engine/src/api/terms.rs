//! What must be true of a new campaign's times, hours and lists.

use dispatch_schemas::api::{campaigns::NewCampaign, problems::FieldError, sending_window::BadWindow};

/// How far `send_at` may lie in the past: the clock of the client and the way of the request.
const SLACK_MS: i64 = 60_000;

/// What is wrong with when it is to be sent.
pub(super) fn times(new: &NewCampaign, now_ms: i64) -> Vec<FieldError> {
    let mut errors = Vec::new();
    if new.send_at.is_some_and(|at| at.as_ms() < now_ms - SLACK_MS) {
        errors.push(FieldError::new("/send_at", "this moment has passed; give a later one, or none to send at once"));
    }
    if let Some(end) = new.expires_at {
        if end.as_ms() <= now_ms {
            errors.push(FieldError::new("/expires_at", "this moment has passed; nobody could be written to"));
        } else if new.send_at.is_some_and(|at| at >= end) {
            errors.push(FieldError::new("/expires_at", "it must be later than `send_at`"));
        }
    }
    errors
}

/// What is wrong with the hours it may be sent in.
pub(super) fn window(new: &NewCampaign) -> Option<FieldError> {
    let wrong = new.sending_window.as_ref()?.check().err()?;
    let member = match wrong {
        BadWindow::Empty => "end",
        BadWindow::OpensAtMidnightsEnd => "start",
        BadWindow::NoDays => "days",
    };
    Some(FieldError::new(format!("/sending_window/{member}"), wrong.to_string()))
}

/// What to say of a window that does not open between the campaign's start and its end.
pub(super) fn never_open(new: &NewCampaign, now_ms: i64) -> Option<String> {
    let (window, end) = (new.sending_window.as_ref()?, new.expires_at?);
    let from_ms = new.send_at.map_or(now_ms, |at| at.as_ms().max(now_ms));
    let opens_in_time = window.opens_at(from_ms).is_some_and(|opens_ms| opens_ms < end.as_ms());
    (!opens_in_time)
        .then(|| "`sending_window` does not open before `expires_at`: nobody would be written to".to_owned())
}

/// What is wrong with the lists it names.
pub(super) fn lists(new: &NewCampaign) -> Vec<FieldError> {
    let doubled = |index: usize| new.lists.get(..index).is_some_and(|before| before.contains(&new.lists[index]));
    (0..new.lists.len())
        .filter(|index| doubled(*index))
        .map(|index| FieldError::new(format!("/lists/{index}"), "this list is named before; name it once"))
        .collect()
}

#[cfg(test)]
mod tests {
    use dispatch_schemas::{
        api::{campaigns::CampaignContent, limits::Windows, time::Moment},
        ids::{ListId, TemplateId},
        states::Purpose,
    };

    use super::*;

    fn campaign(send_at: Option<i64>, expires_at: Option<i64>, lists: &[i64]) -> NewCampaign {
        NewCampaign {
            name: "n".to_owned(),
            lists: lists.iter().copied().map(ListId).collect(),
            content: CampaignContent::Stored { template: TemplateId(1) },
            purpose: Purpose::Marketing,
            unknown_policy: None,
            account: None,
            limits: Windows::default(),
            send_at: send_at.map(Moment::from_ms),
            expires_at: expires_at.map(Moment::from_ms),
            sending_window: None,
        }
    }

    fn wrong(errors: Vec<FieldError>) -> Vec<String> {
        errors.into_iter().map(|error| error.pointer).collect()
    }

    #[test]
    fn times_lie_ahead_and_in_order() {
        let now = 1_000_000_000;
        let at = |send_at, expires_at| wrong(times(&campaign(send_at, expires_at, &[1]), now));
        assert_eq!(at(None, None), [""; 0]);
        assert_eq!(at(Some(now - 5_000), Some(now + 1)), [""; 0]);
        assert_eq!(at(Some(now - 61_000), None), ["/send_at"]);
        assert_eq!(at(None, Some(now)), ["/expires_at"]);
        assert_eq!(at(Some(now + 10), Some(now + 10)), ["/expires_at"]);
    }

    #[test]
    fn a_list_is_named_once() {
        assert_eq!(wrong(lists(&campaign(None, None, &[1, 2, 1, 2]))), ["/lists/2", "/lists/3"]);
    }
}
