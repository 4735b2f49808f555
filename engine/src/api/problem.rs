//! How the API says no: one catalogue of problems, each served at its own address.

use axum::{
    extract::Path,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use dispatch_schemas::api::problems::{FieldError, ProblemDocument};

use crate::ledger::LedgerError;

/// A kind of problem.
#[derive(Debug, PartialEq, Eq)]
pub struct Kind {
    /// The last part of its address, `/problems/…`.
    pub slug: &'static str,
    /// The HTTP status it is sent with.
    pub status: StatusCode,
    /// The kind in words.
    pub title: &'static str,
    /// What it means and what to do, for its page.
    pub about: &'static str,
}

macro_rules! kinds {
    ($($name:ident = $slug:literal, $status:ident, $title:literal, $about:literal;)+) => {
        impl Kind {
            $(#[doc = $title] pub const $name: &Self =
                &Self { slug: $slug, status: StatusCode::$status, title: $title, about: $about };)+

            /// All there are.
            pub const ALL: &[&Self] = &[$(Self::$name),+];
        }
    };
}

kinds! {
    NOT_AUTHENTICATED = "not-authenticated", UNAUTHORIZED, "The API key is missing or not taken",
        "Send `Authorization: Bearer dsp_live_…` with a key that is whole, not expired and not revoked. \
         `dispatch keys create` makes one. The answer is the same whatever is wrong with the key.";
    NOT_PERMITTED = "not-permitted", FORBIDDEN, "The API key may not do this",
        "Every key has permissions (read, write, send, erase), and none implies another. Use a key that has the one \
         the detail names, or make one with `dispatch keys create`.";
    TENANT_CLOSED = "tenant-closed", FORBIDDEN, "The tenant is closed",
        "Whoever runs this installation has closed the tenant, for the reason in the detail. Nothing of it is sent, and \
         nothing that sends can be made, launched, resumed or retried. Everything can still be read, stopped, \
         suppressed and erased. When it is opened, its campaigns go on where they were.";
    KEY_IN_URL = "key-in-url", BAD_REQUEST, "An API key does not belong in a URL",
        "URLs end up in logs, histories and proxies. Revoke that key, make a new one, and send it in the \
         Authorization header.";
    TOO_MANY_FAILURES = "too-many-failures", TOO_MANY_REQUESTS, "Too many wrong API keys from here",
        "After several keys that were not taken, further unknown keys from the same address are refused for some \
         seconds. Wait as long as Retry-After says.";
    NOT_FOUND = "not-found", NOT_FOUND, "There is no such thing",
        "It does not exist, or belongs to another tenant. Check the id and the key's tenant.";
    METHOD = "method-not-allowed", METHOD_NOT_ALLOWED, "This address does not take that method",
        "The Allow header lists the methods it takes; `/openapi.json` describes them.";
    MALFORMED = "malformed-request", BAD_REQUEST, "The request cannot be read",
        "The body is not what its headers say, or was cut short. Nothing was changed; mend the request and send it \
         again.";
    INVALID = "validation-failed", UNPROCESSABLE_ENTITY, "The request is not valid",
        "`errors` lists each place that is wrong: a JSON pointer into the body, or the name of a parameter. Nothing \
         was changed.";
    CURSOR = "cursor-invalid", BAD_REQUEST, "The cursor is not one of ours",
        "Hand back `next_cursor` unchanged, with the same path and filters it was given for. Start again without a \
         cursor otherwise.";
    TOO_LARGE = "too-large", PAYLOAD_TOO_LARGE, "The body is too large",
        "JSON bodies may have 1 MiB; contacts go through an upload, which may be far larger. Split what is larger \
         still.";
    MEDIA_TYPE = "media-type", UNSUPPORTED_MEDIA_TYPE, "The body is of a type that is not taken",
        "Send `Content-Type: application/json` with JSON, `text/csv` with an upload, and no Content-Encoding.";
    TIMEOUT = "body-timeout", REQUEST_TIMEOUT, "The body took too long to arrive",
        "Nothing was changed. Send the request again over a steadier connection.";
    KEY_REQUIRED = "idempotency-key-required", BAD_REQUEST, "This call needs an Idempotency-Key",
        "Send a header `Idempotency-Key` with 1 to 255 visible ASCII characters of your choice, such as a UUID, new \
         for each thing you want done. A repeat with the same key returns the first answer and does nothing again.";
    KEY_FORM = "idempotency-key-invalid", BAD_REQUEST, "The Idempotency-Key cannot be used",
        "It must be sent once and have 1 to 255 visible ASCII characters.";
    KEY_REUSED = "idempotency-key-reused", UNPROCESSABLE_ENTITY, "The Idempotency-Key was used for something else",
        "The same key came before with another body. Use a new key for a new request.";
    TEMPLATE = "template-invalid", UNPROCESSABLE_ENTITY, "The template cannot be used",
        "The detail names the part, the line and what is wrong. `POST /v1/templates/validate` checks without storing.";
    UNSUPPLIED = "template-variable-unknown", UNPROCESSABLE_ENTITY, "No list has a variable of the template",
        "Every recipient would fail for want of a value. Correct the variable's name, give it a default under \
         `defaults` or with `{{ x | default('…') }}`, or map a column to it when uploading the list. \
         `GET /v1/lists/{id}` says which fields a list has.";
    IMPORT = "import-refused", UNPROCESSABLE_ENTITY, "The upload cannot be imported",
        "The file as a whole cannot be read, as the detail says. Nothing of it was kept.";
    CONFLICT = "conflict", CONFLICT, "The thing is in a state that does not allow this",
        "Kinds under this one name the state. Look at the thing as it is now, then decide.";
    UNAVAILABLE = "unavailable", SERVICE_UNAVAILABLE, "The engine cannot do this now",
        "Nothing was changed. Try again after the time that Retry-After gives; with an Idempotency-Key it is safe \
         for every call.";
    INTERNAL = "internal", INTERNAL_SERVER_ERROR, "A fault of the engine",
        "Try again; with an Idempotency-Key it is safe for every call. If it stays, report it with the X-Request-Id.";
}

/// Seconds after which an unavailable ledger is worth another try: most reasons (a lock, a restart) are over by then.
const RETRY_AFTER_S: u32 = 2;

/// A refusal, on its way to the client.
#[derive(Debug, PartialEq, Eq)]
pub struct Problem {
    kind: &'static Kind,
    /// A narrower kind below [`Kind::CONFLICT`].
    code: Option<&'static str>,
    detail: String,
    errors: Vec<FieldError>,
    retry_after_s: Option<u32>,
}

/// What a route returns.
pub type Answer<T = Response> = Result<T, Problem>;

impl Problem {
    /// A problem of a kind, with what happened and what to do.
    pub fn new(kind: &'static Kind, detail: impl Into<String>) -> Self {
        Self { kind, code: None, detail: detail.into(), errors: Vec::new(), retry_after_s: None }
    }

    /// A request with wrong places.
    #[must_use]
    pub fn invalid(errors: Vec<FieldError>) -> Self {
        let detail = match errors.as_slice() {
            [one] if one.pointer.is_empty() => one.detail.clone(),
            [one] => format!("{}: {}", one.pointer, one.detail),
            _ => format!("{} places are wrong; `errors` lists them", errors.len()),
        };
        Self::invalid_because(detail, errors)
    }

    /// A request with wrong places, of which the caller can say more.
    pub fn invalid_because(detail: impl Into<String>, errors: Vec<FieldError>) -> Self {
        Self { errors, ..Self::new(Kind::INVALID, detail) }
    }

    /// A request with one wrong place.
    pub fn invalid_at(pointer: &str, detail: impl Into<String>) -> Self {
        Self::invalid(vec![FieldError::new(pointer, detail)])
    }

    /// Adds what the refusal comes to, for calls whose client must not believe that a part was done.
    #[must_use]
    pub fn and_so(mut self, consequence: &str) -> Self {
        self.detail = format!("{}; {consequence}", self.detail);
        self
    }

    /// Adds when to try again.
    #[must_use]
    pub const fn retry_after(mut self, seconds: u32) -> Self {
        self.retry_after_s = Some(seconds);
        self
    }

    /// What kind it is.
    #[must_use]
    pub const fn kind(&self) -> &'static Kind {
        self.kind
    }

    /// The document the client gets.
    #[must_use]
    pub fn document(&self) -> ProblemDocument {
        let kind = match self.code {
            Some(code) => format!("/problems/{}/{}", self.kind.slug, code.replace('_', "-")),
            None => format!("/problems/{}", self.kind.slug),
        };
        ProblemDocument {
            kind,
            title: self.kind.title.to_owned(),
            status: self.kind.status.as_u16(),
            detail: self.detail.clone(),
            errors: self.errors.clone(),
        }
    }
}

impl From<LedgerError> for Problem {
    fn from(error: LedgerError) -> Self {
        match error {
            LedgerError::NotFound(what) => Self::new(Kind::NOT_FOUND, format!("there is no such {what}")),
            LedgerError::Conflict { code, message } => Self { code: Some(code), ..Self::new(Kind::CONFLICT, message) },
            LedgerError::TenantClosed { .. } => Self::new(Kind::TENANT_CLOSED, error.to_string()),
            LedgerError::KeyReused => Self::new(Kind::KEY_REUSED, LedgerError::KeyReused.to_string()),
            LedgerError::Unavailable(_) | LedgerError::Contended => {
                tracing::warn!(%error, "the ledger refused an API call");
                Self::new(Kind::UNAVAILABLE, "the ledger cannot be used now; nothing was changed, try again")
                    .retry_after(RETRY_AFTER_S)
            }
            LedgerError::Disconnected => {
                tracing::warn!(%error, "the ledger did not answer an API call");
                Self::new(
                    Kind::UNAVAILABLE,
                    "the ledger did not answer; whether the call took effect is not known: look, or send it again \
                     with the same Idempotency-Key",
                )
                .retry_after(RETRY_AFTER_S)
            }
            LedgerError::InUse(_) | LedgerError::Open(_) | LedgerError::NotMade(_) | LedgerError::Corrupt(_) => {
                tracing::error!(%error, "an API call failed");
                Self::new(Kind::INTERNAL, "the ledger could not be read; the engine's log says more")
            }
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        // Strings and numbers always serialize; the fallback keeps the status should that ever change.
        let body = serde_json::to_vec(&self.document()).unwrap_or_default();
        let mut response = (self.kind.status, body).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if self.kind.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"dispatch\""));
        }
        if let Some(seconds) = self.retry_after_s {
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
        response
    }
}

/// Answers a path that does not exist.
pub(super) async fn no_such_route() -> Problem {
    Problem::new(Kind::NOT_FOUND, "there is nothing at this address; `/openapi.json` lists what there is")
}

/// Answers a method the path does not take.
pub(super) async fn no_such_method() -> Problem {
    Problem::new(Kind::METHOD, "this address does not take that method; the Allow header lists those it takes")
}

/// The page of a kind of problem, as plain text.
pub(super) async fn page(Path(slug): Path<String>) -> Answer {
    let kind = slug.split('/').next().unwrap_or_default();
    let kind = Kind::ALL
        .iter()
        .find(|known| known.slug == kind)
        .ok_or_else(|| Problem::new(Kind::NOT_FOUND, "there is no problem of this name"))?;
    let text = format!("{}\n\nStatus: {}\n\n{}\n", kind.title, kind.status, kind.about);
    Ok(([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], text).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_is_a_document_of_rfc_9457() {
        let problem = Problem::invalid(vec![
            FieldError::new("/name", "it is missing"),
            FieldError::new("/lists/0", "an id that begins with `lst_` is wanted here"),
        ]);
        let expected = serde_json::json!({
            "type": "/problems/validation-failed",
            "title": "The request is not valid",
            "status": 422,
            "detail": "2 places are wrong; `errors` lists them",
            "errors": [
                {"pointer": "/name", "detail": "it is missing"},
                {"pointer": "/lists/0", "detail": "an id that begins with `lst_` is wanted here"},
            ],
        });
        assert_eq!(serde_json::to_value(problem.document()).unwrap(), expected);
        let response = problem.into_response();
        assert_eq!(response.status(), 422);
        assert_eq!(response.headers()[header::CONTENT_TYPE], "application/problem+json");
    }

    #[test]
    fn every_refusal_of_the_ledger_has_its_problem() {
        let problem = |error: LedgerError| Problem::from(error).document();
        assert_eq!(problem(LedgerError::NotFound("campaign")).status, 404);
        let closed = problem(LedgerError::TenantClosed { reason: "unpaid".to_owned() });
        assert_eq!((closed.status, closed.kind.as_str()), (403, "/problems/tenant-closed"));
        assert!(closed.detail.contains("unpaid"));
        assert_eq!(problem(LedgerError::KeyReused).kind, "/problems/idempotency-key-reused");
        let conflict = problem(LedgerError::conflict("not_draft", "it was launched before"));
        assert_eq!((conflict.status, conflict.kind.as_str()), (409, "/problems/conflict/not-draft"));
        assert_eq!(conflict.detail, "it was launched before");
        let busy = Problem::from(LedgerError::Unavailable("locked".to_owned())).into_response();
        assert_eq!(busy.status(), 503);
        assert_eq!(busy.headers()[header::RETRY_AFTER], "2");
        assert_eq!(problem(LedgerError::Corrupt("a column")).status, 500);
    }

    #[test]
    fn kinds_have_addresses_of_their_own_and_say_what_to_do() {
        let mut slugs: Vec<&str> = Kind::ALL.iter().map(|kind| kind.slug).collect();
        slugs.sort_unstable();
        slugs.dedup();
        assert_eq!(slugs.len(), Kind::ALL.len());
        assert!(Kind::ALL.iter().all(|kind| kind.about.len() > 40 && kind.status.as_u16() >= 400));
    }
}
