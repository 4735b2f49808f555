//! A ledger in a folder of its own, the routes over it, two tenants and their keys.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    body::{Body, to_bytes},
    http::{HeaderMap, Method, Request, StatusCode},
};
use dispatch_schemas::{
    api::{campaigns::Campaign, keys::Permission, lists::ImportTotals},
    ids::{CampaignId, ContactId, ListId, TenantId},
    states::{Channel, StallReason},
};
use dispatch_workers::{
    clock::{Clock, SystemEntropy},
    sealing::{Column, MasterKey},
};
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};
use tower::ServiceExt as _;

use crate::{
    api::{AccountInfo, Api, Bounds, Control, Health, credentials::ApiKeyText, router},
    engine::Opened,
    ledger::{ContactRow, Ledger, NewContacts, sqlite::SqliteLedger},
};

/// A clock that stands still until it is moved.
#[derive(Debug)]
pub(crate) struct StillClock(AtomicU64);

impl StillClock {
    pub(crate) fn advance(&self, by: Duration) {
        self.0.fetch_add(u64::try_from(by.as_millis()).unwrap(), Ordering::Relaxed);
    }
}

impl Clock for StillClock {
    fn now_ms(&self) -> i64 {
        1_800_000_000_000 + i64::try_from(self.0.load(Ordering::Relaxed)).unwrap()
    }

    fn monotonic(&self) -> Duration {
        Duration::from_millis(self.0.load(Ordering::Relaxed))
    }
}

/// Writes down what the API tells the engine.
pub(crate) struct Told {
    pub(crate) heard: Mutex<Vec<String>>,
    pub(crate) worker: Mutex<Health>,
}

impl Default for Told {
    fn default() -> Self {
        Self { heard: Mutex::default(), worker: Mutex::new(Health::Well) }
    }
}

impl Control for Told {
    fn campaign_changed(&self, campaign: CampaignId) {
        self.heard.lock().unwrap().push(format!("changed {campaign}"));
    }

    fn tenant_changed(&self, tenant: TenantId) {
        self.heard.lock().unwrap().push(format!("tenant {tenant}"));
    }

    fn message_ready(&self, campaign: CampaignId, seq: i64) {
        self.heard.lock().unwrap().push(format!("ready {campaign} {seq}"));
    }

    fn limits_changed(&self, tenant: TenantId) {
        self.heard.lock().unwrap().push(format!("limits {tenant}"));
    }

    fn campaign_limits_changed(&self, campaign: &Campaign) {
        self.heard.lock().unwrap().push(format!("campaign limits {}", campaign.id));
    }

    fn readiness(&self) -> Vec<(&'static str, Health)> {
        vec![("scheduler", Health::Well), ("worker", self.worker.lock().unwrap().clone())]
    }

    fn metrics(&self) -> String {
        "dispatch_build_info 1\n".to_owned()
    }
}

/// The world of a test.
pub(crate) struct World {
    pub(crate) router: Router,
    pub(crate) ledger: Arc<dyn Ledger>,
    pub(crate) clock: Arc<StillClock>,
    pub(crate) told: Arc<Told>,
    pub(crate) tenant: TenantId,
    /// A key of the tenant that may do everything.
    pub(crate) key: String,
    /// The same of another tenant.
    pub(crate) foreign_key: String,
    master: MasterKey,
    _dir: tempfile::TempDir,
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Got {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
}

impl Got {
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap()
    }

    /// The value, of an answer that must be good.
    #[track_caller]
    pub(crate) fn good(&self) -> Value {
        assert!(self.status.is_success(), "{} {}", self.status, self.text);
        self.json()
    }

    /// The kind of a problem, after its status.
    #[track_caller]
    pub(crate) fn problem(&self) -> (u16, String) {
        assert_eq!(self.headers["content-type"], "application/problem+json", "{}", self.text);
        let document = self.json();
        assert_eq!(document["status"], self.status.as_u16());
        (self.status.as_u16(), document["type"].as_str().unwrap().trim_start_matches("/problems/").to_owned())
    }
}

impl World {
    pub(crate) async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let clock = Arc::new(StillClock(AtomicU64::new(0)));
        let entropy = Arc::new(SystemEntropy::default());
        let master = MasterKey::generate(entropy.as_ref());
        let ledger: Arc<dyn Ledger> = Arc::new(
            SqliteLedger::open(&dir.path().join("ledger.db"), master.clone(), clock.clone(), entropy.clone())
                .await
                .unwrap(),
        );
        let told = Arc::new(Told::default());
        let account = |name: &str, channel| AccountInfo { name: name.to_owned(), channel, is_default: true };
        let router = router(Arc::new(Api {
            roles: crate::engine::Roles::all(),
            ledger: Arc::clone(&ledger),
            master: master.clone(),
            clock: clock.clone(),
            entropy,
            control: told.clone(),
            accounts: vec![account("post", Channel::Email), account("phones", Channel::Sms)],
            bounds: Bounds { import_bytes_max: 1 << 20, ..Bounds::default() },
        }));
        let (tenant, other) = (ledger.tenant("acme").await.unwrap().id, ledger.tenant("globex").await.unwrap().id);
        let mut world = Self {
            router,
            ledger,
            clock,
            told,
            tenant,
            key: String::new(),
            foreign_key: String::new(),
            master,
            _dir: dir,
        };
        world.key = world.key_with(tenant, Permission::ALL).await;
        world.foreign_key = world.key_with(other, Permission::ALL).await;
        world
    }

    /// The world with its keys as the command line wants it: a ledger that is open.
    pub(crate) fn opened(&self) -> Opened {
        Opened {
            shared: None,
            ledger: Arc::clone(&self.ledger),
            master: self.master.clone(),
            clock: self.clock.clone(),
            entropy: Arc::new(SystemEntropy::default()),
            made_key: false,
        }
    }

    /// The scheduler notes that a campaign does not move.
    pub(crate) async fn stalls(&self, campaign: &str, reason: StallReason) {
        self.ledger.note_stalls(&[(campaign.parse().unwrap(), Some(reason))]).await.unwrap();
    }

    /// Makes a key that is good for a day.
    pub(crate) async fn key_with(&self, tenant: TenantId, permissions: &[Permission]) -> String {
        let key = ApiKeyText::generate(&SystemEntropy::default());
        let hash = self.master.api_key_hash(key.secret());
        let expires_at_ms = self.clock.now_ms() + 86_400_000;
        self.ledger.create_key(key.id, tenant, "test", permissions, hash, expires_at_ms).await.unwrap();
        key.reveal().expose_secret().to_owned()
    }

    pub(crate) async fn send(&self, request: Request<Body>) -> Got {
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let bytes = to_bytes(body, usize::MAX).await.unwrap();
        assert!(parts.headers.contains_key("x-request-id"));
        Got { status: parts.status, headers: parts.headers, text: String::from_utf8(bytes.to_vec()).unwrap() }
    }

    pub(crate) async fn get(&self, path: &str) -> Got {
        self.send(request(Method::GET, path, &self.key).body(Body::empty()).unwrap()).await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Got {
        self.call(Method::POST, path, &self.key, body).await
    }

    pub(crate) async fn call(&self, method: Method, path: &str, key: &str, body: &Value) -> Got {
        let request = request(method, path, key).header("content-type", "application/json");
        self.send(request.body(Body::from(body.to_string())).unwrap()).await
    }

    /// The same with an Idempotency-Key.
    pub(crate) async fn post_once(&self, path: &str, once: &str, body: &Value) -> Got {
        let request = request(Method::POST, path, &self.key)
            .header("content-type", "application/json")
            .header("idempotency-key", once);
        self.send(request.body(Body::from(body.to_string())).unwrap()).await
    }

    pub(crate) async fn source(&self) -> Value {
        let body = json!({"name": "Shop", "kind": "customer_list", "legal_basis": "consent"});
        self.post("/v1/sources", &body).await.good()["id"].clone()
    }

    pub(crate) async fn list(&self, name: &str) -> Value {
        let body = json!({"name": name, "source": self.source().await});
        self.post("/v1/lists", &body).await.good()["id"].clone()
    }

    /// A list with this many contacts.
    pub(crate) async fn filled_list(&self, name: &str, contacts: usize) -> Value {
        let id = self.list(name).await;
        let list: ListId = id.as_str().unwrap().parse().unwrap();
        let keys = self.ledger.tenant_keys(self.tenant).await.unwrap();
        let import = self.ledger.begin_import(self.tenant, list).await.unwrap();
        let first = self.ledger.contact_ids(contacts).await.unwrap();
        let entropy = SystemEntropy::default();
        let rows = (0..i64::try_from(contacts).unwrap()).map(|n| {
            let id = ContactId(first.0 + n);
            let address = format!("{name}{n}@example.org");
            let (key, wrapped) = keys.new_contact(id, &entropy);
            let sealed = key.seal(Column::Email, address.as_bytes(), &entropy);
            ContactRow {
                id,
                key: wrapped,
                email: Some((sealed, keys.address_hash(Channel::Email, &address))),
                phone: None,
                fields: None,
                email_destination: None,
                phone_destination: None,
            }
        });
        let new = NewContacts { import, list, tenant: self.tenant, contacts: rows.collect() };
        self.ledger.store_contacts(new).await.unwrap();
        let totals = ImportTotals { rows: contacts as u64, added: contacts as u64, ..ImportTotals::default() };
        let fields = ["first_name".to_owned()];
        self.ledger.complete_import(import, &totals, &fields, &Value::Null).await.unwrap();
        id
    }

    pub(crate) fn heard(&self) -> Vec<String> {
        std::mem::take(&mut self.told.heard.lock().unwrap())
    }
}

/// A request with a key.
pub(crate) fn request(method: Method, path: &str, key: &str) -> axum::http::request::Builder {
    Request::builder().method(method).uri(path).header("authorization", format!("Bearer {key}"))
}

/// A campaign's body: content of its own, over these lists.
pub(crate) fn campaign(lists: &[&Value]) -> Value {
    json!({
        "name": "Spring", "lists": lists, "purpose": "marketing",
        "content": {
            "channel": "email", "from": {"address": "shop@example.org"},
            "subject": "Hello", "text": "Hello {{ first_name }}",
        },
    })
}
