//! Each number moves when it should, and only then: while everything is there, and while Redis, Vault or
//! the database is away.

use futures_util::future::join_all;
use reqwest::Method;
use serde_json::json;

use super::stack::{BURST, Stack};
use crate::harness::eventually;
use crate::harness::sidekey::{KEYS, Key};

const FAILED_REDIS: &str = "sidekey_redis_errors_total";
const FAILED_VAULT: &str = "sidekey_vault_errors_total";
const FAILED_STORE: &str = "sidekey_store_errors_total";
const LAST_FLUSH: &str = "sidekey_usage_last_flush_timestamp_seconds";

fn breaker(dependency: &str) -> String {
    format!("sidekey_breaker_open{{dependency=\"{dependency}\"}}")
}

fn decisions(source: &str, verdict: &str) -> String {
    format!("sidekey_limit_decisions_total{{source=\"{source}\",verdict=\"{verdict}\"}}")
}

fn store_calls(operation: &str) -> String {
    format!("sidekey_store_call_duration_seconds_count{{operation=\"{operation}\"}}")
}

fn vault_calls(operation: &str) -> String {
    format!("sidekey_vault_call_duration_seconds_count{{operation=\"{operation}\"}}")
}

fn keys(status: &str) -> String {
    format!("sidekey_keys{{status=\"{status}\"}}")
}

/// A key with a limit of its own.
async fn key_with(stack: &Stack, quota: u64) -> Key {
    let limits = json!([{"name": "own", "quota": quota, "window_seconds": 3600}]);
    stack
        .sidekey
        .create_key(json!({ "rate_limits": limits }))
        .await
}

async fn status(stack: &Stack, path: &str, key: &Key) -> u16 {
    stack.sidekey.status(path, &key.text).await
}

#[tokio::test(flavor = "multi_thread")]
async fn while_everything_is_there() {
    let stack = Stack::start().await;
    // Settings, and what the start has done.
    assert_eq!(stack.now("sidekey_bcrypt_threads").await, 2.0);
    assert_eq!(stack.now("sidekey_bcrypt_queue_capacity").await, 77.0);
    for operation in ["login", "read", "list", "write"] {
        let calls = vault_calls(operation);
        assert!(stack.now(&calls).await > 0.0, "{calls}");
    }
    stack.is_counted("sidekey_tenants", 1.0).await;
    stack.is_counted(&keys("active"), 1.0).await;

    let [reads, writes] = ["read", "write"].map(store_calls);
    let vault_writes = vault_calls("write");
    let of_creation = [
        writes.as_str(),
        &vault_writes,
        "sidekey_audit_write_duration_seconds_count",
        "sidekey_audit_entries_total",
        "sidekey_bcrypt_runs_total",
        "sidekey_bcrypt_duration_seconds_count",
    ];
    let before = stack.marks(&of_creation).await;
    let key = key_with(&stack, BURST).await;
    stack.have_grown(before).await;
    stack.is_counted("sidekey_tenants", 2.0).await;
    stack.is_counted(&keys("active"), 2.0).await;

    let (vault_reads, asked) = (vault_calls("read"), decisions("redis", "allowed"));
    let of_a_cold_request = [
        reads.as_str(),
        &vault_reads,
        &asked,
        "sidekey_redis_calls_total",
        "sidekey_redis_call_duration_seconds_count",
        "sidekey_bcrypt_runs_total",
    ];
    let before = stack.marks(&of_a_cold_request).await;
    let flushed = stack.marks(&[LAST_FLUSH]).await;
    assert_eq!(status(&stack, "/", &key).await, 200);
    stack.have_grown(before).await;
    stack.have_grown(flushed).await;

    // A busy key takes tokens in advance: one that is called so often at once, however slow the caller is.
    const AT_ONCE: usize = 20;
    let leased = decisions("lease", "allowed");
    eventually("a lease decides", || async {
        let calls = join_all((0..AT_ONCE).map(|_| status(&stack, "/", &key))).await;
        assert_eq!(calls, [200; AT_ONCE]);
        stack.now(&leased).await > 0.0
    })
    .await;

    let small = key_with(&stack, 1).await;
    let limited = [decisions("redis", "limited"), decisions("lease", "limited")];
    let count = || async { stack.now(&limited[0]).await + stack.now(&limited[1]).await };
    let before = count().await;
    assert_eq!(status(&stack, "/", &small).await, 200);
    assert_eq!(status(&stack, "/", &small).await, 429);
    assert_eq!(count().await, before + 1.0);

    // Nobody has to decide about a key without limits; who lacks a scope only looks.
    let fields = json!({"rate_limits": []});
    let unlimited = stack.sidekey.create_key(fields).await;
    let (memory, outage) = (
        decisions("memory", "allowed"),
        decisions("outage", "allowed"),
    );
    let before = stack.now(&memory).await;
    assert_eq!(status(&stack, "/", &unlimited).await, 200);
    assert_eq!(stack.now(&memory).await, before + 1.0);
    assert_eq!(stack.now(&outage).await, 0.0, "nothing was away");

    let removals = vault_calls("delete");
    let before = stack.marks(&[&removals]).await;
    stack.sidekey.revoke_key(&key.id).await;
    stack
        .sidekey
        .change_key(&small.id, json!({"status": "disabled"}))
        .await;
    stack.have_grown(before).await;
    stack.is_counted(&keys("revoked"), 1.0).await;
    stack.is_counted(&keys("disabled"), 1.0).await;
    stack.is_counted(&keys("active"), 2.0).await;
    stack.is("sidekey_bcrypt_in_flight", 0.0).await;
    for failed in [FAILED_REDIS, FAILED_VAULT, FAILED_STORE] {
        assert_eq!(stack.now(failed).await, 0.0, "{failed}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn while_redis_is_away() {
    let mut stack = Stack::start().await;
    let (key, small) = (key_with(&stack, BURST).await, key_with(&stack, 3).await);
    assert_eq!(status(&stack, "/", &key).await, 200);
    assert_eq!(stack.now("sidekey_redis_up").await, 1.0);
    let (allowed, limited, unavailable) = (
        decisions("outage", "allowed"),
        decisions("outage", "limited"),
        decisions("outage", "unavailable"),
    );
    let before = stack
        .marks(&[
            FAILED_REDIS,
            &allowed,
            "sidekey_redis_call_duration_seconds_count",
            "sidekey_limit_outage_decisions_total",
        ])
        .await;
    stack.redis.kill();
    eventually("the breaker opens", || async {
        assert_eq!(status(&stack, "/open", &key).await, 200);
        stack.now(&breaker("redis")).await == 1.0
    })
    .await;
    assert_eq!(stack.now("sidekey_redis_up").await, 0.0);
    stack.have_grown(before).await;
    // Twice its cost of its own three tokens, for there are two instances: one passes.
    let before = stack.marks(&[&limited]).await;
    assert_eq!(status(&stack, "/", &small).await, 200);
    assert_eq!(status(&stack, "/", &small).await, 429);
    stack.have_grown(before).await;
    let before = stack.now(&unavailable).await;
    assert_eq!(status(&stack, "/closed", &key).await, 503);
    assert_eq!(stack.now(&unavailable).await, before + 1.0);

    stack.redis.launch().await;
    stack.is(&breaker("redis"), 0.0).await;
    stack.is("sidekey_redis_up", 1.0).await;
    let before = stack.marks(&[&decisions("redis", "allowed")]).await[0].1;
    let fresh = key_with(&stack, BURST).await;
    assert_eq!(status(&stack, "/", &fresh).await, 200);
    assert!(stack.now(&decisions("redis", "allowed")).await > before);
}

#[tokio::test(flavor = "multi_thread")]
async fn while_vault_is_away() {
    let stack = Stack::start().await;
    let cold = key_with(&stack, BURST).await;
    let before = stack
        .marks(&[FAILED_VAULT, "sidekey_vault_calls_total"])
        .await;
    stack.bao.seal().await;
    eventually("the breaker opens", || async {
        assert_eq!(status(&stack, "/", &cold).await, 503);
        stack.now(&breaker("vault")).await == 1.0
    })
    .await;
    stack.have_grown(before).await;
    assert_eq!(stack.now("sidekey_vault_up").await, 0.0);
    assert_eq!(stack.now(&breaker("database")).await, 0.0);
    assert_eq!(stack.now("sidekey_store_up").await, 1.0);
    stack.bao.unseal().await;
    eventually("the key is verified", || async {
        status(&stack, "/", &cold).await == 200
    })
    .await;
    assert_eq!(stack.now("sidekey_vault_up").await, 1.0);
    assert_eq!(stack.now(&breaker("vault")).await, 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_database_is_away() {
    let mut stack = Stack::start().await;
    let warm = key_with(&stack, BURST).await;
    assert_eq!(status(&stack, "/", &warm).await, 200);
    stack
        .have_grown(vec![(&keys("active"), 0.0), (LAST_FLUSH, 0.0)])
        .await;
    let failing = stack
        .marks(&[FAILED_STORE, "sidekey_usage_flush_failures_total"])
        .await;
    stack.postgres.kill();
    stack.is(&breaker("database"), 1.0).await;
    stack.is("sidekey_store_up", 0.0).await;
    let counted = stack.now(&keys("active")).await;
    eventually("usage can't be stored", || async {
        assert_eq!(status(&stack, "/", &warm).await, 200);
        stack.now("sidekey_usage_flush_failures_total").await > failing[1].1
    })
    .await;
    stack.have_grown(failing).await;
    let reply = stack.sidekey.ask(Method::GET, KEYS, None).await;
    assert_eq!(reply.status, 503);
    let stored = stack.now(LAST_FLUSH).await;
    assert_eq!(stack.now("sidekey_vault_up").await, 1.0);
    // What was counted last is still shown, and what can't be stored is not shown as stored.
    assert_eq!(stack.now(&keys("active")).await, counted);
    stack
        .have_grown(stack.marks(&["sidekey_usage_flush_failures_total"]).await)
        .await;
    assert_eq!(stack.now(LAST_FLUSH).await, stored);

    stack.postgres.launch().await;
    stack.is(&breaker("database"), 0.0).await;
    stack.is("sidekey_store_up", 1.0).await;
    stack.have_grown(vec![(LAST_FLUSH, stored)]).await;
    stack
        .have_grown(stack.marks(&[&store_calls("write")]).await)
        .await;
}
