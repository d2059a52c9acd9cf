//! The busiest tenants have series of their own, all others one.

use futures_util::future::join_all;
use reqwest::Method;
use serde_json::json;

use super::{NO_LIMITS, OFTEN, expect};
use crate::harness::sidekey::{Key, Sidekey, config};
use crate::harness::upstream::Upstream;

fn series(tenant: &str, outcome: &str) -> String {
    format!("sidekey_tenant_requests_total{{outcome=\"{outcome}\",tenant=\"{tenant}\"}}")
}

async fn key_of(sidekey: &Sidekey, tenant: &str) -> Key {
    sidekey.create_key(json!({"tenant_id": tenant})).await
}

async fn call(sidekey: &Sidekey, key: &Key, times: usize) {
    let calls = (0..times).map(|_| sidekey.status("/", &key.text));
    assert_eq!(join_all(calls).await, vec![200; times]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_busiest_are_shown_and_who_leaves_is_not() {
    let upstream = Upstream::start().await;
    let more = format!("{OFTEN}{NO_LIMITS}[metrics]\nmax_tenants = 2\n");
    let sidekey = Sidekey::start(&config(upstream.address, &more)).await;
    let acme = key_of(&sidekey, "acme").await;
    // A tenant that is called like the rest.
    let other = key_of(&sidekey, "other").await;
    let late = key_of(&sidekey, "late").await;
    call(&sidekey, &acme, 30).await;
    call(&sidekey, &other, 10).await;
    expect(&sidekey, &series("acme", "ok"), 30.0).await;
    expect(&sidekey, &series("other", "ok"), 10.0).await;
    expect(&sidekey, "sidekey_tenants_shown", 2.0).await;

    call(&sidekey, &late, 9).await;
    expect(&sidekey, &series("(other)", "ok"), 9.0).await;
    assert!(!sidekey.metrics().await.contains("tenant=\"late\""));
    // Now it is clearly busier than the second.
    call(&sidekey, &late, 40).await;
    expect(
        &sidekey,
        "sidekey_requests_total{outcome=\"forwarded\",route=\"all\"}",
        89.0,
    )
    .await;
    crate::harness::eventually("it is shown, and the other is not", || async {
        let text = sidekey.metrics().await;
        text.contains("tenant=\"late\"") && !text.contains("tenant=\"other\"")
    })
    .await;
    call(&sidekey, &other, 1).await;
    assert_eq!(sidekey.metric("sidekey_tenants_shown").await, 2.0);
    // Whatever was shown when: what was told of the one that left is gone, and all else is there.
    crate::harness::eventually("all is counted", || async {
        let all = ["acme", "late", "(other)"].map(|tenant| series(tenant, "ok"));
        let mut sum = 0.0;
        for series in &all {
            sum += sidekey.metric(series).await;
        }
        sum == 80.0
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_ending_counts_for_its_tenant() {
    let upstream = Upstream::start().await;
    let more = format!(
        "{OFTEN}\n[[routes]]\nname = \"write\"\npath = \"/write\"\nupstream = \"service\"\nscopes = [\"orders:write\"]\n"
    );
    let sidekey = Sidekey::start(&config(upstream.address, &more)).await;
    let limit = json!([{"name": "few", "quota": 4, "window_seconds": 3600}]);
    let key = sidekey
        .create_key(json!({"scopes": ["orders:read"], "rate_limits": limit}))
        .await;
    for (path, answer, status) in [
        ("/", "200", 200),
        ("/", "418", 418),
        ("/", "500", 500),
        ("/write", "200", 403),
        ("/", "200", 200),
        ("/", "200", 429),
    ] {
        let request = sidekey.request(Method::GET, path).bearer_auth(&key.text);
        let request = request.header("x-answer-status", answer);
        let got = request.send().await.expect("an answer").status();
        assert_eq!(got, status, "{path}");
    }
    expect(&sidekey, &series("acme", "ok"), 2.0).await;
    for outcome in ["error_4xx", "error_5xx", "denied", "rate_limited"] {
        expect(&sidekey, &series("acme", outcome), 1.0).await;
    }
    // Who has proven no key is of no tenant.
    assert_eq!(sidekey.status("/", "wrong").await, 401);
    expect(&sidekey, &series("(other)", "denied"), 0.0).await;
}
