//! Tenants over HTTP: what can be set, what is shown, and to whom.

use futures_util::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};

use super::{PATIENT, TENANTS, new_key, put, set, show};
use crate::harness::api::Reply;
use crate::harness::fleet::{FIELD, all_of};
use crate::harness::postgres::Postgres;
use crate::harness::sidekey::{KEYS, Key, Sidekey, config};
use crate::harness::upstream::nobody;

async fn start() -> Sidekey {
    Sidekey::start(&config(nobody(), PATIENT)).await
}

fn full() -> Value {
    json!({
        "display_name": "Acme, Inc.", "contact_email": "ops@acme.example", "max_keys": 20,
        "rate_limits": [{"name": "all", "quota": 600, "window_seconds": 60, "burst": null}],
    })
}

/// `reply`'s tenant without what the clock decides.
fn timeless(reply: &Reply) -> Value {
    let mut body = reply.json();
    let object = body.as_object_mut().unwrap();
    for member in ["created_at", "updated_at"] {
        assert!(object.remove(member).is_some_and(|time| time.is_string()));
    }
    object.remove("propagation");
    body
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_is_set_replaced_and_shown() {
    let sidekey = start().await;
    let made = put(&sidekey, "acme", full()).await;
    assert_eq!(made.status, 201, "{made:?}");
    assert_eq!(made.header("location"), Some(&*format!("{TENANTS}/acme")));
    assert_eq!(made.header("etag"), Some("\"r1\""));
    assert_eq!(made.header(FIELD), Some(&*all_of(1)));
    assert_eq!(made.header("cache-control"), Some("no-store"));
    let mut expected = full();
    expected["id"] = json!("acme");
    expected["key_count"] = json!(0);
    expected["status"] = json!("active");
    assert_eq!(timeless(&made), expected);

    sidekey.create_key(json!({})).await;
    let shown = show(&sidekey, "acme").await;
    assert_eq!(shown["key_count"], 1);
    // What is absent is none.
    let body = json!({"display_name": "Acme"});
    let replaced = put(&sidekey, "acme", body.clone()).await;
    assert_eq!(
        (replaced.status, replaced.header("etag")),
        (200, Some("\"r2\""))
    );
    assert_eq!(replaced.header("location"), None);
    let expected = json!({
        "id": "acme", "display_name": "Acme", "contact_email": null, "max_keys": null,
        "rate_limits": [], "key_count": 1, "status": "active",
    });
    assert_eq!(timeless(&replaced), expected);
    assert_eq!(replaced.json()["created_at"], made.json()["created_at"]);
    // The same once more is no change.
    let same = put(&sidekey, "acme", body).await;
    assert_eq!((same.status, same.header("etag")), (200, Some("\"r2\"")));
    assert_eq!(same.json()["updated_at"], replaced.json()["updated_at"]);
    // A key has made its tenant.
    sidekey.create_key(json!({"tenant_id": "by-key"})).await;
    assert_eq!(show(&sidekey, "by-key").await["max_keys"], Value::Null);
    assert_eq!(put(&sidekey, "by-key", json!({})).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_version_that_was_read_is_replaced() {
    let sidekey = start().await;
    let put_if = async |tag: &str, body: Value| {
        let request = sidekey.admin(Method::PUT, &format!("{TENANTS}/acme"));
        Reply::to(request.header("If-Match", tag).json(&body)).await
    };
    for tag in ["*", "\"r1\""] {
        let absent = put_if(tag, json!({})).await.problem(412);
        assert_eq!(absent["type"], "urn:sidekey:problem:precondition-failed");
    }
    put(&sidekey, "acme", json!({})).await;
    assert_eq!(put_if("\"r1\"", json!({"max_keys": 1})).await.status, 200);
    put_if("\"r1\"", json!({"max_keys": 2})).await.problem(412);
    put_if("W/\"r2\"", json!({"max_keys": 2}))
        .await
        .problem(412);
    assert_eq!(show(&sidekey, "acme").await["max_keys"], 1);
    put_if("r2", json!({"max_keys": 2})).await.problem(400);
    // Who wants to make one replaces none.
    let put_new = async |id: &str, field: &str| {
        let request = sidekey.admin(Method::PUT, &format!("{TENANTS}/{id}"));
        Reply::to(request.header("If-None-Match", field).json(&json!({}))).await
    };
    put_new("acme", "*").await.problem(412);
    put_new("acme", "\"r9\"").await.problem(400);
    assert_eq!(put_new("new", "*").await.status, 201);
    put_new("new", "*").await.problem(412);
    // Of those who come at once, one.
    let all = (0..8).map(|n| put_if("\"r2\"", json!({"max_keys": 100 + n})));
    let statuses: Vec<u16> = join_all(all).await.iter().map(|r| r.status).collect();
    let count = |wanted| statuses.iter().filter(|status| **status == wanted).count();
    assert_eq!((count(200), count(412)), (1, 7), "{statuses:?}");
    // A new key is no new version.
    sidekey.create_key(json!({})).await;
    assert_eq!(put_if("\"r3\"", json!({})).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_bad_field_is_named() {
    let sidekey = start().await;
    let body = json!({
        "display_name": " ", "contact_email": "x", "max_keys": "many", "status": "suspended",
        "rate_limits": [{"name": "a", "quota": 0, "window_seconds": 1}], "id": "acme",
    });
    assert_eq!(
        put(&sidekey, "-acme", body).await.bad_fields(),
        [
            "contact_email",
            "display_name",
            "id",
            "max_keys",
            "rate_limits",
            "status",
            "tenant_id"
        ]
    );
    let nine: Vec<Value> = (0..9)
        .map(|n| json!({"name": n.to_string(), "quota": 1, "window_seconds": 1}))
        .collect();
    for limits in [json!(nine), json!([nine[0], nine[0]]), json!({})] {
        let reply = put(&sidekey, "acme", json!({"rate_limits": limits})).await;
        assert_eq!(reply.bad_fields(), ["rate_limits"]);
    }
    let query = "limit=0&cursor=%21&status=expired&tenant_id=acme";
    let reply = sidekey
        .ask(Method::GET, &format!("{TENANTS}?{query}"), None)
        .await;
    assert_eq!(
        reply.bad_fields(),
        ["cursor", "limit", "status", "tenant_id"]
    );
    for (method, path) in [
        (Method::GET, "acme"),
        (Method::GET, "-"),
        (Method::POST, "acme/suspend"),
        (Method::POST, "acme/resume"),
        (Method::POST, "%2F/resume"),
    ] {
        let path = format!("{TENANTS}/{path}");
        sidekey.ask(method, &path, None).await.problem(404);
    }
    for (method, path) in [(Method::DELETE, "/acme"), (Method::POST, "")] {
        let path = format!("{TENANTS}{path}");
        sidekey.ask(method, &path, None).await.problem(405);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_go_page_by_page_in_the_order_of_ids() {
    let sidekey = start().await;
    for id in ["b", "a", "C", "d-2", "d-1"] {
        put(
            &sidekey,
            id,
            json!({"display_name": format!("Name of {id}")}),
        )
        .await;
    }
    set(&sidekey, "a", "suspend").await;
    set(&sidekey, "d-1", "suspend").await;
    let list = async |query: &str| {
        let path = format!("{TENANTS}?{query}");
        let reply = sidekey.ask(Method::GET, &path, None).await;
        assert_eq!(reply.status, 200, "{reply:?}");
        let body = reply.json();
        let ids = body["data"].as_array().unwrap().iter();
        let ids: Vec<String> = ids.map(|t| t["id"].as_str().unwrap().to_owned()).collect();
        (ids, body["next_cursor"].as_str().map(str::to_owned))
    };
    // The first admin key's tenant is one as well.
    let expected = ["C", "a", "b", "d-1", "d-2", "sidekey"];
    assert_eq!(list("").await.0, expected);
    let (mut seen, mut cursor) = (Vec::new(), String::new());
    loop {
        let (ids, next) = list(&format!("limit=4{cursor}")).await;
        seen.extend(ids);
        let Some(next) = next else { break };
        cursor = format!("&cursor={next}");
    }
    assert_eq!(seen, expected);
    assert_eq!(list("status=suspended").await.0, ["a", "d-1"]);
    assert_eq!(list("status=suspended&limit=1").await.0, ["a"]);
    assert_eq!(list("q=NAME%20OF%20d").await.0, ["d-1", "d-2"]);
    assert_eq!(list("q=d-&status=active").await.0, ["d-2"]);
    assert_eq!(list("q=").await.0, expected);
}

/// Who may see and set what; another tenant looks exactly like none.
#[tokio::test(flavor = "multi_thread")]
async fn a_tenants_keys_see_their_own_and_change_nothing() {
    let sidekey = start().await;
    put(&sidekey, "other", full()).await;
    put(&sidekey, "acme", full()).await;
    let key = async |scopes: Value| sidekey.create_key(json!({"scopes": scopes})).await;
    let reader = key(json!(["sidekey:keys:read"])).await;
    let writer = key(json!(["sidekey:keys:write"])).await;
    let ordinary = key(json!(["*"])).await;
    let ask = async |key: &Key, method: Method, path: &str| {
        let path = format!("{TENANTS}{path}");
        let body = (method == Method::PUT).then(|| json!({}));
        sidekey
            .ask_as(Some(&key.text), method, &path, body.as_ref())
            .await
    };
    assert_eq!(ask(&reader, Method::GET, "/acme").await.status, 200);
    let essence = async |path| {
        let mut body = ask(&reader, Method::GET, path).await.problem(404);
        body.as_object_mut().unwrap().remove("request_id");
        body
    };
    assert_eq!(essence("/other").await, essence("/nobody").await);
    for (query, expected) in [
        ("", vec!["acme"]),
        ("?q=ACM&status=active", vec!["acme"]),
        ("?status=suspended", vec![]),
        ("?q=other", vec![]),
    ] {
        let body = ask(&reader, Method::GET, query).await.json();
        let ids = body["data"].as_array().unwrap().iter();
        let ids: Vec<&str> = ids.map(|tenant| tenant["id"].as_str().unwrap()).collect();
        assert_eq!(
            (ids, &body["next_cursor"]),
            (expected, &Value::Null),
            "{query}"
        );
    }
    for key in [&writer, &ordinary] {
        for path in ["", "/acme", "/other"] {
            ask(key, Method::GET, path).await.problem(403);
        }
    }
    for key in [&reader, &writer, &ordinary] {
        for tenant in ["acme", "other", "nobody"] {
            ask(key, Method::PUT, &format!("/{tenant}"))
                .await
                .problem(403);
            for what in ["suspend", "resume"] {
                let path = format!("/{tenant}/{what}");
                ask(key, Method::POST, &path).await.problem(403);
            }
        }
    }
    let missing = sidekey.ask_as(None, Method::GET, TENANTS, None).await;
    missing.problem(401);
    assert_eq!(show(&sidekey, "acme").await["max_keys"], 20);

    // In its grace period an administrator's old secret reads.
    let admin = key(json!(["sidekey:admin"])).await;
    sidekey.regenerate_key(&admin.id, 3600).await;
    assert_eq!(ask(&admin, Method::GET, "/other").await.status, 200);
    ask(&admin, Method::PUT, "/other").await.problem(401);
    ask(&admin, Method::POST, "/other/suspend")
        .await
        .problem(401);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_has_no_more_keys_than_it_may_have() {
    let upstream = nobody();
    let postgres = Postgres::start().await;
    let postgres_url = postgres.url();
    for environment in [vec![], vec![("SIDEKEY__STORE__URL", postgres_url.as_str())]] {
        let sidekey = Sidekey::start_with(&config(upstream, ""), &environment).await;
        put(&sidekey, "acme", json!({"max_keys": 3})).await;
        let body = new_key();
        let create = || sidekey.ask(Method::POST, KEYS, Some(&body));
        let replies = join_all((0..10).map(|_| create())).await;
        let mut made = Vec::new();
        for reply in &replies {
            if reply.status == 201 {
                made.push(reply.json()["api_key"]["id"].as_str().unwrap().to_owned());
                continue;
            }
            let problem = reply.problem(409);
            assert_eq!(problem["type"], "urn:sidekey:problem:too-many-keys");
        }
        assert_eq!(made.len(), 3, "{replies:?}");
        assert_eq!(show(&sidekey, "acme").await["key_count"], 3);
        sidekey.create_key(json!({"tenant_id": "other"})).await;
        // A key that is disabled is one, one that is revoked is none.
        sidekey
            .change_key(&made[0], json!({"status": "disabled"}))
            .await;
        create().await.problem(409);
        sidekey.revoke_key(&made[1]).await;
        sidekey.revoke_key(&made[1]).await;
        assert_eq!(create().await.status, 201);
        create().await.problem(409);
        // A lower cap takes nobody's key away.
        put(&sidekey, "acme", json!({"max_keys": 0})).await;
        assert_eq!(show(&sidekey, "acme").await["key_count"], 3);
        create().await.problem(409);
        put(&sidekey, "acme", json!({})).await;
        assert_eq!(create().await.status, 201);
        put(&sidekey, "acme", json!({"max_keys": 0})).await;
        let once = sidekey.admin(Method::POST, KEYS).json(&body);
        let once = Reply::to(once.header("Idempotency-Key", "once")).await;
        once.problem(409);
        // Of those that were refused nothing is left behind.
        let config_file = sidekey.directory().join("sidekey.toml");
        let mut arguments = vec!["check", "--stores", "--config"];
        arguments.push(config_file.to_str().unwrap());
        let checked = crate::harness::run::run(sidekey.directory(), &arguments, &environment);
        assert_eq!(checked.code, Some(0), "{checked:?}");
    }
}
