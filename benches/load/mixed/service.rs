//! The service behind: it answers with what it was sent, so that a caller can tell whether the answer is
//! to its own request, and under whose name it came.

use std::net::SocketAddr;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// Requests have no bodies, so all of one is its header.
const REQUEST_BYTES_MAX: usize = 64 << 10;

pub struct Service {
    pub address: SocketAddr,
    server: JoinHandle<()>,
}

impl Service {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let server = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream));
            }
        });
        Service { address, server }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn serve(mut stream: TcpStream) {
    let _ = stream.set_nodelay(true);
    let mut received = Vec::new();
    loop {
        if let Some(at) = received.windows(4).position(|end| end == b"\r\n\r\n") {
            let head: Vec<u8> = received.drain(..at + 4).collect();
            let body = told(&String::from_utf8_lossy(&head)).to_string();
            let answer = format!(
                "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            );
            if stream.write_all(answer.as_bytes()).await.is_err() {
                return;
            }
            continue;
        }
        let read = stream.read_buf(&mut received).await;
        if received.len() > REQUEST_BYTES_MAX || !matches!(read, Ok(1..)) {
            return;
        }
    }
}

/// What a request said.
fn told(head: &str) -> Value {
    let field = |wanted: &str| {
        let mut fields = head.lines().filter_map(|line| line.split_once(':'));
        fields
            .find(|(name, _)| name.eq_ignore_ascii_case(wanted))
            .map(|(_, value)| value.trim())
    };
    json!({
        "target": head.split(' ').nth(1),
        "key": field("x-sidekey-key-id"),
        "tenant": field("x-sidekey-tenant-id"),
        "scopes": field("x-sidekey-scopes"),
        "request_id": field("x-request-id"),
        "credential": field("authorization").is_some(),
    })
}
