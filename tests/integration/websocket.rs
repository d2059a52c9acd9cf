//! WebSocket connections: upgraded after a checked key, refused without one.

use futures_util::{SinkExt, StreamExt};
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::handshake::server::{Request, Response};
use tokio_tungstenite::tungstenite::{Bytes, Error, Message};
use tokio_tungstenite::{accept_hdr_async, client_async};

use crate::harness::sidekey::{Sidekey, config};
use crate::harness::{DEADLINE, eventually};

/// A service that echoes messages, and says in its handshake what it saw of the caller.
async fn echo() -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream));
        }
    });
    address
}

// The shape of the callback is tungstenite's.
#[allow(clippy::result_large_err)]
async fn serve(stream: TcpStream) {
    let note = |request: &Request, mut response: Response| {
        let headers = response.headers_mut();
        if let Some(id) = request.headers().get("x-sidekey-key-id") {
            headers.insert("x-seen-key-id", id.clone());
        }
        if let Some(value) = request.headers().get("authorization") {
            headers.insert("x-seen-authorization", value.clone());
        }
        Ok(response)
    };
    let Ok(mut socket) = accept_hdr_async(stream, note).await else {
        return;
    };
    while let Some(Ok(message)) = socket.next().await {
        let is_data = message.is_text() || message.is_binary();
        if is_data && socket.send(message).await.is_err() {
            return;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_checked_key_opens_a_websocket_and_messages_go_both_ways() {
    // Larger than any body may be: what flows through is not a body.
    let more = "[proxy]\nmax_body_bytes = 1024";
    let sidekey = Sidekey::start(&config(echo().await, more)).await;
    let key = sidekey.create_key(json!({})).await;
    let url = format!("ws://{}/socket", sidekey.proxy);

    let stream = TcpStream::connect(sidekey.proxy).await.unwrap();
    let mut request = url.as_str().into_client_request().unwrap();
    let bearer = format!("Bearer {}", key.text).parse().unwrap();
    request.headers_mut().insert("authorization", bearer);
    let opened = timeout(DEADLINE, client_async(request, stream)).await;
    let (mut socket, response) = opened.expect("in time").expect("a handshake");
    assert_eq!(response.status(), 101);
    let headers = response.headers();
    assert_eq!(headers["ratelimit"], "\"default\";r=99;t=10");
    assert_eq!(headers["ratelimit-policy"], "\"default\";q=600;w=60");
    assert_eq!(headers["x-ratelimit-remaining"], "99");
    assert!(headers.contains_key("x-request-id"));
    assert_eq!(headers["x-seen-key-id"], key.id.as_str());
    assert!(!headers.contains_key("x-seen-authorization"));

    for message in [
        Message::text("hello"),
        Message::binary(Bytes::from(vec![7; 300_000])),
        Message::text("bye"),
    ] {
        socket.send(message.clone()).await.unwrap();
        let answer = timeout(DEADLINE, socket.next()).await.expect("in time");
        assert_eq!(answer.unwrap().unwrap(), message);
    }
    assert_eq!(sidekey.metric("sidekey_requests_in_flight").await, 1.0);
    socket.close(None).await.unwrap();
    drop(socket);
    eventually("the connection is given back", || async {
        sidekey.metric("sidekey_requests_in_flight").await == 0.0
    })
    .await;
}

/// A service that answers at once must not be taken for one that has ended: about one in twenty of such
/// connections would be cut after its handshake.
#[tokio::test(flavor = "multi_thread")]
async fn every_upgrade_stands_however_soon_the_service_answers() {
    let sidekey = Sidekey::start(&config(echo().await, "")).await;
    let limits = json!({"rate_limits": []});
    let key = sidekey.create_key(limits).await;
    let url = format!("ws://{}/socket", sidekey.proxy);
    for n in 0..100 {
        let stream = TcpStream::connect(sidekey.proxy).await.unwrap();
        let mut request = url.as_str().into_client_request().unwrap();
        let bearer = format!("Bearer {}", key.text).parse().unwrap();
        request.headers_mut().insert("authorization", bearer);
        let opened = timeout(DEADLINE, client_async(request, stream)).await;
        let (mut socket, _) = opened.expect("in time").expect("a handshake");
        socket.send(Message::text("hello")).await.unwrap();
        let answer = timeout(DEADLINE, socket.next()).await.expect("in time");
        let answer = answer.unwrap();
        assert!(answer.is_ok(), "connection {n}: {answer:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_key_no_websocket_is_opened() {
    let sidekey = Sidekey::start(&config(echo().await, "")).await;
    let forged = "Bearer sk_live_000000000000_forged";
    for authorization in [None, Some(forged)] {
        let stream = TcpStream::connect(sidekey.proxy).await.unwrap();
        let url = format!("ws://{}/socket", sidekey.proxy);
        let mut request = url.as_str().into_client_request().unwrap();
        if let Some(value) = authorization {
            let value = value.parse().unwrap();
            request.headers_mut().insert("authorization", value);
        }
        let refused = timeout(DEADLINE, client_async(request, stream)).await;
        let Err(Error::Http(response)) = refused.expect("in time") else {
            panic!("the handshake was not refused");
        };
        assert_eq!(response.status(), 401);
        assert!(response.headers().contains_key("www-authenticate"));
    }
}
