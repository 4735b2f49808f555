//! What the file knows of itself, and the marks of what it may have forgotten.

use async_trait::async_trait;
use dispatch_schemas::{
    ids::{AttemptId, CampaignId},
    states::{CampaignState, DeliveryState},
};
use sqlx::{Row as _, SqliteConnection, sqlite::SqliteRow};

use super::{SqliteLedger, expansion, rows, tally::Moves};
use crate::{
    ledger::{
        Result,
        epochs::{Doubted, Epoch, Epochs, Quarantine, Release},
    },
    second_place::{Claimed, SecondPlace},
};

/// The quarantine there is.
pub(super) const QUARANTINE: &str =
    "SELECT id, entered_at_ms, reason, doubted FROM quarantine WHERE left_at_ms IS NULL";

#[async_trait]
impl Epochs for SqliteLedger {
    fn second_place(&self) -> &SecondPlace {
        &self.second_place
    }

    async fn epoch(&self) -> Result<Epoch> {
        let row = sqlx::query(
            "SELECT head, moved_at_ms, (SELECT max(left_at_ms) FROM quarantine) AS released_at_ms FROM ledger_epoch",
        )
        .fetch_one(&self.readers)
        .await?;
        let quarantine = sqlx::query(QUARANTINE).fetch_optional(&self.readers).await?;
        Ok(Epoch {
            head: row.try_get("head")?,
            moved_at_ms: row.try_get("moved_at_ms")?,
            // A file has no server.
            is_elsewhere: false,
            quarantine: quarantine.as_ref().map(quarantine_of).transpose()?,
            released_at_ms: row.try_get("released_at_ms")?,
        })
    }

    async fn move_head(&self) -> Result<i64> {
        let now_ms = self.now_ms();
        self.writer
            .run("move_head", move |conn| {
                Box::pin(async move {
                    sqlx::query(
                        "UPDATE ledger_epoch SET head = head + 1, moved_at_ms = ?
                          WHERE NOT EXISTS (SELECT 1 FROM quarantine WHERE left_at_ms IS NULL)",
                    )
                    .bind(now_ms)
                    .execute(&mut *conn)
                    .await?;
                    Ok(sqlx::query("SELECT head FROM ledger_epoch").fetch_one(conn).await?.try_get(0)?)
                })
            })
            .await
    }

    async fn enter_quarantine(&self, reason: &str) -> Result<Quarantine> {
        let (reason, now_ms) = (reason.to_owned(), self.now_ms());
        self.writer
            .run("enter_quarantine", move |conn| {
                Box::pin(async move {
                    sqlx::query("INSERT INTO quarantine (entered_at_ms, reason) VALUES (?, ?) ON CONFLICT DO NOTHING")
                        .bind(now_ms)
                        .bind(reason)
                        .execute(&mut *conn)
                        .await?;
                    quarantine_of(&sqlx::query(QUARANTINE).fetch_one(conn).await?)
                })
            })
            .await
    }

    async fn release(&self, quarantine: i64, head: i64, release: &Release) -> Result<bool> {
        let (how, by, now_ms) = (release.as_str(), release.by().cloned(), self.now_ms());
        self.writer
            .run("release", move |conn| {
                Box::pin(async move {
                    let left = sqlx::query(
                        "UPDATE quarantine SET left_at_ms = ?, left_how = ?, left_by = ?
                          WHERE id = ? AND left_at_ms IS NULL",
                    )
                    .bind(now_ms)
                    .bind(how)
                    .bind(by)
                    .bind(quarantine)
                    .execute(&mut *conn)
                    .await?
                    .rows_affected();
                    sqlx::query("UPDATE ledger_epoch SET head = max(head, ?), moved_at_ms = ? WHERE ? = 1")
                        .bind(head)
                        .bind(now_ms)
                        .bind(i64::try_from(left).unwrap_or(0))
                        .execute(conn)
                        .await?;
                    Ok(left == 1)
                })
            })
            .await
    }

    async fn forgotten(&self, claims: &[Claimed]) -> Result<Vec<bool>> {
        let attempts: Vec<i64> = claims.iter().map(|claim| claim.attempt.0).collect();
        let rows = sqlx::query(
            "SELECT a.id IS NULL AS is_forgotten FROM json_each(?) j LEFT JOIN attempt a ON a.id = j.value
              ORDER BY j.key",
        )
        .bind(rows::json_numbers(&attempts))
        .fetch_all(&self.readers)
        .await?;
        rows.iter().map(|row| Ok(row.try_get(0)?)).collect()
    }

    async fn expand_held(&self, campaign: CampaignId, contacts_max: u32) -> Result<u64> {
        let now_ms = self.now_ms();
        let held = &[CampaignState::Running, CampaignState::Paused];
        self.writer
            .run("expand_held", move |conn| Box::pin(expansion::expand(conn, (campaign, held), contacts_max, now_ms)))
            .await
    }

    async fn recall(&self, quarantine: i64, claim: &Claimed, claimed_at_ms: i64, look_at_ms: i64) -> Result<u64> {
        let (claim, now_ms) = (claim.clone(), self.now_ms());
        self.writer
            .run("recall", move |conn| {
                Box::pin(async move {
                    let made = make_attempt(
                        conn,
                        quarantine,
                        Made {
                            id: claim.attempt,
                            root: claim.root,
                            token: claim.token.0,
                            campaign: claim.campaign,
                            ranges: rows::to_json(&claim.ranges)?,
                            deliveries: claim.deliveries().len(),
                            claimed_at_ms,
                            is_forgotten: false,
                        },
                        now_ms,
                    )
                    .await?;
                    if !made {
                        return Ok(0);
                    }
                    let members: Vec<(i64, i64, u8, bool)> = claim
                        .deliveries()
                        .into_iter()
                        .map(|(seq, epoch, alone)| (claim.campaign.0, seq, epoch, alone))
                        .collect();
                    let members = rows::to_json(&members)?;
                    let marks = Marks { quarantine, campaign: claim.campaign };
                    // What was recorded of an attempt that is older than this one is still so; a final state as well.
                    let sql = format!(
                        "{BY_MEMBER} AND d.state IN ('ready', 'claimed', 'retry_wait', 'unknown') GROUP BY d.state"
                    );
                    let from = sqlx::query(sqlx::AssertSqlSafe(sql)).bind(&members).fetch_all(&mut *conn).await?;
                    sqlx::query(
                        "UPDATE delivery SET state = 'unknown', detail = 'forgotten', attempts = attempts + 1,
                                attempt_id = ?2, root_id = ?3, alone = max(alone, j.value ->> 3), doubted = 1,
                                duplicate_proves = max(duplicate_proves, NOT doubted, key_epoch < j.value ->> 2),
                                first_sent_at_ms = CASE WHEN key_epoch < j.value ->> 2 THEN ?4
                                                        ELSE coalesce(first_sent_at_ms, ?4) END,
                                key_epoch = max(key_epoch, j.value ->> 2), next_at_ms = ?5, updated_at_ms = ?6
                           FROM json_each(?1) j
                          WHERE delivery.campaign_id = j.value ->> 0 AND delivery.seq = j.value ->> 1
                            AND delivery.state IN ('ready', 'claimed', 'retry_wait', 'unknown')",
                    )
                    .bind(&members)
                    .bind(claim.attempt.0)
                    .bind(claim.root.0)
                    .bind(claimed_at_ms)
                    .bind(look_at_ms)
                    .bind(now_ms)
                    .execute(&mut *conn)
                    .await?;
                    marks.count(conn, &from).await
                })
            })
            .await
    }

    async fn doubt(
        &self,
        quarantine: i64,
        doubted: Doubted,
        since_ms: i64,
        look_at_ms: i64,
    ) -> Result<(u64, Option<i64>)> {
        let (now_ms, attempt) = (self.now_ms(), AttemptId::from_random(self.draw()));
        let token = dispatch_workers::clock::random(self.entropy.as_ref());
        let Doubted { campaign, from, span } = doubted;
        let until = from.saturating_add(i64::from(span));
        self.writer
            .run("doubt", move |conn| {
                Box::pin(async move {
                    let row = sqlx::query("SELECT next_seq FROM campaign WHERE id = ?").bind(campaign.0);
                    let next_seq: i64 = row.fetch_one(&mut *conn).await?.try_get(0)?;
                    let next = (until < next_seq).then_some(until);
                    let found = sqlx::query(
                        "SELECT state, count(*) AS deliveries FROM delivery
                          WHERE campaign_id = ? AND seq >= ? AND seq < ? AND state IN ('ready', 'claimed', 'retry_wait')
                          GROUP BY state",
                    )
                    .bind(campaign.0)
                    .bind(from)
                    .bind(until)
                    .fetch_all(&mut *conn)
                    .await?;
                    if found.is_empty() {
                        return Ok((0, next));
                    }
                    let made = Made {
                        id: attempt,
                        root: attempt,
                        token,
                        campaign,
                        ranges: rows::to_json(&[(from, until - 1)])?,
                        deliveries: 0,
                        claimed_at_ms: now_ms,
                        is_forgotten: true,
                    };
                    if !make_attempt(conn, quarantine, made, now_ms).await? {
                        return Ok((0, None));
                    }
                    sqlx::query(
                        "UPDATE delivery SET state = 'unknown', detail = 'forgotten', attempts = attempts + 1,
                                attempt_id = ?4, root_id = ?4, doubted = 1, duplicate_proves = 0,
                                first_sent_at_ms = min(coalesce(first_sent_at_ms, ?5), ?5), next_at_ms = ?6,
                                updated_at_ms = ?7
                          WHERE campaign_id = ?1 AND seq >= ?2 AND seq < ?3
                            AND state IN ('ready', 'claimed', 'retry_wait')",
                    )
                    .bind(campaign.0)
                    .bind(from)
                    .bind(until)
                    .bind(attempt.0)
                    .bind(since_ms)
                    .bind(look_at_ms)
                    .bind(now_ms)
                    .execute(&mut *conn)
                    .await?;
                    Ok((Marks { quarantine, campaign }.count(conn, &found).await?, next))
                })
            })
            .await
    }
}

/// The deliveries of `?1`, counted.
const BY_MEMBER: &str = "SELECT d.state, count(*) AS deliveries FROM json_each(?1) j CROSS JOIN delivery d
    ON d.campaign_id = j.value ->> 0 AND d.seq = j.value ->> 1";

/// An attempt that has ended without an outcome.
struct Made {
    id: AttemptId,
    root: AttemptId,
    token: [u8; 16],
    campaign: CampaignId,
    ranges: String,
    deliveries: usize,
    claimed_at_ms: i64,
    is_forgotten: bool,
}

/// Makes an attempt, unless it is there or the quarantine it is made in has ended.
async fn make_attempt(conn: &mut SqliteConnection, quarantine: i64, made: Made, now_ms: i64) -> Result<bool> {
    let done = sqlx::query(
        "INSERT INTO attempt (id, campaign_id, root_id, token, ranges, deliveries, open, claimed_at_ms, ended_at_ms,
                              forgotten)
         SELECT ?, ?, ?, ?, ?, ?, 0, ?, ?, ? FROM quarantine WHERE id = ? AND left_at_ms IS NULL
         ON CONFLICT DO NOTHING",
    )
    .bind(made.id.0)
    .bind(made.campaign.0)
    .bind(made.root.0)
    .bind(made.token.as_slice())
    .bind(made.ranges)
    .bind(i64::try_from(made.deliveries).unwrap_or(i64::MAX))
    .bind(made.claimed_at_ms)
    .bind(now_ms)
    .bind(made.is_forgotten)
    .bind(quarantine)
    .execute(conn)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// The books of marks.
struct Marks {
    quarantine: i64,
    campaign: CampaignId,
}

impl Marks {
    /// Counts what was marked, by the states it was in, in the tally and in the quarantine.
    async fn count(self, conn: &mut SqliteConnection, from: &[SqliteRow]) -> Result<u64> {
        let (mut moves, mut doubted) = (Moves::default(), 0);
        for row in from {
            let (state, count) = (rows::word(row, "state")?, row.try_get::<i64, _>("deliveries")?);
            let count = u64::try_from(count).unwrap_or(0);
            moves.left(state, "", count);
            moves.entered(DeliveryState::Unknown, "", count);
            doubted += count;
        }
        moves.write(self.campaign, conn).await?;
        sqlx::query("UPDATE quarantine SET doubted = doubted + ? WHERE id = ?")
            .bind(i64::try_from(doubted).unwrap_or(i64::MAX))
            .bind(self.quarantine)
            .execute(conn)
            .await?;
        Ok(doubted)
    }
}

/// A quarantine as it is kept.
pub(super) fn quarantine_of(row: &SqliteRow) -> Result<Quarantine> {
    Ok(Quarantine {
        id: row.try_get("id")?,
        entered_at_ms: row.try_get("entered_at_ms")?,
        reason: row.try_get("reason")?,
        doubted: u64::try_from(row.try_get::<i64, _>("doubted")?).unwrap_or(0),
    })
}
