//! Noting a claim in the second place, before its first byte can leave.

use dispatch_schemas::ids::AttemptId;
use dispatch_workers::delivery::{Claim, Claimed, Claims, LedgerUnavailable, Outcome, Record};

use crate::second_place::{self, Note, SecondPlace};

/// Hands a committed claim out once it is noted. One that cannot be is given back (T21): nothing is sent that a restored
/// ledger would not know of.
pub(super) async fn noted(
    ledger: &impl Claims,
    (second_place, now_ms): (&SecondPlace, i64),
    (claim, claimed): (&Claim<'_>, Claimed),
    root: Option<AttemptId>,
) -> Result<Claimed, LedgerUnavailable> {
    let plan = claim.plan;
    if !second_place.is_there() {
        return Ok(claimed);
    }
    let singles = plan.account.contract().recipients_per_request == 1;
    let Some(note) = second_place::Claimed::of((plan.tenant, plan.campaign), &claimed, root, singles) else {
        return Ok(claimed);
    };
    let attempt = note.attempt;
    let Err(error) = second_place.note(now_ms, Note::Claimed(note)).await else { return Ok(claimed) };
    let released = |seq| (seq, Outcome::Released { alone: false });
    let outcomes = claimed.deliveries.iter().map(|delivery| released(delivery.seq)).collect();
    ledger.record(&Record { plan, attempt, outcomes, now_ms }).await?;
    Err(LedgerUnavailable(error.to_string()))
}
