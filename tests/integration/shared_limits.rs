//! Limits that several instances share through Redis: exact to the token, and with one rule for what
//! happens while Redis is away.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use proptest::prelude::*;
use secrecy::SecretString;
use serde_json::json;
use sidekey::clock::SystemClock;
use sidekey::key::{KeyId, Policy, TenantId};
use sidekey::limit::bucket::Rate;
use sidekey::limit::lease::{Question, SHARE};
use sidekey::limit::memory::{Bucket, Buckets};
use sidekey::limit::redis::{Ask, RedisLimiter, SharedBuckets};
use sidekey::limit::{Decision, peek_all, take_all};
use sidekey::redis_link::{RedisLink, Target, Trust};
use sidekey::telemetry::Metrics;

use crate::harness::redis::Redis;
use crate::harness::sidekey::{Key, Sidekey, config};
use crate::harness::upstream::Upstream;
use crate::harness::{DEADLINE, HEAVY, HEAVY_MAX, eventually};

fn policy(name: &str, quota: u64, window_seconds: u64, burst: u64) -> Policy {
    Policy {
        name: name.to_owned(),
        quota,
        window_seconds,
        burst: Some(burst),
    }
}

fn buckets(policies: &[Policy], now_us: u64) -> Buckets {
    let policies = policies.iter().cloned().map(Arc::new);
    policies
        .map(|policy| Arc::new(Bucket::new(policy, now_us)))
        .collect()
}

/// One request of a trace: how much later, what it costs, how many more tokens it would take in
/// advance, and whether it only looks.
type Step = (u64, u64, u64, bool);

fn traces() -> impl Strategy<Value = (Vec<Policy>, Vec<Step>)> {
    let sound = (1u64..2000, 1u64..100_000, 1u64..500);
    let large = Just((1_000_000_000, 366 * 86_400, 200_000));
    let policy = prop_oneof![9 => sound, 1 => large];
    let policies = prop::collection::vec(policy, 1..4).prop_map(|list| {
        let named = list.into_iter().enumerate();
        named
            .map(|(n, (quota, window, burst))| policy_named(n, quota, window, burst))
            .collect()
    });
    let later = prop_oneof![Just(0u64), 0u64..3_000_000, 0u64..100_000_000_000];
    let extra = prop_oneof![Just(0u64), 0u64..100];
    let step = (later, 0u64..40, extra, prop::bool::weighted(0.1));
    (policies, prop::collection::vec(step, 1..40))
}

fn policy_named(number: usize, quota: u64, window: u64, burst: u64) -> Policy {
    policy(&format!("p{number}"), quota, window, burst)
}

/// What the pure buckets say to one step, and how many tokens more are taken.
fn expected(memory: &Buckets, (_, cost, extra, looks): Step, now_us: u64) -> (Decision, u64) {
    if looks {
        return (peek_all(memory, cost, now_us), 0);
    }
    let decision = take_all(memory, cost, now_us);
    if !decision.allowed {
        return (decision, 0);
    }
    let left = decision.readings.iter().map(|reading| reading.remaining);
    let extra = left.map(|left| left / SHARE).min().unwrap().min(extra);
    (take_all(memory, extra, now_us), extra)
}

/// The script and the pure bucket give the same answers on the same traces.
#[tokio::test(flavor = "multi_thread")]
async fn the_script_is_the_twin_of_the_bucket() {
    let redis = Redis::start().await;
    let limiter = RedisLimiter::new(
        RedisLink::new(&Target::new(&SecretString::from(redis.url()), &Trust::default()).unwrap()),
        Duration::from_secs(5),
        Duration::ZERO,
        Arc::new(SystemClock::new()),
        Arc::new(Metrics::new().unwrap()),
    );
    let tenant: TenantId = "acme".parse().unwrap();
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig {
        cases: 150,
        failure_persistence: None,
        ..ProptestConfig::default()
    });
    let handle = tokio::runtime::Handle::current();
    tokio::task::spawn_blocking(move || {
        let number = std::cell::Cell::new(0u64);
        runner
            .run(&traces(), |(policies, steps)| {
                number.set(number.get() + 1);
                let key: KeyId = format!("{:012}", number.get()).parse().unwrap();
                let mut now_us = 1_800_000_000_000_000u64;
                let memory = buckets(&policies, now_us);
                let policies: Vec<_> = policies.into_iter().map(Arc::new).collect();
                let rates: Vec<Rate> = policies.iter().map(|policy| Rate::new(policy)).collect();
                let shared = SharedBuckets::new(&tenant, key, &policies, &[]);
                for step in steps {
                    let (later, cost, extra, looks) = step;
                    now_us = now_us.saturating_add(later);
                    let (expected, expected_extra) = expected(&memory, step, now_us);
                    let ask = if looks { Ask::Peek } else { Ask::Take };
                    let question = Question { cost, extra };
                    let call = limiter.ask_at(&shared, question, ask, Some(now_us));
                    let answer = handle.block_on(call).unwrap();
                    prop_assert_eq!(answer.allowed, expected.allowed);
                    prop_assert_eq!(answer.extra, expected_extra);
                    let told = answer.told(&rates, cost, ask == Ask::Take);
                    prop_assert_eq!(told, expected);
                }
                Ok(())
            })
            .unwrap();
    })
    .await
    .unwrap();
    // Every bucket will be forgotten by itself: -1 would be one that is not, and -2 is one that just was.
    let redis::Value::Array(names) = redis.ask("KEYS", &["*"]).await.unwrap() else {
        panic!("a list");
    };
    assert!(!names.is_empty());
    for name in names {
        let redis::Value::BulkString(name) = name else {
            panic!("a name");
        };
        let name = String::from_utf8(name).unwrap();
        assert!(name.starts_with("sidekey:{acme}:"), "{name}");
        let left = redis.ask("PTTL", &[&name]).await.unwrap();
        assert!(
            matches!(left, redis::Value::Int(ms) if ms != -1),
            "{name}: {left:?}"
        );
    }
}

/// `count` instances with one store and one Redis, `more` in their configuration.
async fn instances(count: usize, upstream: &Upstream, redis: &Redis, more: &str) -> Fleet {
    let url = redis.url();
    fleet(count, upstream, &[("SIDEKEY__REDIS__URL", &url)], more).await
}

/// The same, with Redis as `redis` in the environment says.
pub async fn fleet(count: usize, upstream: &Upstream, redis: &[(&str, &str)], more: &str) -> Fleet {
    let directory = tempfile::tempdir().unwrap();
    let file = format!("sqlite://{}/keys.db", directory.path().display());
    let key_file = directory.path().join("admin.key").display().to_string();
    let config = config(upstream.address, more);
    let mut environment = vec![
        ("SIDEKEY__STORE__URL", file.as_str()),
        ("SIDEKEY__ADMIN__BOOTSTRAP_KEY_FILE", key_file.as_str()),
        ("SIDEKEY__LIMITS__BACKEND", "redis"),
        // A busy machine must not look like an outage.
        ("SIDEKEY__REDIS__TIMEOUT_MS", "5000"),
    ];
    environment.extend(redis);
    let starting = (0..count).map(|_| Sidekey::start_with(&config, &environment));
    let all = join_all(starting).await;
    let admin = std::fs::read_to_string(&key_file).unwrap();
    // Where the harness looks for it.
    for sidekey in &all {
        std::fs::create_dir_all(sidekey.directory().join("data")).unwrap();
        std::fs::write(sidekey.directory().join("data/admin.key"), &admin).unwrap();
    }
    Fleet {
        all,
        _directory: directory,
    }
}

pub struct Fleet {
    pub all: Vec<Sidekey>,
    _directory: tempfile::TempDir,
}

impl Fleet {
    pub async fn key(&self, policies: serde_json::Value) -> Key {
        let fields = json!({"rate_limits": policies});
        self.all[0].create_key(fields).await
    }

    /// Makes the key warm everywhere, for a token each.
    async fn warm(&self, key: &Key) {
        for sidekey in &self.all {
            assert_eq!(decided(sidekey, key).await, 200);
        }
    }
}

/// The status, where Redis has decided. On a machine that stands still for a moment it looks away, and then
/// everything is 503, by `limits.on_outage`.
pub async fn decided(sidekey: &Sidekey, key: &Key) -> u16 {
    let start = Instant::now();
    loop {
        let status = sidekey.status("/", &key.text).await;
        if status != 503 || start.elapsed() > DEADLINE {
            return status;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_token_left_and_fifty_requests_over_four_instances_is_one_pass() {
    let (upstream, redis) = (Upstream::start().await, Redis::start().await);
    let fleet = instances(4, &upstream, &redis, CLOSED).await;
    for _ in 0..3 {
        let one = json!([{"name": "one", "quota": 1, "window_seconds": 3600}]);
        let key = fleet.key(one).await;
        let calls = (0..50).map(|n| decided(&fleet.all[n % 4], &key));
        let statuses = join_all(calls).await;
        let passed = statuses.iter().filter(|status| **status == 200).count();
        assert_eq!(passed, 1, "{statuses:?}");
        assert!(
            statuses.iter().all(|s| matches!(s, 200 | 429)),
            "{statuses:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_denied_request_takes_nothing_and_every_instance_says_the_same() {
    let (upstream, redis) = (Upstream::start().await, Redis::start().await);
    let fleet = instances(2, &upstream, &redis, "").await;
    let policies = json!([
        {"name": "wide", "quota": 100, "window_seconds": 3600},
        {"name": "narrow", "quota": 1, "window_seconds": 3600},
    ]);
    let key = fleet.key(policies).await;
    let field = |answer: &reqwest::Response| {
        let field = answer.headers().get("ratelimit").unwrap();
        field.to_str().unwrap().to_owned()
    };
    let first = fleet.all[0].get("/", &key.text).await;
    assert_eq!(first.status(), 200);
    assert_eq!(field(&first), "\"wide\";r=99;t=3564, \"narrow\";r=0;t=3600");
    for sidekey in [&fleet.all[1], &fleet.all[0], &fleet.all[1]] {
        let refused = sidekey.get("/", &key.text).await;
        assert_eq!(refused.status(), 429);
        assert!(field(&refused).starts_with("\"wide\";r=99;t=3564"));
    }
}

const RATE: u64 = 40;
const BURST: u64 = 20;
/// How often a limit is tried until nearly all of it got through.
const RUNS_MAX: usize = 3;
const CLOSED: &str = "[limits]\non_outage = \"closed\"\n";
/// Every request asks Redis.
const UNLEASED: &str = "[limits]\non_outage = \"closed\"\nmax_lease_ms = 0\n";

/// More load than the limit allows on every instance; `meanwhile` happens during it, and may end
/// instances. When the limit is what holds it up, it goes on for `run_on`. What passed, and what should have.
async fn overload(
    fleet: &mut Fleet,
    (rate, burst): (u64, u64),
    run_on: Duration,
    meanwhile: impl AsyncFnOnce(&mut Fleet),
) -> (u64, f64) {
    let _quiet = HEAVY.acquire_many(HEAVY_MAX).await.expect("all turns");
    let key = fleet
        .key(json!([{"name": "p", "quota": rate, "window_seconds": 1, "burst": burst}]))
        .await;
    let start = Instant::now();
    fleet.warm(&key).await;
    let warm = Instant::now();
    let is_over = Arc::new(AtomicBool::new(false));
    let refused = Arc::new(AtomicU64::new(0));
    let load = |sidekey: &Sidekey| {
        let (client, url) = (sidekey.client.clone(), format!("http://{}/", sidekey.proxy));
        let (key, is_over, refused) = (key.text.clone(), is_over.clone(), refused.clone());
        tokio::spawn(async move {
            let mut passed = 0;
            while !is_over.load(Ordering::Relaxed) {
                // An instance that was ended gives none.
                let call = client.get(&url).bearer_auth(&key).send().await;
                let Ok(answer) = call else { return passed };
                match answer.status().as_u16() {
                    200 => passed += 1,
                    429 => {
                        refused.fetch_add(1, Ordering::Relaxed);
                        tokio::time::sleep(Duration::from_millis(2)).await;
                    }
                    503 => tokio::time::sleep(Duration::from_millis(20)).await,
                    other => panic!("{other}"),
                }
            }
            passed
        })
    };
    let mut passed = fleet.all.len() as u64;
    let loads: Vec<_> = (fleet.all.iter().chain(&fleet.all)).map(load).collect();
    meanwhile(fleet).await;
    let before = refused.load(Ordering::Relaxed);
    eventually("the bucket is empty", || async {
        refused.load(Ordering::Relaxed) > before
    })
    .await;
    tokio::time::sleep(run_on).await;
    is_over.store(true, Ordering::Relaxed);
    for load in loads {
        passed += load.await.unwrap();
    }
    let after = |begin: Instant| burst as f64 + rate as f64 * begin.elapsed().as_secs_f64();
    // While the key was used for the first time, which may take long, nothing flowed into a full bucket.
    let due = after(warm);
    let most = after(start);
    assert!((passed as f64) <= most, "{passed} of at most {most:.1}");
    (passed, due)
}

/// Never a token too many, and nearly all of them: for a key that is called now and then, and for one
/// for which instances take tokens in advance.
#[tokio::test(flavor = "multi_thread")]
async fn four_instances_let_through_what_one_limit_allows() {
    let (upstream, redis) = (Upstream::start().await, Redis::start().await);
    // A machine that stands still for longer than a bucket takes to fill loses tokens, whoever counts them: here
    // that is some seconds.
    for (more, limit) in [
        (CLOSED, (RATE, 5 * RATE)),
        (CLOSED, (200, 800)),
        (UNLEASED, (RATE, 5 * RATE)),
    ] {
        let mut fleet = instances(4, &upstream, &redis, more).await;
        let run_on = Duration::from_secs(4);
        let mut shares = Vec::new();
        while shares.len() < RUNS_MAX && shares.iter().all(|share| *share < 0.95) {
            let (passed, due) = overload(&mut fleet, limit, run_on, async |_| {}).await;
            shares.push(passed as f64 / due);
        }
        assert!(
            shares.iter().any(|share| *share >= 0.95),
            "{limit:?} {more}: {shares:?}"
        );
    }
}

/// The same while the script's cache is emptied and Redis is restarted.
#[tokio::test(flavor = "multi_thread")]
async fn a_restart_of_redis_lets_no_token_too_many_through() {
    let (upstream, mut redis) = (Upstream::start().await, Redis::start().await);
    for more in [CLOSED, UNLEASED] {
        let mut fleet = instances(4, &upstream, &redis, more).await;
        let mut runs = Vec::new();
        // A machine may stand still for longer than the bucket takes to fill.
        while runs.len() < RUNS_MAX && runs.iter().all(|(passed, _)| *passed < RATE * 3) {
            let meanwhile = async |fleet: &mut Fleet| {
                tokio::time::sleep(Duration::from_secs(1)).await;
                redis.ask("SCRIPT", &["FLUSH"]).await.unwrap();
                tokio::time::sleep(Duration::from_secs(1)).await;
                redis.kill();
                redis.launch().await;
                for sidekey in &fleet.all {
                    eventually("Redis is used again", || async {
                        sidekey.metric("sidekey_redis_up").await == 1.0
                    })
                    .await;
                }
            };
            let run_on = Duration::from_secs(3);
            runs.push(overload(&mut fleet, (RATE, BURST), run_on, meanwhile).await);
        }
        // What nobody could take meanwhile fills the bucket up to its burst, and no further.
        assert!(
            runs.iter().any(|(passed, _)| *passed >= RATE * 3),
            "{runs:?}"
        );
    }
}

/// An instance that is killed while it holds tokens takes them with it: the others get what is left,
/// and not one more.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_instance_held_lets_no_token_too_many_through() {
    let (upstream, redis) = (Upstream::start().await, Redis::start().await);
    let long = "[limits]\non_outage = \"closed\"\nmax_lease_ms = 500\n";
    let mut shares = Vec::new();
    while shares.len() < RUNS_MAX && shares.iter().all(|share| *share < 0.9) {
        let mut fleet = instances(4, &upstream, &redis, long).await;
        let meanwhile = async |fleet: &mut Fleet| {
            for _ in 0..2 {
                let victim = &fleet.all[0];
                eventually("it holds a lease", || async {
                    victim.metric("sidekey_limit_leases").await > 0.0
                })
                .await;
                fleet.all.remove(0).kill();
            }
        };
        // What two instances hold is at most a twentieth of it.
        let run_on = Duration::from_secs(8);
        let (passed, due) = overload(&mut fleet, (200, 200), run_on, meanwhile).await;
        shares.push(passed as f64 / due);
    }
    assert!(shares.iter().any(|share| *share >= 0.9), "{shares:?}");
}

/// How often Redis is asked for a busy key, and that what was taken in advance goes back.
#[tokio::test(flavor = "multi_thread")]
async fn a_busy_key_rarely_asks_redis_and_gives_back_what_it_does_not_use() {
    let (upstream, redis) = (Upstream::start().await, Redis::start().await);
    let limit = json!([{"name": "p", "quota": 1, "window_seconds": 3600, "burst": 100_000}]);
    // Longer than a machine stands still: a lease that ends early has to grow again.
    for (max_lease_ms, most_calls) in [(10_000, 40), (0, 2000)] {
        let more = format!("[limits]\nmax_lease_ms = {max_lease_ms}\n");
        let fleet = instances(1, &upstream, &redis, &more).await;
        let (sidekey, key) = (&fleet.all[0], fleet.key(limit.clone()).await);
        let calls = async || sidekey.metric("sidekey_redis_calls_total").await as u64;
        let callers = (0..10).map(|_| async {
            for _ in 0..200 {
                assert_eq!(sidekey.status("/", &key.text).await, 200);
            }
        });
        join_all(callers).await;
        let asked = calls().await;
        assert!(asked <= most_calls, "{asked} calls for 2,000 requests");
        if max_lease_ms == 0 {
            assert_eq!(asked, 2000);
        } else {
            eventually("what is left has gone back", || async {
                sidekey.metric("sidekey_limit_leases").await == 0.0
            })
            .await;
        }
        let bucket = format!("sidekey:{{acme}}:{}:p", key.id);
        let tokens = async |field| {
            let value = redis.ask("HGET", &[&bucket, field]).await.unwrap();
            let redis::Value::BulkString(text) = value else {
                panic!("{value:?}")
            };
            String::from_utf8(text).unwrap().parse::<u64>().unwrap()
        };
        let left = tokens("level").await / tokens("token").await;
        assert_eq!(left, 98_000);
    }
}

/// Killed, or hanging: each route does what it says, at once, and all is well afterwards.
#[tokio::test(flavor = "multi_thread")]
async fn while_redis_is_away_each_route_does_what_it_says() {
    let (upstream, mut redis) = (Upstream::start().await, Redis::start().await);
    let routes: String = ["open", "closed"]
        .map(|way| {
            format!(
                "[[routes]]\nname = \"{way}\"\npath = \"/{way}\"\nupstream = \"service\"\non_outage = \"{way}\"\n"
            )
        })
        .concat();
    let more = format!("{routes}[limits]\ninstances = 4\n");
    let fleet = instances(1, &upstream, &redis, &more).await;
    let sidekey = &fleet.all[0];
    for way in ["killed", "hanging"] {
        let limits = json!([{"name": "p", "quota": 40, "window_seconds": 3600}]);
        let key = fleet.key(limits).await;
        assert_eq!(sidekey.status("/", &key.text).await, 200, "{way}");
        if way == "killed" {
            redis.kill();
        } else {
            redis.signal("STOP");
        }
        let mut local = Vec::new();
        for _ in 0..12 {
            local.push(sidekey.status("/", &key.text).await);
        }
        let passed = local.iter().filter(|status| **status == 200).count();
        assert_eq!(passed, 10, "a quarter of 40, {way}: {local:?}");
        for _ in 0..3 {
            let open = sidekey.get("/open", &key.text).await;
            assert_eq!(open.status(), 200, "{way}");
            let closed = sidekey.get("/closed", &key.text).await;
            assert_eq!(closed.status(), 503, "{way}");
            assert!(closed.headers().contains_key("retry-after"), "{way}");
        }
        assert_eq!(sidekey.metric("sidekey_redis_up").await, 0.0, "{way}");
        let open = sidekey.metric("sidekey_breaker_open{dependency=\"redis\"}");
        assert_eq!(open.await, 1.0, "{way}");
        if way == "killed" {
            redis.launch().await;
        } else {
            redis.signal("CONT");
        }
        eventually("the metric tells, though nobody asks", || async {
            sidekey.metric("sidekey_redis_up").await == 1.0
        })
        .await;
        eventually("limits are shared again", || async {
            sidekey.status("/closed", &key.text).await == 200
        })
        .await;
    }
}
