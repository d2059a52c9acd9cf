//! The holder of a key asks what it may do, on the clients' port.

use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::api::Reply;
use crate::harness::eventually;
use crate::harness::redis::Redis;
use crate::harness::sidekey::{Sidekey, config};
use crate::harness::upstream::Upstream;

const PATH: &str = "/.well-known/api-key";
const ON: &str = "[self_service]\nenabled = true";

async fn about(sidekey: &Sidekey, key: &str) -> Reply {
    Reply::to(sidekey.request(Method::GET, PATH).bearer_auth(key)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_holder_sees_what_the_key_may_do_and_nothing_is_consumed() {
    let upstream = Upstream::start().await;
    let sidekey = Sidekey::start(&config(upstream.address, ON)).await;
    let limits = json!([{"name": "day", "quota": 10, "window_seconds": 86400}]);
    let fields = json!({
        "name": "mine", "rate_limits": limits, "allowed_ips": ["127.0.0.1"],
        "expires_at": "2099-01-01T00:00:00Z", "metadata": {"internal": "note"},
    });
    let key = sidekey.create_key(fields).await;
    assert_eq!(sidekey.status("/orders", &key.text).await, 200);
    for _ in 0..20 {
        let reply = about(&sidekey, &key.text).await;
        assert_eq!(reply.status, 200, "{reply:?}");
        assert_eq!(reply.header("content-type"), Some("application/json"));
        assert_eq!(reply.header("cache-control"), Some("no-store"));
        assert!(
            reply
                .header("ratelimit")
                .is_some_and(|field| field.starts_with("\"day\";r=9;"))
        );
        let mut body = reply.json();
        assert_eq!(body["rate_limits"][0]["remaining"], 9);
        for changing in ["hint", "rotation_due_at", "rate_limits"] {
            assert!(!body[changing].take().is_null(), "{changing}");
        }
        let expected = json!({
            "id": key.id, "name": "mine", "tenant_id": "acme", "environment": "live", "hint": null,
            "status": "active", "scopes": ["orders:*"], "allowed_ips": ["127.0.0.1/32"],
            "expires_at": "2099-01-01T00:00:00Z", "rotation_due_at": null, "secret": "current",
            "secret_valid_until": null, "rate_limits": null,
        });
        assert_eq!(body, expected);
    }
    let head = sidekey.request(Method::HEAD, PATH).bearer_auth(&key.text);
    let head = Reply::to(head).await;
    assert_eq!((head.status, head.text.as_str()), (200, ""));
    assert_eq!(upstream.count(), 1, "the service hears nothing of it");
    let series = "sidekey_requests_total{outcome=\"self_service\",route=\"(none)\"}";
    eventually("it is counted", || async {
        sidekey.metric(series).await > 0.0
    })
    .await;
    // Other methods are the service's.
    let post = sidekey.request(Method::POST, PATH).bearer_auth(&key.text);
    assert_eq!(Reply::to(post).await.status, 200);
    assert_eq!(upstream.count(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn it_follows_changes_and_tells_an_old_secret_from_the_current_one() {
    let upstream = Upstream::start().await;
    let sidekey = Sidekey::start(&config(upstream.address, ON)).await;
    let key = sidekey.create_key(json!({})).await;
    assert_eq!(
        about(&sidekey, &key.text).await.json()["name"],
        "a test's key"
    );
    sidekey
        .change_key(&key.id, json!({"name": "renamed", "scopes": []}))
        .await;
    let body = about(&sidekey, &key.text).await.json();
    assert_eq!(
        (&body["name"], &body["scopes"]),
        (&json!("renamed"), &json!([]))
    );
    let new = sidekey.regenerate_key(&key.id, 3600).await;
    let (old, new) = (
        about(&sidekey, &key.text).await,
        about(&sidekey, &new.text).await,
    );
    let (old, new) = (old.json(), new.json());
    assert_eq!(
        (&old["secret"], &new["secret"]),
        (&json!("previous"), &json!("current"))
    );
    assert!(old["secret_valid_until"].is_string() && new["secret_valid_until"].is_null());
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_not_act_is_refused_as_anywhere_else() {
    let upstream = Upstream::start().await;
    let sidekey = Sidekey::start(&config(upstream.address, ON)).await;
    let none = Reply::to(sidekey.request(Method::GET, PATH)).await;
    none.problem(401);
    assert_eq!(
        none.header("www-authenticate"),
        Some("Bearer realm=\"api\"")
    );
    about(&sidekey, "sk_live_wrong").await.problem(401);
    let key = sidekey.create_key(json!({})).await;
    let twice = sidekey
        .request(Method::GET, PATH)
        .bearer_auth(&key.text)
        .header("x-api-key", "x");
    Reply::to(twice).await.problem(400);
    sidekey
        .change_key(&key.id, json!({"status": "disabled"}))
        .await;
    let disabled = about(&sidekey, &key.text).await.problem(401);
    assert_eq!(disabled["type"], "urn:sidekey:problem:disabled-key");
    let elsewhere = sidekey
        .create_key(json!({"allowed_ips": ["203.0.113.1"]}))
        .await;
    about(&sidekey, &elsewhere.text).await.problem(403);
    sidekey.revoke_key(&key.id).await;
    let revoked = about(&sidekey, &key.text).await.problem(401);
    assert_eq!(revoked["type"], "urn:sidekey:problem:invalid-key");
    assert_eq!(upstream.count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_off_unless_it_is_asked_for_and_may_stand_elsewhere() {
    let upstream = Upstream::start().await;
    let off = Sidekey::start(&config(upstream.address, "")).await;
    let key = off.create_key(json!({})).await;
    assert_eq!(off.status(PATH, &key.text).await, 200);
    assert_eq!(upstream.last().target, PATH, "it is the service's");
    let more = "[self_service]\nenabled = true\npath = \"/me/\"";
    let elsewhere = Sidekey::start(&config(upstream.address, more)).await;
    let key = elsewhere.create_key(json!({})).await;
    let reply = Reply::to(
        elsewhere
            .request(Method::GET, "/me?x=1")
            .bearer_auth(&key.text),
    )
    .await;
    assert_eq!(reply.json()["id"], key.id.as_str());
    assert_eq!(upstream.count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn shared_limits_are_looked_at_and_not_touched() {
    let (upstream, redis) = (Upstream::start().await, Redis::start().await);
    let more = format!(
        "{ON}\n[limits]\nbackend = \"redis\"\n[redis]\nurl = \"{}\"\ntimeout_ms = 10000",
        redis.url()
    );
    let sidekey = Sidekey::start(&config(upstream.address, &more)).await;
    let limits = json!([{"name": "day", "quota": 5, "window_seconds": 86400}]);
    let key = sidekey.create_key(json!({"rate_limits": limits})).await;
    let remaining = async || -> Value {
        about(&sidekey, &key.text).await.json()["rate_limits"][0]["remaining"].clone()
    };
    for left in (0..5).rev() {
        assert_eq!(sidekey.status("/orders", &key.text).await, 200);
        for _ in 0..3 {
            assert_eq!(remaining().await, left);
        }
    }
    assert_eq!(sidekey.status("/orders", &key.text).await, 429);
    assert_eq!(remaining().await, 0);
}
