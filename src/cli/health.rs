//! `sidekey health`: asks a running Sidekey how it is, for those who look after containers and have no
//! other client there. No key is needed, nothing is changed, and the answer comes in a limited time.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::process::ExitCode;
use std::time::Duration;

use serde_json::Value;

use super::EXIT_CONFIG;
use super::failure::tell;
use crate::clock::{Clock, SystemClock};
use crate::config::{self, ProcessEnvironment};

/// How long the whole question may take.
const TIMEOUT: Duration = Duration::from_secs(3);
/// The answer has at most this many bytes; Sidekey's has some 300.
const ANSWER_BYTES_MAX: usize = 64 << 10;

#[derive(clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    config: super::ConfigArgument,
    /// Ask whether it can take requests, and not only whether it is alive
    #[arg(long)]
    ready: bool,
    /// The admin port to ask, in place of the one that the configuration names
    #[arg(long, value_name = "ADDRESS")]
    address: Option<SocketAddr>,
}

pub fn run(arguments: &Arguments) -> ExitCode {
    let address = match address(arguments) {
        Ok(address) => address,
        Err(problem) => {
            tell(&problem);
            return ExitCode::from(EXIT_CONFIG);
        }
    };
    let question = if arguments.ready {
        Question::Ready
    } else {
        Question::Alive
    };
    match ask(address, question) {
        Ok(()) => {
            // Nobody may be reading.
            let _ = writeln!(std::io::stdout(), "{}", question.word());
            ExitCode::SUCCESS
        }
        Err(problem) => {
            tell(&problem);
            ExitCode::FAILURE
        }
    }
}

#[derive(Clone, Copy)]
enum Question {
    Alive,
    Ready,
}

impl Question {
    fn path(self) -> &'static str {
        match self {
            Question::Alive => "/healthz",
            Question::Ready => "/readyz",
        }
    }

    fn word(self) -> &'static str {
        match self {
            Question::Alive => "alive",
            Question::Ready => "ready",
        }
    }
}

fn address(arguments: &Arguments) -> Result<SocketAddr, String> {
    let address = match arguments.address {
        Some(address) => address,
        None => {
            let path = arguments.config.path();
            config::admin_address(path, &ProcessEnvironment)
                .map_err(|problem| format!("{}: {problem}", path.display()))?
        }
    };
    if address.port() == 0 {
        return Err(
            "the admin port is any free one, so nobody knows it here: name it with --address"
                .to_owned(),
        );
    }
    Ok(from_here(address))
}

/// What listens on all addresses is reached on this machine's own.
fn from_here(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        address.set_ip(match address.ip() {
            IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        });
    }
    address
}

fn ask(address: SocketAddr, question: Question) -> Result<(), String> {
    let answer = exchange(address, question.path()).map_err(|error| {
        let why = match error.kind() {
            ErrorKind::WouldBlock | ErrorKind::TimedOut => {
                format!("no answer within {} s", TIMEOUT.as_secs())
            }
            _ => error.to_string(),
        };
        format!("{address} does not answer: {why}; is Sidekey running, and is this its admin port?")
    })?;
    judge(&answer, question)
}

/// One request on a connection of its own; the answer as it came.
fn exchange(address: SocketAddr, path: &str) -> std::io::Result<Vec<u8>> {
    let clock = SystemClock::new();
    let start_us = clock.monotonic_us();
    let left = || {
        let spent = Duration::from_micros(clock.monotonic_us().saturating_sub(start_us));
        let left = TIMEOUT.saturating_sub(spent);
        if left.is_zero() {
            return Err(ErrorKind::TimedOut.into());
        }
        Ok::<_, std::io::Error>(left)
    };
    let mut stream = TcpStream::connect_timeout(&address, left()?)?;
    stream.set_write_timeout(Some(left()?))?;
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n"
    )?;
    let mut answer = Vec::new();
    let mut piece = [0; 4096];
    while answer.len() < ANSWER_BYTES_MAX {
        stream.set_read_timeout(Some(left()?))?;
        match stream.read(&mut piece) {
            Ok(0) => break,
            Ok(count) => answer.extend_from_slice(&piece[..count]),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(answer)
}

/// Whether `answer` says yes; why not, where it does not.
fn judge(answer: &[u8], question: Question) -> Result<(), String> {
    let text = String::from_utf8_lossy(answer);
    let status = text
        .strip_prefix("HTTP/1.")
        .and_then(|rest| rest.split_ascii_whitespace().nth(1));
    let no = format!("not {}", question.word());
    match status {
        Some("200") => Ok(()),
        Some("503") => Err(format!("{no}: {}", reasons(&text))),
        Some(status) => Err(format!(
            "{no}: the answer is {status}; is this Sidekey's admin port?"
        )),
        None => Err(format!(
            "{no}: the answer is not HTTP; is this Sidekey's admin port?"
        )),
    }
}

/// What an answer of `/readyz` names.
fn reasons(answer: &str) -> String {
    let body = answer.split_once("\r\n\r\n").map(|(_, body)| body);
    let body: Value = body
        .and_then(|body| serde_json::from_str(body).ok())
        .unwrap_or_default();
    if body["status"] == "stopping" {
        return "it is stopping".to_owned();
    }
    let away: Vec<&str> = [
        ("database", "the database"),
        ("secret_store", "the secret store"),
    ]
    .into_iter()
    .filter(|(name, _)| body["checks"][name] == "away")
    .map(|(_, shown)| shown)
    .collect();
    match away.as_slice() {
        [] => "the answer is 503".to_owned(),
        [one] => format!("{one} is away"),
        more => format!("{} are away", more.join(" and ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    fn ready(answer: &str) -> Result<(), String> {
        judge(answer.as_bytes(), Question::Ready)
    }

    #[test]
    fn answers_are_told_apart() {
        let with = |status: &str, body: &str| ready(&format!("HTTP/1.1 {status}\r\n\r\n{body}"));
        assert_eq!(with("200 OK", ""), Ok(()));
        for (answer, expected) in [
            (
                with(
                    "503 X",
                    r#"{"status":"away","checks":{"database":"away","secret_store":"ok"}}"#,
                ),
                "not ready: the database is away",
            ),
            (
                with(
                    "503 X",
                    r#"{"status":"away","checks":{"database":"away","secret_store":"away"}}"#,
                ),
                "not ready: the database and the secret store are away",
            ),
            (
                with("503 X", r#"{"status":"stopping","checks":{}}"#),
                "not ready: it is stopping",
            ),
            (with("503 X", "<html>"), "not ready: the answer is 503"),
            (
                with("404 X", ""),
                "not ready: the answer is 404; is this Sidekey's admin port?",
            ),
            (
                ready(""),
                "not ready: the answer is not HTTP; is this Sidekey's admin port?",
            ),
            (
                ready("220 mail.example ESMTP\r\n"),
                "not ready: the answer is not HTTP; is this Sidekey's admin port?",
            ),
        ] {
            assert_eq!(answer, Err(expected.to_owned()));
        }
    }

    #[test]
    fn what_listens_everywhere_is_asked_here() {
        for (address, expected) in [
            ("0.0.0.0:1", "127.0.0.1:1"),
            ("[::]:1", "[::1]:1"),
            ("10.1.2.3:1", "10.1.2.3:1"),
        ] {
            assert_eq!(from_here(address.parse().unwrap()).to_string(), expected);
        }
    }

    #[test]
    fn an_endless_answer_ends() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let endless = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            while stream.write_all(&[b'a'; 4096]).is_ok() {}
        });
        let told = ask(address, Question::Alive).unwrap_err();
        assert!(told.starts_with("not alive"), "{told}");
        endless.join().unwrap();
    }
}
