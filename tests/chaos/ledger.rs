//! Looks into the ledger past the engine, straight at the server: each of one moment.

use std::collections::{BTreeMap, HashMap};

use dispatch_engine::ledger::postgres::connect_options;
use sqlx::{Connection as _, PgConnection, Row as _, postgres::PgRow};

/// A campaign at one moment.
#[derive(Debug)]
pub(crate) struct Look {
    pub(crate) id: i64,
    /// Its account.
    pub(crate) account: String,
    /// Recipients found so far.
    pub(crate) audience: i64,
    pub(crate) ended: bool,
    pub(crate) paused: bool,
    /// Recipients by state, counted.
    pub(crate) rows: BTreeMap<String, i64>,
    /// Recipients by state, as the ledger keeps count.
    pub(crate) tally: BTreeMap<String, i64>,
}

impl Look {
    /// What does not add up.
    pub(crate) fn wrong(&self) -> Option<String> {
        let sum: i64 = self.rows.values().sum();
        let Self { account, audience, rows, tally, .. } = self;
        (sum != *audience || rows != tally)
            .then(|| format!("{account}: {audience} recipients, {rows:?}, kept {tally:?}"))
    }
}

/// An attempt.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Attempt {
    pub(crate) token: [u8; 16],
    pub(crate) claimed_at_ms: i64,
}

/// A way into the ledger that sees every tenant.
#[derive(Debug)]
pub(crate) struct Window {
    url: String,
}

impl Window {
    pub(crate) const fn new(url: String) -> Self {
        Self { url }
    }

    async fn open(&self) -> sqlx::Result<PgConnection> {
        let options = connect_options(&self.url).expect("the script's URL is right");
        PgConnection::connect_with(&options.options([("dispatch.scope", "engine")])).await
    }

    /// All campaigns at one moment; an error while the server is away.
    pub(crate) async fn campaigns(&self) -> sqlx::Result<Vec<Look>> {
        let mut conn = self.open().await?;
        let mut moment = conn.begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
        let about = sqlx::query(
            "SELECT c.id, c.month, c.account, c.ended_at_ms IS NOT NULL AS ended, c.state = 'paused' AS paused,
                    e.next_seq
               FROM campaign c JOIN expansion e ON e.campaign_id = c.id ORDER BY c.id",
        )
        .fetch_all(&mut *moment)
        .await?;
        let counts = |rows: Vec<PgRow>| -> BTreeMap<String, i64> {
            rows.iter().map(|row| (row.get(0), row.get(1))).filter(|(_, count)| *count != 0).collect()
        };
        let mut looks = Vec::new();
        for row in about {
            let (id, month): (i64, i32) = (row.get("id"), row.get("month"));
            let rows = sqlx::query(
                "SELECT state, count(*) FROM delivery WHERE month = $1 AND campaign_id = $2 GROUP BY state",
            )
            .bind(month)
            .bind(id)
            .fetch_all(&mut *moment)
            .await?;
            let tally =
                sqlx::query("SELECT state, sum(deliveries)::bigint FROM tally WHERE campaign_id = $1 GROUP BY state")
                    .bind(id)
                    .fetch_all(&mut *moment)
                    .await?;
            looks.push(Look {
                id,
                account: row.get("account"),
                audience: row.get("next_seq"),
                ended: row.get("ended"),
                paused: row.get("paused"),
                rows: counts(rows),
                tally: counts(tally),
            });
        }
        Ok(looks)
    }

    /// All attempts.
    pub(crate) async fn attempts(&self) -> Vec<Attempt> {
        let mut conn = self.open().await.expect("the server is there");
        let rows = sqlx::query("SELECT token, claimed_at_ms FROM attempt").fetch_all(&mut conn).await;
        let attempt = |row: &PgRow| Attempt {
            token: row.get::<&[u8], _>(0).try_into().expect("a token has 16 bytes"),
            claimed_at_ms: row.get(1),
        };
        rows.expect("attempts can be read").iter().map(attempt).collect()
    }

    /// Deliveries found to be accepted though no answer said so, by how that was found out.
    pub(crate) async fn recovered(&self) -> HashMap<String, i64> {
        let mut conn = self.open().await.expect("the server is there");
        let sql =
            "SELECT detail, count(*) FROM delivery WHERE state = 'accepted' AND detail <> 'answer' GROUP BY detail";
        let rows = sqlx::query(sql).fetch_all(&mut conn).await.expect("deliveries can be read");
        rows.iter().map(|row| (row.get(0), row.get(1))).collect()
    }
}
