//! Housekeeping of what lists are read from: rows that were written by versions which know nothing of
//! it (all rows, after an update from one of them), and keys that have expired since they were written.
//!
//! Instances may do it at the same time: each row is written by the first only. Nothing of it is a
//! change of a key, so nobody has to follow it.

use std::sync::Arc;
use std::time::Duration;

use sqlx::Row;

use super::change::replace_grams;
use super::sql::SqlStore;
use super::{KeyStore, StoreError, search};
use crate::clock::{SharedClock, Timestamp};

/// How often it is looked whether there is something to do.
const INTERVAL: Duration = Duration::from_secs(1);
/// Rows that are brought up to date in one transaction: nobody waits for it for long.
const ROWS_MAX: usize = 100;
/// Keys that are marked as expired in one transaction.
const LAPSED_MAX: usize = 500;

/// Does what there is to do, for ever. After each part of it others have their turn for as long.
pub async fn keep_settled(store: Arc<dyn KeyStore>, clock: SharedClock) {
    let mut is_failing = false;
    loop {
        tokio::time::sleep(INTERVAL).await;
        loop {
            let begin_us = clock.monotonic_us();
            match store.settle(clock.now()).await {
                Ok(has_more) => {
                    is_failing = false;
                    if !has_more {
                        break;
                    }
                }
                Err(error) => {
                    if !is_failing {
                        tracing::warn!(%error, "lists can't be brought up to date");
                    }
                    is_failing = true;
                    break;
                }
            }
            let took_us = clock.monotonic_us().saturating_sub(begin_us);
            tokio::time::sleep(Duration::from_micros(took_us)).await;
        }
    }
}

/// A row that an older version has written.
struct Unsettled {
    id: String,
    created_at: i64,
    revision: i64,
    /// What it was found by until now.
    old: String,
    new: String,
}

impl SqlStore {
    pub(super) async fn settle_rows(&self, now: Timestamp) -> Result<bool, StoreError> {
        let unsettled = self.unsettled().await?;
        if !unsettled.is_empty() {
            self.settle_all(&unsettled, now).await?;
        }
        let lapsed = self.mark_lapsed(now).await?;
        Ok(unsettled.len() >= ROWS_MAX || lapsed >= LAPSED_MAX as u64)
    }

    async fn unsettled(&self) -> Result<Vec<Unsettled>, StoreError> {
        let query = sqlx::query(
            "SELECT id, name, created_at, revision, search FROM api_keys \
             WHERE search_revision <> revision ORDER BY id LIMIT $1",
        );
        let rows = query
            .bind(ROWS_MAX as i64)
            .fetch_all(self.readers())
            .await?;
        let mut unsettled = Vec::with_capacity(rows.len());
        for row in rows {
            let (id, name): (String, String) = (row.try_get("id")?, row.try_get("name")?);
            unsettled.push(Unsettled {
                created_at: row.try_get("created_at")?,
                revision: row.try_get("revision")?,
                old: row
                    .try_get::<Option<String>, _>("search")?
                    .unwrap_or_default(),
                new: search::searched_text(&name, &id),
                id,
            });
        }
        Ok(unsettled)
    }

    async fn settle_all(&self, rows: &[Unsettled], now: Timestamp) -> Result<(), StoreError> {
        let mut transaction = self.writer().begin().await?;
        for row in rows {
            // Not where somebody has written it since it was read.
            let written = sqlx::query(
                "UPDATE api_keys SET search = $1, search_revision = $2, \
                 lapsed = CASE WHEN expires_at <= $3 THEN 'yes' ELSE 'no' END \
                 WHERE id = $4 AND revision = $2 AND search_revision <> revision",
            )
            .bind(row.new.clone())
            .bind(row.revision)
            .bind(now.as_millis())
            .bind(row.id.clone())
            .execute(&mut *transaction)
            .await?
            .rows_affected();
            if written == 1 {
                let (old, new) = (&row.old, &row.new);
                replace_grams(&mut transaction, &row.id, row.created_at, old, new).await?;
            }
        }
        Ok(transaction.commit().await?)
    }

    async fn mark_lapsed(&self, now: Timestamp) -> Result<u64, StoreError> {
        let due = "SELECT id FROM api_keys WHERE (lapsed, expires_at) >= ('no', 0) \
                   AND (lapsed, expires_at) <= ('no', $1) \
                   ORDER BY lapsed, expires_at LIMIT $2";
        // Asked for first: an UPDATE that finds nothing would take SQLite's lock every time.
        let rows = sqlx::query(due)
            .bind(now.as_millis())
            .bind(LAPSED_MAX as i64)
            .fetch_all(self.readers())
            .await?;
        if rows.is_empty() {
            return Ok(0);
        }
        let mut ids = Vec::with_capacity(rows.len());
        for row in &rows {
            ids.push(row.try_get::<String, _>("id")?);
        }
        // In one order, whoever does it.
        ids.sort_unstable();
        let mut transaction = self.writer().begin().await?;
        for id in ids {
            sqlx::query(
                "UPDATE api_keys SET lapsed = 'yes' WHERE id = $1 AND lapsed = 'no' AND expires_at <= $2",
            )
            .bind(id)
            .bind(now.as_millis())
            .execute(&mut *transaction)
            .await?;
        }
        transaction.commit().await?;
        Ok(rows.len() as u64)
    }
}
