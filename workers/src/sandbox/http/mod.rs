//! The mechanism the HTTP fakes share: connections, the way of a request, and what a fault does to its answer.

mod body;

use std::{
    convert::Infallible,
    fmt, io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

pub(super) use body::AnswerBody;
use body::TooLarge;
use bytes::Bytes;
use hyper::{
    Method, Request, Response, StatusCode,
    body::Incoming,
    header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use secrecy::{ExposeSecret as _, SecretString};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::JoinSet,
};

use super::{
    Fault, FaultPlan as _, Observation, PROVIDERS, SeededFaults, Witness,
    brevo::{BrevoEmail, BrevoSms},
    callbacks::Callbacks,
    control,
    fake::{ApiAnswer, Fake, Now, Refusal, Seen, header},
    infobip::Infobip,
    sendgrid::SendGrid,
    witness::WitnessVerdict,
};
use crate::clock::Clock;

/// Most connections open at once; each has one request in flight. More wait to be accepted.
const CONNECTIONS_MAX: usize = 4096;

/// How long a connection may wait for the head of a request, and a head for its body. Longer than clients keep idle
/// connections, so that none is closed under a request that has just been sent.
const READ_TIMEOUT: Duration = Duration::from_secs(600);

/// How long to wait when a connection cannot be accepted, which is when the process has no descriptors left.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

/// What the connections share.
pub(super) struct Desk {
    pub(super) api_key: SecretString,
    /// Which of [`PROVIDERS`] refuse the key for now.
    pub(super) keys_refused: [AtomicBool; PROVIDERS.len()],
    pub(super) witness: Arc<dyn Witness>,
    pub(super) faults: Arc<SeededFaults>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) slow: Duration,
    pub(super) sendgrid: SendGrid,
    pub(super) brevo: BrevoEmail,
    pub(super) brevo_sms: BrevoSms,
    pub(super) infobip: Infobip,
    pub(super) callbacks: Arc<Callbacks>,
}

impl Desk {
    fn now(&self) -> Now {
        now(self.clock.as_ref())
    }

    fn takes_key<F: Fake>(&self, headers: &HeaderMap) -> bool {
        let provider = PROVIDERS.iter().position(|known| *known == F::PROVIDER);
        let refused = provider.is_some_and(|at| self.keys_refused[at].load(Ordering::Relaxed));
        !refused && F::key(headers) == Some(self.api_key.expose_secret())
    }

    /// Logs a request; without its line on disk it may not be answered.
    async fn log(&self, seen: Observation) -> Result<(), Dropped> {
        self.witness.log(seen).await.map_err(|error| {
            tracing::error!(%error, "the witness cannot log; the request is not answered");
            Dropped
        })
    }
}

/// What a clock says now.
pub(super) fn now(clock: &dyn Clock) -> Now {
    Now { wall_ms: clock.now_ms(), monotonic: clock.monotonic() }
}

/// The connection closes without an answer.
#[derive(Debug)]
struct Dropped;

impl fmt::Display for Dropped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("dropped without an answer")
    }
}

impl std::error::Error for Dropped {}

/// Answers requests on `listener` until dropped.
pub(super) async fn serve(listener: TcpListener, desk: Arc<Desk>) -> Result<Infallible, io::Error> {
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let place = room.clone().acquire_owned().await.map_err(io::Error::other)?;
        match listener.accept().await {
            Ok((stream, _)) => {
                let desk = desk.clone();
                connections.spawn(async move {
                    serve_connection(stream, &desk).await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "the sandbox cannot accept a connection; trying again");
                tokio::time::sleep(ACCEPT_AGAIN).await;
            }
        }
    }
}

async fn serve_connection(stream: TcpStream, desk: &Desk) {
    // Without it an answer in two packets waits 40 ms for the first one's acknowledgement. Where it cannot be set the
    // peer has gone already.
    let _ = stream.set_nodelay(true);
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(READ_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service_fn(|request| route(request, desk)));
    // Ends in an error where a fault drops the connection, or where the client has gone. Both are no one's concern.
    let _ = connection.await;
}

async fn route(request: Request<Incoming>, desk: &Desk) -> Result<Response<AnswerBody>, Dropped> {
    let path = request.uri().path();
    match path {
        "/v3/mail/send" => send(&desk.sendgrid, request, desk).await,
        "/v3/smtp/email" => send(&desk.brevo, request, desk).await,
        "/v3/transactionalSMS/send" => send(&desk.brevo_sms, request, desk).await,
        "/sms/3/messages" => send(&desk.infobip, request, desk).await,
        "/v3/smtp/statistics/events" => Ok(look_up::<BrevoEmail>(&request, desk, |query| desk.brevo.events(query))),
        "/v3/transactionalSMS/statistics/events" => {
            Ok(look_up::<BrevoSms>(&request, desk, |query| desk.brevo_sms.events(query)))
        }
        "/sms/3/logs" => Ok(look_up::<Infobip>(&request, desk, |query| desk.infobip.logs(query, desk.now()))),
        "/sms/3/reports" => Ok(look_up::<Infobip>(&request, desk, |query| desk.infobip.reports(query))),
        _ if path.starts_with("/sandbox/") => Ok(control::answer(request, desk).await),
        _ if path.starts_with("/v3/smtp") => Ok(respond(BrevoEmail::refuse(Refusal::Path, desk.now()))),
        _ if path.starts_with("/v3/transactionalSMS") => Ok(respond(BrevoSms::refuse(Refusal::Path, desk.now()))),
        _ if path.starts_with("/sms") => Ok(respond(Infobip::refuse(Refusal::Path, desk.now()))),
        _ => Ok(respond(SendGrid::refuse(Refusal::Path, desk.now()))),
    }
}

/// The way of a request to send: read, judge, log, and only then answer.
async fn send<F: Fake>(fake: &F, request: Request<Incoming>, desk: &Desk) -> Result<Response<AnswerBody>, Dropped> {
    let (head, body) = request.into_parts();
    let body = read(body, F::BODY_BYTES_MAX).await?;
    let now = desk.now();
    let judged = match (refused_at_the_door::<F>(&head.method, &head.headers, desk), body) {
        (Some(refusal), _) => Judged::refused::<F>(refusal, now),
        (None, Err(TooLarge)) => Judged::refused::<F>(Refusal::TooLarge, now),
        (None, Ok(body)) => judge(fake, &body, desk, now),
    };
    let Judged { seen, answer, fault } = judged;
    let drops = matches!(fault, Fault::AcceptThenDrop | Fault::DropBefore);
    desk.log(Observation {
        provider: F::PROVIDER,
        token: seen.token,
        batch_key: seen.batch_key,
        mode: fault.mode(),
        status: if drops { 0 } else { answer.status.as_u16() },
        recipients: seen.recipients,
    })
    .await?;
    match fault {
        Fault::AcceptThenDrop | Fault::DropBefore => Err(Dropped),
        Fault::AcceptSlow => {
            tokio::time::sleep(desk.slow).await;
            Ok(respond(answer))
        }
        Fault::HalfAnswer => Ok(respond_by_half(answer)),
        _ => Ok(respond(answer)),
    }
}

async fn read(body: Incoming, bytes_max: usize) -> Result<Result<Bytes, TooLarge>, Dropped> {
    match tokio::time::timeout(READ_TIMEOUT, body::read(body, bytes_max)).await {
        Ok(Ok(body)) => Ok(body),
        Ok(Err(_)) | Err(_) => Err(Dropped),
    }
}

/// Reads the body of a request to the sandbox itself; none where it is too large or breaks off.
pub(super) async fn read_body(body: Incoming, bytes_max: usize) -> Option<Bytes> {
    read(body, bytes_max).await.ok()?.ok()
}

fn refused_at_the_door<F: Fake>(method: &Method, headers: &HeaderMap, desk: &Desk) -> Option<Refusal> {
    if !desk.takes_key::<F>(headers) {
        Some(Refusal::Key)
    } else if method != Method::POST {
        Some(Refusal::Method)
    } else if !is_json(headers) {
        Some(Refusal::MediaType)
    } else {
        None
    }
}

/// JSON in UTF-8, not compressed: vendors that know compression want it agreed on first.
fn is_json(headers: &HeaderMap) -> bool {
    let Some(media_type) = header(headers, CONTENT_TYPE.as_str()) else { return false };
    let (essence, parameters) = media_type.split_once(';').unwrap_or((media_type, ""));
    let parameters = parameters.trim();
    essence.trim().eq_ignore_ascii_case("application/json")
        && (parameters.is_empty() || parameters.eq_ignore_ascii_case("charset=utf-8"))
        && !headers.contains_key(CONTENT_ENCODING)
}

struct Judged {
    seen: Seen,
    answer: ApiAnswer,
    fault: Fault,
}

impl Judged {
    fn refused<F: Fake>(refusal: Refusal, now: Now) -> Self {
        Self { seen: Seen::default(), answer: F::refuse(refusal, now), fault: Fault::None }
    }
}

/// What becomes of a request that may be read. A fault is drawn only for one the vendor would have taken.
fn judge<F: Fake>(fake: &F, body: &Bytes, desk: &Desk, now: Now) -> Judged {
    let read = std::str::from_utf8(body).ok().and_then(|text| serde_json::from_str::<F::Send<'_>>(text).ok());
    let Some(send) = read else { return Judged::refused::<F>(Refusal::Unreadable, now) };
    let mut seen = F::seen(&send, desk.witness.as_ref());
    if let Err(answer) = F::check(&send, now) {
        return Judged { seen, answer, fault: Fault::None };
    }
    let fault = desk.faults.draw(F::PROVIDER);
    let taken = |answer: ApiAnswer, seen: &Seen| {
        let sent = F::sent(&send, &answer).into_iter().zip(&seen.recipients);
        let accepted = sent.filter(|(_, recipient)| recipient.verdict == WitnessVerdict::Accepted);
        desk.callbacks.taken(F::PROVIDER, accepted.map(|(sent, _)| sent), now);
        answer
    };
    let answer = match fault {
        Fault::None | Fault::AcceptThenDrop | Fault::AcceptSlow | Fault::HalfAnswer => {
            let answer = fake.accept(&send, &mut seen.recipients, now);
            taken(answer, &seen)
        }
        Fault::FailAfterAccept => {
            let answer = fake.accept(&send, &mut seen.recipients, now);
            taken(answer, &seen);
            F::refuse(Refusal::Internal, now)
        }
        Fault::Garbage => {
            let answer = fake.accept(&send, &mut seen.recipients, now);
            taken(answer, &seen);
            garbage()
        }
        Fault::Refuse => F::refuse(Refusal::Drawn, now),
        Fault::Throttle => F::refuse(Refusal::Throttled, now),
        Fault::Unavailable => F::refuse(Refusal::Unavailable, now),
        Fault::FailBefore | Fault::DropBefore => F::refuse(Refusal::Internal, now),
    };
    Judged { seen, answer, fault }
}

/// What something between us and a provider might answer with.
fn garbage() -> ApiAnswer {
    let page = ApiAnswer {
        body: Bytes::from_static(b"<html><body><h1>It works!</h1></body></html>"),
        ..ApiAnswer::empty(StatusCode::OK)
    };
    page.with(CONTENT_TYPE, HeaderValue::from_static("text/html"))
}

/// Answers a question about what was sent. Nothing is sent by it, so the log has no line of it.
fn look_up<F: Fake>(
    request: &Request<Incoming>,
    desk: &Desk,
    answer: impl FnOnce(&str) -> ApiAnswer,
) -> Response<AnswerBody> {
    respond(if !desk.takes_key::<F>(request.headers()) {
        F::refuse(Refusal::Key, desk.now())
    } else if request.method() != Method::GET {
        F::refuse(Refusal::Method, desk.now())
    } else {
        answer(request.uri().query().unwrap_or(""))
    })
}

fn respond(answer: ApiAnswer) -> Response<AnswerBody> {
    with_body(answer, AnswerBody::whole)
}

fn respond_by_half(answer: ApiAnswer) -> Response<AnswerBody> {
    with_body(answer, AnswerBody::half)
}

fn with_body(answer: ApiAnswer, body: impl FnOnce(Bytes) -> AnswerBody) -> Response<AnswerBody> {
    let mut response = Response::new(body(answer.body));
    *response.status_mut() = answer.status;
    response.headers_mut().extend(answer.headers);
    response
}
