//! The admin port's connections: how many there may be, and how long a request's header may take.
//! axum's own `serve` limits neither, and the port shares the process's open files with the proxy.

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
use tower_service::Service as _;

/// Connections at the same time; who comes later waits.
const CONNECTIONS_MAX: usize = 256;
/// How long a request's header may take, and how long a connection may be idle.
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);
/// A request's line and header have at most this many bytes; longer ones are 431, or 414.
const HEADER_BYTES_MAX: usize = 64 << 10;
/// How long to wait when the system has no connection to give (no more open files, say).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves `router` until `stopping` is done, and then finishes the requests in flight.
pub async fn serve(listener: TcpListener, router: Router, stopping: impl Future<Output = ()>) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
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
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADER_TIMEOUT)
            .max_header_size(HEADER_BYTES_MAX)
            .serve_connection(TokioIo::new(stream), answer);
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
