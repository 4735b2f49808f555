//! Tenants, as an operator closes and opens them.

use dispatch_schemas::{
    api::keys::{Tenant, TenantStopped},
    ids::TenantId,
};

use super::Refusal;
use crate::ledger::Ledger;

/// The longest reason, characters.
const REASON_CHARS_MAX: usize = 200;

pub(super) async fn close(ledger: &dyn Ledger, tenant: &str, reason: &str) -> Result<TenantStopped, Refusal> {
    let reason = reason.trim();
    if reason.is_empty() || reason.chars().count() > REASON_CHARS_MAX || reason.chars().any(char::is_control) {
        return Err(Refusal::Wrong(format!("--reason must have 1 to {REASON_CHARS_MAX} characters, on one line")));
    }
    Ok(ledger.close_tenant(find(ledger, tenant).await?, reason).await?)
}

pub(super) async fn open(ledger: &dyn Ledger, tenant: &str) -> Result<Tenant, Refusal> {
    Ok(ledger.open_tenant(find(ledger, tenant).await?).await?)
}

/// The tenant of this name, or else of this id: a name may look like another tenant's id.
async fn find(ledger: &dyn Ledger, wanted: &str) -> Result<TenantId, Refusal> {
    let tenants = ledger.tenants().await?;
    let named = tenants.iter().find(|tenant| tenant.name == wanted);
    let found = named.or_else(|| tenants.iter().find(|tenant| tenant.id.to_string() == wanted));
    found
        .map(|tenant| tenant.id)
        .ok_or_else(|| Refusal::Wrong(format!("there is no tenant `{wanted}`; `dispatch tenants list` names them")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::tests::world::World;

    #[tokio::test]
    async fn a_name_goes_before_an_id_that_reads_the_same() {
        let world = World::new().await;
        let ledger = world.ledger.as_ref();
        // Made by somebody who wants another tenant to be closed in place of theirs.
        let named = ledger.tenant(&world.tenant.to_string()).await.unwrap();
        let closed = close(ledger, &named.name, "abuse").await.unwrap();
        assert_eq!(closed.tenant.id, named.id);
        assert_eq!(open(ledger, &named.name).await.unwrap().id, named.id);
        assert_eq!(close(ledger, "acme", "unpaid").await.unwrap().tenant.id, world.tenant);
    }
}
