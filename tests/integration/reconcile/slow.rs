//! Keys that are in the making while a pass runs.

use std::time::Duration;

use reqwest::Method;
use serde_json::json;
use tokio::time::timeout;

use super::{Barrier, REMOVED, agree_soon, environment, passes, removed};
use crate::harness::api::Reply;
use crate::harness::postgres::Postgres;
use crate::harness::sidekey::{KEYS, Key, Sidekey, config};
use crate::harness::upstream::Upstream;
use crate::harness::{DEADLINE, eventually};

const ROWS: &str = "LOCK TABLE api_keys IN EXCLUSIVE MODE";
const HASHES: &str = "LOCK TABLE key_hashes IN EXCLUSIVE MODE";
/// The database gives up waiting for a lock after 3 s, so not every attempt gets as far as it should.
const ATTEMPTS: usize = 16;

async fn start(age: &str) -> (Upstream, Postgres, Sidekey) {
    let (upstream, postgres) = (Upstream::start().await, Postgres::start().await);
    let url = postgres.url();
    let config = config(upstream.address, "");
    let sidekey = Sidekey::start_with(&config, &environment(&url, age)).await;
    (upstream, postgres, sidekey)
}

/// A key, from a program that gives up where half of a short age was not enough. What that leaves is gone.
async fn key_in_time(sidekey: &Sidekey) -> Key {
    let body = json!({
        "name": "n", "tenant_id": "acme", "environment": "live", "scopes": [],
    });
    for _ in 0..ATTEMPTS {
        let reply = sidekey.ask(Method::POST, KEYS, Some(&body)).await;
        if reply.status == 503 {
            passes(sidekey, 2.0).await;
            continue;
        }
        assert_eq!(reply.status, 201, "{reply:?}");
        let made = reply.json();
        return Key {
            id: made["api_key"]["id"].as_str().expect("an id").to_owned(),
            text: made["key"].as_str().expect("a key").to_owned(),
        };
    }
    panic!("no key was made in time");
}

/// Creates a key, or a new secret for `id`, and holds the row back until `long_enough`; unless it gives up
/// before it comes to that.
async fn held_back(
    sidekey: &Sidekey,
    postgres: &Postgres,
    lock: &str,
    id: Option<&str>,
    long_enough: impl AsyncFnOnce(),
) -> Reply {
    let mut barrier = Barrier::set(postgres, lock).await;
    let request = match id {
        Some(id) => sidekey
            .admin(Method::POST, &format!("{KEYS}/{id}/regenerate"))
            .json(&json!({})),
        None => sidekey.admin(Method::POST, KEYS).json(&json!({
            "name": "n", "tenant_id": "acme", "environment": "live", "scopes": [],
        })),
    };
    let call = tokio::spawn(Reply::to(request));
    let reached = async {
        while !call.is_finished() && barrier.waiting().await == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let reached = timeout(DEADLINE, reached).await;
    reached.expect("the program comes to the lock");
    if !call.is_finished() {
        long_enough().await;
    }
    barrier.lift().await;
    call.await.unwrap()
}

async fn assert_works(sidekey: &Sidekey, reply: &Reply) {
    let body = reply.json();
    let text = body["key"].as_str().expect("a key");
    assert_eq!(sidekey.status("/", text).await, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_young_hash_without_a_row_is_left_alone() {
    let (_upstream, postgres, sidekey) = start("4").await;
    let key = key_in_time(&sidekey).await;
    let mut left = sidekey.metric(REMOVED).await as usize;
    for id in [None, Some(key.id.as_str())] {
        let mut has_worked = false;
        for _ in 0..ATTEMPTS {
            passes(&sidekey, 1.0).await;
            // A pass that begins at once, and another one if the first had begun before.
            let a_pass = async || {
                tokio::time::sleep(Duration::from_millis(1500)).await;
            };
            let reply = held_back(&sidekey, &postgres, ROWS, id, a_pass).await;
            if reply.status == 503 {
                // It waited too long, and no row needs its hash.
                left += 1;
                continue;
            }
            assert!(matches!(reply.status, 200 | 201), "{reply:?}");
            assert_works(&sidekey, &reply).await;
            // The pass that saw it comes to its end.
            passes(&sidekey, 2.0).await;
            assert_works(&sidekey, &reply).await;
            has_worked = true;
            break;
        }
        assert!(has_worked, "no row came in time");
    }
    removed(&sidekey, left).await;
}

/// However it comes that the hash is removed before its row is written: the key works.
#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_comes_after_its_hash_was_removed_gets_it_back() {
    let (_upstream, postgres, sidekey) = start("1").await;
    for regenerates in [false, true] {
        let mut has_worked = false;
        for _ in 0..ATTEMPTS {
            let key = key_in_time(&sidekey).await;
            let before = sidekey.metric(REMOVED).await;
            let is_removed = async || {
                let removed = async {
                    while sidekey.metric(REMOVED).await <= before {
                        tokio::time::sleep(Duration::from_millis(20)).await;
                    }
                };
                let _ = timeout(Duration::from_millis(2900), removed).await;
            };
            let id = regenerates.then_some(key.id.as_str());
            let reply = held_back(&sidekey, &postgres, ROWS, id, is_removed).await;
            let was_removed = sidekey.metric(REMOVED).await > before;
            if reply.status == 503 {
                // It waited too long: nothing has changed.
                assert_eq!(sidekey.status("/", &key.text).await, 200);
                passes(&sidekey, 2.0).await;
                continue;
            }
            assert!(matches!(reply.status, 200 | 201), "{reply:?}");
            assert_works(&sidekey, &reply).await;
            if was_removed {
                has_worked = true;
                break;
            }
        }
        assert!(has_worked, "no row came at the right moment");
    }
    let url = postgres.url();
    agree_soon(&sidekey, &environment(&url, "1")).await;
    eventually("the log tells", || async {
        sidekey.output().contains("its hash is put back")
    })
    .await;
}

/// Whoever is late with the hash does not write the row.
#[tokio::test(flavor = "multi_thread")]
async fn a_creation_that_takes_too_long_gives_up() {
    let (_upstream, postgres, sidekey) = start("2").await;
    let key = key_in_time(&sidekey).await;
    for id in [None, Some(key.id.as_str())] {
        let before = sidekey.metric(REMOVED).await;
        let mut was_written = false;
        for _ in 0..ATTEMPTS {
            let long = async || tokio::time::sleep(Duration::from_millis(1300)).await;
            let reply = held_back(&sidekey, &postgres, HASHES, id, long).await;
            reply.problem(503);
            // Of one that got as far as its hash, that is left over.
            passes(&sidekey, 2.0).await;
            was_written = sidekey.metric(REMOVED).await > before;
            if was_written {
                break;
            }
        }
        assert!(was_written, "no hash was written late");
        assert_eq!(sidekey.metric(REMOVED).await, before + 1.0);
    }
    let keys = sidekey.ask(Method::GET, KEYS, None).await.json();
    assert_eq!(keys["data"].as_array().unwrap().len(), 2, "{keys}");
    assert_eq!(sidekey.status("/", &key.text).await, 200);
    let url = postgres.url();
    agree_soon(&sidekey, &environment(&url, "2")).await;
}
