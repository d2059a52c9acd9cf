//! A server that answers as a test says; and, with it, the commands whose part of the API is not here
//! yet. The tests named `stand_in_...` are to be replaced by ones against the real program.

use std::net::SocketAddr;
use std::process::Stdio;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::Cli;
use crate::harness::upstream::Seen;
use crate::harness::{eventually, send_signal};

/// An answer in the making.
pub struct Answer {
    status: u16,
    fields: Vec<(String, String)>,
    body: String,
}

/// An answer of JSON.
pub fn answer(status: u16, body: impl ToString) -> Answer {
    Answer {
        status,
        fields: vec![],
        body: body.to_string(),
    }
}

/// An answer that is a problem.
pub fn problem(status: u16, detail: &str) -> Answer {
    answer(status, json!({"type": "urn:x", "detail": detail}))
}

impl Answer {
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.fields.push((name.to_owned(), value.to_owned()));
        self
    }

    fn response(self) -> Response {
        let mut response = Response::builder().status(self.status);
        for (name, value) in self.fields {
            response = response.header(name, value);
        }
        response.body(Body::from(self.body)).expect("a response")
    }
}

/// The server. What a test says is asked with all requests so far, the newest last.
pub struct StandIn {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    server: JoinHandle<()>,
    directory: TempDir,
}

impl StandIn {
    pub async fn start(say: impl Fn(&[Seen]) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let seen: Arc<Mutex<Vec<Seen>>> = Arc::default();
        let (notes, say) = (seen.clone(), Arc::new(say));
        let app = Router::new().fallback(move |request: Request| {
            let (notes, say) = (notes.clone(), say.clone());
            async move {
                let (parts, body) = request.into_parts();
                let body = axum::body::to_bytes(body, 64 << 20)
                    .await
                    .unwrap_or_default();
                let mut notes = notes.lock().expect("requests");
                notes.push(Seen {
                    method: parts.method.to_string(),
                    target: parts.uri.to_string(),
                    headers: parts.headers,
                    body,
                });
                say(&notes).response()
            }
        });
        let server = tokio::spawn(async move {
            let _ = axum::serve(listener, app).await;
        });
        StandIn {
            address,
            seen,
            server,
            directory: tempfile::tempdir().expect("a directory"),
        }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Somebody with a key for it.
    pub fn cli(&self) -> Cli {
        Cli::at(self.directory.path())
            .with("SIDEKEY_ADMIN_KEY", "sesame")
            .with("SIDEKEY_ADMIN_URL", format!("http://{}", self.address))
    }

    fn file(&self, name: &str, text: &str) {
        std::fs::write(self.directory.path().join(name), text).expect("a file");
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().expect("requests").clone()
    }

    pub fn count(&self) -> usize {
        self.seen().len()
    }

    pub fn last(&self) -> Seen {
        self.seen().pop().expect("a request")
    }
}

impl Drop for StandIn {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// Method and target of a request, without what all have in common.
fn line(seen: &Seen) -> String {
    let target = seen
        .target
        .strip_prefix("/api/v1/platform")
        .expect("the platform API");
    format!("{} {target}", seen.method)
}

#[tokio::test(flavor = "multi_thread")]
async fn stand_in_end_overlap() {
    let server = StandIn::start(|_| {
        answer(204, "").header(
            "sidekey-propagation",
            "instances=2, confirmed=1, unconfirmed=(\"blue-1\")",
        )
    })
    .await;
    let ended = server.cli().run(&["keys", "end-overlap", "4fzN8cQ2pLrT"]);
    assert_eq!(
        (ended.code, ended.stdout.as_str()),
        (Some(0), "key 4fzN8cQ2pLrT has one secret now\n"),
        "{ended:?}"
    );
    assert!(
        ended.stderr.contains("not yet confirmed by \"blue-1\""),
        "{ended:?}"
    );
    assert_eq!(
        line(&server.last()),
        "DELETE /api-keys/4fzN8cQ2pLrT/previous-secret"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn stand_in_list_filters() {
    let server = StandIn::start(|_| answer(200, "{\"data\":[],\"next_cursor\":null}")).await;
    server.cli().ok(&[
        "keys",
        "list",
        "--environment",
        "test",
        "--expiring-before",
        "2027-01-31",
        "--unused-since",
        "2026-01-01T01:00:00+01:00",
    ]);
    assert_eq!(
        line(&server.last()),
        "GET /api-keys?environment=test&expiring_before=2027-01-31T00%3A00%3A00Z&unused_since=2026-01-01T00%3A00%3A00Z"
    );
}

fn tenant() -> Value {
    json!({
        "id": "acme", "display_name": "Acme", "contact_email": null, "max_keys": 3, "key_count": 2, "status": "active",
        "rate_limits": [{"name": "all", "quota": 5, "window_seconds": 60, "burst": null}],
        "created_at": "2026-11-01T00:00:00Z", "updated_at": "2026-11-01T00:00:00Z",
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn stand_in_tenants_are_seen_and_suspended() {
    let server = StandIn::start(
        |seen| match line(seen.last().expect("a request")).as_str() {
            "GET /tenants?status=active&q=ac" => {
                answer(200, json!({"data": [tenant()], "next_cursor": null}))
            }
            _ => answer(200, tenant()),
        },
    )
    .await;
    let cli = server.cli();
    let list = cli.ok(&["tenants", "list", "--status", "active", "--search", "ac"]);
    let cells: Vec<&str> = list
        .lines()
        .nth(1)
        .expect("a tenant")
        .split_whitespace()
        .collect();
    assert_eq!(
        cells,
        [
            "acme",
            "Acme",
            "active",
            "2",
            "3",
            "-",
            "2026-11-01T00:00:00Z"
        ]
    );
    assert_eq!(
        super::told(&cli.ok(&["tenants", "show", "acme"]), "rate limits "),
        "all:5/60s"
    );
    assert_eq!(cli.json(&["tenants", "suspend", "acme"]), tenant());
    assert_eq!(line(&server.last()), "POST /tenants/acme/suspend");
    cli.ok(&["tenants", "resume", "acme"]);
    assert_eq!(line(&server.last()), "POST /tenants/acme/resume");
}

#[tokio::test(flavor = "multi_thread")]
async fn stand_in_tenants_are_set_without_losing_what_is_not_named() {
    let server = StandIn::start(|_| answer(200, tenant()).header("etag", "\"r7\"")).await;
    server.cli().ok(&[
        "tenants",
        "set",
        "acme",
        "--max-keys",
        "9",
        "--clear",
        "rate-limits",
    ]);
    let put = server.last();
    assert_eq!(
        (line(&put).as_str(), put.header("if-match")),
        ("PUT /tenants/acme", Some("\"r7\""))
    );
    let body: Value = serde_json::from_slice(&put.body).expect("JSON");
    assert_eq!(body, json!({"display_name": "Acme", "max_keys": 9}));

    let server = StandIn::start(|seen| match seen.len() {
        1 => answer(
            404,
            json!({"type": "urn:sidekey:problem:not-found", "detail": "There is no such tenant."}),
        ),
        _ => answer(201, tenant()),
    })
    .await;
    server
        .cli()
        .ok(&["tenants", "set", "new", "--rate-limit", "all:1000/1m"]);
    let put = server.last();
    assert_eq!(put.header("if-match"), None);
    let body: Value = serde_json::from_slice(&put.body).expect("JSON");
    assert_eq!(body["rate_limits"][0]["quota"], 1000);
}

#[tokio::test(flavor = "multi_thread")]
async fn stand_in_usage() {
    let body = json!({
        "interval": "day", "from": "2026-11-01T00:00:00Z", "to": "2026-11-02T00:00:00Z",
        "data": [{"start": "2026-11-01T00:00:00Z", "requests": 7, "errors_4xx": 1, "errors_5xx": 0, "denied": 2, "rate_limited": 3,
                  "bytes_in": 10, "bytes_out": 20, "latency_ms_mean": 1.5, "latency_ms_max": 4.0}],
        "totals": {"requests": 7, "errors_4xx": 1, "errors_5xx": 0, "denied": 2, "rate_limited": 3, "bytes_in": 10, "bytes_out": 20},
    });
    let text = body.to_string();
    let server = StandIn::start(move |_| answer(200, &text)).await;
    let cli = server.cli();
    let table = cli.ok(&[
        "usage",
        "4fzN8cQ2pLrT",
        "--from",
        "2026-11-01",
        "--to",
        "2026-11-02",
    ]);
    assert_eq!(table.lines().count(), 3, "{table}");
    assert!(
        table
            .lines()
            .last()
            .is_some_and(|line| line.starts_with("total")),
        "{table}"
    );
    assert_eq!(
        line(&server.last()),
        "GET /api-keys/4fzN8cQ2pLrT/usage?from=2026-11-01T00%3A00%3A00Z&to=2026-11-02T00%3A00%3A00Z&interval=day"
    );
    assert_eq!(
        cli.json(&["usage", "--tenant", "acme", "--interval", "hour"]),
        body
    );
    assert_eq!(
        line(&server.last()),
        "GET /usage?tenant_id=acme&interval=hour"
    );
}

fn event(seq: u64) -> Value {
    json!({
        "seq": seq, "at": "2026-11-01T00:00:00Z", "action": "key.created", "actor": {"type": "key", "key_id": "Zk31mWq8aPbn"},
        "key_id": "4fzN8cQ2pLrT", "tenant_id": "acme", "address": "127.0.0.1", "request_id": "r", "details": {"name": "x"},
        "previous_hash": "a", "hash": "b",
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn stand_in_audit_list() {
    let server = StandIn::start(|seen| {
        let target = &seen.last().expect("a request").target;
        if target.contains("cursor=more") {
            answer(200, json!({"data": [event(1)], "next_cursor": null}))
        } else {
            answer(
                200,
                json!({"data": [event(3), event(2)], "next_cursor": "more"}),
            )
        }
    })
    .await;
    let cli = server.cli();
    let table = cli.run(&[
        "audit",
        "list",
        "--key",
        "k",
        "--actor",
        "a",
        "--action",
        "key.created",
        "--limit",
        "2",
    ]);
    assert!(
        table.stdout.contains("Zk31mWq8aPbn") && table.stdout.contains("name=x"),
        "{table:?}"
    );
    assert!(table.stderr.contains("--cursor more"), "{table:?}");
    assert_eq!(
        line(&server.last()),
        "GET /audit-events?key_id=k&actor=a&action=key.created&limit=2"
    );
    let all = cli.json(&["audit", "list", "--all"]);
    assert_eq!(all, json!([event(3), event(2), event(1)]));
}

#[tokio::test(flavor = "multi_thread")]
async fn stand_in_audit_export() {
    let text = format!("{}\n{}\n", event(1), event(2));
    let exported = text.clone();
    let server = StandIn::start(move |_| answer(200, &text)).await;
    let cli = server.cli();
    assert_eq!(cli.ok(&["audit", "export", "--tenant", "acme"]), exported);
    assert_eq!(
        line(&server.last()),
        "GET /audit-events/export?tenant_id=acme"
    );
    assert_eq!(cli.ok(&["audit", "export", "-o", "events.jsonl"]), "");
    let path = server.directory.path().join("events.jsonl");
    assert_eq!(std::fs::read_to_string(path).expect("the events"), exported);
    cli.refused(&["audit", "export", "-o", "events.jsonl"], 2);

    // One that ends too early leaves nothing that looks like all.
    let server = StandIn::start(|_| answer(200, "{}\n").header("content-length", "100")).await;
    let cli = server.cli();
    let told = cli.refused(&["audit", "export", "-o", "events.jsonl"], 1);
    assert!(told.contains("ended too early"), "{told}");
    assert!(!server.directory.path().join("events.jsonl").exists());
    assert_eq!(cli.run(&["audit", "export"]).code, Some(1));
}

/// Takes lines as the API describes it: names that begin with "bad" are refused, with "old" are there.
fn take_lines(seen: &Seen) -> Answer {
    let text = std::str::from_utf8(&seen.body).expect("text");
    let dry = seen.target.contains("dry_run=true");
    let results: Vec<Value> = text
        .lines()
        .enumerate()
        .map(|(index, line)| {
            let key: Value = serde_json::from_str(line).expect("a JSON line");
            let name = key["name"].as_str().unwrap_or_default();
            let status = match name.get(..3) {
                Some("bad") => "refused",
                Some("old") => "existing",
                _ if dry => "would_create",
                _ => "created",
            };
            let errors = match status {
                "refused" => json!([{"field": "hash", "detail": "is no bcrypt hash"}]),
                _ => json!([]),
            };
            json!({"line": index + 1, "status": status, "key_id": null, "errors": errors})
        })
        .collect();
    answer(
        200,
        json!({"dry_run": dry, "created": 0, "existing": 0, "refused": 0, "results": results}),
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn stand_in_import_in_batches() {
    let server = StandIn::start(|seen| take_lines(seen.last().expect("a request"))).await;
    let lines: String = (0..250)
        .map(|n| format!("{{\"name\":\"key {n}\",\"key\":\"hunter2\"}}\n"))
        .collect();
    server.file("keys.jsonl", &lines);
    let text = server.cli().ok(&[
        "keys",
        "import",
        "keys.jsonl",
        "--tenant",
        "acme",
        "--scope",
        "orders:read",
        "--allow-weak",
    ]);
    assert!(
        text.starts_with("250 lines in ")
            && text.ends_with(" s: 250 created, 0 there already, 0 refused\n"),
        "{text}"
    );
    let sizes: Vec<usize> = server
        .seen()
        .iter()
        .map(|seen| seen.body.split(|b| *b == b'\n').count() - 1)
        .collect();
    assert_eq!(sizes, [100, 100, 50]);
    let first = &server.seen()[0];
    assert_eq!(
        line(first),
        "POST /api-keys/import?dry_run=false&allow_weak=true"
    );
    assert_eq!(first.header("content-type"), Some("application/jsonl"));
    let key: Value =
        serde_json::from_slice(first.body.split(|b| *b == b'\n').next().expect("a line"))
            .expect("JSON");
    assert_eq!(
        key,
        json!({"name": "key 0", "key": "hunter2", "tenant_id": "acme", "environment": "live", "scopes": ["orders:read"]})
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn stand_in_import_says_what_was_refused() {
    let server = StandIn::start(|seen| take_lines(seen.last().expect("a request"))).await;
    let cli = server.cli();
    server.file(
        "users.htpasswd",
        "# users\nalice:$2y$10$hunter2\nbad:$apr1$hunter2\n\nnobody-hunter2\nold:$2y$10$hunter2\n",
    );
    let arguments = [
        "keys",
        "import",
        "users.htpasswd",
        "--tenant",
        "acme",
        "--scope",
        "orders:read",
    ];
    let ended = cli.run(&arguments);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(
        ended
            .stdout
            .ends_with("1 created, 1 there already, 2 refused\n"),
        "{ended:?}"
    );
    assert!(
        ended
            .stderr
            .contains("users.htpasswd:3: refused: hash is no bcrypt hash\n"),
        "{ended:?}"
    );
    assert!(
        ended
            .stderr
            .contains("users.htpasswd:5: refused: is not USER:HASH\n"),
        "{ended:?}"
    );
    assert!(!ended.stderr.contains("hunter2"), "{ended:?}");

    let ended = cli.run(&[&arguments[..], &["--json", "--dry-run"]].concat());
    let report: Value = serde_json::from_str(&ended.stdout).expect("one JSON document");
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert_eq!(
        (&report["dry_run"], &report["created"], &report["refused"]),
        (&json!(true), &json!(1), &json!(2))
    );
    let lines: Vec<u64> = report["results"]
        .as_array()
        .expect("results")
        .iter()
        .map(|result| result["line"].as_u64().expect("a line"))
        .collect();
    assert_eq!(lines, [2, 3, 5, 6]);
    assert_eq!(report["results"][0]["status"], "would_create");

    // From stdin, whose form has no name.
    let ended = cli.shell("printf 'name,key\\nx,k\\n' | sidekey keys import - --format csv");
    assert!(
        ended.stdout.contains("1 lines") && ended.code == Some(0),
        "{ended:?}"
    );
    server.file("keys.csv", "name,colour\nx,hunter2\n");
    let ended = cli.run(&["keys", "import", "keys.csv"]);
    assert!(
        ended.code == Some(2) && ended.stderr.contains("must name the columns"),
        "{ended:?}"
    );
    assert!(!ended.stderr.contains("hunter2"), "{ended:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn stand_in_import_that_fails_or_is_interrupted_says_how_to_go_on() {
    let server = StandIn::start(|seen| match seen.len() {
        1 => take_lines(&seen[0]),
        _ => problem(409, "Nothing was changed: it is broken."),
    })
    .await;
    let lines: String = (0..150)
        .map(|n| format!("{{\"name\":\"key {n}\"}}\n"))
        .collect();
    server.file("keys.jsonl", &lines);
    let ended = server.cli().run(&["keys", "import", "keys.jsonl"]);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(
        ended.stdout.starts_with("100 lines in ") && ended.stderr.contains("it is broken"),
        "{ended:?}"
    );

    // The server asks for patience, and somebody has none.
    let server = StandIn::start(|_| problem(503, "Later.").header("retry-after", "10")).await;
    server.file("keys.jsonl", &lines);
    let mut command = server
        .cli()
        .shell_command("exec sidekey keys import keys.jsonl");
    let child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("bash");
    eventually("the first lines are sent", || async { server.count() > 0 }).await;
    send_signal("INT", &[child.id()]);
    let ended = child.wait_with_output().expect("its end");
    assert_eq!(ended.status.code(), Some(1), "{ended:?}");
    let told = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert!(told.contains("interrupted: run it again"), "{told}");
    assert!(
        String::from_utf8_lossy(&ended.stdout).starts_with("0 lines in "),
        "{ended:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn stand_in_import_shows_how_far_it_is_on_a_terminal_alone() {
    let server = StandIn::start(|seen| take_lines(seen.last().expect("a request"))).await;
    let lines: String = (0..500)
        .map(|n| format!("{{\"name\":\"key {n}\"}}\n"))
        .collect();
    server.file("keys.jsonl", &lines);
    let cli = server.cli();
    let shown = |command: &str| {
        let script = format!(
            "script --quiet --return --echo never --command '{command}' /dev/null < /dev/null"
        );
        let ended = cli.shell(&script);
        assert_eq!(ended.code, Some(0), "{ended:?}");
        ended.stdout
    };
    assert!(
        shown("sidekey keys import keys.jsonl").contains(" % "),
        "no progress"
    );
    assert!(
        !shown("sidekey keys import keys.jsonl --json").contains(" % "),
        "progress among JSON"
    );
    assert!(
        !shown("sidekey keys import keys.jsonl 2> err").contains(" % "),
        "progress in a pipe"
    );
    let told = std::fs::read_to_string(server.directory.path().join("err")).expect("stderr");
    assert_eq!(told, "");
}
