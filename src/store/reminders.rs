//! What is known of reminders to replace a key's secret: which keys there is something to do for, who does it,
//! and what came of it. What that is, and when, others say.
//!
//! Whoever wants to send a reminder claims it first, for a time: so of several instances one sends it. Where
//! that one is killed, another sends it when the time is over. It may come twice then, but never not at all.

use async_trait::async_trait;
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, AssertSqlSafe, Row};

use super::rows::{self, COLUMNS};
use super::sql::{SqlStore, within_limit};
use super::{Guarded, StoreError};
use crate::audit::Note;
use crate::clock::Timestamp;
use crate::key::{KeyId, KeyRecord};

/// Keys that are asked for at once, at most.
pub const REMINDERS_MAX: usize = 100;
/// Keys whose rotation is due are counted up to here.
pub const COUNTED_MAX: i64 = 100_000;
const HOUR_MS: i64 = 3_600_000;
/// How long a row that can't be read is left alone.
const DAMAGED_REST_MS: i64 = 24 * HOUR_MS;

/// The latest reminder of a key's current secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LastReminder {
    /// From when on it was to be sent.
    pub step_at: Timestamp,
    /// Whether nothing is left to do for it.
    pub is_done: bool,
}

/// A key for which there may be something to do.
#[derive(Debug, Clone)]
pub struct Remindable {
    pub key: KeyRecord,
    pub last: Option<LastReminder>,
}

/// Who wants to send which reminder.
#[derive(Debug)]
pub struct ReminderClaim<'a> {
    /// As it was read: where it has changed since, there is no claim.
    pub key: &'a KeyRecord,
    pub step_at: Timestamp,
    /// What the claim is known by.
    pub token: &'a str,
    pub now: Timestamp,
    /// When somebody else may take the claimant's place.
    pub until: Timestamp,
    /// How many reminders all instances may begin within an hour; `None` where this one does not count.
    pub hourly_max: Option<u64>,
}

/// What came of a claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claimed {
    /// It holds, and this is the attempt with that number, from 1.
    Attempt(u32),
    /// Somebody else does it or has done it, or the key has changed.
    Gone,
    /// This hour's reminders have been begun.
    HourIsFull,
}

/// What a claim leaves of its reminder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Left {
    /// Nothing is left to do.
    Nothing,
    /// It was tried, and is to be tried again.
    Again,
    /// It is to be tried, and this was no attempt.
    Untried,
}

/// How a claim ends.
#[derive(Debug, Clone)]
pub struct ClaimEnd {
    pub key_id: KeyId,
    pub token: String,
    pub left: Left,
    /// When there is something to do for the key again.
    pub next_at: Timestamp,
    pub note: Option<Note>,
}

/// Active keys whose secret is to be replaced.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RotationCounts {
    /// It should have been.
    pub overdue: i64,
    /// It should be soon.
    pub soon: i64,
}

/// Where reminders are.
#[async_trait]
pub trait ReminderStore: Send + Sync + 'static {
    /// Active keys for which there may be something to do at `now`, the longest waiting first; at most
    /// [`REMINDERS_MAX`]. Some of them may have expired.
    async fn remindable(&self, now: Timestamp) -> Result<Vec<Remindable>, StoreError>;

    /// Claims a reminder.
    async fn claim_reminder(&self, claim: &ReminderClaim<'_>) -> Result<Claimed, StoreError>;

    /// Ends a claim, and notes what came of it; `false` where somebody has taken the claimant's place.
    async fn end_claim(&self, end: &ClaimEnd) -> Result<bool, StoreError>;

    /// There is nothing to do for a key at `now`, nor before `until`, unless it has changed since it was read or
    /// somebody else does something.
    async fn rest(
        &self,
        key: &KeyRecord,
        now: Timestamp,
        until: Timestamp,
    ) -> Result<(), StoreError>;

    /// How many keys are due for rotation at `now`, and between then and `soon`; each is counted up to
    /// [`COUNTED_MAX`].
    async fn rotations(
        &self,
        now: Timestamp,
        soon: Timestamp,
    ) -> Result<RotationCounts, StoreError>;
}

/// Keys for which there is something to do at `$1`.
pub fn remindable_statement() -> String {
    format!(
        "SELECT {COLUMNS}, reminder_generation, reminder_step, reminder_attempts FROM api_keys \
         WHERE sort_reminder <= $1 ORDER BY sort_reminder, id LIMIT {REMINDERS_MAX}"
    )
}

/// How many keys of the part `$1` are due after `$2` and not after `$3`. Bounds and order name all columns of
/// one index, and nothing else is read, so no row is: who has expired leaves the part within a second or so.
pub fn rotations_statement() -> String {
    format!(
        "SELECT COUNT(*) AS number FROM (\
           SELECT id FROM api_keys \
           WHERE (part || '/rotation') = $1 AND sort_rotation > $2 AND sort_rotation <= $3 \
           ORDER BY (part || '/rotation'), sort_rotation, id LIMIT {COUNTED_MAX}) AS due"
    )
}

/// The parts of active keys that have not expired, in the index by rotation.
const ACTIVE_PARTS: [&str; 2] = ["active/no/live/rotation", "active/no/test/rotation"];

fn read(row: &AnyRow) -> Result<Remindable, StoreError> {
    let key = rows::read(row)?;
    let generation: Option<i64> = row.try_get("reminder_generation")?;
    let step: Option<i64> = row.try_get("reminder_step")?;
    let attempts: Option<i64> = row.try_get("reminder_attempts")?;
    let is_of_secret = generation == Some(key.generation.0);
    Ok(Remindable {
        key,
        last: step.filter(|_| is_of_secret).map(|step| LastReminder {
            step_at: Timestamp::from_millis(step),
            is_done: attempts.unwrap_or_default() == 0,
        }),
    })
}

/// Counts one more reminder of this hour, and says whether it may be sent. A clock that is a little behind
/// counts in the hour that the others are in; one that is far ahead does not stop them for long.
async fn begin_in_hour(
    transaction: &mut AnyConnection,
    now: Timestamp,
    max: u64,
) -> Result<bool, StoreError> {
    let row = sqlx::query(
        "UPDATE reminder_hours SET \
           begun = CASE WHEN hour < $1 OR hour > $1 + 1 THEN 1 ELSE begun + 1 END, \
           hour = CASE WHEN hour < $1 OR hour > $1 + 1 THEN $1 ELSE hour END \
         WHERE id = 1 AND (hour < $1 OR hour > $1 + 1 OR begun < $2) RETURNING begun",
    )
    .bind(now.as_millis() / HOUR_MS)
    .bind(i64::try_from(max).unwrap_or(i64::MAX))
    .fetch_optional(transaction)
    .await?;
    Ok(row.is_some())
}

impl SqlStore {
    async fn read_remindable(&self, now: Timestamp) -> Result<Vec<Remindable>, StoreError> {
        let rows = sqlx::query(AssertSqlSafe(remindable_statement()))
            .bind(now.as_millis())
            .fetch_all(self.readers())
            .await?;
        let mut found = Vec::with_capacity(rows.len());
        for row in &rows {
            match read(row) {
                Ok(remindable) => found.push(remindable),
                Err(error) => {
                    // It must not stand before all others for ever.
                    tracing::warn!(%error, "nobody can be reminded of a key's secret");
                    self.leave_alone(row.try_get("id")?, now).await?;
                }
            }
        }
        Ok(found)
    }

    async fn leave_alone(&self, id: String, now: Timestamp) -> Result<(), StoreError> {
        sqlx::query(
            "UPDATE api_keys SET reminder_generation = generation, \
             reminder_days = rotation_days, reminder_at = $1 WHERE id = $2",
        )
        .bind(now.as_millis() + DAMAGED_REST_MS)
        .bind(id)
        .execute(self.writer())
        .await?;
        Ok(())
    }

    async fn claim(&self, claim: &ReminderClaim<'_>) -> Result<Claimed, StoreError> {
        let mut transaction = self.writer().begin().await?;
        let row = sqlx::query(
            "UPDATE api_keys SET \
               reminder_attempts = CASE \
                 WHEN reminder_generation = generation AND reminder_step = $1 \
                   AND reminder_attempts > 0 THEN reminder_attempts + 1 ELSE 1 END, \
               reminder_generation = generation, reminder_days = rotation_days, \
               reminder_step = $1, reminder_at = $2, reminder_claim = $3 \
             WHERE id = $4 AND revision = $5 AND sort_reminder <= $6 RETURNING reminder_attempts",
        )
        .bind(claim.step_at.as_millis())
        .bind(claim.until.as_millis())
        .bind(claim.token.to_owned())
        .bind(claim.key.id.to_string())
        .bind(claim.key.revision)
        .bind(claim.now.as_millis())
        .fetch_optional(&mut *transaction)
        .await?;
        let Some(row) = row else {
            return Ok(Claimed::Gone);
        };
        let attempts: i64 = row.try_get("reminder_attempts")?;
        if let Some(max) = claim.hourly_max
            && !begin_in_hour(&mut transaction, claim.now, max).await?
        {
            return Ok(Claimed::HourIsFull);
        }
        transaction.commit().await?;
        Ok(Claimed::Attempt(
            u32::try_from(attempts).unwrap_or(u32::MAX),
        ))
    }

    async fn end(&self, end: &ClaimEnd) -> Result<bool, StoreError> {
        let mut transaction = self.writer().begin().await?;
        let attempts = match end.left {
            Left::Nothing => "0",
            Left::Again => "reminder_attempts",
            Left::Untried => {
                "CASE WHEN reminder_attempts > 1 THEN reminder_attempts - 1 ELSE -1 END"
            }
        };
        let sql = format!(
            "UPDATE api_keys SET reminder_at = $1, reminder_attempts = {attempts}, \
             reminder_claim = NULL WHERE id = $2 AND reminder_claim = $3"
        );
        let ended = sqlx::query(AssertSqlSafe(sql))
            .bind(end.next_at.as_millis())
            .bind(end.key_id.to_string())
            .bind(end.token.clone())
            .execute(&mut *transaction)
            .await?
            .rows_affected();
        if ended == 0 {
            return Ok(false);
        }
        match &end.note {
            Some(note) => {
                self.commit_noted(transaction, std::slice::from_ref(note))
                    .await?
            }
            None => transaction.commit().await?,
        }
        Ok(true)
    }

    async fn rest_until(
        &self,
        key: &KeyRecord,
        now: Timestamp,
        until: Timestamp,
    ) -> Result<(), StoreError> {
        sqlx::query(
            "UPDATE api_keys SET \
               reminder_step = CASE WHEN reminder_generation = generation THEN reminder_step END, \
               reminder_attempts = CASE WHEN reminder_generation = generation \
                 THEN reminder_attempts ELSE 0 END, \
               reminder_generation = generation, reminder_days = rotation_days, \
               reminder_at = $1, reminder_claim = NULL \
             WHERE id = $2 AND revision = $3 AND sort_reminder <= $4",
        )
        .bind(until.as_millis())
        .bind(key.id.to_string())
        .bind(key.revision)
        .bind(now.as_millis())
        .execute(self.writer())
        .await?;
        Ok(())
    }

    /// Keys that are due after `from` and not after `to`.
    async fn count_due(&self, from: i64, to: i64) -> Result<i64, StoreError> {
        let mut sum = 0;
        for part in ACTIVE_PARTS {
            let row = sqlx::query(AssertSqlSafe(rotations_statement()))
                .bind(part)
                .bind(from)
                .bind(to)
                .fetch_one(self.readers())
                .await?;
            sum += row.try_get::<i64, _>("number")?;
        }
        Ok(sum.min(COUNTED_MAX))
    }
}

#[async_trait]
impl ReminderStore for SqlStore {
    async fn remindable(&self, now: Timestamp) -> Result<Vec<Remindable>, StoreError> {
        within_limit(self.read_remindable(now)).await
    }

    async fn claim_reminder(&self, claim: &ReminderClaim<'_>) -> Result<Claimed, StoreError> {
        within_limit(self.claim(claim)).await
    }

    async fn end_claim(&self, end: &ClaimEnd) -> Result<bool, StoreError> {
        within_limit(self.end(end)).await
    }

    async fn rest(
        &self,
        key: &KeyRecord,
        now: Timestamp,
        until: Timestamp,
    ) -> Result<(), StoreError> {
        within_limit(self.rest_until(key, now, until)).await
    }

    async fn rotations(
        &self,
        now: Timestamp,
        soon: Timestamp,
    ) -> Result<RotationCounts, StoreError> {
        let (now_ms, soon_ms) = (now.as_millis(), soon.as_millis());
        within_limit(async {
            Ok(RotationCounts {
                overdue: self.count_due(-1, now_ms).await?,
                soon: self.count_due(now_ms, soon_ms).await?,
            })
        })
        .await
    }
}

#[async_trait]
impl<S: ReminderStore> ReminderStore for Guarded<S> {
    async fn remindable(&self, now: Timestamp) -> Result<Vec<Remindable>, StoreError> {
        self.guard.read(self.inner.remindable(now)).await
    }

    async fn claim_reminder(&self, claim: &ReminderClaim<'_>) -> Result<Claimed, StoreError> {
        self.guard.write(self.inner.claim_reminder(claim)).await
    }

    async fn end_claim(&self, end: &ClaimEnd) -> Result<bool, StoreError> {
        self.guard.write(self.inner.end_claim(end)).await
    }

    async fn rest(
        &self,
        key: &KeyRecord,
        now: Timestamp,
        until: Timestamp,
    ) -> Result<(), StoreError> {
        self.guard.write(self.inner.rest(key, now, until)).await
    }

    async fn rotations(
        &self,
        now: Timestamp,
        soon: Timestamp,
    ) -> Result<RotationCounts, StoreError> {
        self.guard.read(self.inner.rotations(now, soon)).await
    }
}
