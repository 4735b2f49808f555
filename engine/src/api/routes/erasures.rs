//! Erasing people.

use std::sync::Arc;

use axum::extract::State;
use dispatch_schemas::{
    api::{
        contacts::{Erase, Erased},
        problems::ProblemDocument,
    },
    states::Channel,
};

use super::found;
use crate::api::{
    Context,
    addresses::Address,
    authentication::{Caller, Erase as MayErase},
    problem::{Answer, Problem},
    request::Json,
};

/// Erase a person
///
/// Destroys the keys that the person's data is sealed with, in every list, and closes their addresses for good: an
/// upload does not bring them back. The answer is the same whether anybody was there. `in_flight` says how many
/// messages were on their way before.
#[utoipa::path(
    post, path = "/v1/erasures", tag = "people", request_body = Erase,
    responses((status = 200, body = Erased), (status = "4XX", body = ProblemDocument, content_type = "application/problem+json")),
    security(("api_key" = ["erase"])),
)]
pub async fn create(caller: Caller<MayErase>, State(context): State<Arc<Context>>, body: Json<Erase>) -> Answer {
    let Erase { email, phone } = &body.value;
    let given = [(Channel::Email, email, "/email"), (Channel::Sms, phone, "/phone")];
    let (mut addresses, mut errors) = (Vec::new(), Vec::new());
    for (channel, text, pointer) in given {
        match text.as_ref().map(|text| Address::parse(channel, text, pointer)) {
            Some(Ok(address)) => addresses.push(address),
            Some(Err(error)) => errors.push(error),
            None => {}
        }
    }
    if !errors.is_empty() {
        return Err(Problem::invalid(errors));
    }
    if addresses.is_empty() {
        return Err(Problem::invalid_at("", "give `email`, `phone` or both of the person to erase"));
    }
    let keys = context.api.ledger.tenant_keys(caller.tenant).await?;
    let hashes: Vec<_> = addresses.iter().map(|address| (address.channel(), address.hash(&keys))).collect();
    found(context.api.ledger.erase(caller.tenant, &hashes).await?)
}
