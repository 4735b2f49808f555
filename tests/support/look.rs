//! Looks into the ledger's file while an engine works on it or lies dead beside it: read-only, each of one moment.

use std::{collections::BTreeMap, path::Path};

use dispatch_schemas::states::DeliveryState;
use sqlx::{Connection as _, Row as _, SqliteConnection, sqlite::SqliteConnectOptions};

/// A campaign as the file has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CampaignLook {
    /// The account that sends it.
    pub account: String,
    /// Recipients found so far.
    pub audience: i64,
    /// Whether it has ended.
    pub ended: bool,
    /// Recipients by state, counted.
    pub rows: BTreeMap<String, i64>,
    /// Recipients by state, as the ledger keeps count.
    pub tally: BTreeMap<String, i64>,
}

impl CampaignLook {
    /// Recipients in a state.
    #[must_use]
    pub fn count(&self, state: DeliveryState) -> i64 {
        self.rows.get(state.as_str()).copied().unwrap_or(0)
    }

    /// Panics unless every recipient is in one state and the kept counts are right.
    pub fn check_sums(&self) {
        let sum: i64 = self.rows.values().sum();
        assert_eq!(sum, self.audience, "recipients by state do not add up to the audience: {self:?}");
        assert_eq!(self.rows, self.tally, "the kept counts are not those of the recipients: {self:?}");
    }
}

/// All campaigns of a ledger at one moment.
pub async fn campaigns(ledger: &Path) -> Vec<CampaignLook> {
    let mut conn = open(ledger).await;
    let mut moment = conn.begin().await.expect("a read can begin");
    let rows =
        sqlx::query("SELECT id, account, next_seq, ended_at_ms IS NOT NULL AS ended FROM campaign ORDER BY account")
            .fetch_all(&mut *moment)
            .await
            .expect("campaigns can be read");
    let mut looks = Vec::with_capacity(rows.len());
    for row in rows {
        let id: i64 = row.get("id");
        let by_state = |sql: &'static str| sqlx::query(sql).bind(id);
        let rows = by_state("SELECT state, count(*) FROM delivery WHERE campaign_id = ? GROUP BY state")
            .fetch_all(&mut *moment)
            .await
            .expect("deliveries can be counted");
        let tally = by_state("SELECT state, sum(deliveries) FROM tally WHERE campaign_id = ? GROUP BY state")
            .fetch_all(&mut *moment)
            .await
            .expect("the tally can be read");
        let counts = |rows: &[sqlx::sqlite::SqliteRow]| {
            rows.iter().map(|row| (row.get(0), row.get(1))).filter(|(_, count)| *count != 0).collect()
        };
        looks.push(CampaignLook {
            account: row.get("account"),
            audience: row.get("next_seq"),
            ended: row.get("ended"),
            rows: counts(&rows),
            tally: counts(&tally),
        });
    }
    looks
}

/// The tokens of all attempts.
pub async fn tokens(ledger: &Path) -> Vec<[u8; 16]> {
    let mut conn = open(ledger).await;
    let rows = sqlx::query("SELECT token FROM attempt").fetch_all(&mut conn).await.expect("attempts can be read");
    rows.iter().map(|row| row.get::<&[u8], _>(0).try_into().expect("a token has 16 bytes")).collect()
}

/// How many deliveries were found to be accepted though no answer said so, by how that was found out.
pub async fn recovered(ledger: &Path) -> BTreeMap<String, i64> {
    let mut conn = open(ledger).await;
    let sql = "SELECT detail, count(*) FROM delivery WHERE state = 'accepted' AND detail <> 'answer' GROUP BY detail";
    let rows = sqlx::query(sql).fetch_all(&mut conn).await.expect("deliveries can be read");
    rows.iter().map(|row| (row.get(0), row.get(1))).collect()
}

async fn open(ledger: &Path) -> SqliteConnection {
    let options = SqliteConnectOptions::new().filename(ledger).read_only(true);
    SqliteConnection::connect_with(&options).await.expect("the ledger's file can be opened for reading")
}
