//! The end of the process, and its next start: requests in flight are finished, idle connections
//! closed, what never ends is cut off, and the exit code says that all is well.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::net::TcpStream;

use crate::harness::eventually;
use crate::harness::raw::Raw;
use crate::harness::sidekey::{Sidekey, config, program};
use crate::harness::upstream::{Scripted, Upstream};

/// Of `proxy.shutdown_seconds`.
const DEFAULT: Duration = Duration::from_secs(10);
/// Requests may take as long as a busy machine needs for them. What waits for it runs into the deadline of
/// `Sidekey::wait`.
const PATIENT: &str = "[proxy]\nshutdown_seconds = 3600";

/// How many pieces of an answer follow the signal.
const PIECES: usize = 300;

async fn stops_accepting(sidekey: &Sidekey) {
    let proxy = sidekey.proxy;
    eventually("nothing is accepted any more", || async move {
        TcpStream::connect(proxy).await.is_err()
    })
    .await;
}

async fn a_request_in_flight_is_finished_after(signal: &str) {
    let upstream = Scripted::start().await;
    let mut sidekey = Sidekey::start(&config(upstream.address, PATIENT)).await;
    let key = sidekey.create_key(json!({})).await;
    let get = format!(
        "GET /slow HTTP/1.1\r\nHost: test.example\r\nAuthorization: Bearer {}\r\n\r\n",
        key.text
    );
    let mut idle = Raw::connect(sidekey.proxy).await;
    idle.send("GET / HTTP/1.1\r\nHost: test.example\r\n\r\n")
        .await;
    assert_eq!(idle.read_answer().await.status, 401);
    let mut client = Raw::connect(sidekey.proxy).await;
    client.send(&get).await;
    let mut service = Raw::from(upstream.accept().await);
    service.read_until(b"\r\n\r\n").await;
    service
        .send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n")
        .await;
    assert_eq!(client.read_head().await.status, 200);

    sidekey.signal(signal);
    stops_accepting(&sidekey).await;
    // For as long as it takes: the process does not end under it.
    assert_eq!(client.read_chunk().await, b"one");
    for _ in 0..PIECES {
        service.send("4\r\nmore\r\n").await;
        assert_eq!(client.read_chunk().await, b"more");
    }
    service.send("0\r\n\r\n").await;
    assert_eq!(client.read_chunk().await, b"");
    assert!(sidekey.wait().success());
    eventually("the log has the end too", || async {
        sidekey.output().contains("\"stopped\"")
    })
    .await;
    assert_eq!(idle.read_to_end().await, b"");
    assert_eq!(client.read_to_end().await, b"");
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_finishes_what_is_in_flight() {
    a_request_in_flight_is_finished_after("TERM").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sigint_finishes_what_is_in_flight() {
    a_request_in_flight_is_finished_after("INT").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_connections_are_closed_and_hold_nothing_up() {
    let upstream = Upstream::start().await;
    let mut sidekey = Sidekey::start(&config(upstream.address, PATIENT)).await;
    let key = sidekey.create_key(json!({})).await;
    let mut used = Raw::connect(sidekey.proxy).await;
    used.send(format!(
        "GET / HTTP/1.1\r\nHost: test.example\r\nAuthorization: Bearer {}\r\n\r\n",
        key.text
    ))
    .await;
    assert_eq!(used.read_answer().await.status, 200);
    let mut fresh = Raw::connect(sidekey.proxy).await;
    let mut admin = Raw::connect(sidekey.admin).await;
    sidekey.signal("TERM");
    for connection in [&mut used, &mut fresh, &mut admin] {
        assert_eq!(connection.read_to_end().await, b"");
    }
    assert!(sidekey.wait().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_never_ends_is_cut_off() {
    let upstream = Scripted::start().await;
    let more = "[proxy]\nshutdown_seconds = 1";
    let mut sidekey = Sidekey::start(&config(upstream.address, more)).await;
    let key = sidekey.create_key(json!({})).await;
    let mut client = Raw::connect(sidekey.proxy).await;
    client
        .send(format!(
            "GET /never HTTP/1.1\r\nHost: test.example\r\nAuthorization: Bearer {}\r\n\r\n",
            key.text
        ))
        .await;
    let mut service = Raw::from(upstream.accept().await);
    service.read_until(b"\r\n\r\n").await;
    let start = Instant::now();
    sidekey.signal("TERM");
    assert!(sidekey.wait().success());
    assert!(start.elapsed() < DEFAULT, "it took {:?}", start.elapsed());
    assert_eq!(client.read_to_end().await, b"");
    eventually("the log says why", || async {
        sidekey.output().contains("proxy.shutdown_seconds")
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_start_in_the_same_directory_knows_the_keys() {
    let upstream = Upstream::start().await;
    let mut sidekey = Sidekey::start(&config(upstream.address, "")).await;
    let key = sidekey.create_key(json!({})).await;
    let admin_key = sidekey.admin_key();
    sidekey.signal("TERM");
    assert!(sidekey.wait().success());
    let sidekey = sidekey.restart().await;
    assert_eq!(sidekey.status("/", &key.text).await, 200);
    assert_eq!(sidekey.admin_key(), admin_key);
    let second = sidekey.create_key(json!({})).await;
    assert_eq!(sidekey.status("/", &second.text).await, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_in_use_is_one_sentence_and_exit_code_1() {
    let upstream = Upstream::start().await;
    let taken = upstream.address.to_string();
    for (proxy, admin) in [(&*taken, "127.0.0.1:0"), ("127.0.0.1:0", &*taken)] {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("sidekey.toml");
        std::fs::write(&file, config(upstream.address, "")).unwrap();
        let ended = Command::new(program())
            .current_dir(directory.path())
            .args(["serve", "--config"])
            .arg(&file)
            .env("SIDEKEY__PROXY__LISTEN", proxy)
            .env("SIDEKEY__ADMIN__LISTEN", admin)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        assert_eq!(ended.status.code(), Some(1));
        assert!(ended.stdout.is_empty());
        let stderr = String::from_utf8(ended.stderr).unwrap();
        assert_eq!(stderr.trim_end().lines().count(), 1, "{stderr}");
        assert!(stderr.contains(&taken), "{stderr}");
        assert!(
            !directory.path().join("data").exists(),
            "nothing was left behind"
        );
    }
}
