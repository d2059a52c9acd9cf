//! The key API's calls: what each answers when all is well, and what a key looks like in answers.
//! Input that is refused stands in `admin_input`, lists in `admin_list`, who may do what in
//! `tenants`.

use reqwest::Method;
use serde_json::{Value, json};
use sidekey::clock::Timestamp;

use crate::harness::api::Reply;
use crate::harness::sidekey::{KEYS, Sidekey, config};
use crate::harness::upstream::Upstream;

/// A key in answers has these fields, and no other.
pub const FIELDS: [&str; 22] = [
    "id",
    "name",
    "tenant_id",
    "environment",
    "origin",
    "credential",
    "hint",
    "scopes",
    "rate_limits",
    "allowed_ips",
    "contact_email",
    "rotation_days",
    "metadata",
    "status",
    "created_at",
    "updated_at",
    "expires_at",
    "revoked_at",
    "rotation_due_at",
    "last_used_at",
    "last_used_ip",
    "previous_secret",
];

/// Fails unless `key` has exactly the contract's fields, and times in RFC 3339, UTC.
#[track_caller]
pub fn assert_is_key(key: &Value) {
    let mut fields: Vec<&str> = key
        .as_object()
        .expect("an object")
        .keys()
        .map(String::as_str)
        .collect();
    let mut expected: Vec<&str> = FIELDS.to_vec();
    fields.sort_unstable();
    expected.sort_unstable();
    assert_eq!(fields, expected);
    for (name, value) in key.as_object().expect("an object") {
        if name.ends_with("_at") && !value.is_null() {
            millis(value);
        }
    }
}

/// A key that was asked for by its id, without what only then comes with it: its usage.
#[track_caller]
pub fn without_usage(mut key: Value) -> Value {
    let usage = key.as_object_mut().expect("an object").remove("usage");
    assert_eq!(usage.expect("usage")["requests"], 0);
    key
}

/// The moment of an answer's time.
#[track_caller]
pub fn millis(time: &Value) -> i64 {
    let text = time.as_str().unwrap_or_else(|| panic!("{time} is a time"));
    assert!(text.ends_with('Z'), "{text} is in UTC");
    Timestamp::parse(text).expect("RFC 3339").as_millis()
}

async fn start() -> (Upstream, Sidekey) {
    let upstream = Upstream::start().await;
    let sidekey = Sidekey::start(&config(upstream.address, "")).await;
    (upstream, sidekey)
}

fn path(id: &str) -> String {
    format!("{KEYS}/{id}")
}

fn full() -> Value {
    json!({
        "name": "Jörg's ☎ orders",
        "tenant_id": "acme",
        "environment": "test",
        "scopes": ["orders:*", "orders:read"],
        "rate_limits": [{"name": "minute", "quota": 60, "window_seconds": 60, "burst": 10}],
        "expires_at": "2099-01-01T01:30:00.5+01:00",
        "allowed_ips": ["10.0.0.0/8", "2001:db8::1"],
        "contact_email": "ops@example.com",
        "rotation_days": 30,
        "metadata": {"team": "a", "nested": {"n": [1, null]}},
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_created_key_is_answered_once_with_its_location() {
    let (_upstream, sidekey) = start().await;
    let created = sidekey.ask(Method::POST, KEYS, Some(&full())).await;
    assert_eq!(created.status, 201, "{created:?}");
    assert_eq!(created.header("content-type"), Some("application/json"));
    assert_eq!(created.header("cache-control"), Some("no-store"));
    let body = created.json();
    assert_eq!(body.as_object().unwrap().len(), 2, "{body}");
    let (key, text) = (&body["api_key"], body["key"].as_str().unwrap());
    let id = key["id"].as_str().unwrap();
    assert_eq!(created.header("location"), Some(path(id).as_str()));
    assert_is_key(key);
    for (field, value) in full().as_object().unwrap() {
        match field.as_str() {
            "expires_at" => assert_eq!(key[field], "2099-01-01T00:30:00.5Z"),
            "allowed_ips" => assert_eq!(key[field], json!(["10.0.0.0/8", "2001:db8::1/128"])),
            _ => assert_eq!(key[field], *value, "{field}"),
        }
    }
    assert_eq!(key["status"], "active");
    assert_eq!(key["created_at"], key["updated_at"]);
    assert_eq!(
        millis(&key["rotation_due_at"]) - millis(&key["created_at"]),
        30 * 86_400_000
    );
    for field in [
        "revoked_at",
        "last_used_at",
        "last_used_ip",
        "previous_secret",
    ] {
        assert!(key[field].is_null(), "{field}: {}", key[field]);
    }
    // The form of the contract, and a hint of it.
    let rest = text.strip_prefix(&format!("sk_test_{id}_")).expect("a key");
    assert_eq!((id.len(), rest.len()), (12, 54), "{text}");
    assert!(rest.bytes().all(|b| b.is_ascii_alphanumeric()), "{text}");
    assert_eq!(key["hint"], format!("sk_test_{id}_...{}", &rest[50..]));

    let shown = sidekey.ask(Method::GET, &path(id), None).await;
    assert_eq!(shown.status, 200);
    assert_eq!(shown.header("cache-control"), Some("no-store"));
    assert_eq!(without_usage(shown.json()), *key);
    let listed = sidekey
        .ask(Method::GET, &format!("{KEYS}?tenant_id=acme"), None)
        .await;
    assert_eq!(
        listed.json(),
        json!({"data": [key], "next_cursor": null}),
        "one and the same key"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_creation_leaves_out_has_a_default() {
    let (_upstream, sidekey) = start().await;
    let minimal = json!({"name": "n", "tenant_id": "acme", "environment": "live", "scopes": [], "expires_at": null});
    let created = sidekey.ask(Method::POST, KEYS, Some(&minimal)).await;
    assert_eq!(created.status, 201, "{created:?}");
    let key = created.json()["api_key"].clone();
    assert_is_key(&key);
    for (field, value) in [
        ("scopes", json!([])),
        ("rate_limits", Value::Null),
        ("allowed_ips", json!([])),
        ("contact_email", Value::Null),
        ("metadata", json!({})),
        ("expires_at", Value::Null),
    ] {
        assert_eq!(key[field], value, "{field}");
    }
    assert!(key["rotation_days"].as_u64().unwrap() > 0, "{key}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_patch_changes_what_it_names_and_nothing_else() {
    let (_upstream, sidekey) = start().await;
    let before = sidekey.ask(Method::POST, KEYS, Some(&full())).await.json()["api_key"].clone();
    let id = before["id"].as_str().unwrap();
    let mut expected = before.clone();
    for (field, value) in [
        ("name", json!("new")),
        ("scopes", json!(["orders:write"])),
        (
            "rate_limits",
            json!([{"name": "day", "quota": 5, "window_seconds": 86400, "burst": 5}]),
        ),
        ("expires_at", json!("2098-06-01T00:00:00Z")),
        ("allowed_ips", json!(["192.0.2.0/24"])),
        ("contact_email", json!("new@example.com")),
        ("rotation_days", json!(7)),
        ("metadata", json!({"a": 1})),
        ("status", json!("disabled")),
        ("status", json!("active")),
        ("rate_limits", Value::Null),
        ("expires_at", Value::Null),
        ("contact_email", Value::Null),
    ] {
        let changed = sidekey
            .ask(Method::PATCH, &path(id), Some(&json!({field: value})))
            .await;
        assert_eq!(changed.status, 200, "{field}: {changed:?}");
        assert_eq!(changed.header("cache-control"), Some("no-store"));
        let mut changed = changed.json();
        // Beside the key it says how far the change has come.
        let propagation = changed.as_object_mut().unwrap().remove("propagation");
        assert_eq!(propagation.unwrap()["confirmed"], 1);
        assert_is_key(&changed);
        assert!(millis(&changed["updated_at"]) >= millis(&expected["updated_at"]));
        expected[field] = value;
        expected["updated_at"] = changed["updated_at"].clone();
        if field == "rotation_days" {
            let due = millis(&before["created_at"]) + 7 * 86_400_000;
            assert_eq!(millis(&changed["rotation_due_at"]), due);
            expected["rotation_due_at"] = changed["rotation_due_at"].clone();
        }
        assert_eq!(changed, expected, "{field}");
        let shown = sidekey.ask(Method::GET, &path(id), None).await;
        assert_eq!(without_usage(shown.json()), expected, "{field}");
    }
}

/// Neither a version nor an audit event comes of it.
#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_changes_nothing_writes_nothing() {
    let (_upstream, sidekey) = start().await;
    let key = sidekey.create_key(json!({"name": "same"})).await;
    let get = async || sidekey.ask(Method::GET, &path(&key.id), None).await;
    let before = get().await;
    for body in [json!({}), json!({"name": "same", "status": "active"})] {
        let answer = sidekey.change_key(&key.id, body).await;
        assert_eq!(answer["updated_at"], before.json()["updated_at"]);
    }
    assert_eq!(get().await.header("etag"), before.header("etag"));
    let events = format!("/api/v1/platform/audit-events?key_id={}", key.id);
    let events = sidekey.ask(Method::GET, &events, None).await.json();
    assert_eq!(events["data"].as_array().map(Vec::len), Some(1), "{events}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_status_follows_time_and_switches() {
    let (_upstream, sidekey) = start().await;
    let key = sidekey.create_key(json!({})).await;
    let past = json!({"expires_at": "2001-01-01T00:00:00Z"});
    assert_eq!(sidekey.change_key(&key.id, past).await["status"], "expired");
    assert_eq!(sidekey.status("/", &key.text).await, 401);
    let again = json!({"expires_at": null, "status": "disabled"});
    assert_eq!(
        sidekey.change_key(&key.id, again).await["status"],
        "disabled"
    );
    assert_eq!(sidekey.status("/", &key.text).await, 401);
    let on = json!({"status": "active"});
    assert_eq!(sidekey.change_key(&key.id, on).await["status"], "active");
    assert_eq!(sidekey.status("/", &key.text).await, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_regenerated_key_keeps_its_id_and_shows_its_new_secret_once() {
    let (_upstream, sidekey) = start().await;
    let body = json!({
        "name": "n", "tenant_id": "acme", "environment": "live", "scopes": ["orders:*"],
    });
    let created = sidekey.ask(Method::POST, KEYS, Some(&body)).await.json();
    let id = created["api_key"]["id"].as_str().unwrap();
    let mut valid = vec![created["key"].as_str().unwrap().to_owned()];
    // Without a body, with an empty one, with the default spelled out; then with a grace period.
    for body in [
        None,
        Some(json!({})),
        Some(json!({"grace_period_seconds": null})),
        Some(json!({"grace_period_seconds": 0})),
        Some(json!({"grace_period_seconds": 3600})),
    ] {
        let path = format!("{KEYS}/{id}/regenerate");
        let reply = sidekey.ask(Method::POST, &path, body.as_ref()).await;
        assert_eq!(reply.status, 200, "{reply:?}");
        assert_eq!(reply.header("cache-control"), Some("no-store"));
        let json = reply.json();
        assert_eq!(json.as_object().unwrap().len(), 2, "{json}");
        assert_is_key(&json["api_key"]);
        assert_eq!(json["api_key"]["id"], id);
        assert_eq!(
            json["api_key"]["created_at"],
            created["api_key"]["created_at"]
        );
        let text = json["key"].as_str().unwrap().to_owned();
        let hint = json["api_key"]["hint"].as_str().unwrap();
        assert!(hint.ends_with(&text[text.len() - 4..]), "{hint} {text}");
        assert_eq!(sidekey.status("/", &text).await, 200);
        let graced = body.is_some_and(|body| body["grace_period_seconds"] == 3600);
        let old = valid.last().unwrap();
        assert_eq!(
            sidekey.status("/", old).await,
            if graced { 200 } else { 401 }
        );
        valid.push(text);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_key_stays_on_record_for_good() {
    let (_upstream, sidekey) = start().await;
    let key = sidekey.create_key(json!({})).await;
    let first = sidekey.ask(Method::DELETE, &path(&key.id), None).await;
    assert_eq!((first.status, first.text.as_str()), (204, ""));
    let revoked = sidekey.ask(Method::GET, &path(&key.id), None).await.json();
    let revoked = without_usage(revoked);
    assert_is_key(&revoked);
    assert_eq!(revoked["status"], "revoked");
    assert!(millis(&revoked["revoked_at"]) >= millis(&revoked["created_at"]));
    let second = sidekey.ask(Method::DELETE, &path(&key.id), None).await;
    assert_eq!((second.status, second.text.as_str()), (204, ""));
    // Nothing brings it back, and nothing moves the record.
    for (method, path, body) in [
        (Method::PATCH, path(&key.id), json!({"status": "active"})),
        (Method::PATCH, path(&key.id), json!({"name": "x"})),
        (
            Method::POST,
            format!("{KEYS}/{}/regenerate", key.id),
            json!({}),
        ),
    ] {
        let reply = sidekey.ask(method, &path, Some(&body)).await;
        reply.problem(409);
    }
    let after = sidekey.ask(Method::GET, &path(&key.id), None).await;
    assert_eq!(without_usage(after.json()), revoked);
    assert_eq!(sidekey.status("/", &key.text).await, 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn machines_need_no_key() {
    let (_upstream, sidekey) = start().await;
    let get = async |path: &str| sidekey.ask_as(None, Method::GET, path, None).await;
    let health = get("/healthz").await;
    assert_eq!(
        (health.status, &health.json()["status"]),
        (200, &json!("ok"))
    );
    let ready = get("/readyz").await;
    assert_eq!((ready.status, &ready.json()["status"]), (200, &json!("ok")));
    let metrics = get("/metrics").await;
    assert_eq!(metrics.status, 200);
    let media_type = metrics.header("content-type").unwrap();
    assert!(media_type.starts_with("text/plain"), "{media_type}");
    assert!(metrics.text.contains("# TYPE sidekey_"), "{}", metrics.text);
    // The proxy's own answers to these paths come from its routes, not from the admin port.
    let through: Reply = Reply::to(sidekey.request(Method::GET, "/metrics")).await;
    through.problem(401);
}
