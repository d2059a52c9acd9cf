//! A small HTTP/1.1 client over blocking sockets, and the loads that are made of it.
//!
//! wrk measures the closed loop of the warm comparison. It can't count answers by status, send
//! another key each time without a script on its hot path, or keep to a rate: that is this file.
//! One thread drives one connection. That is dear for the client, which runs on its own CPU, and
//! keeps every measured time free of a runtime's timer resolution (tokio's is a millisecond).

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::ops::AddAssign;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// How long one answer may take. A cold key may wait for a whole queue of bcrypt checks.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// The most that an answer's head and body may have; /metrics is the largest of them.
const ANSWER_BYTES_MAX: usize = 4 << 20;
const READ_BYTES: usize = 16 << 10;
/// A long task says how far it is after each of so many parts; a short one says nothing.
const PROGRESS_PARTS: usize = 10;
const PROGRESS_AFTER: Duration = Duration::from_secs(5);

/// A keep-alive connection, one request at a time.
pub struct Connection {
    stream: TcpStream,
    received: Vec<u8>,
}

/// What came back.
pub struct Answer<'a> {
    pub status: u16,
    pub body: &'a [u8],
}

impl Connection {
    /// Connects.
    pub fn open(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
        Ok(Self {
            stream,
            received: Vec::with_capacity(READ_BYTES),
        })
    }

    /// Sends `request` as it is and waits for the whole answer.
    pub fn exchange(&mut self, request: &[u8]) -> io::Result<Answer<'_>> {
        self.stream.write_all(request)?;
        self.received.clear();
        let head_len = loop {
            if let Some(at) = self.received.windows(4).position(|end| end == b"\r\n\r\n") {
                break at + 4;
            }
            self.receive()?;
        };
        let (status, body_len) = read_head(&self.received[..head_len])?;
        while self.received.len() < head_len + body_len {
            self.receive()?;
        }
        Ok(Answer {
            status,
            body: &self.received[head_len..],
        })
    }

    fn receive(&mut self) -> io::Result<()> {
        if self.received.len() > ANSWER_BYTES_MAX {
            return Err(io::Error::other("the answer is too long"));
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

/// Status and length of the body. Only lengths that are said in advance: nothing that the bench
/// calls answers in chunks.
fn read_head(head: &[u8]) -> io::Result<(u16, usize)> {
    let bad = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what);
    let head = std::str::from_utf8(head).map_err(|_| bad("the head is not text"))?;
    let status = head
        .get(9..12)
        .and_then(|digits| digits.parse().ok())
        .ok_or_else(|| bad("there is no status line"))?;
    let value_of = |wanted: &str| {
        head.lines()
            .filter_map(|line| line.split_once(':'))
            .find(|(name, _)| name.eq_ignore_ascii_case(wanted))
            .map(|(_, value)| value.trim())
    };
    if status == 204 {
        return Ok((status, 0));
    }
    value_of("content-length")
        .and_then(|length| length.parse().ok())
        .map(|length| (status, length))
        .ok_or_else(|| bad("the answer has no Content-Length"))
}

/// A GET with the given header lines (each ending in CRLF).
pub fn get_request(path: &str, headers: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nHost: bench.example\r\n{headers}\r\n").into_bytes()
}

/// What a load met.
#[derive(Default)]
pub struct Tally {
    /// Answers by status.
    pub statuses: BTreeMap<u16, u64>,
    /// Requests without an answer.
    pub broken: u64,
    /// One duration an answer.
    pub latencies: Vec<Duration>,
}

impl Tally {
    /// Answers of all kinds.
    pub fn answers(&self) -> u64 {
        self.statuses.values().sum()
    }

    /// Nothing, or why figures from this load mean nothing: only `statuses` are right answers.
    pub fn expect_only(&self, statuses: &[u16]) -> Result<(), String> {
        let others: Vec<String> = self
            .statuses
            .iter()
            .filter(|(status, _)| !statuses.contains(status))
            .map(|(status, count)| format!("{count} x {status}"))
            .chain((self.broken > 0).then(|| format!("{} without an answer", self.broken)))
            .collect();
        if others.is_empty() {
            Ok(())
        } else {
            Err(format!(
                "not every answer was {statuses:?}: {}",
                others.join(", ")
            ))
        }
    }

    fn note(&mut self, status: io::Result<u16>, took: Duration) -> bool {
        match status {
            Ok(status) => {
                *self.statuses.entry(status).or_default() += 1;
                self.latencies.push(took);
                true
            }
            Err(_) => {
                self.broken += 1;
                false
            }
        }
    }
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        for (status, count) in other.statuses {
            *self.statuses.entry(status).or_default() += count;
        }
        self.broken += other.broken;
        self.latencies.extend(other.latencies);
    }
}

/// Runs `work` on so many threads at once and adds up what they met.
fn on_threads(threads: usize, work: impl Fn(usize) -> Tally + Sync) -> Tally {
    let work = &work;
    thread::scope(|scope| {
        let handles: Vec<_> = (0..threads)
            .map(|index| scope.spawn(move || work(index)))
            .collect();
        let mut total = Tally::default();
        for handle in handles {
            total += handle.join().expect("a load thread does not panic");
        }
        total
    })
}

/// A tally of one connection that could not even be opened.
fn never_connected() -> Tally {
    Tally {
        broken: 1,
        ..Tally::default()
    }
}

/// Each connection sends its next request when it has its answer.
///
/// `writer_of` makes, for each connection, what writes the next request.
pub fn closed_loop<W: FnMut(&mut Vec<u8>)>(
    address: SocketAddr,
    connections: usize,
    run_for: Duration,
    writer_of: impl Fn(usize) -> W + Sync,
) -> Tally {
    let end = Instant::now() + run_for;
    on_threads(connections, |index| {
        let Ok(mut connection) = Connection::open(address) else {
            return never_connected();
        };
        let mut write_request = writer_of(index);
        let mut request = Vec::new();
        let mut tally = Tally::default();
        loop {
            let start = Instant::now();
            if start >= end {
                return tally;
            }
            request.clear();
            write_request(&mut request);
            let status = connection.exchange(&request).map(|answer| answer.status);
            if !tally.note(status, start.elapsed()) {
                return tally;
            }
        }
    })
}

/// The connections together send `per_second` requests a second, whatever the answers take.
///
/// A request that is sent late because the answer before it was late counts from when it was
/// due: a slow proxy can't hide behind the requests that it kept from being sent. A late wake-up
/// of the client itself is not held against the proxy.
pub fn paced(
    address: SocketAddr,
    connections: usize,
    per_second: u32,
    run_for: Duration,
    request: &[u8],
) -> Tally {
    let connections_u32 = u32::try_from(connections).expect("a handful of connections");
    let period = Duration::from_secs(1) * connections_u32 / per_second;
    let begin = Instant::now();
    on_threads(connections, |index| {
        let Ok(mut connection) = Connection::open(address) else {
            return never_connected();
        };
        let index = u32::try_from(index).expect("a handful of connections");
        let mut due = begin + period * index / connections_u32;
        let mut tally = Tally::default();
        while due < begin + run_for {
            let start = wait_until(due).unwrap_or(due);
            let status = connection.exchange(request).map(|answer| answer.status);
            if !tally.note(status, start.elapsed()) {
                return tally;
            }
            due += period;
        }
        tally
    })
}

/// Sleeps until `due` and says when it woke up; `None` if `due` is in the past.
pub fn wait_until(due: Instant) -> Option<Instant> {
    let ahead = due.checked_duration_since(Instant::now())?;
    thread::sleep(ahead);
    Some(Instant::now())
}

/// Sends each request once, on its own connection, evenly over `spread_over` from `begin` on,
/// without waiting for answers: as many may be open at once as there are requests. One thread
/// drives them all: hundreds of threads that begin and end keep the CPU of whoever measures
/// beside them for milliseconds.
pub fn each_once_evenly(
    address: SocketAddr,
    requests: &[Vec<u8>],
    begin: Instant,
    spread_over: Duration,
) -> Tally {
    let count = u32::try_from(requests.len()).expect("a flood is limited in the settings");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime for the flood");
    runtime.block_on(async {
        let mut calls = tokio::task::JoinSet::new();
        for (place, request) in (0..count).zip(requests) {
            let (due, request) = (begin + spread_over * place / count, request.clone());
            calls.spawn(async move {
                tokio::time::sleep_until(due.into()).await;
                let start = Instant::now();
                let call = tokio::time::timeout(ANSWER_TIMEOUT, call_once(address, &request));
                let status = call.await.unwrap_or_else(|late| Err(late.into()));
                let mut tally = Tally::default();
                tally.note(status, start.elapsed());
                tally
            });
        }
        let mut total = Tally::default();
        for tally in calls.join_all().await {
            total += tally;
        }
        total
    })
}

/// One request on a connection of its own, and the status of its answer.
async fn call_once(address: SocketAddr, request: &[u8]) -> io::Result<u16> {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = tokio::net::TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    stream.write_all(request).await?;
    let mut received = Vec::new();
    loop {
        if stream.read_buf(&mut received).await? == 0 || received.len() > ANSWER_BYTES_MAX {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let Some(end) = received.windows(4).position(|end| end == b"\r\n\r\n") else {
            continue;
        };
        let (status, body_len) = read_head(&received[..end + 4])?;
        if received.len() >= end + 4 + body_len {
            return Ok(status);
        }
    }
}

/// Does `count` things over `connections` connections and returns what they gave, in order.
///
/// `work` gets a connection and the thing's number. The first failure ends it all.
pub fn fan_out<T: Send>(
    address: SocketAddr,
    connections: usize,
    count: usize,
    label: &str,
    work: impl Fn(&mut Connection, usize) -> Result<T, String> + Sync,
) -> Result<Vec<T>, String> {
    let next = AtomicUsize::new(0);
    let begin = Instant::now();
    let worker = || -> Result<Vec<(usize, T)>, String> {
        let mut connection =
            Connection::open(address).map_err(|error| format!("{label}: {error}"))?;
        let mut done = Vec::new();
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= count {
                return Ok(done);
            }
            let result = work(&mut connection, number).inspect_err(|_| {
                next.store(count, Ordering::Relaxed);
            })?;
            done.push((number, result));
            say_progress(label, number + 1, count, begin);
        }
    };
    let mut results: Vec<(usize, T)> = thread::scope(|scope| {
        let handles: Vec<_> = (0..connections).map(|_| scope.spawn(worker)).collect();
        let lists: Result<Vec<_>, String> = handles
            .into_iter()
            .map(|handle| handle.join().expect("a worker does not panic"))
            .collect();
        lists.map(|lists| lists.into_iter().flatten().collect())
    })?;
    results.sort_unstable_by_key(|(number, _)| *number);
    Ok(results.into_iter().map(|(_, result)| result).collect())
}

fn say_progress(label: &str, done: usize, count: usize, begin: Instant) {
    let took = begin.elapsed();
    if took >= PROGRESS_AFTER && done.is_multiple_of(count.div_ceil(PROGRESS_PARTS)) {
        println!("  {label}: {done} of {count} after {} s", took.as_secs());
    }
}
