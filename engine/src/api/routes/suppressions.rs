//! The people a tenant does not write to.

use std::sync::Arc;

use axum::extract::State;
use dispatch_schemas::{
    api::{
        Page,
        contacts::{GatesClosed, GatesOpened, Suppress, Suppression},
        problems::{FieldError, ProblemDocument},
    },
    ids::TenantId,
    states::StopReason,
};
use dispatch_workers::sealing::AddressHash;

use super::{found, is_full};
use crate::api::{
    Context,
    addresses::Address,
    authentication::{Caller, Read, Write},
    cursor,
    problem::{Answer, Problem},
    request::{Json, Parameters},
    shape::ERRORS_MAX,
};

const LIST: &str = "suppressions";
/// What a refused call did.
const NOBODY_CLOSED: &str = "nobody was suppressed by this call";
const NOBODY_OPENED: &str = "nothing was lifted by this call";

/// Suppress addresses
///
/// From the answer on nothing new is sent to them, in running campaigns either; `in_flight` says how many messages
/// were on their way before. Suppressing twice is the same as once, and an upload never undoes it.
///
/// All of them or nobody: when one address cannot be used the answer is 422, `errors` names those by their place, and
/// nobody was suppressed. Take them out and send the others again at once; an opt-out must not wait for a typing error.
#[utoipa::path(
    post, path = "/v1/suppressions", tag = "people", request_body = Suppress,
    responses((status = 200, body = GatesClosed), (status = "4XX", body = ProblemDocument, content_type = "application/problem+json")),
    security(("api_key" = ["write"])),
)]
pub async fn create(
    caller: Caller<Write>,
    State(context): State<Arc<Context>>,
    body: Result<Json<Suppress>, Problem>,
) -> Answer {
    let nobody = |problem: Problem| problem.and_so(NOBODY_CLOSED);
    let body = body.map_err(nobody)?.value;
    let hashes = hashes(&context, caller.tenant, &body).await.map_err(nobody)?;
    let reason = body.reason.unwrap_or(StopReason::Suppressed);
    found(context.api.ledger.close_gates(caller.tenant, body.channel, &hashes, reason).await?)
}

/// Lift suppressions
///
/// Opens what was closed for this reason (`suppressed` when left out). Who is suppressed for another reason too, or
/// was erased, stays so. All of them or none, as with suppressing.
#[utoipa::path(
    delete, path = "/v1/suppressions", tag = "people", request_body = Suppress,
    responses((status = 200, body = GatesOpened), (status = "4XX", body = ProblemDocument, content_type = "application/problem+json")),
    security(("api_key" = ["write"])),
)]
pub async fn delete(
    caller: Caller<Write>,
    State(context): State<Arc<Context>>,
    body: Result<Json<Suppress>, Problem>,
) -> Answer {
    let none = |problem: Problem| problem.and_so(NOBODY_OPENED);
    let body = body.map_err(none)?.value;
    let hashes = hashes(&context, caller.tenant, &body).await.map_err(none)?;
    let reason = body.reason.unwrap_or(StopReason::Suppressed);
    found(GatesOpened { opened: context.api.ledger.open_gates(caller.tenant, &hashes, reason).await? })
}

/// List suppressions
///
/// By keyed hash: the list outlives the contacts and names nobody.
#[utoipa::path(
    get, path = "/v1/suppressions", tag = "people",
    params(
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the page before"),
        ("limit" = Option<u32>, Query, description = "1 to 1,000, 100 when left out"),
    ),
    responses((status = 200, body = Page<Suppression>), (status = "4XX", body = ProblemDocument, content_type = "application/problem+json")),
    security(("api_key" = ["read"])),
)]
pub async fn list(caller: Caller<Read>, State(context): State<Arc<Context>>, mut parameters: Parameters) -> Answer {
    let (text, limit) = (parameters.text("cursor"), parameters.limit());
    parameters.finish()?;
    let after = match text {
        Some(text) => Some(position(&context.cursors.open(caller.tenant, LIST, &text)?)?),
        None => None,
    };
    let data = context.api.ledger.suppressions(caller.tenant, after, limit).await?;
    let last = data.last().filter(|_| is_full(&data, limit)).and_then(position_of);
    found(Page { next_cursor: last.map(|position| context.cursors.seal(caller.tenant, LIST, &position)), data })
}

async fn hashes(context: &Context, tenant: TenantId, body: &Suppress) -> Answer<Vec<AddressHash>> {
    let keys = context.api.ledger.tenant_keys(tenant).await?;
    let (mut hashes, mut errors, mut wrong) = (Vec::with_capacity(body.addresses.len()), Vec::new(), 0_usize);
    for (index, text) in body.addresses.iter().enumerate() {
        match Address::parse(body.channel, text, &format!("/addresses/{index}")) {
            Ok(address) => hashes.push(address.hash(&keys)),
            Err(error) => {
                wrong += 1;
                if errors.len() < ERRORS_MAX {
                    errors.push(error);
                }
            }
        }
    }
    if errors.is_empty() { Ok(hashes) } else { Err(unusable(wrong, body.addresses.len(), errors)) }
}

fn unusable(wrong: usize, all: usize, errors: Vec<FieldError>) -> Problem {
    let which = if wrong > errors.len() { "`errors` lists the first" } else { "`errors` lists them" };
    let detail = format!("{wrong} of the {all} addresses cannot be used ({which}); take them out and send the others");
    Problem::invalid_because(detail, errors)
}

/// A position is the hash and the reason's word.
fn position(bytes: &[u8]) -> Answer<(AddressHash, StopReason)> {
    let read = || {
        let (hash, reason) = bytes.split_at_checked(16)?;
        let reason = std::str::from_utf8(reason).ok()?.parse().ok()?;
        Some((AddressHash(hash.try_into().ok()?), reason))
    };
    read().ok_or_else(cursor::refused)
}

fn position_of(suppression: &Suppression) -> Option<Vec<u8>> {
    let hash = u128::from_str_radix(&suppression.address_hash, 16).ok()?;
    Some([&hash.to_be_bytes(), suppression.reason.as_str().as_bytes()].concat())
}

#[cfg(test)]
mod tests {
    use dispatch_schemas::{api::time::Moment, states::Channel};

    use super::*;

    #[test]
    fn a_position_reads_back() {
        let suppression = Suppression {
            address_hash: format!("{:032x}", 7),
            channel: Channel::Email,
            reason: StopReason::Complained,
            closed_at: Moment::from_ms(0),
        };
        let bytes = position_of(&suppression).unwrap();
        let (hash, reason) = position(&bytes).unwrap();
        assert_eq!((u128::from_be_bytes(hash.0), reason), (7, StopReason::Complained));
        assert!(position(&bytes[..15]).is_err() && position(&bytes[..18]).is_err());
    }
}
