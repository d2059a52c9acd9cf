//! Requests that two servers could frame differently. Behind the program stands a service that
//! reads as strictly as one can: a second request hidden in the first must never reach it as one
//! of its own, and nothing that it could misread may reach it at all.

use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::harness::DEADLINE;
use crate::harness::raw::{Raw, get};
use crate::harness::sidekey::{Sidekey, config};
use crate::harness::wire::Wire;

/// How long to wait for a first answer where it may be that there is none.
const FIRST_ANSWER: Duration = Duration::from_secs(1);
/// How long to wait for another one.
const QUIET: Duration = Duration::from_millis(50);

const PLENTY: &str =
    r#"limits.default = [{ name = "plenty", quota = 100000, window_seconds = 1 }]"#;

async fn start() -> (Wire, Sidekey, String) {
    let upstream = Wire::start().await;
    let all = format!("{PLENTY}\n{}", config(upstream.address, ""));
    let sidekey = Sidekey::start(&all).await;
    let key = sidekey.create_key(json!({})).await;
    (
        upstream,
        sidekey,
        format!("Authorization: Bearer {}", key.text),
    )
}

/// Sends `bytes` on a connection of its own; the statuses of all answers, the first of which comes within
/// `patience`. A kept connection is silent after its last answer: quiet ends the wait.
async fn statuses(sidekey: &Sidekey, bytes: &[u8], mut patience: Duration) -> Vec<u16> {
    let mut stream = TcpStream::connect(sidekey.proxy).await.unwrap();
    // It may be refused before all of it is taken.
    let _ = timeout(DEADLINE, stream.write_all(bytes)).await;
    let mut all = Vec::new();
    while let Ok(Ok(1..)) = timeout(patience, stream.read_buf(&mut all)).await {
        patience = QUIET;
    }
    let text = String::from_utf8_lossy(&all);
    text.split("HTTP/1.1 ")
        .skip(1)
        .map(|answer| answer[..3].parse().unwrap())
        .collect()
}

/// How long to wait for an answer whose status is one of `expected`; 0 is none, of a request that is never
/// whole.
fn patience(expected: &[u16]) -> Duration {
    if expected.contains(&0) {
        FIRST_ANSWER
    } else {
        DEADLINE
    }
}

/// Sends the request with a hidden one behind it, and checks that the hidden one stays hidden and
/// that the answer's status is one of `expected`.
async fn assert_nothing_hidden(
    upstream: &Wire,
    sidekey: &Sidekey,
    request: &[u8],
    expected: &[u16],
) {
    let shown = request.escape_ascii().to_string();
    let found = statuses(sidekey, request, patience(expected)).await;
    assert_eq!(upstream.faults(), Vec::<String>::new(), "{shown}");
    for target in upstream.targets() {
        assert!(!target.contains("hidden"), "{shown} let {target} through");
    }
    let first = found.first().copied().unwrap_or(0);
    assert!(expected.contains(&first), "{first} to {shown}");
    let answered_well = found.iter().filter(|status| **status == 200).count();
    assert!(answered_well <= 1, "{found:?} to {shown}");
}

/// A POST with these framing lines and this body; `{H}` in it stands for a whole hidden request
/// with a good key.
fn post(key: &str, framing: &str, body: &str) -> Vec<u8> {
    let hidden = get("/hidden", &[key]);
    let body = body.replace("{H}", &hidden);
    let framing = framing.replace("{L}", &body.len().to_string());
    format!("POST /seen HTTP/1.1\r\nHost: test.example\r\n{key}\r\n{framing}\r\n\r\n{body}")
        .into_bytes()
}

#[tokio::test(flavor = "multi_thread")]
async fn two_ways_of_saying_where_the_body_ends() {
    let (upstream, sidekey, key) = start().await;
    const REFUSED: &[u16] = &[400];
    const EITHER: &[u16] = &[200, 400];
    for (framing, body, expected) in [
        // Content-Length and Transfer-Encoding.
        (
            "Content-Length: 5\r\nTransfer-Encoding: chunked",
            "0\r\n\r\n{H}",
            EITHER,
        ),
        (
            "Transfer-Encoding: chunked\r\nContent-Length: 5",
            "0\r\n\r\n{H}",
            EITHER,
        ),
        (
            "Content-Length: {L}\r\nTransfer-Encoding: chunked",
            "0\r\n\r\n{H}",
            EITHER,
        ),
        // Two lengths.
        ("Content-Length: 0\r\nContent-Length: {L}", "{H}", REFUSED),
        ("Content-Length: {L}\r\nContent-Length: 0", "{H}", REFUSED),
        ("Content-Length: 0, {L}", "{H}", REFUSED),
        ("Content-Length: 0\r\ncontent-length : {L}", "{H}", REFUSED),
        // Lengths that are none.
        ("Content-Length: +0", "{H}", REFUSED),
        ("Content-Length: -1", "{H}", REFUSED),
        ("Content-Length: 0x0", "{H}", REFUSED),
        ("Content-Length: 0 0", "{H}", REFUSED),
        ("Content-Length: 1e1", "{H}", REFUSED),
        ("Content-Length:", "{H}", REFUSED),
        ("Content-Length: 18446744073709551616", "{H}", REFUSED),
        ("Content-Length: 99999999999999999999999", "{H}", REFUSED),
        // Transfer codings that are not quite chunked.
        ("Transfer-Encoding: xchunked", "0\r\n\r\n{H}", REFUSED),
        (
            "Transfer-Encoding: chunked, identity",
            "0\r\n\r\n{H}",
            REFUSED,
        ),
        (
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
            "0\r\n\r\n{H}",
            REFUSED,
        ),
        (
            "Transfer-Encoding: identity\r\nTransfer-Encoding: chunked",
            "0\r\n\r\n{H}",
            EITHER,
        ),
        ("Transfer-Encoding: gzip, chunked", "0\r\n\r\n{H}", EITHER),
        (
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
            "0\r\n\r\n{H}",
            EITHER,
        ),
        (
            "Transfer-Encoding: chunked, chunked",
            "0\r\n\r\n{H}",
            EITHER,
        ),
        ("Transfer-Encoding: \"chunked\"", "0\r\n\r\n{H}", REFUSED),
        ("Transfer-Encoding: chunked;q=1", "0\r\n\r\n{H}", REFUSED),
        ("Transfer-Encoding: chunked\u{b}", "0\r\n\r\n{H}", REFUSED),
        ("Transfer-Encoding:\u{b}chunked", "0\r\n\r\n{H}", REFUSED),
        ("Transfer-Encoding:\tCHUNKED", "0\r\n\r\n{H}", EITHER),
        (
            "Transfer-Encoding : chunked\r\nContent-Length: 5",
            "0\r\n\r\n{H}",
            REFUSED,
        ),
        (
            "Transfer-Encoding:\r\n chunked\r\nContent-Length: 5",
            "0\r\n\r\n{H}",
            REFUSED,
        ),
        (
            "X: y\r\n Transfer-Encoding: chunked\r\nContent-Length: 5",
            "0\r\n\r\n{H}",
            REFUSED,
        ),
        (
            "X: y\rTransfer-Encoding: chunked\r\nContent-Length: 5",
            "0\r\n\r\n{H}",
            REFUSED,
        ),
        (
            "Transfer_Encoding: chunked\r\nContent-Length: {L}",
            "0\r\n\r\n{H}",
            EITHER,
        ),
        (
            "Transfer-Encoding: chunked\0\r\nContent-Length: 5",
            "0\r\n\r\n{H}",
            REFUSED,
        ),
    ] {
        let request = post(&key, framing, body);
        assert_nothing_hidden(&upstream, &sidekey, &request, expected).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn chunks_that_two_servers_could_read_differently() {
    let (upstream, sidekey, key) = start().await;
    // The status is the service's where it answers before the bad chunk is read.
    const ANY: &[u16] = &[0, 200, 400, 502];
    for body in [
        "zz\r\n{H}",
        "-1\r\n{H}",
        "+0\r\n\r\n{H}",
        "0x0\r\n\r\n{H}",
        " 0\r\n\r\n{H}",
        "0 \r\n\r\n{H}",
        "0;a=\n\r\n{H}",
        "0;a=\"\r\n\r\n{H}",
        "0\n\n{H}",
        "0\r\n\n{H}",
        "1\r\nab\r\n0\r\n\r\n{H}",
        "1\na\n0\n\n{H}",
        "2\r\na\r\n0\r\n\r\n{H}",
        "10000000000000000\r\n{H}",
        "ffffffffffffffff\r\n{H}",
        "fffffffffffffffe\r\n{H}",
        "7fffffffffffffff\r\n{H}",
        "\r\n0\r\n\r\n{H}",
        "0\r\nContent-Length: 9\r\n\r\n{H}",
        "0\r\nTransfer-Encoding: chunked\r\n\r\n{H}",
        "0\r\nX-Sidekey-Key-Id: forged\r\n\r\n{H}",
    ] {
        let request = post(&key, "Transfer-Encoding: chunked", body);
        assert_nothing_hidden(&upstream, &sidekey, &request, ANY).await;
    }
    for request in upstream.requests() {
        assert!(!request.head_contains("forged"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_that_two_servers_could_read_differently() {
    let (upstream, sidekey, key) = start().await;
    for (line, expected) in [
        ("X-Folded: a\r\n b", &[400u16] as &[u16]),
        ("X-Folded: a\r\n\tGET /hidden HTTP/1.1", &[400]),
        (" X-First: a", &[400]),
        ("X-Space : a", &[400]),
        ("X Space: a", &[400]),
        (": nameless", &[400]),
        ("no colon", &[400]),
        ("X-Nul: a\0b", &[400]),
        ("X\0: a", &[400]),
        ("X-Return: a\rb", &[400]),
        ("X-Delete: a\x7fb", &[400]),
        ("X(y): a", &[400]),
        ("Host: test.example", &[400]),
        ("Host: other.example", &[400]),
        // One reading, whatever one thinks of it.
        ("X-Tab: a\tb", &[200]),
        ("X-Empty:", &[200]),
        ("X-Latin: \u{e9}", &[200]),
    ] {
        let request =
            format!("GET /seen HTTP/1.1\r\nHost: test.example\r\n{key}\r\n{line}\r\n\r\n");
        assert_nothing_hidden(&upstream, &sidekey, request.as_bytes(), expected).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bare_line_feed_is_mended_or_refused() {
    let (upstream, sidekey, key) = start().await;
    let lines = [
        "GET /seen HTTP/1.1",
        "Host: test.example",
        &key,
        "X: y",
        "",
        "",
    ];
    for at in 0..lines.len() - 1 {
        let mut request = String::new();
        for (index, line) in lines[..lines.len() - 1].iter().enumerate() {
            request.push_str(line);
            request.push_str(if index == at { "\n" } else { "\r\n" });
        }
        assert_nothing_hidden(&upstream, &sidekey, request.as_bytes(), &[200, 400]).await;
    }
    let all = lines.join("\n");
    assert_nothing_hidden(&upstream, &sidekey, all.as_bytes(), &[200, 400]).await;
    // Whoever ends a header at a bare line feed finds a second request in this one.
    let split = format!(
        "GET /seen HTTP/1.1\r\nHost: test.example\r\n{key}\r\nX: y\n\nGET /hidden HTTP/1.1\r\nHost: test.example\r\n\r\n"
    );
    assert_nothing_hidden(&upstream, &sidekey, split.as_bytes(), &[200, 400]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn request_lines_that_two_servers_could_read_differently() {
    let (upstream, sidekey, key) = start().await;
    for line in [
        "GET /seen",
        "GET  /seen HTTP/1.1",
        "GET\t/seen\tHTTP/1.1",
        "GET /seen HTTP/1.1 ",
        "GET /seen HTTP/1.1 HTTP/1.1",
        "GET /seen HTTP/9.9",
        "GET /seen HTTP/2.0",
        "GET /seen http/1.1",
        "GET /seen HTTP/1.1\rX: /hidden",
        " GET /seen HTTP/1.1",
        "G\0T /seen HTTP/1.1",
        "PRI * HTTP/2.0\r\n\r\nSM",
        "CONNECT test.example:80 HTTP/1.1",
    ] {
        let request = format!("{line}\r\nHost: test.example\r\n{key}\r\n\r\n");
        assert_nothing_hidden(
            &upstream,
            &sidekey,
            request.as_bytes(),
            &[0, 200, 400, 405, 501],
        )
        .await;
    }
    for target in upstream.targets() {
        assert!(target.starts_with("/seen"), "{target}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_host_is_named_exactly_once() {
    let (upstream, sidekey, key) = start().await;
    for (target, hosts, expected) in [
        ("/seen", "", &[400u16] as &[u16]),
        ("/seen", "Host: a\r\nHost: b\r\n", &[400]),
        ("/seen", "Host: a\r\nHost: a\r\n", &[400]),
        ("/seen", "Host: a, b\r\n", &[400]),
        ("/seen", "Host: a b\r\n", &[400]),
        ("/seen", "Host: a/b\r\n", &[400]),
        ("/seen", "Host: user@a\r\n", &[400]),
        ("/seen", "Host: a\\b\r\n", &[400]),
        ("/seen", "Host: a?b\r\n", &[400]),
        ("/seen", "Host: \u{e9}\r\n", &[400]),
        // The authority of the target would take the place of another Host.
        ("http://b.example/seen", "Host: a.example\r\n", &[400]),
        ("http://user@a.example/seen", "Host: a.example\r\n", &[400]),
    ] {
        let request = format!("GET {target} HTTP/1.1\r\n{hosts}{key}\r\n\r\n");
        assert_nothing_hidden(&upstream, &sidekey, request.as_bytes(), expected).await;
    }
    assert_eq!(upstream.targets(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_can_have_our_fields_taken_away() {
    let (upstream, sidekey, key) = start().await;
    for nominated in [
        "X-Sidekey-Key-Id",
        "close, X-Sidekey-Tenant-Id, X-Sidekey-Scopes",
        "close, Authorization",
        "keep-alive, X-Request-Id, X-Forwarded-For, Host",
        "Content-Length, Transfer-Encoding",
    ] {
        let before = upstream.requests().len();
        let request = format!(
            "POST /seen HTTP/1.1\r\nHost: test.example\r\n{key}\r\nConnection: {nominated}\r\nContent-Length: 4\r\n\r\nbody"
        );
        let found = statuses(&sidekey, request.as_bytes(), DEADLINE).await;
        assert!(matches!(found[..], [200 | 400]), "{found:?} to {nominated}");
        if upstream.requests().len() == before {
            continue;
        }
        let seen = upstream.last();
        assert_eq!(seen.body, b"body", "{nominated}");
        for name in [
            "x-sidekey-key-id",
            "x-sidekey-tenant-id",
            "x-sidekey-scopes",
            "x-request-id",
            "x-forwarded-for",
            "host",
        ] {
            assert!(seen.header(name).is_some(), "{nominated}: no {name}");
        }
        assert_eq!(seen.header("authorization"), None, "{nominated}");
        // A service that follows nominations would take them away itself.
        let passed_on = seen.header("connection").unwrap_or_default();
        let passed_on = passed_on.to_ascii_lowercase();
        assert!(
            !passed_on.contains("x-") && !passed_on.contains("host"),
            "{nominated}: {passed_on}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn too_much_is_refused_and_not_cut_off() {
    let (upstream, sidekey, key) = start().await;
    let line = |path: &str, more: &str| {
        format!("GET {path} HTTP/1.1\r\nHost: test.example\r\n{key}\r\n{more}\r\n").into_bytes()
    };
    let long_path = format!("/{}", "a".repeat(70_000));
    let long_value = format!("X-Long: {}\r\n", "v".repeat(70_000));
    let long_name = format!("{}: v\r\n", "n".repeat(70_000));
    let many = "X-Many: v\r\n".repeat(300);
    let endless = format!("/{}", "a".repeat(2_000_000));
    for (request, expected) in [
        (line(&long_path, ""), &[400u16, 414, 431] as &[u16]),
        (line("/seen", &long_value), &[431]),
        (line("/seen", &long_name), &[400, 431]),
        (line("/seen", &many), &[200, 400, 431]),
        (line(&endless, ""), &[0, 400, 414, 431]),
    ] {
        let found = statuses(&sidekey, &request, patience(expected)).await;
        let first = found.first().copied().unwrap_or(0);
        let shown = String::from_utf8_lossy(&request[..request.len().min(60)]).into_owned();
        assert!(expected.contains(&first), "{first} to {shown}");
    }
    // 200 fields are many, and no more than that.
    let many = (0..200).fold(String::new(), |all, n| format!("{all}X-{n}: v\r\n"));
    let found = statuses(&sidekey, &line("/seen", &many), DEADLINE).await;
    assert_eq!(found, [200]);
    assert_eq!(upstream.last().header("x-199").as_deref(), Some("v"));
}

/// The tests above are worth what the service behind notices: without the program in front it
/// notes the faults, and takes the hidden request for one of its own.
#[tokio::test(flavor = "multi_thread")]
async fn the_service_notices_what_the_program_keeps_away() {
    for (framing, body) in [
        (
            "Content-Length: 5\r\nTransfer-Encoding: chunked",
            "0\r\n\r\n",
        ),
        ("Content-Length: 0\r\nContent-Length: 5", "01234"),
        ("Transfer-Encoding: xchunked", "0\r\n\r\n"),
        ("Transfer-Encoding : chunked", "0\r\n\r\n"),
        ("Transfer-Encoding: chunked", "0;a=\n\r\n\r\n"),
        ("X: y\n\nGET /hidden HTTP/1.1", ""),
    ] {
        let upstream = Wire::start().await;
        let mut client = Raw::connect(upstream.address).await;
        client.send(post("X-Key: none", framing, body)).await;
        client.read_to_end().await;
        assert_eq!(upstream.faults().len(), 1, "{framing}");
    }
    let upstream = Wire::start().await;
    let mut client = Raw::connect(upstream.address).await;
    client
        .send(post("X-Key: none", "Content-Length: 0", "{H}"))
        .await;
    client.read_answer().await;
    client.read_answer().await;
    assert_eq!(upstream.targets(), ["/seen", "/hidden"]);
}
