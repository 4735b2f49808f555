//! Uploads of contacts.

use std::{io, sync::Arc, time::Duration};

use axum::{
    body::{Body, BodyDataStream},
    extract::State,
    http::HeaderMap,
};
use bytes::Bytes;
use dispatch_schemas::{
    api::{
        imports::Mapping,
        lists::Import,
        problems::{FieldError, ProblemDocument},
    },
    ids::{ImportId, ListId},
};
use futures_util::{
    StreamExt as _,
    stream::{self, BoxStream},
};
use tokio::sync::mpsc;

use super::{created, found};
use crate::{
    api::{
        Context,
        authentication::{Caller, Read, Write},
        problem::{Answer, Kind, Problem},
        request::{self, Id, Parameters},
        strict_json,
    },
    import::loading::LoadError,
    ledger::Replayable,
};

/// How long an upload may stand still before it counts as cut.
const QUIET_MAX: Duration = Duration::from_secs(60);
/// Chunks read ahead of the import: some hundred KB, enough for neither side to wait for the other.
const CHUNKS_AHEAD: usize = 8;
/// Bytes still read of an upload that was refused, so that the client gets to read the answer instead of a broken
/// connection. A client that sends on past this is cut off.
const DRAIN_BYTES_MAX: u64 = 64 << 20;
/// The most a mapping in a header may take: it shares the room for all headers.
const MAPPING_HEADER: &str = "dispatch-mapping";

/// Upload contacts into a list
///
/// The body is a CSV file of any size, read as it arrives. The first row names the columns. Which column holds what is
/// found by the usual names, or given as parameters (`email=Mail&phone=Mobile&field.city=Town`) or as a JSON object
/// in a `Dispatch-Mapping` header. The answer comes when all rows are read and lists what was wrong with which; one
/// bad row does not stop the file, and an upload that is cut leaves nothing behind. Suppressed and erased people are
/// counted as `blocked` and not stored.
#[utoipa::path(
    post, path = "/v1/lists/{id}/imports", tag = "lists",
    params(
        ("id" = ListId, Path),
        ("email" = Option<String>, Query, description = "The column of e-mail addresses"),
        ("phone" = Option<String>, Query, description = "The column of phone numbers"),
        ("first_name" = Option<String>, Query, description = "The column of given names"),
        ("last_name" = Option<String>, Query, description = "The column of family names"),
        ("name" = Option<String>, Query, description = "The column of whole names"),
        ("locale" = Option<String>, Query, description = "The column of languages"),
        ("field.*" = Option<String>, Query, description = "The column of a further field, by the field's name"),
        ("default_country" = Option<String>, Query, description = "The country of phone numbers without one, as FR"),
        ("Dispatch-Mapping" = Option<Mapping>, Header, description = "The same as JSON, in place of parameters"),
    ),
    request_body(content = String, content_type = "text/csv"),
    responses((status = 201, body = Import), (status = "4XX", body = ProblemDocument, content_type = "application/problem+json")),
    security(("api_key" = ["write"])),
)]
pub async fn create(
    caller: Caller<Write>,
    State(context): State<Arc<Context>>,
    Id(list): Id<ListId>,
    parameters: Parameters,
    headers: HeaderMap,
    body: Body,
) -> Answer {
    if request::media_type(&headers).is_none_or(|kind| kind == "application/json") {
        return Err(Problem::new(Kind::MEDIA_TYPE, "send the file as the body, with `Content-Type: text/csv`"));
    }
    request::refuse_content_encoding(&headers)?;
    let mapping = mapping(parameters, &headers)?;
    let import = context.api.ledger.begin_import(caller.tenant, list).await?;

    let limit = context.api.bounds.import_bytes_max;
    let (chunks, received) = mpsc::channel(CHUNKS_AHEAD);
    let loading = context.loader.load(caller.tenant, list, import, mapping, upload(received));
    let (outcome, cut) = tokio::join!(loading, pass_on(body.into_data_stream(), chunks, limit));
    match outcome {
        Ok(import) => Ok(created(&format!("/v1/imports/{}", import.id), Replayable { value: import, replayed: false })),
        Err(LoadError::File(wrong)) => Err(Problem::new(Kind::IMPORT, wrong.to_string())),
        Err(LoadError::BrokenOff(_)) => Err(broken_off(cut, limit)),
        Err(LoadError::Ledger(error)) => Err(error.into()),
        Err(error @ LoadError::Stopped) => Err(Problem::new(Kind::INTERNAL, error.to_string())),
    }
}

fn broken_off(cut: Option<Cut>, limit: u64) -> Problem {
    match cut {
        Some(Cut::TooLarge) => Problem::new(
            Kind::TOO_LARGE,
            format!("an upload may have at most {limit} bytes; nothing of it was kept, split the file"),
        ),
        Some(Cut::Quiet) => Problem::new(
            Kind::TIMEOUT,
            format!("nothing arrived for {} s; nothing of the upload was kept, send it again", QUIET_MAX.as_secs()),
        ),
        Some(Cut::Broken) | None => {
            Problem::new(Kind::MALFORMED, "the upload was cut short; nothing of it was kept, send it again")
        }
    }
}

/// Look at an upload
#[utoipa::path(
    get, path = "/v1/imports/{id}", tag = "lists", params(("id" = ImportId, Path)),
    responses((status = 200, body = Import), (status = "4XX", body = ProblemDocument, content_type = "application/problem+json")),
    security(("api_key" = ["read"])),
)]
pub async fn get(caller: Caller<Read>, State(context): State<Arc<Context>>, Id(import): Id<ImportId>) -> Answer {
    found(context.api.ledger.import(caller.tenant, import).await?)
}

/// Why an upload did not arrive whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cut {
    Broken,
    Quiet,
    TooLarge,
}

/// A part of an upload on its way to the import. The end is said, never guessed from silence: a client that has gone
/// must not look like a file that is complete.
enum Part {
    Chunk(Bytes),
    End,
}

/// Reads the body and passes it on; reads on a while when the import has had enough.
async fn pass_on(mut body: BodyDataStream, chunks: mpsc::Sender<Part>, limit: u64) -> Option<Cut> {
    let (mut bytes, mut drained) = (0_u64, 0_u64);
    loop {
        let chunk = match tokio::time::timeout(QUIET_MAX, body.next()).await {
            Err(_) => return Some(Cut::Quiet),
            Ok(Some(Err(_))) => return Some(Cut::Broken),
            Ok(Some(Ok(chunk))) => chunk,
            Ok(None) => {
                // The import may have refused the file before its end.
                let _ = chunks.send(Part::End).await;
                return None;
            }
        };
        let length = chunk.len() as u64;
        bytes += length;
        if bytes > limit {
            return Some(Cut::TooLarge);
        }
        if chunks.send(Part::Chunk(chunk)).await.is_err() {
            drained += length;
            if drained > DRAIN_BYTES_MAX {
                return None;
            }
        }
    }
}

/// The other end: a stream that ends with an error unless the end was said.
fn upload(received: mpsc::Receiver<Part>) -> BoxStream<'static, io::Result<Bytes>> {
    stream::unfold(Some(received), |received| async {
        let mut received = received?;
        match received.recv().await {
            Some(Part::Chunk(chunk)) => Some((Ok(chunk), Some(received))),
            Some(Part::End) => None,
            None => Some((Err(io::Error::from(io::ErrorKind::UnexpectedEof)), None)),
        }
    })
    .boxed()
}

fn mapping(mut parameters: Parameters, headers: &HeaderMap) -> Answer<Mapping> {
    let given = Mapping {
        email: parameters.text("email"),
        phone: parameters.text("phone"),
        first_name: parameters.text("first_name"),
        last_name: parameters.text("last_name"),
        name: parameters.text("name"),
        locale: parameters.text("locale"),
        fields: parameters.beginning_with("field.").into_iter().collect(),
        default_country: parameters
            .parsed("default_country", "two letters of a country are wanted (ISO 3166-1), as FR"),
    };
    parameters.finish()?;
    let Some(header) = headers.get(MAPPING_HEADER) else {
        // Checked like the header's: the same bounds hold either way.
        let value = serde_json::to_value(&given).unwrap_or_default();
        return request::shaped(value);
    };
    if given != Mapping::default() {
        return Err(Problem::invalid_at(
            "Dispatch-Mapping",
            "give the mapping as parameters or as a header, not as both",
        ));
    }
    let value = strict_json::read(header.as_bytes())
        .map_err(|error| Problem::invalid(vec![FieldError::new("Dispatch-Mapping", error.to_string())]))?;
    request::shaped(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn passed_on(chunks: Vec<Result<&'static [u8], io::Error>>, limit: u64) -> (Vec<u8>, bool, Option<Cut>) {
        let (sender, receiver) = mpsc::channel(CHUNKS_AHEAD);
        let body = Body::from_stream(stream::iter(chunks)).into_data_stream();
        let reading = async {
            let (mut read, mut whole) = (Vec::new(), true);
            let mut upload = upload(receiver);
            while let Some(chunk) = upload.next().await {
                match chunk {
                    Ok(chunk) => read.extend_from_slice(&chunk),
                    Err(_) => whole = false,
                }
            }
            (read, whole)
        };
        let ((read, whole), cut) = tokio::join!(reading, pass_on(body, sender, limit));
        (read, whole, cut)
    }

    #[tokio::test]
    async fn an_upload_ends_well_only_when_its_body_did() {
        let whole = passed_on(vec![Ok(b"a,b\n"), Ok(b"1,2\n")], 100).await;
        assert_eq!(whole, (b"a,b\n1,2\n".to_vec(), true, None));
        let broken = passed_on(vec![Ok(b"a,b\n"), Err(io::Error::other("gone"))], 100).await;
        assert_eq!(broken, (b"a,b\n".to_vec(), false, Some(Cut::Broken)));
        let (_, ended_well, cut) = passed_on(vec![Ok(b"a,b\n"), Ok(b"1,2\n")], 7).await;
        assert_eq!((ended_well, cut), (false, Some(Cut::TooLarge)));
    }

    #[tokio::test]
    async fn a_handler_that_is_dropped_does_not_look_like_a_complete_file() {
        let (sender, receiver) = mpsc::channel(CHUNKS_AHEAD);
        sender.send(Part::Chunk(Bytes::from_static(b"a"))).await.unwrap();
        drop(sender);
        let parts: Vec<_> = upload(receiver).collect().await;
        assert!(parts.last().is_some_and(Result::is_err));
    }

    #[tokio::test]
    async fn an_import_that_has_had_enough_does_not_break_the_connection() {
        let (sender, receiver) = mpsc::channel(CHUNKS_AHEAD);
        drop(receiver);
        let body = Body::from_stream(stream::iter((0..1_000).map(|_| Ok::<_, io::Error>("a,b\n")))).into_data_stream();
        assert_eq!(pass_on(body, sender, 1 << 20).await, None);
    }
}
