use std::collections::BTreeMap;

use async_trait::async_trait;

use super::*;
use crate::clock::{Clock, ManualClock};
use crate::key::{Generation, KeyId, TenantId};
use crate::store::RecentHour;
use crate::usage::counts::HOUR_MS;
use crate::usage::span::Interval;
use crate::usage::{Batch, Counts, KeyUse, Subject};

/// Counts requests of one key.
#[derive(Default)]
struct Counted(Mutex<u64>);

impl Source for Counted {
    fn drain(&self, hour: Hour, into: &mut Pending) {
        let requests = std::mem::take(&mut *self.0.lock());
        if requests > 0 {
            let counts = Counts {
                requests,
                ..Counts::default()
            };
            let tenant: TenantId = "acme".parse().unwrap();
            let key: KeyId = "0123456789ab".parse().unwrap();
            into.add(key, &tenant, hour, &counts);
        }
    }
}

/// A store whose answers are lost, or that is away.
#[derive(Default)]
struct Store {
    /// Requests by hour.
    hours: Mutex<BTreeMap<Hour, u64>>,
    last_batch: Mutex<i64>,
    is_away: Mutex<bool>,
    /// Whether the next answers are lost on their way.
    loses_answers: Mutex<bool>,
}

fn away() -> StoreError {
    StoreError::Unavailable("away".to_owned())
}

#[async_trait]
impl UsageStore for Store {
    async fn add_usage(&self, batch: &Batch) -> Result<(), StoreError> {
        if *self.is_away.lock() {
            return Err(away());
        }
        let before = std::mem::replace(&mut *self.last_batch.lock(), batch.number);
        if before < batch.number {
            for row in &batch.hours {
                *self.hours.lock().entry(row.hour).or_default() += row.counts.requests;
            }
        }
        if *self.loses_answers.lock() {
            return Err(away());
        }
        Ok(())
    }

    async fn usage(
        &self,
        _: &Subject,
        _: Interval,
        _: Timestamp,
        _: Timestamp,
    ) -> Result<Vec<(Timestamp, Counts)>, StoreError> {
        Err(away())
    }

    async fn usage_total(&self, _: KeyId) -> Result<Counts, StoreError> {
        Err(away())
    }

    async fn last_uses(&self, _: &[KeyId]) -> Result<Vec<KeyUse>, StoreError> {
        Err(away())
    }

    async fn recent(
        &self,
        _: &[KeyId],
        _: Timestamp,
        _: Timestamp,
    ) -> Result<Vec<RecentHour>, StoreError> {
        Err(away())
    }

    async fn forget_uses(&self, _: KeyId, _: Generation) -> Result<(), StoreError> {
        Err(away())
    }

    async fn roll_up(&self, _: Timestamp) -> Result<bool, StoreError> {
        Err(away())
    }

    async fn forget_flushes(&self, _: Timestamp) -> Result<(), StoreError> {
        Err(away())
    }
}

struct Bench {
    counted: Arc<Counted>,
    store: Arc<Store>,
    clock: Arc<ManualClock>,
    metrics: Arc<Metrics>,
    flusher: Arc<Flusher>,
}

impl Bench {
    /// Starts half a minute before an hour's end.
    fn new(rows_max: usize) -> Self {
        let (counted, store) = (Arc::new(Counted::default()), Arc::new(Store::default()));
        let clock = ManualClock::at(Timestamp::from_millis(8 * HOUR_MS - 30_000));
        let metrics = Arc::new(Metrics::new().unwrap());
        let flusher = Flusher::new(Parts {
            source: counted.clone(),
            store: store.clone(),
            instance: "me".into(),
            interval: Duration::from_secs(10),
            rows_max,
            shown_tenants_max: 1,
            clock: clock.clone(),
            metrics: metrics.clone(),
        });
        Bench {
            counted,
            store,
            clock,
            metrics,
            flusher,
        }
    }

    fn count(&self, requests: u64) {
        *self.counted.0.lock() += requests;
    }

    /// What is stored, by hour.
    fn hours(&self) -> Vec<(i64, u64)> {
        let hours = self.store.hours.lock();
        let hours = hours
            .iter()
            .map(|(hour, n)| (hour.start().as_millis() / HOUR_MS, *n));
        hours.collect()
    }
}

#[tokio::test]
async fn an_hour_is_taken_out_at_its_end() {
    let bench = Bench::new(100);
    bench.count(1);
    bench.clock.advance(Duration::from_secs(25));
    assert_eq!(
        pause(bench.clock.now(), Duration::from_secs(10)),
        Duration::from_secs(5)
    );
    bench.flusher.collect();
    bench.count(2);
    bench.clock.advance(Duration::from_secs(5));
    assert_eq!(
        pause(bench.clock.now(), Duration::from_secs(10)),
        Duration::from_secs(10)
    );
    // What came since the last look is of the hour that has ended.
    bench.flusher.collect();
    bench.count(4);
    bench.clock.advance(Duration::from_secs(10));
    bench.flusher.collect();
    assert!(bench.flusher.store_all().await);
    assert_eq!(bench.hours(), [(7, 3), (8, 4)]);
}

#[tokio::test]
async fn a_batch_whose_answer_is_lost_is_stored_once() {
    let bench = Bench::new(100);
    bench.count(1);
    bench.flusher.collect();
    *bench.store.loses_answers.lock() = true;
    assert!(!bench.flusher.store_all().await);
    bench.count(2);
    bench.flusher.collect();
    assert!(!bench.flusher.store_all().await);
    assert_eq!(bench.metrics.usage_pending_rows.get(), 2);
    assert_eq!(bench.metrics.usage_last_flush.get(), 0);
    *bench.store.loses_answers.lock() = false;
    assert!(bench.flusher.store_all().await);
    assert_eq!(bench.hours(), [(7, 3)]);
    assert_eq!(bench.metrics.usage_flush_failures.get(), 2);
    assert_eq!(bench.metrics.usage_flushes.get(), 1);
    assert_eq!(bench.metrics.usage_pending_rows.get(), 0);
    let stored = bench.metrics.usage_last_flush.get();
    assert_eq!(stored, bench.clock.now().as_millis() / 1000);
    // Where nothing waits, everything is stored.
    bench.clock.advance(Duration::from_secs(10));
    assert!(bench.flusher.store_all().await);
    assert_eq!(bench.metrics.usage_last_flush.get(), stored + 10);
}

#[tokio::test]
async fn an_outage_loses_what_is_over_the_limit_and_nothing_else() {
    let bench = Bench::new(2);
    *bench.store.is_away.lock() = true;
    // A batch under way and a row fit, two more hours don't.
    for _ in 0..4 {
        bench.count(1);
        bench.flusher.collect();
        assert!(!bench.flusher.store_all().await);
        bench.clock.advance(Duration::from_secs(3600));
    }
    assert_eq!(bench.metrics.usage_rows_dropped.get(), 2);
    // Metrics need no store, and lose nothing.
    let shown = &bench.metrics.tenant_requests;
    assert_eq!(shown.with_label_values(&["acme", "ok"]).get(), 4);
    *bench.store.is_away.lock() = false;
    assert!(bench.flusher.store_all().await);
    assert_eq!(bench.hours(), [(7, 2)]);
    bench.count(5);
    bench.flusher.finish().await;
    assert_eq!(bench.hours(), [(7, 2), (10, 5)]);
}
