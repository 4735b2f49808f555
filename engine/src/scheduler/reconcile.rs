//! What becomes of a delivery whose outcome is unknown.
//!
//! By the provider's class: a key it remembers is asked again (A), a log that knows our id is looked at (B), and where
//! there is neither, evidence is waited for and then the campaign's policy decides (C, D). "Absent" is believed only
//! once the outcome has settled.

use dispatch_schemas::states::{CampaignState, UnknownPolicy};
use dispatch_workers::{
    delivery::Account,
    providers::{Class, Finding, Question},
    sealing::SendKeys,
};

use super::{SWEEP_CHUNK, Scheduler};
use crate::ledger::{CampaignBrief, Due, LedgerError, UnknownGroup, Verdict};

/// How long a provider of class B keeps its log, less a margin: after this its "absent" says nothing. Infobip: 48 h.
const LOG_KEPT_MS: i64 = 40 * 3_600_000;
/// When a log that did not answer is asked again.
const ASK_LATER_MS: i64 = 30_000;
/// When an unknown delivery of a campaign that is paused is looked at again.
const PAUSED_LOOK_MS: i64 = 5_000;

/// Looks at all unknown deliveries that are due. Returns those to be sent again.
pub(super) async fn reconcile(
    scheduler: &Scheduler,
    campaigns: &[CampaignBrief],
    now_ms: i64,
) -> Result<Vec<Due>, LedgerError> {
    let mut due = Vec::new();
    for group in scheduler.ledger.unknown_due(now_ms, SWEEP_CHUNK).await? {
        let Some(brief) = campaigns.iter().find(|c| c.id == group.campaign) else { continue };
        let Some(account) = scheduler.plans.account(&brief.account) else { continue };
        let verdicts = verdicts(scheduler, brief, account, &group, now_ms).await;
        let seqs = scheduler.ledger.settle(group.campaign, group.attempt, &verdicts, now_ms).await?;
        if !seqs.is_empty() {
            due.push(Due { campaign: group.campaign, seqs });
        }
    }
    Ok(due)
}

async fn verdicts(
    scheduler: &Scheduler,
    brief: &CampaignBrief,
    account: &Account,
    group: &UnknownGroup,
    now_ms: i64,
) -> Vec<(i64, Verdict)> {
    let settled_at_ms = group.claimed_at_ms.saturating_add(ms(scheduler.timing.settle_ms()));
    match account.contract().class {
        Class::KeyWithTtl { safe_for } => {
            let safe_until_ms = group.root_claimed_at_ms.saturating_add(ms(safe_for.as_millis()));
            match brief.state {
                CampaignState::Running if now_ms < safe_until_ms => same(group, &Verdict::AskAgain),
                CampaignState::Paused if now_ms < safe_until_ms => {
                    same(group, &Verdict::Later(now_ms + PAUSED_LOOK_MS))
                }
                _ => same(group, &by_policy(scheduler, brief, group, now_ms)),
            }
        }
        Class::ClientId if now_ms < settled_at_ms => same(group, &Verdict::Later(settled_at_ms)),
        Class::ClientId if now_ms < group.claimed_at_ms.saturating_add(LOG_KEPT_MS) => {
            looked_up(scheduler, brief, account, group, now_ms).await
        }
        Class::ClientId | Class::EchoOnly | Class::Nothing => same(group, &by_policy(scheduler, brief, group, now_ms)),
    }
}

/// Class B: what the provider's log says.
async fn looked_up(
    scheduler: &Scheduler,
    brief: &CampaignBrief,
    account: &Account,
    group: &UnknownGroup,
    now_ms: i64,
) -> Vec<(i64, Verdict)> {
    let questions: Vec<Question> = group
        .deliveries
        .iter()
        .map(|delivery| Question {
            key: scheduler.send_keys.make(group.campaign, delivery.seq, delivery.key_epoch),
            batch_key: SendKeys::batch_key(group.root_token),
            token: group.token,
            claimed_at_ms: group.claimed_at_ms,
        })
        .collect();
    let findings = match account.provider.look_up(&questions).await {
        Ok(findings) => findings,
        Err(error) => {
            tracing::warn!(account = %account.name, %error, "unknown outcomes wait for the provider's log");
            return same(group, &Verdict::Later(now_ms + ASK_LATER_MS));
        }
    };
    group
        .deliveries
        .iter()
        .zip(findings)
        .map(|(delivery, finding)| {
            let verdict = match finding {
                Finding::Accepted { provider_id } => Verdict::Accepted { evidence: "log", provider_id },
                Finding::Refused(code) => Verdict::Refused(code.as_str().to_owned()),
                Finding::Absent => Verdict::Absent,
                Finding::CannotTell => by_policy(scheduler, brief, group, now_ms),
            };
            (delivery.seq, verdict)
        })
        .collect()
}

/// Nobody can be asked: what the campaign wants done.
fn by_policy(scheduler: &Scheduler, brief: &CampaignBrief, group: &UnknownGroup, now_ms: i64) -> Verdict {
    let settled_at_ms = group.claimed_at_ms.saturating_add(ms(scheduler.timing.settle_ms()));
    let evidence_ends_ms = group.claimed_at_ms.saturating_add(ms(scheduler.timing.evidence_window_ms));
    match (brief.unknown_policy, brief.state) {
        (UnknownPolicy::AtLeastOnce, CampaignState::Running) if now_ms >= settled_at_ms => Verdict::Resend,
        (UnknownPolicy::AtLeastOnce, CampaignState::Running) => Verdict::Later(settled_at_ms),
        _ if now_ms >= evidence_ends_ms => Verdict::Final,
        (UnknownPolicy::AtLeastOnce, CampaignState::Paused) => Verdict::Later(now_ms + PAUSED_LOOK_MS),
        _ => Verdict::Later(evidence_ends_ms),
    }
}

fn same(group: &UnknownGroup, verdict: &Verdict) -> Vec<(i64, Verdict)> {
    group.deliveries.iter().map(|delivery| (delivery.seq, verdict.clone())).collect()
}

fn ms<T: TryInto<i64>>(span: T) -> i64 {
    span.try_into().unwrap_or(i64::MAX / 4)
}
