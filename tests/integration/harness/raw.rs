//! A connection whose bytes a test writes and reads itself.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::DEADLINE;

/// A raw HTTP/1.1 connection.
pub struct Raw {
    stream: TcpStream,
    buffer: Vec<u8>,
}

/// An answer as it came.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Answer {
    /// The value of the first field called `name` (in lower case).
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(n, _)| n == name)
            .map(|(_, value)| value.as_str())
    }

    /// The body as JSON.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).expect("JSON")
    }
}

impl From<TcpStream> for Raw {
    fn from(stream: TcpStream) -> Self {
        Raw {
            stream,
            buffer: Vec::new(),
        }
    }
}

impl Raw {
    pub async fn connect(address: SocketAddr) -> Self {
        let stream = timeout(DEADLINE, TcpStream::connect(address))
            .await
            .expect("in time")
            .expect("a connection");
        stream.into()
    }

    /// Writes bytes as they are.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream
            .write_all(bytes.as_ref())
            .await
            .expect("bytes are taken");
    }

    /// Writes bytes; the other side may have closed the connection already.
    pub async fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.stream.write_all(bytes.as_ref()).await.is_ok()
    }

    async fn fill(&mut self) -> bool {
        let mut chunk = [0u8; 16 * 1024];
        let read = timeout(DEADLINE, self.stream.read(&mut chunk))
            .await
            .expect("bytes in time");
        let count = read.unwrap_or(0);
        self.buffer.extend_from_slice(&chunk[..count]);
        count > 0
    }

    /// Reads exactly `count` bytes.
    pub async fn read_exact(&mut self, count: usize) -> Vec<u8> {
        while self.buffer.len() < count {
            assert!(
                self.fill().await,
                "closed after {:?}",
                String::from_utf8_lossy(&self.buffer)
            );
        }
        self.buffer.drain(..count).collect()
    }

    /// Reads up to and including `end`.
    pub async fn read_until(&mut self, end: &[u8]) -> Vec<u8> {
        loop {
            if let Some(at) = self
                .buffer
                .windows(end.len())
                .position(|window| window == end)
            {
                return self.buffer.drain(..at + end.len()).collect();
            }
            assert!(
                self.fill().await,
                "closed after {:?}",
                String::from_utf8_lossy(&self.buffer)
            );
        }
    }

    /// Reads an answer's header; its body stays to be read.
    pub async fn read_head(&mut self) -> Answer {
        let head = String::from_utf8_lossy(&self.read_until(b"\r\n\r\n").await).into_owned();
        let mut lines = head.split("\r\n");
        let status = lines
            .next()
            .and_then(|line| line.split(' ').nth(1)?.parse().ok())
            .expect("a status line");
        let headers = lines
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
            .collect();
        Answer {
            status,
            headers,
            body: Vec::new(),
        }
    }

    /// Reads a whole answer (to a request that is not HEAD).
    pub async fn read_answer(&mut self) -> Answer {
        let mut answer = self.read_head().await;
        if answer.header("transfer-encoding") == Some("chunked") {
            answer.body = self.read_chunks().await;
        } else if let Some(length) = answer.header("content-length") {
            let length = length.parse().expect("a length");
            answer.body = self.read_exact(length).await;
        }
        answer
    }

    /// Reads one chunk of a chunked body; empty at its end.
    pub async fn read_chunk(&mut self) -> Vec<u8> {
        let line = self.read_until(b"\r\n").await;
        let size = String::from_utf8_lossy(&line).trim().to_owned();
        let size = usize::from_str_radix(size.split(';').next().unwrap_or_default(), 16)
            .expect("a chunk size");
        let chunk = self.read_exact(size).await;
        self.read_exact(2).await;
        chunk
    }

    async fn read_chunks(&mut self) -> Vec<u8> {
        let mut body = Vec::new();
        loop {
            let chunk = self.read_chunk().await;
            if chunk.is_empty() {
                return body;
            }
            body.extend(chunk);
        }
    }

    /// Waits until the other side closes the connection; what came before that.
    pub async fn read_to_end(&mut self) -> Vec<u8> {
        while self.fill().await {}
        std::mem::take(&mut self.buffer)
    }

    /// Closes this side's half of the connection.
    pub async fn finish(&mut self) {
        let _ = self.stream.shutdown().await;
    }
}

/// A request's bytes: `GET path`, Host, and more header lines.
pub fn get(path: &str, lines: &[&str]) -> String {
    request("GET", path, lines, "")
}

/// A request's bytes, with Host and, where there is a body, its length.
pub fn request(method: &str, path: &str, lines: &[&str], body: &str) -> String {
    let mut text = format!("{method} {path} HTTP/1.1\r\nHost: test.example\r\n");
    for line in lines {
        text.push_str(line);
        text.push_str("\r\n");
    }
    if !body.is_empty() {
        text.push_str(&format!("Content-Length: {}\r\n", body.len()));
    }
    format!("{text}\r\n{body}")
}
