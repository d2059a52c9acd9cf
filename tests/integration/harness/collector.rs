//! A collector of spans, which takes OTLP over HTTP (protobuf).

use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value::Value};
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::server::TlsStream;

use super::eventually;

/// What came, as it came.
#[derive(Default)]
struct Taken {
    bodies: Vec<Bytes>,
    headers: Vec<HeaderMap>,
}

/// A collector that takes everything.
pub struct Collector {
    pub address: SocketAddr,
    taken: Arc<Mutex<Taken>>,
    server: JoinHandle<()>,
}

/// A span as it came, with what it says of itself.
#[derive(Debug, Clone)]
pub struct Seen {
    pub span: Span,
    /// What the spans of the batch have in common.
    pub resource: Vec<KeyValue>,
}

/// Connections over TLS.
struct TlsListener {
    inner: TcpListener,
    acceptor: TlsAcceptor,
}

impl TlsListener {
    /// With the certificate of [`super::certificates::make_certificates`] in `directory`.
    fn new(inner: TcpListener, directory: &Path) -> Self {
        let chain = CertificateDer::pem_file_iter(directory.join("leaf.pem")).expect("a file");
        let chain: Vec<_> = chain.map(|one| one.expect("a certificate")).collect();
        let key = PrivateKeyDer::from_pem_file(directory.join("leaf.key")).expect("a key");
        let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .expect("they fit");
        let acceptor = TlsAcceptor::from(Arc::new(config));
        TlsListener { inner, acceptor }
    }
}

impl axum::serve::Listener for TlsListener {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            let (stream, address) = self.inner.accept().await.expect("a connection");
            // Who does not trust the certificate goes away.
            if let Ok(stream) = self.acceptor.accept(stream).await {
                return (stream, address);
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<Self::Addr> {
        self.inner.local_addr()
    }
}

impl Collector {
    pub async fn start() -> Self {
        Self::start_on(|listener| listener).await
    }

    /// Over TLS, for `localhost`, with the certificate in `directory`.
    pub async fn start_tls(directory: &Path) -> Self {
        Self::start_on(|listener| TlsListener::new(listener, directory)).await
    }

    async fn start_on<L: axum::serve::Listener>(wrap: impl FnOnce(TcpListener) -> L) -> Self
    where
        L::Addr: std::fmt::Debug,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let taken: Arc<Mutex<Taken>> = Arc::default();
        let app = Router::new()
            .route("/v1/traces", post(take))
            .with_state(taken.clone());
        let listener = wrap(listener);
        let server = tokio::spawn(async move {
            let _ = axum::serve(listener, app).await;
        });
        Collector {
            address,
            taken,
            server,
        }
    }

    /// `[tracing]` for a program whose spans all go here.
    pub fn configuration(&self) -> String {
        format!(
            "[tracing]\notlp_endpoint = \"http://{}\"\nsample_ratio = 1.0\n",
            self.address
        )
    }

    /// All spans, oldest first.
    pub fn spans(&self) -> Vec<Seen> {
        let taken = self.taken.lock().expect("what came");
        let mut spans = Vec::new();
        for body in &taken.bodies {
            let request = ExportTraceServiceRequest::decode(body.clone()).expect("protobuf");
            for group in request.resource_spans {
                let resource = group.resource.expect("a resource").attributes;
                for span in group.scope_spans.into_iter().flat_map(|scope| scope.spans) {
                    let resource = resource.clone();
                    spans.push(Seen { span, resource });
                }
            }
        }
        spans
    }

    /// Everything that came, bytes as they are.
    pub fn bytes(&self) -> Vec<u8> {
        let taken = self.taken.lock().expect("what came");
        let headers = taken.headers.iter().map(|headers| format!("{headers:?}"));
        let headers: Vec<u8> = headers.flat_map(String::into_bytes).collect();
        let bodies = taken.bodies.iter().flat_map(|body| body.to_vec());
        headers.into_iter().chain(bodies).collect()
    }

    /// A field of the newest batch's header.
    pub fn header(&self, name: &str) -> Option<String> {
        let taken = self.taken.lock().expect("what came");
        let value = taken.headers.last()?.get(name)?;
        Some(value.to_str().expect("text").to_owned())
    }

    /// Waits for `count` spans of the request with the id `request_id`; the server's first.
    pub async fn spans_of(&self, request_id: &str, count: usize) -> Vec<Seen> {
        let of_request = || {
            let all = self.spans();
            let server = all
                .iter()
                .find(|seen| seen.text("sidekey.request_id").as_deref() == Some(request_id))?;
            let children = all
                .iter()
                .filter(|seen| seen.span.parent_span_id == server.span.span_id);
            Some(std::iter::once(server).chain(children).cloned().collect())
        };
        let found = || of_request().unwrap_or_else(Vec::new);
        eventually("the spans come", || async { found().len() >= count }).await;
        let found = found();
        assert_eq!(found.len(), count, "{found:#?}");
        found
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn take(
    State(taken): State<Arc<Mutex<Taken>>>,
    headers: HeaderMap,
    body: Bytes,
) -> StatusCode {
    if headers["content-type"] != "application/x-protobuf" {
        return StatusCode::UNSUPPORTED_MEDIA_TYPE;
    }
    let mut taken = taken.lock().expect("what came");
    taken.bodies.push(body);
    taken.headers.push(headers);
    StatusCode::OK
}

impl Seen {
    fn value(attributes: &[KeyValue], key: &str) -> Option<Value> {
        let found = attributes.iter().find(|attribute| attribute.key == key)?;
        found.value.clone()?.value
    }

    /// An attribute as text.
    pub fn text(&self, key: &str) -> Option<String> {
        match Self::value(&self.span.attributes, key)? {
            Value::StringValue(text) => Some(text),
            other => panic!("{key} is {other:?}"),
        }
    }

    /// An attribute as a number.
    pub fn number(&self, key: &str) -> Option<i64> {
        match Self::value(&self.span.attributes, key)? {
            Value::IntValue(number) => Some(number),
            other => panic!("{key} is {other:?}"),
        }
    }

    /// A text of the resource.
    pub fn resource(&self, key: &str) -> Option<String> {
        match Self::value(&self.resource, key)? {
            Value::StringValue(text) => Some(text),
            other => panic!("{key} is {other:?}"),
        }
    }

    pub fn trace_id(&self) -> String {
        hexadecimal(&self.span.trace_id)
    }

    pub fn span_id(&self) -> String {
        hexadecimal(&self.span.span_id)
    }

    pub fn parent_id(&self) -> String {
        hexadecimal(&self.span.parent_span_id)
    }
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
