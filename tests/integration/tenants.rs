//! What a tenant's keys see and make, where `api_matrix` does not look: filters, cursors, defaults.

use reqwest::Method;
use serde_json::json;

use crate::harness::sidekey::{KEYS, Sidekey, config};
use crate::harness::upstream::Upstream;

async fn start() -> (Upstream, Sidekey) {
    let upstream = Upstream::start().await;
    let sidekey = Sidekey::start(&config(upstream.address, "")).await;
    (upstream, sidekey)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenants_lists_hold_only_its_own_keys() {
    let (_upstream, sidekey) = start().await;
    let reader = sidekey
        .create_key(json!({"scopes": ["sidekey:keys:read"]}))
        .await;
    for tenant in ["acme", "other", "acme2"] {
        sidekey
            .create_key(json!({"tenant_id": tenant, "name": "needle"}))
            .await;
    }
    let list = async |query: &str| {
        let path = format!("{KEYS}{query}");
        let reply = sidekey
            .ask_as(Some(&reader.text), Method::GET, &path, None)
            .await;
        assert_eq!(reply.status, 200, "{reply:?}");
        reply.json()
    };
    for (query, count) in [
        ("", 2),
        ("?q=needle", 1),
        ("?status=active", 2),
        ("?tenant_id=acme", 2),
        ("?tenant_id=other", 0),
        ("?tenant_id=sidekey", 0),
    ] {
        let body = list(query).await;
        let keys = body["data"].as_array().unwrap();
        assert!(keys.iter().all(|key| key["tenant_id"] == "acme"), "{query}");
        assert_eq!(keys.len(), count, "{query}");
    }
    // Which of two is meant nobody can know.
    let path = format!("{KEYS}?tenant_id=other&tenant_id=acme");
    let twice = sidekey.ask_as(Some(&reader.text), Method::GET, &path, None);
    assert_eq!(twice.await.bad_fields(), ["tenant_id"]);
    // A cursor that stands on another tenant's key opens nothing of it.
    let all = sidekey
        .ask(Method::GET, &format!("{KEYS}?limit=1"), None)
        .await
        .json();
    let cursor = all["next_cursor"].as_str().unwrap();
    let body = list(&format!("?cursor={cursor}")).await;
    let keys = body["data"].as_array().unwrap();
    assert!(keys.iter().all(|key| key["tenant_id"] == "acme"), "{body}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenants_writer_makes_keys_for_its_own_tenant_also_unnamed() {
    let (_upstream, sidekey) = start().await;
    let writer = sidekey
        .create_key(json!({"scopes": ["sidekey:keys:write"]}))
        .await;
    let body = json!({"name": "n", "environment": "live", "scopes": ["*"]});
    let made = sidekey
        .ask_as(Some(&writer.text), Method::POST, KEYS, Some(&body))
        .await;
    assert_eq!(made.status, 201, "{made:?}");
    assert_eq!(made.json()["api_key"]["tenant_id"], "acme");
}
