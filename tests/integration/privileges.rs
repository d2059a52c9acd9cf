//! Privilege escalation on the admin port: nobody but `sidekey:admin` makes, changes, replaces or
//! revokes a key that can administrate. A key may always replace and revoke itself.

use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::api::Reply;
use crate::harness::sidekey::{KEYS, Key, Sidekey, config};
use crate::harness::upstream::nobody;

/// Grants that reach into Sidekey's own scopes.
const OWN_SCOPES: [&str; 8] = [
    "sidekey:admin",
    "sidekey:*",
    "sidekey:keys:*",
    "sidekey:keys:read",
    "sidekey:keys:write",
    "sidekey:usage:read",
    "sidekey:audit:read",
    "sidekey:usage:*",
];

async fn start() -> Sidekey {
    Sidekey::start(&config(nobody(), "")).await
}

async fn key_with(sidekey: &Sidekey, scopes: Value) -> Key {
    sidekey.create_key(json!({"scopes": scopes})).await
}

#[track_caller]
fn assert_needs_admin(reply: &Reply) {
    reply.problem(403);
    let challenge = reply.header("www-authenticate").unwrap_or_default();
    assert!(
        challenge.contains("error=\"insufficient_scope\", scope=\"sidekey:admin\""),
        "{reply:?}"
    );
}

async fn record(sidekey: &Sidekey, id: &str) -> Value {
    let path = format!("{KEYS}/{id}");
    sidekey.ask(Method::GET, &path, None).await.json()
}

#[tokio::test(flavor = "multi_thread")]
async fn only_an_administrator_grants_sidekeys_own_scopes() {
    let sidekey = start().await;
    let writer = key_with(&sidekey, json!(["sidekey:keys:*"])).await;
    let plain = key_with(&sidekey, json!(["orders:read"])).await;
    let before = record(&sidekey, &plain.id).await;
    let as_writer = async |method, path: &str, body: &Value| {
        sidekey
            .ask_as(Some(&writer.text), method, path, Some(body))
            .await
    };
    let one = format!("{KEYS}/{}", plain.id);
    for scope in OWN_SCOPES {
        for scopes in [json!([scope]), json!(["orders:read", scope])] {
            let new =
                json!({"name": "n", "tenant_id": "acme", "environment": "live", "scopes": scopes});
            assert_needs_admin(&as_writer(Method::POST, KEYS, &new).await);
            let change = json!({"scopes": scopes});
            assert_needs_admin(&as_writer(Method::PATCH, &one, &change).await);
            let by_admin = sidekey.ask(Method::POST, KEYS, Some(&new)).await;
            assert_eq!(by_admin.status, 201, "{scopes}");
        }
    }
    assert_eq!(record(&sidekey, &plain.id).await, before);
    // Texts that only look like them are no grants at all.
    for scope in [
        "SIDEKEY:admin",
        "sidekey",
        "sidekey:",
        "sidekey:admi*",
        "side*",
    ] {
        let reply = as_writer(Method::PATCH, &one, &json!({"scopes": [scope]})).await;
        assert_eq!(reply.bad_fields(), ["scopes"], "{scope}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wildcard_over_everything_is_no_admin_key() {
    let sidekey = start().await;
    let star = key_with(&sidekey, json!(["*"])).await;
    let reply = sidekey
        .ask_as(Some(&star.text), Method::GET, KEYS, None)
        .await;
    reply.problem(403);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenants_writer_has_no_power_over_keys_that_administrate() {
    let sidekey = start().await;
    let writer = key_with(&sidekey, json!(["sidekey:keys:read", "sidekey:keys:write"])).await;
    for scope in OWN_SCOPES {
        let target = key_with(&sidekey, json!(["orders:read", scope])).await;
        let before = record(&sidekey, &target.id).await;
        let one = format!("{KEYS}/{}", target.id);
        for (method, path, body) in [
            (Method::PATCH, one.clone(), Some(json!({"name": "mine"}))),
            // Not even to take the power away: that would be a way to shut administrators out.
            (Method::PATCH, one.clone(), Some(json!({"scopes": []}))),
            (
                Method::PATCH,
                one.clone(),
                Some(json!({"status": "disabled"})),
            ),
            (Method::PATCH, one.clone(), Some(json!({}))),
            (Method::POST, format!("{one}/regenerate"), None),
            (
                Method::POST,
                format!("{one}/regenerate"),
                Some(json!({"grace_period_seconds": 60})),
            ),
            (Method::DELETE, one.clone(), None),
        ] {
            let reply = sidekey
                .ask_as(Some(&writer.text), method, &path, body.as_ref())
                .await;
            assert_needs_admin(&reply);
            assert!(!reply.text.contains("\"key\""), "{reply:?}");
        }
        assert_eq!(record(&sidekey, &target.id).await, before, "{scope}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_writer_may_replace_and_revoke_itself_but_not_change_itself() {
    let sidekey = start().await;
    let writer = key_with(&sidekey, json!(["sidekey:keys:write"])).await;
    let one = format!("{KEYS}/{}", writer.id);
    for change in [
        json!({"scopes": ["sidekey:admin"]}),
        json!({"allowed_ips": []}),
    ] {
        let reply = sidekey
            .ask_as(Some(&writer.text), Method::PATCH, &one, Some(&change))
            .await;
        assert_needs_admin(&reply);
    }
    let again = format!("{one}/regenerate");
    let reply = sidekey
        .ask_as(Some(&writer.text), Method::POST, &again, None)
        .await;
    assert_eq!(reply.status, 200, "{reply:?}");
    let json = reply.json();
    assert_eq!(json["api_key"]["scopes"], json!(["sidekey:keys:write"]));
    let new = json["key"].as_str().unwrap().to_owned();
    // The old secret is worth nothing from here on.
    let old = sidekey
        .ask_as(Some(&writer.text), Method::DELETE, &one, None)
        .await;
    old.problem(401);
    let gone = sidekey.ask_as(Some(&new), Method::DELETE, &one, None).await;
    assert_eq!(gone.status, 204, "{gone:?}");
    let after = sidekey.ask_as(Some(&new), Method::DELETE, &one, None).await;
    after.problem(401);
}

#[tokio::test(flavor = "multi_thread")]
async fn rights_that_are_taken_away_are_gone_at_the_next_call() {
    let sidekey = start().await;
    let writer = key_with(&sidekey, json!(["sidekey:keys:read", "sidekey:keys:write"])).await;
    let list = async || {
        let reply = sidekey
            .ask_as(Some(&writer.text), Method::GET, KEYS, None)
            .await;
        reply.status
    };
    assert_eq!(list().await, 200);
    for (change, status) in [
        (json!({"scopes": ["sidekey:keys:write"]}), 403),
        (json!({"scopes": ["sidekey:keys:read"]}), 200),
        (json!({"allowed_ips": ["192.0.2.1"]}), 403),
        (json!({"allowed_ips": ["127.0.0.0/8"]}), 200),
        (json!({"status": "disabled"}), 401),
        (json!({"status": "active"}), 200),
    ] {
        sidekey.change_key(&writer.id, change.clone()).await;
        assert_eq!(list().await, status, "{change}");
    }
}
