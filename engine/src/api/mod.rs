//! The HTTP API.
//!
//! [`routes`] has one file per resource: each handler beside its OpenAPI description. A request passes
//! [`observe`] (request id, metrics, panics), [`authentication`], and the strict readers of [`request`] before a
//! handler sees it; what goes wrong anywhere is a [`problem`]. Everything that lasts is one call of the
//! [`Ledger`]; the running engine is told of it through [`Control`]. [`server`] puts a router on a socket.

pub mod addresses;
pub mod authentication;
pub mod bodies;
pub mod content;
pub mod control;
pub mod credentials;
pub mod cursor;
mod observe;
pub mod openapi;
pub mod problem;
pub mod request;
pub mod routes;
pub mod server;
pub mod shape;
mod starting;
pub mod strict_json;
mod supply;
mod terms;
#[cfg(test)]
pub(crate) mod tests;

use std::{fmt, sync::Arc};

use axum::{
    Router,
    extract::{DefaultBodyLimit, Request, State},
    middleware::{self, Next},
    response::{IntoResponse as _, Response},
    routing::get,
};
use dispatch_schemas::{ids::KeyId, states::Channel};
use dispatch_workers::{
    clock::{Clock, Entropy},
    sealing::{MasterKey, SendKeys},
};
use tower_http::catch_panic::CatchPanicLayer;

use self::{authentication::Keyring, cursor::Cursors};
pub use self::{
    control::{Control, Health},
    openapi::openapi,
    starting::Changeable,
};
use crate::{
    engine::{Role, Roles},
    import::loading::Loader,
    ledger::Ledger,
};

/// What the API is made of.
pub struct Api {
    /// Where everything is kept.
    pub ledger: Arc<dyn Ledger>,
    /// The key of this installation.
    pub master: MasterKey,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub entropy: Arc<dyn Entropy>,
    /// The running engine.
    pub control: Arc<dyn Control>,
    /// The provider accounts of the settings.
    pub accounts: Vec<AccountInfo>,
    /// How much is taken.
    pub bounds: Bounds,
    /// What this process does: without the role of the API it serves what machines ask of the engine only.
    pub roles: Roles,
}

impl fmt::Debug for Api {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Api({} accounts)", self.accounts.len())
    }
}

/// A provider account, as far as the API needs to know it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccountInfo {
    /// Its name in the settings.
    pub name: String,
    /// The channel it serves. An account that serves both is listed twice.
    pub channel: Channel,
    /// Whether campaigns of the channel that name no account go through it.
    pub is_default: bool,
}

/// How much a client may send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Bytes of a JSON body.
    pub body_bytes_max: usize,
    /// Bytes of an upload.
    pub import_bytes_max: u64,
}

impl Default for Bounds {
    /// 1 MiB of JSON, which holds the longest template there may be; 10 GiB of upload, some 100 million contacts.
    fn default() -> Self {
        Self { body_bytes_max: 1 << 20, import_bytes_max: 10 << 30 }
    }
}

/// The API and what it keeps between calls.
#[derive(Debug)]
pub struct Context {
    pub(crate) api: Arc<Api>,
    pub(crate) keyring: Keyring,
    pub(crate) cursors: Cursors,
    pub(crate) send_keys: SendKeys,
    pub(crate) loader: Loader,
}

/// The routes, ready to be served.
pub fn router(api: Arc<Api>) -> Router {
    Context::new(api).router()
}

impl Context {
    /// An API that has not been called yet.
    #[must_use]
    pub fn new(api: Arc<Api>) -> Arc<Self> {
        Arc::new(Self {
            keyring: Keyring::default(),
            cursors: Cursors::new(&api.master),
            send_keys: api.master.send_keys(),
            loader: Loader::new(Arc::clone(&api.ledger), api.master.clone(), Arc::clone(&api.entropy)),
            api,
        })
    }

    /// The routes, ready to be served.
    pub fn router(self: &Arc<Self>) -> Router {
        let (routes, _) = openapi::described().split_for_parts();
        routes
            .route("/problems/{*slug}", get(problem::page))
            .fallback(problem::no_such_route)
            .method_not_allowed_fallback(problem::no_such_method)
            // Bodies are bounded by the readers, which know the settings and answer with a problem.
            .layer(DefaultBodyLimit::disable())
            .layer(middleware::from_fn_with_state(Arc::clone(self), system_only))
            .layer(middleware::from_fn(observe::finish_what_was_begun))
            .layer(CatchPanicLayer::custom(observe::panicked))
            .layer(middleware::from_fn_with_state(Arc::clone(self), observe::observe))
            .with_state(Arc::clone(self))
    }

    /// A key was revoked in the ledger: no call that comes from now on is taken with it.
    pub fn key_revoked(&self, id: KeyId) {
        self.keyring.forget(id);
    }
}

/// Keeps calls of the API from a process that does not have its role.
async fn system_only(State(context): State<Arc<Context>>, request: Request, next: Next) -> Response {
    let is_api = request.uri().path().starts_with("/v1/");
    if is_api && !context.api.roles.has(Role::Api) {
        let roles = &context.api.roles;
        return problem::Problem::new(
            problem::Kind::NOT_FOUND,
            format!("this process does not serve the API (its roles are {roles}); ask one that has the role api"),
        )
        .into_response();
    }
    next.run(request).await
}
