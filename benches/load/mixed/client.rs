//! A keep-alive connection that keeps all of an answer's header. One thread drives one: no runtime's timers
//! stand between an answer and its time.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// How long one answer may take. A key's first use may wait for a whole queue of hashes.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// The most that an answer's head and body may have.
const ANSWER_BYTES_MAX: usize = 64 << 10;
const READ_BYTES: usize = 4 << 10;

pub struct Connection {
    stream: TcpStream,
    received: Vec<u8>,
}

/// What came back.
pub struct Answer<'a> {
    pub status: u16,
    head: &'a str,
    pub body: &'a str,
}

impl<'a> Answer<'a> {
    /// An answer whose status line and fields are `head`.
    pub fn new(head: &'a str, body: &'a str) -> io::Result<Self> {
        let status = head
            .strip_prefix("HTTP/1.1 ")
            .and_then(|rest| rest.get(..3));
        let status = status.and_then(|digits| digits.parse().ok());
        let status = status.ok_or_else(|| bad("there is no status line"))?;
        Ok(Answer { status, head, body })
    }

    /// The value of a field, where it stands there once.
    pub fn field(&self, name: &str) -> Option<&'a str> {
        let mut values = (self.head.lines().skip(1))
            .filter_map(|line| line.split_once(':'))
            .filter(|(known, _)| known.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.trim());
        let first = values.next();
        if values.next().is_some() { None } else { first }
    }

    /// Whether a field of that name stands there at all.
    pub fn has(&self, name: &str) -> bool {
        let mut lines = self.head.lines().skip(1);
        lines.any(|line| {
            let known = line.split_once(':').map_or(line, |(known, _)| known);
            known.eq_ignore_ascii_case(name)
        })
    }

    fn body_len(&self) -> io::Result<usize> {
        let length = self.field("content-length");
        length
            .and_then(|length| length.parse().ok())
            .ok_or_else(|| bad("the answer has not one Content-Length"))
    }
}

fn bad(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

impl Connection {
    pub fn open(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
        Ok(Connection {
            stream,
            received: Vec::with_capacity(READ_BYTES),
        })
    }

    /// Sends `request` as it is and waits for the whole answer. More than one answer is an error.
    pub fn exchange(&mut self, request: &[u8]) -> io::Result<Answer<'_>> {
        self.stream.write_all(request)?;
        self.received.clear();
        let head_len = loop {
            if let Some(at) = self.received.windows(4).position(|end| end == b"\r\n\r\n") {
                break at + 4;
            }
            self.receive()?;
        };
        let body_len = self.answer(head_len, head_len)?.body_len()?;
        while self.received.len() < head_len + body_len {
            self.receive()?;
        }
        if self.received.len() > head_len + body_len {
            return Err(bad("there is more behind the answer"));
        }
        self.answer(head_len, head_len + body_len)
    }

    fn answer(&self, head_len: usize, end: usize) -> io::Result<Answer<'_>> {
        let text = std::str::from_utf8(&self.received[..end]);
        let text = text.map_err(|_| bad("the answer is not text"))?;
        let (head, body) = text.split_at(head_len);
        Answer::new(head, body)
    }

    fn receive(&mut self) -> io::Result<()> {
        if self.received.len() > ANSWER_BYTES_MAX {
            return Err(bad("the answer is too long"));
        }
        let before = self.received.len();
        self.received.resize(before + READ_BYTES, 0);
        let read = self.stream.read(&mut self.received[before..]);
        let more = *read.as_ref().unwrap_or(&0);
        self.received.truncate(before + more);
        match read? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }
}
