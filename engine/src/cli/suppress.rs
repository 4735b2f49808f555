//! `dispatch suppress`: people who must not be written to.

use std::{io::Read as _, path::PathBuf};

use dispatch_schemas::{
    api::contacts::{GatesClosed, GatesOpened, Suppress},
    states::{Channel, StopReason},
};
use reqwest::Method;

use super::{
    engine_client::{EngineArgs, EngineClient},
    error::CliError,
    output::Output,
};

const EXAMPLE: &str = "\
Examples:
  dispatch suppress --channel email --file opted-out.txt
  dispatch suppress --channel sms --reason complained +33612345678
  dispatch suppress --channel email --lift --file back-again.txt

From the answer on nothing new is sent to these people, in running campaigns either. Uploads do not undo \
it. A file has one address a line; `-` reads standard input. Addresses on the command line stay in your \
shell's history, so a file is better.";

/// Addresses of one call: half of what the API takes, so that long ones fit into its body too.
const CALL_ADDRESSES_MAX: usize = 5_000;
/// Bytes of addresses in one call: the API's body less what surrounds them.
const CALL_BYTES_MAX: usize = 700_000;

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
    /// Why: suppressed, unsubscribed, complained, hard_bounced, restricted or no_consent
    #[arg(long, value_name = "REASON", default_value = "suppressed")]
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

/// Runs `dispatch suppress`.
///
/// # Errors
/// When the file cannot be read, or the engine cannot be reached or refuses.
pub async fn run(args: Args, out: &mut Output) -> Result<(), CliError> {
    let client = args.engine.client()?;
    let addresses = match &args.file {
        None => args.addresses.iter().cloned().zip(1..).map(|(address, place)| (place, address)).collect(),
        Some(file) => read(file)?,
    };
    if addresses.is_empty() {
        return Err(CliError::usage("there are no addresses in the file"));
    }
    if args.lift { lift(&client, &args, &addresses, out).await } else { close(&client, &args, &addresses, out).await }
}

/// The lines of a file that are not blank, with their numbers.
fn read(file: &PathBuf) -> Result<Vec<(usize, String)>, CliError> {
    let mut text = String::new();
    let outcome = if file.as_os_str() == "-" {
        std::io::stdin().read_to_string(&mut text)
    } else {
        std::fs::File::open(file).and_then(|mut file| file.read_to_string(&mut text))
    };
    outcome.map_err(|error| CliError::usage(format!("{} cannot be read: {error}", file.display())))?;
    let lines = text.lines().zip(1..).filter(|(line, _)| !line.trim().is_empty());
    Ok(lines.map(|(line, number)| (number, line.trim().to_owned())).collect())
}

async fn close(
    client: &EngineClient,
    args: &Args,
    addresses: &[(usize, String)],
    out: &mut Output,
) -> Result<(), CliError> {
    let mut sum = GatesClosed::default();
    for part in parts(addresses) {
        let closed: GatesClosed = call(client, Method::POST, args, part).await?;
        sum.closed += closed.closed;
        sum.already_closed += closed.already_closed;
        sum.in_flight += closed.in_flight;
    }
    if args.json {
        return Ok(out.json(&sum)?);
    }
    out.line(&format!("{} suppressed, {} were before.", sum.closed, sum.already_closed))?;
    if sum.in_flight > 0 {
        out.line(&format!("{} messages to them were on their way already and may still arrive.", sum.in_flight))?;
    }
    Ok(())
}

async fn lift(
    client: &EngineClient,
    args: &Args,
    addresses: &[(usize, String)],
    out: &mut Output,
) -> Result<(), CliError> {
    let mut sum = GatesOpened::default();
    for part in parts(addresses) {
        sum.opened += call::<GatesOpened>(client, Method::DELETE, args, part).await?.opened;
    }
    if args.json {
        return Ok(out.json(&sum)?);
    }
    Ok(out.line(&format!("{} suppressions of the reason {} lifted.", sum.opened, args.reason))?)
}

async fn call<T: serde::de::DeserializeOwned>(
    client: &EngineClient,
    method: Method,
    args: &Args,
    part: &[(usize, String)],
) -> Result<T, CliError> {
    let addresses = part.iter().map(|(_, address)| address.clone()).collect();
    let body = Suppress { addresses, channel: args.channel, reason: Some(args.reason) };
    client.send(method, "/v1/suppressions", &body, None).await.map_err(|error| by_line(error, part))
}

/// Says the line of the file in place of the place in the body.
fn by_line(error: CliError, part: &[(usize, String)]) -> CliError {
    let CliError::Refused(mut problem) = error else { return error };
    for error in &mut problem.errors {
        let index = error.pointer.strip_prefix("/addresses/").and_then(|index| index.parse::<usize>().ok());
        if let Some((line, _)) = index.and_then(|index| part.get(index)) {
            error.pointer = format!("line {line}");
        }
    }
    if let [one] = problem.errors.as_slice() {
        problem.detail = format!("{}: {}", one.pointer, one.detail);
    }
    CliError::Refused(problem)
}

/// Cuts a long list into calls.
fn parts(addresses: &[(usize, String)]) -> Vec<&[(usize, String)]> {
    let (mut parts, mut start, mut bytes) = (Vec::new(), 0, 0);
    for (at, (_, address)) in addresses.iter().enumerate() {
        if at - start == CALL_ADDRESSES_MAX || (at > start && bytes + address.len() > CALL_BYTES_MAX) {
            parts.push(&addresses[start..at]);
            (start, bytes) = (at, 0);
        }
        bytes += address.len();
    }
    parts.push(&addresses[start..]);
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_list_goes_in_parts_that_the_api_takes() {
        let many: Vec<(usize, String)> = (0..12_001).map(|n| (n, "a@b.eu".to_owned())).collect();
        let lengths: Vec<usize> = parts(&many).iter().map(|part| part.len()).collect();
        assert_eq!(lengths, [5_000, 5_000, 2_001]);
        let long = vec![(1, "x".repeat(CALL_BYTES_MAX)); 3];
        assert_eq!(parts(&long).len(), 3);
    }
}
