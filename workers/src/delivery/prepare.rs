//! Between claim and send: unseal, render, and cut the batch into requests.

use super::{Claimed, ClaimedDelivery, Outcome, Plan, Plane, SealedContact};
use crate::{
    message::{Recipient, SendKey, Token},
    providers::Code,
    sealing::{Column, SealError, SendKeys},
    template::{Data, RenderError},
};

/// One provider request and the deliveries in it.
pub(super) struct Prepared {
    pub(super) token: Token,
    pub(super) batch_key: SendKey,
    pub(super) recipients: Vec<Recipient>,
    /// `(seq, attempt_no)` of each recipient.
    pub(super) members: Vec<(i64, u8)>,
}

impl Prepared {
    const fn new() -> Self {
        Self { token: Token([0; 16]), batch_key: SendKey([0; 16]), recipients: Vec::new(), members: Vec::new() }
    }
}

/// A claimed batch, cut into requests.
pub(super) struct Batch {
    pub(super) requests: Vec<Prepared>,
    /// Deliveries that are done without a request.
    pub(super) settled: Vec<(i64, Outcome)>,
}

pub(super) fn prepare(claimed: &Claimed, plan: &Plan, plane: &Plane) -> Batch {
    // A request that is asked again goes out as it went the first time, however requests are cut now.
    let is_repeat = claimed.token != claimed.root;
    let per_request = if is_repeat { usize::MAX } else { plan.account.contract().recipients_per_request };
    let mut batch = Batch { requests: Vec::new(), settled: Vec::new() };
    let mut alone = Vec::new();
    let mut together: Vec<Prepared> = Vec::new();
    for delivery in &claimed.deliveries {
        let recipient = match recipient(delivery, plan, plane) {
            Ok(recipient) => recipient,
            Err(outcome) => {
                batch.settled.push((delivery.seq, outcome));
                continue;
            }
        };
        let member = (delivery.seq, delivery.attempt_no);
        if delivery.alone || per_request == 1 {
            // Its own send key, so that asking again needs no memory of how requests were cut.
            let batch_key = SendKeys::batch_key(Token(recipient.key.0));
            alone.push(Prepared { batch_key, recipients: vec![recipient], members: vec![member], ..Prepared::new() });
        } else if is_repeat || plan.account.provider.fits_batch(&plan.message, &recipient) {
            if together.last().is_none_or(|request| request.recipients.len() == per_request) {
                let room = claimed.deliveries.len().min(per_request);
                together.push(Prepared {
                    batch_key: SendKeys::batch_key(claimed.root),
                    recipients: Vec::with_capacity(room),
                    members: Vec::with_capacity(room),
                    ..Prepared::new()
                });
            }
            if let Some(request) = together.last_mut() {
                request.recipients.push(recipient);
                request.members.push(member);
            }
        } else {
            // That it travels alone must be durable before it does: its key depends on it.
            batch.settled.push((delivery.seq, Outcome::Released { alone: true }));
        }
    }
    batch.requests = together;
    batch.requests.append(&mut alone);
    for (number, request) in batch.requests.iter_mut().enumerate() {
        request.token = request_token(claimed.token, number);
    }
    batch
}

fn recipient(delivery: &ClaimedDelivery, plan: &Plan, plane: &Plane) -> Result<Recipient, Outcome> {
    let Some(contact) = &delivery.contact else { return Err(Outcome::Erased) };
    let (to, data) = unseal(contact, plan).map_err(|_| Outcome::Unsendable(Code::known("sealed_value_unreadable")))?;
    let slots = plan.template.render(&data).map_err(|error| Outcome::Unsendable(render_code(&error)))?;
    Ok(Recipient {
        key: plane.send_keys.make(plan.campaign, delivery.seq, delivery.key_epoch),
        to,
        slots,
        list_unsubscribe: None,
    })
}

fn unseal(contact: &SealedContact, plan: &Plan) -> Result<(String, Data), SealError> {
    let key = plan.keys.open_contact(contact.id, &contact.key)?;
    let column = match plan.channel {
        dispatch_schemas::states::Channel::Email => Column::Email,
        dispatch_schemas::states::Channel::Sms => Column::Phone,
    };
    let to = String::from_utf8(key.open(column, &contact.address)?).map_err(|_| SealError)?;
    let mut data = Data::default();
    for (column, sealed) in [(Column::Fields, &contact.fields), (Column::Message, &contact.message)] {
        if let Some(sealed) = sealed {
            data.add_json(&key.open(column, sealed)?).map_err(|_| SealError)?;
        }
    }
    Ok((to, data))
}

fn render_code(error: &RenderError) -> Code {
    match error {
        RenderError::Missing { name } => Code::about("template_variable_missing", name),
        RenderError::Failed(_) | RenderError::TooLong | RenderError::TooMuchWork | RenderError::UnsafeValue => {
            Code::known("template_not_rendered")
        }
    }
}

/// The token of request `number` of an attempt: the attempt's own with the number mixed into its last four bytes, so
/// that each is used once and can be traced to its attempt.
fn request_token(attempt: Token, number: usize) -> Token {
    let mut token = attempt.0;
    let number = u32::try_from(number).unwrap_or(u32::MAX).to_be_bytes();
    for (byte, mixed) in token[12..].iter_mut().zip(number) {
        *byte ^= mixed;
    }
    Token(token)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_variable_is_named_in_the_code() {
        let missing = |name: &str| render_code(&RenderError::Missing { name: name.to_owned() });
        assert_eq!(missing("plan").as_str(), "template_variable_missing:plan");
        assert_eq!(missing(&"n".repeat(200)).as_str().len(), 64, "a code stays short");
        assert_eq!(render_code(&RenderError::TooLong).as_str(), "template_not_rendered");
    }
}
