//! Single messages a person waits for.

use std::sync::Arc;

use axum::extract::State;
use dispatch_schemas::{
    api::{
        messages::{MessageStatus, NewMessage},
        problems::ProblemDocument,
    },
    states::Purpose,
};
use dispatch_workers::{
    message::SendKey,
    sealing::{Column, TenantKeys},
};

use super::{campaigns, created, found, named_at};
use crate::{
    api::{
        Context,
        addresses::Address,
        authentication::{Caller, Read, Send},
        content,
        problem::{Answer, Kind, Problem},
        request::{IdempotencyKey, Json},
    },
    ledger::{ContactRow, MessageTerms, Replayable, SealedMessage},
};

/// Send a message to one person
///
/// Ahead of all campaigns. Every variable of the template must have a value here or a default there. With an
/// Idempotency-Key a repeat sends nothing and returns the same message.
#[utoipa::path(
    post, path = "/v1/messages", tag = "messages", request_body = NewMessage,
    params(("Idempotency-Key" = Option<String>, Header, description = "1 to 255 visible ASCII characters")),
    responses((status = 201, body = MessageStatus), (status = "4XX", body = ProblemDocument, content_type = "application/problem+json")),
    security(("api_key" = ["send"])),
)]
pub async fn create(
    caller: Caller<Send>,
    State(context): State<Arc<Context>>,
    key: IdempotencyKey,
    new: Json<NewMessage>,
) -> Answer {
    let once = new.once("POST /v1/messages", key);
    let new = new.value;
    let ledger = &context.api.ledger;
    let stored = ledger.template(caller.tenant, new.template).await.map_err(named_at("/template"))?;
    let (message, template) = content::compile(&stored.template.source)?;
    template.render(&content::data(&new.variables)?).map_err(|error| content::unfilled(&error))?;
    let address = Address::parse(message.channel(), &new.to, "/to").map_err(|error| Problem::invalid(vec![error]))?;
    let account = campaigns::account(&context, message.channel(), None).map_err(|error| {
        Problem::invalid(vec![dispatch_schemas::api::problems::FieldError { pointer: "/template".to_owned(), ..error }])
    })?;

    let keys = ledger.tenant_keys(caller.tenant).await?;
    let sealed = seal(&context, &keys, &address, &new).await?;
    let terms = MessageTerms { source: new.source, purpose: new.purpose.unwrap_or(Purpose::Service), account };
    let made = ledger
        .create_message(caller.tenant, &stored, &terms, sealed, once.as_ref())
        .await
        .map_err(named_at("/source"))?;
    let (campaign, seq) = made.value;
    if !made.replayed {
        context.api.control.message_ready(campaign, seq);
    }
    let id = context.send_keys.make(campaign, seq, 0).to_string();
    let value = MessageStatus { id: id.clone(), ..ledger.message(caller.tenant, campaign, seq).await? };
    Ok(created(&format!("/v1/messages/{id}"), Replayable { value, replayed: made.replayed }))
}

/// Look at a message
#[utoipa::path(
    get, path = "/v1/messages/{id}", tag = "messages", params(("id" = String, Path, description = "A UUID")),
    responses((status = 200, body = MessageStatus), (status = "4XX", body = ProblemDocument, content_type = "application/problem+json")),
    security(("api_key" = ["read"])),
)]
pub async fn get(
    caller: Caller<Read>,
    State(context): State<Arc<Context>>,
    axum::extract::Path(id): axum::extract::Path<String>,
) -> Answer {
    let delivery = id.parse::<SendKey>().ok().and_then(|key| context.send_keys.read(key));
    let (campaign, seq, _) = delivery.ok_or_else(|| {
        Problem::new(Kind::NOT_FOUND, "there is no such message: its id is the UUID that sending it answered")
    })?;
    let status = context.api.ledger.message(caller.tenant, campaign, seq).await?;
    found(MessageStatus { id, ..status })
}

async fn seal(context: &Context, keys: &TenantKeys, address: &Address, new: &NewMessage) -> Answer<SealedMessage> {
    let api = &context.api;
    let id = api.ledger.contact_ids(1).await?;
    let (key, wrapped) = keys.new_contact(id, api.entropy.as_ref());
    let hash = address.hash(keys);
    let seal = |column| (key.seal(column, address.as_str().as_bytes(), api.entropy.as_ref()), hash);
    let destination = address.destination(&api.master);
    let bare = ContactRow {
        id,
        key: wrapped,
        email: None,
        phone: None,
        fields: None,
        email_destination: None,
        phone_destination: None,
    };
    let contact = match address {
        Address::Email(_) => {
            ContactRow { email: Some(seal(Column::Email)), email_destination: Some(destination), ..bare }
        }
        Address::Phone(_) => {
            ContactRow { phone: Some(seal(Column::Phone)), phone_destination: Some(destination), ..bare }
        }
    };
    let variables = serde_json::to_vec(&new.variables)
        .map_err(|_| Problem::new(Kind::INTERNAL, "the variables could not be written down"))?;
    Ok(SealedMessage { address_hash: hash, channel: address.channel(), contact, variables })
}
