//! How long a revocation takes until the last of four instances refuses the key, while all of them serve
//! other requests: with Redis, and by polling alone. Instances, PostgreSQL, Redis and callers share this
//! machine's CPUs.
//!
//! Targets: the 99th percentile of 200 revocations is at most 100 ms with Redis, at most
//! `store.poll_interval_ms` and 100 ms without. `cargo bench --bench cluster` prints the figures; it exits
//! 0 whether or not the targets are met.

// A bench measures real time; it serves nobody.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::expect_used
)]

#[allow(dead_code, unused_imports)]
#[path = "../../tests/integration/harness/mod.rs"]
mod harness;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use serde_json::json;

use harness::fleet::{Fleet, HARDLY_EVER, time_to_refusal};
use harness::postgres::Postgres;
use harness::redis::Redis;

const REVOCATIONS: usize = 200;
/// Keys that are made at the same time: no more than the bcrypt queues hold.
const MADE_AT_ONCE: usize = 8;
/// What each caller waits between two requests.
const PAUSE: Duration = Duration::from_millis(2);
/// The default of `store.poll_interval_ms`.
const POLL: Duration = Duration::from_millis(250);
const BOUND: Duration = Duration::from_millis(100);

#[tokio::main]
async fn main() {
    if !std::env::args().any(|argument| argument == "--bench") {
        // `cargo test --all-targets` runs benches too, without this flag.
        println!("nothing measured: run `cargo bench --bench cluster`");
        return;
    }
    let (postgres, redis) = (Postgres::start().await, Redis::start().await);
    let fleet = Fleet::start(4, &postgres.url(), Some(&redis), HARDLY_EVER).await;
    measure(&fleet, 1, "with Redis", BOUND).await;
    drop((fleet, postgres, redis));
    let postgres = Postgres::start().await;
    let fleet = Fleet::start(4, &postgres.url(), None, "").await;
    measure(&fleet, 2, "by polling every 250 ms", POLL + BOUND).await;
}

/// Revokes keys, `at_once` at the same time, while every instance serves others.
async fn measure(fleet: &Fleet, at_once: usize, what: &str, bound: Duration) {
    let limit = json!([{"name": "wide", "quota": 1_000_000, "window_seconds": 1}]);
    let busy = fleet.all[0].create_key(json!({"rate_limits": limit})).await;
    let mut keys = Vec::new();
    while keys.len() < REVOCATIONS {
        keys.extend(join_all((0..MADE_AT_ONCE).map(|_| fleet.key())).await);
    }
    let is_over = Arc::new(AtomicBool::new(false));
    let callers: Vec<_> = (fleet.all.iter().chain(&fleet.all))
        .map(|sidekey| {
            let (client, url) = (sidekey.client.clone(), format!("http://{}/", sidekey.proxy));
            let (key, is_over) = (busy.text.clone(), is_over.clone());
            tokio::spawn(async move {
                let mut served = 0;
                while !is_over.load(Ordering::Relaxed) {
                    let answer = client.get(&url).bearer_auth(&key).send().await;
                    assert_eq!(answer.expect("an answer").status(), 200);
                    served += 1;
                    tokio::time::sleep(PAUSE).await;
                }
                served
            })
        })
        .collect();
    let mut times = Vec::new();
    for keys in keys.chunks(at_once) {
        times.extend(join_all(keys.iter().map(|key| time_to_refusal(fleet, key))).await);
    }
    is_over.store(true, Ordering::Relaxed);
    let mut served = 0;
    for caller in callers {
        served += caller.await.expect("a caller");
    }
    times.sort();
    let (median, p99) = (times[times.len() / 2], times[times.len() * 99 / 100 - 1]);
    let verdict = if p99 <= bound { "met" } else { "MISSED" };
    println!(
        "revocation until the last instance refuses, {what}: {} of them, {served} other requests meanwhile: \
         median {median:.1?}, p99 {p99:.1?} (at most {bound:.0?}: {verdict}), most {:.1?}",
        times.len(),
        times[times.len() - 1]
    );
}
