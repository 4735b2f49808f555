//! Changing the sandbox while it runs: `POST /sandbox/faults`, `POST /sandbox/refuse-key`, `POST /sandbox/callbacks`; and
//! asking it: `GET /sandbox/callbacks`, `GET /sandbox/healthz`.
//!
//! Bodies are plain text: a fault plan ([`super::Faults`]), or the providers whose key is refused from now on,
//! separated by commas, with `all` and `none` for all and none of them. That of callbacks is a URL, and on a second line a
//! plan ([`super::CallbackPlan`]) if the usual one does not do; `off` ends them.

use std::sync::atomic::Ordering;

use hyper::{Method, Request, Response, StatusCode, body::Incoming};

use super::{
    Faults, PROVIDERS,
    http::{AnswerBody, Desk, read_body},
};

/// A fault plan that names every fault of every provider is a tenth of this.
const BODY_BYTES_MAX: usize = 16 << 10;

/// Answers a request to the sandbox itself.
pub(super) async fn answer(request: Request<Incoming>, desk: &Desk) -> Response<AnswerBody> {
    let (head, body) = request.into_parts();
    match (&head.method, head.uri.path()) {
        (&Method::GET, "/sandbox/healthz") => return said(StatusCode::OK, "ok"),
        (&Method::GET, "/sandbox/callbacks") => {
            let counts = serde_json::to_string(&desk.callbacks.counts()).unwrap_or_default();
            return said(StatusCode::OK, &counts);
        }
        (&Method::POST, "/sandbox/faults" | "/sandbox/refuse-key" | "/sandbox/callbacks") => {}
        _ => {
            return said(
                StatusCode::NOT_FOUND,
                "there are GET /sandbox/healthz, GET /sandbox/callbacks, POST /sandbox/faults, POST /sandbox/refuse-key \
                 and POST /sandbox/callbacks",
            );
        }
    }
    let Some(body) = read_body(body, BODY_BYTES_MAX).await else {
        return said(StatusCode::PAYLOAD_TOO_LARGE, "the body is larger than 16 KiB");
    };
    let Ok(text) = std::str::from_utf8(&body) else {
        return said(StatusCode::BAD_REQUEST, "the body is not UTF-8 text");
    };
    let changed = match head.uri.path() {
        "/sandbox/faults" => set_faults(text, desk),
        "/sandbox/callbacks" => call_back(text, desk),
        _ => refuse_keys(text, desk),
    };
    match changed {
        Ok(()) => said(StatusCode::OK, "ok"),
        Err(wrong) => said(StatusCode::BAD_REQUEST, &wrong),
    }
}

fn set_faults(text: &str, desk: &Desk) -> Result<(), String> {
    let faults: Faults = text.parse().map_err(|error: super::FaultsError| error.to_string())?;
    desk.faults.set(faults);
    Ok(())
}

fn call_back(text: &str, desk: &Desk) -> Result<(), String> {
    let (url, plan) = text.trim().split_once('\n').unwrap_or((text.trim(), ""));
    if url == "off" {
        desk.callbacks.call_back_to(None);
        return Ok(());
    }
    if !url.starts_with("http://") && !url.starts_with("https://") {
        return Err("say where to call back: a URL, or `off`".into());
    }
    let plan = plan.parse().map_err(|error: super::CallbackPlanError| error.to_string())?;
    desk.callbacks.call_back_to(Some((url.trim().to_owned(), plan)));
    Ok(())
}

fn refuse_keys(text: &str, desk: &Desk) -> Result<(), String> {
    let words: Vec<&str> = text.split(',').map(str::trim).filter(|word| !word.is_empty()).collect();
    if words.is_empty() {
        return Err("say which providers refuse the key: names separated by commas, `all` or `none`".into());
    }
    let unknown = words.iter().find(|word| !PROVIDERS.contains(word) && !matches!(**word, "all" | "none"));
    if let Some(unknown) = unknown {
        return Err(format!("there is no provider `{unknown}`; there are: {}", PROVIDERS.join(", ")));
    }
    for (provider, refused) in PROVIDERS.iter().zip(&desk.keys_refused) {
        refused.store(words.contains(&"all") || words.contains(provider), Ordering::Relaxed);
    }
    Ok(())
}

fn said(status: StatusCode, text: &str) -> Response<AnswerBody> {
    let mut response = Response::new(AnswerBody::whole(format!("{text}\n").into()));
    *response.status_mut() = status;
    response
}
