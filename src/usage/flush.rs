//! Brings what live keys have counted into the store. One task takes it out of the keys, on time,
//! whatever the store does; another stores it.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::counts::Hour;
use super::outcomes::Outcomes;
use super::pending::Pending;
use super::tenants::TenantTraffic;
use crate::clock::{SharedClock, Timestamp};
use crate::store::{StoreError, UsageStore};
use crate::telemetry::Metrics;
use crate::telemetry::metrics::seconds;

/// How soon a batch that failed is tried again.
const RETRY: Duration = Duration::from_secs(1);
/// The same at the end of the process, when somebody waits for it.
const LAST_RETRY: Duration = Duration::from_millis(100);
/// How long the end of the process waits for what is left to be stored.
const FINISH_TIMEOUT: Duration = Duration::from_secs(5);

/// Where usage is counted.
pub trait Source: Send + Sync + 'static {
    /// Takes out everything that was counted, as that of `hour`.
    fn drain(&self, hour: Hour, into: &mut Pending);
}

/// What a [`Flusher`] is made of.
pub struct Parts {
    pub source: Arc<dyn Source>,
    pub store: Arc<dyn UsageStore>,
    pub instance: Arc<str>,
    pub interval: Duration,
    pub rows_max: usize,
    /// Tenants that get series of their own in the metrics.
    pub shown_tenants_max: usize,
    pub clock: SharedClock,
    pub metrics: Arc<Metrics>,
}

/// Takes usage out of its counters, and stores it.
pub struct Flusher {
    source: Arc<dyn Source>,
    store: Arc<dyn UsageStore>,
    interval: Duration,
    clock: SharedClock,
    metrics: Arc<Metrics>,
    /// Since when the counters have counted.
    begun: Mutex<Timestamp>,
    pending: Mutex<Pending>,
    outcomes: Mutex<Outcomes>,
    tenants: Mutex<TenantTraffic>,
    /// Whether it has been told that rows are dropped, or that the store fails.
    is_dropping: Mutex<bool>,
    is_failing: Mutex<bool>,
    has_rows: Notify,
}

impl Flusher {
    pub fn new(parts: Parts) -> Arc<Self> {
        Arc::new(Flusher {
            begun: Mutex::new(parts.clock.now()),
            pending: Mutex::new(Pending::new(parts.instance, parts.rows_max)),
            outcomes: Mutex::default(),
            tenants: Mutex::new(TenantTraffic::new(
                parts.shown_tenants_max,
                parts.metrics.clone(),
            )),
            is_dropping: Mutex::new(false),
            is_failing: Mutex::new(false),
            has_rows: Notify::new(),
            source: parts.source,
            store: parts.store,
            interval: parts.interval,
            clock: parts.clock,
            metrics: parts.metrics,
        })
    }

    /// Takes out and stores, for ever.
    pub async fn run(self: Arc<Self>) {
        tokio::join!(self.keep_collecting(), self.keep_storing());
    }

    async fn keep_collecting(&self) {
        loop {
            tokio::time::sleep(pause(self.clock.now(), self.interval)).await;
            self.collect();
        }
    }

    async fn keep_storing(&self) {
        loop {
            self.has_rows.notified().await;
            while !self.store_all().await {
                tokio::time::sleep(RETRY).await;
            }
        }
    }

    /// Takes out what was counted since the last time. It belongs to the hour in which that was: an hour
    /// that ends is taken out at its end.
    pub fn collect(&self) {
        let now = self.clock.now();
        let hour = Hour::of(std::mem::replace(&mut *self.begun.lock(), now));
        let mut pending = self.pending.lock();
        self.source.drain(hour, &mut pending);
        let outcomes = self.metrics.outcomes();
        self.outcomes.lock().take(outcomes, hour, &mut pending);
        let dropped = pending.take_dropped();
        let tenants = pending.take_tenants();
        self.show(&pending);
        drop(pending);
        let now_us = self.clock.monotonic_us();
        self.tenants.lock().add(&tenants, now_us);
        self.tell_dropped(dropped);
        self.has_rows.notify_one();
    }

    fn show(&self, pending: &Pending) {
        let rows = i64::try_from(pending.rows()).unwrap_or(i64::MAX);
        self.metrics.usage_pending_rows.set(rows);
    }

    fn tell_dropped(&self, dropped: u64) {
        self.metrics.usage_rows_dropped.inc_by(dropped);
        let was_dropping = std::mem::replace(&mut *self.is_dropping.lock(), dropped > 0);
        if dropped > 0 && !was_dropping {
            tracing::error!("usage is lost: more rows wait than usage.max_pending_rows");
        }
    }

    /// Stores everything that waits, and says whether all of it could be.
    pub async fn store_all(&self) -> bool {
        let begun_us = self.clock.monotonic_us();
        let mut has_stored = false;
        loop {
            let batch = self.pending.lock().current();
            let Some(batch) = batch else { break };
            if let Err(error) = self.store.add_usage(&batch).await {
                self.failed(&error);
                return false;
            }
            has_stored = true;
            *self.is_failing.lock() = false;
            let mut pending = self.pending.lock();
            pending.stored();
            self.show(&pending);
        }
        self.metrics
            .usage_last_flush
            .set(self.clock.now().as_millis() / 1000);
        if has_stored {
            let took_us = self.clock.monotonic_us().saturating_sub(begun_us);
            self.metrics.usage_flushes.inc();
            self.metrics.usage_flush_seconds.observe(seconds(took_us));
        }
        true
    }

    fn failed(&self, error: &StoreError) {
        self.metrics.usage_flush_failures.inc();
        if !std::mem::replace(&mut *self.is_failing.lock(), true) {
            tracing::warn!(%error, "usage can't be stored, and waits in memory");
        }
    }

    /// Stores what is left, when nothing is counted any more and nobody else stores; it takes a limited
    /// time.
    pub async fn finish(&self) {
        self.collect();
        let all = async {
            while !self.store_all().await {
                tokio::time::sleep(LAST_RETRY).await;
            }
        };
        if tokio::time::timeout(FINISH_TIMEOUT, all).await.is_err() {
            let rows = self.pending.lock().rows();
            tracing::error!(
                rows,
                "the usage that was counted last could not be stored, and is lost"
            );
        }
    }
}

/// How long to wait for the next look: the interval, but no longer than the hour.
fn pause(now: Timestamp, interval: Duration) -> Duration {
    let left_ms = Hour::of(now).end().as_millis() - now.as_millis();
    interval.min(Duration::from_millis(
        u64::try_from(left_ms).unwrap_or(1).max(1),
    ))
}

#[cfg(test)]
mod tests;
