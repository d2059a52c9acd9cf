//! What the key API refuses: bad fields (all of them at once), bodies that are no JSON object,
//! paths and methods that it doesn't have.

use reqwest::Method;
use serde_json::{Value, json};

use crate::admin::without_usage;
use crate::harness::api::Reply;
use crate::harness::raw::Raw;
use crate::harness::sidekey::{KEYS, Sidekey, config};
use crate::harness::upstream::nobody;

async fn start() -> Sidekey {
    Sidekey::start(&config(nobody(), "")).await
}

fn sound() -> Value {
    json!({"name": "n", "tenant_id": "acme", "environment": "live", "scopes": ["orders:read"]})
}

/// Values that a field can't have, at creation and in a change alike.
fn bad_values() -> Vec<(&'static str, Value)> {
    let long = "x".repeat(201);
    let policy =
        |quota: i64, window: i64| json!([{"name": "p", "quota": quota, "window_seconds": window}]);
    let mut bad = Vec::new();
    for value in [json!(""), json!("  "), json!(5), json!(long), json!("a\nb")] {
        bad.push(("name", value));
    }
    for value in [
        json!("orders:read"),
        json!([5]),
        json!(["nowhere:read"]),
        json!(["orders read"]),
        json!(["order*"]),
        json!(["sidekey:everything"]),
        json!(vec!["orders:read"; 101]),
    ] {
        bad.push(("scopes", value));
    }
    for value in [
        json!({}),
        json!([{"name": "p"}]),
        policy(0, 60),
        policy(60, 0),
        policy(-1, 60),
        json!([{"name": "p", "quota": 1, "window_seconds": 1, "burst": 0}]),
        json!([{"name": "p", "quota": 1, "window_seconds": 1, "bust": 9}]),
        json!([{"name": "p", "quota": 1, "window_seconds": 1}, {"name": "p", "quota": 2, "window_seconds": 1}]),
    ] {
        bad.push(("rate_limits", value));
    }
    for value in [
        json!("tomorrow"),
        json!("2099-01-01"),
        json!("2099-01-01T00:00:00"),
        json!("2099-13-01T00:00:00Z"),
        json!("12099-01-01T00:00:00Z"),
        json!(4_070_908_800_i64),
    ] {
        bad.push(("expires_at", value));
    }
    for value in [
        json!("10.0.0.1"),
        json!(["10.0.0.0/33"]),
        json!(["localhost"]),
        json!([7]),
    ] {
        bad.push(("allowed_ips", value));
    }
    for value in [
        json!("nobody"),
        json!("@x"),
        json!("a@b\r\nBcc: c@d"),
        json!(1),
    ] {
        bad.push(("contact_email", value));
    }
    for value in [json!(0), json!(-1), json!(3651), json!(1.5), json!("30")] {
        bad.push(("rotation_days", value));
    }
    for value in [json!([]), json!("x"), json!({"x": "y".repeat(9000)})] {
        bad.push(("metadata", value));
    }
    for value in [json!(null), json!("secret"), json!("sk_live")] {
        // Not for clients to set.
        bad.push(("hint", value));
    }
    bad
}

#[tokio::test(flavor = "multi_thread")]
async fn each_bad_field_is_named() {
    let sidekey = start().await;
    let key = sidekey.create_key(json!({})).await;
    let one = format!("{KEYS}/{}", key.id);
    let create = async |body: &Value| sidekey.ask(Method::POST, KEYS, Some(body)).await;
    let change = async |body: &Value| sidekey.ask(Method::PATCH, &one, Some(body)).await;
    let with = |field: &str, value: Value| {
        let mut body = sound();
        body[field] = value;
        body
    };
    for (field, value) in bad_values() {
        let reply = create(&with(field, value.clone())).await;
        assert_eq!(reply.bad_fields(), [field], "POST {field} = {value}");
        let reply = change(&json!({field: value})).await;
        assert_eq!(reply.bad_fields(), [field], "PATCH {field} = {value}");
    }
    for (field, value) in [
        ("tenant_id", json!("")),
        ("tenant_id", json!("a b")),
        ("tenant_id", json!(7)),
        ("tenant_id", json!("x".repeat(300))),
        ("tenant_id", Value::Null),
        ("environment", json!("prod")),
        ("environment", Value::Null),
        ("name", Value::Null),
        ("scopes", Value::Null),
        ("expires_at", json!("2001-01-01T00:00:00Z")),
        ("status", json!("disabled")),
        ("id", json!("x")),
        ("key", json!("sk_live_x")),
    ] {
        let reply = create(&with(field, value.clone())).await;
        assert_eq!(reply.bad_fields(), [field], "POST {field} = {value}");
    }
    for (field, value) in [
        ("status", json!("revoked")),
        ("status", json!("expired")),
        ("status", Value::Null),
        ("name", Value::Null),
        ("scopes", Value::Null),
        ("tenant_id", json!("acme")),
        ("environment", json!("live")),
        ("id", json!("x")),
        ("created_at", json!("2099-01-01T00:00:00Z")),
        ("revoked_at", Value::Null),
    ] {
        let reply = change(&json!({field: value})).await;
        assert_eq!(reply.bad_fields(), [field], "PATCH {field} = {value}");
    }
    for value in [
        json!(-1),
        json!(7_776_001),
        json!("0"),
        json!(1.5),
        json!(true),
    ] {
        let body = json!({"grace_period_seconds": value});
        let reply = sidekey
            .ask(Method::POST, &format!("{one}/regenerate"), Some(&body))
            .await;
        assert_eq!(reply.bad_fields(), ["grace_period_seconds"], "{value}");
    }
    // Nothing of all that was done.
    let shown = without_usage(sidekey.ask(Method::GET, &one, None).await.json());
    assert_eq!(shown["created_at"], shown["updated_at"]);
    let listed = sidekey
        .ask(Method::GET, &format!("{KEYS}?tenant_id=acme"), None)
        .await;
    assert_eq!(listed.json()["data"], json!([shown]));
}

#[tokio::test(flavor = "multi_thread")]
async fn all_bad_fields_are_named_at_once() {
    let sidekey = start().await;
    let key = sidekey.create_key(json!({})).await;
    let mut body = json!({"tenant_id": 1, "environment": "x", "first": 1, "second": null});
    for (field, value) in bad_values() {
        body[field] = value;
    }
    let every = [
        "allowed_ips",
        "contact_email",
        "environment",
        "expires_at",
        "first",
        "hint",
        "metadata",
        "name",
        "rate_limits",
        "rotation_days",
        "scopes",
        "second",
        "tenant_id",
    ];
    let created = sidekey.ask(Method::POST, KEYS, Some(&body)).await;
    assert_eq!(created.bad_fields(), every);
    body["status"] = json!("gone");
    let path = format!("{KEYS}/{}", key.id);
    let changed = sidekey.ask(Method::PATCH, &path, Some(&body)).await;
    let mut every_of_change: Vec<&str> = every.to_vec();
    every_of_change.push("status");
    every_of_change.sort_unstable();
    assert_eq!(changed.bad_fields(), every_of_change);
    let missing = sidekey.ask(Method::POST, KEYS, Some(&json!({}))).await;
    assert_eq!(
        missing.bad_fields(),
        ["environment", "name", "scopes", "tenant_id"]
    );
    let both = json!({"grace_period_seconds": -1, "grace": 1});
    let regenerate = format!("{path}/regenerate");
    let regenerated = sidekey.ask(Method::POST, &regenerate, Some(&both)).await;
    assert_eq!(regenerated.bad_fields(), ["grace", "grace_period_seconds"]);
    let query = format!("{KEYS}?limit=0&cursor=%21&tenant_id=a%20b&status=odd&page=2");
    let listed = sidekey.ask(Method::GET, &query, None).await;
    assert_eq!(
        listed.bad_fields(),
        ["cursor", "limit", "page", "status", "tenant_id"]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_must_be_a_short_json_object() {
    let sidekey = start().await;
    let key = sidekey.create_key(json!({})).await;
    let json_type = Some("application/json");
    let nested = format!("{}{}", "[".repeat(5000), "]".repeat(5000));
    let large = format!("{{\"name\": \"{}\"}}", "x".repeat(70_000));
    let bodies: Vec<(u16, Option<&str>, &[u8])> = vec![
        (400, json_type, b"{"),
        (400, json_type, b"{\"name\": }"),
        (400, json_type, b"[]"),
        (400, json_type, b"\"text\""),
        (400, json_type, b"null"),
        (400, json_type, b"{} {}"),
        (400, json_type, b"{\"name\": \"\xff\"}"),
        (400, json_type, nested.as_bytes()),
        (413, json_type, large.as_bytes()),
        (415, None, b"{}"),
        (415, Some("text/plain"), b"{}"),
        (415, Some("application/x-www-form-urlencoded"), b"name=x"),
        (415, Some("application/jsonp"), b"{}"),
        (422, Some("application/json; charset=utf-8"), b"{\"x\": 1}"),
        (422, Some("APPLICATION/JSON"), b"{\"x\": 1}"),
    ];
    let calls = [
        (Method::POST, KEYS.to_owned()),
        (Method::PATCH, format!("{KEYS}/{}", key.id)),
        (Method::POST, format!("{KEYS}/{}/regenerate", key.id)),
    ];
    for (method, path) in calls {
        for (status, media_type, body) in &bodies {
            let mut request = sidekey.admin(method.clone(), &path).body(body.to_vec());
            if let Some(media_type) = media_type {
                request = request.header("content-type", *media_type);
            }
            let start = String::from_utf8_lossy(&body[..body.len().min(40)]).into_owned();
            let reply = Reply::to(request).await;
            assert_eq!(
                reply.status, *status,
                "{method} {path} {media_type:?} {start}"
            );
            reply.problem(*status);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_body_is_refused_also_where_its_length_is_not_told() {
    let sidekey = start().await;
    let mut raw = Raw::connect(sidekey.admin).await;
    let head = format!(
        "POST {KEYS} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\n\
         Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n",
        sidekey.admin_key()
    );
    raw.send(head).await;
    for _ in 0..70 {
        // The program may answer and close before it was sent all of it.
        if !raw
            .try_send(format!("400\r\n{}\r\n", "x".repeat(1024)))
            .await
        {
            break;
        }
    }
    raw.try_send("0\r\n\r\n").await;
    assert_eq!(raw.read_head().await.status, 413);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_there_is_404_and_what_cannot_be_done_is_405() {
    let sidekey = start().await;
    let key = sidekey.create_key(json!({})).await;
    let one = format!("{KEYS}/{}", key.id);
    for (method, path) in [
        (Method::GET, "/".to_owned()),
        (Method::GET, "/api/v1/platform".to_owned()),
        (Method::GET, format!("{KEYS}/")),
        (Method::GET, format!("{KEYS}/000000000000")),
        (Method::PATCH, format!("{KEYS}/000000000000")),
        (Method::DELETE, format!("{KEYS}/000000000000")),
        (Method::POST, format!("{KEYS}/000000000000/regenerate")),
        (Method::GET, format!("{KEYS}/short")),
        (Method::GET, format!("{KEYS}/%00")),
        (Method::GET, format!("{KEYS}/%FF")),
        (Method::PATCH, format!("{KEYS}/%FF")),
        (Method::DELETE, format!("{KEYS}/%FF")),
        (Method::POST, format!("{KEYS}/%FF/regenerate")),
        (Method::GET, format!("{KEYS}/{}", key.text)),
        (Method::GET, format!("{one}/nothing")),
        (Method::GET, format!("{KEYS}/..%2f..")),
        (Method::GET, format!("{KEYS}/'%20OR%201=1--")),
    ] {
        let reply = sidekey.ask(method.clone(), &path, None).await;
        assert_eq!(reply.status, 404, "{method} {path}: {reply:?}");
        reply.problem(404);
    }
    for (path, wrong, allowed) in [
        (KEYS.to_owned(), "PUT PATCH DELETE", "GET,HEAD,POST"),
        (one.clone(), "PUT POST", "GET,HEAD,PATCH,DELETE"),
        (format!("{one}/regenerate"), "GET PUT DELETE", "POST"),
        (format!("{one}/previous-secret"), "GET POST PATCH", "DELETE"),
        ("/healthz".to_owned(), "POST DELETE", "GET,HEAD"),
        ("/readyz".to_owned(), "POST", "GET,HEAD"),
        ("/metrics".to_owned(), "POST", "GET,HEAD"),
    ] {
        for method in wrong.split(' ') {
            let method: Method = method.parse().unwrap();
            let reply = sidekey.ask(method.clone(), &path, None).await;
            assert_eq!(reply.status, 405, "{method} {path}: {reply:?}");
            reply.problem(405);
            let mut allow: Vec<&str> = reply
                .header("allow")
                .expect("Allow")
                .split(',')
                .map(str::trim)
                .collect();
            let mut expected: Vec<&str> = allowed.split(',').collect();
            allow.sort_unstable();
            expected.sort_unstable();
            assert_eq!(allow, expected, "{method} {path}");
        }
        let options = sidekey.ask_as(None, Method::OPTIONS, &path, None).await;
        assert_eq!(options.status, 204, "{path}: {options:?}");
        let mut allow: Vec<&str> = options.header("allow").expect("Allow").split(',').collect();
        let mut expected: Vec<&str> = allowed.split(',').collect();
        allow.sort_unstable();
        expected.sort_unstable();
        assert_eq!(allow, expected, "OPTIONS {path}");
    }
    // HEAD is GET without the body.
    for path in [KEYS, &one, "/healthz", "/readyz", "/metrics"] {
        let [head, get] = [Method::HEAD, Method::GET].map(|method| sidekey.ask(method, path, None));
        let (head, get) = (head.await, get.await);
        assert_eq!(
            (head.status, head.text.as_str()),
            (get.status, ""),
            "{path}"
        );
        assert_eq!(head.header("content-type"), get.header("content-type"));
        assert_eq!(head.header("etag"), get.header("etag"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn parameters_that_a_call_does_not_have_are_named() {
    let sidekey = start().await;
    let key = sidekey.create_key(json!({})).await;
    let one = format!("{KEYS}/{}", key.id);
    for (method, path) in [
        (Method::POST, KEYS.to_owned()),
        (Method::GET, one.clone()),
        (Method::PATCH, one.clone()),
        (Method::DELETE, one.clone()),
        (Method::POST, format!("{one}/regenerate")),
        (Method::DELETE, format!("{one}/previous-secret")),
    ] {
        let path = format!("{path}?dry_run=true&x=%20&limit=1");
        let reply = sidekey.ask(method.clone(), &path, None).await;
        assert_eq!(
            reply.bad_fields(),
            ["dry_run", "limit", "x"],
            "{method} {path}"
        );
        let reply = sidekey.ask_as(None, method, &path, None).await;
        reply.problem(401);
    }
    assert_eq!(sidekey.ask(Method::GET, &one, None).await.status, 200);
    for (query, field) in [
        ("environment=prod", "environment"),
        ("environment=", "environment"),
        ("expiring_before=soon", "expiring_before"),
        ("expiring_before=2027-01-01", "expiring_before"),
        ("unused_since=1", "unused_since"),
        ("unused_since=2027-01-01T00:00:00", "unused_since"),
        ("limit=5&limit=6", "limit"),
        ("status=active&status=active", "status"),
        ("Status=active", "Status"),
        ("q[]=a", "q[]"),
    ] {
        let path = format!("{KEYS}?{query}");
        let reply = sidekey.ask(Method::GET, &path, None).await;
        assert_eq!(reply.bad_fields(), [field], "{query}");
    }
}

/// What is too long is refused before anybody looks at it.
#[tokio::test(flavor = "multi_thread")]
async fn requests_have_a_size() {
    let sidekey = start().await;
    let (long, longer) = ("x".repeat(65_600), "x".repeat(200_000));
    let many = "x-a: b\r\n".repeat(200);
    for (request, statuses) in [
        (
            format!("GET {KEYS} HTTP/1.1\r\nHost: x\r\nx-long: {longer}\r\n\r\n"),
            [431, 431],
        ),
        (
            format!("GET {KEYS} HTTP/1.1\r\nHost: x\r\n{many}\r\n"),
            [431, 431],
        ),
        (
            format!("GET {KEYS}?q={long} HTTP/1.1\r\nHost: x\r\n\r\n"),
            [414, 431],
        ),
    ] {
        let mut raw = Raw::connect(sidekey.admin).await;
        raw.try_send(request).await;
        let answer = raw.read_head().await;
        assert!(statuses.contains(&answer.status), "{answer:?}");
    }
    assert_eq!(sidekey.ask(Method::GET, KEYS, None).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_admin_port_takes_one_bearer_credential() {
    let sidekey = start().await;
    let key = sidekey.admin_key();
    let url = format!("http://{}{KEYS}", sidekey.admin);
    let bearer = format!("Bearer {key}");
    let none = sidekey.client.get(&url);
    let two = sidekey.client.get(&url);
    for (request, status, challenge) in [
        (none.try_clone().unwrap(), 401, Some("Bearer realm=\"api\"")),
        (
            sidekey.client.get(&url).header("x-api-key", &key),
            401,
            Some("Bearer realm=\"api\""),
        ),
        (
            sidekey.client.get(format!("{url}?api_key={key}")),
            401,
            Some("Bearer realm=\"api\""),
        ),
        (
            none.bearer_auth("nonsense"),
            401,
            Some("Bearer realm=\"api\", error=\"invalid_token\""),
        ),
        (
            two.header("authorization", &bearer)
                .header("authorization", &bearer),
            400,
            None,
        ),
    ] {
        let reply = Reply::to(request).await;
        reply.problem(status);
        assert_eq!(reply.header("www-authenticate"), challenge, "{reply:?}");
    }
}
