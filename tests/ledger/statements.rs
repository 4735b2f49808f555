//! What a ledger asks of its database: the statements, as they ran.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
};

use tracing::field::{Field, Visit};
use tracing_subscriber::layer::{Context, Layer};

/// Gathers the statements that the database was given.
#[derive(Clone, Default)]
pub(crate) struct Statements(Arc<Mutex<BTreeSet<String>>>);

impl Statements {
    /// What ran since the last look.
    pub(crate) fn take(&self) -> BTreeSet<String> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl<S: tracing::Subscriber> Layer<S> for Statements {
    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        if event.metadata().target() == "sqlx::query" {
            let mut seen = Seen::default();
            event.record(&mut seen);
            // A short statement is its own summary.
            let sql = if seen.statement.is_empty() { seen.summary } else { seen.statement };
            self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(sql.trim().to_owned());
        }
    }
}

#[derive(Default)]
struct Seen {
    statement: String,
    summary: String,
}

impl Visit for Seen {
    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "db.statement" => value.clone_into(&mut self.statement),
            "summary" => value.clone_into(&mut self.summary),
            _ => {}
        }
    }

    fn record_debug(&mut self, _: &Field, _: &dyn std::fmt::Debug) {}
}
