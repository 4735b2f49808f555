//! What the ledger knows of itself and of its server, and the marks of what it may have forgotten.

use async_trait::async_trait;
use dispatch_schemas::{
    ids::{AttemptId, CampaignId},
    states::{CampaignState, DeliveryState},
};
use sqlx::{PgConnection, Row as _, postgres::PgRow};

use super::{PostgresLedger, deliveries::Kept, tally::Moves};
use crate::{
    ledger::{
        Result, columns,
        epochs::{Doubted, Epoch, Epochs, Quarantine, Release},
    },
    second_place::{Claimed, SecondPlace},
};

/// The quarantine there is.
pub(super) const QUARANTINE: &str =
    "SELECT id, entered_at_ms, reason, doubted FROM quarantine WHERE left_at_ms IS NULL";

#[async_trait]
impl Epochs for PostgresLedger {
    fn second_place(&self) -> &SecondPlace {
        &self.second_place
    }

    async fn epoch(&self) -> Result<Epoch> {
        // One statement, and so one moment.
        let row = sqlx::query(
            "SELECT e.head, e.moved_at_ms, e.server <> this_server() AS is_elsewhere, q.id, q.entered_at_ms, q.reason,
                    q.doubted, (SELECT max(left_at_ms) FROM quarantine) AS released_at_ms
               FROM ledger_epoch e LEFT JOIN quarantine q ON q.left_at_ms IS NULL WHERE e.id = 1",
        )
        .fetch_one(&self.engine)
        .await?;
        let is_in_one = row.try_get::<Option<i64>, _>("id")?.is_some();
        Ok(Epoch {
            head: row.try_get("head")?,
            moved_at_ms: row.try_get("moved_at_ms")?,
            is_elsewhere: row.try_get("is_elsewhere")?,
            quarantine: if is_in_one { Some(quarantine_of(&row)?) } else { None },
            released_at_ms: row.try_get("released_at_ms")?,
        })
    }

    async fn move_head(&self) -> Result<i64> {
        let now_ms = self.now_ms();
        let moved = sqlx::query(
            "UPDATE ledger_epoch SET head = head + 1, moved_at_ms = $1
              WHERE id = 1 AND server = this_server()
                AND NOT EXISTS (SELECT FROM quarantine WHERE left_at_ms IS NULL) RETURNING head",
        )
        .bind(now_ms)
        .fetch_optional(&self.engine)
        .await?;
        match moved {
            Some(row) => Ok(row.try_get(0)?),
            None => Ok(self.epoch().await?.head),
        }
    }

    async fn enter_quarantine(&self, reason: &str) -> Result<Quarantine> {
        let now_ms = self.now_ms();
        self.repeatable("enter_quarantine", || async {
            let mut transaction = self.engine.begin().await?;
            // One after the other, and so one of several that noticed: whoever comes later finds it.
            sqlx::query("SELECT FROM ledger_epoch WHERE id = 1 FOR UPDATE").execute(&mut *transaction).await?;
            let there = sqlx::query(QUARANTINE).fetch_optional(&mut *transaction).await?;
            let quarantine = match there {
                Some(row) => quarantine_of(&row)?,
                None => {
                    let row = sqlx::query(
                        "INSERT INTO quarantine (id, entered_at_ms, reason)
                         SELECT coalesce(max(id), 0) + 1, $1, $2 FROM quarantine
                         RETURNING id, entered_at_ms, reason, doubted",
                    )
                    .bind(now_ms)
                    .bind(reason)
                    .fetch_one(&mut *transaction)
                    .await?;
                    quarantine_of(&row)?
                }
            };
            sqlx::query("UPDATE ledger_epoch SET server = this_server() WHERE id = 1 AND server <> this_server()")
                .execute(&mut *transaction)
                .await?;
            transaction.commit().await?;
            Ok(quarantine)
        })
        .await
    }

    async fn release(&self, quarantine: i64, head: i64, release: &Release) -> Result<bool> {
        let now_ms = self.now_ms();
        self.repeatable("release", || async {
            let mut transaction = self.engine.begin().await?;
            sqlx::query("SELECT FROM ledger_epoch WHERE id = 1 FOR UPDATE").execute(&mut *transaction).await?;
            let left = sqlx::query(
                "UPDATE quarantine SET left_at_ms = $2, left_how = $3, left_by = $4
                  WHERE id = $1 AND left_at_ms IS NULL",
            )
            .bind(quarantine)
            .bind(now_ms)
            .bind(release.as_str())
            .bind(release.by())
            .execute(&mut *transaction)
            .await?
            .rows_affected();
            if left == 1 {
                sqlx::query("UPDATE ledger_epoch SET head = greatest(head, $1), moved_at_ms = $2 WHERE id = 1")
                    .bind(head)
                    .bind(now_ms)
                    .execute(&mut *transaction)
                    .await?;
            }
            transaction.commit().await?;
            Ok(left == 1)
        })
        .await
    }

    async fn forgotten(&self, claims: &[Claimed]) -> Result<Vec<bool>> {
        let attempts: Vec<i64> = claims.iter().map(|claim| claim.attempt.0).collect();
        let rows = sqlx::query(
            "SELECT a.id IS NULL AS is_forgotten
               FROM unnest($1::bigint[]) WITH ORDINALITY AS n (id, place) LEFT JOIN attempt a ON a.id = n.id
              ORDER BY n.place",
        )
        .bind(attempts)
        .fetch_all(&self.engine)
        .await?;
        rows.iter().map(|row| Ok(row.try_get(0)?)).collect()
    }

    async fn expand_held(&self, campaign: CampaignId, contacts_max: u32) -> Result<u64> {
        let held = &[CampaignState::Running, CampaignState::Paused];
        self.expand_chunk((campaign, held), contacts_max, self.now_ms()).await
    }

    async fn recall(&self, quarantine: i64, claim: &Claimed, claimed_at_ms: i64, look_at_ms: i64) -> Result<u64> {
        let Some(kept) = self.find_kept(claim.campaign).await? else { return Ok(0) };
        let now_ms = self.now_ms();
        let (mut seqs, mut epochs, mut alone) = (Vec::new(), Vec::new(), Vec::new());
        for (seq, epoch, is_alone) in claim.deliveries() {
            seqs.push(seq);
            epochs.push(i16::from(epoch));
            alone.push(is_alone);
        }
        self.repeatable("recall", || async {
            let mut transaction = self.engine.begin().await?;
            let made = Made {
                kept,
                id: claim.attempt,
                root: claim.root,
                token: claim.token.0,
                ranges: columns::to_json(&claim.ranges)?,
                deliveries: seqs.len(),
                claimed_at_ms,
                is_forgotten: false,
            };
            if !made.make(&mut transaction, quarantine, now_ms).await? {
                return Ok(0);
            }
            // What was recorded of an attempt that is older than this one is still so; a final state as well.
            let found = lock(&mut transaction, kept, &Among::These(&seqs), &RECALLED).await?;
            sqlx::query(
                "UPDATE delivery d SET state = 'unknown', detail = 'forgotten', attempts = d.attempts + 1,
                        attempt_id = $6, root_id = $7, alone = d.alone OR m.alone, doubted = true,
                        duplicate_proves = d.duplicate_proves OR NOT d.doubted OR d.key_epoch < m.epoch,
                        first_sent_at_ms = CASE WHEN d.key_epoch < m.epoch THEN $8
                                                ELSE coalesce(d.first_sent_at_ms, $8) END,
                        key_epoch = greatest(d.key_epoch, m.epoch), next_at_ms = $9, updated_at_ms = $10
                   FROM unnest($3::bigint[], $4::smallint[], $5::boolean[]) m(seq, epoch, alone)
                  WHERE d.month = $1 AND d.campaign_id = $2 AND d.seq = m.seq AND d.state = ANY($11)",
            )
            .bind(kept.month)
            .bind(kept.campaign.0)
            .bind(&seqs)
            .bind(&epochs)
            .bind(&alone)
            .bind(claim.attempt.0)
            .bind(claim.root.0)
            .bind(claimed_at_ms)
            .bind(look_at_ms)
            .bind(now_ms)
            .bind(RECALLED.map(DeliveryState::as_str))
            .execute(&mut *transaction)
            .await?;
            let doubted = count(&mut transaction, kept, quarantine, (&found, look_at_ms)).await?;
            transaction.commit().await?;
            Ok(doubted)
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
        let Doubted { campaign, from, span } = doubted;
        let kept = self.kept(campaign).await?;
        let (now_ms, until) = (self.now_ms(), from.saturating_add(i64::from(span)));
        let (attempt, token) =
            (AttemptId::from_random(self.draw()), dispatch_workers::clock::random(self.entropy.as_ref()));
        self.repeatable("doubt", || async {
            let mut transaction = self.engine.begin().await?;
            let row = sqlx::query("SELECT next_seq FROM expansion WHERE campaign_id = $1").bind(campaign.0);
            let next_seq =
                row.fetch_optional(&mut *transaction).await?.map_or(Ok(0), |row| row.try_get::<i64, _>(0))?;
            let next = (until < next_seq).then_some(until);
            let found = lock(&mut transaction, kept, &Among::Span(from, until), &DOUBTED).await?;
            if found.is_empty() {
                return Ok((0, next));
            }
            let made = Made {
                kept,
                id: attempt,
                root: attempt,
                token,
                ranges: columns::to_json(&[(from, until - 1)])?,
                deliveries: 0,
                claimed_at_ms: now_ms,
                is_forgotten: true,
            };
            if !made.make(&mut transaction, quarantine, now_ms).await? {
                return Ok((0, None));
            }
            sqlx::query(
                "UPDATE delivery SET state = 'unknown', detail = 'forgotten', attempts = attempts + 1, attempt_id = $5,
                        root_id = $5, doubted = true, duplicate_proves = false,
                        first_sent_at_ms = least(first_sent_at_ms, $6), next_at_ms = $7, updated_at_ms = $8
                  WHERE month = $1 AND campaign_id = $2 AND seq >= $3 AND seq < $4 AND state = ANY($9)",
            )
            .bind(kept.month)
            .bind(campaign.0)
            .bind(from)
            .bind(until)
            .bind(attempt.0)
            .bind(since_ms)
            .bind(look_at_ms)
            .bind(now_ms)
            .bind(DOUBTED.map(DeliveryState::as_str))
            .execute(&mut *transaction)
            .await?;
            let doubted = count(&mut transaction, kept, quarantine, (&found, look_at_ms)).await?;
            transaction.commit().await?;
            Ok((doubted, next))
        })
        .await
    }
}

/// The states in which a later claim may have been forgotten.
const RECALLED: [DeliveryState; 4] =
    [DeliveryState::Ready, DeliveryState::Claimed, DeliveryState::RetryWait, DeliveryState::Unknown];
/// Those that are called unknown where nobody knows which claims were.
const DOUBTED: [DeliveryState; 3] = [DeliveryState::Ready, DeliveryState::Claimed, DeliveryState::RetryWait];

/// An attempt that has ended without an outcome.
struct Made {
    kept: Kept,
    id: AttemptId,
    root: AttemptId,
    token: [u8; 16],
    ranges: String,
    deliveries: usize,
    claimed_at_ms: i64,
    is_forgotten: bool,
}

impl Made {
    /// Makes it, unless it is there or the quarantine it is made in has ended, which stays as it is until the end of the
    /// transaction.
    async fn make(&self, conn: &mut PgConnection, quarantine: i64, now_ms: i64) -> Result<bool> {
        let done = sqlx::query(
            "WITH held AS (SELECT FROM quarantine WHERE id = $10 AND left_at_ms IS NULL FOR UPDATE)
             INSERT INTO attempt (id, campaign_id, tenant_id, month, root_id, token, ranges, deliveries, open,
                                  claimed_at_ms, ended_at_ms, forgotten)
             SELECT $1, c.id, c.tenant_id, c.month, $3, $4, $5, $6, 0, $7, $8, $9
               FROM campaign c WHERE c.id = $2 AND EXISTS (SELECT FROM held)
             ON CONFLICT DO NOTHING",
        )
        .bind(self.id.0)
        .bind(self.kept.campaign.0)
        .bind(self.root.0)
        .bind(self.token.as_slice())
        .bind(&self.ranges)
        .bind(i64::try_from(self.deliveries).unwrap_or(i64::MAX))
        .bind(self.claimed_at_ms)
        .bind(now_ms)
        .bind(self.is_forgotten)
        .bind(quarantine)
        .execute(conn)
        .await?;
        Ok(done.rows_affected() == 1)
    }
}

/// Which deliveries of a campaign.
enum Among<'a> {
    These(&'a [i64]),
    /// From the first on, without the last.
    Span(i64, i64),
}

/// Locks those in one of the states: their numbers, and the state each is in.
async fn lock(
    conn: &mut PgConnection,
    kept: Kept,
    among: &Among<'_>,
    states: &[DeliveryState],
) -> Result<Vec<(i64, DeliveryState)>> {
    let states: Vec<&str> = states.iter().map(|state| state.as_str()).collect();
    let query = match among {
        Among::These(seqs) => sqlx::query(
            "SELECT seq, state FROM delivery WHERE month = $1 AND campaign_id = $2 AND state = ANY($3) AND seq = ANY($4)
              ORDER BY seq FOR UPDATE",
        )
        .bind(kept.month)
        .bind(kept.campaign.0)
        .bind(states)
        .bind(*seqs),
        Among::Span(from, until) => sqlx::query(
            "SELECT seq, state FROM delivery
              WHERE month = $1 AND campaign_id = $2 AND state = ANY($3) AND seq >= $4 AND seq < $5
              ORDER BY seq FOR UPDATE",
        )
        .bind(kept.month)
        .bind(kept.campaign.0)
        .bind(states)
        .bind(*from)
        .bind(*until),
    };
    query.fetch_all(conn).await?.iter().map(|row| Ok((row.try_get("seq")?, columns::word(row, "state")?))).collect()
}

/// Lets what was marked wait for its look, and counts it, by the states it was in.
async fn count(
    conn: &mut PgConnection,
    kept: Kept,
    quarantine: i64,
    (found, look_at_ms): (&[(i64, DeliveryState)], i64),
) -> Result<u64> {
    let seqs: Vec<i64> = found.iter().map(|(seq, _)| *seq).collect();
    sqlx::query(
        "INSERT INTO waiting (campaign_id, seq, tenant_id, month, state, next_at_ms)
         SELECT c.id, seq, c.tenant_id, c.month, 'unknown', $3 FROM campaign c CROSS JOIN unnest($2::bigint[]) AS seq
          WHERE c.id = $1 ORDER BY seq
         ON CONFLICT (campaign_id, seq) DO UPDATE SET state = excluded.state, next_at_ms = excluded.next_at_ms",
    )
    .bind(kept.campaign.0)
    .bind(&seqs)
    .bind(look_at_ms)
    .execute(&mut *conn)
    .await?;
    let doubted = found.len() as u64;
    sqlx::query("UPDATE quarantine SET doubted = doubted + $2 WHERE id = $1")
        .bind(quarantine)
        .bind(i64::try_from(doubted).unwrap_or(i64::MAX))
        .execute(&mut *conn)
        .await?;
    let mut moves = Moves::default();
    for state in RECALLED {
        moves.left(state, "", found.iter().filter(|(_, was)| *was == state).count() as u64);
    }
    moves.entered(DeliveryState::Unknown, "", doubted);
    moves.write(kept.campaign, conn).await?;
    Ok(doubted)
}

/// A quarantine as it is kept.
pub(super) fn quarantine_of(row: &PgRow) -> Result<Quarantine> {
    Ok(Quarantine {
        id: row.try_get("id")?,
        entered_at_ms: row.try_get("entered_at_ms")?,
        reason: row.try_get("reason")?,
        doubted: u64::try_from(row.try_get::<i64, _>("doubted")?).unwrap_or(0),
    })
}

/// Begins the books of a ledger that has none.
pub(super) async fn begin(conn: &mut PgConnection, now_ms: i64) -> Result<()> {
    sqlx::query(
        "INSERT INTO ledger_epoch (id, server, head, moved_at_ms) VALUES (1, this_server(), 0, $1)
         ON CONFLICT DO NOTHING",
    )
    .bind(now_ms)
    .execute(conn)
    .await?;
    Ok(())
}
