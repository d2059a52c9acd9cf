//! A server that answers as a test says: as no real one can be made to.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use serde_json::json;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::Cli;
use crate::harness::upstream::Seen;

/// An answer in the making.
pub struct Answer {
    status: u16,
    fields: Vec<(String, String)>,
    pub body: String,
    is_cut: bool,
}

/// An answer of JSON.
pub fn answer(status: u16, body: impl ToString) -> Answer {
    Answer {
        status,
        fields: vec![],
        body: body.to_string(),
        is_cut: false,
    }
}

/// An answer that is a problem.
pub fn problem(status: u16, detail: &str) -> Answer {
    answer(status, json!({"type": "urn:x", "detail": detail}))
}

impl Answer {
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.fields.push((name.to_owned(), value.to_owned()));
        self
    }

    /// It breaks off after the body, before its end.
    pub fn cut(mut self) -> Self {
        self.is_cut = true;
        self
    }

    fn response(self) -> Response {
        let mut response = Response::builder().status(self.status);
        for (name, value) in self.fields {
            response = response.header(name, value);
        }
        let body = if self.is_cut {
            let parts = [Ok(self.body), Err(std::io::Error::other("cut"))];
            Body::from_stream(futures_util::stream::iter(parts))
        } else {
            Body::from(self.body)
        };
        response.body(body).expect("a response")
    }
}

/// The server. What a test says is asked with all requests so far, the newest last.
pub struct StandIn {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    server: JoinHandle<()>,
    pub directory: TempDir,
}

impl StandIn {
    pub async fn start(say: impl Fn(&[Seen]) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let seen: Arc<Mutex<Vec<Seen>>> = Arc::default();
        let (notes, say) = (seen.clone(), Arc::new(say));
        let app = Router::new().fallback(move |request: Request| {
            let (notes, say) = (notes.clone(), say.clone());
            async move {
                let (parts, body) = request.into_parts();
                let body = axum::body::to_bytes(body, 64 << 20)
                    .await
                    .unwrap_or_default();
                let mut notes = notes.lock().expect("requests");
                notes.push(Seen {
                    method: parts.method.to_string(),
                    target: parts.uri.to_string(),
                    headers: parts.headers,
                    body,
                });
                say(&notes).response()
            }
        });
        let server = tokio::spawn(async move {
            let _ = axum::serve(listener, app).await;
        });
        StandIn {
            address,
            seen,
            server,
            directory: tempfile::tempdir().expect("a directory"),
        }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Somebody with a key for it.
    pub fn cli(&self) -> Cli {
        Cli::at(self.directory.path())
            .with("SIDEKEY_ADMIN_KEY", "sesame")
            .with("SIDEKEY_ADMIN_URL", format!("http://{}", self.address))
    }

    /// A file where its commands run.
    pub fn file(&self, name: &str, text: &str) {
        std::fs::write(self.directory.path().join(name), text).expect("a file");
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().expect("requests").clone()
    }

    pub fn count(&self) -> usize {
        self.seen().len()
    }

    pub fn last(&self) -> Seen {
        self.seen().pop().expect("a request")
    }
}

impl Drop for StandIn {
    fn drop(&mut self) {
        self.server.abort();
    }
}
