//! A ledger and a queue on servers, for a demo that leaves nothing behind on them.

use dispatch_workers::clock::{Entropy as _, SystemClock};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection, postgres::PgConnectOptions};

use super::{DemoError, DemoOptions};
use crate::{
    ledger::{LedgerError, postgres::PostgresLedger},
    queue::rabbitmq::{Link, topology},
    settings::{LedgerUrl, QueueUrl},
};

/// What the demo uses on servers; nothing without them.
#[derive(Default)]
pub(super) struct Services {
    schema: Option<(PgConnectOptions, String)>,
    queue: Option<Link>,
}

impl Services {
    /// Makes what the demo needs: a schema of its own in the database, and a virtual host that nobody uses. Returns
    /// where the ledger is then.
    pub(super) async fn make(options: &DemoOptions) -> Result<(Self, Option<LedgerUrl>), DemoError> {
        let mut services = Self::default();
        if let Some(url) = &options.queue_url {
            services.queue = Some(unused(url).await?);
        }
        let Some(url) = &options.ledger_url else { return Ok((services, None)) };
        let Some(server) = url.server() else { return Ok((services, Some(url.clone()))) };
        let server = server?;
        let mut drawn = [0; 8];
        dispatch_workers::clock::SystemEntropy::default().fill(&mut drawn);
        let name = format!("dispatch_demo_{:016x}", u64::from_be_bytes(drawn));
        let mut conn = PgConnection::connect_with(&server).await.map_err(LedgerError::from)?;
        // A name of our own making.
        sqlx::query(AssertSqlSafe(format!("CREATE SCHEMA {name}")))
            .execute(&mut conn)
            .await
            .map_err(LedgerError::from)?;
        conn.close().await.map_err(LedgerError::from)?;
        services.schema = Some((server, name.clone()));
        let within = url.within_schema(&name);
        let made = match within.server() {
            Some(options) => PostgresLedger::migrate(&options?, now_ms()).await.map(drop),
            None => Ok(()),
        };
        if let Err(error) = made {
            services.remove().await?;
            return Err(error.into());
        }
        Ok((services, Some(within)))
    }

    /// Removes it all.
    pub(super) async fn remove(self) -> Result<(), DemoError> {
        if let Some((server, name)) = self.schema {
            let mut conn = PgConnection::connect_with(&server).await.map_err(LedgerError::from)?;
            let sql = format!("DROP SCHEMA {name} CASCADE");
            sqlx::query(AssertSqlSafe(sql)).execute(&mut conn).await.map_err(LedgerError::from)?;
            conn.close().await.map_err(LedgerError::from)?;
        }
        if let Some(link) = self.queue {
            topology::remove(&link).await.map_err(|error| DemoError::Option(error.to_string()))?;
        }
        Ok(())
    }
}

async fn unused(url: &QueueUrl) -> Result<Link, DemoError> {
    let link = Link::new(url, None, None);
    match topology::is_used(&link).await {
        Ok(false) => Ok(link),
        Ok(true) => Err(DemoError::Option(
            "the virtual host of --queue-url has queues of Dispatch already; the demo removes its own in the end, so give \
             it a virtual host that nobody uses"
                .to_owned(),
        )),
        Err(error) => Err(DemoError::Option(error.to_string())),
    }
}

fn now_ms() -> i64 {
    use dispatch_workers::clock::Clock as _;
    SystemClock::new().now_ms()
}
