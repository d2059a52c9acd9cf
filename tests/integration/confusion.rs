//! Requests that a lenient service could read differently than the gateway: paths, hosts, methods,
//! preflights, and fields that look like Sidekey's own. What needs a key under one reading does not
//! pass without it under another.

use serde_json::json;

use crate::harness::raw::{Answer, Raw};
use crate::harness::sidekey::{Key, Sidekey};
use crate::harness::wire::Wire;
use crate::paths::{send, start};

const PUBLIC_AND_ADMIN: &str = r#"
[[routes]]
name = "public"
path = "/"
upstream = "service"
auth = "off"
[[routes]]
name = "admin"
path = "/admin"
upstream = "service"
"#;

const PUBLIC: &str = r#"
[[routes]]
name = "public"
path = "/"
upstream = "service"
auth = "off"
"#;

fn authorization(key: &Key) -> String {
    format!("Authorization: Bearer {}", key.text)
}

/// Sends `bytes` on a connection of their own; the header of the answer.
async fn answer_to(sidekey: &Sidekey, bytes: impl AsRef<[u8]>) -> Answer {
    let mut raw = Raw::connect(sidekey.proxy).await;
    raw.send(bytes).await;
    raw.read_head().await
}

fn nothing_came(upstream: &Wire, shown: &str) {
    assert_eq!(upstream.targets(), Vec::<String>::new(), "{shown}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_path_whose_lenient_reading_needs_a_key_is_refused() {
    let (upstream, sidekey, key) = start(PUBLIC_AND_ADMIN).await;
    let key = authorization(&key);
    for target in [
        "/;/admin/x",
        "/;x=1/admin/x",
        "/%3b/admin/x",
        "/%3Bx/admin",
        "/;/;/admin",
        "/%2561dmin",
        "/%25%36%31dmin",
        "/admin%3fx",
        "/admin%3Fx/y",
        "/admin%23x",
        "/admin%253fx",
        "/admin%2523x",
        "/admin./x",
        "/admin.",
        "/admin.%20./x",
        "/admin%2e/x",
        "/admin%20/x",
        "/admin%20",
        "/admin;",
        "/admin;.x/y",
        "/admin%20;x/y",
        "/%20/admin",
        "/.../admin",
        "/...;x/admin",
        "/.%20/admin",
        "/a/..%20/admin",
        "/a/%20../admin",
        "/a/..%20;x/admin",
        "/a/..%3Fx/admin",
        "http://x/admin%3fx",
    ] {
        for lines in [&["Host: x"][..], &["Host: x", &key]] {
            let answer = send(&sidekey, "GET", target.as_bytes(), lines).await;
            assert_eq!(answer.status, 400, "{target}");
            let kind = answer.json()["type"].clone();
            assert_eq!(kind, "urn:sidekey:problem:ambiguous-path", "{target}");
            nothing_came(&upstream, target);
        }
    }
    let answer = send(&sidekey, "GET", b"/admin/x", &["Host: x", &key]).await;
    assert_eq!(answer.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_path_whose_readings_share_a_route_passes_byte_for_byte() {
    for routes in [PUBLIC, PUBLIC_AND_ADMIN] {
        let (upstream, sidekey, _) = start(routes).await;
        for target in [
            "/a;jsessionid=1",
            "/a/;jsessionid=1",
            "/;jsessionid=1",
            "/v1.2/a.b",
            "/a%3Fb",
            "/a%23b",
            "/a./b",
            "/a%20/b",
            "/a%2e",
            "/100%25",
            "/.well-known/x",
            "/.../x",
            "/a/%20/x",
        ] {
            let answer = send(&sidekey, "GET", target.as_bytes(), &["Host: x"]).await;
            assert_eq!(answer.status, 200, "{target}");
            assert_eq!(upstream.last().target(), target);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn inside_a_route_that_needs_a_key_odd_paths_pass_with_it() {
    let (upstream, sidekey, key) = start(PUBLIC_AND_ADMIN).await;
    let key = authorization(&key);
    for target in ["/admin/a;x=1", "/admin/;x", "/admin/a%3Fb", "/admin/a./b"] {
        let without = send(&sidekey, "GET", target.as_bytes(), &["Host: x"]).await;
        assert_eq!(without.status, 401, "{target}");
        let with = send(&sidekey, "GET", target.as_bytes(), &["Host: x", &key]).await;
        assert_eq!(with.status, 200, "{target}");
        assert_eq!(upstream.last().target(), target);
    }
}

const METHODS: &str = r#"
[[routes]]
name = "public"
path = "/"
upstream = "service"
auth = "off"
[[routes]]
name = "orders"
path = "/orders"
methods = ["GET"]
upstream = "service"
scopes = ["orders:read"]
"#;

async fn with_method(sidekey: &Sidekey, method: &str, lines: &str) -> u16 {
    let bytes = format!("{method} /orders HTTP/1.1\r\nHost: x\r\n{lines}\r\n");
    answer_to(sidekey, bytes).await.status
}

#[tokio::test(flavor = "multi_thread")]
async fn head_needs_the_key_that_get_needs() {
    let (upstream, sidekey, key) = start(METHODS).await;
    let key = authorization(&key) + "\r\n";
    for method in ["GET", "HEAD"] {
        assert_eq!(with_method(&sidekey, method, "").await, 401, "{method}");
    }
    nothing_came(&upstream, "without a key");
    for method in ["GET", "HEAD"] {
        assert_eq!(with_method(&sidekey, method, &key).await, 200, "{method}");
        assert_eq!(upstream.last().method, method);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_method_in_small_letters_is_refused() {
    let (upstream, sidekey, key) = start(METHODS).await;
    let key = authorization(&key) + "\r\n";
    for method in ["get", "Get", "gET", "head", "post", "Options", "delete"] {
        for lines in ["", &key] {
            assert_eq!(with_method(&sidekey, method, lines).await, 400, "{method}");
        }
    }
    nothing_came(&upstream, "in small letters");
}

/// By the contract the most specific match wins, and a route with methods matches no other ones.
#[tokio::test(flavor = "multi_thread")]
async fn a_method_that_the_longer_path_does_not_list_falls_to_the_public_route() {
    let (upstream, sidekey, _) = start(METHODS).await;
    for method in ["POST", "DELETE", "PURGE", "purge"] {
        let lines = "Content-Length: 0\r\n";
        assert_eq!(with_method(&sidekey, method, lines).await, 200, "{method}");
        assert_eq!(upstream.last().method, method);
    }
}

const HOSTS: &str = r#"
[[routes]]
name = "anyone"
path = "/"
upstream = "service"
auth = "off"
[[routes]]
name = "secret"
host = "secret.example.com"
path = "/"
upstream = "service"
"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_host_field_that_names_no_host_is_refused() {
    let (upstream, sidekey, key) = start(HOSTS).await;
    let key = authorization(&key) + "\r\n";
    let hosts: [&[u8]; 29] = [
        b"",
        b".",
        b"..",
        b".secret.example.com",
        b"secret.example.com..",
        b"secret.example.com.:80.",
        b"secret..example.com",
        b"secret.example.com/",
        b"secret.example.com/x",
        b"secret.example.com,x",
        b"x,secret.example.com",
        b"x, secret.example.com",
        b"\"secret.example.com\"",
        b"'secret.example.com'",
        b"secret.example.com\xa0",
        b"secret.example.com\xc2\xa0",
        b"secret.example.com%00",
        b"secret.example.com%20",
        b"%73ecret.example.com",
        b"secret%2eexample.com",
        b"secret.example.com]",
        b"[secret.example.com]",
        b"secret.example.com?",
        b"secret.example.com#",
        b"secret.example.com\\",
        b"secret.example.com:x",
        b"secret.example.com:80:80",
        b"user@secret.example.com",
        b"http://secret.example.com",
    ];
    for host in hosts {
        for lines in ["", &key] {
            let start: &[u8] = b"GET / HTTP/1.1\r\nHost: ";
            let bytes = [start, host, b"\r\n", lines.as_bytes(), b"\r\n"].concat();
            let shown = host.escape_ascii().to_string();
            assert_eq!(answer_to(&sidekey, bytes).await.status, 400, "{shown}");
            nothing_came(&upstream, &shown);
        }
    }
    for line in [
        "Host: secret.example.com\t",
        "Host:\t secret.example.com ",
        "Host: Secret.Example.Com.:",
        "HOST:secret.example.com:0080",
    ] {
        let bytes = format!("GET / HTTP/1.1\r\n{line}\r\n\r\n");
        assert_eq!(answer_to(&sidekey, bytes).await.status, 401, "{line:?}");
    }
    let twice = "GET / HTTP/1.1\r\nHost: x\r\nHost: secret.example.com\r\n\r\n";
    assert_eq!(answer_to(&sidekey, twice).await.status, 400);
    nothing_came(&upstream, "two Host fields");
}

const PREFLIGHTS: &str = r#"
[[routes]]
name = "forms"
path = "/forms"
methods = ["POST"]
upstream = "service"
auth = "off"
[[routes]]
name = "everything-else"
path = "/"
upstream = "service"
[[routes]]
name = "browsers"
path = "/app"
upstream = "service"
cors_preflight = true
"#;

/// Not a way to have an OPTIONS request sent along the route of another method.
#[tokio::test(flavor = "multi_thread")]
async fn a_preflight_that_its_route_does_not_let_pass_is_an_options_request() {
    let (upstream, sidekey, key) = start(PREFLIGHTS).await;
    let preflight = "Origin: https://a.example\r\nAccess-Control-Request-Method: POST\r\n";
    let options =
        |lines: &str| format!("OPTIONS /forms HTTP/1.1\r\nHost: x\r\n{preflight}{lines}\r\n");
    assert_eq!(answer_to(&sidekey, options("")).await.status, 401);
    nothing_came(&upstream, "without a key");
    let with = options(&(authorization(&key) + "\r\n"));
    assert_eq!(answer_to(&sidekey, with).await.status, 200);
    assert_eq!(upstream.last().method, "OPTIONS");
    let post = "POST /forms HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n";
    assert_eq!(answer_to(&sidekey, post).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_preflight_with_a_body_needs_the_key() {
    let (upstream, sidekey, key) = start(PREFLIGHTS).await;
    let key = authorization(&key) + "\r\n";
    let preflight = "OPTIONS /app HTTP/1.1\r\nHost: x\r\nOrigin: https://a.example\r\n\
                     Access-Control-Request-Method: POST\r\n";
    for body in [
        "Content-Length: 4\r\n\r\nbody",
        "Transfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n",
    ] {
        let before = upstream.requests().len();
        let without = answer_to(&sidekey, format!("{preflight}{body}")).await;
        assert_eq!(without.status, 401, "{body}");
        assert_eq!(upstream.requests().len(), before, "{body}");
        let with = answer_to(&sidekey, format!("{preflight}{key}{body}")).await;
        assert_eq!(with.status, 200, "{body}");
        assert_eq!(upstream.last().body, b"body");
    }
    for no_body in ["\r\n", "Content-Length: 0\r\n\r\n"] {
        let answer = answer_to(&sidekey, format!("{preflight}{no_body}")).await;
        assert_eq!(answer.status, 200, "{no_body}");
    }
    assert_eq!(upstream.faults(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn http_1_0_without_host_is_served_and_the_service_sees_a_host() {
    let (upstream, sidekey, _) = start(HOSTS).await;
    let answer = answer_to(&sidekey, "GET /a HTTP/1.0\r\n\r\n").await;
    assert_eq!(answer.status, 200);
    let host = upstream.last().header("host");
    assert_eq!(host, Some(upstream.address.to_string()));
    assert_eq!(upstream.faults(), Vec::<String>::new());
    let answer = answer_to(&sidekey, "GET /a HTTP/1.1\r\n\r\n").await;
    assert_eq!(answer.status, 400, "HTTP/1.1 asks for it");
}

#[tokio::test(flavor = "multi_thread")]
async fn absolute_form_without_host_goes_where_its_authority_says() {
    let (upstream, sidekey, key) = start(HOSTS).await;
    let key = authorization(&key) + "\r\n";
    let absolute = |authority: &str, lines: &str| {
        format!("GET http://{authority}/a?b HTTP/1.0\r\n{lines}\r\n")
    };
    for authority in [
        "secret.example.com",
        "SECRET.example.com:80",
        "secret.example.com.",
    ] {
        let answer = answer_to(&sidekey, absolute(authority, "")).await;
        assert_eq!(answer.status, 401, "{authority}");
    }
    for authority in ["user@secret.example.com", "secret.example.com..", ""] {
        let answer = answer_to(&sidekey, absolute(authority, "")).await;
        assert_eq!(answer.status, 400, "{authority}");
    }
    nothing_came(&upstream, "without a key");
    for (authority, lines) in [("secret.example.com", &*key), ("other.example", "")] {
        let answer = answer_to(&sidekey, absolute(authority, lines)).await;
        assert_eq!(answer.status, 200, "{authority}");
        let seen = upstream.last();
        assert_eq!(seen.target(), "/a?b");
        assert_eq!(seen.header("host").as_deref(), Some(authority));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn fields_that_look_like_sidekeys_own_are_gone() {
    let (upstream, sidekey, key) = start(PUBLIC_AND_ADMIN).await;
    let forged = [
        "X-Sidekey-Scopes",
        "X.Sidekey.Scopes",
        "X_Sidekey_Scopes",
        "x~sidekey!tenant*id",
        "X-Sidekey.Key_Id",
        "X-Sidekey-",
        "X_SIDEKEY_",
        "X-Sidekey-Anything",
        "X.Request.Id",
        "X_Request-Id",
    ];
    let mut lines: Vec<String> = forged.iter().map(|f| format!("{f}: forged")).collect();
    lines.extend(["Host: x".to_owned(), "X-Sidekeys: stays".to_owned()]);
    lines.push(authorization(&key));
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    for target in ["/", "/admin"] {
        let answer = send(&sidekey, "GET", target.as_bytes(), &lines).await;
        assert_eq!(answer.status, 200, "{target}");
        let seen = upstream.last();
        assert!(!seen.head_contains("forged"), "{seen:?}");
        assert_eq!(seen.header("x-sidekeys").as_deref(), Some("stays"));
        let identity = seen.headers.iter().filter(|(name, _)| {
            let folded = name.replace(|c: char| !c.is_ascii_alphanumeric(), "-");
            folded.starts_with("x-sidekey-")
        });
        let expected = if target == "/admin" { 3 } else { 0 };
        assert_eq!(identity.count(), expected, "{seen:?}");
    }
    let seen = upstream.last();
    assert_eq!(seen.header("x-sidekey-key-id"), Some(key.id));
    assert_eq!(seen.header("x-sidekey-scopes").as_deref(), Some("orders:*"));
    assert_eq!(json!(seen.header("x-sidekey-tenant-id")), "acme");
}
