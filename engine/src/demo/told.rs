//! What the sandbox told in callbacks, and whether the ledger knows it.

use std::{collections::BTreeMap, time::Duration};

use dispatch_schemas::ids::{CampaignId, TenantId};
use dispatch_workers::sandbox::CallbackCounts;

use super::{DemoError, Watcher, sandbox_process::SandboxProcess};
use crate::engine::{CallbackDesk, Engine};

/// How often it is looked whether all is told.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Without any progress for this long, something is stuck.
const SILENT_MAX: u32 = 600;

/// Waits until everything was told and is in the ledger; says what it was.
pub(super) async fn heard(
    sandbox: &SandboxProcess,
    desk: &CallbackDesk,
    watcher: &mut dyn Watcher,
) -> Result<CallbackCounts, DemoError> {
    let (mut silent, mut before) = (0, u64::MAX);
    loop {
        let counts = sandbox.told().await?;
        let waiting = counts.pending.saturating_add(desk.spool.bytes());
        if waiting == 0 {
            return Ok(counts);
        }
        silent = if waiting == before { silent + 1 } else { 0 };
        before = waiting;
        if silent > SILENT_MAX {
            return Err(DemoError::Sandbox(format!("{} of its callbacks are not taken", counts.pending)));
        }
        let all = counts.told.values().sum();
        watcher.progress(all, all.saturating_add(counts.pending));
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// How many recipients the ledger knows a report of, by its kind.
pub(super) async fn reported(
    engine: &Engine,
    tenant: TenantId,
    campaigns: &[CampaignId],
) -> Result<BTreeMap<String, u64>, DemoError> {
    let mut reported: BTreeMap<String, u64> = BTreeMap::new();
    for campaign in campaigns {
        for (kind, count) in engine.opened.ledger.progress(tenant, *campaign).await?.reported {
            *reported.entry(kind).or_default() += count;
        }
    }
    Ok(reported)
}

/// Whether the ledger has exactly what was told.
pub(super) fn agree(told: &CallbackCounts, reported: &BTreeMap<String, u64>) -> bool {
    let there = |counts: &BTreeMap<String, u64>| -> BTreeMap<String, u64> {
        counts.iter().filter(|(_, count)| **count > 0).map(|(kind, count)| (kind.clone(), *count)).collect()
    };
    there(&told.told) == there(reported)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_report_more_or_less_is_a_disagreement() {
        let counts = |delivered| BTreeMap::from([("delivered".to_owned(), delivered), ("deferred".to_owned(), 0)]);
        let told = CallbackCounts { told: counts(7), ..CallbackCounts::default() };
        assert!(agree(&told, &BTreeMap::from([("delivered".to_owned(), 7)])));
        assert!(!agree(&told, &counts(6)) && !agree(&told, &counts(8)) && !agree(&told, &BTreeMap::new()));
    }
}
