//! Connections to services are shared by all clients: whatever a service does with one of them,
//! nobody gets somebody else's answer.

use serde_json::json;

use crate::harness::raw::{Raw, get, request};
use crate::harness::sidekey::{Sidekey, config};
use crate::harness::upstream::Scripted;

async fn start() -> (Scripted, Sidekey, String) {
    let upstream = Scripted::start().await;
    let sidekey = Sidekey::start(&config(upstream.address, "")).await;
    let key = sidekey.create_key(json!({})).await;
    (
        upstream,
        sidekey,
        format!("Authorization: Bearer {}", key.text),
    )
}

fn answer(body: &str) -> String {
    format!(
        "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// The next client, whose request must come on a new connection.
async fn next_client_is_served_anew(upstream: &Scripted, sidekey: &Sidekey, key: &str) {
    let mut client = Raw::connect(sidekey.proxy).await;
    client.send(get("/next", &[key])).await;
    let mut service = Raw::from(upstream.accept().await);
    let head = service.read_until(b"\r\n\r\n").await;
    assert!(head.starts_with(b"GET /next "));
    // What comes after this client must not find a connection that is about to end.
    let last = answer("for the next").replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n");
    service.send(last).await;
    assert_eq!(client.read_answer().await.body, b"for the next");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sound_connection_is_used_again() {
    let (upstream, sidekey, key) = start().await;
    let mut service = None;
    for round in ["one", "two", "three"] {
        let mut client = Raw::connect(sidekey.proxy).await;
        client.send(get(&format!("/{round}"), &[&key])).await;
        if service.is_none() {
            service = Some(Raw::from(upstream.accept().await));
        }
        let connection = service.as_mut().unwrap();
        let head = connection.read_until(b"\r\n\r\n").await;
        assert!(head.starts_with(format!("GET /{round} ").as_bytes()));
        connection.send(answer(round)).await;
        assert_eq!(client.read_answer().await.body, round.as_bytes());
        // A client can have its answer a moment before the connection is kept, but Sidekey reads
        // a client's next request only afterwards.
        client.send(get("/without-a-key", &[])).await;
        assert_eq!(client.read_answer().await.status, 401);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_before_the_end_of_the_upload_spoils_the_connection() {
    let (upstream, sidekey, key) = start().await;
    let mut client = Raw::connect(sidekey.proxy).await;
    let lines = [&*key, "Content-Length: 100000"];
    client
        .send(request("POST", "/upload", &lines, "") + "a part")
        .await;
    let mut service = Raw::from(upstream.accept().await);
    service.read_until(b"\r\n\r\n").await;
    service.send(answer("too much")).await;
    assert_eq!(client.read_answer().await.body, b"too much");
    // What the client goes on to send belongs to its upload, and to nobody else's request.
    client.try_send(get("/hidden", &[&key])).await;
    next_client_is_served_anew(&upstream, &sidekey, &key).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_behind_an_answer_are_nobodys() {
    let stray = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison";
    for first in [
        answer("first") + stray,
        format!("HTTP/1.1 204 No Content\r\n\r\n{stray}"),
        format!(
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n0\r\n\r\n{stray}"
        ),
    ] {
        let (upstream, sidekey, key) = start().await;
        let mut client = Raw::connect(sidekey.proxy).await;
        client.send(get("/first", &[&key])).await;
        let mut service = Raw::from(upstream.accept().await);
        service.read_until(b"\r\n\r\n").await;
        service.send(&first).await;
        let whole = client.read_answer().await;
        assert!(matches!(&*whole.body, b"first" | b""), "{first}");
        next_client_is_served_anew(&upstream, &sidekey, &key).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_come_while_a_connection_is_idle_spoil_it() {
    let (upstream, sidekey, key) = start().await;
    let mut client = Raw::connect(sidekey.proxy).await;
    client.send(get("/first", &[&key])).await;
    let mut service = Raw::from(upstream.accept().await);
    service.read_until(b"\r\n\r\n").await;
    service.send(answer("first")).await;
    assert_eq!(client.read_answer().await.body, b"first");
    service.send(answer("poison")).await;
    // Sidekey closes it when it notices.
    service.read_to_end().await;
    next_client_is_served_anew(&upstream, &sidekey, &key).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_dies_is_502_and_the_next_request_is_well() {
    let (upstream, sidekey, key) = start().await;
    for bytes in ["", "HTTP/1.1 200", "nonsense\r\n\r\n"] {
        let mut client = Raw::connect(sidekey.proxy).await;
        // Not repeatable: it must not be sent twice.
        client.send(request("POST", "/", &[&key], "body")).await;
        let mut service = Raw::from(upstream.accept().await);
        service.read_until(b"body").await;
        service.send(bytes).await;
        drop(service);
        let failed = client.read_answer().await;
        assert_eq!(failed.status, 502, "{bytes}");
        assert_eq!(
            failed.header("content-type"),
            Some("application/problem+json")
        );
        next_client_is_served_anew(&upstream, &sidekey, &key).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_connection_that_the_service_closed_is_not_used() {
    let (upstream, sidekey, key) = start().await;
    let mut client = Raw::connect(sidekey.proxy).await;
    client.send(get("/first", &[&key])).await;
    let mut service = Raw::from(upstream.accept().await);
    service.read_until(b"\r\n\r\n").await;
    service.send(answer("first")).await;
    assert_eq!(client.read_answer().await.body, b"first");
    drop(service);
    next_client_is_served_anew(&upstream, &sidekey, &key).await;
}
