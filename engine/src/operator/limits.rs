//! The limits that operators set.

use dispatch_schemas::api::limits::Windows;

use super::Refusal;
use crate::{
    engine::Opened,
    ledger::{LimitTarget, OperatorLimit},
};

/// Sets a limit. The engine's own look at the ledger puts it in force.
pub(super) async fn set(opened: &Opened, of: LimitTarget, limits: Windows) -> Result<OperatorLimit, Refusal> {
    of.check().map_err(|wanted| Refusal::Wrong(format!("{}: {wanted}", of.kind())))?;
    opened.ledger.set_operator_limit(&of, limits).await?;
    let set = opened.ledger.operator_limits().await?.into_iter().find(|limit| limit.of == of);
    set.ok_or_else(|| Refusal::Failed(format!("another operator cleared the limit of {of} at the same time")))
}
