//! The making of lists of the busiest keys (see [`crate::usage::ranking`]): the keys of an hour are read in
//! parts, by an index, and the lists written in small transactions.

use std::time::Duration;

use async_trait::async_trait;
use sqlx::any::AnyRow;
use sqlx::{AssertSqlSafe, Row};

use super::bulk::{Cell, Cells, Target, write};
use super::overview::{natural, parsed};
use super::sql::{SqlStore, within_limit};
use super::usage::number;
use super::{Guarded, StoreError};
use crate::clock::Timestamp;
use crate::key::TenantId;
use crate::usage::ranking::{KeyHour, TopList};
use crate::usage::{Hour, Subject};

/// Keys of an hour that are read at once.
const HOUR_PAGE: usize = 1000;
/// Rows of lists that are written in one transaction: nobody waits for it for long.
const ROWS_MAX: usize = 1000;

/// Keys of an hour.
#[derive(Debug)]
pub struct KeyHourPage {
    pub keys: Vec<KeyHour>,
    /// After which subject the next page starts.
    pub next: Option<String>,
}

/// Where lists of the busiest keys are made.
#[async_trait]
pub trait RankingStore: Send + Sync + 'static {
    /// Takes the turn at making lists, unless somebody has it or had it lately; for `limit` at most.
    async fn begin_ranking(&self, limit: Duration) -> Result<bool, StoreError>;

    /// Ends the turn. The next may begin after `pause`.
    async fn end_ranking(&self, pause: Duration) -> Result<(), StoreError>;

    /// A page of the keys that were used in an hour.
    async fn keys_of_hour(
        &self,
        hour: Hour,
        after: Option<String>,
    ) -> Result<KeyHourPage, StoreError>;

    /// Writes the lists of an hour over those that are there.
    async fn write_rankings(&self, hour: Hour, lists: &[TopList]) -> Result<(), StoreError>;

    /// The latest hour with usage, from `from` to before `to`, that was not noted as ranked.
    async fn unranked_hour(
        &self,
        from: Timestamp,
        to: Timestamp,
    ) -> Result<Option<Hour>, StoreError>;

    /// Notes that the lists of an hour are what they will be.
    async fn note_ranked(&self, hour: Hour) -> Result<(), StoreError>;

    /// Forgets the lists of the oldest hour, where it is before `before`.
    async fn forget_rankings(&self, before: Timestamp) -> Result<(), StoreError>;
}

fn rows_of(hour: Hour, list: &TopList) -> Vec<Cells> {
    let subject = list.subject.to_string();
    let rows = list.keys.iter().zip(1..);
    rows.map(|((key, requests), place)| {
        vec![
            Cell::Text(subject.clone()),
            Cell::Number(hour.start().as_millis()),
            Cell::Number(place),
            Cell::Text(key.to_string()),
            Cell::Number(number(*requests)),
            Cell::Number(number(list.rest)),
            Cell::Number(number(list.all)),
        ]
    })
    .collect()
}

/// A list never gets shorter, so what is written over is all that was there.
fn rankings() -> Target<'static> {
    Target {
        table: "usage_rankings",
        columns: "subject, start, place, key_id, requests, rest, of_all".to_owned(),
        on_conflict: "(subject, start, place) DO UPDATE SET key_id = excluded.key_id, \
            requests = excluded.requests, rest = excluded.rest, of_all = excluded.of_all \
            WHERE usage_rankings.of_all <> excluded.of_all"
            .to_owned(),
    }
}

impl SqlStore {
    async fn read_keys_of_hour(
        &self,
        hour: Hour,
        after: Option<String>,
    ) -> Result<KeyHourPage, StoreError> {
        // Bounds and order name both columns of one index, and no other has this order. Keys' names are
        // looked at: in the order of some locales they are no range.
        let sql = format!(
            "SELECT subject, requests, api_keys.id AS key_id, api_keys.tenant_id AS tenant_id FROM \
             (SELECT subject, requests, SUBSTR(subject, 5) AS used_id FROM usage_hours \
              WHERE (start, subject) > ($1, $2) AND start <= $1 AND SUBSTR(subject, 1, 4) = 'key/' \
              ORDER BY start, subject LIMIT {HOUR_PAGE}) AS used \
             CROSS JOIN api_keys WHERE api_keys.id = used_id ORDER BY subject"
        );
        let rows = sqlx::query(AssertSqlSafe(sql))
            .bind(hour.start().as_millis())
            .bind(after.unwrap_or_default())
            .fetch_all(self.readers())
            .await?;
        // A key without a row, which nobody can have used, ends the page early: the next look is empty.
        let last = rows.last().map(|row| row.try_get("subject")).transpose()?;
        let read = |row: &AnyRow| {
            Ok(KeyHour {
                key_id: parsed(row, "key_id")?,
                tenant_id: parsed::<TenantId>(row, "tenant_id")?,
                requests: natural(row, "requests")?,
            })
        };
        Ok(KeyHourPage {
            keys: rows.iter().map(read).collect::<Result<_, StoreError>>()?,
            next: last,
        })
    }

    async fn write_lists(&self, hour: Hour, lists: &[TopList]) -> Result<(), StoreError> {
        let mut rows: Vec<Cells> = Vec::new();
        let mut lists = lists.iter().peekable();
        while let Some(list) = lists.next() {
            rows.extend(rows_of(hour, list));
            // The rows of a list are never apart.
            let next = lists.peek().map_or(ROWS_MAX, |list| list.keys.len());
            if rows.len() + next >= ROWS_MAX {
                within_limit(self.write_some(&rows)).await?;
                rows.clear();
            }
        }
        within_limit(self.write_some(&rows)).await
    }

    async fn write_some(&self, rows: &[Cells]) -> Result<(), StoreError> {
        if rows.is_empty() {
            return Ok(());
        }
        let mut transaction = self.writer().begin().await?;
        write(&mut transaction, self.dialect(), &rankings(), rows).await?;
        Ok(transaction.commit().await?)
    }

    async fn run(&self, sql: String, binds: &[i64]) -> Result<u64, StoreError> {
        let mut query = sqlx::query(AssertSqlSafe(sql));
        for bind in binds {
            query = query.bind(*bind);
        }
        let done = within_limit(async { Ok(query.execute(self.writer()).await?) }).await?;
        Ok(done.rows_affected())
    }
}

fn millis(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}

#[async_trait]
impl RankingStore for SqlStore {
    async fn begin_ranking(&self, limit: Duration) -> Result<bool, StoreError> {
        let now = self.dialect().now_ms;
        let sql = format!(
            "UPDATE usage_ranking SET free_at = {now} + $1 WHERE id = 1 AND free_at <= {now}"
        );
        Ok(self.run(sql, &[millis(limit)]).await? == 1)
    }

    async fn end_ranking(&self, pause: Duration) -> Result<(), StoreError> {
        let now = self.dialect().now_ms;
        let sql = format!("UPDATE usage_ranking SET free_at = {now} + $1 WHERE id = 1");
        self.run(sql, &[millis(pause)]).await.map(drop)
    }

    async fn keys_of_hour(
        &self,
        hour: Hour,
        after: Option<String>,
    ) -> Result<KeyHourPage, StoreError> {
        within_limit(self.read_keys_of_hour(hour, after)).await
    }

    async fn write_rankings(&self, hour: Hour, lists: &[TopList]) -> Result<(), StoreError> {
        self.write_lists(hour, lists).await
    }

    async fn unranked_hour(
        &self,
        from: Timestamp,
        to: Timestamp,
    ) -> Result<Option<Hour>, StoreError> {
        let query = sqlx::query(
            "SELECT start FROM usage_hours WHERE subject >= $1 AND subject <= $1 \
             AND start >= $2 AND start < $3 AND NOT EXISTS (SELECT 1 FROM usage_ranked_hours \
               WHERE usage_ranked_hours.start = usage_hours.start) \
             ORDER BY subject DESC, start DESC LIMIT 1",
        );
        let query = query
            .bind(Subject::Platform.to_string())
            .bind(from.as_millis())
            .bind(to.as_millis());
        let row = within_limit(async { Ok(query.fetch_optional(self.readers()).await?) }).await?;
        let Some(row) = row else { return Ok(None) };
        let start = Timestamp::from_millis(row.try_get("start")?);
        Ok(Some(Hour::of(start)))
    }

    async fn note_ranked(&self, hour: Hour) -> Result<(), StoreError> {
        let sql =
            "INSERT INTO usage_ranked_hours (start) VALUES ($1) ON CONFLICT (start) DO NOTHING";
        let start = hour.start().as_millis();
        self.run(sql.to_owned(), &[start]).await.map(drop)
    }

    async fn forget_rankings(&self, before: Timestamp) -> Result<(), StoreError> {
        let before = before.as_millis();
        let sql = "DELETE FROM usage_rankings WHERE start = \
            (SELECT start FROM usage_rankings WHERE start < $1 ORDER BY start LIMIT 1)";
        self.run(sql.to_owned(), &[before]).await?;
        let sql = "DELETE FROM usage_ranked_hours WHERE start < $1";
        self.run(sql.to_owned(), &[before]).await.map(drop)
    }
}

#[async_trait]
impl<S: RankingStore> RankingStore for Guarded<S> {
    async fn begin_ranking(&self, limit: Duration) -> Result<bool, StoreError> {
        self.guard.write(self.inner.begin_ranking(limit)).await
    }

    async fn end_ranking(&self, pause: Duration) -> Result<(), StoreError> {
        self.guard.write(self.inner.end_ranking(pause)).await
    }

    async fn keys_of_hour(
        &self,
        hour: Hour,
        after: Option<String>,
    ) -> Result<KeyHourPage, StoreError> {
        self.guard.read(self.inner.keys_of_hour(hour, after)).await
    }

    async fn write_rankings(&self, hour: Hour, lists: &[TopList]) -> Result<(), StoreError> {
        self.guard
            .write(self.inner.write_rankings(hour, lists))
            .await
    }

    async fn unranked_hour(
        &self,
        from: Timestamp,
        to: Timestamp,
    ) -> Result<Option<Hour>, StoreError> {
        self.guard.read(self.inner.unranked_hour(from, to)).await
    }

    async fn note_ranked(&self, hour: Hour) -> Result<(), StoreError> {
        self.guard.write(self.inner.note_ranked(hour)).await
    }

    async fn forget_rankings(&self, before: Timestamp) -> Result<(), StoreError> {
        self.guard.write(self.inner.forget_rankings(before)).await
    }
}
