//! A running engine with a tenant, beside its sandbox.

use std::{sync::Arc, time::Duration};

use dispatch_engine::{
    engine::{Engine, Opened, Roles, open_ledger},
    ledger::sqlite::SqliteLedger,
    settings::Settings,
};
use dispatch_schemas::{api::campaigns::Progress, ids::CampaignId, states::StallReason};
use dispatch_tests::support::{
    checker::{self, Books, Report},
    people::People,
    platform::Platform,
    sandbox::accepted_in,
    stage::{Account, Stage},
    wait,
};
use dispatch_workers::{
    clock::{Clock, Entropy, SystemEntropy},
    sandbox::witness::WitnessLine,
    sealing::MasterKey,
};

/// How long a campaign of these tests may take.
pub(crate) const COMPLETES_WITHIN: Duration = Duration::from_secs(120);

/// Everything that runs.
pub(crate) struct Rig {
    pub(crate) stage: Stage,
    pub(crate) platform: Platform,
    pub(crate) engine: Engine,
}

impl Rig {
    pub(crate) async fn new(accounts: &[Account]) -> Self {
        Self::with(accounts, |_| {}).await
    }

    /// With other settings.
    pub(crate) async fn with(accounts: &[Account], change: impl FnOnce(&mut Settings)) -> Self {
        let stage = Stage::new(accounts, "", 1);
        let mut settings = stage.settings();
        change(&mut settings);
        let opened = open_ledger(&settings).await.expect("the ledger opens");
        Self::on(stage, &settings, opened).await
    }

    /// In a world whose clocks show another time.
    pub(crate) async fn by_clock(accounts: &[Account], clock: Arc<dyn Clock>) -> Self {
        let stage = Stage::new(accounts, "", 1);
        let settings = stage.settings();
        let entropy: Arc<dyn Entropy> = Arc::new(SystemEntropy::default());
        let master = MasterKey::generate(entropy.as_ref());
        let ledger = SqliteLedger::open(&stage.ledger_file(), master.clone(), clock.clone(), entropy.clone()).await;
        let ledger = Arc::new(ledger.expect("the ledger opens"));
        Self::on(stage, &settings, Opened { ledger, master, clock, entropy, made_key: true, shared: None }).await
    }

    async fn on(stage: Stage, settings: &Settings, opened: Opened) -> Self {
        let platform = Platform::new(&opened, "shop").await;
        let engine = Engine::start(settings, opened, Roles::all()).await.expect("the engine starts");
        Self { stage, platform, engine }
    }

    /// Waits until a campaign is said to wait for this.
    pub(crate) async fn stalled(&self, campaign: CampaignId, reason: StallReason) {
        wait::until("the campaign is said to wait", COMPLETES_WITHIN, async || {
            (self.platform.progress(campaign).await.stall == Some(reason)).then_some(())
        })
        .await;
    }

    /// Launches a campaign to new people.
    pub(crate) async fn launch(&self, people: People, account: &str) -> CampaignId {
        let campaign = self.platform.campaign_to(people, account, |_| {}).await;
        self.go(campaign).await;
        campaign
    }

    /// Launches a campaign.
    pub(crate) async fn go(&self, campaign: CampaignId) {
        self.platform.launch(campaign).await;
        self.engine.campaign_changed(campaign);
    }

    /// Waits until so many messages were accepted.
    pub(crate) async fn accepted(&self, messages: usize) {
        wait::until("messages are accepted", COMPLETES_WITHIN, async || {
            (self.stage.sandbox.accepted() >= messages).then_some(())
        })
        .await;
    }

    /// Waits for the end of a campaign.
    pub(crate) async fn completed(&self, campaign: CampaignId) -> Progress {
        wait::until("the campaign completes", COMPLETES_WITHIN, async || self.platform.completed(campaign).await).await
    }

    /// Waits until nothing of a campaign is in an open attempt.
    pub(crate) async fn nothing_in_flight(&self, campaign: CampaignId) {
        wait::until("open attempts end", COMPLETES_WITHIN, async || {
            let progress = self.platform.progress(campaign).await;
            (progress.states["claimed"] == 0).then_some(())
        })
        .await;
    }

    /// Compares ledger and witness.
    pub(crate) async fn check(&self, campaigns: &[CampaignId]) -> Report {
        let platform = &self.platform;
        let books = Books::read(platform.ledger(), &self.stage.ledger_file(), platform.tenant, campaigns).await;
        checker::check(&books, &self.stage.sandbox.lines())
    }
}

/// Messages accepted in requests that the witness logged after a moment.
pub(crate) fn accepted_after(lines: &[WitnessLine], ms: i64) -> u64 {
    lines.iter().filter(|line| line.t_ms > ms).map(|line| accepted_in(line) as u64).sum()
}
