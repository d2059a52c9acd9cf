//! Bodies flow through as they come, in both directions: nothing is held back until it is whole,
//! and nothing is held in memory.

use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::harness::raw::Raw;
use crate::harness::sidekey::{Sidekey, config};
use crate::harness::upstream::Scripted;

const GIGABYTE: usize = 1 << 30;
/// How much memory may grow while a gigabyte passes.
const GROWTH_KB_MAX: u64 = 64 << 10;
/// Long enough for a gigabyte on a busy machine.
const PATIENCE: Duration = Duration::from_secs(600);

/// The program in front of a scripted service, and the Authorization line of a key.
async fn start() -> (Scripted, Sidekey, String) {
    let upstream = Scripted::start().await;
    let sidekey = Sidekey::start(&config(upstream.address, "")).await;
    let key = sidekey.create_key(json!({})).await;
    (
        upstream,
        sidekey,
        format!("Authorization: Bearer {}\r\n", key.text),
    )
}

fn post(authorization: &str, framing: &str) -> String {
    format!("POST /upload HTTP/1.1\r\nHost: test.example\r\n{authorization}{framing}\r\n\r\n")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chunked_upload_arrives_piece_by_piece() {
    let (upstream, sidekey, authorization) = start().await;
    let mut client = Raw::connect(sidekey.proxy).await;
    client
        .send(post(&authorization, "Transfer-Encoding: chunked"))
        .await;
    client.send("5\r\nfirst\r\n").await;
    let mut service = Raw::from(upstream.accept().await);
    service.read_until(b"\r\n\r\n").await;
    assert_eq!(service.read_chunk().await, b"first");
    client.send("6\r\nsecond\r\n").await;
    assert_eq!(service.read_chunk().await, b"second");
    client.send("0\r\n\r\n").await;
    assert_eq!(service.read_chunk().await, b"");
    service
        .send("HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n")
        .await;
    assert_eq!(client.read_answer().await.status, 201);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_of_known_length_arrives_piece_by_piece() {
    let (upstream, sidekey, authorization) = start().await;
    let mut client = Raw::connect(sidekey.proxy).await;
    client
        .send(post(&authorization, "Content-Length: 11"))
        .await;
    client.send("first").await;
    let mut service = Raw::from(upstream.accept().await);
    service.read_until(b"\r\n\r\n").await;
    assert_eq!(service.read_exact(5).await, b"first");
    client.send("second").await;
    assert_eq!(service.read_exact(6).await, b"second");
    service
        .send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        .await;
    assert_eq!(client.read_answer().await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_arrives_piece_by_piece() {
    let (upstream, sidekey, authorization) = start().await;
    let get = format!("GET /events HTTP/1.1\r\nHost: test.example\r\n{authorization}\r\n");
    let mut client = Raw::connect(sidekey.proxy).await;
    client.send(&get).await;
    let mut service = Raw::from(upstream.accept().await);
    service.read_until(b"\r\n\r\n").await;
    service
        .send("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        .await;
    let head = client.read_head().await;
    assert_eq!(head.header("content-type"), Some("text/event-stream"));
    assert_eq!(head.header("transfer-encoding"), Some("chunked"));
    for event in ["data: one\n\n", "data: two\n\n", "data: three\n\n"] {
        let chunk = format!("{:x}\r\n{event}\r\n", event.len());
        service.send(chunk).await;
        assert_eq!(client.read_chunk().await, event.as_bytes());
    }
    service.send("0\r\n\r\n").await;
    assert_eq!(client.read_chunk().await, b"");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_may_start_before_the_upload_ends() {
    let (upstream, sidekey, authorization) = start().await;
    let mut client = Raw::connect(sidekey.proxy).await;
    client
        .send(post(&authorization, "Transfer-Encoding: chunked"))
        .await;
    client.send("4\r\nping\r\n").await;
    let mut service = Raw::from(upstream.accept().await);
    service.read_until(b"\r\n\r\n").await;
    assert_eq!(service.read_chunk().await, b"ping");
    service
        .send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\npong\r\n")
        .await;
    assert_eq!(client.read_head().await.status, 200);
    assert_eq!(client.read_chunk().await, b"pong");
    client.send("4\r\nping\r\n0\r\n\r\n").await;
    assert_eq!(service.read_chunk().await, b"ping");
    assert_eq!(service.read_chunk().await, b"");
    service.send("4\r\npong\r\n0\r\n\r\n").await;
    assert_eq!(client.read_chunk().await, b"pong");
    assert_eq!(client.read_chunk().await, b"");
}

/// The most memory that the process has ever had, in kB.
fn peak_kb(sidekey: &Sidekey) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", sidekey.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let digits = line.unwrap().trim().trim_end_matches(" kB");
    digits.parse().unwrap()
}

async fn write_gigabyte(stream: &mut TcpStream) {
    let piece = vec![b'x'; 1 << 18];
    for _ in 0..GIGABYTE / piece.len() {
        stream.write_all(&piece).await.unwrap();
    }
}

async fn read_gigabyte(stream: &mut TcpStream) {
    let mut buffer = vec![0; 1 << 18];
    let mut left = GIGABYTE;
    while left > 0 {
        let room = left.min(buffer.len());
        let count = stream.read(&mut buffer[..room]).await.unwrap();
        assert!(count > 0, "closed with {left} bytes to come");
        left -= count;
    }
}

async fn read_head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    String::from_utf8(head).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gigabyte_each_way_takes_no_memory() {
    let (upstream, sidekey, authorization) = start().await;
    let mut client = TcpStream::connect(sidekey.proxy).await.unwrap();
    // What a first, small exchange needs is not counted.
    let small = format!("GET / HTTP/1.1\r\nHost: test.example\r\n{authorization}\r\n");
    client.write_all(small.as_bytes()).await.unwrap();
    let mut service = upstream.accept().await;
    read_head(&mut service).await;
    let answer = b"HTTP/1.1 204 No Content\r\n\r\n";
    service.write_all(answer).await.unwrap();
    read_head(&mut client).await;
    let before = peak_kb(&sidekey);

    let upload = post(&authorization, &format!("Content-Length: {GIGABYTE}"));
    let sent = async {
        client.write_all(upload.as_bytes()).await.unwrap();
        write_gigabyte(&mut client).await;
    };
    let received = async {
        read_head(&mut service).await;
        read_gigabyte(&mut service).await;
    };
    timeout(PATIENCE, async { tokio::join!(sent, received) })
        .await
        .expect("an upload in time");

    let download = format!("HTTP/1.1 200 OK\r\nContent-Length: {GIGABYTE}\r\n\r\n");
    let sent = async {
        service.write_all(download.as_bytes()).await.unwrap();
        write_gigabyte(&mut service).await;
    };
    let received = async {
        assert!(read_head(&mut client).await.starts_with("HTTP/1.1 200 "));
        read_gigabyte(&mut client).await;
    };
    timeout(PATIENCE, async { tokio::join!(sent, received) })
        .await
        .expect("a download in time");
    let growth = peak_kb(&sidekey).saturating_sub(before);
    assert!(growth < GROWTH_KB_MAX, "memory grew by {growth} kB");
}
