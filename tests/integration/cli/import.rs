//! `sidekey keys import`: against the real program, and against stand-ins that stop in the middle.

use std::collections::HashSet;
use std::io::Write;
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

use super::stand_in::{Answer, StandIn, answer, problem};
use super::{Cli, start};
use crate::harness::sidekey::{Sidekey, config};
use crate::harness::upstream::{Seen, Upstream};
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

/// A key that is hard to guess.
fn strong(number: usize) -> String {
    let digest = blake3::hash(&number.to_be_bytes()).to_hex();
    format!("legacy.{}", &digest.as_str()[..40])
}

/// A file of strong keys in the program's directory.
fn write_keys(sidekey: &Sidekey, count: usize) {
    let lines: String = (0..count)
        .map(|n| format!("{{\"name\":\"key {n}\",\"key\":\"{}\"}}\n", strong(n)))
        .collect();
    std::fs::write(sidekey.directory().join("keys.jsonl"), lines).expect("a file");
}

const IMPORT: [&str; 7] = [
    "keys",
    "import",
    "keys.jsonl",
    "--tenant",
    "acme",
    "--scope",
    "orders:read",
];

/// The import on its way.
fn spawn(cli: &Cli, arguments: &str) -> Child {
    let mut command: Command = cli.shell_command(&format!("exec sidekey {arguments}"));
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("bash")
}

#[tokio::test(flavor = "multi_thread")]
async fn an_import_goes_in_batches_and_can_be_repeated() {
    let (sidekey, _upstream) = start().await;
    let cli = Cli::of(&sidekey);
    write_keys(&sidekey, 300);
    let dry = cli.json(&[&IMPORT[..], &["--dry-run"]].concat());
    assert_eq!(
        (&dry["dry_run"], &dry["created"]),
        (&json!(true), &json!(300))
    );
    assert_eq!(sidekey.status("/orders", &strong(0)).await, 401);
    let text = cli.ok(&IMPORT);
    assert!(
        text.starts_with("300 lines in ")
            && text.ends_with(" s: 300 created, 0 there already, 0 refused\n"),
        "{text}"
    );
    for number in [0, 249, 250, 299] {
        assert_eq!(sidekey.status("/orders", &strong(number)).await, 200);
    }
    assert!(
        cli.ok(&IMPORT)
            .ends_with("0 created, 300 there already, 0 refused\n")
    );
    let keys = cli.json(&["keys", "list", "--search", "key 42", "--all"]);
    assert_eq!(keys[0]["origin"], "imported", "{keys}");
    assert_eq!(keys[0]["scopes"], json!(["orders:read"]));
}

/// Lines of an import that is interrupted.
const LINES: usize = 700;

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_import_is_run_again_without_a_duplicate_or_a_gap() {
    let (sidekey, _upstream) = start().await;
    let cli = Cli::of(&sidekey);
    write_keys(&sidekey, LINES);
    let from_stdin = IMPORT.join(" ").replace("keys.jsonl", "- --format jsonl");
    let mut child = spawn(&cli, &from_stdin);
    // The rest never comes, so that the import can't be done before it is interrupted.
    let file = std::fs::read_to_string(sidekey.directory().join("keys.jsonl")).expect("keys");
    let begin: String = file.split_inclusive('\n').take(LINES - 100).collect();
    let mut stdin = child.stdin.take().expect("its input");
    stdin.write_all(begin.as_bytes()).expect("lines are taken");
    eventually("the second batch is under way", || async {
        sidekey.metric("sidekey_imported_keys").await > 260.0
    })
    .await;
    send_signal("INT", &[child.id()]);
    let ended = child.wait_with_output().expect("its end");
    drop(stdin);
    let told = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert_eq!(ended.status.code(), Some(1), "{told}");
    assert!(told.contains("interrupted: run it again"), "{told}");
    let report = cli.json(&IMPORT);
    let count = |name: &str| report[name].as_u64().expect("a number");
    assert_eq!(count("refused"), 0, "{told}");
    assert_eq!(count("created") + count("existing"), LINES as u64);
    assert!(count("existing") > 260 && count("created") > 0, "{told}");
    let results = report["results"].as_array().expect("results").iter();
    let told: HashSet<&str> = results
        .map(|result| result["key_id"].as_str().expect("an id"))
        .collect();
    let keys = cli.json(&["keys", "list", "--tenant", "acme", "--all"]);
    let keys = keys.as_array().expect("keys").iter();
    let ids: Vec<&str> = keys.map(|key| key["id"].as_str().expect("an id")).collect();
    assert_eq!(ids.len(), LINES, "no duplicate, none missing");
    assert_eq!(ids.into_iter().collect::<HashSet<_>>(), told);
}

#[tokio::test(flavor = "multi_thread")]
async fn users_of_an_htpasswd_file_go_on_with_curl() {
    let upstream = Upstream::start().await;
    let basic = "[credentials]\nsources = [\"bearer\", \"basic\"]\n";
    let sidekey = Sidekey::start(&config(upstream.address, basic)).await;
    let cli = Cli::of(&sidekey);
    let line = format!("# users\nalice:{HASH}\n");
    std::fs::write(sidekey.directory().join("users.htpasswd"), line).expect("a file");
    let report = cli.json(&[
        "keys",
        "import",
        "users.htpasswd",
        "--tenant",
        "acme",
        "--scope",
        "orders:read",
    ]);
    let id = report["results"][0]["key_id"].as_str().expect("an id");
    let shown = cli.json(&["keys", "show", id]);
    assert_eq!(
        (&shown["credential"], &shown["name"]),
        (&json!("basic"), &json!("alice"))
    );
    for (password, status) in [("wonderland", "200"), ("Wonderland", "401")] {
        let curl = format!(
            "curl -s -o /dev/null -w '%{{http_code}}' --user alice:{password} http://{}/orders",
            sidekey.proxy
        );
        assert_eq!(cli.shell(&curl).stdout, status);
    }
}

/// bcrypt of "wonderland", as `htpasswd -B` writes it.
const HASH: &str = "$2y$05$abcdefghijklmnopqrstuuA0vov2GDneHB3.8.cv9UF9g.RdvScIW";

#[tokio::test(flavor = "multi_thread")]
async fn an_import_goes_on_where_there_was_no_time_for_all() {
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
async fn what_was_refused_is_said() {
    let (sidekey, _upstream) = start().await;
    let cli = Cli::of(&sidekey);
    let write = |name: &str, text: &str| {
        std::fs::write(sidekey.directory().join(name), text).expect("a file");
    };
    write(
        "users.htpasswd",
        &format!("# users\nalice:{HASH}\nbad:$apr1$hunter2\n\nnobody-hunter2\nalice:{HASH}\n"),
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
    let ended = cli.run(&[&arguments[..], &["--dry-run", "--json"]].concat());
    let report: Value = serde_json::from_str(&ended.stdout).expect("one JSON document");
    assert_eq!(ended.code, Some(1), "{ended:?}");
    let results = report["results"].as_array().expect("results").iter();
    let lines: Vec<Value> = results
        .map(|result| json!([result["line"], result["status"]]))
        .collect();
    assert_eq!(
        json!(lines),
        json!([
            [2, "would_create"],
            [3, "refused"],
            [5, "refused"],
            [6, "refused"]
        ])
    );
    let ended = cli.run(&arguments);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(
        ended
            .stdout
            .ends_with("1 created, 0 there already, 3 refused\n"),
        "{ended:?}"
    );
    for told in [
        "users.htpasswd:3: refused: htpasswd ",
        "users.htpasswd:5: refused: line is not USER:HASH\n",
        "users.htpasswd:6: refused: line has the same key or user as line 2\n",
        "some lines were refused",
    ] {
        assert!(ended.stderr.contains(told), "{told}: {ended:?}");
    }
    assert!(!ended.stderr.contains("hunter2"), "{ended:?}");

    // From stdin, whose form has no name.
    let script = format!(
        "printf 'name,key,scopes\\nx,{},orders:read\\n' | sidekey keys import - --tenant acme --format csv",
        strong(1)
    );
    let ended = cli.shell(&script);
    assert!(
        ended.stdout.starts_with("1 lines") && ended.code == Some(0),
        "{ended:?}"
    );
    write("weak.csv", "name,key\nx,hunter2hunter2\n");
    let weak = [
        "keys",
        "import",
        "weak.csv",
        "--tenant",
        "acme",
        "--scope",
        "orders:read",
    ];
    let ended = cli.run(&weak);
    assert!(
        ended.stderr.contains("weak.csv:2: refused: key "),
        "{ended:?}"
    );
    assert!(!ended.stderr.contains("hunter2"), "{ended:?}");
    cli.ok(&[&weak[..], &["--allow-weak"]].concat());
    write("keys.csv", "name,colour\nx,hunter2\n");
    let ended = cli.run(&["keys", "import", "keys.csv"]);
    assert!(
        ended.code == Some(2) && ended.stderr.contains("must name the columns"),
        "{ended:?}"
    );
    assert!(!ended.stderr.contains("hunter2"), "{ended:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quote_that_is_not_closed_costs_nothing_before_it() {
    let (sidekey, _upstream) = start().await;
    let cli = Cli::of(&sidekey);
    let begin = format!(
        "name,key,scopes\nx,{},orders:read\n\ny,\"hunter2\n",
        strong(1)
    );
    let text = begin + "z,k,orders:read\n".repeat(200_000).as_str();
    std::fs::write(sidekey.directory().join("keys.csv"), text).expect("a file");
    let ended = cli.run(&["keys", "import", "keys.csv", "--tenant", "acme"]);
    assert_eq!(ended.code, Some(2), "{ended:?}");
    assert!(ended.stdout.contains(": 1 created, "), "{ended:?}");
    assert!(
        ended.stderr.contains("keys.csv: line 4: has more than"),
        "{ended:?}"
    );
    assert!(!ended.stderr.contains("hunter2"), "{ended:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_import_that_fails_or_is_interrupted_says_how_to_go_on() {
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
    let child = spawn(&server.cli(), "keys import keys.jsonl");
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
async fn an_import_shows_how_far_it_is_on_a_terminal_alone() {
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
