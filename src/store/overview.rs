//! What an overview is read from: usage of several subjects at once, and what lists of the busiest keys say
//! (see [`crate::usage::ranking`]).

use async_trait::async_trait;
use sqlx::any::AnyRow;
use sqlx::{AssertSqlSafe, Row};

use super::sql::{SqlStore, within_limit};
use super::usage::{COUNTS, counts, summed};
use super::{Guarded, StoreError, wanted};
use crate::clock::Timestamp;
use crate::usage::counts::DAY_MS;
use crate::usage::ranking::Listed;
use crate::usage::span::Interval;
use crate::usage::{Counts, Subject};

/// Subjects that are asked for at once, at most.
pub const SUBJECTS_MAX: usize = 64;
/// Keys that come out of lists, to be counted.
pub const LISTED_KEYS: usize = 30;

/// What an overview is read from.
#[async_trait]
pub trait OverviewStore: Send + Sync + 'static {
    /// Requests of some subjects, at most [`SUBJECTS_MAX`], in the intervals from `from` to before `to`; an
    /// interval may come in parts. With each, the subject's place in `subjects`.
    async fn requests_of(
        &self,
        subjects: &[Subject],
        interval: Interval,
        from: Timestamp,
        to: Timestamp,
    ) -> Result<Vec<(usize, Timestamp, u64)>, StoreError>;

    /// What each of some subjects, at most [`SUBJECTS_MAX`], was used for from `from` to before `to`, where
    /// both begin a day or are hours that are kept. Subjects that were not used are left out.
    async fn sums_of(
        &self,
        subjects: &[Subject],
        from: Timestamp,
        to: Timestamp,
    ) -> Result<Vec<(usize, Counts)>, StoreError>;

    /// What the lists of hours from `from` to before `to` say together; at most [`LISTED_KEYS`] keys.
    async fn listed(
        &self,
        subject: &Subject,
        from: Timestamp,
        to: Timestamp,
    ) -> Result<Listed, StoreError>;
}

pub(super) fn natural(row: &AnyRow, column: &str) -> Result<u64, StoreError> {
    Ok(u64::try_from(row.try_get::<i64, _>(column)?).unwrap_or_default())
}

fn place_of(subjects: &[String], row: &AnyRow) -> Result<Option<usize>, StoreError> {
    let subject: String = row.try_get("subject")?;
    Ok(subjects.iter().position(|known| *known == subject))
}

/// The names of `subjects`, and of nobody, so that there are few different statements.
fn names(subjects: &[Subject]) -> Vec<String> {
    let names = subjects.iter().take(SUBJECTS_MAX);
    wanted::padded(names.map(Subject::to_string).collect())
}

/// The rows of the subjects that are wanted, from the first moment to before the second. Each subject's are
/// one range of the primary key, and no planner can take them for anything else: the index by time has the
/// rows of all subjects, and the beginning of this range is none of its.
fn range_of(table: &str) -> String {
    format!(
        "FROM wanted CROSS JOIN {table} AS rows WHERE (rows.subject, rows.start) >= (wanted.subject, $1) \
         AND rows.subject <= wanted.subject AND rows.start < $2"
    )
}

impl SqlStore {
    async fn read_requests(
        &self,
        subjects: &[Subject],
        interval: Interval,
        from: Timestamp,
        to: Timestamp,
    ) -> Result<Vec<(usize, Timestamp, u64)>, StoreError> {
        let names = names(subjects);
        if names.is_empty() {
            return Ok(Vec::new());
        }
        let (wanted, hours) = (wanted::table(names.len()), range_of("usage_hours"));
        let sql = match interval {
            Interval::Hour => format!("{wanted} SELECT rows.subject, start, requests {hours}"),
            // One statement: hours may become days meanwhile.
            Interval::Day => {
                let day = format!("start / {DAY_MS}");
                let days = range_of("usage_days");
                format!(
                    "{wanted} SELECT rows.subject, start, requests {days} UNION ALL \
                     SELECT rows.subject, ({day}) * {DAY_MS} AS start, \
                     CAST(SUM(requests) AS BIGINT) AS requests {hours} \
                     GROUP BY rows.subject, {day}"
                )
            }
        };
        let rows = self.fetch_named(sql, from, to, &names).await?;
        let mut known = Vec::with_capacity(rows.len());
        for row in &rows {
            if let Some(place) = place_of(&names, row)? {
                let start = Timestamp::from_millis(row.try_get("start")?);
                known.push((place, start, natural(row, "requests")?));
            }
        }
        Ok(known)
    }

    async fn read_sums(
        &self,
        subjects: &[Subject],
        from: Timestamp,
        to: Timestamp,
    ) -> Result<Vec<(usize, Counts)>, StoreError> {
        let names = names(subjects);
        if names.is_empty() {
            return Ok(Vec::new());
        }
        let columns = COUNTS.join(", ");
        let (days, hours) = (range_of("usage_days"), range_of("usage_hours"));
        let sql = format!(
            "{} SELECT subject, {} FROM (SELECT rows.subject, {columns} {days} UNION ALL \
             SELECT rows.subject, {columns} {hours}) AS parts GROUP BY subject",
            wanted::table(names.len()),
            summed()
        );
        let rows = self.fetch_named(sql, from, to, &names).await?;
        let mut known = Vec::with_capacity(rows.len());
        for row in &rows {
            if let Some(place) = place_of(&names, row)? {
                known.push((place, counts(row)?));
            }
        }
        Ok(known)
    }

    async fn fetch_named(
        &self,
        sql: String,
        from: Timestamp,
        to: Timestamp,
        names: &[String],
    ) -> Result<Vec<AnyRow>, StoreError> {
        let mut query = sqlx::query(AssertSqlSafe(sql))
            .bind(from.as_millis())
            .bind(to.as_millis());
        for name in names {
            query = query.bind(name.clone());
        }
        Ok(query.fetch_all(self.readers()).await?)
    }

    async fn read_listed(
        &self,
        subject: &Subject,
        from: Timestamp,
        to: Timestamp,
    ) -> Result<Listed, StoreError> {
        let range = "FROM usage_rankings WHERE (subject, start) >= ($1, $2) AND subject <= $1 \
                     AND start < $3";
        let fetch = async |sql: String| {
            let query = sqlx::query(AssertSqlSafe(sql))
                .bind(subject.to_string())
                .bind(from.as_millis())
                .bind(to.as_millis());
            Ok::<_, StoreError>(query.fetch_all(self.readers()).await?)
        };
        // The limits first: what changes meanwhile makes them too high rather than too low.
        let limits = fetch(format!(
            "SELECT CAST(COALESCE(SUM(rest), 0) AS BIGINT) AS rest, \
             CAST(COALESCE(SUM(of_all), 0) AS BIGINT) AS of_all {range} AND place = 1"
        ))
        .await?;
        let rows = fetch(format!(
            "SELECT key_id, CAST(SUM(requests - rest) AS BIGINT) AS above {range} \
             GROUP BY key_id ORDER BY above DESC, key_id LIMIT {}",
            LISTED_KEYS + 1
        ))
        .await?;
        let mut listed = Listed::default();
        for row in limits {
            listed.rest = natural(&row, "rest")?;
            listed.all = natural(&row, "of_all")?;
        }
        for row in &rows {
            let above: i64 = row.try_get("above")?;
            if listed.keys.len() < LISTED_KEYS {
                listed.keys.push((parsed(row, "key_id")?, above));
            } else {
                listed.next = Some(above);
            }
        }
        Ok(listed)
    }
}

pub(super) fn parsed<T: std::str::FromStr>(
    row: &AnyRow,
    column: &'static str,
) -> Result<T, StoreError> {
    let text: String = row.try_get(column)?;
    text.parse()
        .map_err(|_| StoreError::Damaged { id: text, column })
}

#[async_trait]
impl OverviewStore for SqlStore {
    async fn requests_of(
        &self,
        subjects: &[Subject],
        interval: Interval,
        from: Timestamp,
        to: Timestamp,
    ) -> Result<Vec<(usize, Timestamp, u64)>, StoreError> {
        within_limit(self.read_requests(subjects, interval, from, to)).await
    }

    async fn sums_of(
        &self,
        subjects: &[Subject],
        from: Timestamp,
        to: Timestamp,
    ) -> Result<Vec<(usize, Counts)>, StoreError> {
        within_limit(self.read_sums(subjects, from, to)).await
    }

    async fn listed(
        &self,
        subject: &Subject,
        from: Timestamp,
        to: Timestamp,
    ) -> Result<Listed, StoreError> {
        within_limit(self.read_listed(subject, from, to)).await
    }
}

#[async_trait]
impl<S: OverviewStore> OverviewStore for Guarded<S> {
    async fn requests_of(
        &self,
        subjects: &[Subject],
        interval: Interval,
        from: Timestamp,
        to: Timestamp,
    ) -> Result<Vec<(usize, Timestamp, u64)>, StoreError> {
        let work = self.inner.requests_of(subjects, interval, from, to);
        self.guard.read(work).await
    }

    async fn sums_of(
        &self,
        subjects: &[Subject],
        from: Timestamp,
        to: Timestamp,
    ) -> Result<Vec<(usize, Counts)>, StoreError> {
        self.guard
            .read(self.inner.sums_of(subjects, from, to))
            .await
    }

    async fn listed(
        &self,
        subject: &Subject,
        from: Timestamp,
        to: Timestamp,
    ) -> Result<Listed, StoreError> {
        self.guard.read(self.inner.listed(subject, from, to)).await
    }
}
