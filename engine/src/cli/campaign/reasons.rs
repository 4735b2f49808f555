//! Why recipients failed, in words.

use dispatch_schemas::{api::campaigns::Progress, states::StopReason};
use reqwest::StatusCode;

/// Codes and what they say, where a number of the provider is not all there is to them.
const KNOWN: &[(&str, &str)] = &[
    ("template_variable_missing", "the template names a variable they lack and that has no default"),
    ("template_not_rendered", "the template cannot be filled with their values, or comes out too large"),
    ("sealed_value_unreadable", "what is stored of them cannot be opened with this master key"),
    ("request_too_large", "the message is larger than the provider takes"),
    ("smtp_too_large", "the message is larger than the relay takes"),
    ("smtp_utf8_unsupported", "the relay does not take letters outside a-z in addresses"),
];

/// The reasons of stops or of failures, the most frequent first.
pub(super) fn stops(progress: &Progress) -> Vec<(&str, u64)> {
    sorted(progress, |reason| reason.parse::<StopReason>().is_ok())
}

/// The codes of failures, the most frequent first.
pub(super) fn failures(progress: &Progress) -> Vec<(&str, u64)> {
    sorted(progress, |reason| reason.parse::<StopReason>().is_err())
}

fn sorted(progress: &Progress, wanted: impl Fn(&str) -> bool) -> Vec<(&str, u64)> {
    let of_kind = progress.reasons.iter().filter(|(reason, count)| **count > 0 && wanted(reason));
    let mut reasons: Vec<(&str, u64)> = of_kind.map(|(reason, count)| (reason.as_str(), *count)).collect();
    reasons.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    reasons
}

/// What a code says, when more can be said than itself.
pub(super) fn explained(code: &str) -> Option<String> {
    if let Some((_, text)) = KNOWN.iter().find(|(known, _)| *known == code) {
        return Some((*text).to_owned());
    }
    let (kind, number) = code.rsplit_once('_')?;
    let number: u16 = number.parse().ok()?;
    match kind {
        "http" => {
            let name = StatusCode::from_u16(number).ok().and_then(|status| status.canonical_reason());
            let name = name.map_or_else(String::new, |name| format!(" ({name})"));
            Some(match number {
                400 | 422 => format!(
                    "the provider refused the message with HTTP {number}{name}: it does not like the content, the sender \
                     or this recipient; its own log says which"
                ),
                _ => format!("the provider refused with HTTP {number}{name}; its own log says more"),
            })
        }
        "smtp" => Some(format!("the relay refused with SMTP {number}; its own log says more")),
        "infobip" => {
            Some(format!("Infobip's status {number}; its page `Response status and error codes` says what that is"))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use dispatch_schemas::{ids::CampaignId, states::CampaignState};

    use super::*;

    #[test]
    fn failures_are_told_from_stops_and_the_most_frequent_comes_first() {
        let reasons = [("suppressed", 3), ("http_400", 2), ("smtp_550", 9), ("erased", 5), ("infobip_7", 0)];
        let progress = Progress {
            opens_at: None,
            id: CampaignId(1),
            state: CampaignState::Completed,
            pause_reason: None,
            audience: 19,
            expanded: true,
            states: Default::default(),
            reasons: reasons.map(|(reason, count)| (reason.to_owned(), count)).into(),
            reported: Default::default(),
            stall: None,
        };
        assert_eq!(failures(&progress), [("smtp_550", 9), ("http_400", 2)]);
        assert_eq!(stops(&progress), [("erased", 5), ("suppressed", 3)]);
    }

    #[test]
    fn a_bare_number_is_put_into_words() {
        assert!(explained("http_400").is_some_and(|text| text.contains("Bad Request")));
        assert!(explained("smtp_550").is_some_and(|text| text.contains("SMTP 550")));
        assert!(explained("template_variable_missing").is_some_and(|text| text.contains("default")));
        assert_eq!(explained("forbidden"), None);
        assert_eq!(explained("http_99999"), None);
    }
}
