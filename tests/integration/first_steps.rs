//! The first five minutes of a newcomer.

use reqwest::Method;
use serde_json::json;

use crate::harness::sidekey::{Sidekey, config};
use crate::harness::upstream::Upstream;

#[tokio::test(flavor = "multi_thread")]
async fn create_call_revoke() {
    let upstream = Upstream::start().await;
    let sidekey = Sidekey::start(&config(upstream.address, "")).await;
    let without = sidekey
        .request(Method::GET, "/orders")
        .send()
        .await
        .unwrap();
    assert_eq!(without.status(), 401);
    let key = sidekey.create_key(json!({})).await;
    let answer = sidekey.get("/orders?page=2", &key.text).await;
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.headers()["ratelimit"], "\"default\";r=99;t=10");
    assert_eq!(upstream.last().method, "GET");
    assert_eq!(upstream.last().target, "/orders?page=2");
    assert_eq!(
        upstream.last().header("x-sidekey-key-id"),
        Some(key.id.as_str())
    );
    sidekey.revoke_key(&key.id).await;
    assert_eq!(sidekey.status("/orders", &key.text).await, 401);
    assert_eq!(upstream.count(), 1);
}
