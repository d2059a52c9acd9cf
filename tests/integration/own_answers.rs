//! The form of Sidekey's own answers: problem+json, never cached, the request's id, the connection
//! kept open, and nothing about internals.

use serde_json::Value;

use crate::cases::{World, bearer};
use crate::contract::check;
use crate::harness::raw::{Answer, Raw, get, request};

/// What nobody outside may learn from an answer.
const INTERNALS: [&str; 12] = [
    "pingora",
    "rust",
    "axum",
    "hyper",
    "sqlite",
    "bcrypt",
    "127.0.0.1",
    ".toml",
    ".rs",
    ".db",
    "panic",
    "error:",
];

fn check_form(name: &str, answer: &Answer) {
    assert_eq!(
        answer.header("content-type"),
        Some("application/problem+json"),
        "{name}"
    );
    assert_eq!(answer.header("cache-control"), Some("no-store"), "{name}");
    assert_eq!(answer.header("server"), None, "{name}");
    let body = answer.json();
    let mut members: Vec<&str> = body
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect();
    members.retain(|member| *member != "violated-policies");
    assert_eq!(
        members,
        ["type", "title", "status", "detail", "request_id"],
        "{name}"
    );
    assert_eq!(body["status"], answer.status, "{name}");
    assert!(
        body["request_id"].as_str().is_some_and(|id| !id.is_empty()),
        "{name}"
    );
    assert_eq!(
        body["request_id"].as_str(),
        answer.header("x-request-id"),
        "{name}"
    );
    for member in ["type", "title", "detail"] {
        assert!(
            body[member].as_str().is_some_and(|text| !text.is_empty()),
            "{name} {member}"
        );
    }
    let said = format!("{:?} {body}", answer.headers).to_lowercase();
    for secret in INTERNALS {
        assert!(!said.contains(secret), "{name} says {secret}: {said}");
    }
}

/// Every refusal, to GET, HEAD and POST with a body, all on one connection.
#[tokio::test(flavor = "multi_thread")]
async fn refusals_have_one_form_and_keep_the_connection() {
    let world = World::start("enforce").await;
    let mut raw = Raw::connect(world.sidekey.proxy).await;
    for case in &world.cases {
        let small = if case.body.is_empty() {
            "small body"
        } else {
            case.body
        };
        raw.send(case.request("POST", small)).await;
        let posted = raw.read_answer().await;
        check(case, &posted);
        check_form(case.name, &posted);
        if case.body.is_empty() {
            raw.send(case.request("GET", "")).await;
            let got = raw.read_answer().await;
            check(case, &got);
            check_form(case.name, &got);
            raw.send(case.request("HEAD", "")).await;
            let head = raw.read_head().await;
            assert_eq!(head.status, case.status, "{}", case.name);
            for name in [
                "content-type",
                "content-length",
                "cache-control",
                "www-authenticate",
            ] {
                assert_eq!(head.header(name), got.header(name), "{} {name}", case.name);
            }
        }
        // A body after HEAD, or one of ours that was left over, would be read as this answer.
        raw.send(get("/api/next", &[&bearer(&world.good)])).await;
        let next = raw.read_answer().await;
        assert_eq!(next.status, 200, "{}", case.name);
        assert_eq!(next.body, b"answer to GET /api/next", "{}", case.name);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_route_and_failing_services_have_the_same_form() {
    let world = World::start("enforce").await;
    for path in ["/nothing", "/refused", "/silent"] {
        let mut raw = Raw::connect(world.sidekey.proxy).await;
        raw.send(request("POST", path, &[&bearer(&world.good)], "small body"))
            .await;
        let answer = raw.read_answer().await;
        check_form(path, &answer);
        if path == "/nothing" {
            raw.send(get("/api/next", &[&bearer(&world.good)])).await;
            assert_eq!(raw.read_answer().await.status, 200);
        } else {
            // Where the connection can't be kept, the client is told.
            assert_eq!(answer.header("connection"), Some("close"), "{path}");
        }
        assert!(
            !answer
                .json()
                .to_string()
                .contains(&world.upstream.address.port().to_string())
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chunked_body_over_the_limit_is_413() {
    let world = World::start("enforce").await;
    let mut raw = Raw::connect(world.sidekey.proxy).await;
    let lines = [&*bearer(&world.good), "Transfer-Encoding: chunked"];
    raw.send(request("POST", "/small", &lines, "")).await;
    raw.send("6\r\nabcdef\r\n").await;
    raw.send("6\r\nghijkl\r\n").await;
    let answer = raw.read_answer().await;
    assert_eq!(answer.status, 413);
    check_form("chunked", &answer);
    // Right at the limit, it passes.
    let mut raw = Raw::connect(world.sidekey.proxy).await;
    raw.send(request("POST", "/small", &lines, "")).await;
    raw.send("a\r\nabcdefghij\r\n0\r\n\r\n").await;
    assert_eq!(raw.read_answer().await.status, 200);
    assert_eq!(world.upstream.last().body.as_ref(), b"abcdefghij");
}

#[tokio::test(flavor = "multi_thread")]
async fn announced_bodies_and_headers_pass_up_to_their_limits() {
    let world = World::start("enforce").await;
    let mut raw = Raw::connect(world.sidekey.proxy).await;
    raw.send(request(
        "POST",
        "/small",
        &[&bearer(&world.good)],
        "abcdefghij",
    ))
    .await;
    assert_eq!(raw.read_answer().await.status, 200);
    let bare = get("/api/x", &[&bearer(&world.good), "X-Padding: "]).len();
    for (total, status) in [(4096, 200), (4097, 431)] {
        let padding = format!("X-Padding: {}", "x".repeat(total - bare));
        let bytes = get("/api/x", &[&bearer(&world.good), &padding]);
        assert_eq!(bytes.len(), total);
        raw.send(bytes).await;
        assert_eq!(raw.read_answer().await.status, status, "{total} bytes");
    }
}

/// The request id of the client is its own affair, unless it comes from a trusted proxy.
#[tokio::test(flavor = "multi_thread")]
async fn a_strangers_request_id_is_not_taken_over() {
    let world = World::start("enforce").await;
    let mut raw = Raw::connect(world.sidekey.proxy).await;
    raw.send(get("/api/x", &["X-Request-Id: mine"])).await;
    let refused = raw.read_answer().await;
    assert_ne!(refused.json()["request_id"], Value::from("mine"));
    raw.send(get("/api/x", &["X-Request-Id: mine", &bearer(&world.good)]))
        .await;
    let passed = raw.read_answer().await;
    let seen = world.upstream.last();
    assert_eq!(seen.header("x-request-id"), passed.header("x-request-id"));
    assert_ne!(seen.header("x-request-id"), Some("mine"));
    assert_ne!(
        passed.header("x-request-id"),
        refused.header("x-request-id")
    );
}
