//! `Idempotency-Key`: a creation that is sent again is answered as before, and nothing is made twice.

use futures_util::future::join_all;
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};
use sqlx::{AnyPool, Row};

use crate::harness::api::Reply;
use crate::harness::eventually;
use crate::harness::fleet::Fleet;
use crate::harness::postgres::Postgres;
use crate::harness::sidekey::{KEYS, Sidekey, config};
use crate::harness::upstream::{Upstream, nobody};

const DAY_MS: i64 = 24 * 3600 * 1000;

fn body() -> Value {
    json!({"name": "n", "tenant_id": "acme", "environment": "live", "scopes": ["orders:read"]})
}

fn with_key(request: RequestBuilder, key: &str) -> RequestBuilder {
    request.header("idempotency-key", key)
}

async fn create(sidekey: &Sidekey, key: &str, body: &Value) -> Reply {
    let request = sidekey.admin(Method::POST, KEYS).json(body);
    Reply::to(with_key(request, key)).await
}

/// Fails unless `reply` is `first` again.
#[track_caller]
fn assert_replayed(reply: &Reply, first: &Reply) {
    assert_eq!((reply.status, &reply.text), (201, &first.text));
    for name in ["location", "etag", "cache-control", "content-type"] {
        assert_eq!(reply.header(name), first.header(name), "{name}");
    }
    assert_eq!(reply.header("idempotent-replayed"), Some("true"));
}

async fn count(sidekey: &Sidekey, tenant: &str) -> usize {
    let list = format!("{KEYS}?tenant_id={tenant}&limit=1000");
    let list = sidekey.ask(Method::GET, &list, None).await.json();
    list["data"].as_array().expect("data").len()
}

async fn database(sidekey: &Sidekey) -> AnyPool {
    sqlx::any::install_default_drivers();
    let file = sidekey.directory().join("data/sidekey.db");
    AnyPool::connect(&format!("sqlite://{}", file.display()))
        .await
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_is_sent_again_is_answered_as_before() {
    let upstream = Upstream::start().await;
    let sidekey = Sidekey::start(&config(upstream.address, "")).await;
    let first = create(&sidekey, "call-1", &body()).await;
    assert_eq!(first.status, 201, "{first:?}");
    assert_eq!(first.header("idempotent-replayed"), None);
    assert_replayed(&create(&sidekey, "call-1", &body()).await, &first);
    assert_replayed(&create(&sidekey, "\"call-1\"", &body()).await, &first);
    // The order of members does not matter.
    let reordered = r#"{"scopes": ["orders:read"], "environment": "live", "tenant_id": "acme", "name": "\u006e"}"#;
    let request = sidekey.admin(Method::POST, KEYS).body(reordered);
    let request = request.header("content-type", "application/json");
    assert_replayed(&Reply::to(with_key(request, "call-1")).await, &first);
    assert_eq!(count(&sidekey, "acme").await, 1);

    let mut other = body();
    other["name"] = json!("m");
    let reused = create(&sidekey, "call-1", &other).await.problem(409);
    assert_eq!(reused["type"], "urn:sidekey:problem:idempotency-key-reused");
    let second = create(&sidekey, "call-2", &other).await;
    assert_eq!(second.status, 201);
    assert_ne!(
        second.json()["api_key"]["id"],
        first.json()["api_key"]["id"]
    );

    // Whatever has become of the key, the answer is the one that was lost.
    let (id, key) = (
        first.json()["api_key"]["id"].clone(),
        first.json()["key"].clone(),
    );
    assert_eq!(sidekey.status("/", key.as_str().unwrap()).await, 200);
    let id = id.as_str().unwrap();
    sidekey.change_key(id, json!({"name": "changed"})).await;
    sidekey.regenerate_key(id, 0).await;
    assert_replayed(&create(&sidekey, "call-1", &body()).await, &first);
    sidekey.revoke_key(id).await;
    assert_replayed(&create(&sidekey, "call-1", &body()).await, &first);
    assert_eq!(count(&sidekey, "acme").await, 2);
    let sidekey = sidekey.restart().await;
    assert_replayed(&create(&sidekey, "call-1", &body()).await, &first);
    assert_eq!(count(&sidekey, "acme").await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_refused_is_not_remembered() {
    let sidekey = Sidekey::start(&config(nobody(), "")).await;
    let mut bad = body();
    bad["name"] = json!("");
    assert_eq!(create(&sidekey, "call", &bad).await.bad_fields(), ["name"]);
    assert_eq!(create(&sidekey, "call", &body()).await.status, 201);
    let long = "x".repeat(256);
    for key in ["", "\"\"", "\"open", "\"a\" b", "ä", "\"a\";b=1", &long] {
        let request = sidekey.admin(Method::POST, KEYS).json(&body());
        let value = reqwest::header::HeaderValue::from_bytes(key.as_bytes()).unwrap();
        let reply = Reply::to(request.header("idempotency-key", value)).await;
        assert_eq!(
            reply.problem(400)["type"],
            "urn:sidekey:problem:bad-request"
        );
    }
    let twice = sidekey.admin(Method::POST, KEYS).json(&body());
    let twice = with_key(with_key(twice, "a"), "a");
    Reply::to(twice).await.problem(400);
    assert_eq!(count(&sidekey, "acme").await, 1);
}

/// A tenant that may have no more keys gets none, and no hash of one either.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_tenant_may_not_have_leaves_nothing() {
    let sidekey = Sidekey::start(&config(nobody(), "")).await;
    let cap = json!({"max_keys": 1});
    let tenant = "/api/v1/platform/tenants/acme";
    let capped = sidekey.ask(Method::PUT, tenant, Some(&cap)).await;
    assert_eq!(capped.status, 201, "{capped:?}");
    assert_eq!(create(&sidekey, "first", &body()).await.status, 201);
    let second = create(&sidekey, "second", &body()).await;
    assert_eq!(second.status, 409, "{second:?}");
    let hashes = sqlx::query("SELECT key_id FROM key_hashes WHERE tenant_id = 'acme'");
    let hashes = hashes.fetch_all(&database(&sidekey).await).await.unwrap();
    assert_eq!(hashes.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_caller_has_names_of_their_own() {
    let sidekey = Sidekey::start(&config(nobody(), "")).await;
    let writer = json!({"scopes": ["sidekey:admin"], "tenant_id": "staff"});
    let writer = sidekey.create_key(writer).await;
    let as_writer = async |body: &Value| {
        let request = sidekey.admin_as(&writer.text, Method::POST, KEYS);
        Reply::to(with_key(request.json(body), "call")).await
    };
    let first = create(&sidekey, "call", &body()).await;
    let other = as_writer(&body()).await;
    assert_eq!(other.status, 201);
    assert_ne!(first.text, other.text);
    // Who may do less than before is not shown what they could have made then.
    let narrower = json!({"scopes": ["sidekey:keys:write"]});
    sidekey.change_key(&writer.id, narrower).await;
    as_writer(&body()).await.problem(404);
    assert_eq!(count(&sidekey, "acme").await, 2);
    sidekey
        .change_key(&writer.id, json!({"scopes": ["sidekey:keys:read"]}))
        .await;
    as_writer(&body()).await.problem(403);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_at_once_make_one_key() {
    let sidekey = Sidekey::start(&config(nobody(), "")).await;
    for round in 0..5 {
        let call = format!("call-{round}");
        let body = body();
        let replies = join_all((0..8).map(|_| create(&sidekey, &call, &body)));
        let replies = replies.await;
        let fresh = replies
            .iter()
            .filter(|reply| reply.header("idempotent-replayed").is_none());
        let fresh: Vec<&Reply> = fresh.collect();
        assert_eq!(fresh.len(), 1, "{replies:?}");
        for reply in &replies {
            assert_eq!((reply.status, &reply.text), (201, &fresh[0].text));
        }
        assert_eq!(count(&sidekey, "acme").await, round + 1);
    }
    // Nothing is left of those that came second.
    let pool = database(&sidekey).await;
    let hashes = sqlx::query("SELECT key_id FROM key_hashes WHERE tenant_id = 'acme'");
    assert_eq!(hashes.fetch_all(&pool).await.unwrap().len(), 5);
    pool.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn instances_make_one_key_together() {
    let postgres = Postgres::start().await;
    let fleet = Fleet::start(2, &postgres.url(), None, "").await;
    let mut body = body();
    body["tenant_id"] = json!("once");
    for round in 0..5 {
        let call = format!("call-{round}");
        let calls = (0..8).map(|n| create(&fleet.all[n % 2], &call, &body));
        let replies = join_all(calls).await;
        for reply in &replies {
            assert_eq!((reply.status, &reply.text), (201, &replies[0].text));
        }
        assert_eq!(count(&fleet.all[0], "once").await, round + 1);
    }
}

/// After a day a call is a new one, and until it is forgotten whoever reads the database finds neither
/// the secret nor the name of the call.
#[tokio::test(flavor = "multi_thread")]
async fn it_is_remembered_for_a_day_and_in_secret() {
    let sidekey = Sidekey::start(&config(nobody(), "")).await;
    let name = "name-of-a-call-5f1c";
    let first = create(&sidekey, name, &body()).await;
    assert_replayed(&create(&sidekey, name, &body()).await, &first);
    create(&sidekey, name, &json!({})).await.problem(409);
    let pool = database(&sidekey).await;
    let rows = sqlx::query("SELECT * FROM idempotent_answers").fetch_all(&pool);
    let row = &rows.await.unwrap()[0];
    let secret = first.json()["key"].as_str().unwrap().to_owned();
    let hidden = &secret[secret.len() - 54..];
    for column in [
        "actor_id",
        "digest",
        "body_digest",
        "answer",
        "sealed_secret",
    ] {
        let text: String = row.get(column);
        assert!(!text.is_empty());
        assert!(!text.contains(hidden) && !text.contains(name), "{column}");
    }
    let data = sidekey.directory().join("data");
    for file in std::fs::read_dir(data).unwrap() {
        let bytes = std::fs::read(file.unwrap().path()).unwrap();
        for needle in [hidden, name] {
            let needle = needle.as_bytes();
            assert!(!bytes.windows(needle.len()).any(|window| window == needle));
        }
    }
    for needle in [hidden, name] {
        assert!(!sidekey.output().contains(needle));
    }

    let age = async |milliseconds: i64| {
        let update = "UPDATE idempotent_answers SET created_at = created_at - $1";
        let update = sqlx::query(update).bind(milliseconds).execute(&pool);
        update.await.unwrap();
    };
    age(DAY_MS - 60_000).await;
    assert_replayed(&create(&sidekey, name, &body()).await, &first);
    age(60_000).await;
    let second = create(&sidekey, name, &body()).await;
    assert_eq!(
        (second.status, second.header("idempotent-replayed")),
        (201, None)
    );
    assert_ne!(second.text, first.text);
    assert_replayed(&create(&sidekey, name, &body()).await, &second);
    age(DAY_MS).await;
    let sidekey = sidekey.restart().await;
    eventually("it is forgotten", || async {
        let rows = sqlx::query("SELECT digest FROM idempotent_answers").fetch_all(&pool);
        rows.await.unwrap().is_empty()
    })
    .await;
    assert_eq!(count(&sidekey, "acme").await, 2);
    pool.close().await;
}
