//! `sidekey keys import`, whose part of the API is not here yet, against a stand-in. The tests named
//! `stand_in_...` are to be replaced by ones against the real program.

use std::process::Stdio;

use serde_json::{Value, json};

use super::stand_in::{Answer, StandIn, answer, line, problem};
use crate::harness::upstream::Seen;
use crate::harness::{eventually, send_signal};

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
    let lines: String = (0..600)
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
        text.starts_with("600 lines in ")
            && text.ends_with(" s: 600 created, 0 there already, 0 refused\n"),
        "{text}"
    );
    let sizes: Vec<usize> = server
        .seen()
        .iter()
        .map(|seen| seen.body.split(|b| *b == b'\n').count() - 1)
        .collect();
    assert_eq!(sizes, [250, 250, 100]);
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
async fn stand_in_import_goes_on_where_there_was_no_time_for_all() {
    let server = StandIn::start(|seen| {
        let seen = seen.last().expect("a request");
        let all = take_lines(seen);
        let mut body: Value = serde_json::from_str(&all.body).expect("JSON");
        let results = body["results"].as_array_mut().expect("results");
        if results.len() > 3 {
            results.truncate(3);
            body["next_line"] = json!(4);
        }
        answer(200, body)
    })
    .await;
    let lines: String = (0..10)
        .map(|n| format!("{{\"name\":\"bad {n}\"}}\n\n"))
        .collect();
    server.file("keys.jsonl", &lines);
    let ended = server.cli().run(&["keys", "import", "keys.jsonl"]);
    assert!(ended.stdout.starts_with("10 lines in "), "{ended:?}");
    let told: Vec<&str> = ended
        .stderr
        .lines()
        .filter_map(|line| line.split("keys.jsonl:").nth(1)?.split(':').next())
        .collect();
    assert_eq!(
        told,
        ["1", "3", "5", "7", "9", "11", "13", "15", "17", "19"],
        "{ended:?}"
    );
    assert_eq!(server.count(), 4);
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
            .contains("users.htpasswd:5: refused: line is not USER:HASH\n"),
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
    let lines: String = (0..300)
        .map(|n| format!("{{\"name\":\"key {n}\"}}\n"))
        .collect();
    server.file("keys.jsonl", &lines);
    let ended = server.cli().run(&["keys", "import", "keys.jsonl"]);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(
        ended.stdout.starts_with("250 lines in ") && ended.stderr.contains("it is broken"),
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
    let lines: String = (0..1000)
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
