//! Services behind the program: one that notes what it is sent, and one whose bytes a test
//! scripts.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use super::ports::free_port;

/// A request as the service saw it.
#[derive(Debug, Clone)]
pub struct Seen {
    pub method: String,
    /// Path and query as they came.
    pub target: String,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Seen {
    /// The value of a header field.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }
}

/// A service that notes requests and answers them. `x-answer-status` in a request sets the status
/// of the answer; request fields `x-answer-NAME` come back as `NAME`.
pub struct Upstream {
    pub address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    server: JoinHandle<()>,
}

impl Upstream {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let seen: Arc<Mutex<Vec<Seen>>> = Arc::default();
        let app = Router::new().fallback(answer).with_state(seen.clone());
        let server = tokio::spawn(async move {
            let _ = axum::serve(listener, app).await;
        });
        Upstream {
            address,
            seen,
            server,
        }
    }

    /// Everything that came, oldest first.
    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().expect("requests").clone()
    }

    /// How many requests came.
    pub fn count(&self) -> usize {
        self.seen.lock().expect("requests").len()
    }

    /// The newest request.
    pub fn last(&self) -> Seen {
        self.seen().pop().expect("a request")
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn answer(State(seen): State<Arc<Mutex<Vec<Seen>>>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, 64 << 20)
        .await
        .unwrap_or_default();
    let mut response = Response::new(Body::from(format!(
        "answer to {} {}",
        parts.method, parts.uri
    )));
    for (name, value) in &parts.headers {
        match name.as_str().strip_prefix("x-answer-") {
            Some("status") => {
                *response.status_mut() =
                    StatusCode::from_bytes(value.as_bytes()).expect("a status");
            }
            Some(name) => {
                let name: axum::http::HeaderName = name.parse().expect("a field's name");
                response.headers_mut().append(name, value.clone());
            }
            None => {}
        }
    }
    let target = parts
        .uri
        .path_and_query()
        .map_or_else(|| parts.uri.to_string(), ToString::to_string);
    seen.lock().expect("requests").push(Seen {
        method: parts.method.to_string(),
        target,
        headers: parts.headers,
        body,
    });
    response
}

/// A port whose connections a test handles itself.
pub struct Scripted {
    pub address: SocketAddr,
    listener: TcpListener,
}

impl Scripted {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        Scripted {
            address: listener.local_addr().expect("an address"),
            listener,
        }
    }

    /// The next connection.
    pub async fn accept(&self) -> TcpStream {
        let accepted = tokio::time::timeout(super::DEADLINE, self.listener.accept()).await;
        accepted
            .expect("a connection in time")
            .expect("a connection")
            .0
    }
}

/// An address on which nobody listens.
pub fn nobody() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, free_port()).into()
}
