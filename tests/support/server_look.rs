//! Looks into the ledger past the engine, straight at the server: each of one moment.

use std::collections::{BTreeMap, HashMap};

use dispatch_engine::ledger::postgres::connect_options;
use dispatch_schemas::states::DeliveryState;
use sqlx::{Connection as _, PgConnection, Row as _, postgres::PgRow};

/// A campaign at one moment.
#[derive(Debug)]
pub struct Look {
    /// Which.
    pub id: i64,
    /// Its account.
    pub account: String,
    /// Recipients found so far.
    pub audience: i64,
    /// Whether it has ended.
    pub ended: bool,
    /// Whether it is paused.
    pub paused: bool,
    /// Recipients by state, counted.
    pub rows: BTreeMap<String, i64>,
    /// Recipients by state, as the ledger keeps count.
    pub tally: BTreeMap<String, i64>,
}

impl Look {
    /// Recipients in a state.
    #[must_use]
    pub fn count(&self, state: DeliveryState) -> i64 {
        self.rows.get(state.as_str()).copied().unwrap_or(0)
    }

    /// Recipients that are done.
    #[must_use]
    pub fn count_final(&self) -> i64 {
        DeliveryState::ALL.iter().filter(|state| state.is_final()).map(|state| self.count(*state)).sum()
    }

    /// What does not add up.
    #[must_use]
    pub fn wrong(&self) -> Option<String> {
        let sum: i64 = self.rows.values().sum();
        let Self { account, audience, rows, tally, .. } = self;
        (sum != *audience || rows != tally)
            .then(|| format!("{account}: {audience} recipients, {rows:?}, kept {tally:?}"))
    }
}

/// An attempt.
#[derive(Debug, Clone, Copy)]
pub struct Attempt {
    /// Its token.
    pub token: [u8; 16],
    /// When it was claimed, milliseconds since 1970.
    pub claimed_at_ms: i64,
}

/// A way into the ledger that sees every tenant.
#[derive(Debug)]
pub struct Window {
    url: String,
}

impl Window {
    /// Into the ledger of this URL.
    #[must_use]
    pub const fn new(url: String) -> Self {
        Self { url }
    }

    async fn open(&self) -> sqlx::Result<PgConnection> {
        let options = connect_options(&self.url).expect("the script's URL is right");
        PgConnection::connect_with(&options.options([("dispatch.scope", "engine")])).await
    }

    /// All campaigns at one moment.
    ///
    /// # Errors
    /// While the server is away.
    pub async fn campaigns(&self) -> sqlx::Result<Vec<Look>> {
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

    /// Asks for one number.
    pub async fn number(&self, sql: &'static str) -> i64 {
        let mut conn = self.open().await.expect("the server is there");
        sqlx::query_scalar(sql).fetch_one(&mut conn).await.expect("the server answers")
    }

    /// All attempts.
    pub async fn attempts(&self) -> Vec<Attempt> {
        let mut conn = self.open().await.expect("the server is there");
        let rows = sqlx::query("SELECT token, claimed_at_ms FROM attempt").fetch_all(&mut conn).await;
        let attempt = |row: &PgRow| Attempt {
            token: row.get::<&[u8], _>(0).try_into().expect("a token has 16 bytes"),
            claimed_at_ms: row.get(1),
        };
        rows.expect("attempts can be read").iter().map(attempt).collect()
    }

    /// Deliveries found to be accepted though no answer said so, by how that was found out.
    pub async fn recovered(&self) -> HashMap<String, i64> {
        let mut conn = self.open().await.expect("the server is there");
        let sql =
            "SELECT detail, count(*) FROM delivery WHERE state = 'accepted' AND detail <> 'answer' GROUP BY detail";
        let rows = sqlx::query(sql).fetch_all(&mut conn).await.expect("deliveries can be read");
        rows.iter().map(|row| (row.get(0), row.get(1))).collect()
    }
}
