//! One installation: a ledger, a clock held still, a tenant.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use dispatch_engine::{
    import::loading::Loader,
    ledger::Ledger,
    second_place::{Place, SecondPlace},
};
use dispatch_schemas::{
    api::lists::{NewList, NewSource},
    ids::{ListId, SourceId, TenantId},
    states::{Channel, LegalBasis, SourceKind},
};
use dispatch_workers::{
    clock::{Clock, SystemEntropy, random},
    message::Token,
    sealing::{AddressHash, MasterKey, TenantKeys},
};

use super::Fixture;

/// When the tests begin: 2027-01-15T08:00:00Z.
pub(crate) const START_MS: i64 = 1_800_000_000_000;

/// A clock that moves when it is told to.
pub(crate) struct HeldClock(AtomicI64);

impl HeldClock {
    pub(crate) fn advance(&self, ms: i64) {
        self.0.fetch_add(ms, Ordering::SeqCst);
    }
}

impl Clock for HeldClock {
    fn now_ms(&self) -> i64 {
        self.0.load(Ordering::SeqCst)
    }

    fn monotonic(&self) -> Duration {
        Duration::from_millis(u64::try_from(self.now_ms() - START_MS).unwrap_or(0))
    }
}

/// An installation with one tenant.
pub(crate) struct World {
    pub(crate) place: Box<dyn super::Place>,
    pub(crate) ledger: Arc<dyn Ledger>,
    pub(crate) clock: Arc<HeldClock>,
    pub(crate) entropy: Arc<SystemEntropy>,
    pub(crate) master: MasterKey,
    pub(crate) tenant: TenantId,
    pub(crate) keys: TenantKeys,
    pub(crate) source: SourceId,
    pub(crate) second_place: SecondPlace,
}

impl World {
    pub(crate) async fn new(fixture: &dyn Fixture) -> Self {
        Self::beside(fixture, None).await
    }

    /// With a second place in this folder.
    pub(crate) async fn beside(fixture: &dyn Fixture, folder: Option<&Path>) -> Self {
        let (place, entropy) = (fixture.place(), Arc::new(SystemEntropy::default()));
        let clock = Arc::new(HeldClock(AtomicI64::new(START_MS)));
        let master = MasterKey::generate(entropy.as_ref());
        let second_place = folder.map_or(SecondPlace::none(), |folder| second_place(&master, folder, [1; 8]));
        let ledger = place.open(&master, clock.clone(), entropy.clone(), second_place.clone()).await;
        let (tenant, keys, source) = tenant(ledger.as_ref(), "first").await;
        Self { place, ledger, clock, entropy, master, tenant, keys, source, second_place }
    }

    /// The second place as another process has it.
    pub(crate) fn as_another_process(&self, folder: &Path) -> SecondPlace {
        second_place(&self.master, folder, random(self.entropy.as_ref()))
    }

    /// The same installation with its ledger closed and opened again, with whatever was under way left undone.
    pub(crate) async fn reopened(self) -> Self {
        let Self { place, ledger, clock, entropy, master, tenant, keys, source, second_place } = self;
        ledger.close().await;
        let ledger = place.open(&master, clock.clone(), entropy.clone(), second_place.clone()).await;
        Self { place, ledger, clock, entropy, master, tenant, keys, source, second_place }
    }

    /// Makes another tenant the one that acts.
    pub(crate) async fn become_tenant(&mut self, name: &str) {
        (self.tenant, self.keys, self.source) = tenant(self.ledger.as_ref(), name).await;
    }

    pub(crate) fn now_ms(&self) -> i64 {
        self.clock.now_ms()
    }

    pub(crate) fn token(&self) -> Token {
        Token(random(self.entropy.as_ref()))
    }

    pub(crate) fn email(&self, address: &str) -> AddressHash {
        self.keys.address_hash(Channel::Email, address)
    }

    pub(crate) fn phone(&self, number: &str) -> AddressHash {
        self.keys.address_hash(Channel::Sms, number)
    }

    pub(crate) async fn list(&self, name: &str) -> ListId {
        let new = NewList { name: name.to_owned(), source: self.source };
        self.ledger.create_list(self.tenant, &new, None).await.unwrap().value.id
    }

    pub(crate) fn loader(&self) -> Loader {
        Loader::new(self.ledger.clone(), self.master.clone(), self.entropy.clone())
    }
}

fn second_place(master: &MasterKey, folder: &Path, process: [u8; 8]) -> SecondPlace {
    SecondPlace::open(Place { folder, days: 90, fingerprint: &master.fingerprint(), process }).unwrap()
}

async fn tenant(ledger: &dyn Ledger, name: &str) -> (TenantId, TenantKeys, SourceId) {
    let tenant = ledger.tenant(name).await.unwrap().id;
    let keys = ledger.tenant_keys(tenant).await.unwrap();
    let source = NewSource {
        name: "shop".to_owned(),
        kind: SourceKind::CustomerList,
        legal_basis: LegalBasis::Consent,
        reference: None,
    };
    (tenant, keys, ledger.create_source(tenant, &source, None).await.unwrap().value.id)
}
