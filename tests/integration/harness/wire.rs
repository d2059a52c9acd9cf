//! A service that reads requests as strictly as HTTP/1.1 can be read, and keeps what it read.
//! Whatever two servers could frame differently is noted as a fault: behind a gateway it must not
//! arrive.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// A request, byte for byte.
#[derive(Debug, Clone, Default)]
pub struct Request {
    pub method: String,
    pub target: Vec<u8>,
    /// Names in lower case, values without white space around them.
    pub headers: Vec<(String, Vec<u8>)>,
    pub body: Vec<u8>,
    /// The whole header.
    pub head: Vec<u8>,
}

impl Request {
    /// The target as text.
    pub fn target(&self) -> String {
        String::from_utf8_lossy(&self.target).into_owned()
    }

    /// All values of a field, joined as a list; `None` where it isn't there.
    pub fn header(&self, name: &str) -> Option<String> {
        let values: Vec<_> = self
            .headers
            .iter()
            .filter(|(n, _)| n == name)
            .map(|(_, value)| String::from_utf8_lossy(value).into_owned())
            .collect();
        (!values.is_empty()).then(|| values.join(", "))
    }

    /// Whether `text` stands anywhere in the header.
    pub fn head_contains(&self, text: &str) -> bool {
        self.head
            .windows(text.len())
            .any(|window| window == text.as_bytes())
    }
}

#[derive(Default)]
struct Record {
    requests: Vec<Request>,
    faults: Vec<String>,
}

type Answer = dyn Fn(&Request) -> Vec<u8> + Send + Sync;

/// The service.
pub struct Wire {
    pub address: SocketAddr,
    record: Arc<Mutex<Record>>,
    server: JoinHandle<()>,
}

impl Wire {
    /// Answers each request with 200 and its target.
    pub async fn start() -> Self {
        Self::answering(|request| ok(request, &format!("answer to {}", request.target()))).await
    }

    /// Answers each request with the bytes that `answer` gives.
    pub async fn answering(answer: impl Fn(&Request) -> Vec<u8> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let record: Arc<Mutex<Record>> = Arc::default();
        let (answer, noted) = (Arc::new(answer), record.clone());
        let server = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, noted.clone(), answer.clone()));
            }
        });
        Wire {
            address,
            record,
            server,
        }
    }

    /// Everything that came, oldest first.
    pub fn requests(&self) -> Vec<Request> {
        self.record.lock().expect("the record").requests.clone()
    }

    /// The targets of everything that came.
    pub fn targets(&self) -> Vec<String> {
        self.requests().iter().map(Request::target).collect()
    }

    /// The newest request.
    pub fn last(&self) -> Request {
        self.requests().pop().expect("a request")
    }

    /// What came that can be read in more than one way.
    pub fn faults(&self) -> Vec<String> {
        self.record.lock().expect("the record").faults.clone()
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// The bytes of a 200 with `body`.
pub fn ok(request: &Request, body: &str) -> Vec<u8> {
    let shown = if request.method == "HEAD" { "" } else { body };
    let length = body.len();
    format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{shown}").into_bytes()
}

async fn serve(mut stream: TcpStream, record: Arc<Mutex<Record>>, answer: Arc<Answer>) {
    let mut buffer = Vec::new();
    loop {
        match read_request(&mut stream, &mut buffer).await {
            Ok(Some(request)) => {
                let bytes = answer(&request);
                record.lock().expect("the record").requests.push(request);
                if stream.write_all(&bytes).await.is_err() {
                    return;
                }
            }
            Ok(None) => return,
            Err(fault) => {
                record.lock().expect("the record").faults.push(fault);
                return;
            }
        }
    }
}

async fn fill(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> bool {
    matches!(stream.read_buf(buffer).await, Ok(count) if count > 0)
}

/// `None` where the connection ends before the request does.
async fn read_request(
    stream: &mut TcpStream,
    buffer: &mut Vec<u8>,
) -> Result<Option<Request>, String> {
    let Some(head) = take_until(stream, buffer, b"\r\n\r\n").await else {
        return Ok(None);
    };
    let mut request = parse_head(head)?;
    let all = |name: &str| -> Vec<String> {
        let named = request.headers.iter().filter(|(n, _)| n == name);
        named
            .map(|(_, value)| String::from_utf8_lossy(value).into_owned())
            .collect()
    };
    let shown = || String::from_utf8_lossy(&request.head).into_owned();
    let body = match (
        all("content-length").as_slice(),
        all("transfer-encoding").as_slice(),
    ) {
        ([], []) => Some(Vec::new()),
        ([length], []) if !length.is_empty() && length.bytes().all(|b| b.is_ascii_digit()) => {
            let length = length.parse().map_err(|_| shown())?;
            take(stream, buffer, length).await
        }
        ([], [coding]) if coding == "chunked" => take_chunks(stream, buffer).await?,
        _ => return Err(format!("the length of the body is not clear: {}", shown())),
    };
    Ok(body.map(|body| {
        request.body = body;
        request
    }))
}

async fn take(stream: &mut TcpStream, buffer: &mut Vec<u8>, count: usize) -> Option<Vec<u8>> {
    while buffer.len() < count {
        if !fill(stream, buffer).await {
            return None;
        }
    }
    Some(buffer.drain(..count).collect())
}

async fn take_until(stream: &mut TcpStream, buffer: &mut Vec<u8>, end: &[u8]) -> Option<Vec<u8>> {
    loop {
        if let Some(at) = buffer.windows(end.len()).position(|window| window == end) {
            return Some(buffer.drain(..at + end.len()).collect());
        }
        if !fill(stream, buffer).await {
            return None;
        }
    }
}

async fn take_chunks(
    stream: &mut TcpStream,
    buffer: &mut Vec<u8>,
) -> Result<Option<Vec<u8>>, String> {
    let mut body = Vec::new();
    loop {
        let Some(line) = take_until(stream, buffer, b"\r\n").await else {
            return Ok(None);
        };
        let digits = &line[..line.len() - 2];
        let size = std::str::from_utf8(digits)
            .ok()
            .filter(|text| !text.is_empty() && text.bytes().all(|b| b.is_ascii_hexdigit()))
            .and_then(|text| usize::from_str_radix(text, 16).ok())
            .ok_or_else(|| format!("a chunk's size is not clear: {digits:?}"))?;
        let Some(chunk) = take(stream, buffer, size + 2).await else {
            return Ok(None);
        };
        if &chunk[size..] != b"\r\n" {
            return Err("a chunk does not end where it says".to_owned());
        }
        if size == 0 {
            return Ok(Some(body));
        }
        body.extend_from_slice(&chunk[..size]);
    }
}

fn parse_head(head: Vec<u8>) -> Result<Request, String> {
    let fault = |what: &str| Err(format!("{what}: {}", head.escape_ascii()));
    let text = &head[..head.len() - 4];
    let mut lines = Vec::new();
    let mut start = 0;
    while let Some(at) = text[start..].windows(2).position(|pair| pair == b"\r\n") {
        lines.push(&text[start..start + at]);
        start += at + 2;
    }
    lines.push(&text[start..]);
    if lines
        .iter()
        .any(|line| line.iter().any(|b| matches!(b, 0 | b'\r' | b'\n')))
    {
        return fault("a bare line end or NUL");
    }
    let parts: Vec<&[u8]> = lines[0].split(|b| *b == b' ').collect();
    let [method, target, b"HTTP/1.1"] = parts[..] else {
        return fault("a request line that is not clear");
    };
    let mut request = Request {
        method: String::from_utf8_lossy(method).into_owned(),
        target: target.to_vec(),
        ..Request::default()
    };
    for line in &lines[1..] {
        let colon = line.iter().position(|b| *b == b':').unwrap_or(0);
        let (name, value) = line.split_at(colon);
        let is_token = |b: &u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(b);
        if name.is_empty() || !name.iter().all(is_token) {
            return fault("a field without a clear name");
        }
        let name = String::from_utf8_lossy(name).to_ascii_lowercase();
        request
            .headers
            .push((name, value[1..].trim_ascii().to_vec()));
    }
    request.head = head;
    Ok(request)
}
