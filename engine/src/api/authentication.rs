//! Who is calling, and whether they may.
//!
//! A handler that needs a tenant takes a [`Caller`], which names the permission it needs; there is no other way to a
//! tenant's id, so no route is open by mistake. Whatever is wrong with a key, the answer is the same.

use std::{
    collections::HashMap,
    marker::PhantomData,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use aws_lc_rs::constant_time::verify_slices_are_equal;
use axum::{
    extract::FromRequestParts,
    http::{header, request::Parts},
};
use dispatch_schemas::{
    api::keys::Permission,
    ids::{KeyId, TenantId},
};

use super::{
    Context,
    credentials::ApiKeyText,
    problem::{Answer, Kind, Problem},
};
use crate::ledger::StoredKey;

/// How long a looked-up key is taken without asking the ledger. One that is revoked through this process is forgotten
/// at once; should anything else ever revoke it, it is refused within 5 s, this and the time of a call.
const REMEMBERED: Duration = Duration::from_secs(4);
/// Keys remembered at once; more tenants than one process serves at a time. Past it all are forgotten.
const REMEMBERED_MAX: usize = 10_000;
/// Wrong keys taken from one address in [`FAILURES_WINDOW`], before further ones are refused without a look-up.
const FAILURES_MAX: u32 = 30;
/// Over how long wrong keys are counted.
const FAILURES_WINDOW: Duration = Duration::from_secs(10);
/// Addresses whose failures are counted at once; past it all are forgotten.
const SOURCES_MAX: usize = 10_000;
/// Names of query parameters that people put keys in.
const KEY_NAMES: [&str; 8] =
    ["key", "api_key", "apikey", "api-key", "token", "access_token", "authorization", "dispatch_api_key"];

/// Where a request came from; put there by the server for each connection.
#[derive(Debug, Clone, Copy)]
pub struct Source(pub IpAddr);

/// A permission as a type, for [`Caller`].
pub trait Needs: std::marker::Send {
    /// Which.
    const PERMISSION: Permission;
}

macro_rules! needs {
    ($($(#[$doc:meta])* $name:ident;)+) => {$(
        $(#[$doc])*
        #[derive(Debug)]
        pub struct $name;

        impl Needs for $name {
            const PERMISSION: Permission = Permission::$name;
        }
    )+};
}

needs! {
    /// The route reads.
    Read;
    /// The route creates or changes.
    Write;
    /// The route sends.
    Send;
    /// The route erases people.
    Erase;
}

/// A caller whose key was taken and has the permission `P`.
#[derive(Debug)]
pub struct Caller<P> {
    /// Whose key it is. The only place a tenant's id comes from.
    pub tenant: TenantId,
    permission: PhantomData<P>,
}

impl<P: Needs> FromRequestParts<Arc<Context>> for Caller<P> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, context: &Arc<Context>) -> Result<Self, Problem> {
        refuse_keys_in_url(parts)?;
        let text = bearer(parts).ok_or_else(not_authenticated)?;
        let source = parts.extensions.get::<Source>().map(|source| source.0);
        let key = context.keyring.check(context, text, source).await?;
        if !key.key.permissions.contains(&P::PERMISSION) {
            let needed = P::PERMISSION.as_str();
            return Err(Problem::new(
                Kind::NOT_PERMITTED,
                format!("this call needs a key with the permission `{needed}`; the one you sent does not have it"),
            ));
        }
        Ok(Self { tenant: key.key.tenant, permission: PhantomData })
    }
}

fn not_authenticated() -> Problem {
    Problem::new(
        Kind::NOT_AUTHENTICATED,
        "send a key that is whole, not expired and not revoked, as `Authorization: Bearer dsp_live_…`",
    )
}

fn bearer(parts: &Parts) -> Option<&str> {
    let mut all = parts.headers.get_all(header::AUTHORIZATION).iter();
    let (one, None) = (all.next()?, all.next()) else { return None };
    let (scheme, key) = one.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(key.trim())
}

fn refuse_keys_in_url(parts: &Parts) -> Answer<()> {
    let query = parts.uri.query().unwrap_or_default();
    let is_key = form_urlencoded::parse(query.as_bytes())
        .any(|(name, value)| value.starts_with("dsp_") || KEY_NAMES.contains(&name.to_ascii_lowercase().as_str()));
    if is_key {
        return Err(Problem::new(
            Kind::KEY_IN_URL,
            "send the key as `Authorization: Bearer …`; one that stood in a URL may be in logs by now, so revoke it with \
             `dispatch keys revoke`",
        ));
    }
    Ok(())
}

#[derive(Debug, Default)]
struct Known {
    keys: HashMap<KeyId, (Duration, Arc<StoredKey>)>,
    /// How often a key was forgotten: what was looked up before that and comes after it is not remembered.
    forgotten: u64,
}

/// The keys looked up of late, and who sent wrong ones.
#[derive(Debug, Default)]
pub struct Keyring {
    known: Mutex<Known>,
    failures: Mutex<HashMap<Option<IpAddr>, (Duration, u32)>>,
}

impl Keyring {
    async fn check(&self, context: &Context, text: &str, source: Option<IpAddr>) -> Answer<Arc<StoredKey>> {
        let Ok(given) = ApiKeyText::parse(text) else { return Err(not_authenticated()) };
        let now = context.api.clock.monotonic();
        let stored = match self.remembered(given.id, now) {
            Ok(stored) => Some(stored),
            Err(forgotten) => {
                self.refuse_after_failures(source, now)?;
                let found = context.api.ledger.find_key(given.id).await?.map(Arc::new);
                if let Some(stored) = &found {
                    self.remember(forgotten, now, Arc::clone(stored));
                }
                found
            }
        };
        // Hashed for unknown keys as well, so that known and unknown ones take equally long.
        let hash = context.api.master.api_key_hash(given.secret());
        let taken = stored.filter(|stored| {
            verify_slices_are_equal(&hash, &stored.secret_hash).is_ok()
                && stored.key.revoked_at.is_none()
                && stored.key.expires_at.as_ms() > context.api.clock.now_ms()
        });
        taken.ok_or_else(|| {
            self.count_failure(source, now);
            not_authenticated()
        })
    }

    /// Forgets a key that was revoked.
    pub(super) fn forget(&self, id: KeyId) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.keys.remove(&id);
        known.forgotten += 1;
    }

    /// The key, or for [`Self::remember`] how often one was forgotten before it is looked up.
    fn remembered(&self, id: KeyId, now: Duration) -> Result<Arc<StoredKey>, u64> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = known.keys.get(&id).filter(|(at, _)| now.saturating_sub(*at) < REMEMBERED);
        fresh.map(|(_, key)| Arc::clone(key)).ok_or(known.forgotten)
    }

    fn remember(&self, forgotten: u64, now: Duration, key: Arc<StoredKey>) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.forgotten != forgotten {
            return;
        }
        if known.keys.len() >= REMEMBERED_MAX {
            known.keys.clear();
        }
        known.keys.insert(key.key.id, (now, key));
    }

    fn refuse_after_failures(&self, source: Option<IpAddr>, now: Duration) -> Answer<()> {
        let failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        match failures.get(&source) {
            Some((since, count)) if *count >= FAILURES_MAX && now.saturating_sub(*since) < FAILURES_WINDOW => {
                let left = FAILURES_WINDOW.saturating_sub(now.saturating_sub(*since)).as_secs() + 1;
                Err(Problem::new(Kind::TOO_MANY_FAILURES, "too many wrong keys came from this address; wait a little")
                    .retry_after(u32::try_from(left).unwrap_or(u32::MAX)))
            }
            _ => Ok(()),
        }
    }

    fn count_failure(&self, source: Option<IpAddr>, now: Duration) {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        if failures.len() >= SOURCES_MAX {
            failures.clear();
        }
        let (since, count) = failures.entry(source).or_insert((now, 0));
        if now.saturating_sub(*since) >= FAILURES_WINDOW {
            (*since, *count) = (now, 0);
        }
        *count += 1;
    }
}
