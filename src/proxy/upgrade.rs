//! Connections to services for requests that may be upgraded (WebSocket).
//!
//! Pingora sends a request's body, which is empty here, and reads the answer in one `select` with no order.
//! Where the answer is there by the time of the first look, and is taken first, the end of the empty body is
//! taken for the end of the upgraded connection, and it is cut right after its handshake. So the first
//! look after a write finds nothing, and the body has its turn.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use pingora_core::connectors::l4::Connect;
use pingora_core::protocols::l4::socket::SocketAddr;
use pingora_core::protocols::l4::stream::Stream;
use pingora_core::protocols::l4::virt::{VirtualSockOpt, VirtualSocket, VirtualSocketStream};
use pingora_error::{Error, ErrorType, OrErr, Result};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// Connects to a service within a limit on time.
#[derive(Debug)]
pub struct Connector {
    pub timeout: Duration,
}

#[async_trait]
impl Connect for Connector {
    async fn connect(&self, address: &SocketAddr) -> Result<Stream> {
        let Some(address) = address.as_inet() else {
            return Error::err_in(ErrorType::InternalError);
        };
        let connecting = tokio::time::timeout(self.timeout, TcpStream::connect(address)).await;
        let stream = connecting
            .or_err(
                ErrorType::ConnectTimedout,
                "the service did not accept in time",
            )?
            .or_err(ErrorType::ConnectRefused, "the service did not accept")?;
        let patient = Patient {
            stream,
            has_written: false,
        };
        Ok(VirtualSocketStream::new(Box::new(patient)).into())
    }
}

/// A connection whose first look for data after a write finds none.
#[derive(Debug)]
struct Patient {
    stream: TcpStream,
    has_written: bool,
}

impl VirtualSocket for Patient {
    fn set_socket_option(&self, option: VirtualSockOpt) -> io::Result<()> {
        match option {
            VirtualSockOpt::NoDelay => self.stream.set_nodelay(true),
            // The time without data has a limit of its own.
            _ => Ok(()),
        }
    }
}

impl AsyncRead for Patient {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if std::mem::take(&mut this.has_written) {
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        Pin::new(&mut this.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Patient {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.has_written = true;
        Pin::new(&mut this.stream).poll_write(context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(context)
    }
}
