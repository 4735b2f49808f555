//! What a handler takes out of a request: a checked body, an id of the path, parameters, an Idempotency-Key.

use std::{borrow::Cow, collections::HashMap, error::Error as _, str::FromStr, sync::Arc, time::Duration};

use aws_lc_rs::digest;
use axum::{
    body::{self, Bytes},
    extract::{FromRequest, FromRequestParts, RawPathParams, Request},
    http::{HeaderMap, header, request::Parts},
};
use dispatch_schemas::{api::problems::FieldError, ids::IdError};
use http_body_util::LengthLimitError;
use serde_json::Value;

use super::{
    Context,
    bodies::Body,
    problem::{Answer, Kind, Problem},
    shape::{self, unknown},
    strict_json,
};
use crate::ledger::Once;

/// How long a JSON body may take to arrive: 1 MiB at 100 KB/s, the slowest line worth serving.
const BODY_TIME_MAX: Duration = Duration::from_secs(10);
/// The longest Idempotency-Key taken.
const KEY_LEN_MAX: usize = 255;
/// Entries of a page when `limit` is left out.
pub const PAGE_DEFAULT: u32 = 100;
/// Entries of a page at most.
pub const PAGE_MAX: u32 = 1_000;

/// A JSON body, read strictly and checked against its shape.
#[derive(Debug)]
pub struct Json<T> {
    /// What it says.
    pub value: T,
    fingerprint: [u8; 32],
}

impl<T> Json<T> {
    /// "Do this once", when the client sent an Idempotency-Key.
    #[must_use]
    pub fn once(&self, route: &'static str, key: IdempotencyKey) -> Option<Once> {
        key.0.map(|key| Once { route, key, fingerprint: self.fingerprint })
    }
}

impl<T: Body> FromRequest<Arc<Context>> for Json<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, context: &Arc<Context>) -> Result<Self, Problem> {
        let (parts, body) = request.into_parts();
        check_json_type(&parts.headers)?;
        let bytes = collect(body, context).await?;
        let value = strict_json::read(&bytes).map_err(|error| Problem::new(Kind::MALFORMED, error.to_string()))?;
        Ok(Self { value: shaped(value)?, fingerprint: fingerprint(&parts, &bytes) })
    }
}

/// No body, or an empty object: what calls take that say all with their path.
#[derive(Debug)]
pub struct NoBody {
    fingerprint: [u8; 32],
}

impl NoBody {
    /// "Do this once", with an Idempotency-Key that must be there.
    ///
    /// # Errors
    /// When the client sent none.
    pub fn once(&self, route: &'static str, key: IdempotencyKey) -> Answer<Once> {
        let key = key.0.ok_or_else(|| {
            Problem::new(
                Kind::KEY_REQUIRED,
                "send a header `Idempotency-Key` with a value of your own, such as a UUID: it makes a repeat harmless",
            )
        })?;
        Ok(Once { route, key, fingerprint: self.fingerprint })
    }
}

impl FromRequest<Arc<Context>> for NoBody {
    type Rejection = Problem;

    async fn from_request(request: Request, context: &Arc<Context>) -> Result<Self, Problem> {
        let (parts, body) = request.into_parts();
        let bytes = collect(body, context).await?;
        if !matches!(bytes.trim_ascii(), b"" | b"{}") {
            return Err(Problem::new(Kind::MALFORMED, "this call takes no body; send none"));
        }
        Ok(Self { fingerprint: fingerprint(&parts, b"") })
    }
}

/// A JSON body that may be left out: then it is the type's default.
#[derive(Debug)]
pub struct OptionalJson<T>(pub T);

impl<T: Body + Default> FromRequest<Arc<Context>> for OptionalJson<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, context: &Arc<Context>) -> Result<Self, Problem> {
        let (parts, body) = request.into_parts();
        let bytes = collect(body, context).await?;
        if bytes.trim_ascii().is_empty() {
            return Ok(Self(T::default()));
        }
        check_json_type(&parts.headers)?;
        let value = strict_json::read(&bytes).map_err(|error| Problem::new(Kind::MALFORMED, error.to_string()))?;
        shaped(value).map(Self)
    }
}

/// Checks a value against its type's shape and reads it.
pub(super) fn shaped<T: Body>(value: Value) -> Answer<T> {
    let errors = shape::check(&T::SHAPE, &value);
    if !errors.is_empty() {
        return Err(Problem::invalid(errors));
    }
    // A shape lets through only what its type takes. serde's own error is not passed on: it may quote a value.
    serde_json::from_value(value)
        .map_err(|_| Problem::invalid_at("", "the body does not have the form that `/openapi.json` describes"))
}

async fn collect(body: body::Body, context: &Context) -> Answer<Bytes> {
    let limit = context.api.bounds.body_bytes_max;
    match tokio::time::timeout(BODY_TIME_MAX, body::to_bytes(body, limit)).await {
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(error)) if is_too_long(&error) => {
            Err(Problem::new(Kind::TOO_LARGE, format!("the body may have at most {limit} bytes; split it")))
        }
        Ok(Err(_)) => Err(Problem::new(Kind::MALFORMED, "the body ended before it was complete; send it again")),
        Err(_) => Err(Problem::new(
            Kind::TIMEOUT,
            format!("the body did not arrive within {} s; send it again", BODY_TIME_MAX.as_secs()),
        )),
    }
}

fn is_too_long(error: &axum::Error) -> bool {
    error.source().and_then(|source| source.downcast_ref::<LengthLimitError>()).is_some()
}

fn check_json_type(headers: &HeaderMap) -> Answer<()> {
    if media_type(headers) != Some("application/json") {
        return Err(Problem::new(Kind::MEDIA_TYPE, "send the body with `Content-Type: application/json`"));
    }
    refuse_content_encoding(headers)
}

/// The media type of a body, lower case, without its parameters.
pub(super) fn media_type(headers: &HeaderMap) -> Option<&str> {
    const KNOWN: [&str; 4] = ["application/json", "text/csv", "text/plain", "application/octet-stream"];
    let text = headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
    let essence = text.split(';').next().unwrap_or_default().trim();
    KNOWN.into_iter().find(|known| known.eq_ignore_ascii_case(essence))
}

/// Refuses compressed bodies: 10 MB of them may be 10 GB.
pub(super) fn refuse_content_encoding(headers: &HeaderMap) -> Answer<()> {
    match headers.get(header::CONTENT_ENCODING) {
        Some(encoding) if !encoding.as_bytes().eq_ignore_ascii_case(b"identity") => {
            Err(Problem::new(Kind::MEDIA_TYPE, "compressed bodies are not taken; send it as it is"))
        }
        _ => Ok(()),
    }
}

fn fingerprint(parts: &Parts, body: &[u8]) -> [u8; 32] {
    let mut context = digest::Context::new(&digest::SHA256);
    for part in [parts.method.as_str().as_bytes(), b" ", parts.uri.path().as_bytes(), b"\n", body] {
        context.update(part);
    }
    let mut fingerprint = [0; 32];
    fingerprint.copy_from_slice(context.finish().as_ref());
    fingerprint
}

/// The Idempotency-Key of a request, when there is one.
#[derive(Debug)]
pub struct IdempotencyKey(Option<String>);

impl<S: Sync> FromRequestParts<S> for IdempotencyKey {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let mut all = parts.headers.get_all("idempotency-key").iter();
        let (first, second) = (all.next(), all.next());
        let Some(key) = first else { return Ok(Self(None)) };
        let key = key.as_bytes();
        let is_visible = key.iter().all(u8::is_ascii_graphic);
        match std::str::from_utf8(key) {
            Ok(text) if second.is_none() && is_visible && (1..=KEY_LEN_MAX).contains(&key.len()) => {
                Ok(Self(Some(text.to_owned())))
            }
            _ => Err(Problem::new(
                Kind::KEY_FORM,
                format!("an Idempotency-Key is sent once and has 1 to {KEY_LEN_MAX} visible ASCII characters"),
            )),
        }
    }
}

/// The id in the path. One that cannot be an id of this kind names nothing.
#[derive(Debug)]
pub struct Id<T>(pub T);

impl<S: Send + Sync, T: FromStr<Err = IdError>> FromRequestParts<S> for Id<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let nothing = |why: &str| Problem::new(Kind::NOT_FOUND, format!("there is no such thing: {why}"));
        let params =
            RawPathParams::from_request_parts(parts, state).await.map_err(|_| nothing("the path is not text"))?;
        let (_, text) = params.iter().next().ok_or_else(|| nothing("an id is missing in the path"))?;
        text.parse().map(Self).map_err(|error: IdError| nothing(&error.to_string()))
    }
}

/// The query's parameters, each at most once.
#[derive(Debug, Default)]
pub struct Parameters {
    given: HashMap<String, String>,
    errors: Vec<FieldError>,
    known: Vec<&'static str>,
}

impl<S: Sync> FromRequestParts<S> for Parameters {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        Ok(Self::read(parts.uri.query().unwrap_or_default()))
    }
}

impl Parameters {
    fn read(query: &str) -> Self {
        let mut parameters = Self::default();
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            if parameters.given.insert(name.clone().into_owned(), value.into_owned()).is_some() {
                parameters.errors.push(FieldError::new(shown(&name), "it is given twice; give it once"));
            }
        }
        parameters
    }

    /// Takes a parameter's text.
    pub fn text(&mut self, name: &'static str) -> Option<String> {
        self.known.push(name);
        self.given.remove(name)
    }

    /// Takes all parameters whose name begins like this; without that beginning.
    pub fn beginning_with(&mut self, beginning: &'static str) -> Vec<(String, String)> {
        self.known.push(beginning);
        let names: Vec<String> = self.given.keys().filter(|name| name.starts_with(beginning)).cloned().collect();
        names
            .into_iter()
            .filter_map(|name| {
                let value = self.given.remove(&name)?;
                Some((name.get(beginning.len()..)?.to_owned(), value))
            })
            .collect()
    }

    /// Takes a parameter of a type; `wanted` says what the type takes, should it not be that.
    pub fn parsed<T: FromStr>(&mut self, name: &'static str, wanted: &str) -> Option<T> {
        let text = self.text(name)?;
        let parsed = text.parse().ok();
        if parsed.is_none() {
            self.errors.push(FieldError::new(name, wanted));
        }
        parsed
    }

    /// Takes the size of a page.
    pub fn limit(&mut self) -> u32 {
        let wanted = format!("a number from 1 to {PAGE_MAX} is wanted");
        let limit = self.parsed("limit", &wanted).unwrap_or(PAGE_DEFAULT);
        if !(1..=PAGE_MAX).contains(&limit) {
            self.errors.push(FieldError::new("limit", wanted));
        }
        limit
    }

    /// Ends the taking.
    ///
    /// # Errors
    /// When a parameter was wrong, or is left that nothing asked for.
    pub fn finish(mut self) -> Answer<()> {
        for name in self.given.keys() {
            self.errors.push(FieldError::new(shown(name), unknown(name, self.known.iter().copied())));
        }
        if self.errors.is_empty() { Ok(()) } else { Err(Problem::invalid(self.errors)) }
    }
}

fn shown(name: &str) -> Cow<'_, str> {
    if strict_json::is_plain_name(name) { Cow::Borrowed(name) } else { Cow::Borrowed("…") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(query: &str) -> String {
        let mut parameters = Parameters::read(query);
        let _ = (parameters.text("cursor"), parameters.limit());
        parameters.finish().unwrap_err().document().detail
    }

    #[test]
    fn parameters_are_known_given_once_and_in_range() {
        assert!(problem("limt=5").contains("did you mean `limit`?"));
        assert!(problem("cursor=a&cursor=b").contains("given twice"));
        for limit in ["0", "1001", "-1", "ten", "99999999999", ""] {
            assert!(problem(&format!("limit={limit}")).contains("1 to 1000"), "{limit}");
        }
        assert!(!problem("anna%40example.org=1").contains("anna"));
    }
}
