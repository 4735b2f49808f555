//! `dispatch suppress`: people who must not be written to.

use std::{fmt::Write as _, io::Read as _, path::PathBuf};

use clap::builder::{PossibleValuesParser, TypedValueParser as _};
use dispatch_schemas::{
    api::contacts::{GatesClosed, GatesOpened, Suppress},
    states::{Channel, StopReason},
};
use reqwest::Method;
use serde::Serialize;

use super::{
    engine_client::{EngineArgs, EngineClient},
    error::CliError,
    output::Output,
};
use crate::api::{addresses::Address, bodies::SUPPRESS_REASONS};

const EXAMPLE: &str = "\
Examples:
  dispatch suppress --channel email --file opted-out.txt
  dispatch suppress --channel sms --reason complained +33612345678
  dispatch suppress --channel email --lift --file back-again.txt

From the answer on nothing new is sent to these people, in running campaigns either. Uploads do not undo \
it. A file has one address a line; `-` reads standard input. Addresses on the command line stay in your \
shell's history, so a file is better.

A line without an address that can be used stops none of the others: it is named by its number with what \
is wrong, never repeated, and the exit code is 6. Mend those lines and run it again; doing it twice is harmless.";

/// Addresses of one call: half of what the API takes, so that long ones fit into its body too.
const CALL_ADDRESSES_MAX: usize = 5_000;
/// Bytes of addresses in one call: the API's body less what surrounds them.
const CALL_BYTES_MAX: usize = 700_000;

/// Lines that are named on standard error; `--json` names them all.
const LINES_SHOWN: usize = 1_000;

/// What `dispatch suppress` takes.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLE)]
pub struct Args {
    /// The addresses
    #[arg(required_unless_present = "file")]
    addresses: Vec<String>,
    /// A file with one address a line; `-` for standard input
    #[arg(long, value_name = "FILE", conflicts_with = "addresses")]
    file: Option<PathBuf>,
    /// What they are addresses of: email or sms
    #[arg(long, value_name = "CHANNEL")]
    channel: Channel,
    /// Why
    #[arg(long, value_name = "REASON", default_value = "suppressed", value_parser = reasons())]
    reason: StopReason,
    /// Lift suppressions of this reason instead
    #[arg(long)]
    lift: bool,
    /// Print the outcome as JSON
    #[arg(long)]
    json: bool,
    /// Which engine.
    #[command(flatten)]
    engine: EngineArgs,
}

fn reasons() -> impl clap::builder::TypedValueParser<Value = StopReason> {
    PossibleValuesParser::new(SUPPRESS_REASONS).try_map(|word| word.parse::<StopReason>())
}

/// Runs `dispatch suppress`.
///
/// # Errors
/// When the file cannot be read, an address cannot be used, or the engine cannot be reached or refuses.
pub async fn run(args: Args, out: &mut Output) -> Result<(), CliError> {
    let client = args.engine.client()?;
    let given = match &args.file {
        None => args.addresses.iter().cloned().zip(1..).map(|(address, place)| (place, address)).collect(),
        Some(file) => read(file)?,
    };
    if given.is_empty() {
        return Err(CliError::usage("there are no addresses in the file"));
    }
    let (good, bad) = sort(args.channel, given);
    let job = Job { client, args, good, bad };
    if job.args.lift { job.lift(out).await } else { job.close(out).await }
}

/// The lines of a file that are not blank, with their numbers. One that is not text is no reason to lose the others:
/// it cannot be used as an address, and is named with those.
fn read(file: &PathBuf) -> Result<Vec<(usize, String)>, CliError> {
    let mut bytes = Vec::new();
    let outcome = if file.as_os_str() == "-" {
        std::io::stdin().read_to_end(&mut bytes)
    } else {
        std::fs::File::open(file).and_then(|mut file| file.read_to_end(&mut bytes))
    };
    outcome.map_err(|error| CliError::usage(format!("{} cannot be read: {error}", file.display())))?;
    let text = String::from_utf8_lossy(&bytes);
    let lines = text.trim_start_matches('\u{feff}').lines().zip(1..).filter(|(line, _)| !line.trim().is_empty());
    Ok(lines.map(|(line, number)| (number, line.trim().to_owned())).collect())
}

/// A line whose address cannot be used. Never holds the line.
#[derive(Debug, Serialize)]
struct BadLine {
    line: usize,
    message: String,
}

/// Tells the addresses that can be used from the others, by the parser the engine has.
fn sort(channel: Channel, given: Vec<(usize, String)>) -> (Vec<(usize, String)>, Vec<BadLine>) {
    let (mut good, mut bad) = (Vec::with_capacity(given.len()), Vec::new());
    for (line, address) in given {
        match Address::parse(channel, &address, "") {
            Ok(_) => good.push((line, address)),
            Err(wrong) => bad.push(BadLine { line, message: wrong.detail }),
        }
    }
    (good, bad)
}

/// An outcome with the lines it leaves out.
#[derive(Debug, Serialize)]
struct Outcome<'a, T> {
    #[serde(flatten)]
    done: T,
    refused: &'a [BadLine],
}

/// What is to be done.
struct Job {
    client: EngineClient,
    args: Args,
    good: Vec<(usize, String)>,
    bad: Vec<BadLine>,
}

impl Job {
    async fn close(&self, out: &mut Output) -> Result<(), CliError> {
        let mut sum = GatesClosed::default();
        for (done, part) in parts(&self.good) {
            let closed: GatesClosed = self.call(Method::POST, part, done).await?;
            sum.closed += closed.closed;
            sum.already_closed += closed.already_closed;
            sum.in_flight += closed.in_flight;
        }
        if self.args.json {
            out.json(&Outcome { done: sum, refused: &self.bad })?;
        } else {
            let not = if self.bad.is_empty() { String::new() } else { format!(" NOT suppressed: {}.", self.bad.len()) };
            out.line(&format!("{} suppressed, {} were before.{not}", sum.closed, sum.already_closed))?;
            if sum.in_flight > 0 {
                out.line(&format!(
                    "{} messages to them were on their way already and may still arrive.",
                    sum.in_flight
                ))?;
            }
        }
        self.name_bad_lines("suppressed")
    }

    async fn lift(&self, out: &mut Output) -> Result<(), CliError> {
        let mut sum = GatesOpened::default();
        for (done, part) in parts(&self.good) {
            sum.opened += self.call::<GatesOpened>(Method::DELETE, part, done).await?.opened;
        }
        if self.args.json {
            out.json(&Outcome { done: sum, refused: &self.bad })?;
        } else {
            out.line(&format!("{} suppressions of the reason {} lifted.", sum.opened, self.args.reason))?;
        }
        self.name_bad_lines("lifted")
    }

    /// One call. Should it fail, says how many of the file were done before: nobody may take silence for an opt-out.
    async fn call<T: serde::de::DeserializeOwned>(
        &self,
        method: Method,
        part: &[(usize, String)],
        done: usize,
    ) -> Result<T, CliError> {
        let addresses = part.iter().map(|(_, address)| address.clone()).collect();
        let body = Suppress { addresses, channel: self.args.channel, reason: Some(self.args.reason) };
        self.client.send(method, "/v1/suppressions", &body, None).await.map_err(|error| {
            let all = self.good.len() + self.bad.len();
            let so_far = format!(
                "{done} of the {all} addresses were done before this; mend that and run it again, which is harmless"
            );
            by_line(error, part).and(&so_far)
        })
    }

    fn name_bad_lines(&self, done: &str) -> Result<(), CliError> {
        if self.bad.is_empty() {
            return Ok(());
        }
        let (bad, all) = (self.bad.len(), self.good.len() + self.bad.len());
        let place = if self.args.file.is_some() { "line" } else { "address" };
        let mut text = if self.good.is_empty() {
            format!("nobody was {done}: no address given can be used")
        } else {
            format!("NOT {done}: {bad} of the {all} addresses, which cannot be used; the others are")
        };
        // Writing to a string does not fail.
        for BadLine { line, message } in self.bad.iter().take(LINES_SHOWN) {
            let _ = write!(text, "\n  {place} {line}: {message}");
        }
        if bad > LINES_SHOWN {
            let _ = write!(text, "\n  … and {} more; --json names them all", bad - LINES_SHOWN);
        }
        Err(if self.good.is_empty() { CliError::Usage(text) } else { CliError::InPart(text) })
    }
}

/// Says the line of the file in place of the place in the body, should the engine know better what an address is.
fn by_line(error: CliError, part: &[(usize, String)]) -> CliError {
    let CliError::Refused(mut problem) = error else { return error };
    for error in &mut problem.errors {
        let index = error.pointer.strip_prefix("/addresses/").and_then(|index| index.parse::<usize>().ok());
        if let Some((line, _)) = index.and_then(|index| part.get(index)) {
            error.pointer = format!("line {line}");
        }
    }
    if let [one] = problem.errors.as_slice() {
        problem.detail = format!("{}: {}; nothing was done in this call", one.pointer, one.detail);
    }
    CliError::Refused(problem)
}

/// Cuts a long list into calls, each with how many addresses are in those before it.
fn parts(addresses: &[(usize, String)]) -> Vec<(usize, &[(usize, String)])> {
    let (mut parts, mut start, mut bytes) = (Vec::new(), 0, 0);
    for (at, (_, address)) in addresses.iter().enumerate() {
        if at - start == CALL_ADDRESSES_MAX || (at > start && bytes + address.len() > CALL_BYTES_MAX) {
            parts.push((start, &addresses[start..at]));
            (start, bytes) = (at, 0);
        }
        bytes += address.len();
    }
    if start < addresses.len() {
        parts.push((start, &addresses[start..]));
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_list_goes_in_parts_that_the_api_takes() {
        let many: Vec<(usize, String)> = (0..12_001).map(|n| (n, "a@b.eu".to_owned())).collect();
        let lengths: Vec<(usize, usize)> = parts(&many).iter().map(|(done, part)| (*done, part.len())).collect();
        assert_eq!(lengths, [(0, 5_000), (5_000, 5_000), (10_000, 2_001)]);
        assert_eq!(parts(&[]).len(), 0);
        let long = vec![(1, "x".repeat(CALL_BYTES_MAX)); 3];
        assert_eq!(parts(&long).len(), 3);
    }
}
