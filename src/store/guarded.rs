//! A circuit breaker in front of the database: while it is away, whoever needs it is told so at once,
//! instead of waiting as long as an operation may take.
//!
//! Whoever follows changes asks all the time and keeps nobody waiting, so it looks for recovery; a caller
//! of a request is the one who waits for a server that hangs only where the follower is told to look so
//! rarely (`store.poll_interval_ms`) that it is overdue, and one at a time. The embedded secret store
//! is in the same database and stands behind the same breaker. An answer about one key (a conflict, a
//! damaged row) is an answer.

use std::sync::Arc;

use async_trait::async_trait;
use prometheus::IntGauge;

use super::audit::{AuditStore, EventFilter, EventPage, EventRange};
use super::recent::RecentHour;
use super::{
    Change, ClaimPage, KeyFilter, KeyOrder, KeyStore, Page, PageFrom, StoreError, TenantFilter,
    TenantPage, TenantStore, UsageStore,
};
use crate::audit::Note;
use crate::audit::chain::{Anchor, Found};
use crate::audit::entry::Head;
use crate::breaker::Breaker;
use crate::clock::{SharedClock, Timestamp};
use crate::key::{Generation, KeyId, KeyRecord, MintKeys, TenantId, TenantRecord};
use crate::secrets::{Holder, SecretError, SecretStore, StoredHash};
use crate::telemetry::Metrics;
use crate::telemetry::dependencies::{StoreOperation, StoreTimes, Timer};
use crate::telemetry::metrics::Dependency;
use crate::usage::span::Interval;
use crate::usage::{Batch, Counts, KeyUse, Subject};

const HELD_BACK: &str = "its last calls failed; it is asked again twice a second";

/// What a failure says about the database.
pub(super) trait Failure {
    /// Whether it was away, or too slow.
    fn is_outage(&self) -> bool;
    /// The answer where it is not asked.
    fn held_back() -> Self;
}

impl Failure for StoreError {
    fn is_outage(&self) -> bool {
        matches!(self, StoreError::Unavailable(_))
    }

    fn held_back() -> Self {
        StoreError::Unavailable(HELD_BACK.to_owned())
    }
}

impl Failure for SecretError {
    fn is_outage(&self) -> bool {
        matches!(self, SecretError::Unavailable(_))
    }

    fn held_back() -> Self {
        SecretError::Unavailable(HELD_BACK.to_owned())
    }
}

/// The breaker of one database.
pub struct Guard {
    breaker: Breaker,
    clock: SharedClock,
    is_open: IntGauge,
    times: StoreTimes,
}

impl Guard {
    /// A closed one, that shows its state and how long calls take.
    pub fn new(clock: SharedClock, metrics: &Metrics) -> Arc<Self> {
        let is_open = metrics.breaker_open(Dependency::Database);
        is_open.set(0);
        Arc::new(Guard {
            breaker: Breaker::default(),
            clock,
            is_open,
            times: metrics.store_times(),
        })
    }

    /// Does `work`, unless the database is away. Housekeeping that mostly finds nothing to do reads.
    pub(super) async fn read<T, E: Failure>(
        &self,
        work: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        self.run(StoreOperation::Read, work).await
    }

    /// The same, of `work` that writes.
    pub(super) async fn write<T, E: Failure>(
        &self,
        work: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        self.run(StoreOperation::Write, work).await
    }

    async fn run<T, E: Failure>(
        &self,
        operation: StoreOperation,
        work: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        if self.breaker.is_open() && !self.breaker.is_overdue(self.clock.monotonic_us()) {
            return Err(E::held_back());
        }
        self.probe(operation, work).await
    }

    /// Does `work`, also to see whether the database is back.
    async fn probe<T, E: Failure>(
        &self,
        operation: StoreOperation,
        work: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        let Some(permit) = self.breaker.permit(self.clock.monotonic_us()) else {
            return Err(E::held_back());
        };
        let timer = Timer::begin(self.times.of(operation), &self.clock);
        let result = work.await;
        drop(timer);
        match &result {
            Err(error) if error.is_outage() => permit.failed(self.clock.monotonic_us()),
            Ok(_) | Err(_) => permit.succeeded(),
        }
        self.is_open.set(i64::from(self.breaker.is_open()));
        result
    }
}

/// A store behind a [`Guard`].
pub struct Guarded<S> {
    pub(super) inner: S,
    pub(super) guard: Arc<Guard>,
}

impl<S> Guarded<S> {
    pub fn new(inner: S, guard: Arc<Guard>) -> Self {
        Guarded { inner, guard }
    }
}

#[async_trait]
impl<S: KeyStore> KeyStore for Guarded<S> {
    async fn insert(&self, record: &KeyRecord, note: &Note) -> Result<(), StoreError> {
        self.guard.write(self.inner.insert(record, note)).await
    }

    async fn get(&self, id: KeyId) -> Result<Option<KeyRecord>, StoreError> {
        self.guard.read(self.inner.get(id)).await
    }

    async fn insert_first(&self, record: &KeyRecord, note: &Note) -> Result<(), StoreError> {
        self.guard
            .write(self.inner.insert_first(record, note))
            .await
    }

    async fn update(&self, record: &KeyRecord, note: &Note) -> Result<(), StoreError> {
        self.guard.write(self.inner.update(record, note)).await
    }

    async fn page(
        &self,
        filter: &KeyFilter,
        order: KeyOrder,
        from: &PageFrom,
        limit: usize,
    ) -> Result<Page, StoreError> {
        let page = self.inner.page(filter, order, from, limit);
        self.guard.read(page).await
    }

    async fn settle(&self, now: Timestamp) -> Result<bool, StoreError> {
        self.guard.read(self.inner.settle(now)).await
    }

    async fn claims(&self, after: Option<String>) -> Result<ClaimPage, StoreError> {
        self.guard.read(self.inner.claims(after)).await
    }

    async fn changes_since(&self, seq: i64) -> Result<Vec<Change>, StoreError> {
        self.guard.read(self.inner.changes_since(seq)).await
    }

    async fn last_change(&self) -> Result<i64, StoreError> {
        self.guard
            .probe(StoreOperation::Read, self.inner.last_change())
            .await
    }

    async fn forget_changes(&self, before: Timestamp) -> Result<(), StoreError> {
        self.guard.write(self.inner.forget_changes(before)).await
    }

    async fn is_empty(&self) -> Result<bool, StoreError> {
        self.guard.read(self.inner.is_empty()).await
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.guard.read(self.inner.ping()).await
    }
}

#[async_trait]
impl<S: AuditStore> AuditStore for Guarded<S> {
    async fn note(&self, notes: &[Note]) -> Result<(), StoreError> {
        self.guard.write(self.inner.note(notes)).await
    }

    async fn audit_head(&self) -> Result<Option<Head>, StoreError> {
        self.guard.read(self.inner.audit_head()).await
    }

    fn witnessed(&self) -> Option<Anchor> {
        self.inner.witnessed()
    }

    async fn chain_page(&self, after: i64) -> Result<Vec<Found>, StoreError> {
        self.guard.read(self.inner.chain_page(after)).await
    }

    async fn event_range(&self, filter: &EventFilter) -> Result<EventRange, StoreError> {
        self.guard.read(self.inner.event_range(filter)).await
    }

    async fn events(
        &self,
        filter: &EventFilter,
        range: EventRange,
        limit: usize,
    ) -> Result<EventPage, StoreError> {
        self.guard
            .read(self.inner.events(filter, range, limit))
            .await
    }
}

#[async_trait]
impl<S: TenantStore> TenantStore for Guarded<S> {
    async fn tenant(&self, id: &TenantId) -> Result<Option<TenantRecord>, StoreError> {
        self.guard.read(self.inner.tenant(id)).await
    }

    async fn insert_tenant(&self, record: &TenantRecord, note: &Note) -> Result<(), StoreError> {
        self.guard
            .write(self.inner.insert_tenant(record, note))
            .await
    }

    async fn update_tenant(&self, record: &TenantRecord, note: &Note) -> Result<u64, StoreError> {
        self.guard
            .write(self.inner.update_tenant(record, note))
            .await
    }

    async fn tenants(
        &self,
        filter: &TenantFilter,
        after: Option<&TenantId>,
        limit: usize,
    ) -> Result<TenantPage, StoreError> {
        self.guard
            .read(self.inner.tenants(filter, after, limit))
            .await
    }
}

#[async_trait]
impl<S: SecretStore> SecretStore for Guarded<S> {
    async fn mint_keys(&self) -> Result<MintKeys, SecretError> {
        self.guard.read(self.inner.mint_keys()).await
    }

    async fn hashes(&self, tenant: &TenantId, key: KeyId) -> Result<Vec<StoredHash>, SecretError> {
        self.guard.read(self.inner.hashes(tenant, key)).await
    }

    async fn add_hash(
        &self,
        tenant: &TenantId,
        key: KeyId,
        hash: &StoredHash,
    ) -> Result<(), SecretError> {
        self.guard
            .write(self.inner.add_hash(tenant, key, hash))
            .await
    }

    async fn remove_hashes(
        &self,
        tenant: &TenantId,
        key: KeyId,
        generations: &[Generation],
    ) -> Result<(), SecretError> {
        let work = self.inner.remove_hashes(tenant, key, generations);
        self.guard.write(work).await
    }

    async fn holders(&self) -> Result<Vec<Holder>, SecretError> {
        self.guard.read(self.inner.holders()).await
    }

    async fn ping(&self) -> Result<(), SecretError> {
        self.guard.read(self.inner.ping()).await
    }
}

#[async_trait]
impl<S: UsageStore> UsageStore for Guarded<S> {
    async fn add_usage(&self, batch: &Batch) -> Result<(), StoreError> {
        self.guard.write(self.inner.add_usage(batch)).await
    }

    async fn usage(
        &self,
        subject: &Subject,
        interval: Interval,
        from: Timestamp,
        to: Timestamp,
    ) -> Result<Vec<(Timestamp, Counts)>, StoreError> {
        let work = self.inner.usage(subject, interval, from, to);
        self.guard.read(work).await
    }

    async fn usage_total(&self, key: KeyId) -> Result<Counts, StoreError> {
        self.guard.read(self.inner.usage_total(key)).await
    }

    async fn last_uses(&self, keys: &[KeyId]) -> Result<Vec<KeyUse>, StoreError> {
        self.guard.read(self.inner.last_uses(keys)).await
    }

    async fn recent(
        &self,
        keys: &[KeyId],
        from: Timestamp,
        to: Timestamp,
    ) -> Result<Vec<RecentHour>, StoreError> {
        self.guard.read(self.inner.recent(keys, from, to)).await
    }

    async fn forget_uses(&self, key: KeyId, generation: Generation) -> Result<(), StoreError> {
        self.guard
            .write(self.inner.forget_uses(key, generation))
            .await
    }

    async fn roll_up(&self, before: Timestamp) -> Result<bool, StoreError> {
        self.guard.write(self.inner.roll_up(before)).await
    }

    async fn forget_flushes(&self, before: Timestamp) -> Result<(), StoreError> {
        self.guard.write(self.inner.forget_flushes(before)).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ManualClock;
    use std::time::Duration;

    async fn probe(
        guard: &Guard,
        work: impl Future<Output = Result<(), StoreError>>,
    ) -> Result<(), StoreError> {
        guard.probe(StoreOperation::Read, work).await
    }

    #[tokio::test]
    async fn who_follows_looks_for_recovery() {
        let clock = ManualClock::at(Timestamp::from_millis(1_000));
        let metrics = Metrics::new().unwrap();
        let is_open = metrics.breaker_open(Dependency::Database);
        let guard = Guard::new(clock.clone(), &metrics);
        let answer = || async { Ok::<(), StoreError>(()) };
        let away = || async { Err::<(), _>(StoreError::Unavailable("away".to_owned())) };
        for _ in 0..10 {
            let conflict = guard
                .read(async { Err::<(), _>(StoreError::Conflict) })
                .await;
            assert!(matches!(conflict, Err(StoreError::Conflict)));
        }
        assert_eq!(is_open.get(), 0, "a conflict is an answer");
        while is_open.get() == 0 {
            guard.read(away()).await.unwrap_err();
        }
        guard.read(answer()).await.unwrap_err();
        probe(&guard, answer()).await.unwrap_err();
        clock.advance(Duration::from_secs(1));
        guard.read(answer()).await.unwrap_err();
        let secrets = guard.read(async { Ok::<(), SecretError>(()) }).await;
        assert!(matches!(secrets, Err(SecretError::Unavailable(_))));
        probe(&guard, away()).await.unwrap_err();
        probe(&guard, answer()).await.unwrap_err();
        clock.advance(Duration::from_secs(1));
        probe(&guard, answer()).await.unwrap();
        assert_eq!(is_open.get(), 0);
        guard.read(answer()).await.unwrap();
    }

    #[tokio::test]
    async fn a_caller_looks_where_who_follows_is_overdue() {
        let clock = ManualClock::at(Timestamp::from_millis(1_000));
        let metrics = Metrics::new().unwrap();
        let is_open = metrics.breaker_open(Dependency::Database);
        let guard = Guard::new(clock.clone(), &metrics);
        let answer = || async { Ok::<(), StoreError>(()) };
        let away = || async { Err::<(), _>(StoreError::Unavailable("away".to_owned())) };
        while is_open.get() == 0 {
            guard.read(away()).await.unwrap_err();
        }
        clock.advance(Duration::from_millis(1_499));
        guard.read(answer()).await.unwrap_err();
        clock.advance(Duration::from_millis(1));
        guard.read(away()).await.unwrap_err();
        guard.read(answer()).await.unwrap_err();
        clock.advance(Duration::from_millis(1_500));
        guard.read(answer()).await.unwrap();
        assert_eq!(is_open.get(), 0);
    }

    #[tokio::test]
    async fn a_call_is_measured_where_it_is_made() {
        let clock = ManualClock::at(Timestamp::from_millis(1_000));
        let metrics = Metrics::new().unwrap();
        let guard = Guard::new(clock.clone(), &metrics);
        let times = metrics.store_times();
        let (reads, writes) = (
            times.of(StoreOperation::Read),
            times.of(StoreOperation::Write),
        );
        let slow = async {
            clock.advance(Duration::from_millis(250));
            Ok::<(), StoreError>(())
        };
        guard.write(slow).await.unwrap();
        assert_eq!(
            (reads.get_sample_count(), writes.get_sample_count()),
            (0, 1)
        );
        assert_eq!(writes.get_sample_sum(), 0.25);
        let is_open = metrics.breaker_open(Dependency::Database);
        while is_open.get() == 0 {
            let away = async { Err::<(), _>(StoreError::Unavailable("away".to_owned())) };
            guard.read(away).await.unwrap_err();
        }
        let failed = reads.get_sample_count();
        assert!(failed > 0, "a call that fails takes its time too");
        guard
            .read(async { Ok::<(), StoreError>(()) })
            .await
            .unwrap_err();
        assert_eq!(
            reads.get_sample_count(),
            failed,
            "what is held back is no call"
        );
    }
}
