//! What requests cost and who pays: bursts under load, several policies at once, weighted routes,
//! edits, callers without a key, and callers with wrong ones.

use std::time::Instant;

use futures_util::future::join_all;
use reqwest::{Method, Response};
use serde_json::{Value, json};

use crate::cases::forged;
use crate::harness::sidekey::{Key, Sidekey, config};
use crate::harness::upstream::Upstream;

fn policy(name: &str, quota: u64, burst: u64) -> Value {
    json!({"name": name, "quota": quota, "window_seconds": 86_400, "burst": burst})
}

fn remaining(answer: &Response) -> Vec<u64> {
    let text = answer.headers()["ratelimit"].to_str().unwrap();
    text.split(", ")
        .map(|member| {
            let (_, rest) = member.split_once(";r=").unwrap();
            rest.split(';').next().unwrap().parse().unwrap()
        })
        .collect()
}

async fn statuses(sidekey: &Sidekey, key: &Key, count: usize) -> Vec<u16> {
    join_all((0..count).map(|_| sidekey.status("/", &key.text))).await
}

fn passed(statuses: &[u16]) -> usize {
    assert!(
        statuses.iter().all(|status| matches!(status, 200 | 429)),
        "{statuses:?}"
    );
    statuses.iter().filter(|status| **status == 200).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_requests_at_once_exactly_the_burst_passes() {
    let upstream = Upstream::start().await;
    let sidekey = Sidekey::start(&config(upstream.address, "")).await;
    for warm in [false, true] {
        let key = sidekey
            .create_key(json!({"rate_limits": [policy("day", 10, 7)]}))
            .await;
        let before = upstream.count();
        let alone = usize::from(warm);
        if warm {
            assert_eq!(sidekey.status("/", &key.text).await, 200);
        }
        assert_eq!(
            passed(&statuses(&sidekey, &key, 50).await),
            7 - alone,
            "warm: {warm}"
        );
        assert_eq!(upstream.count() - before, 7);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn several_policies_are_decided_together() {
    let upstream = Upstream::start().await;
    let sidekey = Sidekey::start(&config(upstream.address, "")).await;
    let limits = json!([policy("wide", 100, 100), policy("narrow", 100, 3)]);
    let key = sidekey.create_key(json!({"rate_limits": limits})).await;
    for left in [2, 1, 0] {
        let answer = sidekey.get("/", &key.text).await;
        assert_eq!(answer.status(), 200);
        assert_eq!(remaining(&answer), [97 + left, left]);
        assert_eq!(answer.headers()["x-ratelimit-remaining"], left.to_string());
        assert_eq!(
            answer.headers()["ratelimit-policy"],
            "\"wide\";q=100;w=86400, \"narrow\";q=100;w=86400"
        );
    }
    for _ in 0..5 {
        let answer = sidekey.get("/", &key.text).await;
        assert_eq!(answer.status(), 429);
        assert_eq!(
            remaining(&answer),
            [97, 0],
            "a refusal takes no token anywhere"
        );
        let problem: Value = answer.json().await.unwrap();
        assert_eq!(problem["violated-policies"], json!(["narrow"]));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_route_may_cost_more() {
    let upstream = Upstream::start().await;
    let more = "[[routes]]\nname = \"dear\"\npath = \"/dear\"\nupstream = \"service\"\ncost = 4\n";
    let sidekey = Sidekey::start(&config(upstream.address, more)).await;
    let key = sidekey
        .create_key(json!({"rate_limits": [policy("day", 9, 9)]}))
        .await;
    let start = Instant::now();
    for (path, status, left) in [
        ("/dear", 200, 5),
        ("/", 200, 4),
        ("/", 200, 3),
        ("/dear", 429, 3),
        ("/", 200, 2),
        ("/dear/sub", 429, 2),
    ] {
        let answer = sidekey.get(path, &key.text).await;
        assert_eq!(answer.status(), status, "{path} before {left} are left");
        assert_eq!(remaining(&answer), [left], "{path}");
        if status == 429 {
            let wait: u64 = answer.headers()["retry-after"]
                .to_str()
                .unwrap()
                .parse()
                .unwrap();
            let missing = (4 - left) * 9600;
            let passed = start.elapsed().as_secs() + 1;
            assert!(
                (missing - passed..=missing).contains(&wait),
                "{wait}, not {missing}"
            );
        }
    }
}

/// An edit acts on the very next request, and gives nobody a second burst.
#[tokio::test(flavor = "multi_thread")]
async fn edited_limits_act_at_once_and_keep_what_was_spent() {
    let upstream = Upstream::start().await;
    let sidekey = Sidekey::start(&config(upstream.address, "")).await;
    let key = sidekey
        .create_key(json!({"rate_limits": [policy("day", 10, 10)]}))
        .await;
    for _ in 0..4 {
        assert_eq!(sidekey.status("/", &key.text).await, 200);
    }
    for (limits, status, left) in [
        (json!([policy("day", 20, 20)]), 200, 5),
        (json!([policy("day", 20, 3)]), 200, 2),
        (json!([policy("day", 20, 10)]), 200, 1),
        (json!([policy("day", 20, 10), policy("more", 5, 5)]), 200, 0),
        (json!([policy("day", 30, 30)]), 429, 0),
    ] {
        sidekey
            .change_key(&key.id, json!({"rate_limits": limits}))
            .await;
        let answer = sidekey.get("/", &key.text).await;
        assert_eq!(answer.status(), status, "{limits}");
        assert_eq!(remaining(&answer)[0], left, "{limits}");
    }
    for unrelated in [
        json!({"name": "renamed"}),
        json!({"scopes": ["orders:read"]}),
        json!({"status": "disabled"}),
        json!({"status": "active"}),
    ] {
        sidekey.change_key(&key.id, unrelated).await;
    }
    assert_eq!(
        sidekey.status("/", &key.text).await,
        429,
        "edits of other fields fill nothing"
    );
    let new = sidekey.regenerate_key(&key.id, 3600).await;
    assert_eq!(
        sidekey.status("/", &new.text).await,
        429,
        "nor does a new secret"
    );
    assert_eq!(
        sidekey.status("/", &key.text).await,
        429,
        "nor the old one beside it"
    );
    sidekey
        .change_key(&key.id, json!({"rate_limits": []}))
        .await;
    assert_eq!(
        sidekey.status("/", &new.text).await,
        200,
        "no limit, at once"
    );
    sidekey
        .change_key(&key.id, json!({"rate_limits": null}))
        .await;
    let answer = sidekey.get("/", &new.text).await;
    assert_eq!(
        answer.headers()["ratelimit-policy"],
        "\"default\";q=600;w=60"
    );
}

const OPTIONAL: &str = r#"
[proxy]
trusted_proxies = ["127.0.0.1"]
[[routes]]
name = "open"
path = "/open"
upstream = "service"
auth = "optional"
[[routes]]
name = "off"
path = "/off"
upstream = "service"
auth = "off"
[limits]
anonymous = [{ name = "anonymous", quota = 2, window_seconds = 86400 }]
failed_auth = { name = "failed-auth", quota = 3, window_seconds = 86400 }
"#;

async fn anonymous(sidekey: &Sidekey, path: &str, client: &str) -> Response {
    let call = sidekey
        .request(Method::GET, path)
        .header("x-forwarded-for", client);
    call.send().await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn callers_without_a_key_are_limited_by_address() {
    let upstream = Upstream::start().await;
    let sidekey = Sidekey::start(&config(upstream.address, OPTIONAL)).await;
    for left in [1, 0] {
        let answer = anonymous(&sidekey, "/open", "203.0.113.1").await;
        assert_eq!(answer.status(), 200);
        assert_eq!(remaining(&answer), [left]);
        assert_eq!(
            answer.headers()["ratelimit-policy"],
            "\"anonymous\";q=2;w=86400"
        );
        assert_eq!(upstream.last().header("x-sidekey-key-id"), None);
    }
    for client in ["203.0.113.1", "203.0.113.1:5000"] {
        let answer = anonymous(&sidekey, "/open", client).await;
        assert_eq!(answer.status(), 429);
        assert_eq!(answer.headers()["x-ratelimit-remaining"], "0");
        assert!(answer.headers().contains_key("retry-after"));
    }
    for client in ["203.0.113.2", "2001:db8:0:1::1"] {
        assert_eq!(
            anonymous(&sidekey, "/open", client).await.status(),
            200,
            "{client}"
        );
    }
    assert_eq!(
        anonymous(&sidekey, "/open", "2001:db8:0:1:ffff::2")
            .await
            .status(),
        200
    );
    assert_eq!(
        anonymous(&sidekey, "/open", "2001:db8:0:1:eeee::3")
            .await
            .status(),
        429,
        "a /64 is one customer"
    );
    assert_eq!(
        anonymous(&sidekey, "/open", "2001:db8:0:2::1")
            .await
            .status(),
        200
    );
    // Who has a key has limits of their own, and an open door has none.
    let key = sidekey.create_key(json!({})).await;
    let call = sidekey.request(Method::GET, "/open").bearer_auth(&key.text);
    let answer = call
        .header("x-forwarded-for", "203.0.113.1")
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(remaining(&answer), [99]);
    let answer = anonymous(&sidekey, "/off", "203.0.113.1").await;
    assert_eq!(answer.status(), 200);
    assert!(!answer.headers().contains_key("ratelimit"));
    assert_eq!(anonymous(&sidekey, "/", "203.0.113.9").await.status(), 401);
}

async fn call_from(sidekey: &Sidekey, client: &str, key: &str) -> Response {
    let call = sidekey.request(Method::GET, "/").bearer_auth(key);
    call.header("x-forwarded-for", client).send().await.unwrap()
}

/// Wrong keys cost their address: past the limit they are refused before any work is done, while
/// whoever is known from before goes on.
#[tokio::test(flavor = "multi_thread")]
async fn too_many_wrong_keys_from_one_address_are_not_looked_at() {
    let upstream = Upstream::start().await;
    let sidekey = Sidekey::start(&config(upstream.address, OPTIONAL)).await;
    let (here, there) = ("203.0.113.1", "203.0.113.2");
    let warm = sidekey.create_key(json!({})).await;
    let cold = sidekey.create_key(json!({})).await;
    assert_eq!(call_from(&sidekey, here, &warm.text).await.status(), 200);
    let start = Instant::now();
    for wrong in ["nonsense", &forged(&warm).text, "nonsense"] {
        assert_eq!(call_from(&sidekey, here, wrong).await.status(), 401);
    }
    let series = [
        "sidekey_bcrypt_runs_total",
        "sidekey_forged_keys_total",
        "sidekey_store_errors_total",
    ];
    let mut before = Vec::new();
    for name in series {
        before.push(sidekey.metric(name).await);
    }
    for wrong in [
        "nonsense",
        &forged(&cold).text,
        &forged(&warm).text,
        &cold.text,
    ] {
        let answer = call_from(&sidekey, here, wrong).await;
        assert_eq!(answer.status(), 429);
        assert!(!answer.headers().contains_key("www-authenticate"));
        let wait: u64 = answer.headers()["retry-after"]
            .to_str()
            .unwrap()
            .parse()
            .unwrap();
        let passed = start.elapsed().as_secs() + 1;
        assert!((28_800 - passed..=28_800).contains(&wait), "{wait}");
        let problem: Value = answer.json().await.unwrap();
        let kind = problem["type"].as_str().unwrap();
        assert!(kind.ends_with("#abnormal-usage-detected"), "{kind}");
        assert_eq!(
            call_from(&sidekey, here, &warm.text).await.status(),
            200,
            "known before"
        );
    }
    for (name, value) in series.iter().zip(before) {
        assert_eq!(sidekey.metric(name).await, value, "{name}");
    }
    assert_eq!(
        call_from(&sidekey, there, &cold.text).await.status(),
        200,
        "others go on"
    );
    assert_eq!(call_from(&sidekey, there, "nonsense").await.status(), 401);
    assert_eq!(
        anonymous(&sidekey, "/", here).await.status(),
        401,
        "no key is no wrong key"
    );
    assert_eq!(
        call_from(&sidekey, here, &cold.text).await.status(),
        200,
        "proven by now"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn in_shadow_wrong_keys_lock_nobody_out() {
    let upstream = Upstream::start().await;
    let shadow = OPTIONAL.replace("[proxy]", "[proxy]\nmode = \"shadow\"");
    let sidekey = Sidekey::start(&config(upstream.address, &shadow)).await;
    for _ in 0..6 {
        assert_eq!(
            call_from(&sidekey, "203.0.113.1", "nonsense")
                .await
                .status(),
            200
        );
    }
    let count = crate::contract::counts;
    count(
        &sidekey,
        "sidekey_shadow_refusals_total",
        "all",
        "invalid_key",
        3.0,
    )
    .await;
    count(
        &sidekey,
        "sidekey_shadow_refusals_total",
        "all",
        "failed_auth_limited",
        3.0,
    )
    .await;
}
