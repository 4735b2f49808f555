//! An answer, read with a bound.

use reqwest::{
    Response,
    header::{CONTENT_TYPE, HeaderMap},
};

/// Longest id of a provider that is kept.
const ID_BYTES_MAX: usize = 200;

/// The bytes of an answer that are read, for a request of `recipients`: 64 KiB, and 1 KiB for each recipient, because
/// providers answer for each with an id or a status of up to some hundred bytes.
pub(in crate::providers) const fn answer_bytes_max(recipients: usize) -> usize {
    (64 + recipients) * 1024
}

/// An answer: its status, its headers, and its body when that came whole and within bounds. May quote an address, so
/// it has no `Debug`.
pub(in crate::providers) struct Reply {
    pub(in crate::providers) status: u16,
    pub(in crate::providers) headers: HeaderMap,
    /// `None` when it was too long, or broke off.
    pub(in crate::providers) body: Option<Vec<u8>>,
}

impl Reply {
    pub(super) async fn read(mut response: Response, bytes_max: usize) -> Self {
        let status = response.status().as_u16();
        let headers = std::mem::take(response.headers_mut());
        let mut body = Vec::new();
        let body = loop {
            match response.chunk().await {
                Ok(Some(chunk)) if body.len() + chunk.len() <= bytes_max => body.extend_from_slice(&chunk),
                Ok(None) => break Some(body),
                Ok(Some(_)) | Err(_) => break None,
            }
        };
        Self { status, headers, body }
    }

    /// Whether it is a 2xx.
    pub(in crate::providers) const fn is_success(&self) -> bool {
        matches!(self.status, 200..=299)
    }

    /// Whether it is a web page: from something between us and the provider, not from its API.
    pub(in crate::providers) fn is_web_page(&self) -> bool {
        self.headers
            .get(CONTENT_TYPE)
            .and_then(|value| value.to_str().ok())
            .is_some_and(|kind| kind.trim_start().get(..9).is_some_and(|kind| kind.eq_ignore_ascii_case("text/html")))
    }

    /// The body, when it is the JSON that is expected.
    pub(in crate::providers) fn json<'a, T: serde::Deserialize<'a>>(&'a self) -> Option<T> {
        serde_json::from_slice(self.body.as_deref()?).ok()
    }
}

/// An id from a provider, when it is one that can be kept: visible ASCII, not empty, not endless.
pub(in crate::providers) fn bounded_id(text: &str) -> Option<String> {
    let keepable = (1..=ID_BYTES_MAX).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic());
    keepable.then(|| text.to_owned())
}
