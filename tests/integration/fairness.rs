//! What one caller does must not be paid for by another: wrong keys, floods of creations, edits
//! under load, retried uploads, and pages that are full to the brim.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use futures_util::future::{join, join_all};
use reqwest::Method;
use secrecy::SecretString;
use serde_json::{Value, json};
use sidekey::clock::Timestamp;
use sidekey::key::record::Standing;
use sidekey::key::{CredentialKind, Environment, Generation, KeyOrigin, KeyRecord};
use sidekey::store::KeyStore;
use sidekey::store::sql::SqlStore;
use tokio::time::timeout;

use crate::harness::DEADLINE;
use crate::harness::eventually;
use crate::harness::noted;
use crate::harness::raw::{Raw, get, request};
use crate::harness::sidekey::{KEYS, Key, Sidekey, config};
use crate::harness::upstream::{Scripted, Upstream, nobody};

/// So small, and so slow to fill again, that a few wrong keys are too many for the whole test.
const FEW_FAILURES: &str =
    r#"limits.failed_auth = { name = "failed-auth", quota = 3, window_seconds = 86400 }"#;
const WRONG_KEYS: usize = 50;

async fn with_few_failures(upstream: &Upstream) -> Sidekey {
    let config = config(upstream.address, "");
    Sidekey::start(&format!("{FEW_FAILURES}\n{config}")).await
}

async fn admin_key(sidekey: &Sidekey) -> Key {
    sidekey
        .create_key(json!({"scopes": ["sidekey:admin"]}))
        .await
}

async fn list_as(sidekey: &Sidekey, key: &str) -> u16 {
    let reply = sidekey.ask_as(Some(key), Method::GET, KEYS, None).await;
    reply.status
}

/// A key that is well formed and was never made here.
fn wrong_key(number: usize) -> String {
    format!("sk_live_{number:012}_{number:054}")
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_keys_on_the_proxy_keep_no_admin_key_from_the_admin_port() {
    let upstream = Upstream::start().await;
    let sidekey = with_few_failures(&upstream).await;
    let cold = admin_key(&sidekey).await;
    let mut last = 0;
    for number in 0..WRONG_KEYS {
        last = sidekey.status("/", &wrong_key(number)).await;
    }
    assert_eq!(last, 429, "the address has had its failures");
    assert_eq!(list_as(&sidekey, &sidekey.admin_key()).await, 200, "warm");
    assert_eq!(list_as(&sidekey, &cold.text).await, 200, "cold");
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_keys_on_the_admin_port_lock_no_proven_key_out() {
    let upstream = Upstream::start().await;
    let sidekey = with_few_failures(&upstream).await;
    let cold = sidekey.create_key(json!({})).await;
    let proven = admin_key(&sidekey).await;
    assert_eq!(list_as(&sidekey, &proven.text).await, 200);
    let mut statuses = Vec::new();
    for number in 0..WRONG_KEYS {
        statuses.push(list_as(&sidekey, &wrong_key(number)).await);
    }
    assert_eq!(statuses[..3], [401; 3]);
    assert_eq!(statuses[3..], [429; WRONG_KEYS - 3]);
    assert_eq!(list_as(&sidekey, &proven.text).await, 200);
    // Not just to read.
    let created = sidekey.create_key(json!({})).await;
    for key in [&cold, &created] {
        assert_eq!(sidekey.status("/", &key.text).await, 200, "on the proxy");
    }
}

/// Hashing is the dearest thing that a call can ask for: creations wait for each other, not the
/// first calls of other tenants' keys for them.
#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_creations_refuses_nobodys_first_call() {
    const CREATORS: usize = 60;
    const COLD_KEYS: usize = 12;
    let upstream = Upstream::start().await;
    let cost = [("SIDEKEY__BCRYPT__COST", "10")];
    let sidekey = Sidekey::start_with(&config(upstream.address, ""), &cost).await;
    let mut cold = Vec::new();
    for _ in 0..COLD_KEYS {
        cold.push(sidekey.create_key(json!({"tenant_id": "calm"})).await);
    }
    let new = json!({"name": "n", "tenant_id": "busy", "environment": "live", "scopes": []});
    let created = AtomicUsize::new(0);
    let over = AtomicBool::new(false);
    // Until the calls are answered, however long that takes.
    let flood = join_all((0..CREATORS).map(|_| async {
        while !over.load(Ordering::SeqCst) {
            match sidekey.ask(Method::POST, KEYS, Some(&new)).await.status {
                201 => {
                    created.fetch_add(1, Ordering::SeqCst);
                }
                // On a slow machine the line is longer than a request's time.
                other => assert_eq!(other, 408),
            }
        }
    }));
    let calls = async {
        eventually("the flood is there", || async {
            created.load(Ordering::SeqCst) > 0
        })
        .await;
        let calls = cold.iter().map(|key| sidekey.status("/", &key.text));
        let statuses = join_all(calls).await;
        over.store(true, Ordering::SeqCst);
        statuses
    };
    let (_, statuses) = join(flood, calls).await;
    assert_eq!(statuses, [200; COLD_KEYS]);
    assert_eq!(sidekey.metric("sidekey_bcrypt_refused_total").await, 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_is_sent_again_is_counted_once() {
    let upstream = Scripted::start().await;
    let config = format!(
        "proxy.max_body_bytes = 100\n{}",
        config(upstream.address, "")
    );
    let sidekey = Sidekey::start(&config).await;
    let key = sidekey.create_key(json!({})).await;
    let key = format!("Authorization: Bearer {}", key.text);
    let answer = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

    let mut client = Raw::connect(sidekey.proxy).await;
    client.send(get("/first", &[&key])).await;
    let mut kept = Raw::from(upstream.accept().await);
    kept.read_until(b"\r\n\r\n").await;
    kept.send(answer).await;
    assert_eq!(client.read_answer().await.status, 200);

    let body = "b".repeat(60);
    client.send(request("PUT", "/second", &[&key], &body)).await;
    // The service had just decided to close the kept connection.
    kept.read_until(body.as_bytes()).await;
    drop(kept);
    let mut fresh = Raw::from(upstream.accept().await);
    let head = fresh.read_until(b"\r\n\r\n").await;
    assert!(head.starts_with(b"PUT /second "));
    assert_eq!(fresh.read_exact(60).await, body.as_bytes());
    fresh.send(answer).await;
    assert_eq!(client.read_answer().await.status, 200);
    // The limit still stands.
    client
        .send(request("PUT", "/third", &[&key], &"b".repeat(101)))
        .await;
    assert_eq!(client.read_answer().await.status, 413);
}

/// Requests that hold the same buckets in different orders must not wait for each other: the
/// threads that did would be lost to everybody.
#[tokio::test(flavor = "multi_thread")]
async fn reordering_the_limits_of_a_key_in_use_stops_nobody() {
    const CALLERS: usize = 8;
    const EDITS: usize = 300;
    let upstream = Upstream::start().await;
    let sidekey = Sidekey::start(&config(upstream.address, "")).await;
    let mut limits: Vec<Value> = (0..8)
        .map(|n| json!({"name": format!("l{n}"), "quota": 1_000_000, "window_seconds": 1}))
        .collect();
    let key = sidekey.create_key(json!({"rate_limits": limits})).await;
    let over = AtomicBool::new(false);
    let callers = join_all((0..CALLERS).map(|_| async {
        let mut calls = 0;
        while !over.load(Ordering::SeqCst) {
            assert_eq!(sidekey.status("/", &key.text).await, 200);
            calls += 1;
        }
        calls
    }));
    let edits = async {
        for edit in 0..EDITS {
            match edit % 2 {
                0 => limits.reverse(),
                _ => limits.rotate_left(3),
            }
            let change = json!({"rate_limits": limits});
            sidekey.change_key(&key.id, change).await;
        }
        over.store(true, Ordering::SeqCst);
    };
    let both = timeout(5 * DEADLINE, join(callers, edits)).await;
    let (calls, ()) = both.expect("everything keeps answering");
    assert!(calls.iter().all(|calls| *calls > 0), "{calls:?}");
    assert_eq!(sidekey.status("/", &key.text).await, 200);
}

/// One of many keys; three each are of the same millisecond.
fn numbered(number: usize) -> KeyRecord {
    let at = Timestamp::from_millis(1_700_000_000_000 + number as i64 / 3);
    KeyRecord {
        id: format!("{number:012}").parse().unwrap(),
        tenant_id: "many".parse().unwrap(),
        name: "one of many".to_owned(),
        environment: Environment::Live,
        origin: KeyOrigin::Minted,
        credential: CredentialKind::Key,
        hint: format!("sk_live_{number:012}_...0000"),
        scopes: vec![],
        rate_limits: None,
        allowed_ips: vec![],
        contact_email: None,
        rotation_days: 90,
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

#[tokio::test(flavor = "multi_thread")]
async fn behind_the_longest_page_the_rest_comes() {
    const KEYS_MADE: usize = 1003;
    const PAGE: usize = 1000;
    let mut sidekey = Sidekey::start(&config(nobody(), "")).await;
    sidekey.kill();
    let url = format!("sqlite://{}/data/sidekey.db", sidekey.directory().display());
    let store = SqlStore::open(&SecretString::from(url)).await.unwrap();
    for number in 0..KEYS_MADE {
        store.insert(&numbered(number), &noted()).await.unwrap();
    }
    store.close().await;
    let sidekey = sidekey.restart().await;
    let page = async |cursor: &str| {
        let path = format!("{KEYS}?tenant_id=many&limit={PAGE}{cursor}");
        let reply = sidekey.ask(Method::GET, &path, None).await;
        assert_eq!(reply.status, 200, "{path}");
        let body = reply.json();
        let keys = body["data"].as_array().unwrap().iter();
        let ids: Vec<Value> = keys.map(|key| key["id"].clone()).collect();
        (ids, body["next_cursor"].as_str().map(str::to_owned))
    };
    let (mut ids, cursor) = page("").await;
    assert_eq!(ids.len(), PAGE);
    let cursor = cursor.expect("there is more");
    let (rest, end) = page(&format!("&cursor={cursor}")).await;
    assert_eq!((rest.len(), end), (KEYS_MADE - PAGE, None));
    ids.extend(rest);
    let newest_first: Vec<Value> = (0..KEYS_MADE)
        .rev()
        .map(|number| json!(format!("{number:012}")))
        .collect();
    assert_eq!(ids, newest_first, "each key once");
}
