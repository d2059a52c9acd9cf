//! How long it takes until the usage of many active keys is stored: taken out of live keys, and written
//! in batches, each a transaction of its own.

use std::sync::Arc;
use std::time::{Duration, Instant};

use sidekey::clock::{Clock, SystemClock, Timestamp};
use sidekey::key::record::{CredentialKind, KeyOrigin};
use sidekey::key::record::{ROTATION_DAYS_DEFAULT, Standing};
use sidekey::key::{Catalogue, Environment, Generation, KeyRecord};
use sidekey::store::SqlStore;
use sidekey::telemetry::Metrics;
use sidekey::usage::flush::Parts;
use sidekey::usage::{Ending, Flusher, LastUse, Request};
use sidekey::verify::{LiveKey, LiveKeys, ViewBuilder};

/// Keys of one tenant.
const TENANT_KEYS: usize = 100;

fn record(n: usize) -> KeyRecord {
    let at = Timestamp::from_millis(1_000);
    KeyRecord {
        origin: KeyOrigin::Minted,
        credential: CredentialKind::Key,
        // Neighbours are not made one after the other.
        id: format!("{:012}", (n as u64 * 387_420_489) % 1_000_000_007)
            .parse()
            .expect("an id"),
        tenant_id: format!("t{}", n / TENANT_KEYS).parse().expect("a tenant"),
        name: format!("Key {n}"),
        environment: Environment::Live,
        hint: String::new(),
        scopes: vec![],
        rate_limits: None,
        allowed_ips: vec![],
        contact_email: None,
        rotation_days: ROTATION_DAYS_DEFAULT,
        metadata: serde_json::Map::new(),
        standing: Standing::Active,
        created_at: at,
        updated_at: at,
        expires_at: None,
        revoked_at: None,
        secret_created_at: at,
        generation: Generation::FIRST,
        previous: None,
        revision: 1,
    }
}

fn call_each(keys: &[Arc<LiveKey>], clock: &SystemClock) {
    let request = Request {
        ending: Ending::Plain,
        bytes_in: 100,
        bytes_out: 1_000,
        latency_us: 500,
    };
    let last = LastUse {
        at: clock.now(),
        address: "192.0.2.1".parse().expect("an address"),
    };
    for key in keys {
        key.count(&request, Generation::FIRST, last);
    }
}

/// Stores the usage of `count` keys `times` times; how long each took. The first makes all rows, as the
/// first of each hour does.
pub async fn flush(store: &SqlStore, count: usize, times: usize) -> Vec<Duration> {
    let clock = Arc::new(SystemClock::new());
    let live = LiveKeys::new(
        ViewBuilder::new(Catalogue::new(vec![]), vec![]),
        clock.clone(),
    );
    let keys: Vec<Arc<LiveKey>> = (0..count)
        .map(record)
        .map(|record| live.begin_load(record.id).finish(record))
        .collect();
    let metrics = Arc::new(Metrics::new().expect("metrics"));
    let flusher = Flusher::new(Parts {
        source: live,
        store: Arc::new(store.clone()),
        instance: "bench".into(),
        interval: Duration::from_secs(10),
        rows_max: count,
        shown_tenants_max: 50,
        clock: clock.clone(),
        metrics: metrics.clone(),
    });
    let mut all = Vec::new();
    for _ in 0..times {
        call_each(&keys, &clock);
        let start = Instant::now();
        flusher.collect();
        assert!(flusher.store_all().await, "all is stored");
        all.push(start.elapsed());
    }
    assert_eq!(metrics.usage_rows_dropped.get(), 0);
    all
}
