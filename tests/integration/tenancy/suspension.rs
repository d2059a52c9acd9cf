//! Suspending a tenant acts on the next request of all its keys, on every instance.

use futures_util::future::join_all;
use reqwest::Method;
use serde_json::json;

use super::{PATIENT, TENANTS, put, set, show};
use crate::harness::eventually;
use crate::harness::fleet::{FIELD, Fleet, HARDLY_EVER, all_of};
use crate::harness::postgres::Postgres;
use crate::harness::redis::Redis;
use crate::harness::sidekey::{KEYS, Sidekey, config};
use crate::harness::upstream::{Upstream, nobody};

const SUSPENDED: &str = "urn:sidekey:problem:suspended-tenant";

#[tokio::test(flavor = "multi_thread")]
async fn all_keys_are_refused_at_once_and_told_why() {
    let upstream = Upstream::start().await;
    let sidekey = Sidekey::start(&config(upstream.address, "")).await;
    let mut keys = Vec::new();
    for _ in 0..6 {
        keys.push(sidekey.create_key(json!({})).await);
    }
    let other = sidekey.create_key(json!({"tenant_id": "other"})).await;
    let (warm, cold) = keys.split_at(4);
    for key in warm.iter().chain([&other]) {
        assert_eq!(sidekey.status("/", &key.text).await, 200);
    }
    let served = upstream.count();
    let reply = set(&sidekey, "acme", "suspend").await;
    assert_eq!(reply.json()["status"], "suspended");
    assert_eq!(reply.header("etag"), Some("\"r2\""));
    // Twice is as good as once.
    let again = set(&sidekey, "acme", "suspend").await;
    assert_eq!(again.header("etag"), Some("\"r2\""));
    for key in warm.iter().chain(cold) {
        let answer = sidekey.get("/", &key.text).await;
        assert_eq!(answer.status(), 401);
        let challenge = answer.headers()["www-authenticate"].to_str().unwrap();
        assert_eq!(challenge, "Bearer realm=\"api\", error=\"invalid_token\"");
        let problem: serde_json::Value = answer.json().await.unwrap();
        assert_eq!(problem["type"], SUSPENDED);
    }
    assert_eq!(upstream.count(), served, "the service hears nothing");
    let series = "sidekey_requests_total{outcome=\"suspended_tenant\",route=\"all\"}";
    eventually("it is counted", || async {
        sidekey.metric(series).await == 6.0
    })
    .await;
    assert_eq!(sidekey.status("/", &other.text).await, 200);
    // Who has no right secret is not told; a key that is revoked is a wrong one.
    let mut forged = keys[0].text.clone();
    forged.replace_range(forged.len() - 30..forged.len() - 29, "_");
    sidekey.revoke_key(&keys[1].id).await;
    for text in [&forged, &keys[1].text] {
        let answer = sidekey.get("/", text).await;
        let problem: serde_json::Value = answer.json().await.unwrap();
        assert_eq!(problem["type"], "urn:sidekey:problem:invalid-key");
    }
    // What is done with a key meanwhile does not resume it, and new ones are suspended too.
    sidekey.change_key(&keys[2].id, json!({"name": "x"})).await;
    let new = sidekey.create_key(json!({})).await;
    put(&sidekey, "acme", json!({"display_name": "Acme"})).await;
    for key in [&keys[2], &new] {
        assert_eq!(sidekey.status("/", &key.text).await, 401);
    }
    assert_eq!(show(&sidekey, "acme").await["status"], "suspended");
    set(&sidekey, "acme", "resume").await;
    for key in keys.iter().chain([&new]).filter(|key| key.id != keys[1].id) {
        assert_eq!(sidekey.status("/", &key.text).await, 200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn administration_is_refused_too_and_nobody_locks_himself_out() {
    let sidekey = Sidekey::start(&config(nobody(), "")).await;
    let scopes = json!({"scopes": ["sidekey:admin"]});
    let admin = sidekey.create_key(scopes).await;
    let ask =
        async |method, path: &str| sidekey.ask_as(Some(&admin.text), method, path, None).await;
    let own = format!("{TENANTS}/acme/suspend");
    ask(Method::POST, &own).await.problem(409);
    sidekey
        .ask(Method::POST, &format!("{TENANTS}/sidekey/suspend"), None)
        .await
        .problem(409);
    assert_eq!(ask(Method::GET, KEYS).await.status, 200);
    set(&sidekey, "acme", "suspend").await;
    let refused = ask(Method::GET, KEYS).await;
    assert_eq!(refused.problem(401)["type"], SUSPENDED);
    assert!(
        refused
            .header("www-authenticate")
            .is_some_and(|challenge| challenge.ends_with("error=\"invalid_token\""))
    );
    ask(Method::POST, &format!("{TENANTS}/acme/resume"))
        .await
        .problem(401);
    set(&sidekey, "acme", "resume").await;
    assert_eq!(ask(Method::GET, KEYS).await.status, 200);
}

/// Warm keys on every instance: when the answer to the suspension has come, all refuse; by an event,
/// and where there is none, by looking.
#[tokio::test(flavor = "multi_thread")]
async fn every_instance_refuses_when_the_answer_has_come() {
    let redis = Redis::start().await;
    let hardly_ever = PATIENT.replace("[store]\n", HARDLY_EVER);
    for (redis, more) in [(Some(&redis), &*hardly_ever), (None, PATIENT)] {
        let postgres = Postgres::start().await;
        let fleet = Fleet::start(2, &postgres.url(), redis, more).await;
        let mut keys = Vec::new();
        for _ in 0..8 {
            keys.push(fleet.key().await);
        }
        for what in ["suspend", "resume", "suspend", "resume"] {
            let reply = set(&fleet.all[0], "acme", what).await;
            assert_eq!(reply.header(FIELD), Some(&*all_of(2)));
            let status = if what == "suspend" { 401 } else { 200 };
            join_all(keys.iter().map(|key| fleet.expect_at_once(key, status))).await;
        }
        let limit = json!([{"name": "all", "quota": 3, "window_seconds": 3600}]);
        let reply = put(&fleet.all[1], "acme", json!({"rate_limits": limit})).await;
        assert_eq!(
            (reply.status, reply.header(FIELD)),
            (200, Some(&*all_of(2)))
        );
        for sidekey in &fleet.all {
            let answer = sidekey.get("/", &keys[0].text).await;
            let policy = answer.headers()["ratelimit-policy"].to_str().unwrap();
            assert_eq!(policy, "\"tenant:all\";q=3;w=3600");
        }
        let runs = fleet.all[1].metric("sidekey_bcrypt_runs_total").await;
        assert!(runs <= 20.0, "changes cost no bcrypt: {runs}");
    }
}

/// Keys that become live while their tenant is suspended: once the answer has come, none passes.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_is_loaded_meanwhile_is_refused_too() {
    let postgres = Postgres::start().await;
    let fleet = Fleet::start(2, &postgres.url(), None, PATIENT).await;
    for round in 0..6 {
        let mut keys = Vec::new();
        for _ in 0..6 {
            let tenant = json!({"tenant_id": format!("tenant-{round}")});
            keys.push(fleet.all[0].create_key(tenant).await);
        }
        let calls = fleet.all.iter().flat_map(|sidekey| {
            let statuses = keys.iter().map(|key| sidekey.status("/", &key.text));
            statuses.collect::<Vec<_>>()
        });
        let tenant = format!("tenant-{round}");
        let (reply, statuses) = tokio::join!(
            set(&fleet.all[round % 2], &tenant, "suspend"),
            join_all(calls)
        );
        assert_eq!(reply.header(FIELD), Some(&*all_of(2)));
        let are_sound = statuses.iter().all(|status| matches!(status, 200 | 401));
        assert!(are_sound, "{statuses:?}");
        join_all(keys.iter().map(|key| fleet.expect_at_once(key, 401))).await;
    }
}
