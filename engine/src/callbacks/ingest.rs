//! Answering providers: `POST /callbacks/{account}`.
//!
//! What comes is taken for anybody's until its signature or token is known from the raw bytes; a wrong one is 401 and leaves
//! nothing but a count. What is the provider's is spooled and answered with 204, whatever its body says: a body that
//! nobody can read is the applier's to count, and the provider shall not send it for hours. Where it cannot be kept the
//! answer is the one on which that provider comes again.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc, time::Duration};

use axum::{
    Extension, Router,
    body::{Body, Bytes, to_bytes},
    extract::{Path, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse as _, Response},
    routing::post,
};
use dispatch_workers::{
    abort::AbortPoint,
    clock::Clock,
    providers::callbacks::{Call, Callbacks, Rejection, Verifier, events_in},
};
use ipnet::IpNet;
use tokio::sync::Semaphore;

use super::{
    Callback,
    spool::{NotKept, Spool},
};
use crate::api::authentication::Source;

/// Largest body. The largest a provider is known to send is 768 KiB.
const BODY_BYTES_MAX: usize = 1 << 20;
/// Most reports in a body. The most a provider is known to send is 2,000.
const REPORTS_MAX: usize = 5_000;
/// Bodies held at once, so that callers who say nothing true of themselves cannot fill the memory.
const BODIES_MAX: usize = 64;
/// Within this time a call is answered, as providers ask for.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// What of that is left for the disk once the body has come.
const BODY_WITHIN: Duration = Duration::from_secs(3);

/// One account whose provider calls.
pub struct Caller {
    /// Which kind of provider.
    pub kind: &'static str,
    /// How that kind calls.
    pub callbacks: &'static Callbacks,
    /// Knows its calls.
    pub verifier: Box<dyn Verifier>,
}

/// What answers providers.
pub struct Ingest {
    /// The accounts by name.
    pub callers: BTreeMap<String, Caller>,
    /// Where callbacks are put.
    pub spool: Arc<Spool>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// The proxies that stand in front: from them, the caller is the last address in `X-Forwarded-For`.
    pub proxies: Vec<IpNet>,
    bodies: Semaphore,
}

impl std::fmt::Debug for Ingest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.callers.keys()).finish()
    }
}

impl Ingest {
    /// For these accounts.
    #[must_use]
    pub fn new(
        callers: BTreeMap<String, Caller>,
        spool: Arc<Spool>,
        clock: Arc<dyn Clock>,
        proxies: Vec<IpNet>,
    ) -> Self {
        Self { callers, spool, clock, proxies, bodies: Semaphore::new(BODIES_MAX) }
    }

    /// The routes.
    pub fn router(self: Arc<Self>) -> Router {
        Router::new().route("/callbacks/{account}", post(receive)).with_state(self)
    }

    /// Who calls. A header is believed from our own proxies only.
    fn source(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        if !self.proxies.iter().any(|proxy| proxy.contains(&peer.to_canonical())) {
            return peer;
        }
        let forwarded = headers.get_all("x-forwarded-for").iter().next_back().and_then(|value| value.to_str().ok());
        let last = forwarded.and_then(|value| value.rsplit(',').next()).and_then(|last| last.trim().parse().ok());
        last.unwrap_or(peer)
    }

    async fn take(&self, account: &str, peer: IpAddr, headers: &HeaderMap, body: Body) -> Result<(), Refusal> {
        let caller = self.callers.get(account).ok_or(Refusal::UnknownAccount)?;
        // Held until the answer: the body lives as long.
        let _room = self.bodies.acquire().await.map_err(|_| Refusal::Failed)?;
        let body = bounded(headers, body).await?;
        let source = self.source(peer, headers);
        let now_ms = self.clock.now_ms();
        caller.verifier.verify(&Call { headers, body: &body, source, now_ms }).map_err(Refusal::Stranger)?;
        // What is no JSON has no reports to count; the applier says so.
        if events_in(&body).is_some_and(|reports| reports > REPORTS_MAX) {
            return Err(Refusal::TooMany);
        }
        let callback =
            Callback { arrived_at_ms: now_ms, kind: caller.kind.to_owned(), account: account.to_owned(), body };
        self.spool.keep(&callback).await?;
        AbortPoint::AfterSpool.reached();
        metrics::counter!("dispatch_callbacks_accepted_total", "provider" => caller.kind).increment(1);
        Ok(())
    }
}

/// Why a call is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Refusal {
    UnknownAccount,
    Stranger(Rejection),
    TooLarge,
    TooMany,
    Cut,
    Full,
    Failed,
    Late,
}

impl Refusal {
    const fn label(self) -> &'static str {
        match self {
            Self::UnknownAccount => "unknown_account",
            Self::Stranger(rejection) => rejection.label(),
            Self::TooLarge => "too_large",
            Self::TooMany => "too_many",
            Self::Cut => "cut",
            Self::Full => "full",
            Self::Failed => "failed",
            Self::Late => "late",
        }
    }

    fn status(self, come_again: u16) -> StatusCode {
        match self {
            Self::UnknownAccount => StatusCode::NOT_FOUND,
            Self::Stranger(_) => StatusCode::UNAUTHORIZED,
            Self::TooLarge | Self::TooMany => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Cut => StatusCode::BAD_REQUEST,
            Self::Full | Self::Failed | Self::Late => {
                StatusCode::from_u16(come_again).unwrap_or(StatusCode::SERVICE_UNAVAILABLE)
            }
        }
    }
}

impl From<NotKept> for Refusal {
    fn from(not_kept: NotKept) -> Self {
        match not_kept {
            NotKept::Full => Self::Full,
            NotKept::Failed => Self::Failed,
        }
    }
}

async fn receive(
    State(ingest): State<Arc<Ingest>>,
    Path(account): Path<String>,
    Extension(Source(peer)): Extension<Source>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let taken = tokio::time::timeout(ANSWER_WITHIN, ingest.take(&account, peer, &headers, body)).await;
    match taken.unwrap_or(Err(Refusal::Late)) {
        Ok(()) => StatusCode::NO_CONTENT.into_response(),
        Err(refusal) => {
            metrics::counter!("dispatch_callbacks_rejected_total", "reason" => refusal.label()).increment(1);
            let come_again = ingest.callers.get(&account).map_or(503, |caller| caller.callbacks.come_again);
            refusal.status(come_again).into_response()
        }
    }
}

/// A body that is whole and not too large.
async fn bounded(headers: &HeaderMap, body: Body) -> Result<Bytes, Refusal> {
    let said = headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
    if said.is_some_and(|length| length > BODY_BYTES_MAX) {
        return Err(Refusal::TooLarge);
    }
    match tokio::time::timeout(BODY_WITHIN, to_bytes(body, BODY_BYTES_MAX)).await {
        Ok(Ok(body)) => Ok(body),
        Ok(Err(error)) if is_too_large(&error) => Err(Refusal::TooLarge),
        Ok(Err(_)) | Err(_) => Err(Refusal::Cut),
    }
}

fn is_too_large(error: &axum::Error) -> bool {
    std::error::Error::source(error).is_some_and(<dyn std::error::Error>::is::<http_body_util::LengthLimitError>)
}
