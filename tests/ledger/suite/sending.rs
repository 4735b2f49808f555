//! A campaign under way, as workers and the scheduler see it.

use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use async_trait::async_trait;
use dispatch_engine::ledger::{End, RecipientFilter, UnknownGroup, Verdict};
use dispatch_schemas::{
    api::{
        campaigns::{Campaign, CampaignContent, NewCampaign, RecipientStatus},
        limits::Windows,
        sending_window::SendingWindow,
        templates::{Content, Sender, TemplateSource},
        time::Moment,
    },
    ids::{AttemptId, CampaignId, ListId},
    states::{Channel, DeliveryState, Purpose, UnknownPolicy, Weekday},
};
use dispatch_workers::{
    delivery::{Account, Claim, Claimed, Counts, Outcome, Plan, Record, Timing},
    message::Token,
    providers::{Answer, Class, Code, Contract, Finding, LookUpError, Provider, Question, Request},
    template::Template,
};

use super::{people::crowd, world::World};

/// How long the account's provider remembers a key.
pub(crate) const KEY_SAFE_FOR: Duration = Duration::from_secs(13 * 60);
/// The account all campaigns here are sent through.
pub(crate) const ACCOUNT: &str = "main";

/// A provider that is never sent to: these tests say themselves what it answered.
struct Unused(Contract);

#[async_trait]
impl Provider for Unused {
    fn contract(&self) -> &Contract {
        &self.0
    }

    async fn send(&self, _: &Request<'_>) -> Answer {
        unreachable!("the ledger's tests send nothing")
    }

    async fn look_up(&self, _: &[Question]) -> Result<Vec<Finding>, LookUpError> {
        unreachable!("the ledger's tests look nothing up")
    }
}

fn account(channel: Channel, class: Class) -> Arc<Account> {
    let contract = Contract { kind: "unused", channel, class, recipients_per_request: 1_000 };
    Arc::new(Account::new(ACCOUNT.into(), Arc::new(Unused(contract)), 1))
}

/// A campaign to be made: marketing e-mail to these lists, unless said otherwise.
#[derive(Clone)]
pub(crate) struct Draft {
    pub(crate) lists: Vec<ListId>,
    pub(crate) channel: Channel,
    pub(crate) purpose: Purpose,
    pub(crate) send_at_ms: Option<i64>,
    pub(crate) expires_at_ms: Option<i64>,
    pub(crate) sending_window: Option<SendingWindow>,
}

pub(crate) fn to(lists: &[ListId]) -> Draft {
    Draft {
        lists: lists.to_vec(),
        channel: Channel::Email,
        purpose: Purpose::Marketing,
        send_at_ms: None,
        expires_at_ms: None,
        sending_window: None,
    }
}

impl Draft {
    pub(crate) fn by_sms(self) -> Self {
        Self { channel: Channel::Sms, ..self }
    }

    pub(crate) fn for_service(self) -> Self {
        Self { purpose: Purpose::Service, ..self }
    }

    pub(crate) fn not_before(self, at_ms: i64) -> Self {
        Self { send_at_ms: Some(at_ms), ..self }
    }

    pub(crate) fn not_after(self, at_ms: i64) -> Self {
        Self { expires_at_ms: Some(at_ms), ..self }
    }

    /// Only between two times of any day, in UTC.
    pub(crate) fn between(self, start: &str, end: &str) -> Self {
        let window = SendingWindow {
            start: start.parse().unwrap(),
            end: end.parse().unwrap(),
            days: Weekday::ALL.to_vec(),
            time_zone: "UTC".parse().unwrap(),
        };
        Self { sending_window: Some(window), ..self }
    }

    pub(crate) fn new_campaign(&self) -> NewCampaign {
        NewCampaign {
            name: "spring".to_owned(),
            lists: self.lists.clone(),
            content: CampaignContent::Inline { content: content(self.channel) },
            purpose: self.purpose,
            unknown_policy: Some(UnknownPolicy::Verify),
            account: None,
            limits: Windows::default(),
            send_at: self.send_at_ms.map(Moment::from_ms),
            expires_at: self.expires_at_ms.map(Moment::from_ms),
            sending_window: self.sending_window.clone(),
        }
    }
}

pub(crate) fn content(channel: Channel) -> TemplateSource {
    let content = match channel {
        Channel::Email => Content::Email {
            from: Sender { address: "shop@example.com".to_owned(), name: None },
            reply_to: None,
            subject: "Spring".to_owned(),
            html: None,
            text: Some("It is spring.".to_owned()),
        },
        Channel::Sms => Content::Sms { sender: "Shop".to_owned(), text: "It is spring.".to_owned() },
    };
    TemplateSource { content, defaults: BTreeMap::new() }
}

impl World {
    pub(crate) async fn drafted(&self, draft: &Draft) -> Campaign {
        let (new, content) = (draft.new_campaign(), content(draft.channel));
        self.ledger.create_campaign(self.tenant, &new, &content, ACCOUNT, None).await.unwrap().value
    }

    /// A campaign that is launched, with nobody found yet.
    pub(crate) async fn launched(&self, draft: &Draft) -> Sending<'_> {
        let id = self.drafted(draft).await.id;
        self.ledger.launch(self.tenant, id, None).await.unwrap();
        self.sending(id).await
    }

    /// A campaign with all its recipients found.
    pub(crate) async fn running(&self, draft: &Draft) -> Sending<'_> {
        let sending = self.launched(draft).await;
        sending.expand_all(1_000).await;
        sending
    }

    /// A campaign to `count` people of the crowd, all found.
    pub(crate) async fn running_to_crowd(&self, count: usize) -> Sending<'_> {
        let list = self.list_of("crowd", &crowd(count)).await;
        self.running(&to(&[list])).await
    }

    /// A campaign as workers get to know it.
    pub(crate) async fn sending(&self, id: CampaignId) -> Sending<'_> {
        let brief = self.ledger.brief(id).await.unwrap().unwrap();
        let (message, template) = Template::compile(&brief.content).unwrap();
        let plan = Plan {
            campaign: id,
            tenant: brief.tenant,
            keys: self.keys.clone(),
            channel: brief.channel,
            lane: brief.lane,
            purpose: brief.purpose,
            account: account(brief.channel, Class::ClientId),
            message,
            template,
            scopes: Vec::new(),
            attempts_max: 5,
            expires_at_ms: brief.expires_at_ms,
            sending_window: brief.sending_window.map(Arc::new),
            open: AtomicBool::new(true),
        };
        Sending { world: self, id, plan }
    }
}

/// A campaign under way.
pub(crate) struct Sending<'w> {
    pub(crate) world: &'w World,
    pub(crate) id: CampaignId,
    pub(crate) plan: Plan,
}

impl Sending<'_> {
    /// Through a provider that remembers the key of a whole request, for a while.
    pub(crate) fn with_keys_remembered(mut self) -> Self {
        self.plan.account = account(self.plan.channel, Class::KeyWithTtl { safe_for: KEY_SAFE_FOR });
        self
    }

    pub(crate) async fn expand_all(&self, chunk: u32) {
        while !self.progress().await.expanded {
            self.world.ledger.expand(self.id, chunk, self.world.now_ms()).await.unwrap();
        }
    }

    pub(crate) fn claim_of<'a>(&'a self, seqs: &'a [i64], token: Token) -> Claim<'a> {
        Claim { plan: &self.plan, seqs, token }
    }

    pub(crate) async fn claim(&self, seqs: &[i64]) -> Claimed {
        self.world.ledger.claim(&self.claim_of(seqs, self.world.token())).await.unwrap()
    }

    /// Claims these, all of which must be there to claim; returns the attempt.
    pub(crate) async fn claim_all(&self, seqs: &[i64]) -> AttemptId {
        let claimed = self.claim(seqs).await;
        assert_eq!(numbers(&claimed), seqs);
        claimed.attempt.unwrap()
    }

    pub(crate) async fn claim_again(&self, root: AttemptId) -> Claimed {
        self.claim_again_with_permits(root, 1_000).await
    }

    /// With permits for so many.
    pub(crate) async fn claim_again_with_permits(&self, root: AttemptId, permits: i64) -> Claimed {
        let seqs: Vec<i64> = (0..permits).collect();
        self.world.ledger.claim_again(&self.claim_of(&seqs, self.world.token()), root).await.unwrap()
    }

    pub(crate) async fn record(&self, attempt: AttemptId, outcomes: &[(i64, Outcome)]) {
        let record = Record { plan: &self.plan, attempt, outcomes: outcomes.to_vec(), now_ms: self.world.now_ms() };
        self.world.ledger.record(&record).await.unwrap();
    }

    /// Records the same for each of these.
    pub(crate) async fn record_all(&self, attempt: AttemptId, seqs: &[i64], outcome: &Outcome) {
        let outcomes: Vec<_> = seqs.iter().map(|seq| (*seq, outcome.clone())).collect();
        self.record(attempt, &outcomes).await;
    }

    /// Claims these and leaves them without an answer; returns the attempt.
    pub(crate) async fn lose_all(&self, seqs: &[i64]) -> AttemptId {
        let attempt = self.claim_all(seqs).await;
        self.record_all(attempt, seqs, &unknown(self.world.now_ms())).await;
        attempt
    }

    pub(crate) async fn settle(&self, attempt: AttemptId, verdicts: &[(i64, Verdict)]) -> Vec<i64> {
        self.world.ledger.settle(self.id, attempt, verdicts, self.world.now_ms()).await.unwrap()
    }

    pub(crate) async fn settle_all(&self, attempt: AttemptId, seqs: &[i64], verdict: &Verdict) -> Vec<i64> {
        let verdicts: Vec<_> = seqs.iter().map(|seq| (*seq, verdict.clone())).collect();
        self.settle(attempt, &verdicts).await
    }

    /// How many attempts are given up now.
    pub(crate) async fn reap(&self) -> u64 {
        let timing = Timing::default();
        let now_ms = self.world.now_ms();
        let before_ms = now_ms - i64::try_from(timing.reap_after_ms()).unwrap();
        self.world.ledger.reap(before_ms, now_ms, &timing).await.unwrap()
    }

    /// Ends all that waits, `span` numbers at a time.
    pub(crate) async fn end_waiting(&self, end: End, span: u32) {
        let mut from = Some(0);
        while let Some(at) = from {
            from = self.world.ledger.end_waiting(self.id, end, at, span, self.world.now_ms()).await.unwrap();
            self.states().await;
        }
    }

    /// What is unknown and due now.
    pub(crate) async fn unknown_due(&self) -> Vec<UnknownGroup> {
        self.world.ledger.unknown_due(self.world.now_ms(), 1_000).await.unwrap()
    }

    pub(crate) async fn progress(&self) -> dispatch_schemas::api::campaigns::Progress {
        self.world.ledger.progress(self.world.tenant, self.id).await.unwrap()
    }

    /// How many stand where, without the empty states; every look checks that counts, rows and audience agree.
    pub(crate) async fn states(&self) -> BTreeMap<DeliveryState, u64> {
        self.world.place.counts(self.id).await.assert_add_up();
        let progress = self.progress().await;
        assert_eq!(progress.states.values().sum::<u64>(), progress.audience);
        progress
            .states
            .iter()
            .filter(|(_, count)| **count > 0)
            .map(|(state, count)| (state.parse().unwrap(), *count))
            .collect()
    }

    /// Asserts how many stand where.
    pub(crate) async fn assert_states(&self, expected: &[(DeliveryState, u64)]) {
        assert_eq!(self.states().await, expected.iter().copied().collect());
    }

    pub(crate) async fn recipient(&self, seq: i64) -> RecipientStatus {
        let filter = RecipientFilter { after: Some(seq - 1), limit: 1, state: None };
        let mut page = self.world.ledger.recipients(self.world.tenant, self.id, filter).await.unwrap();
        page.pop().filter(|recipient| recipient.seq == seq).expect("there is such a recipient")
    }

    /// Asserts where one recipient stands, and why.
    pub(crate) async fn assert_stands(&self, seq: i64, state: DeliveryState, detail: &str) {
        let recipient = self.recipient(seq).await;
        assert_eq!((recipient.state, recipient.detail.as_deref().unwrap_or("")), (state, detail), "recipient {seq}");
        self.states().await;
    }
}

/// The numbers of what was claimed.
pub(crate) fn numbers(claimed: &Claimed) -> Vec<i64> {
    claimed.deliveries.iter().map(|delivery| delivery.seq).collect()
}

pub(crate) fn accepted() -> Outcome {
    Outcome::Accepted { provider_id: None }
}

pub(crate) fn failed() -> Outcome {
    Outcome::Failed(Code::known("bad_address"))
}

/// Nothing could be made to send.
pub(crate) fn unsendable() -> Outcome {
    Outcome::Unsendable(Code::about("template_variable_missing", "plan"))
}

pub(crate) fn unknown(look_at_ms: i64) -> Outcome {
    Outcome::Unknown { code: Code::known("timeout"), look_at_ms }
}

/// Refused for now, for something about the message.
pub(crate) fn deferred(at_ms: i64) -> Outcome {
    Outcome::Retry { at_ms, code: Code::known("busy"), counts: Counts::AsAttempt, alone: false }
}

/// Refused for now, for our speed.
pub(crate) fn throttled(at_ms: i64) -> Outcome {
    Outcome::Retry { at_ms, code: Code::known("throttled"), counts: Counts::Not, alone: false }
}
