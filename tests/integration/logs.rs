//! Lines about requests: what they tell, how many are written and at which level, and that a log
//! which nobody reads holds no request up.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::process::{Child, Stdio};
use std::sync::mpsc;

use reqwest::Method;
use serde_json::{Value, json};

use crate::contract::log_line;
use crate::harness::raw::{Raw, get, request};
use crate::harness::sidekey::{Sidekey, command, config};
use crate::harness::upstream::{Upstream, nobody};
use crate::harness::{DEADLINE, HEAVY, client_builder, eventually};

/// Sends a request and takes its answer's status and request id.
async fn send(proxy: SocketAddr, text: String) -> (u16, String) {
    let mut raw = Raw::connect(proxy).await;
    raw.send(text).await;
    let answer = raw.read_answer().await;
    let id = answer.header("x-request-id").expect("an id").to_owned();
    (answer.status, id)
}

fn names(line: &Value) -> BTreeSet<&str> {
    let fields = line.as_object().unwrap();
    fields.keys().map(String::as_str).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_line_tells_of_a_request() {
    let upstream = Upstream::start().await;
    let more = "[log]\naccess = \"all\"\n";
    let sidekey = Sidekey::start(&config(upstream.address, more)).await;
    let key = sidekey.create_key(json!({"tenant_id": "globex"})).await;
    let bearer = format!("Authorization: Bearer {}", key.text);
    let body = "twelve bytes";
    let (status, id) = send(
        sidekey.proxy,
        request(
            "POST",
            "/orders?a=b",
            &[&bearer, "X-Answer-Status: 201"],
            body,
        ),
    )
    .await;
    assert_eq!(status, 201);
    let line = log_line(&sidekey, &id).await;
    for (name, expected) in [
        ("level", json!("INFO")),
        ("message", json!("request")),
        ("outcome", json!("forwarded")),
        ("status", json!(201)),
        ("method", json!("POST")),
        ("path", json!("/orders")),
        ("client", json!("127.0.0.1")),
        ("route", json!("all")),
        ("key_id", json!(key.id)),
        ("tenant_id", json!("globex")),
        ("upstream", json!(upstream.address.to_string())),
        ("bytes_in", json!(12)),
        ("bytes_out", json!("answer to POST /orders?a=b".len())),
    ] {
        assert_eq!(line[name], expected, "{name} of {line}");
    }
    let told = upstream.last().header("traceparent").unwrap().to_owned();
    assert_eq!(line["trace_id"], told[3..35]);
    let time = |name: &str| {
        line[name]
            .as_f64()
            .unwrap_or_else(|| panic!("{name}: {line}"))
    };
    let parts = time("added_ms") + time("upstream_ms");
    assert!(
        time("added_ms") > 0.0 && time("upstream_ms") > 0.0,
        "{line}"
    );
    assert!(parts <= time("duration_ms") + 0.001, "{line}");
    let absent: Vec<&str> = ["shadow", "error", "sample"]
        .into_iter()
        .filter(|name| names(&line).contains(name))
        .collect();
    assert!(absent.is_empty(), "{absent:?} in {line}");
}

/// Who has proven a secret is named, also where the key may not act; who has not, is not.
#[tokio::test(flavor = "multi_thread")]
async fn a_refused_caller_is_named_if_it_is_known() {
    let upstream = Upstream::start().await;
    let sidekey = Sidekey::start(&config(upstream.address, "")).await;
    let key = sidekey.create_key(json!({})).await;
    sidekey
        .change_key(&key.id, json!({"status": "disabled"}))
        .await;
    let bearer = format!("Authorization: Bearer {}", key.text);
    let (status, id) = send(sidekey.proxy, get("/", &[&bearer])).await;
    let line = log_line(&sidekey, &id).await;
    assert_eq!((status, &line["outcome"]), (401, &json!("disabled_key")));
    assert_eq!(line["key_id"], key.id);
    assert_eq!(line["tenant_id"], "acme");
    assert!(!names(&line).contains("upstream_ms"), "{line}");
    let (added, all) = (line["added_ms"].as_f64(), line["duration_ms"].as_f64());
    assert!(added > Some(0.0) && added <= all, "{line}");
    sidekey.revoke_key(&key.id).await;
    let (_, id) = send(sidekey.proxy, get("/", &[&bearer])).await;
    let line = log_line(&sidekey, &id).await;
    assert_eq!(line["outcome"], "invalid_key");
    assert!(!names(&line).contains("key_id"), "{line}");
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_are_levelled_and_sampled_by_outcome() {
    const TIMES: usize = 20;
    let upstream = Upstream::start().await;
    let more = r#"
[[routes]]
name = "open"
path = "/open"
upstream = "service"
auth = "off"
[[upstreams]]
name = "gone"
servers = ["GONE"]
[[routes]]
name = "gone"
path = "/gone"
upstream = "gone"
auth = "off"
[log]
access = "all"
sample = { forwarded = 0, no_route = 0.5 }
levels = { no_credential = "warn", upstream_failed = "error", no_route = "debug", default = "info" }
"#;
    let more = more.replace("GONE", &nobody().to_string());
    let mut sidekey = Sidekey::start(&config(upstream.address, &more)).await;
    for _ in 0..TIMES {
        assert_eq!(send(sidekey.proxy, get("/open", &[])).await.0, 200);
    }
    for (path, level) in [("/", "WARN"), ("/gone", "ERROR"), ("/a//b", "INFO")] {
        let (_, id) = send(sidekey.proxy, get(path, &[])).await;
        let line = log_line(&sidekey, &id).await;
        assert_eq!(line["level"], level, "{line}");
    }
    let sampled_out = "sidekey_log_lines_sampled_out_total";
    eventually("the others are counted", || async {
        sidekey.metric(sampled_out).await >= TIMES as f64
    })
    .await;
    assert_eq!(sidekey.metric(sampled_out).await, TIMES as f64);
    assert!(!sidekey.output().contains("\"forwarded\""));
    sidekey.signal("TERM");
    assert!(sidekey.wait().success());
}

/// What people read on a terminal.
#[tokio::test(flavor = "multi_thread")]
async fn the_text_form_tells_the_same() {
    let upstream = Upstream::start().await;
    let more = "[log]\nformat = \"text\"\nsample = { no_credential = 0.999999 }\n";
    let sidekey = Sidekey::start(&config(upstream.address, more)).await;
    let (_, id) = send(sidekey.proxy, get("/x", &[])).await;
    eventually("the line is there", || async {
        sidekey.output().contains(&id)
    })
    .await;
    let output = sidekey.output();
    let line = output.lines().find(|line| line.contains(&id)).unwrap();
    for part in [
        " INFO ",
        "request request_id=",
        "outcome=\"no_credential\"",
        "path=\"/x\"",
        "trace_id=\"",
        "duration_ms=",
        "sample=0.999999",
    ] {
        assert!(line.contains(part), "{part} in {line}");
    }
}

/// A program whose log nobody reads for now.
struct Unread {
    child: Child,
    _directory: tempfile::TempDir,
    proxy: SocketAddr,
    admin: SocketAddr,
}

impl Unread {
    fn start(config: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut child = command(directory.path(), config, &[])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (sender, ready) = mpsc::channel();
        let stdout = child.stdout.take().unwrap();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let _ = sender.send(line);
            }
        });
        let line = ready.recv_timeout(DEADLINE).expect("ready");
        let address = |name: &str| {
            let part = line.split(' ').find_map(|part| part.strip_prefix(name));
            part.and_then(|text| text.parse().ok()).expect("an address")
        };
        Unread {
            proxy: address("proxy="),
            admin: address("admin="),
            child,
            _directory: directory,
        }
    }

    async fn metric(&self, series: &str) -> f64 {
        let client = client_builder().build().unwrap();
        let url = format!("http://{}/metrics", self.admin);
        let answer = client.request(Method::GET, url).send().await.unwrap();
        let text = answer.text().await.unwrap();
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        line.expect(series).parse().expect("a number")
    }

    /// Reads from now on; each line arrives in the channel.
    fn read(&mut self) -> mpsc::Receiver<String> {
        let stderr: Box<dyn Read + Send> = Box::new(self.child.stderr.take().unwrap());
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                let _ = sender.send(line);
            }
        });
        lines
    }
}

impl Drop for Unread {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_nobody_reads_holds_nobody_up() {
    let _turn = HEAVY.acquire().await.expect("a turn");
    const CLIENTS: usize = 4;
    /// More lines than may wait, and than a pipe holds besides.
    const LINES: usize = 18_000;
    let upstream = Upstream::start().await;
    let mut sidekey = Unread::start(&config(upstream.address, ""));
    let dropped = "sidekey_log_lines_dropped_total";
    assert_eq!(sidekey.metric(dropped).await, 0.0);
    let clients = (0..CLIENTS).map(async |_| {
        let mut raw = Raw::connect(sidekey.proxy).await;
        for _ in 0..LINES / CLIENTS {
            raw.send(get("/", &[])).await;
            assert_eq!(raw.read_answer().await.status, 401);
        }
    });
    futures_util::future::join_all(clients).await;
    eventually("dropped lines are counted", || async {
        sidekey.metric(dropped).await > 0.0
    })
    .await;
    // Nothing is lost but lines: it goes on where somebody reads again.
    let lines = sidekey.read();
    let mut seen = 0;
    while seen < LINES / 2 {
        let line = lines.recv_timeout(DEADLINE).expect("a line");
        let line: Value = serde_json::from_str(&line).expect("a whole line");
        seen += usize::from(line["outcome"] == "no_credential");
    }
    let (_, id) = send(sidekey.proxy, get("/", &[])).await;
    loop {
        let line = lines.recv_timeout(DEADLINE).expect("a line");
        if line.contains(&id) {
            break;
        }
    }
}
