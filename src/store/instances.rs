//! Which instances share a database, and how far each has followed the changes of keys. Every instance
//! writes a row about itself; how old a row is, the database's clock says.

use std::time::Duration;

use async_trait::async_trait;
use sqlx::any::AnyRow;
use sqlx::{AssertSqlSafe, Row};

use super::sql::{SqlStore, within_limit};
use super::{InstanceStore, StoreError};

/// The most instances that are read.
const INSTANCES_MAX: usize = 1000;
/// Rows of instances that ended without a word are kept for so long after they may have served.
const KEPT_MS: i64 = 3_600_000;

/// What an instance says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heartbeat {
    pub id: String,
    /// For people.
    pub name: String,
    /// Every change up to this number has been applied.
    pub seen: i64,
    /// For so long it counts as live without another word.
    pub live_for: Duration,
    /// For so long it may serve from memory without another word.
    pub serves_for: Duration,
}

/// An instance that may be serving.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heard {
    pub id: String,
    pub name: String,
    pub seen: i64,
    /// Whether it was heard of lately. One that was not has ended without a word, or can't reach the
    /// database and serves what it has in memory.
    pub is_live: bool,
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

#[async_trait]
impl InstanceStore for SqlStore {
    async fn note_instance(&self, beat: &Heartbeat) -> Result<(), StoreError> {
        let sql = format!(
            "INSERT INTO instances (id, name, seen_seq, seen_at, live_ms, serves_ms) \
             SELECT $1, $2, $3, {now}, $4, $5 {may_be_lost} \
             ON CONFLICT (id) DO UPDATE SET seen_seq = excluded.seen_seq, seen_at = excluded.seen_at",
            now = self.dialect().now_ms,
            // Whose word is lost says it again. But who has seen nothing yet joins: whoever changes a key
            // from now on has to find it, whatever crashes.
            may_be_lost = if beat.seen > 0 {
                self.dialect().may_be_lost
            } else {
                "WHERE true"
            },
        );
        let query = sqlx::query(AssertSqlSafe(sql))
            .bind(beat.id.clone())
            .bind(beat.name.clone())
            .bind(beat.seen)
            .bind(millis(beat.live_for))
            .bind(millis(beat.serves_for));
        within_limit(async { Ok(query.execute(self.writer()).await?) }).await?;
        Ok(())
    }

    async fn instances(&self) -> Result<Vec<Heard>, StoreError> {
        let now = self.dialect().now_ms;
        let sql = format!(
            "SELECT id, name, seen_seq, {now} - seen_at - live_ms AS late_ms FROM instances \
             WHERE {now} - seen_at <= serves_ms ORDER BY seen_at DESC LIMIT {INSTANCES_MAX}"
        );
        let query = sqlx::query(AssertSqlSafe(sql));
        let rows = within_limit(async { Ok(query.fetch_all(self.readers()).await?) }).await?;
        let read = |row: &AnyRow| {
            Ok::<_, StoreError>(Heard {
                id: row.try_get("id")?,
                name: row.try_get("name")?,
                seen: row.try_get("seen_seq")?,
                is_live: row.try_get::<i64, _>("late_ms")? <= 0,
            })
        };
        let mut all: Vec<Heard> = rows.iter().map(read).collect::<Result<_, _>>()?;
        all.sort_unstable_by(|a, b| (&a.name, &a.id).cmp(&(&b.name, &b.id)));
        Ok(all)
    }

    async fn forget_instance(&self, id: &str) -> Result<(), StoreError> {
        let query = sqlx::query("DELETE FROM instances WHERE id = $1").bind(id.to_owned());
        within_limit(async { Ok(query.execute(self.writer()).await?) }).await?;
        Ok(())
    }

    async fn forget_namesakes(&self, id: &str, name: &str) -> Result<(), StoreError> {
        // One that lives was given the same name: without its row, nobody would wait for it.
        let sql = format!(
            "DELETE FROM instances WHERE name = $1 AND id <> $2 AND {now} - seen_at > live_ms",
            now = self.dialect().now_ms
        );
        let query = sqlx::query(AssertSqlSafe(sql))
            .bind(name.to_owned())
            .bind(id.to_owned());
        within_limit(async { Ok(query.execute(self.writer()).await?) }).await?;
        Ok(())
    }

    async fn forget_gone_instances(&self) -> Result<(), StoreError> {
        let sql = format!(
            "DELETE FROM instances WHERE {now} - seen_at > serves_ms + $1",
            now = self.dialect().now_ms
        );
        let query = sqlx::query(AssertSqlSafe(sql)).bind(KEPT_MS);
        within_limit(async { Ok(query.execute(self.writer()).await?) }).await?;
        Ok(())
    }
}
