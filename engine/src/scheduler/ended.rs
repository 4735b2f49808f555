//! What is said of a campaign when it has ended.

use dispatch_schemas::{
    api::campaigns::Progress,
    states::{DeliveryState, StopReason},
};

/// From this share of failures among those that were written to, an end is a warning: single bad addresses are
/// everyday, a tenth of a campaign is not.
const FAILED_PERCENT_LOUD: u64 = 10;

/// Logs the end of a campaign with its counts. Codes are the program's own words and hold nothing of a person.
pub(super) fn log(progress: &Progress) {
    let of = |state: DeliveryState| progress.states.get(state.as_str()).copied().unwrap_or_default();
    let (accepted, failed) = (of(DeliveryState::Accepted), of(DeliveryState::Failed));
    let (stopped, expired, unknown) =
        (of(DeliveryState::Stopped), of(DeliveryState::Expired), of(DeliveryState::UnknownFinal));
    let (campaign, recipients) = (progress.id, progress.audience);
    if is_loud(progress) {
        let code = main_code(progress).unwrap_or("none");
        tracing::warn!(
            %campaign, recipients, accepted, failed, stopped, expired, unknown, code,
            "campaign ended, and many of its recipients were not reached; `dispatch campaign status` says why"
        );
    } else {
        tracing::info!(%campaign, recipients, accepted, failed, stopped, expired, unknown, "campaign ended");
    }
}

/// Whether many failed. Stopped ones are no failure: somebody wanted that.
fn is_loud(progress: &Progress) -> bool {
    let of = |state: DeliveryState| progress.states.get(state.as_str()).copied().unwrap_or_default();
    let lost = of(DeliveryState::Failed) + of(DeliveryState::UnknownFinal) + of(DeliveryState::Expired);
    lost > 0 && lost * 100 >= (lost + of(DeliveryState::Accepted)) * FAILED_PERCENT_LOUD
}

/// The code most of the failed ones failed with.
fn main_code(progress: &Progress) -> Option<&str> {
    let failures = progress.reasons.iter().filter(|(reason, _)| reason.parse::<StopReason>().is_err());
    failures.max_by_key(|(_, count)| **count).map(|(code, _)| code.as_str())
}

#[cfg(test)]
mod tests {
    use dispatch_schemas::{ids::CampaignId, states::CampaignState};

    use super::*;

    fn ended(states: &[(DeliveryState, u64)], reasons: &[(&str, u64)]) -> Progress {
        Progress {
            opens_at: None,
            id: CampaignId(1),
            state: CampaignState::Completed,
            pause_reason: None,
            audience: states.iter().map(|(_, count)| count).sum(),
            expanded: true,
            states: states.iter().map(|(state, count)| (state.to_string(), *count)).collect(),
            reasons: reasons.iter().map(|(reason, count)| ((*reason).to_owned(), *count)).collect(),
            reported: Default::default(),
            stall: None,
        }
    }

    #[test]
    fn an_end_is_loud_when_a_tenth_of_those_written_to_failed() {
        use DeliveryState::{Accepted, Expired, Failed, Stopped, UnknownFinal};
        for (states, loud) in [
            (&[(Accepted, 100)][..], false),
            (&[], false),
            (&[(Stopped, 50)], false),
            (&[(Accepted, 91), (Failed, 9)], false),
            (&[(Accepted, 90), (Failed, 10)], true),
            (&[(Accepted, 9), (Failed, 1), (Stopped, 1_000)], true),
            (&[(Failed, 3)], true),
            (&[(Accepted, 18), (UnknownFinal, 1), (Expired, 1)], true),
        ] {
            assert_eq!(is_loud(&ended(states, &[])), loud, "{states:?}");
        }
    }

    #[test]
    fn the_code_it_names_is_the_most_frequent_one_of_a_failure() {
        let progress = ended(&[], &[("suppressed", 90), ("http_400", 2), ("smtp_550", 5)]);
        assert_eq!(main_code(&progress), Some("smtp_550"));
    }
}
