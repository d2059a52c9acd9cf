//! Answers that are given again to who asks again: written with what was made, in one transaction, and
//! forgotten after [`KEPT`].

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use sqlx::Row;

use super::change;
use super::sql::{SqlStore, within_limit};
use super::{Guarded, StoreError};
use crate::audit::Note;
use crate::clock::{SharedClock, Timestamp};
use crate::key::{KeyId, KeyRecord};

/// How long an answer is given again.
pub const KEPT: Duration = Duration::from_secs(24 * 3600);
/// How often it is looked for what is to be forgotten.
const INTERVAL: Duration = Duration::from_secs(60);
/// Answers that are forgotten in one statement.
const FORGOTTEN_MAX: i64 = 500;

/// An answer, and which call it was given to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Whose call it was.
    pub actor: KeyId,
    /// What the caller called it by.
    pub digest: String,
    pub body_digest: String,
    /// Without the secret.
    pub text: String,
    pub sealed_secret: String,
    pub given_at: Timestamp,
}

/// Where answers are kept. There is no limit on their number of its own: each belongs to a key that was
/// made within [`KEPT`], and is smaller than that.
#[async_trait]
pub trait AnswerStore: Send + Sync + 'static {
    /// Adds a new key and the answer about it, unless there is one to such a call already: `false`.
    async fn insert_once(
        &self,
        record: &KeyRecord,
        note: &Note,
        answer: &Answer,
    ) -> Result<bool, StoreError>;

    /// The answer that was given to `actor` at `now` less [`KEPT`] or later.
    async fn answer(
        &self,
        actor: KeyId,
        digest: &str,
        now: Timestamp,
    ) -> Result<Option<Answer>, StoreError>;

    /// Forgets some of what is no longer given at `now`, and says whether there may be more.
    async fn forget_answers(&self, now: Timestamp) -> Result<bool, StoreError>;
}

/// Forgets old answers, for ever.
pub async fn keep_forgetting(store: Arc<dyn AnswerStore>, clock: SharedClock) {
    let mut is_failing = false;
    loop {
        match store.forget_answers(clock.now()).await {
            Ok(true) => {
                // Others have their turn.
                tokio::task::yield_now().await;
                continue;
            }
            Ok(false) => is_failing = false,
            Err(error) => {
                if !is_failing {
                    tracing::warn!(%error, "answers to repeated calls can't be forgotten");
                }
                is_failing = true;
            }
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

#[async_trait]
impl AnswerStore for SqlStore {
    async fn insert_once(
        &self,
        record: &KeyRecord,
        note: &Note,
        answer: &Answer,
    ) -> Result<bool, StoreError> {
        within_limit(self.insert_row_once(record, note, answer)).await
    }

    async fn answer(
        &self,
        actor: KeyId,
        digest: &str,
        now: Timestamp,
    ) -> Result<Option<Answer>, StoreError> {
        let query = sqlx::query(
            "SELECT body_digest, answer, sealed_secret, created_at FROM idempotent_answers \
             WHERE actor_id = $1 AND digest = $2 AND created_at > $3",
        )
        .bind(actor.to_string())
        .bind(digest.to_owned())
        .bind(oldest(now));
        let row = within_limit(async { Ok(query.fetch_optional(self.readers()).await?) }).await?;
        let Some(row) = row else { return Ok(None) };
        Ok(Some(Answer {
            actor,
            digest: digest.to_owned(),
            body_digest: row.try_get("body_digest")?,
            text: row.try_get("answer")?,
            sealed_secret: row.try_get("sealed_secret")?,
            given_at: Timestamp::from_millis(row.try_get("created_at")?),
        }))
    }

    async fn forget_answers(&self, now: Timestamp) -> Result<bool, StoreError> {
        within_limit(self.forget_rows(now)).await
    }
}

/// Answers after this moment are still given.
fn oldest(now: Timestamp) -> i64 {
    let kept = i64::try_from(KEPT.as_millis()).unwrap_or(i64::MAX);
    now.as_millis().saturating_sub(kept)
}

impl SqlStore {
    async fn insert_row_once(
        &self,
        record: &KeyRecord,
        note: &Note,
        answer: &Answer,
    ) -> Result<bool, StoreError> {
        let mut transaction = self.writer().begin().await?;
        sqlx::query(
            "DELETE FROM idempotent_answers \
             WHERE actor_id = $1 AND digest = $2 AND created_at <= $3",
        )
        .bind(answer.actor.to_string())
        .bind(answer.digest.clone())
        .bind(oldest(answer.given_at))
        .execute(&mut *transaction)
        .await?;
        // Whoever comes at the same time waits here until this one is written, or is not.
        let added = sqlx::query(
            "INSERT INTO idempotent_answers \
               (actor_id, digest, body_digest, answer, sealed_secret, created_at) \
             VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT DO NOTHING",
        )
        .bind(answer.actor.to_string())
        .bind(answer.digest.clone())
        .bind(answer.body_digest.clone())
        .bind(answer.text.clone())
        .bind(answer.sealed_secret.clone())
        .bind(answer.given_at.as_millis())
        .execute(&mut *transaction)
        .await?
        .rows_affected();
        if added == 0 {
            return Ok(false);
        }
        change::add(&mut transaction, record).await?;
        self.commit_noted(transaction, std::slice::from_ref(note))
            .await?;
        Ok(true)
    }

    async fn forget_rows(&self, now: Timestamp) -> Result<bool, StoreError> {
        // Asked for first: a DELETE that finds nothing would take SQLite's lock every time.
        let rows = sqlx::query(
            "SELECT created_at FROM idempotent_answers WHERE created_at <= $1 \
             ORDER BY created_at LIMIT $2",
        )
        .bind(oldest(now))
        .bind(FORGOTTEN_MAX)
        .fetch_all(self.readers())
        .await?;
        let Some(last) = rows.last() else {
            return Ok(false);
        };
        sqlx::query("DELETE FROM idempotent_answers WHERE created_at <= $1")
            .bind(last.try_get::<i64, _>("created_at")?)
            .execute(self.writer())
            .await?;
        Ok(rows.len() as i64 >= FORGOTTEN_MAX)
    }
}

#[async_trait]
impl<S: AnswerStore> AnswerStore for Guarded<S> {
    async fn insert_once(
        &self,
        record: &KeyRecord,
        note: &Note,
        answer: &Answer,
    ) -> Result<bool, StoreError> {
        let work = self.inner.insert_once(record, note, answer);
        self.guard.write(work).await
    }

    async fn answer(
        &self,
        actor: KeyId,
        digest: &str,
        now: Timestamp,
    ) -> Result<Option<Answer>, StoreError> {
        self.guard.read(self.inner.answer(actor, digest, now)).await
    }

    async fn forget_answers(&self, now: Timestamp) -> Result<bool, StoreError> {
        self.guard.read(self.inner.forget_answers(now)).await
    }
}
