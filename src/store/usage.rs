//! Usage in the database: batches are added, once each; hours, days, totals and last uses are read; old
//! hours become days.
//!
//! Whoever writes rows that others write takes them in one order (see [`Subject`]): hours of keys, their
//! totals, their last uses, hours of tenants, those of the platform, days.

use std::collections::BTreeMap;

use async_trait::async_trait;
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, AssertSqlSafe, Row};

use super::StoreError;
use super::bulk::{Cell, Cells, Target, write};
use super::change::placeholders;
use super::recent::RecentHour;
use super::sql::{SqlStore, within_limit};
use crate::clock::Timestamp;
use crate::key::{Generation, KeyId};
use crate::usage::counts::DAY_MS;
use crate::usage::span::Interval;
use crate::usage::{Batch, Counts, KeyUse, LastUse, Subject};

/// Hours that become days in one transaction: nobody waits for it for long.
const ROLL_UP_MAX: usize = 1000;

/// The columns of [`Counts`]. All of them are sums but the last.
pub(super) const COUNTS: [&str; 9] = [
    "requests",
    "errors_4xx",
    "errors_5xx",
    "denied",
    "rate_limited",
    "bytes_in",
    "bytes_out",
    "latency_us_sum",
    "latency_us_max",
];
const GREATEST: &str = "latency_us_max";

/// Where usage is kept. Every write that returned is durable.
#[async_trait]
pub trait UsageStore: Send + Sync + 'static {
    /// Adds a batch, unless that was done before.
    async fn add_usage(&self, batch: &Batch) -> Result<(), StoreError>;

    /// What is known of the intervals from `from` to before `to`; an interval may come in parts.
    async fn usage(
        &self,
        subject: &Subject,
        interval: Interval,
        from: Timestamp,
        to: Timestamp,
    ) -> Result<Vec<(Timestamp, Counts)>, StoreError>;

    /// What a key was used for over all time.
    async fn usage_total(&self, key: KeyId) -> Result<Counts, StoreError>;

    /// When the secrets of these keys were last used.
    async fn last_uses(&self, keys: &[KeyId]) -> Result<Vec<KeyUse>, StoreError>;

    /// The requests of these keys in each hour from `from` to before `to` that had any. Its cost goes by
    /// how many hours there are after `from`: it is for those that end now.
    async fn recent(
        &self,
        keys: &[KeyId],
        from: Timestamp,
        to: Timestamp,
    ) -> Result<Vec<RecentHour>, StoreError>;

    /// Forgets the uses of a key's secrets before `generation`, but for the last of all its uses.
    async fn forget_uses(&self, key: KeyId, generation: Generation) -> Result<(), StoreError>;

    /// Turns hours before `before`, where a day starts, into days, a bounded number of them, and says
    /// whether there may be more.
    async fn roll_up(&self, before: Timestamp) -> Result<bool, StoreError>;

    /// Forgets which batches came from instances that have sent none since `before`.
    async fn forget_flushes(&self, before: Timestamp) -> Result<(), StoreError>;
}

pub(super) fn number(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

fn numbers(counts: &Counts) -> [i64; COUNTS.len()] {
    [
        counts.requests,
        counts.errors_4xx,
        counts.errors_5xx,
        counts.denied,
        counts.rate_limited,
        counts.bytes_in,
        counts.bytes_out,
        counts.latency_us_sum,
        counts.latency_us_max,
    ]
    .map(number)
}

pub(super) fn counts(row: &AnyRow) -> Result<Counts, StoreError> {
    let column = |name| -> Result<u64, StoreError> {
        Ok(u64::try_from(row.try_get::<i64, _>(name)?).unwrap_or_default())
    };
    Ok(Counts {
        requests: column("requests")?,
        errors_4xx: column("errors_4xx")?,
        errors_5xx: column("errors_5xx")?,
        denied: column("denied")?,
        rate_limited: column("rate_limited")?,
        bytes_in: column("bytes_in")?,
        bytes_out: column("bytes_out")?,
        latency_us_sum: column("latency_us_sum")?,
        latency_us_max: column("latency_us_max")?,
    })
}

/// The columns of several rows as those of one.
pub(super) fn summed() -> String {
    let sums: Vec<String> = COUNTS
        .iter()
        .map(|column| {
            let sum = if *column == GREATEST { "MAX" } else { "SUM" };
            format!("CAST({sum}({column}) AS BIGINT) AS {column}")
        })
        .collect();
    sums.join(", ")
}

fn start(row: &AnyRow) -> Result<Timestamp, StoreError> {
    Ok(Timestamp::from_millis(row.try_get("start")?))
}

fn cells(keys: impl IntoIterator<Item = Cell>, counts: &Counts) -> Cells {
    let counts = numbers(counts).map(Cell::Number);
    keys.into_iter().chain(counts).collect()
}

/// For rows whose counts are added to those that are there.
fn sums(table: &'static str, key: &'static str) -> Target<'static> {
    let sums: Vec<String> = COUNTS
        .iter()
        .map(|column| match *column {
            GREATEST => format!(
                "{column} = CASE WHEN excluded.{column} > {table}.{column} \
                 THEN excluded.{column} ELSE {table}.{column} END"
            ),
            _ => format!("{column} = {table}.{column} + excluded.{column}"),
        })
        .collect();
    Target {
        table,
        columns: format!("{key}, {}", COUNTS.join(", ")),
        on_conflict: format!("({key}) DO UPDATE SET {}", sums.join(", ")),
    }
}

const HOURS: &str = "usage_hours";
const DAYS: &str = "usage_days";

/// The rows of [`HOURS`] or [`DAYS`].
fn rows_of<'a>(rows: impl Iterator<Item = (String, Timestamp, &'a Counts)>) -> Vec<Cells> {
    rows.map(|(subject, start, counts)| {
        let keys = [Cell::Text(subject), Cell::Number(start.as_millis())];
        cells(keys, counts)
    })
    .collect()
}

fn totals(batch: &Batch) -> Vec<Cells> {
    let totals = batch.totals();
    let rows = totals.iter();
    rows.map(|(key, counts)| cells([Cell::Text(key.to_string())], counts))
        .collect()
}

fn uses(batch: &Batch) -> (Target<'static>, Vec<Cells>) {
    let target = Target {
        table: "key_uses",
        columns: "key_id, generation, last_used_at, last_used_ip".to_owned(),
        on_conflict: "(key_id, generation) DO UPDATE SET \
            last_used_at = excluded.last_used_at, last_used_ip = excluded.last_used_ip \
            WHERE excluded.last_used_at > key_uses.last_used_at"
            .to_owned(),
    };
    let row = |one: &KeyUse| {
        vec![
            Cell::Text(one.key_id.to_string()),
            Cell::Number(one.generation.0),
            Cell::Number(one.last.at.as_millis()),
            Cell::Text(one.last.address.to_string()),
        ]
    };
    (target, batch.uses.iter().map(row).collect())
}

/// Whether the batch is a new one. If so, it is noted as added.
async fn is_new(
    transaction: &mut AnyConnection,
    batch: &Batch,
    now_ms: &str,
) -> Result<bool, StoreError> {
    // Where the same batch is on its way on a connection that was given up, this waits for its end.
    let sql = format!(
        "INSERT INTO usage_flushes (instance_id, batch, flushed_at) VALUES ($1, $2, {now_ms}) \
         ON CONFLICT (instance_id) DO UPDATE SET \
         batch = excluded.batch, flushed_at = excluded.flushed_at \
         WHERE usage_flushes.batch < excluded.batch"
    );
    let noted = sqlx::query(AssertSqlSafe(sql))
        .bind(batch.instance.to_string())
        .bind(batch.number)
        .execute(transaction)
        .await?;
    Ok(noted.rows_affected() == 1)
}

impl SqlStore {
    async fn add_batch(&self, batch: &Batch) -> Result<(), StoreError> {
        let dialect = self.dialect();
        let mut transaction = self.writer().begin().await?;
        if !is_new(&mut transaction, batch, dialect.now_ms).await? {
            return Ok(());
        }
        let hours = rows_of(batch.hours.iter().map(|row| {
            let subject = Subject::Key(row.key_id).to_string();
            (subject, row.hour.start(), &row.counts)
        }));
        let shared = batch.sums();
        let shared = rows_of(shared.iter().map(|((subject, hour), counts)| {
            let subject = subject.to_string();
            (subject, hour.start(), counts)
        }));
        let by_start = sums(HOURS, "subject, start");
        let (used, uses) = uses(batch);
        for (target, rows) in [
            (&by_start, hours),
            (&sums("usage_totals", "key_id"), totals(batch)),
            (&used, uses),
            (&by_start, shared),
        ] {
            write(&mut transaction, dialect, target, &rows).await?;
        }
        Ok(transaction.commit().await?)
    }

    async fn read_rows(
        &self,
        sql: String,
        subject: &Subject,
        from: Timestamp,
        to: Timestamp,
    ) -> Result<Vec<(Timestamp, Counts)>, StoreError> {
        let rows = sqlx::query(AssertSqlSafe(sql))
            .bind(subject.to_string())
            .bind(from.as_millis())
            .bind(to.as_millis())
            .fetch_all(self.readers())
            .await?;
        rows.iter()
            .map(|row| Ok((start(row)?, counts(row)?)))
            .collect()
    }

    async fn read_usage(
        &self,
        subject: &Subject,
        interval: Interval,
        from: Timestamp,
        to: Timestamp,
    ) -> Result<Vec<(Timestamp, Counts)>, StoreError> {
        let range = "WHERE subject = $1 AND start >= $2 AND start < $3";
        let columns = COUNTS.join(", ");
        match interval {
            Interval::Hour => {
                let sql = format!("SELECT start, {columns} FROM usage_hours {range}");
                self.read_rows(sql, subject, from, to).await
            }
            Interval::Day => {
                let day = format!("start / {DAY_MS}");
                // One statement: hours may become days meanwhile.
                let sql = format!(
                    "SELECT start, {columns} FROM usage_days {range} UNION ALL \
                     SELECT ({day}) * {DAY_MS} AS start, {} FROM usage_hours {range} GROUP BY {day}",
                    summed()
                );
                self.read_rows(sql, subject, from, to).await
            }
        }
    }

    async fn read_uses(&self, keys: &[KeyId]) -> Result<Vec<KeyUse>, StoreError> {
        let Some(last) = keys.last() else {
            return Ok(Vec::new());
        };
        // The last is named again and again, so that there are few different statements.
        let length = keys.len().next_power_of_two();
        let places = placeholders(1, length);
        let sql = format!(
            "SELECT key_id, generation, last_used_at, last_used_ip FROM key_uses \
             WHERE key_id IN ({places})"
        );
        let mut query = sqlx::query(AssertSqlSafe(sql));
        for key in keys.iter().chain(std::iter::repeat(last)).take(length) {
            query = query.bind(key.to_string());
        }
        let rows = query.fetch_all(self.readers()).await?;
        rows.iter().map(key_use).collect()
    }

    async fn roll_up_some(&self, before: Timestamp) -> Result<bool, StoreError> {
        let mut transaction = self.writer().begin().await?;
        // One at a time.
        sqlx::query("UPDATE usage_roll_up SET turns = turns + 1 WHERE id = 1")
            .execute(&mut *transaction)
            .await?;
        // What is deleted is what is added, whoever adds to an old hour at the same time.
        let sql = format!(
            "DELETE FROM usage_hours WHERE (subject, start) IN \
             (SELECT subject, start FROM usage_hours WHERE start < $1 \
              ORDER BY start, subject LIMIT {ROLL_UP_MAX}) \
             RETURNING subject, start, {}",
            COUNTS.join(", ")
        );
        let rows = sqlx::query(AssertSqlSafe(sql))
            .bind(before.as_millis())
            .fetch_all(&mut *transaction)
            .await?;
        let mut days: BTreeMap<(String, i64), Counts> = BTreeMap::new();
        for row in &rows {
            let at = start(row)?.as_millis();
            let day = at - at.rem_euclid(DAY_MS);
            let subject: String = row.try_get("subject")?;
            days.entry((subject, day)).or_default().add(&counts(row)?);
        }
        let days = rows_of(days.iter().map(|((subject, day), counts)| {
            let start = Timestamp::from_millis(*day);
            (subject.clone(), start, counts)
        }));
        let target = sums(DAYS, "subject, start");
        write(&mut transaction, self.dialect(), &target, &days).await?;
        transaction.commit().await?;
        Ok(rows.len() >= ROLL_UP_MAX)
    }
}

fn key_use(row: &AnyRow) -> Result<KeyUse, StoreError> {
    let id: String = row.try_get("key_id")?;
    let damaged = |column| StoreError::Damaged {
        id: id.clone(),
        column,
    };
    let address: String = row.try_get("last_used_ip")?;
    Ok(KeyUse {
        key_id: id.parse().map_err(|_| damaged("key_id"))?,
        generation: Generation(row.try_get("generation")?),
        last: LastUse {
            at: Timestamp::from_millis(row.try_get("last_used_at")?),
            address: address.parse().map_err(|_| damaged("last_used_ip"))?,
        },
    })
}

#[async_trait]
impl UsageStore for SqlStore {
    async fn add_usage(&self, batch: &Batch) -> Result<(), StoreError> {
        within_limit(self.add_batch(batch)).await
    }

    async fn usage(
        &self,
        subject: &Subject,
        interval: Interval,
        from: Timestamp,
        to: Timestamp,
    ) -> Result<Vec<(Timestamp, Counts)>, StoreError> {
        within_limit(self.read_usage(subject, interval, from, to)).await
    }

    async fn usage_total(&self, key: KeyId) -> Result<Counts, StoreError> {
        let sql = format!(
            "SELECT {} FROM usage_totals WHERE key_id = $1",
            COUNTS.join(", ")
        );
        let query = sqlx::query(AssertSqlSafe(sql)).bind(key.to_string());
        let row = within_limit(async { Ok(query.fetch_optional(self.readers()).await?) }).await?;
        row.as_ref().map_or(Ok(Counts::default()), counts)
    }

    async fn last_uses(&self, keys: &[KeyId]) -> Result<Vec<KeyUse>, StoreError> {
        within_limit(self.read_uses(keys)).await
    }

    async fn recent(
        &self,
        keys: &[KeyId],
        from: Timestamp,
        to: Timestamp,
    ) -> Result<Vec<RecentHour>, StoreError> {
        within_limit(self.read_recent(keys, from, to)).await
    }

    async fn forget_uses(&self, key: KeyId, generation: Generation) -> Result<(), StoreError> {
        let query = sqlx::query(
            "DELETE FROM key_uses WHERE key_id = $1 AND generation < $2 AND last_used_at < \
             (SELECT MAX(last_used_at + 0) FROM key_uses WHERE key_id = $1)",
        );
        let query = query.bind(key.to_string()).bind(generation.0);
        within_limit(async { Ok(query.execute(self.writer()).await?) }).await?;
        Ok(())
    }

    async fn roll_up(&self, before: Timestamp) -> Result<bool, StoreError> {
        within_limit(self.roll_up_some(before)).await
    }

    async fn forget_flushes(&self, before: Timestamp) -> Result<(), StoreError> {
        let query = sqlx::query("DELETE FROM usage_flushes WHERE flushed_at < $1");
        let query = query.bind(before.as_millis());
        within_limit(async { Ok(query.execute(self.writer()).await?) }).await?;
        Ok(())
    }
}
