//! Client connections: nothing that was written waits for more, a header can't trickle in for
//! ever, and there is a limit to their number.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::harness::raw::{Raw, get};
use crate::harness::sidekey::{Sidekey, config};
use crate::harness::upstream::{Scripted, Upstream};
use crate::harness::{DEADLINE, eventually};

fn open_config(server: std::net::SocketAddr, more: &str) -> String {
    config(server, more).replace(
        "upstream = \"service\"",
        "upstream = \"service\"\nauth = \"off\"",
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn the_beginning_of_an_answer_of_known_length_does_not_wait_for_its_end() {
    let upstream = Scripted::start().await;
    let sidekey = Sidekey::start(&open_config(upstream.address, "")).await;
    let mut client = Raw::connect(sidekey.proxy).await;
    client.send(get("/", &[])).await;
    let mut service = upstream.accept().await;
    let mut request = [0u8; 4096];
    assert!(service.read(&mut request).await.unwrap() > 0);
    service
        .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\none")
        .await
        .unwrap();
    let head = client.read_head().await;
    assert_eq!(head.header("content-length"), Some("6"));
    assert_eq!(client.read_exact(3).await, b"one");
    service.write_all(b"two").await.unwrap();
    assert_eq!(client.read_exact(3).await, b"two");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_header_that_trickles_in_is_cut_off() {
    let upstream = Upstream::start().await;
    let sidekey = Sidekey::start(&open_config(
        upstream.address,
        "[proxy]\nheader_timeout_seconds = 1\n",
    ))
    .await;
    let mut client = Raw::connect(sidekey.proxy).await;
    // The connection was used before: the second header has a limit of its own.
    client.send(get("/first", &[])).await;
    assert_eq!(client.read_answer().await.status, 200);
    client
        .send("GET /second HTTP/1.1\r\nHost: a\r\nX-Slow: ")
        .await;
    let trickle = async {
        while client.try_send("x").await {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(DEADLINE, trickle)
        .await
        .expect("the connection is closed");
    assert_eq!(upstream.count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_connection_is_kept_and_its_next_header_may_take_its_time() {
    // More than a busy machine stands still.
    const HEADER_TIMEOUT: Duration = Duration::from_secs(15);
    let upstream = Upstream::start().await;
    let more = format!(
        "[proxy]\nheader_timeout_seconds = {}\n",
        HEADER_TIMEOUT.as_secs()
    );
    let sidekey = Sidekey::start(&open_config(upstream.address, &more)).await;
    let mut client = Raw::connect(sidekey.proxy).await;
    for (target, idle) in [
        ("/one", Duration::ZERO),
        ("/two", HEADER_TIMEOUT + Duration::from_millis(300)),
    ] {
        tokio::time::sleep(idle).await;
        let (begin, end) = (
            "GET ".to_owned(),
            format!("{target} HTTP/1.1\r\nHost: a\r\n\r\n"),
        );
        client.send(begin).await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        client.send(end).await;
        assert_eq!(client.read_answer().await.status, 200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn more_connections_than_allowed_are_closed_at_once() {
    let upstream = Upstream::start().await;
    let sidekey = Sidekey::start(&open_config(
        upstream.address,
        "[proxy]\nmax_connections = 3\n",
    ))
    .await;
    let mut open = Vec::new();
    for _ in 0..3 {
        let mut client = Raw::connect(sidekey.proxy).await;
        client.send(get("/", &[])).await;
        assert_eq!(client.read_answer().await.status, 200);
        open.push(client);
    }
    let mut fourth = Raw::connect(sidekey.proxy).await;
    fourth.try_send(get("/", &[])).await;
    assert!(fourth.read_to_end().await.is_empty());
    assert!(sidekey.metric("sidekey_connections_refused_total").await >= 1.0);
    drop(open);
    eventually("there is room again", || async {
        let mut client = Raw::connect(sidekey.proxy).await;
        client.try_send(get("/", &["Connection: close"])).await;
        !client.read_to_end().await.is_empty()
    })
    .await;
}
