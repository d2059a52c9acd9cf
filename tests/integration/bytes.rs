//! HTTP/1 on the wire: answers without a body, `Expect: 100-continue`, old clients, connections
//! that are kept, several requests at once, early hints, and ends that come too soon.

use serde_json::json;

use crate::harness::eventually;
use crate::harness::raw::{Raw, get, request};
use crate::harness::sidekey::{Sidekey, config};
use crate::harness::upstream::Scripted;
use crate::harness::wire::{Wire, ok};

async fn start(upstream: std::net::SocketAddr) -> (Sidekey, String) {
    let sidekey = Sidekey::start(&config(upstream, "")).await;
    let key = sidekey.create_key(json!({})).await;
    (sidekey, format!("Authorization: Bearer {}", key.text))
}

async fn nothing_in_flight(sidekey: &Sidekey) {
    eventually("no request is in flight", || async {
        sidekey.metric("sidekey_requests_in_flight").await == 0.0
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_without_a_body_keep_the_connection_in_step() {
    let upstream = Wire::answering(|request| match request.target().as_str() {
        "/204" => b"HTTP/1.1 204 No Content\r\n\r\n".to_vec(),
        "/304" => {
            b"HTTP/1.1 304 Not Modified\r\nETag: \"a\"\r\nContent-Length: 99\r\n\r\n".to_vec()
        }
        "/head" => b"HTTP/1.1 200 OK\r\nContent-Length: 1234\r\n\r\n".to_vec(),
        "/head-chunked" => b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec(),
        "/empty" => b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".to_vec(),
        "/chunked" => {
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n".to_vec()
        }
        _ => ok(request, "whole"),
    })
    .await;
    let (sidekey, key) = start(upstream.address).await;
    let mut client = Raw::connect(sidekey.proxy).await;
    for (method, target, status, length) in [
        ("GET", "/204", 204, None),
        ("GET", "/304", 304, Some("99")),
        ("HEAD", "/head", 200, Some("1234")),
        ("HEAD", "/head-chunked", 200, None),
        ("HEAD", "/304", 304, Some("99")),
        ("DELETE", "/204", 204, None),
    ] {
        client.send(request(method, target, &[&key], "")).await;
        let head = client.read_head().await;
        assert_eq!(head.status, status, "{method} {target}");
        assert_eq!(head.header("content-length"), length, "{method} {target}");
        assert!(head.header("ratelimit").is_some(), "{method} {target}");
        // The next answer starts right behind the header.
        for (target, body) in [("/empty", ""), ("/chunked", "ab"), ("/", "whole")] {
            client.send(get(target, &[&key])).await;
            let answer = client.read_answer().await;
            assert_eq!(answer.status, 200, "after {method} {target}");
            assert_eq!(answer.body, body.as_bytes(), "after {method} {target}");
        }
    }
    // Sidekey's own answers know HEAD too.
    client.send(request("HEAD", "/", &[], "")).await;
    let head = client.read_head().await;
    assert_eq!(head.status, 401);
    assert_ne!(head.header("content-length"), Some("0"));
    client.send(get("/", &[&key])).await;
    assert_eq!(client.read_answer().await.body, b"whole");
    assert_eq!(upstream.faults(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn who_expects_100_continue_gets_the_services() {
    let upstream = Scripted::start().await;
    let (sidekey, key) = start(upstream.address).await;
    let mut client = Raw::connect(sidekey.proxy).await;
    let lines = [&*key, "Expect: 100-continue", "Content-Length: 4"];
    client.send(request("POST", "/", &lines, "")).await;
    let mut service = Raw::from(upstream.accept().await);
    let head = service.read_until(b"\r\n\r\n").await;
    let head = String::from_utf8_lossy(&head).to_ascii_lowercase();
    assert!(head.contains("expect: 100-continue"), "{head}");
    service.send("HTTP/1.1 100 Continue\r\n\r\n").await;
    assert_eq!(client.read_head().await.status, 100);
    client.send("body").await;
    assert_eq!(service.read_exact(4).await, b"body");
    service
        .send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        .await;
    let answer = client.read_answer().await;
    assert_eq!((answer.status, &*answer.body), (200, &b"ok"[..]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_request_with_expect_is_answered_without_its_body() {
    let upstream = Wire::start().await;
    let (sidekey, key) = start(upstream.address).await;
    for (lines, status) in [
        (
            &["Expect: 100-continue", "Content-Length: 1000"] as &[&str],
            401,
        ),
        (&["Expect: 100-continue", "Transfer-Encoding: chunked"], 401),
        (
            &[&*key, "Expect: 100-continue", "Content-Length: 99999999999"],
            413,
        ),
    ] {
        let mut client = Raw::connect(sidekey.proxy).await;
        client.send(request("POST", "/", lines, "")).await;
        let answer = client.read_answer().await;
        assert_eq!(answer.status, status, "no 100 before it: {lines:?}");
        // Whether the body comes is unknown: nothing behind it may be taken for a request.
        let hidden = get("/hidden", &[&key]);
        client.try_send(hidden).await;
        assert_eq!(client.read_to_end().await, b"", "{lines:?}");
    }
    assert_eq!(upstream.targets(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_request_keeps_the_connection_and_its_body_is_no_request() {
    let upstream = Wire::start().await;
    let (sidekey, key) = start(upstream.address).await;
    let mut client = Raw::connect(sidekey.proxy).await;
    let hidden = get("/hidden", &[&key]);
    for path in ["/a", "/a/../b"] {
        client.send(request("POST", path, &[], &hidden)).await;
        let answer = client.read_answer().await;
        assert!(matches!(answer.status, 400 | 401), "{path}");
        assert_ne!(answer.header("connection"), Some("close"), "{path}");
    }
    client.send(get("/next", &[&key])).await;
    assert_eq!(client.read_answer().await.body, b"answer to /next");
    assert_eq!(upstream.targets(), ["/next"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn old_clients_are_served() {
    let upstream = Wire::answering(|request| match request.target().as_str() {
        "/chunked" => {
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n".to_vec()
        }
        _ => ok(request, "abc"),
    })
    .await;
    let (sidekey, key) = start(upstream.address).await;
    for path in ["/length", "/chunked"] {
        for host in ["", "Host: test.example\r\n"] {
            let mut client = Raw::connect(sidekey.proxy).await;
            let get = format!("GET {path} HTTP/1.0\r\n{host}{key}\r\n\r\n");
            client.send(get).await;
            let head = client.read_head().await;
            assert_eq!(head.status, 200, "{path} {host}");
            let coding = head.header("transfer-encoding");
            assert_eq!(coding, None, "HTTP/1.0 knows none: {path} {host}");
            assert_eq!(client.read_to_end().await, b"abc", "{path} {host}");
        }
    }
    let mut client = Raw::connect(sidekey.proxy).await;
    client.send("GET / HTTP/1.0\r\n\r\n").await;
    assert_eq!(client.read_answer().await.status, 401);
    assert_eq!(client.read_to_end().await, b"");
    assert_eq!(upstream.faults(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_are_kept_until_someone_wants_otherwise() {
    let upstream = Wire::start().await;
    let (sidekey, key) = start(upstream.address).await;
    let mut client = Raw::connect(sidekey.proxy).await;
    for round in 0..3 {
        client.send(get(&format!("/{round}"), &[&key])).await;
        let answer = client.read_answer().await;
        assert_eq!(answer.body, format!("answer to /{round}").as_bytes());
        client.send(get("/", &[])).await;
        assert_eq!(client.read_answer().await.status, 401);
        client.send(get("/a/../b", &[&key])).await;
        assert_eq!(client.read_answer().await.status, 400);
    }
    client
        .send(get("/last", &[&key, "Connection: close"]))
        .await;
    let answer = client.read_answer().await;
    assert_eq!(answer.body, b"answer to /last");
    assert_eq!(client.read_to_end().await, b"");
}

/// RFC 9112, section 9.3.2: they are answered in order, or the connection ends.
#[tokio::test(flavor = "multi_thread")]
async fn pipelined_requests_are_answered_in_order_or_not_at_all() {
    let upstream = Wire::start().await;
    let (sidekey, key) = start(upstream.address).await;
    let mut client = Raw::connect(sidekey.proxy).await;
    let all: String = (0..3).map(|n| get(&format!("/{n}"), &[&key])).collect();
    client.send(all).await;
    let first = client.read_answer().await;
    assert_eq!(first.body, b"answer to /0");
    client.finish().await;
    let rest = String::from_utf8(client.read_to_end().await).unwrap();
    let bodies: Vec<&str> = rest.matches("answer to /").collect();
    let in_order = (1..=bodies.len()).all(|n| rest.contains(&format!("answer to /{n}")));
    assert!(in_order, "{rest}");
    assert_eq!(upstream.targets().len(), 1 + bodies.len());
    // The key of one request is not the key of the next.
    let mut client = Raw::connect(sidekey.proxy).await;
    let second = get("/hidden", &[]);
    client.send(get("/first", &[&key]) + second.as_str()).await;
    client.read_answer().await;
    client.finish().await;
    client.read_to_end().await;
    assert!(!upstream.targets().contains(&"/hidden".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn early_hints_go_through() {
    let upstream = Scripted::start().await;
    let (sidekey, key) = start(upstream.address).await;
    let mut client = Raw::connect(sidekey.proxy).await;
    client.send(get("/page", &[&key])).await;
    let mut service = Raw::from(upstream.accept().await);
    service.read_until(b"\r\n\r\n").await;
    service
        .send("HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n")
        .await;
    let hints = client.read_head().await;
    assert_eq!(hints.status, 103);
    assert_eq!(hints.header("link"), Some("</a.css>; rel=preload"));
    service
        .send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\npage")
        .await;
    let answer = client.read_answer().await;
    assert_eq!((answer.status, &*answer.body), (200, &b"page"[..]));
    assert!(answer.header("ratelimit").is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_breaks_off_does_not_look_whole() {
    for start_of_answer in [
        "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nhalf",
    ] {
        let upstream = Scripted::start().await;
        let (sidekey, key) = start(upstream.address).await;
        let mut client = Raw::connect(sidekey.proxy).await;
        client.send(get("/", &[&key])).await;
        let mut service = Raw::from(upstream.accept().await);
        service.read_until(b"\r\n\r\n").await;
        service.send(start_of_answer).await;
        drop(service);
        let all = String::from_utf8(client.read_to_end().await).unwrap();
        let (_, body) = all.split_once("\r\n\r\n").expect("a header");
        assert!(!body.ends_with("0\r\n\r\n"), "{all}");
        assert!(body.len() < 10 || all.contains("chunked"), "{all}");
        nothing_in_flight(&sidekey).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_goes_away_leaves_nothing_behind() {
    let upstream = Scripted::start().await;
    let (sidekey, key) = start(upstream.address).await;
    let half_a_body = [&*key, "Content-Length: 100"];
    for (bytes, answer) in [
        (request("POST", "/", &half_a_body, "") + "half", ""),
        (get("/", &[&key]), ""),
        (
            get("/", &[&key]),
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
        ),
    ] {
        let mut client = Raw::connect(sidekey.proxy).await;
        client.send(&bytes).await;
        let mut service = Raw::from(upstream.accept().await);
        service.read_until(b"\r\n\r\n").await;
        if !answer.is_empty() {
            service.send(answer).await;
            client.read_head().await;
        }
        assert_eq!(sidekey.metric("sidekey_requests_in_flight").await, 1.0);
        drop(client);
        // The service is told, and the connection is not used again.
        service.read_to_end().await;
        nothing_in_flight(&sidekey).await;
    }
}
