//! Client connections: how many there may be, how long a request's header may take, how long they
//! may be idle, that what was written goes out before anything is waited for, and the field lines
//! that every answer carries.
//!
//! Pingora buffers the beginning of an answer whose length is known until more comes, limits each
//! read of a header but not all of them together, and keeps idle connections for ever or sets a
//! timer for each request. That is mended where all bytes pass: in the stream. And six fields of
//! every answer would each be parsed, allocated and hashed into two maps only to become bytes
//! again: they are written as bytes behind the status line ([`ClientStream::write_lines`]).

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use async_trait::async_trait;
use http::HeaderValue;
use parking_lot::Mutex;
use pingora_core::apps::ServerApp;
use pingora_core::protocols::raw_connect::ProxyDigest;
use pingora_core::protocols::{
    GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl, Stream,
    TimingDigest, UniqueID, UniqueIDType,
};
use pingora_core::server::ShutdownWatch;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

use super::decide::Refusal;
use super::respond;
use crate::problem;
use crate::telemetry::Metrics;
use crate::telemetry::access::{AccessLines, event_at};
use crate::telemetry::metrics::RouteMetrics;

/// What happens to a request that can't be read, before any hook sees it: Pingora would give it an
/// empty answer, and nobody would know.
pub struct Unreadable {
    pub metrics: RouteMetrics,
    pub access: Arc<AccessLines>,
}

/// Pingora gives up on a header of this many bytes, or of more lines than the other.
const HEADER_BYTES_MAX: usize = (1 << 20) - 1;
/// 256 fields, the request line, and the empty line at the end.
const HEADER_LINES_MAX: usize = 258;

impl Unreadable {
    /// The answer in place of Pingora's `theirs`, which is given as it stands where it is not about
    /// the header.
    fn answer(&self, theirs: &[u8], read: &Header, client: Option<IpAddr>) -> Vec<u8> {
        let is_too_large = read.bytes >= HEADER_BYTES_MAX || read.lines > HEADER_LINES_MAX;
        let refusal = if is_too_large {
            Refusal::HeadersTooLarge
        } else {
            Refusal::BadRequest("The request is not well-formed HTTP.")
        };
        let request_id = problem::new_request_id();
        let request_id = request_id.to_str().unwrap_or_default();
        let outcome = refusal.outcome();
        self.metrics.count(outcome);
        let is_ours = theirs.get(9..12) == Some(b"400");
        self.metrics.answered(if is_ours {
            Some(refusal.kind().status())
        } else {
            status_of(theirs)
        });
        if let Some(line) = self.access.choose(outcome, None) {
            event_at!(
                line.level,
                target: "sidekey::access",
                request_id,
                outcome = outcome.as_str(),
                client = client.map(|client| client.to_string()),
                sample = line.sampled(),
                "request that can't be read"
            );
        }
        if is_ours {
            respond::bare(refusal, request_id)
        } else {
            theirs.to_vec()
        }
    }
}

/// The status of an answer as it goes over the wire.
fn status_of(answer: &[u8]) -> Option<u16> {
    let digits = std::str::from_utf8(answer.get(9..12)?).ok()?;
    digits.parse().ok()
}

/// What has been read of a request's header.
#[derive(Default)]
struct Header {
    bytes: usize,
    lines: usize,
}

/// Stands before the proxy: lets at most `max` connections in.
pub struct Connections<A> {
    pub app: Arc<A>,
    pub max: usize,
    pub header_timeout: Duration,
    pub keepalive: Duration,
    pub metrics: Arc<Metrics>,
    pub unreadable: Arc<Unreadable>,
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
            self.unreadable.clone(),
        ));
        self.app.process_new(stream, shutdown).await
    }

    async fn cleanup(&self) {
        self.app.cleanup().await;
    }
}

/// The other end of a connection.
#[derive(Debug, Clone)]
pub struct Peer {
    pub address: IpAddr,
    /// As it stands in `X-Forwarded-For`.
    pub field: HeaderValue,
}

impl Peer {
    fn of(stream: &Stream) -> Option<Self> {
        let digest = stream.get_socket_digest()?;
        let address = digest.peer_addr()?.as_inet().map(SocketAddr::ip)?;
        Some(Peer {
            address,
            // An address is plain ASCII.
            field: HeaderValue::from_str(&address.to_canonical().to_string()).ok()?,
        })
    }
}

/// Lines that stand between the status line of the next answer and its other fields.
#[derive(Default)]
struct Lines {
    text: Vec<u8>,
    progress: Progress,
}

/// How far the answer's beginning has been written.
#[derive(Default)]
enum Progress {
    /// Nothing of it.
    #[default]
    Awaited,
    /// All but so many bytes of the status line.
    StatusLine(usize),
    /// The status line, and so many bytes of the lines.
    Lines(usize),
}

/// What every answer of HTTP/1 begins with.
const ANSWER_START: &[u8] = b"HTTP/1.";

/// Whether this is an interim answer, which the one with the lines follows (RFC 9110, section 15.2).
fn is_interim(answer: &[u8]) -> bool {
    let status = answer.get(9..12);
    status.is_some_and(|status| status[0] == b'1' && status != b"101")
}

/// A client's connection.
pub struct ClientStream {
    inner: Stream,
    peer: Option<Peer>,
    lines: Mutex<Lines>,
    has_unflushed: bool,
    /// Between the end of an answer and the end of the next request's header.
    awaits_header: AtomicBool,
    /// A part of the awaited header has come.
    has_begun: AtomicBool,
    /// How much of it.
    header: Header,
    unreadable: Arc<Unreadable>,
    /// What is written in place of Pingora's own answer, and how much of it was written.
    substitute: Option<(Vec<u8>, usize)>,
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
    fn new(
        inner: Stream,
        header_timeout: Duration,
        keepalive: Duration,
        unreadable: Arc<Unreadable>,
    ) -> Self {
        ClientStream {
            peer: Peer::of(&inner),
            inner,
            lines: Mutex::default(),
            has_unflushed: false,
            awaits_header: AtomicBool::new(true),
            has_begun: AtomicBool::new(false),
            header: Header::default(),
            unreadable,
            substitute: None,
            header_timeout,
            deadline: None,
            keepalive,
            idle: None,
            was_read: false,
        }
    }

    /// The client's stream below a session: every connection has one ([`Connections`]).
    pub fn of(stream: Option<&Stream>) -> Option<&ClientStream> {
        (**stream?).as_any().downcast_ref()
    }

    /// Tells that a request's header is complete (`false`), or that its answer is (`true`).
    pub fn await_header(&self, awaits: bool) {
        self.awaits_header.store(awaits, Ordering::Relaxed);
        self.has_begun.store(false, Ordering::Relaxed);
    }

    /// The other end, where it has an address.
    pub fn peer(&self) -> Option<&Peer> {
        self.peer.as_ref()
    }

    /// Writes field lines, each with its line break, for the next answer on this connection. To be
    /// called when its header is complete but for these; a second call takes the place of the
    /// first.
    pub fn write_lines(&self, write: impl FnOnce(&mut Vec<u8>)) {
        let mut lines = self.lines.lock();
        lines.text.clear();
        lines.progress = Progress::Awaited;
        write(&mut lines.text);
    }

    /// Writes an answer to a request whose header did not come to its end: ours in place of `bytes`,
    /// Pingora's.
    fn poll_write_unasked(
        &mut self,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if !bytes.starts_with(ANSWER_START) {
            return Pin::new(&mut self.inner).poll_write(cx, bytes);
        }
        let client = self.peer.as_ref().map(|peer| peer.address);
        let (answer, written) = self
            .substitute
            .get_or_insert_with(|| (self.unreadable.answer(bytes, &self.header, client), 0));
        while *written < answer.len() {
            let count = ready!(Pin::new(&mut self.inner).poll_write(cx, &answer[*written..]))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            *written += count;
        }
        Poll::Ready(Ok(bytes.len()))
    }

    /// Writes an answer's beginning with the lines in their place: a part of it each time, as
    /// `poll_write` may.
    fn poll_write_beginning(
        &mut self,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let lines = self.lines.get_mut();
        let inner = Pin::new(&mut self.inner);
        let status_left = match lines.progress {
            Progress::Awaited if bytes.starts_with(ANSWER_START) && !is_interim(bytes) => {
                let end = bytes.iter().position(|b| *b == b'\n');
                end.map_or(bytes.len(), |end| end + 1)
            }
            // Not the answer yet.
            Progress::Awaited => return inner.poll_write(cx, bytes),
            Progress::StatusLine(left) => left.min(bytes.len()),
            Progress::Lines(written) => {
                let count = ready!(inner.poll_write(cx, &lines.text[written..]))?;
                if count == 0 {
                    return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
                }
                if written + count < lines.text.len() {
                    lines.progress = Progress::Lines(written + count);
                } else {
                    lines.text.clear();
                }
                return self.poll_write(cx, bytes);
            }
        };
        let count = ready!(inner.poll_write(cx, &bytes[..status_left]))?;
        lines.progress = if count < status_left {
            Progress::StatusLine(status_left - count)
        } else {
            Progress::Lines(0)
        };
        Poll::Ready(Ok(count))
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if *self.awaits_header.get_mut() {
            return self.poll_write_unasked(cx, bytes);
        }
        if self.lines.get_mut().text.is_empty() {
            Pin::new(&mut self.inner).poll_write(cx, bytes)
        } else {
            self.poll_write_beginning(cx, bytes)
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
            if *self.awaits_header.get_mut() {
                if !*self.has_begun.get_mut() {
                    self.deadline = None;
                    *self.has_begun.get_mut() = true;
                    self.header = Header::default();
                }
                let came = &buffer.filled()[before..];
                self.header.bytes += came.len();
                self.header.lines += memchr::memchr_iter(b'\n', came).count();
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
        (*self).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.has_unflushed = true;
        if self.lines.get_mut().text.is_empty() {
            return Pin::new(&mut self.inner).poll_write_vectored(cx, slices);
        }
        let first = slices.iter().find(|slice| !slice.is_empty());
        (*self).poll_write(cx, first.map_or(&[], |slice| slice))
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
