//! The built-in echo upstream: answers with what it was sent, so that a first try needs no
//! service of one's own. On a loopback port, never meant for anything else.

use std::net::SocketAddr;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Request};
use axum::response::Json;
use serde_json::{Value, json};
use tokio::net::TcpListener;

/// The largest body that is echoed.
const BODY_BYTES_MAX: usize = 1 << 20;

/// Starts the echo on a free loopback port.
pub async fn start() -> std::io::Result<SocketAddr> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let address = listener.local_addr()?;
    let app = Router::new()
        .fallback(echo)
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX));
    tokio::spawn(async move {
        if let Err(error) = axum::serve(listener, app).await {
            tracing::error!(%error, "the built-in echo upstream ended");
        }
    });
    Ok(address)
}

async fn echo(request: Request) -> Json<Value> {
    let (parts, body) = request.into_parts();
    let body: Bytes = axum::body::to_bytes(body, BODY_BYTES_MAX)
        .await
        .unwrap_or_default();
    let headers: Vec<Value> = parts
        .headers
        .iter()
        .map(|(name, value)| json!([name.as_str(), String::from_utf8_lossy(value.as_bytes())]))
        .collect();
    Json(json!({
        "method": parts.method.as_str(),
        "path": parts.uri.path(),
        "query": parts.uri.query(),
        "headers": headers,
        "body": String::from_utf8_lossy(&body),
    }))
}
