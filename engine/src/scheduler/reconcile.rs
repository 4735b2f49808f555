//! What becomes of a delivery whose outcome is unknown.
//!
//! By the provider's class: a key it remembers is asked again, and where that tells nothing any more, its log (A); a log
//! that knows our id is looked at (B); and where there is neither, evidence is waited for and then the campaign's policy
//! decides (C, D). "Absent" is believed only once the outcome has settled, and of class A's log never, for nobody says how
//! late it may be. All times count from the first use of the delivery's key.
//!
//! Works beside the scheduler, because a provider's log may take its time.

use std::{sync::Arc, time::Duration};

use dispatch_schemas::states::{CampaignState, UnknownPolicy};
use dispatch_workers::{
    abort::AbortPoint,
    clock::Clock,
    delivery::{Account, Timing},
    providers::{Class, Finding, Question},
    sealing::SendKeys,
};
use futures_util::future::join_all;

use super::{Desk, share};
use crate::{
    ledger::{CampaignBrief, Ledger, LedgerError, UnknownDelivery, UnknownGroup, Verdict},
    plans::PlanBook,
    queue::{Batch, Queue},
};

/// How often it looks.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// Unanswered requests looked at in one round.
const GROUPS_MAX: u32 = 500;
/// Requests to the log of one account in one round: one that hangs keeps the others waiting no longer than for so many.
const LOOK_UPS_MAX: usize = 4;
/// The shortest time between two requests to the log of an account. Infobip allows 120 a minute; a tenth is left to
/// whoever else asks.
const LOOK_UP_EVERY: Duration = Duration::from_millis(555);
/// How long a provider of class B keeps its log, less a margin: after this its "absent" says nothing. Infobip: 48 h.
const LOG_KEPT_MS: i64 = 40 * 3_600_000;
/// When a log that did not answer is asked again.
const ASK_LATER_MS: i64 = 30_000;
/// Keys of a delivery that are asked for where its claims were forgotten: as many as it may have got by refusals in the
/// time that nobody remembers.
const FORGOTTEN_KEYS: u8 = 5;
/// When an unknown delivery is looked at again whose campaign is paused or held, or whose account is not there.
const HELD_LOOK_MS: i64 = 5_000;

/// Settles unknown outcomes.
pub struct Reconciler {
    /// The scheduler it works beside: it looks after its share of the accounts, so that each log is asked by one.
    pub scheduler: i64,
    /// Where it learns which those are.
    pub desk: Arc<Desk>,
    /// The ledger.
    pub ledger: Arc<dyn Ledger>,
    /// Where what is to be sent again goes.
    pub queue: Arc<dyn Queue>,
    /// The accounts.
    pub plans: Arc<PlanBook>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// The protocol's timers.
    pub timing: Timing,
    /// Makes the keys to ask for.
    pub send_keys: Arc<SendKeys>,
}

impl std::fmt::Debug for Reconciler {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Reconciler")
    }
}

impl Reconciler {
    /// Works until `stop` completes.
    pub async fn run(self, stop: impl Future<Output = ()>) {
        let mut stop = std::pin::pin!(stop);
        loop {
            tokio::select! {
                biased;
                () = &mut stop => return,
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
            if let Err(error) = self.round().await {
                tracing::warn!(%error, "unknown outcomes could not be settled; trying again");
            }
        }
    }

    async fn round(&self) -> Result<(), LedgerError> {
        let living = self.desk.living();
        let mut campaigns = self.ledger.unfinished().await?;
        campaigns.retain(|campaign| share::is_my_account(&campaign.account, self.scheduler, &living));
        if campaigns.iter().all(|c| c.unknown == 0) {
            return Ok(());
        }
        if self.ledger.epoch().await?.is_held() {
            return Ok(());
        }
        let groups = self.ledger.unknown_due(self.clock.now_ms(), GROUPS_MAX).await?;
        // Some that are due were not seen.
        let crowded = groups.len() >= GROUPS_MAX as usize;
        let mut by_account: Vec<(&str, Vec<(&CampaignBrief, &UnknownGroup)>)> = Vec::new();
        for group in &groups {
            let Some(brief) = campaigns.iter().find(|c| c.id == group.campaign) else { continue };
            match by_account.iter_mut().find(|(account, _)| *account == brief.account) {
                Some((_, of_account)) => of_account.push((brief, group)),
                None => by_account.push((&brief.account, vec![(brief, group)])),
            }
        }
        let rounds = by_account.into_iter().map(|(account, groups)| self.settle_account(account, groups, crowded));
        join_all(rounds).await.into_iter().collect()
    }

    async fn settle_account(
        &self,
        account: &str,
        groups: Vec<(&CampaignBrief, &UnknownGroup)>,
        crowded: bool,
    ) -> Result<(), LedgerError> {
        let account = self.plans.account(account);
        let now_ms = self.clock.now_ms();
        let mut asked = Vec::new();
        for (brief, group) in groups {
            let verdicts = match account {
                None => each(group, |_| Verdict::Later(now_ms + HELD_LOOK_MS)),
                Some(account) if self.must_look_up(brief, account, group, now_ms) => {
                    asked.push((brief, group));
                    continue;
                }
                Some(account) => each(group, |delivery| self.verdict(brief, account, group, delivery, now_ms)),
            };
            self.settle(brief, group, &verdicts).await?;
        }
        let Some(account) = account else { return Ok(()) };
        let mut room = LOOK_UPS_MAX * account.provider.questions_per_request();
        let fits = asked.iter().take_while(|(_, group)| {
            let had_room = room > 0;
            room = room.saturating_sub(questions_about(account, group));
            had_room
        });
        let fits = fits.count();
        let surplus = asked.split_off(fits);
        self.look_up(account, &asked).await?;
        if crowded {
            // They make room for others that are due and were not seen behind them.
            for (brief, group) in surplus {
                let verdicts = each(group, |_| Verdict::Later(now_ms + HELD_LOOK_MS));
                self.settle(brief, group, &verdicts).await?;
            }
        }
        Ok(())
    }

    async fn settle(
        &self,
        brief: &CampaignBrief,
        group: &UnknownGroup,
        verdicts: &[(i64, Verdict)],
    ) -> Result<(), LedgerError> {
        let now_ms = self.clock.now_ms();
        AbortPoint::BeforeSettle.reached();
        let seqs = self.ledger.settle(group.campaign, group.attempt, verdicts, now_ms).await?;
        AbortPoint::AfterSettle.reached();
        // What is held waits in the ledger until it goes on.
        if !seqs.is_empty() && brief.held(now_ms).is_none() {
            self.queue.publish(Batch { campaign: brief.id, channel: brief.channel, lane: brief.lane, seqs });
        }
        Ok(())
    }

    fn must_look_up(&self, brief: &CampaignBrief, account: &Account, group: &UnknownGroup, now_ms: i64) -> bool {
        match account.contract().class {
            Class::ClientId => {
                let first = group.deliveries.iter().map(|delivery| delivery.first_sent_at_ms).min().unwrap_or(now_ms);
                now_ms >= self.settled_at_ms(group) && now_ms < first.saturating_add(LOG_KEPT_MS)
            }
            // The key of its request was forgotten with it.
            Class::KeyWithTtl { .. } if group.is_forgotten => false,
            Class::KeyWithTtl { safe_for } => {
                brief.state == CampaignState::Cancelled
                    || group.deliveries.iter().any(|delivery| !may_be_asked_again(delivery, safe_for, now_ms))
            }
            Class::EchoOnly | Class::Nothing => false,
        }
    }

    fn settled_at_ms(&self, group: &UnknownGroup) -> i64 {
        group.claimed_at_ms.saturating_add(ms(self.timing.settle_ms()))
    }

    /// What to do with a delivery about which nobody is asked now.
    fn verdict(
        &self,
        brief: &CampaignBrief,
        account: &Account,
        group: &UnknownGroup,
        delivery: &UnknownDelivery,
        now_ms: i64,
    ) -> Verdict {
        match account.contract().class {
            // The key of its request was forgotten with it.
            Class::KeyWithTtl { .. } if group.is_forgotten => self.by_policy(brief, group, delivery, now_ms),
            Class::KeyWithTtl { .. } => match brief.state {
                // The key may be forgotten before it goes on; then its log is asked.
                CampaignState::Running if brief.held(now_ms).is_none() => Verdict::AskAgain,
                CampaignState::Running | CampaignState::Paused => Verdict::Later(now_ms + HELD_LOOK_MS),
                _ => self.by_policy(brief, group, delivery, now_ms),
            },
            Class::ClientId if now_ms < self.settled_at_ms(group) => Verdict::Later(self.settled_at_ms(group)),
            Class::ClientId => with_same_key(self.by_policy(brief, group, delivery, now_ms)),
            Class::EchoOnly | Class::Nothing => self.by_policy(brief, group, delivery, now_ms),
        }
    }

    /// What the provider's log says. Each request asks as many questions as the log takes, whichever requests and
    /// campaigns they are about.
    async fn look_up(&self, account: &Account, groups: &[(&CampaignBrief, &UnknownGroup)]) -> Result<(), LedgerError> {
        let questions: Vec<Question> = groups.iter().flat_map(|(_, group)| self.questions(account, group)).collect();
        let mut findings = Vec::with_capacity(questions.len());
        for asked in questions.chunks(account.provider.questions_per_request()) {
            match account.provider.look_up(asked).await {
                Ok(found) => {
                    let mut found = found.into_iter();
                    findings.extend(asked.iter().map(|_| Some(found.next().unwrap_or(Finding::CannotTell))));
                }
                Err(error) => {
                    tracing::warn!(account = %account.name, %error, "unknown outcomes wait for the provider's log");
                    findings.extend(asked.iter().map(|_| None));
                }
            }
            tokio::time::sleep(LOOK_UP_EVERY).await;
        }
        let now_ms = self.clock.now_ms();
        let mut findings = findings.as_slice();
        for (brief, group) in groups {
            let of_group;
            (of_group, findings) = findings.split_at(questions_about(account, group).min(findings.len()));
            let mut of_each = of_group.chunks(usize::from(keys_of(group))).cycle();
            let verdicts = each(group, |delivery| {
                let found = of_each.next().unwrap_or_default();
                let finding = found.iter().cloned().collect::<Option<Vec<Finding>>>().map(telling);
                match (account.contract().class, finding) {
                    (Class::KeyWithTtl { safe_for }, finding) => {
                        let finding = finding.unwrap_or(Finding::CannotTell);
                        self.by_log_of_requests(brief, group, delivery, (finding, safe_for), now_ms)
                    }
                    (_, Some(finding)) => self.by_log(brief, group, delivery, finding, now_ms),
                    (_, None) => Verdict::Later(now_ms + ASK_LATER_MS),
                }
            });
            self.settle(brief, group, &verdicts).await?;
        }
        Ok(())
    }

    /// Class A is asked about the whole request, B about each delivery under each of its keys.
    fn questions(&self, account: &Account, group: &UnknownGroup) -> impl Iterator<Item = Question> {
        let keys = |delivery: &UnknownDelivery| {
            let (seq, epoch) = (delivery.seq, delivery.key_epoch);
            (0..keys_of(group)).map(move |nth| (seq, epoch.saturating_add(nth)))
        };
        let all = group.deliveries.iter().flat_map(keys).map(|(seq, epoch)| Question {
            key: self.send_keys.make(group.campaign, seq, epoch),
            batch_key: SendKeys::batch_key(group.root_token),
            token: group.token,
            claimed_at_ms: group.claimed_at_ms,
        });
        all.take(questions_about(account, group))
    }

    /// Class A, where the key can't be asked with any more. Its log proves what it shows and nothing else: then the
    /// policy decides, once the key is forgotten.
    fn by_log_of_requests(
        &self,
        brief: &CampaignBrief,
        group: &UnknownGroup,
        delivery: &UnknownDelivery,
        (finding, safe_for): (Finding, Duration),
        now_ms: i64,
    ) -> Verdict {
        if let Finding::Accepted { provider_id } = finding {
            return Verdict::Accepted { evidence: "log", provider_id };
        }
        // Later each time, because what a log has not shown for long it will hardly show soon.
        let again_ms = now_ms + ASK_LATER_MS.max(now_ms - group.claimed_at_ms);
        let safe_until_ms = safe_until_ms(delivery, safe_for);
        if now_ms < safe_until_ms && brief.state != CampaignState::Cancelled {
            return Verdict::Later(again_ms.min(safe_until_ms));
        }
        match self.by_policy(brief, group, delivery, now_ms) {
            Verdict::Later(at_ms) => Verdict::Later(again_ms.min(at_ms)),
            other => other,
        }
    }

    fn by_log(
        &self,
        brief: &CampaignBrief,
        group: &UnknownGroup,
        delivery: &UnknownDelivery,
        finding: Finding,
        now_ms: i64,
    ) -> Verdict {
        match finding {
            Finding::Accepted { provider_id } => Verdict::Accepted { evidence: "log", provider_id },
            Finding::Refused(code) => Verdict::Refused(code.as_str().to_owned()),
            // Its log never had it, and it was tried often enough.
            Finding::Absent if delivery.attempts >= u32::from(self.plans.attempts_max()) => {
                Verdict::Refused("attempts_used_up".to_owned())
            }
            Finding::Absent => Verdict::Absent,
            Finding::CannotTell => with_same_key(self.by_policy(brief, group, delivery, now_ms)),
        }
    }

    /// Nobody can be asked: what the campaign wants done. Sending again has an end too.
    fn by_policy(
        &self,
        brief: &CampaignBrief,
        group: &UnknownGroup,
        delivery: &UnknownDelivery,
        now_ms: i64,
    ) -> Verdict {
        let evidence_ends_ms = delivery.first_sent_at_ms.saturating_add(ms(self.timing.evidence_window_ms));
        let may_resend = brief.unknown_policy == UnknownPolicy::AtLeastOnce
            && delivery.attempts < u32::from(self.plans.attempts_max());
        match brief.state {
            CampaignState::Running if may_resend && now_ms >= self.settled_at_ms(group) => Verdict::Resend,
            CampaignState::Running if may_resend => Verdict::Later(self.settled_at_ms(group)),
            _ if now_ms >= evidence_ends_ms => Verdict::Final,
            CampaignState::Paused if may_resend => Verdict::Later(now_ms + HELD_LOOK_MS),
            _ => Verdict::Later(evidence_ends_ms),
        }
    }
}

fn safe_until_ms(delivery: &UnknownDelivery, safe_for: Duration) -> i64 {
    delivery.first_sent_at_ms.saturating_add(ms(safe_for.as_millis()))
}

/// Class A: whether asking again with the key may tell anything, and can do no harm.
fn may_be_asked_again(delivery: &UnknownDelivery, safe_for: Duration, now_ms: i64) -> bool {
    !delivery.is_duplicate && now_ms < safe_until_ms(delivery, safe_for)
}

/// How many questions an account's log is asked about a request.
fn questions_about(account: &Account, group: &UnknownGroup) -> usize {
    match account.contract().class {
        Class::KeyWithTtl { .. } => 1,
        Class::ClientId | Class::EchoOnly | Class::Nothing => group.deliveries.len() * usize::from(keys_of(group)),
    }
}

/// Under how many keys each delivery may be in the log. Refusals that were forgotten too may have given it others.
fn keys_of(group: &UnknownGroup) -> u8 {
    if group.is_forgotten { FORGOTTEN_KEYS } else { 1 }
}

/// Class B: an id that the provider took once is not given up for another.
fn with_same_key(verdict: Verdict) -> Verdict {
    match verdict {
        Verdict::Resend => Verdict::ResendWithSameKey,
        other => other,
    }
}

/// What findings about one delivery under several keys say together: one acceptance is enough, and it was never there only
/// if it was under none of them.
fn telling(findings: Vec<Finding>) -> Finding {
    let weight = |finding: &Finding| match finding {
        Finding::Accepted { .. } => 3,
        Finding::CannotTell => 2,
        Finding::Refused(_) => 1,
        Finding::Absent => 0,
    };
    findings.into_iter().max_by_key(weight).unwrap_or(Finding::CannotTell)
}

fn each(group: &UnknownGroup, mut verdict: impl FnMut(&UnknownDelivery) -> Verdict) -> Vec<(i64, Verdict)> {
    group.deliveries.iter().map(|delivery| (delivery.seq, verdict(delivery))).collect()
}

fn ms<T: TryInto<i64>>(span: T) -> i64 {
    span.try_into().unwrap_or(i64::MAX / 4)
}
