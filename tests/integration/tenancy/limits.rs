//! Limits that all keys of a tenant share, in one instance's memory and in Redis.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde_json::{Value, json};

use super::{PATIENT, put, set};
use crate::harness::redis::Redis;
use crate::harness::sidekey::{Key, Sidekey, config};
use crate::harness::upstream::Upstream;
use crate::harness::{HEAVY, HEAVY_MAX, eventually};
use crate::shared_limits::{Fleet, fleet};

const HOUR: u64 = 3600;

fn limit(name: &str, quota: u64, window_seconds: u64, burst: u64) -> Value {
    json!([{"name": name, "quota": quota, "window_seconds": window_seconds, "burst": burst}])
}

/// The rate-limit fields' numbers of tokens left, in their order.
fn left(answer: &reqwest::Response) -> Vec<u64> {
    let field = answer.headers()["ratelimit"].to_str().unwrap();
    let members = field.split(", ");
    members
        .map(|member| {
            let rest = member.split_once(";r=").unwrap().1;
            rest.split(';').next().unwrap().parse().unwrap()
        })
        .collect()
}

/// Two keys with limits of their own and one in common.
async fn exercise(sidekeys: &[Sidekey]) {
    let first = &sidekeys[0];
    let last = &sidekeys[sidekeys.len() - 1];
    put(
        first,
        "acme",
        json!({"rate_limits": limit("all", 5, HOUR, 5)}),
    )
    .await;
    let own = json!({"rate_limits": limit("own", 4, HOUR, 4)});
    let [a, b] = [
        first.create_key(own.clone()).await,
        first.create_key(own).await,
    ];
    let answer = first.get("/", &a.text).await;
    let headers = answer.headers();
    assert_eq!(
        headers["ratelimit-policy"].to_str().unwrap(),
        "\"own\";q=4;w=3600, \"tenant:all\";q=5;w=3600"
    );
    assert_eq!((answer.status().as_u16(), left(&answer)), (200, vec![3, 4]));
    assert_eq!(headers["x-ratelimit-remaining"], "3");
    for (sidekey, key, expected) in [
        (last, &b, vec![3, 3]),
        (first, &b, vec![2, 2]),
        (last, &a, vec![2, 1]),
        (first, &b, vec![1, 0]),
    ] {
        let answer = sidekey.get("/", &key.text).await;
        assert_eq!((answer.status().as_u16(), left(&answer)), (200, expected));
    }
    // The tenant's bucket is empty: that is said, and the key's own tokens stay.
    for sidekey in [first, last, first] {
        let refused = sidekey.get("/", &a.text).await;
        assert_eq!(
            (refused.status().as_u16(), left(&refused)),
            (429, vec![2, 0])
        );
        assert_eq!(refused.headers()["x-ratelimit-remaining"], "0");
        let problem: Value = refused.json().await.unwrap();
        assert_eq!(problem["violated-policies"], json!(["tenant:all"]));
    }
    // A higher limit gives no second burst, none gives the key's own.
    put(
        first,
        "acme",
        json!({"rate_limits": limit("all", 100, HOUR, 100)}),
    )
    .await;
    for sidekey in [first, last] {
        assert_eq!(sidekey.status("/", &b.text).await, 429);
    }
    put(first, "acme", json!({})).await;
    let answer = last.get("/", &a.text).await;
    assert_eq!((answer.status().as_u16(), left(&answer)), (200, vec![1]));
    // A suspended tenant's keys take nothing.
    set(first, "acme", "suspend").await;
    assert_eq!(last.status("/", &a.text).await, 401);
    set(first, "acme", "resume").await;
    assert_eq!(left(&first.get("/", &a.text).await), [0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_share_their_tenants_limit_in_memory() {
    let upstream = Upstream::start().await;
    let sidekey = Sidekey::start(&config(upstream.address, "")).await;
    exercise(std::slice::from_ref(&sidekey)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_share_their_tenants_limit_over_instances() {
    let (upstream, redis) = (Upstream::start().await, Redis::start().await);
    let url = redis.url();
    let fleet = fleet(2, &upstream, &[("SIDEKEY__REDIS__URL", &url)], PATIENT).await;
    exercise(&fleet.all).await;
}

/// A route that costs more than the tenant's bucket ever holds says so.
#[tokio::test(flavor = "multi_thread")]
async fn a_cost_above_the_tenants_burst_is_told() {
    let upstream = Upstream::start().await;
    let dear = "[[routes]]\nname = \"dear\"\npath = \"/dear\"\nupstream = \"service\"\ncost = 10\n";
    let sidekey = Sidekey::start(&config(upstream.address, dear)).await;
    put(
        &sidekey,
        "acme",
        json!({"rate_limits": limit("all", 5, HOUR, 5)}),
    )
    .await;
    let key = sidekey.create_key(json!({"rate_limits": []})).await;
    let refused = sidekey.get("/dear", &key.text).await;
    assert_eq!(refused.status(), 429);
    assert_eq!(refused.headers()["retry-after"], "3600");
    assert_eq!(left(&refused), [5]);
    let problem: Value = refused.json().await.unwrap();
    assert_eq!(problem["violated-policies"], json!(["tenant:all"]));
    let detail = problem["detail"].as_str().unwrap();
    assert!(
        detail.contains("tenant:all never holds more than 5"),
        "{detail}"
    );
    assert_eq!(sidekey.status("/", &key.text).await, 200);
}

const RATE: u64 = 200;
const BURST: u64 = 100;
const KEYS_OF_TENANT: usize = 12;
const RUN_FOR: Duration = Duration::from_secs(4);
/// How often the limit is tried until most of it got through.
const RUNS_MAX: usize = 3;

/// What passes of far more than the tenant's limit, sent with many keys to all instances; and what
/// could at most.
async fn overload(fleet: &Fleet, keys: &[Key]) -> (u64, f64) {
    let _quiet = HEAVY.acquire_many(HEAVY_MAX).await.expect("all turns");
    let (start, passed) = (Instant::now(), AtomicU64::new(0));
    let loads = keys.iter().enumerate().flat_map(|(number, key)| {
        let (passed, instances) = (&passed, &fleet.all);
        (0..2).map(move |turn| async move {
            let sidekey = &instances[(number + turn) % instances.len()];
            while start.elapsed() < RUN_FOR {
                match sidekey.status("/", &key.text).await {
                    200 => drop(passed.fetch_add(1, Ordering::Relaxed)),
                    429 => tokio::time::sleep(Duration::from_millis(2)).await,
                    503 => tokio::time::sleep(Duration::from_millis(20)).await,
                    other => panic!("{other}"),
                }
            }
        })
    });
    join_all(loads).await;
    let most = BURST as f64 + RATE as f64 * start.elapsed().as_secs_f64();
    (passed.into_inner(), most)
}

/// Many keys that each take tokens in advance from the one bucket of their tenant: never a token too
/// many, and most of them.
#[tokio::test(flavor = "multi_thread")]
async fn many_keys_let_through_what_their_tenants_limit_allows() {
    let (upstream, redis) = (Upstream::start().await, Redis::start().await);
    let url = redis.url();
    for max_lease_ms in [50, 0] {
        redis.ask("FLUSHALL", &[]).await.unwrap();
        let more =
            format!("{PATIENT}[limits]\non_outage = \"closed\"\nmax_lease_ms = {max_lease_ms}\n");
        let fleet = fleet(2, &upstream, &[("SIDEKEY__REDIS__URL", &url)], &more).await;
        let mut keys = Vec::new();
        for _ in 0..KEYS_OF_TENANT {
            keys.push(fleet.key(json!([])).await);
        }
        for sidekey in &fleet.all {
            for key in &keys {
                assert_eq!(sidekey.status("/", &key.text).await, 200);
            }
        }
        let body = json!({"rate_limits": limit("all", RATE, 1, BURST)});
        let reply = put(&fleet.all[0], "acme", body).await;
        assert_eq!(reply.json()["propagation"]["confirmed"], 2, "{reply:?}");
        let mut shares = Vec::new();
        // A machine that stands still for longer than the bucket takes to fill loses tokens, whoever counts them.
        while shares.len() < RUNS_MAX && shares.iter().all(|share| *share < 0.8) {
            let (passed, most) = overload(&fleet, &keys).await;
            assert!(passed as f64 <= most, "{passed} of at most {most:.1}");
            shares.push(passed as f64 / most);
            // What was held in advance goes back, and then the bucket fills and is forgotten.
            for sidekey in &fleet.all {
                eventually("nothing is held", || async {
                    sidekey.metric("sidekey_limit_leases").await == 0.0
                })
                .await;
            }
        }
        assert!(shares.iter().any(|share| *share >= 0.8), "{shares:?}");
    }
}

/// While Redis is away, the keys of a tenant share its part that this instance may give.
#[tokio::test(flavor = "multi_thread")]
async fn without_redis_the_keys_share_this_instances_part() {
    let (upstream, mut redis) = (Upstream::start().await, Redis::start().await);
    let url = redis.url();
    let more = "[limits]\ninstances = 4\n";
    let fleet = fleet(1, &upstream, &[("SIDEKEY__REDIS__URL", &url)], more).await;
    let sidekey = &fleet.all[0];
    let body = json!({"rate_limits": limit("all", 40, HOUR, 40)});
    put(sidekey, "acme", body).await;
    let mut keys = Vec::new();
    for _ in 0..4 {
        let key = fleet.key(json!([])).await;
        assert_eq!(sidekey.status("/", &key.text).await, 200);
        keys.push(key);
    }
    redis.kill();
    let calls = (0..24).map(|n| sidekey.status("/", &keys[n % 4].text));
    let statuses = join_all(calls).await;
    let passed = statuses.iter().filter(|status| **status == 200).count();
    assert_eq!(passed, 10, "a quarter of 40: {statuses:?}");
}
