//! Client connections: how many there may be, how long a request's header may take, how long they
//! may be idle, and that what was written goes out before anything is waited for.
//!
//! Pingora buffers the beginning of an answer whose length is known until more comes, limits each
//! read of a header but not all of them together, and keeps idle connections for ever or sets a
//! timer for each request. That is mended where all bytes pass: in the stream.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use pingora_core::apps::ServerApp;
use pingora_core::protocols::raw_connect::ProxyDigest;
use pingora_core::protocols::{
    GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl, Stream,
    TimingDigest, UniqueID, UniqueIDType,
};
use pingora_core::server::ShutdownWatch;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

use crate::telemetry::Metrics;

/// Stands before the proxy: lets at most `max` connections in.
pub struct Connections<A> {
    pub app: Arc<A>,
    pub max: usize,
    pub header_timeout: Duration,
    pub keepalive: Duration,
    pub metrics: Arc<Metrics>,
}

/// Counts a connection for as long as it lives.
struct Slot<'a>(&'a Metrics);

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        self.0.connections.dec();
    }
}

#[async_trait]
impl<A: ServerApp + Send + Sync + 'static> ServerApp for Connections<A> {
    async fn process_new(
        self: &Arc<Self>,
        stream: Stream,
        shutdown: &ShutdownWatch,
    ) -> Option<Stream> {
        self.metrics.connections.inc();
        let _slot = Slot(&self.metrics);
        if usize::try_from(self.metrics.connections.get()).unwrap_or(0) > self.max {
            self.metrics.connections_refused.inc();
            return None;
        }
        let stream = Box::new(ClientStream::new(
            stream,
            self.header_timeout,
            self.keepalive,
        ));
        self.app.process_new(stream, shutdown).await
    }

    async fn cleanup(&self) {
        self.app.cleanup().await;
    }
}

/// A client's connection.
pub struct ClientStream {
    inner: Stream,
    has_unflushed: bool,
    /// Between the end of an answer and the end of the next request's header.
    awaits_header: AtomicBool,
    /// A part of the awaited header has come.
    has_begun: AtomicBool,
    header_timeout: Duration,
    /// Set where a header did not come in one piece.
    deadline: Option<Pin<Box<Sleep>>>,
    keepalive: Duration,
    /// Goes off once in `keepalive`; the connection is idle if nothing was read since the last time.
    /// One timer for a connection's life, where one for each request would cost more.
    idle: Option<Pin<Box<Sleep>>>,
    was_read: bool,
}

impl ClientStream {
    fn new(inner: Stream, header_timeout: Duration, keepalive: Duration) -> Self {
        ClientStream {
            inner,
            has_unflushed: false,
            awaits_header: AtomicBool::new(true),
            has_begun: AtomicBool::new(false),
            header_timeout,
            deadline: None,
            keepalive,
            idle: None,
            was_read: false,
        }
    }

    /// Tells that a request's header is complete (`false`), or that its answer is (`true`).
    pub fn await_header(stream: Option<&Stream>, awaits: bool) {
        let this = stream.and_then(|stream| (**stream).as_any().downcast_ref::<ClientStream>());
        if let Some(this) = this {
            this.awaits_header.store(awaits, Ordering::Relaxed);
            this.has_begun.store(false, Ordering::Relaxed);
        }
    }

    /// Whether a header has begun and taken too long, or none has begun for too long. Only asked
    /// where nothing is there to be read, so that a header in one piece costs no timer.
    fn poll_deadline(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if !*self.awaits_header.get_mut() {
            self.was_read = true;
            return Poll::Pending;
        }
        if *self.has_begun.get_mut() {
            let timeout = self.header_timeout;
            let deadline = self
                .deadline
                .get_or_insert_with(|| Box::pin(sleep(timeout)));
            return deadline.as_mut().poll(cx);
        }
        self.deadline = None;
        let keepalive = self.keepalive;
        let idle = self.idle.get_or_insert_with(|| Box::pin(sleep(keepalive)));
        while idle.as_mut().poll(cx).is_ready() {
            if !std::mem::take(&mut self.was_read) {
                return Poll::Ready(());
            }
            idle.set(sleep(keepalive));
        }
        Poll::Pending
    }
}

impl AsyncRead for ClientStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let result = Pin::new(&mut self.inner).poll_read(cx, buffer);
        if result.is_pending() {
            // About to wait: what was written so far may be what the client waits for.
            if self.has_unflushed {
                match self.as_mut().poll_flush(cx) {
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                    Poll::Ready(Ok(())) | Poll::Pending => {}
                }
            }
            if self.poll_deadline(cx).is_ready() {
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
        } else if buffer.filled().len() > before {
            self.was_read = true;
            let awaits_header = *self.awaits_header.get_mut();
            if awaits_header && !*self.has_begun.get_mut() {
                self.deadline = None;
                *self.has_begun.get_mut() = true;
            }
        }
        result
    }
}

impl AsyncWrite for ClientStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.has_unflushed = true;
        Pin::new(&mut self.inner).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.has_unflushed = true;
        Pin::new(&mut self.inner).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.inner).poll_flush(cx);
        if result.is_ready() {
            self.has_unflushed = false;
        }
        result
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

impl fmt::Debug for ClientStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClientStream")
    }
}

#[async_trait]
impl Shutdown for ClientStream {
    async fn shutdown(&mut self) {
        self.inner.shutdown().await;
    }
}

impl UniqueID for ClientStream {
    fn id(&self) -> UniqueIDType {
        self.inner.id()
    }
}

impl Ssl for ClientStream {}

#[async_trait]
impl Peek for ClientStream {}

impl GetTimingDigest for ClientStream {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        self.inner.get_timing_digest()
    }
}

impl GetProxyDigest for ClientStream {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        self.inner.get_proxy_digest()
    }
}

impl GetSocketDigest for ClientStream {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        self.inner.get_socket_digest()
    }
}
