//! The admin port's connections: how many there may be, how long a request's header may take, and how
//! long a client may leave an answer unread. axum's own `serve` limits none of it, and the port shares
//! the process's open files with the proxy.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::ConnectInfo;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_io_timeout::TimeoutStream;
use tower_service::Service as _;

/// What connections are held to.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Connections at the same time; who comes later waits.
    pub connections_max: usize,
    /// How long a request's header may take, and how long a connection may be idle.
    pub header_timeout: Duration,
    /// A request's line and header have at most this many bytes; longer ones are 431.
    pub header_bytes_max: usize,
    /// How long nothing of an answer may be taken before the connection is closed.
    pub write_timeout: Duration,
}

/// Those of the admin port.
pub const LIMITS: Limits = Limits {
    connections_max: 256,
    header_timeout: Duration::from_secs(30),
    header_bytes_max: 64 << 10,
    write_timeout: Duration::from_secs(30),
};
/// How long to wait when the system has no connection to give (no more open files, say).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves `router` until `stopping` is done, and then finishes the requests in flight.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    limits: Limits,
    stopping: impl Future<Output = ()>,
) {
    let slots = Arc::new(Semaphore::new(limits.connections_max));
    let connections = GracefulShutdown::new();
    tokio::pin!(stopping);
    loop {
        let accepted = async {
            // Never closed.
            let slot = slots.clone().acquire_owned().await.ok();
            (slot, listener.accept().await)
        };
        let (slot, accepted) = tokio::select! {
            accepted = accepted => accepted,
            () = &mut stopping => break,
        };
        let (stream, client) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "the admin port can't take a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let router = router.clone();
        let answer = service_fn(move |request| answer(router.clone(), client, request));
        let mut stream = TimeoutStream::new(stream);
        stream.set_write_timeout(Some(limits.write_timeout));
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(limits.header_timeout)
            .max_header_size(limits.header_bytes_max)
            .serve_connection(TokioIo::new(Box::pin(stream)), answer);
        let watched = connections.watch(connection);
        tokio::spawn(async move {
            // Who breaks a connection off has nobody to tell.
            let _ = watched.await;
            drop(slot);
        });
    }
    connections.shutdown().await;
}

async fn answer(
    mut router: Router,
    client: SocketAddr,
    mut request: Request<Incoming>,
) -> Result<Response<axum::body::Body>, std::convert::Infallible> {
    request.extensions_mut().insert(ConnectInfo(client));
    router.call(request).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::routing::get;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    const ASK: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";

    /// Larger than what the system keeps for both ends of a connection.
    const LARGE: usize = 64 << 20;

    #[tokio::test]
    async fn who_does_not_read_makes_room_for_others() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().route("/", get(|| async { vec![b'a'; LARGE] }));
        let limits = Limits {
            connections_max: 1,
            header_timeout: Duration::from_secs(30),
            header_bytes_max: 64 << 10,
            write_timeout: Duration::from_millis(50),
        };
        let serving = tokio::spawn(serve(listener, router, limits, std::future::pending()));
        let mut lazy = TcpStream::connect(address).await.unwrap();
        lazy.write_all(ASK).await.unwrap();
        let mut other = TcpStream::connect(address).await.unwrap();
        other.write_all(ASK).await.unwrap();
        let mut first = [0; 15];
        other.read_exact(&mut first).await.unwrap();
        assert_eq!(&first, b"HTTP/1.1 200 OK");
        serving.abort();
    }
}
