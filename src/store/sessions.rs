//! Sessions of the dashboard: which key's they are, and when they were last seen. Of what a browser holds
//! only a digest is here. How long one lasts is for others to say.

use async_trait::async_trait;
use sqlx::Row;

use super::sql::{SqlStore, within_limit};
use super::{Guarded, StoreError};
use crate::clock::Timestamp;
use crate::key::{Generation, KeyId};

/// Sessions that one key has at the same time. Whoever signs in once more ends the one that was not seen
/// for longest.
pub const SESSIONS_OF_KEY_MAX: usize = 50;
/// Sessions past that number that one sign-in ends: more than one only where many come at the same time.
const ENDED_MAX: usize = 50;
/// Sessions that are forgotten in one statement.
const FORGOTTEN_MAX: usize = 500;

/// Somebody who is signed in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    /// The digest of what the browser holds.
    pub id: String,
    pub key_id: KeyId,
    /// Of the secret that signed in.
    pub generation: Generation,
    pub created_at: Timestamp,
    pub seen_at: Timestamp,
}

/// Where sessions are.
#[async_trait]
pub trait SessionStore: Send + Sync + 'static {
    /// Adds one, and ends those of the same key that are more than [`SESSIONS_OF_KEY_MAX`] with it.
    async fn add_session(&self, session: &Session) -> Result<(), StoreError>;

    /// The session of that id.
    async fn session(&self, id: &str) -> Result<Option<Session>, StoreError>;

    /// Notes that a session was seen at `now`, unless it was seen later.
    async fn touch_session(&self, id: &str, now: Timestamp) -> Result<(), StoreError>;

    /// Ends one, if it is there.
    async fn end_session(&self, id: &str) -> Result<(), StoreError>;

    /// Forgets some of those that were made at `created` or before, or not seen since `seen`, and says
    /// whether there may be more.
    async fn forget_sessions(
        &self,
        created: Timestamp,
        seen: Timestamp,
    ) -> Result<bool, StoreError>;
}

#[async_trait]
impl SessionStore for SqlStore {
    async fn add_session(&self, session: &Session) -> Result<(), StoreError> {
        within_limit(async {
            self.add_session_row(session).await?;
            self.end_surplus(session.key_id).await
        })
        .await
    }

    async fn session(&self, id: &str) -> Result<Option<Session>, StoreError> {
        let query = sqlx::query(
            "SELECT key_id, generation, created_at, seen_at FROM dashboard_sessions WHERE id = $1",
        )
        .bind(id.to_owned());
        let row = within_limit(async { Ok(query.fetch_optional(self.readers()).await?) }).await?;
        let Some(row) = row else { return Ok(None) };
        let key_id: String = row.try_get("key_id")?;
        let moment = |column| Ok::<_, StoreError>(Timestamp::from_millis(row.try_get(column)?));
        Ok(Some(Session {
            id: id.to_owned(),
            key_id: key_id.parse().map_err(|_| StoreError::Damaged {
                id: key_id.clone(),
                column: "key_id",
            })?,
            generation: Generation(row.try_get("generation")?),
            created_at: moment("created_at")?,
            seen_at: moment("seen_at")?,
        }))
    }

    async fn touch_session(&self, id: &str, now: Timestamp) -> Result<(), StoreError> {
        let query = sqlx::query(
            "UPDATE dashboard_sessions SET seen_at = $2 WHERE id = $1 AND seen_at < $2",
        )
        .bind(id.to_owned())
        .bind(now.as_millis());
        within_limit(async { Ok(query.execute(self.writer()).await?) }).await?;
        Ok(())
    }

    async fn end_session(&self, id: &str) -> Result<(), StoreError> {
        within_limit(self.delete_session(id)).await
    }

    async fn forget_sessions(
        &self,
        created: Timestamp,
        seen: Timestamp,
    ) -> Result<bool, StoreError> {
        within_limit(async {
            let old = self.forget_until("created_at", created).await?;
            let idle = self.forget_until("seen_at", seen).await?;
            Ok(old || idle)
        })
        .await
    }
}

impl SqlStore {
    async fn add_session_row(&self, session: &Session) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO dashboard_sessions (id, key_id, generation, created_at, seen_at) \
             VALUES ($1, $2, $3, $4, $5)",
        )
        .bind(session.id.clone())
        .bind(session.key_id.to_string())
        .bind(session.generation.0)
        .bind(session.created_at.as_millis())
        .bind(session.seen_at.as_millis())
        .execute(self.writer())
        .await?;
        Ok(())
    }

    async fn end_surplus(&self, key: KeyId) -> Result<(), StoreError> {
        let rows = sqlx::query(
            "SELECT id FROM dashboard_sessions WHERE key_id = $1 \
             ORDER BY seen_at DESC LIMIT $2 OFFSET $3",
        )
        .bind(key.to_string())
        .bind(ENDED_MAX as i64)
        .bind(SESSIONS_OF_KEY_MAX as i64)
        .fetch_all(self.readers())
        .await?;
        for row in rows {
            let id: String = row.try_get("id")?;
            self.delete_session(&id).await?;
        }
        Ok(())
    }

    async fn delete_session(&self, id: &str) -> Result<(), StoreError> {
        sqlx::query("DELETE FROM dashboard_sessions WHERE id = $1")
            .bind(id.to_owned())
            .execute(self.writer())
            .await?;
        Ok(())
    }

    /// Forgets some of those whose `column` is `until` or earlier.
    async fn forget_until(
        &self,
        column: &'static str,
        until: Timestamp,
    ) -> Result<bool, StoreError> {
        // Asked for first: a DELETE that finds nothing would take SQLite's lock every time.
        let sql = format!(
            "SELECT {column} AS moment FROM dashboard_sessions WHERE {column} <= $1 \
             ORDER BY {column} LIMIT {FORGOTTEN_MAX}"
        );
        let rows = sqlx::query(sqlx::AssertSqlSafe(sql))
            .bind(until.as_millis())
            .fetch_all(self.readers())
            .await?;
        let Some(last) = rows.last() else {
            return Ok(false);
        };
        let sql = format!("DELETE FROM dashboard_sessions WHERE {column} <= $1");
        sqlx::query(sqlx::AssertSqlSafe(sql))
            .bind(last.try_get::<i64, _>("moment")?)
            .execute(self.writer())
            .await?;
        Ok(rows.len() >= FORGOTTEN_MAX)
    }
}

#[async_trait]
impl<S: SessionStore> SessionStore for Guarded<S> {
    async fn add_session(&self, session: &Session) -> Result<(), StoreError> {
        self.guard.write(self.inner.add_session(session)).await
    }

    async fn session(&self, id: &str) -> Result<Option<Session>, StoreError> {
        self.guard.read(self.inner.session(id)).await
    }

    async fn touch_session(&self, id: &str, now: Timestamp) -> Result<(), StoreError> {
        self.guard.write(self.inner.touch_session(id, now)).await
    }

    async fn end_session(&self, id: &str) -> Result<(), StoreError> {
        self.guard.write(self.inner.end_session(id)).await
    }

    async fn forget_sessions(
        &self,
        created: Timestamp,
        seen: Timestamp,
    ) -> Result<bool, StoreError> {
        let work = self.inner.forget_sessions(created, seen);
        self.guard.read(work).await
    }
}
