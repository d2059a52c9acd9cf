//! How many keys and tenants there are, for those who watch: counted in an index, a bounded part at a time,
//! so rarely that it costs nobody anything.
//!
//! The numbers are those of a moment as long as the count takes. Each instance counts for itself.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use sqlx::Row;

use super::guarded::Guarded;
use super::source::parts;
use super::sql::{SqlStore, within_limit};
use super::{KeyFilter, StoreError};
use crate::clock::{SharedClock, Timestamp};
use crate::key::Status;
use crate::telemetry::Metrics;

/// Rows that are counted at once.
pub const CENSUS_STEP: i64 = 10_000;
/// The least time from the end of one count to the next.
const INTERVAL_MIN: Duration = Duration::from_secs(10);
/// A count takes at most one part in so many of the time.
const SHARE: u32 = 200;
/// After each step others have the database for so many times as long as it took.
const REST: u32 = 9;

/// Where in a part of the keys a count has got to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counted {
    created_at: i64,
    id: String,
}

/// One step of a count: how many there were, and where to go on, unless it was the last.
#[derive(Debug, PartialEq, Eq)]
pub struct Step<P> {
    pub count: u64,
    pub next: Option<P>,
}

/// What can be counted.
#[async_trait]
pub trait CensusStore: Send + Sync + 'static {
    /// The next [`CENSUS_STEP`] keys of a part of all keys (see [`parts_of`]).
    async fn count_keys(
        &self,
        part: &str,
        after: Option<&Counted>,
    ) -> Result<Step<Counted>, StoreError>;

    /// The next [`CENSUS_STEP`] tenants.
    async fn count_tenants(&self, after: Option<&str>) -> Result<Step<String>, StoreError>;
}

/// The parts of all keys in which those are that have `status`. Whose time is over is moved within about
/// a second ([`super::settle`]).
pub fn parts_of(status: Status) -> Vec<String> {
    let filter = KeyFilter {
        status: Some((status, Timestamp::from_millis(0))),
        ..KeyFilter::default()
    };
    let lapsed: &[&str] = match status {
        Status::Active => &["no"],
        Status::Expired => &["yes"],
        Status::Disabled | Status::Revoked => &["no", "yes"],
    };
    let named = parts(&filter, lapsed).into_iter();
    named.map(|(_, part)| part).collect()
}

/// The last of the next [`CENSUS_STEP`] keys, if there are so many, and all that are left. In the order of
/// the index that has these columns, so that nothing else is read.
pub const KEY_STATEMENTS: [&str; 2] = [
    "SELECT created_at, id FROM api_keys WHERE part = $1 AND (created_at, id) > ($2, $3) \
     ORDER BY created_at, id LIMIT 1 OFFSET $4",
    "SELECT COUNT(*) AS found FROM (SELECT 1 FROM api_keys \
     WHERE part = $1 AND (created_at, id) > ($2, $3) \
     ORDER BY created_at, id LIMIT $4) AS counted",
];

/// The same of tenants.
pub const TENANT_STATEMENTS: [&str; 2] = [
    "SELECT id FROM tenants WHERE id > $1 ORDER BY id LIMIT 1 OFFSET $2",
    "SELECT COUNT(*) AS found FROM (SELECT 1 FROM tenants WHERE id > $1 \
     ORDER BY id LIMIT $2) AS counted",
];

impl<P> Step<P> {
    fn full(next: P) -> Self {
        Step {
            count: CENSUS_STEP as u64,
            next: Some(next),
        }
    }

    fn last(row: &sqlx::any::AnyRow) -> Result<Self, StoreError> {
        let found: i64 = row.try_get("found")?;
        Ok(Step {
            count: u64::try_from(found).unwrap_or(0),
            next: None,
        })
    }
}

impl SqlStore {
    async fn count_keys_after(
        &self,
        part: &str,
        after: Option<&Counted>,
    ) -> Result<Step<Counted>, StoreError> {
        let (created_at, id) = after.map_or((i64::MIN, ""), |at| (at.created_at, at.id.as_str()));
        let [last, rest] = KEY_STATEMENTS.map(|sql| {
            sqlx::query(sql)
                .bind(part.to_owned())
                .bind(created_at)
                .bind(id.to_owned())
        });
        let (last, rest) = (last.bind(CENSUS_STEP - 1), rest.bind(CENSUS_STEP));
        match last.fetch_optional(self.readers()).await? {
            Some(row) => Ok(Step::full(Counted {
                created_at: row.try_get("created_at")?,
                id: row.try_get("id")?,
            })),
            None => Step::last(&rest.fetch_one(self.readers()).await?),
        }
    }

    async fn count_tenants_after(&self, after: Option<&str>) -> Result<Step<String>, StoreError> {
        let after = after.unwrap_or_default();
        let [last, rest] = TENANT_STATEMENTS.map(|sql| sqlx::query(sql).bind(after.to_owned()));
        let (last, rest) = (last.bind(CENSUS_STEP - 1), rest.bind(CENSUS_STEP));
        match last.fetch_optional(self.readers()).await? {
            Some(row) => Ok(Step::full(row.try_get("id")?)),
            None => Step::last(&rest.fetch_one(self.readers()).await?),
        }
    }
}

#[async_trait]
impl CensusStore for SqlStore {
    async fn count_keys(
        &self,
        part: &str,
        after: Option<&Counted>,
    ) -> Result<Step<Counted>, StoreError> {
        within_limit(self.count_keys_after(part, after)).await
    }

    async fn count_tenants(&self, after: Option<&str>) -> Result<Step<String>, StoreError> {
        within_limit(self.count_tenants_after(after)).await
    }
}

#[async_trait]
impl<S: CensusStore> CensusStore for Guarded<S> {
    async fn count_keys(
        &self,
        part: &str,
        after: Option<&Counted>,
    ) -> Result<Step<Counted>, StoreError> {
        self.guard.read(self.inner.count_keys(part, after)).await
    }

    async fn count_tenants(&self, after: Option<&str>) -> Result<Step<String>, StoreError> {
        self.guard.read(self.inner.count_tenants(after)).await
    }
}

/// Counts, and shows what it has counted.
pub struct Census {
    pub store: Arc<dyn CensusStore>,
    pub clock: SharedClock,
    pub metrics: Arc<Metrics>,
}

impl Census {
    /// Counts now and then, for ever. What was counted last is shown while the database is away.
    pub async fn run(self) {
        let mut is_failing = false;
        loop {
            let mut worked = Duration::ZERO;
            match self.count(&mut worked).await {
                Ok(()) => is_failing = false,
                Err(error) => {
                    if !std::mem::replace(&mut is_failing, true) {
                        tracing::warn!(%error, "keys and tenants can't be counted");
                    }
                }
            }
            tokio::time::sleep(worked.saturating_mul(SHARE).max(INTERVAL_MIN)).await;
        }
    }

    /// Counts everything once. `worked` grows by the time that the database has spent on it.
    pub async fn count(&self, worked: &mut Duration) -> Result<(), StoreError> {
        for status in Status::ALL {
            let mut count = 0;
            for part in parts_of(status) {
                let mut after = None;
                loop {
                    let step = self.store.count_keys(&part, after.as_ref());
                    let step = self.paced(worked, step).await?;
                    count += step.count;
                    after = step.next;
                    if after.is_none() {
                        break;
                    }
                }
            }
            self.metrics.show_keys(status, count);
        }
        let (mut count, mut after) = (0, None);
        loop {
            let step = self.store.count_tenants(after.as_deref());
            let step = self.paced(worked, step).await?;
            count += step.count;
            after = step.next;
            if after.is_none() {
                break;
            }
        }
        self.metrics
            .tenants
            .set(i64::try_from(count).unwrap_or(i64::MAX));
        Ok(())
    }

    async fn paced<T>(
        &self,
        worked: &mut Duration,
        step: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let begun_us = self.clock.monotonic_us();
        let result = step.await;
        let took = Duration::from_micros(self.clock.monotonic_us().saturating_sub(begun_us));
        *worked += took;
        tokio::time::sleep(took.saturating_mul(REST)).await;
        result
    }
}
