//! Which route takes a request: the most specific one by host, path and method, or none; and where
//! browsers' preflight requests pass.

use crate::paths::{send, start};

/// Which route answered shows in the `scope` that its challenge asks for: every key lacks them.
const LAYERS: &str = r#"
[[scopes]]
name = "r:root"
[[scopes]]
name = "r:orders"
[[scopes]]
name = "r:orders-write"
[[scopes]]
name = "r:items"
[[scopes]]
name = "r:host"
[[scopes]]
name = "r:wild"
[[scopes]]
name = "r:deep"
[[routes]]
name = "root"
path = "/v1"
upstream = "service"
scopes = ["r:root"]
[[routes]]
name = "orders"
path = "/v1/orders"
upstream = "service"
scopes = ["r:orders"]
[[routes]]
name = "orders-write"
path = "/v1/orders"
methods = ["POST", "PUT"]
upstream = "service"
scopes = ["r:orders-write"]
[[routes]]
name = "items"
path = "/v1/orders/items/"
methods = ["GET"]
upstream = "service"
scopes = ["r:items"]
[[routes]]
name = "host"
host = "api.example.com"
path = "/v1"
upstream = "service"
scopes = ["r:host"]
[[routes]]
name = "wild"
host = "*.example.com"
path = "/"
upstream = "service"
scopes = ["r:wild"]
[[routes]]
name = "deep"
host = "*.eu.example.com"
path = "/"
upstream = "service"
scopes = ["r:deep"]
"#;

#[tokio::test(flavor = "multi_thread")]
async fn the_most_specific_route_wins_and_none_is_404() {
    let (upstream, sidekey, key) = start(LAYERS).await;
    let authorization = format!("Authorization: Bearer {}", key.text);
    for (method, host, target, route) in [
        ("GET", "x", "/v1", "root"),
        ("GET", "x", "/v1/", "root"),
        ("GET", "x", "/v1/ordersx", "root"),
        ("GET", "x", "/v1/orders", "orders"),
        ("GET", "x", "/v1/orders/7?x=/v1", "orders"),
        ("POST", "x", "/v1/orders/7", "orders-write"),
        ("PUT", "x", "/v1/%6frders", "orders-write"),
        ("GET", "x", "/v1/orders/items", "items"),
        ("GET", "x", "/v1/orders/items/7", "items"),
        ("POST", "x", "/v1/orders/items/7", "orders-write"),
        ("DELETE", "x", "/v1/orders/items/7", "orders"),
        ("GET", "api.example.com", "/v1/orders", "host"),
        ("GET", "api.example.com", "/v2", "wild"),
        ("GET", "www.example.com", "/v1/orders", "wild"),
        ("GET", "a.eu.example.com", "/v1", "deep"),
        ("GET", "x", "/", "404"),
        ("GET", "x", "/v", "404"),
        ("GET", "x", "/v11", "404"),
        ("GET", "x", "/V1", "404"),
        ("GET", "example.com", "/", "404"),
    ] {
        let line = format!("Host: {host}");
        let lines = [&*line, &authorization];
        let answer = send(&sidekey, method, target.as_bytes(), &lines).await;
        let shown = format!("{method} {host} {target}");
        if route == "404" {
            assert_eq!(answer.status, 404, "{shown}");
            assert_eq!(answer.json()["type"], "urn:sidekey:problem:no-route");
        } else {
            assert_eq!(answer.status, 403, "{shown}");
            let challenge = answer.header("www-authenticate").unwrap_or_default();
            let scope = format!("scope=\"r:{route}\"");
            assert!(challenge.ends_with(&scope), "{shown}: {challenge}");
        }
    }
    assert_eq!(upstream.targets(), Vec::<String>::new());
}

const CORS: &str = r#"
[[routes]]
name = "browsers"
path = "/app"
upstream = "service"
cors_preflight = true
[[routes]]
name = "read"
path = "/read"
methods = ["GET"]
upstream = "service"
cors_preflight = true
[[routes]]
name = "machines"
path = "/api"
upstream = "service"
"#;

#[tokio::test(flavor = "multi_thread")]
async fn preflight_requests_pass_only_where_the_route_says_so() {
    let (upstream, sidekey, _) = start(CORS).await;
    const ORIGIN: &str = "Origin: https://app.example";
    const ASKED: &str = "Access-Control-Request-Method: GET";
    for (method, target, lines, status) in [
        ("OPTIONS", "/app/x", &[ORIGIN, ASKED] as &[&str], 200),
        ("OPTIONS", "/read", &[ORIGIN, ASKED], 200),
        ("OPTIONS", "/api", &[ORIGIN, ASKED], 401),
        ("OPTIONS", "/app", &[ORIGIN], 401),
        ("OPTIONS", "/app", &[ASKED], 401),
        ("OPTIONS", "/app", &[], 401),
        ("GET", "/app", &[ORIGIN, ASKED], 401),
        ("POST", "/app", &[ORIGIN, ASKED], 401),
        ("OPTIONS", "/elsewhere", &[ORIGIN, ASKED], 404),
        (
            "OPTIONS",
            "/read",
            &[ORIGIN, "Access-Control-Request-Method: POST"],
            404,
        ),
    ] {
        let before = upstream.requests().len();
        let all: Vec<&str> = ["Host: x"].iter().chain(lines).copied().collect();
        let answer = send(&sidekey, method, target.as_bytes(), &all).await;
        assert_eq!(answer.status, status, "{method} {target} {lines:?}");
        let passed = upstream.requests().len() - before;
        assert_eq!(passed == 1, status == 200, "{method} {target} {lines:?}");
    }
    assert_eq!(upstream.last().method, "OPTIONS");
}
