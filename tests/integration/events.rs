//! Changes reach every instance: at once through Redis, by polling without it or while it is away, and
//! answers say who has confirmed them.

use std::time::{Duration, Instant};

use futures_util::StreamExt;
use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::api::Reply;
use crate::harness::eventually;
use crate::harness::fleet::{FIELD, Fleet, HARDLY_EVER, all_of, revoke, time_to_refusal};
use crate::harness::postgres::Postgres;
use crate::harness::redis::Redis;
use crate::harness::sidekey::{KEYS, Key, Sidekey};

/// What an answer may take beyond `propagation_wait_ms`.
const MARGIN: Duration = Duration::from_secs(1);
/// A busy machine may hold up an answer for longer: so often it may try to be in time.
const TRIES: usize = 5;
/// For tests that want to hear that all have confirmed: a busy machine needs more than the default.
const PATIENT: &str = "[store]\npropagation_wait_ms = 10000\n";
const PATIENT_WAIT: Duration = Duration::from_secs(10);
/// So short that an instance which hangs counts as live all the while.
const BRIEF: &str = "[store]\npropagation_wait_ms = 5000\n";
const BRIEF_WAIT: Duration = Duration::from_secs(5);

/// How long a revocation takes, and what its answer says.
async fn timed_revocation(sidekey: &Sidekey, key: &Key) -> (Duration, String) {
    let start = Instant::now();
    let reply = revoke(sidekey, key).await;
    let took = start.elapsed();
    (took, reply.header(FIELD).unwrap_or_default().to_owned())
}

/// The quickest of some revocations of new keys, all of which are answered with `field`.
async fn quickest_revocation(sidekey: &Sidekey, field: &str) -> Duration {
    let mut quickest = Duration::MAX;
    for _ in 0..TRIES {
        let key = sidekey.create_key(json!({"rate_limits": []})).await;
        let (took, told) = timed_revocation(sidekey, &key).await;
        assert_eq!(told, field);
        quickest = quickest.min(took);
        if quickest < MARGIN {
            break;
        }
    }
    quickest
}

async fn change(sidekey: &Sidekey, key: &Key, fields: Value) -> Reply {
    let path = format!("{KEYS}/{}", key.id);
    let reply = sidekey.ask(Method::PATCH, &path, Some(&fields)).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    reply
}

/// How long it takes is measured by `cargo bench --bench cluster`.
#[tokio::test(flavor = "multi_thread")]
async fn a_revocation_is_everywhere_soon() {
    let (postgres, redis) = (Postgres::start().await, Redis::start().await);
    // Nothing but an event can bring it in time.
    let with_redis = Fleet::start(4, &postgres.url(), Some(&redis), HARDLY_EVER).await;
    for _ in 0..20 {
        let key = with_redis.key().await;
        time_to_refusal(&with_redis, &key).await;
    }
    drop(with_redis);
    let postgres = Postgres::start().await;
    let without = Fleet::start(4, &postgres.url(), None, "").await;
    for _ in 0..5 {
        let key = without.key().await;
        time_to_refusal(&without, &key).await;
    }
}

/// Nothing but events can bring these in time, and their answers say that all have confirmed.
#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_change_is_announced_and_no_message_holds_a_secret() {
    let (postgres, redis) = (Postgres::start().await, Redis::start().await);
    let more = format!("{HARDLY_EVER}propagation_wait_ms = 10000\n");
    let fleet = Fleet::start(4, &postgres.url(), Some(&redis), &more).await;
    let client = redis::Client::open(redis.url()).unwrap();
    let mut pubsub = client.get_async_pubsub().await.unwrap();
    pubsub.psubscribe("*").await.unwrap();
    let [a, b, ..] = &fleet.all[..] else {
        panic!("four");
    };

    // What takes more than one try is told more than once.
    let tries_before = failed_tries(&fleet).await;
    let applied = "sidekey_changes_applied_total";
    let applied_before = b.metric(applied).await;
    let key = a.create_key(json!({})).await;
    fleet.expect_at_once(&key, 200).await;
    // Otherwise the word of the next change might stand for both.
    eventually("the creation is heard of", || async {
        b.metric(applied).await > applied_before
    })
    .await;
    let off = change(a, &key, json!({"status": "disabled"})).await;
    assert_eq!(off.header(FIELD), Some(&*all_of(4)));
    let told = &off.json()["propagation"];
    assert_eq!(
        (&told["instances"], &told["confirmed"], &told["unconfirmed"]),
        (&json!(4), &json!(4), &json!([]))
    );
    let waited = Duration::from_millis(told["waited_ms"].as_u64().unwrap());
    assert!(waited <= PATIENT_WAIT, "{told}");
    // Confirmed is done.
    fleet.expect_at_once(&key, 401).await;
    change(b, &key, json!({"status": "active"})).await;
    fleet.expect_at_once(&key, 200).await;

    let path = format!("{KEYS}/{}/regenerate", key.id);
    let reply = b.ask(Method::POST, &path, Some(&json!({}))).await;
    assert_eq!(reply.header(FIELD), Some(&*all_of(4)));
    fleet.expect_at_once(&key, 401).await;
    let new = Key {
        id: key.id.clone(),
        text: reply.json()["key"].as_str().unwrap().to_owned(),
    };
    fleet.expect_at_once(&new, 200).await;
    assert_eq!(revoke(a, &new).await.header(FIELD), Some(&*all_of(4)));
    fleet.expect_at_once(&new, 401).await;
    assert_eq!(revoke(b, &new).await.header(FIELD), Some(&*all_of(4)));
    assert_eq!(a.metric("sidekey_instances").await, 4.0);

    redis.ask("PUBLISH", &["over", "over"]).await.unwrap();
    let mut messages = pubsub.on_message();
    let mut count = 0;
    loop {
        let message = messages.next().await.unwrap();
        let text: String = message.get_payload().unwrap();
        if message.get_channel_name() == "over" {
            break;
        }
        count += 1;
        assert_eq!(message.get_channel_name(), "sidekey:changes");
        assert!(text.len() == 12 && text.bytes().all(|b| b.is_ascii_alphanumeric()));
        assert!(!key.text.contains(&text) && !new.text.contains(&text));
    }
    let again = failed_tries(&fleet).await - tries_before;
    assert!((5..=6 + again).contains(&count), "{count} messages");
}

/// How often changes could not be told at the first try, at all instances together.
async fn failed_tries(fleet: &Fleet) -> u64 {
    let mut all = 0;
    for sidekey in &fleet.all {
        all += sidekey.metric("sidekey_events_failed_total").await as u64;
    }
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_that_hangs_is_named_and_refuses_when_it_goes_on() {
    let redis = Redis::start().await;
    for redis in [Some(&redis), None] {
        let postgres = Postgres::start().await;
        let fleet = Fleet::start(4, &postgres.url(), redis, BRIEF).await;
        let named = "instances=4, confirmed=3, unconfirmed=(\"four\")";
        let wait = BRIEF_WAIT..BRIEF_WAIT + MARGIN;
        let mut tries = 1;
        let key = loop {
            let key = fleet.key().await;
            fleet.all[3].signal("STOP");
            let (took, field) = timed_revocation(&fleet.all[0], &key).await;
            if wait.contains(&took) && field == named {
                break key;
            }
            assert!(tries < TRIES, "{took:?}, {field}");
            tries += 1;
            fleet.all[3].signal("CONT");
            fleet.settle(redis.is_some()).await;
        };
        let late = fleet.all[0]
            .metric("sidekey_propagation_unconfirmed_total")
            .await;
        assert!(late >= 1.0);
        fleet.all[3].signal("CONT");
        let start = Instant::now();
        fleet.expect(&key, 401).await;
        println!("refused {:.1?} after it went on", start.elapsed());
        eventually("all confirm again", || async {
            revoke(&fleet.all[0], &key).await.header(FIELD) == Some(&*all_of(4))
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn while_redis_is_away_changes_arrive_by_polling_and_no_answer_waits() {
    let (postgres, mut redis) = (Postgres::start().await, Redis::start().await);
    let fleet = Fleet::start(3, &postgres.url(), Some(&redis), PATIENT).await;
    for way in ["killed", "hanging"] {
        let keys = [fleet.key().await, fleet.key().await];
        if way == "killed" {
            redis.kill();
        } else {
            redis.signal("STOP");
        }
        for key in &keys {
            let (took, field) = timed_revocation(&fleet.all[0], key).await;
            assert_eq!(field, all_of(3), "{way}");
            assert!(took < PATIENT_WAIT + MARGIN, "{way}: {took:?}");
            fleet.expect_at_once(key, 401).await;
        }
        for sidekey in &fleet.all {
            eventually("the metric tells", || async {
                sidekey.metric("sidekey_events_connected").await == 0.0
            })
            .await;
        }
        if way == "killed" {
            redis.launch().await;
        } else {
            redis.signal("CONT");
        }
        fleet.settle(true).await;
    }
}

/// What was changed while Redis was away is found when it is back, and events work again.
#[tokio::test(flavor = "multi_thread")]
async fn when_redis_is_back_so_are_events() {
    let (postgres, mut redis) = (Postgres::start().await, Redis::start().await);
    let fleet = Fleet::start(2, &postgres.url(), Some(&redis), HARDLY_EVER).await;
    let second = fleet.key().await;
    redis.kill();
    let mut tries = 1;
    let first = loop {
        let first = fleet.key().await;
        let (_, field) = timed_revocation(&fleet.all[0], &first).await;
        assert_eq!(fleet.all[0].status("/", &first.text).await, 401);
        let of_two = fleet.all[1].status("/", &first.text).await;
        if field == "instances=2, confirmed=1, unconfirmed=(\"two\")" && of_two == 200 {
            break first;
        }
        // The look that an earlier word led to came late enough to find it.
        assert!(tries < TRIES, "{field}, and two says {of_two}");
        tries += 1;
    };
    redis.launch().await;
    fleet.expect(&first, 401).await;
    fleet.settle(true).await;
    revoke(&fleet.all[0], &second).await;
    fleet.expect(&second, 401).await;
}

/// Several instances on one file, without Redis; those that come and go.
#[tokio::test(flavor = "multi_thread")]
async fn answers_count_the_instances_that_there_are() {
    let directory = tempfile::tempdir().unwrap();
    let store = format!("sqlite://{}/keys.db", directory.path().display());
    let alone = Fleet::start(1, &store, None, "").await;
    let took = quickest_revocation(&alone.all[0], &all_of(1)).await;
    assert!(took < MARGIN, "{took:?}");
    drop(alone);
    std::fs::remove_dir_all(directory.path()).unwrap();

    let mut fleet = Fleet::start(3, &store, None, PATIENT).await;
    let key = fleet.key().await;
    let reply = change(&fleet.all[2], &key, json!({"status": "disabled"})).await;
    assert_eq!(reply.header(FIELD), Some(&*all_of(3)));
    fleet.expect_at_once(&key, 401).await;

    // One says that it ends, for which it has half a second.
    let mut last = fleet.all.pop().unwrap();
    for _ in 0..TRIES {
        last.signal("TERM");
        assert!(last.wait().success());
        if revoke(&fleet.all[0], &key).await.header(FIELD) == Some(&*all_of(2)) {
            break;
        }
        eventually("it could not say so", || async {
            last.output().contains("can't be told that this one ends")
        })
        .await;
        last = last.restart().await;
        eventually("what it was before is forgotten", || async {
            revoke(&fleet.all[0], &key).await.header(FIELD) == Some(&*all_of(3))
        })
        .await;
    }
    assert_eq!(
        revoke(&fleet.all[0], &key).await.header(FIELD),
        Some(&*all_of(2))
    );

    // One ends without a word, and comes back under its name.
    let mut killed = fleet.all.pop().unwrap();
    killed.kill();
    let missing = "instances=2, confirmed=1, unconfirmed=(\"two\")";
    let key = fleet.key().await;
    assert_eq!(
        revoke(&fleet.all[0], &key).await.header(FIELD),
        Some(missing)
    );
    fleet.all.push(killed.restart().await);
    eventually("what it was before counts as live no more", || async {
        revoke(&fleet.all[0], &key).await;
        fleet.all[0].metric("sidekey_instances").await == 2.0
    })
    .await;
    eventually("both confirm", || async {
        revoke(&fleet.all[0], &key).await.header(FIELD) == Some(&*all_of(2))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_wait_the_answer_says_what_is_known() {
    let postgres = Postgres::start().await;
    let more = "[store]\npropagation_wait_ms = 0\n";
    let fleet = Fleet::start(2, &postgres.url(), None, more).await;
    let key = fleet.key().await;
    fleet.all[1].signal("STOP");
    let missing = "instances=2, confirmed=1, unconfirmed=(\"two\")";
    assert_eq!(
        revoke(&fleet.all[0], &key).await.header(FIELD),
        Some(missing)
    );
    let took = quickest_revocation(&fleet.all[0], missing).await;
    assert!(took < MARGIN, "{took:?}");
    fleet.all[1].signal("CONT");
    fleet.expect(&key, 401).await;
}
