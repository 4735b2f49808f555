//! `dispatch import`: a contact list, uploaded into a running engine.

use std::{
    io::Cursor,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use dispatch_schemas::{
    address::Country,
    api::{
        Page,
        imports::{Mapping, ParseReport, RowProblem},
        lists::{Import, List, NewList, NewSource, Source},
    },
    ids::SourceId,
    states::{LegalBasis, SourceKind},
};
use futures_util::TryStreamExt as _;
use http_body_util::StreamBody;
use hyper::body::Frame;
use reqwest::Method;
use serde_json::Value;
use tokio::{fs::File, io::AsyncReadExt as _};
use tokio_util::io::ReaderStream;

use super::{
    engine_client::{EngineArgs, EngineClient},
    error::CliError,
    output::Output,
    upload_progress::UploadProgress,
};
use crate::import::parse::RowParser;

const EXAMPLE: &str = "\
Examples:
  dispatch import --list newsletter contacts.csv
  dispatch import --list spring --legal-basis consent --email Mail --default-country FR contacts.csv
  dispatch import --list spring --field city=Town --json contacts.csv

A list that does not exist is made when --legal-basis says on what ground its contacts may be written to; \
a file that cannot be read as contacts is refused before that, and makes none. \
The first row of the file names its columns; those for e-mail, phone, name and language are found by \
their usual names. One bad row does not stop the file; an upload that is cut leaves nothing behind.";

/// Bytes read from the file at a time.
const CHUNK_BYTES: usize = 64 * 1_024;
/// Bytes at the beginning of a file that are read before a list is made for it: the names of the columns are there,
/// and what is not text shows early.
const LOOKED_AT_BYTES: u64 = 1 << 20;
/// Bad rows that are printed; `--json` has up to 1,000.
const PROBLEMS_SHOWN: usize = 20;

/// What `dispatch import` takes.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLE)]
pub struct Args {
    /// The CSV file
    file: PathBuf,
    /// The list, by name or id
    #[arg(long, value_name = "LIST")]
    list: String,
    /// Make the list, with contacts on this legal basis: consent, contract, legitimate_interest, legal_obligation
    #[arg(long, value_name = "BASIS")]
    legal_basis: Option<LegalBasis>,
    /// Who the contacts of a new list are: customer_list, which it is when left out, marketplace, own_prospect, account
    #[arg(long, value_name = "KIND", requires = "legal_basis")]
    kind: Option<SourceKind>,
    /// Make the list with the contacts of this source
    #[arg(long, value_name = "SOURCE", conflicts_with_all = ["legal_basis", "kind"])]
    source: Option<SourceId>,
    /// The column of e-mail addresses
    #[arg(long, value_name = "COLUMN")]
    email: Option<String>,
    /// The column of phone numbers
    #[arg(long, value_name = "COLUMN")]
    phone: Option<String>,
    /// The column of given names
    #[arg(long, value_name = "COLUMN")]
    first_name: Option<String>,
    /// The column of family names
    #[arg(long, value_name = "COLUMN")]
    last_name: Option<String>,
    /// The column of whole names
    #[arg(long, value_name = "COLUMN")]
    name: Option<String>,
    /// The column of languages
    #[arg(long, value_name = "COLUMN")]
    locale: Option<String>,
    /// A further column to keep, as FIELD=COLUMN; can be given many times
    #[arg(long = "field", value_name = "FIELD=COLUMN", value_parser = field)]
    fields: Vec<(String, String)>,
    /// The country of phone numbers written without one, as FR
    #[arg(long, value_name = "COUNTRY")]
    default_country: Option<Country>,
    /// Print the outcome as JSON
    #[arg(long)]
    json: bool,
    /// Which engine.
    #[command(flatten)]
    engine: EngineArgs,
}

fn field(text: &str) -> Result<(String, String), String> {
    let (name, column) = text.split_once('=').ok_or("write it as FIELD=COLUMN")?;
    Ok((name.to_owned(), column.to_owned()))
}

/// Runs `dispatch import`.
///
/// # Errors
/// When the file cannot be read, or the engine cannot be reached or refuses.
pub async fn run(args: Args, out: &mut Output) -> Result<(), CliError> {
    let client = args.engine.client()?;
    import(&client, &args, out).await
}

pub(super) async fn import(client: &EngineClient, args: &Args, out: &mut Output) -> Result<(), CliError> {
    let unreadable =
        |error: std::io::Error| CliError::usage(format!("{} cannot be read: {error}", args.file.display()));
    let mut file = File::open(&args.file).await.map_err(unreadable)?;
    let metadata = file.metadata().await.map_err(unreadable)?;
    if metadata.is_dir() {
        return Err(CliError::usage(format!("{} is a folder; a CSV file is wanted", args.file.display())));
    }
    let (list, is_new, beginning) = match client.find_list(&args.list).await? {
        Some(list) => {
            check_source(client, args, &list).await?;
            (list, false, Vec::new())
        }
        None => {
            let beginning = look_at(&mut file, args).await?;
            (make_list(client, args).await?, true, beginning)
        }
    };

    let progress = Arc::new(Mutex::new(UploadProgress::of(metadata.len())));
    let counting = Arc::clone(&progress);
    let chunks = ReaderStream::with_capacity(Cursor::new(beginning).chain(file), CHUNK_BYTES).map_ok(move |chunk| {
        counting.lock().unwrap_or_else(PoisonError::into_inner).sent(chunk.len() as u64);
        Frame::data(chunk)
    });
    let body = reqwest::Body::wrap(StreamBody::new(chunks));
    let outcome: Result<Import, CliError> =
        client.upload(&format!("/v1/lists/{}/imports", list.id), &mapping(args), body).await;
    progress.lock().unwrap_or_else(PoisonError::into_inner).finish();
    let import = outcome.map_err(|error| if is_new { made_for_nothing(error, &list) } else { error })?;
    if args.json { Ok(out.json(&import)?) } else { tell(&list, &args.file, &import, out) }
}

/// Reads the beginning of a file as the engine will, so that no list is made for a file it must refuse. Returns what
/// was read: a pipe cannot be read twice.
async fn look_at(file: &mut File, args: &Args) -> Result<Vec<u8>, CliError> {
    let refused = |why: &dyn std::fmt::Display| {
        CliError::usage(format!("{} cannot be imported, and no list was made: {why}", args.file.display()))
    };
    let mut beginning = Vec::new();
    file.take(LOOKED_AT_BYTES).read_to_end(&mut beginning).await.map_err(|error| refused(&error))?;
    let mut parser = RowParser::new(columns(args)).map_err(|wrong| refused(&wrong))?;
    let mut rows = Vec::new();
    parser.feed(&beginning, &mut rows).map_err(|wrong| refused(&wrong))?;
    if (beginning.len() as u64) < LOOKED_AT_BYTES {
        parser.finish(&mut rows).map_err(|wrong| refused(&wrong))?;
    }
    Ok(beginning)
}

/// What is said of the contacts must be what is stored of their list: a legal basis is never passed over in silence.
async fn check_source(client: &EngineClient, args: &Args, list: &List) -> Result<(), CliError> {
    if args.source.is_none() && args.legal_basis.is_none() {
        return Ok(());
    }
    let sources: Page<Source> = client.get("/v1/sources", &[]).await?;
    let stored = sources.data.iter().find(|source| source.id == list.source).map(|source| &source.source);
    let fits = args.source.is_none_or(|id| id == list.source)
        && stored.is_none_or(|stored| {
            args.legal_basis.is_none_or(|basis| basis == stored.legal_basis)
                && args.kind.is_none_or(|kind| kind == stored.kind)
        });
    if fits {
        return Ok(());
    }
    let is = stored.map_or_else(String::new, |stored| format!(" ({}, {})", stored.kind, stored.legal_basis));
    Err(CliError::usage(format!(
        "the list {} ({}) exists already and is of the source {}{is}; leave out --source, --legal-basis and --kind to \
         upload into it, or choose another name",
        list.name, list.id, list.source
    )))
}

async fn make_list(client: &EngineClient, args: &Args) -> Result<List, CliError> {
    let name = &args.list;
    let source = match (args.source, args.legal_basis) {
        (Some(source), _) => source,
        (None, Some(legal_basis)) => {
            let kind = args.kind.unwrap_or(SourceKind::CustomerList);
            find_or_make_source(client, NewSource { name: name.clone(), kind, legal_basis, reference: None }).await?
        }
        (None, None) => {
            return Err(CliError::usage(format!(
                "there is no list `{name}`; say on what ground its contacts may be written to, and it is made: \
                 --legal-basis consent (or contract, legitimate_interest, legal_obligation)"
            )));
        }
    };
    client.send(Method::POST, "/v1/lists", &NewList { name: name.clone(), source }, None).await
}

/// A repeat after a failure takes the source the first try made.
async fn find_or_make_source(client: &EngineClient, new: NewSource) -> Result<SourceId, CliError> {
    let sources: Page<Source> = client.get("/v1/sources", &[]).await?;
    if let Some(same) = sources.data.iter().find(|source| source.source == new) {
        return Ok(same.id);
    }
    Ok(client.send::<Source>(Method::POST, "/v1/sources", &new, None).await?.id)
}

fn made_for_nothing(error: CliError, list: &List) -> CliError {
    error.and(&format!(
        "the list {} ({}) was made and is empty: the same command again uploads into it",
        list.name, list.id
    ))
}

/// The mapping as the parser takes it.
fn columns(args: &Args) -> Mapping {
    Mapping {
        email: args.email.clone(),
        phone: args.phone.clone(),
        first_name: args.first_name.clone(),
        last_name: args.last_name.clone(),
        name: args.name.clone(),
        locale: args.locale.clone(),
        fields: args.fields.iter().cloned().collect(),
        default_country: args.default_country,
    }
}

/// The mapping as parameters of the call.
fn mapping(args: &Args) -> Vec<(String, String)> {
    let named = [
        ("email", &args.email),
        ("phone", &args.phone),
        ("first_name", &args.first_name),
        ("last_name", &args.last_name),
        ("name", &args.name),
        ("locale", &args.locale),
        ("default_country", &args.default_country.map(|country| country.as_str().to_owned())),
    ];
    let named = named.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value.clone()?)));
    named.chain(args.fields.iter().map(|(name, column)| (format!("field.{name}"), column.clone()))).collect()
}

fn tell(list: &List, file: &Path, import: &Import, out: &mut Output) -> Result<(), CliError> {
    let totals = import.totals;
    out.line(&format!("{} is in the list {} ({}):", file.display(), list.name, list.id))?;
    for (count, what) in [
        (totals.rows, "rows read"),
        (totals.added, "new contacts"),
        (totals.updated, "contacts updated"),
        (totals.duplicate, "rows doubled in the file"),
        (totals.blocked, "suppressed or erased people, not stored"),
        (totals.rejected, "rows without an address that can be used"),
    ] {
        out.line(&format!("{count:>12}  {what}"))?;
    }
    let problems = problems(&import.report);
    for problem in problems.iter().take(PROBLEMS_SHOWN) {
        let column = problem.column.as_deref().map_or_else(String::new, |column| format!(", column {column}"));
        out.line(&format!("  line {}{column}: {}", problem.line, problem.message))?;
    }
    if problems.len() > PROBLEMS_SHOWN {
        out.line(&format!("  … and {} more; --json lists them", problems.len() - PROBLEMS_SHOWN))?;
    }
    Ok(())
}

fn problems(report: &Value) -> Vec<RowProblem> {
    serde_json::from_value::<ParseReport>(report.clone()).map(|report| report.problems).unwrap_or_default()
}
