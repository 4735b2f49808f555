//! Four campaigns, one for each class of provider, and twenty deaths.

use std::time::Duration;

use dispatch_engine::engine::open_ledger;
use dispatch_schemas::{
    ids::CampaignId,
    states::{DeliveryState, UnknownPolicy},
};
use dispatch_tests::support::{
    checker::{self, Books, Report},
    engine_process::EngineProcess,
    look::{self, CampaignLook},
    people::People,
    platform::Platform,
    seed::Seed,
    stage::{Account, RUNS, Stage},
    wait,
};

/// What goes wrong while engines die. A web page in place of an answer, and a request to wait, silence an account for
/// a while, so they are rare where requests are many.
const FAULTS: &str = "accept_then_drop=0.02, accept_slow=0.05, throttle=0.02, unavailable=0.02, fail_before=0.02, \
    fail_after_accept=0.02, garbage=0.01, drop_before=0.02, half_answer=0.02, \
    sendgrid.throttle=0.01, sendgrid.garbage=0.003, smtp.accept_slow=0.02, smtp.throttle=0.002, smtp.drop_before=0.005";
/// What goes wrong afterwards: all the same, but for the page, which would silence an account for half a minute.
const FAULTS_AFTERWARDS: &str = "accept_then_drop=0.02, throttle=0.01, unavailable=0.01, fail_before=0.02, \
    fail_after_accept=0.02, drop_before=0.02, half_answer=0.02, smtp.throttle=0.001, smtp.drop_before=0.002";

const TENANT: &str = "shop";
const KILLS: usize = 22;
/// An engine lives this long, milliseconds.
const LIFE_MS: std::ops::Range<u64> = 150..1_300;
/// One life in this many ends before it is known to have begun.
const STILLBORN_EVERY: u64 = 6;
const SETTLED_WITHIN: Duration = Duration::from_secs(180);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_4_000_recipients_none_is_lost_or_doubled_by_kills() {
    let run = Run::new(1_000, 55);
    eprintln!("{}", run.seed.how_to_repeat());
    eprintln!("{}", run.play().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "long: a minute or more of kills"]
async fn of_20_000_recipients_none_is_lost_or_doubled_by_kills() {
    let run = Run::new(5_000, 270);
    eprintln!("{}", run.seed.how_to_repeat());
    eprintln!("{}", run.play().await);
}

/// A run: so many recipients for each of four providers.
struct Run {
    each: usize,
    accounts: [Account; 4],
    stage: Stage,
    seed: Seed,
}

/// What the killing came to.
#[derive(Debug, Default)]
struct Deaths {
    kills: usize,
    /// Deliveries of providers that cannot be asked, open when their engine died.
    left_open: u64,
}

impl Run {
    fn new(each: usize, per_second: u32) -> Self {
        let seed = Seed::of_this_run();
        let batches = |kind, batch| Account { batch, per_minute: Some(per_second * 60), ..Account::new(kind) };
        let singles = Account { per_second: Some(per_second), ..Account::new("smtp") };
        let accounts = [batches("brevo", 25), batches("infobip", 20), batches("sendgrid", 10), singles];
        let stage = Stage::new(&accounts, FAULTS, seed.number());
        Self { each, accounts, stage, seed }
    }

    /// Plays it to its end, judges, and says what it came to.
    async fn play(mut self) -> String {
        let campaigns = self.launch().await;
        let deaths = self.kill_and_look().await;
        self.stage.sandbox.set_faults(FAULTS_AFTERWARDS).await;
        self.settle().await;
        let report = self.compare(&campaigns).await;
        let recovered = look::recovered(&self.stage.ledger_file()).await.values().sum();
        let summary = summary(&deaths, &report, recovered);
        self.judge(&deaths, &report, recovered, &summary);
        summary
    }

    /// Imports and launches before any engine runs.
    async fn launch(&self) -> Vec<CampaignId> {
        let opened = open_ledger(&self.stage.settings()).await.expect("the ledger opens");
        let platform = Platform::new(&opened, TENANT).await;
        let mut campaigns = Vec::new();
        for (account, policy) in self.accounts.iter().zip([
            UnknownPolicy::Verify,
            UnknownPolicy::Verify,
            UnknownPolicy::AtMostOnce,
            UnknownPolicy::Verify,
        ]) {
            let people = match account.kind {
                "infobip" => People::by_sms(account.kind, self.each),
                kind => People::by_email(kind, self.each),
            };
            let campaign = platform.campaign_to(people, account.kind, |new| new.unknown_policy = Some(policy)).await;
            platform.launch(campaign).await;
            campaigns.push(campaign);
        }
        opened.ledger.close().await;
        campaigns
    }

    async fn kill_and_look(&mut self) -> Deaths {
        let mut deaths = Deaths::default();
        while deaths.kills < KILLS {
            let engine = EngineProcess::start(&self.stage.settings_file, None);
            if self.seed.between(0, STILLBORN_EVERY) > 0 {
                engine.ready().await;
            }
            tokio::time::sleep(Duration::from_millis(self.seed.between(LIFE_MS.start, LIFE_MS.end))).await;
            self.look().await;
            engine.kill();
            let dead = self.look().await;
            assert!(dead.iter().any(|campaign| !campaign.ended), "all was over after {} kills", deaths.kills);
            deaths.kills += 1;
            let undecidable = dead.iter().filter(|campaign| matches!(campaign.account.as_str(), "sendgrid" | "smtp"));
            deaths.left_open += undecidable
                .map(|campaign| u64::try_from(campaign.count(DeliveryState::Claimed)).unwrap_or(0))
                .sum::<u64>();
        }
        deaths
    }

    /// Every recipient is in one state, now as ever.
    async fn look(&self) -> Vec<CampaignLook> {
        let campaigns = look::campaigns(&self.stage.ledger_file()).await;
        assert_eq!(campaigns.len(), self.accounts.len());
        for campaign in &campaigns {
            campaign.check_sums();
            assert!([0, self.each as i64].contains(&campaign.audience), "{campaign:?}");
        }
        campaigns
    }

    async fn settle(&self) {
        let engine = EngineProcess::start(&self.stage.settings_file, None);
        engine.ready().await;
        wait::until("every recipient is final", SETTLED_WITHIN, async || {
            self.look().await.iter().all(|campaign| campaign.ended).then_some(())
        })
        .await;
        assert!(engine.terminate().success(), "an engine that is told to end does so in good order");
    }

    async fn compare(&self, campaigns: &[CampaignId]) -> Report {
        let opened = open_ledger(&self.stage.settings()).await.expect("the ledger opens");
        let tenant = opened.ledger.tenant(TENANT).await.expect("the tenant is there").id;
        let books = Books::read(opened.ledger.as_ref(), &self.stage.ledger_file(), tenant, campaigns).await;
        assert_eq!(books.entries.len(), self.each * self.accounts.len());
        checker::check(&books, &self.stage.sandbox.lines())
    }

    fn judge(&self, deaths: &Deaths, report: &Report, recovered: i64, summary: &str) {
        assert_eq!(report.faults, checker::Faults::default(), "{summary}");
        let each = self.each as u64;
        for kind in ["brevo", "infobip"] {
            let figures = report.of(kind);
            assert_eq!((figures.accepted, figures.undecided), (each, 0), "{kind} can be asked: {figures:?}");
        }
        for kind in ["sendgrid", "smtp"] {
            let figures = report.of(kind);
            assert_eq!(figures.accepted + figures.undecided, each, "{kind}: {figures:?}");
        }
        let open_slots: usize = self.accounts[2..].iter().map(|account| RUNS * account.claim_size()).sum();
        assert!(deaths.left_open <= (deaths.kills * open_slots) as u64, "{deaths:?}, {open_slots} slots");
        let by_kill = report.of("sendgrid").undecided_by_kill + report.of("smtp").undecided_by_kill;
        assert!(by_kill <= deaths.left_open, "{by_kill} undecided without a fault, {deaths:?}");
        assert!(recovered > 0, "with these faults some outcomes are found out afterwards");
    }
}

fn summary(deaths: &Deaths, report: &Report, recovered: i64) -> String {
    let faults = &report.faults;
    let undecided = |kind| report.of(kind).undecided;
    format!(
        "kills={} recovered={recovered} duplicates={} lost={} phantom={} untrue={} untracked={} unknown_final: brevo={} \
         infobip={} sendgrid={} smtp={} (of these {} by kills, which left {} open)",
        deaths.kills,
        faults.duplicated.len(),
        faults.lost.len(),
        faults.phantom.len(),
        faults.untrue.len(),
        faults.untracked.len(),
        undecided("brevo"),
        undecided("infobip"),
        undecided("sendgrid"),
        undecided("smtp"),
        report.of("sendgrid").undecided_by_kill + report.of("smtp").undecided_by_kill,
        deaths.left_open,
    )
}
