//! Follows what other instances change. The database numbers every change of a key or a tenant; each
//! instance asks for what is newer than the last that it has seen, and brings the live records of those
//! keys and tenants up to date. A change that this instance made itself is seen here once more, and changes nothing. It
//! looks at every interval, and at once when it is told to: what tells it may lose words, not changes.
//!
//! What was imported is read on the way: an import has the number of the change that made its key, so
//! who has applied a change knows all imports up to it.
//!
//! A live key whose changed row can't be read, or is not there, admits nobody from then on: what was
//! known of it holds no longer, and nothing else is known.
//!
//! What can't be followed gets old: after `store.max_stale_seconds` without an answer from the
//! database, a live record is no longer trusted.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::{Notify, watch};

use super::{Imports, LiveKeys};
use crate::clock::SharedClock;
use crate::key::{KeyId, TenantId};
use crate::store::{Change, KeyStore, StoreError, TenantStore};
use crate::telemetry::Metrics;

/// Changes are kept for so long. Who was away for longer reads all its live keys again.
const KEPT: Duration = Duration::from_secs(86_400);
/// How often older ones are deleted.
const TIDY_INTERVAL_US: u64 = 3_600_000_000;
/// The least time between two looks, however often it is told to look.
const LOOK_PAUSE: Duration = Duration::from_millis(2);

/// How old what is known about keys may be.
#[derive(Debug)]
pub struct Freshness {
    confirmed_us: AtomicU64,
    max_us: u64,
}

impl Freshness {
    /// Fresh at `now_us`, and for `max` without confirmation.
    pub fn new(max: Duration, now_us: u64) -> Self {
        Freshness {
            confirmed_us: AtomicU64::new(now_us),
            max_us: u64::try_from(max.as_micros()).unwrap_or(u64::MAX),
        }
    }

    /// Whether the database has been away for too long.
    pub fn is_stale(&self, now_us: u64) -> bool {
        now_us.saturating_sub(self.confirmed_us.load(Ordering::Relaxed)) > self.max_us
    }

    fn confirm(&self, now_us: u64) {
        self.confirmed_us.fetch_max(now_us, Ordering::Relaxed);
    }
}

/// What an instance needs to follow the others.
pub struct Follower {
    pub store: Arc<dyn KeyStore>,
    pub tenants: Arc<dyn TenantStore>,
    pub live: Arc<LiveKeys>,
    pub imports: Arc<Imports>,
    pub clock: SharedClock,
    pub metrics: Arc<Metrics>,
    pub freshness: Arc<Freshness>,
    /// The number of the last change that is known. To be read before any key becomes live.
    pub seen: i64,
    /// The number of the last import that is known.
    pub imports_seen: i64,
}

impl Follower {
    /// Looks for changes every `interval` and whenever it is `told` to, for ever. `applied` gets the
    /// number up to which all changes have been applied.
    pub async fn run(mut self, interval: Duration, told: Arc<Notify>, applied: watch::Sender<i64>) {
        let mut is_away = false;
        let mut tidied_us = self.clock.monotonic_us();
        loop {
            let begun_us = self.clock.monotonic_us();
            let followed = self.follow().await;
            applied.send_if_modified(|seen| std::mem::replace(seen, self.seen) != self.seen);
            match followed {
                Ok(()) if is_away => tracing::info!("the database answers again"),
                Err(error) if !is_away => {
                    tracing::error!(%error, "the database can't be asked for changes of keys");
                }
                Ok(()) | Err(_) => {}
            }
            is_away = self.metrics.store_up.get() == 0;
            let now_us = self.clock.monotonic_us();
            if now_us.saturating_sub(tidied_us) >= TIDY_INTERVAL_US {
                tidied_us = now_us;
                let before = self.clock.now().minus(KEPT);
                if let Err(error) = self.store.forget_changes(before).await {
                    tracing::warn!(%error, "old changes can't be deleted");
                }
            }
            tokio::time::sleep(LOOK_PAUSE).await;
            // From one look's beginning to the next one's.
            let took = Duration::from_micros(self.clock.monotonic_us().saturating_sub(begun_us));
            tokio::select! {
                () = told.notified() => {}
                () = tokio::time::sleep(interval.saturating_sub(took)) => {}
            }
        }
    }

    /// Brings everything up to date that has changed since the last time.
    pub async fn follow(&mut self) -> Result<(), StoreError> {
        let result = self.catch_up().await;
        self.metrics.store_up.set(i64::from(result.is_ok()));
        if result.is_err() {
            self.metrics.store_errors.inc();
        }
        result
    }

    async fn catch_up(&mut self) -> Result<(), StoreError> {
        loop {
            let asked_us = self.clock.monotonic_us();
            let newest = self.store.last_change().await?;
            if newest == self.seen {
                self.freshness.confirm(asked_us);
                return Ok(());
            }
            let changes = if newest > self.seen {
                self.store.changes_since(self.seen).await?
            } else {
                // An older database was restored, or took over.
                Vec::new()
            };
            match (changes.first(), changes.last()) {
                (Some(first), Some(last)) if first.seq == self.seen + 1 => {
                    // After the changes: among them may be imports that are newer than `newest`.
                    self.imports_seen = self.imports.read_since(self.imports_seen).await?;
                    self.refresh_changed(&changes).await?;
                    self.seen = last.seq;
                    self.metrics.changes_applied.inc_by(changes.len() as u64);
                }
                // Some are no longer kept, or the numbers have begun anew.
                _ => {
                    tracing::warn!("changes were missed; all live keys and tenants are read again");
                    for tenant in self.live.tenants().ids() {
                        self.refresh_tenant(&tenant, newest < self.seen).await?;
                    }
                    // The numbers may be those of other imports.
                    self.imports_seen = self.imports.read_since(0).await?;
                    for key in self.live.ids() {
                        self.refresh(key, newest < self.seen).await?;
                    }
                    self.seen = newest;
                }
            }
            if self.seen >= newest {
                self.freshness.confirm(asked_us);
                return Ok(());
            }
        }
    }

    async fn refresh_changed(&self, changes: &[Change]) -> Result<(), StoreError> {
        let (mut keys, mut tenants) = (HashSet::new(), HashSet::new());
        for change in changes {
            match &change.tenant_id {
                Some(tenant) => drop(tenants.insert(tenant)),
                None => drop(keys.insert(change.key_id)),
            }
        }
        for tenant in tenants {
            self.refresh_tenant(tenant, false).await?;
        }
        for key in keys {
            self.refresh(key, false).await?;
        }
        Ok(())
    }

    async fn refresh_tenant(&self, id: &TenantId, is_reset: bool) -> Result<(), StoreError> {
        let tenants = self.live.tenants();
        if !tenants.knows(id) {
            return Ok(());
        }
        let before = tenants.revision(id);
        match self.tenants.tenant(id).await {
            Ok(Some(record)) if !is_reset => self.live.apply_tenant(&record),
            // Without a row it is what a tenant is that nobody has set anything for.
            Ok(record) => self.live.restore_tenant(id, record.as_ref(), before),
            // It may say that the tenant was suspended.
            Err(error @ StoreError::DamagedTenant { .. }) => {
                tracing::error!(%error, "a changed tenant can't be read, and its keys are refused until a later change of it can be");
                self.live.close_tenant(id, before);
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    async fn refresh(&self, key: KeyId, is_reset: bool) -> Result<(), StoreError> {
        if !self.live.knows(key) {
            return Ok(());
        }
        let before = self.live.revision(key);
        match self.store.get(key).await {
            Ok(Some(record)) if is_reset => self.live.restore(record, before),
            Ok(Some(record)) => self.live.apply(record),
            // Rows are never deleted: an older database was restored, or somebody took it out by hand.
            Ok(None) => self.live.close(key, before),
            // It may say that the key was revoked.
            Err(error @ StoreError::Damaged { .. }) => {
                tracing::error!(%error, "a changed key can't be read, and is refused until a later change of it can be");
                self.live.close(key, before);
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }
}
