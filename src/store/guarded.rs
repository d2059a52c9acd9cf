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
}

impl Guard {
    /// A closed one, that shows its state in `is_open`.
    pub fn new(clock: SharedClock, is_open: IntGauge) -> Arc<Self> {
        is_open.set(0);
        Arc::new(Guard {
            breaker: Breaker::default(),
            clock,
            is_open,
        })
    }

    /// Does `work`, unless the database is away.
    pub(super) async fn run<T, E: Failure>(
        &self,
        work: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        if self.breaker.is_open() && !self.breaker.is_overdue(self.clock.monotonic_us()) {
            return Err(E::held_back());
        }
        self.probe(work).await
    }

    /// Does `work`, also to see whether the database is back.
    async fn probe<T, E: Failure>(&self, work: impl Future<Output = Result<T, E>>) -> Result<T, E> {
        let Some(permit) = self.breaker.permit(self.clock.monotonic_us()) else {
            return Err(E::held_back());
        };
        let result = work.await;
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
        self.guard.run(self.inner.insert(record, note)).await
    }

    async fn get(&self, id: KeyId) -> Result<Option<KeyRecord>, StoreError> {
        self.guard.run(self.inner.get(id)).await
    }

    async fn insert_first(&self, record: &KeyRecord, note: &Note) -> Result<(), StoreError> {
        self.guard.run(self.inner.insert_first(record, note)).await
    }

    async fn update(&self, record: &KeyRecord, note: &Note) -> Result<(), StoreError> {
        self.guard.run(self.inner.update(record, note)).await
    }

    async fn page(
        &self,
        filter: &KeyFilter,
        order: KeyOrder,
        from: &PageFrom,
        limit: usize,
    ) -> Result<Page, StoreError> {
        let page = self.inner.page(filter, order, from, limit);
        self.guard.run(page).await
    }

    async fn settle(&self, now: Timestamp) -> Result<bool, StoreError> {
        self.guard.run(self.inner.settle(now)).await
    }

    async fn claims(&self, after: Option<String>) -> Result<ClaimPage, StoreError> {
        self.guard.run(self.inner.claims(after)).await
    }

    async fn changes_since(&self, seq: i64) -> Result<Vec<Change>, StoreError> {
        self.guard.run(self.inner.changes_since(seq)).await
    }

    async fn last_change(&self) -> Result<i64, StoreError> {
        self.guard.probe(self.inner.last_change()).await
    }

    async fn forget_changes(&self, before: Timestamp) -> Result<(), StoreError> {
        self.guard.run(self.inner.forget_changes(before)).await
    }

    async fn is_empty(&self) -> Result<bool, StoreError> {
        self.guard.run(self.inner.is_empty()).await
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.guard.run(self.inner.ping()).await
    }
}

#[async_trait]
impl<S: AuditStore> AuditStore for Guarded<S> {
    async fn note(&self, notes: &[Note]) -> Result<(), StoreError> {
        self.guard.run(self.inner.note(notes)).await
    }

    async fn audit_head(&self) -> Result<Option<Head>, StoreError> {
        self.guard.run(self.inner.audit_head()).await
    }

    fn witnessed(&self) -> Option<Anchor> {
        self.inner.witnessed()
    }

    async fn chain_page(&self, after: i64) -> Result<Vec<Found>, StoreError> {
        self.guard.run(self.inner.chain_page(after)).await
    }

    async fn event_range(&self, filter: &EventFilter) -> Result<EventRange, StoreError> {
        self.guard.run(self.inner.event_range(filter)).await
    }

    async fn events(
        &self,
        filter: &EventFilter,
        range: EventRange,
        limit: usize,
    ) -> Result<EventPage, StoreError> {
        self.guard
            .run(self.inner.events(filter, range, limit))
            .await
    }
}

#[async_trait]
impl<S: TenantStore> TenantStore for Guarded<S> {
    async fn tenant(&self, id: &TenantId) -> Result<Option<TenantRecord>, StoreError> {
        self.guard.run(self.inner.tenant(id)).await
    }

    async fn insert_tenant(&self, record: &TenantRecord, note: &Note) -> Result<(), StoreError> {
        self.guard.run(self.inner.insert_tenant(record, note)).await
    }

    async fn update_tenant(&self, record: &TenantRecord, note: &Note) -> Result<u64, StoreError> {
        self.guard.run(self.inner.update_tenant(record, note)).await
    }

    async fn tenants(
        &self,
        filter: &TenantFilter,
        after: Option<&TenantId>,
        limit: usize,
    ) -> Result<TenantPage, StoreError> {
        self.guard
            .run(self.inner.tenants(filter, after, limit))
            .await
    }
}

#[async_trait]
impl<S: SecretStore> SecretStore for Guarded<S> {
    async fn mint_keys(&self) -> Result<MintKeys, SecretError> {
        self.guard.run(self.inner.mint_keys()).await
    }

    async fn hashes(&self, tenant: &TenantId, key: KeyId) -> Result<Vec<StoredHash>, SecretError> {
        self.guard.run(self.inner.hashes(tenant, key)).await
    }

    async fn add_hash(
        &self,
        tenant: &TenantId,
        key: KeyId,
        hash: &StoredHash,
    ) -> Result<(), SecretError> {
        self.guard.run(self.inner.add_hash(tenant, key, hash)).await
    }

    async fn remove_hashes(
        &self,
        tenant: &TenantId,
        key: KeyId,
        generations: &[Generation],
    ) -> Result<(), SecretError> {
        let work = self.inner.remove_hashes(tenant, key, generations);
        self.guard.run(work).await
    }

    async fn holders(&self) -> Result<Vec<Holder>, SecretError> {
        self.guard.run(self.inner.holders()).await
    }

    async fn ping(&self) -> Result<(), SecretError> {
        self.guard.run(self.inner.ping()).await
    }
}

#[async_trait]
impl<S: UsageStore> UsageStore for Guarded<S> {
    async fn add_usage(&self, batch: &Batch) -> Result<(), StoreError> {
        self.guard.run(self.inner.add_usage(batch)).await
    }

    async fn usage(
        &self,
        subject: &Subject,
        interval: Interval,
        from: Timestamp,
        to: Timestamp,
    ) -> Result<Vec<(Timestamp, Counts)>, StoreError> {
        let work = self.inner.usage(subject, interval, from, to);
        self.guard.run(work).await
    }

    async fn usage_total(&self, key: KeyId) -> Result<Counts, StoreError> {
        self.guard.run(self.inner.usage_total(key)).await
    }

    async fn last_uses(&self, keys: &[KeyId]) -> Result<Vec<KeyUse>, StoreError> {
        self.guard.run(self.inner.last_uses(keys)).await
    }

    async fn recent(
        &self,
        keys: &[KeyId],
        from: Timestamp,
        to: Timestamp,
    ) -> Result<Vec<RecentHour>, StoreError> {
        self.guard.run(self.inner.recent(keys, from, to)).await
    }

    async fn forget_uses(&self, key: KeyId, generation: Generation) -> Result<(), StoreError> {
        self.guard
            .run(self.inner.forget_uses(key, generation))
            .await
    }

    async fn roll_up(&self, before: Timestamp) -> Result<bool, StoreError> {
        self.guard.run(self.inner.roll_up(before)).await
    }

    async fn forget_flushes(&self, before: Timestamp) -> Result<(), StoreError> {
        self.guard.run(self.inner.forget_flushes(before)).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ManualClock;
    use std::time::Duration;

    #[tokio::test]
    async fn who_follows_looks_for_recovery() {
        let clock = ManualClock::at(Timestamp::from_millis(1_000));
        let is_open = IntGauge::new("open", "is it?").unwrap();
        let guard = Guard::new(clock.clone(), is_open.clone());
        let answer = || async { Ok::<(), StoreError>(()) };
        let away = || async { Err::<(), _>(StoreError::Unavailable("away".to_owned())) };
        for _ in 0..10 {
            let conflict = guard
                .run(async { Err::<(), _>(StoreError::Conflict) })
                .await;
            assert!(matches!(conflict, Err(StoreError::Conflict)));
        }
        assert_eq!(is_open.get(), 0, "a conflict is an answer");
        while is_open.get() == 0 {
            guard.run(away()).await.unwrap_err();
        }
        guard.run(answer()).await.unwrap_err();
        guard.probe(answer()).await.unwrap_err();
        clock.advance(Duration::from_secs(1));
        guard.run(answer()).await.unwrap_err();
        let secrets = guard.run(async { Ok::<(), SecretError>(()) }).await;
        assert!(matches!(secrets, Err(SecretError::Unavailable(_))));
        guard.probe(away()).await.unwrap_err();
        guard.probe(answer()).await.unwrap_err();
        clock.advance(Duration::from_secs(1));
        guard.probe(answer()).await.unwrap();
        assert_eq!(is_open.get(), 0);
        guard.run(answer()).await.unwrap();
    }

    #[tokio::test]
    async fn a_caller_looks_where_who_follows_is_overdue() {
        let clock = ManualClock::at(Timestamp::from_millis(1_000));
        let is_open = IntGauge::new("open", "is it?").unwrap();
        let guard = Guard::new(clock.clone(), is_open.clone());
        let answer = || async { Ok::<(), StoreError>(()) };
        let away = || async { Err::<(), _>(StoreError::Unavailable("away".to_owned())) };
        while is_open.get() == 0 {
            guard.run(away()).await.unwrap_err();
        }
        clock.advance(Duration::from_millis(1_499));
        guard.run(answer()).await.unwrap_err();
        clock.advance(Duration::from_millis(1));
        guard.run(away()).await.unwrap_err();
        guard.run(answer()).await.unwrap_err();
        clock.advance(Duration::from_millis(1_500));
        guard.run(answer()).await.unwrap();
        assert_eq!(is_open.get(), 0);
    }
}
