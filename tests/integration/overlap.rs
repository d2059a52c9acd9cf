//! Ending the grace period of a regeneration before its time.

use reqwest::Method;
use serde_json::{Value, json};
use sqlx::AnyPool;

use crate::harness::api::{Reply, forget_use};
use crate::harness::sidekey::{KEYS, Sidekey, config};
use crate::harness::upstream::Upstream;

/// The hashes that the embedded secret store has of a key.
async fn hashes(sidekey: &Sidekey, id: &str) -> usize {
    sqlx::any::install_default_drivers();
    let file = sidekey.directory().join("data/sidekey.db");
    let pool = AnyPool::connect(&format!("sqlite://{}", file.display()))
        .await
        .unwrap();
    let rows = sqlx::query("SELECT generation FROM key_hashes WHERE key_id = $1")
        .bind(id.to_owned())
        .fetch_all(&pool)
        .await
        .unwrap();
    pool.close().await;
    rows.len()
}

/// A key as it is shown, but for what it was used for: that comes later, and nobody wrote it.
fn without_usage(shown: &Reply) -> Value {
    let mut key = shown.json();
    forget_use(&mut key);
    key
}

#[tokio::test(flavor = "multi_thread")]
async fn the_old_secret_ends_when_it_is_told() {
    let upstream = Upstream::start().await;
    let sidekey = Sidekey::start(&config(upstream.address, "")).await;
    let old = sidekey.create_key(json!({})).await;
    let path = format!("{KEYS}/{}/previous-secret", old.id);
    let none = sidekey.ask(Method::DELETE, &path, None).await;
    assert_eq!((none.status, none.text.as_str()), (204, ""));
    let new = sidekey.regenerate_key(&old.id, 3600).await;
    for key in [&old, &new] {
        assert_eq!(sidekey.status("/", &key.text).await, 200);
    }
    assert_eq!(hashes(&sidekey, &old.id).await, 2);
    let ended = sidekey.ask(Method::DELETE, &path, None).await;
    assert_eq!((ended.status, ended.text.as_str()), (204, ""));
    assert!(ended.header("sidekey-propagation").is_some(), "{ended:?}");
    assert_eq!(sidekey.status("/", &old.text).await, 401);
    assert_eq!(sidekey.status("/", &new.text).await, 200);
    assert_eq!(hashes(&sidekey, &old.id).await, 1);
    let one = format!("{KEYS}/{}", old.id);
    let before = sidekey.ask(Method::GET, &one, None).await;
    let again = sidekey.ask(Method::DELETE, &path, None).await;
    assert_eq!(again.status, 204);
    let after = sidekey.ask(Method::GET, &one, None).await;
    let (before, after) = (without_usage(&before), without_usage(&after));
    assert_eq!(before, after, "nothing was written");
    // A new overlap is possible, and a revoked key has none.
    let newer = sidekey.regenerate_key(&old.id, 3600).await;
    assert_eq!(sidekey.status("/", &new.text).await, 200);
    assert_eq!(sidekey.status("/", &newer.text).await, 200);
    sidekey.revoke_key(&old.id).await;
    assert_eq!(sidekey.ask(Method::DELETE, &path, None).await.status, 204);
}

#[tokio::test(flavor = "multi_thread")]
async fn it_takes_the_permissions_of_a_regeneration() {
    let sidekey = Sidekey::start(&config(crate::harness::upstream::nobody(), "")).await;
    let path = |id: &str| format!("{KEYS}/{id}/previous-secret");
    let reader = json!({"scopes": ["sidekey:keys:read"]});
    let writer = json!({"scopes": ["sidekey:keys:write"]});
    let reader = sidekey.create_key(reader).await;
    let writer = sidekey.create_key(writer).await;
    let own = sidekey.create_key(json!({})).await;
    let foreign = sidekey.create_key(json!({"tenant_id": "other"})).await;
    let administrator = json!({"scopes": ["sidekey:admin"]});
    let administrator = sidekey.create_key(administrator).await;
    let call = async |key: &str, id: &str| {
        let path = path(id);
        let reply = sidekey.ask_as(Some(key), Method::DELETE, &path, None);
        reply.await.status
    };
    assert_eq!(call(&reader.text, &own.id).await, 403);
    assert_eq!(call(&writer.text, &own.id).await, 204);
    assert_eq!(call(&writer.text, &foreign.id).await, 404);
    assert_eq!(call(&writer.text, &administrator.id).await, 403);
    assert_eq!(call(&writer.text, "000000000000").await, 404);
    // A key may end its own old secret; whoever holds that one may not.
    let renewed = sidekey.regenerate_key(&writer.id, 3600).await;
    assert_eq!(call(&writer.text, &writer.id).await, 401);
    assert_eq!(call(&renewed.text, &writer.id).await, 204);
}
