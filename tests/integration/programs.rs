//! The programs in docs/api.md: each is taken from the document as it stands and run against the program
//! with the shipped configuration. The one in Rust is compiled with the documentation tests; the one in
//! Go is run where there is a Go, and parsed anyhow.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use reqwest::Method;

use crate::harness::eventually;
use crate::harness::run::{run_command, run_command_within};
use crate::harness::service::tool;
use crate::harness::sidekey::{KEYS, Sidekey};

/// How long a program may take, which may have to be compiled, on a busy machine.
const RUN_MAX: Duration = Duration::from_secs(300);
/// Fails where a file is not Go.
const PARSE_GO: &str = r#"
import sys, tree_sitter, tree_sitter_go
parser = tree_sitter.Parser(tree_sitter.Language(tree_sitter_go.language()))
tree = parser.parse(open(sys.argv[1], "rb").read())
sys.exit(str(tree.root_node) if tree.root_node.has_error else 0)
"#;

/// The program in the document's block of that language.
fn program(language: &str) -> String {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/api.md");
    let document = std::fs::read_to_string(file).expect("the document");
    let begin = format!("```{language}\n");
    let blocks: Vec<&str> = document.split(&begin).skip(1).collect();
    assert_eq!(blocks.len(), 1, "one program in {language}");
    let (program, _) = blocks[0].split_once("```").expect("an end");
    program.to_owned()
}

/// Runs the document's program of that language by `command`, to which its file is given.
async fn run(language: &str, extension: &str, command: &[&str]) {
    let config = include_str!("../../config/sidekey.toml");
    let sidekey = Sidekey::start(config).await;
    let file = sidekey.directory().join(format!("program.{extension}"));
    std::fs::write(&file, program(language)).expect("the program is written");
    let mut process = Command::new(command[0]);
    process
        .args(&command[1..])
        .arg(&file)
        .current_dir(sidekey.directory())
        .env("NO_PROXY", "*")
        .env("SIDEKEY_ADMIN_URL", format!("http://{}", sidekey.admin))
        .env("SIDEKEY_URL", format!("http://{}", sidekey.proxy))
        .env("SIDEKEY_ADMIN_KEY", sidekey.admin_key());
    let ended = run_command_within(process, RUN_MAX);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let words: Vec<&str> = ended.stdout.split_whitespace().collect();
    let [id, "revoked"] = words[..] else {
        panic!("{ended:?}");
    };
    let key = sidekey
        .ask(Method::GET, &format!("{KEYS}/{id}"), None)
        .await;
    assert_eq!(key.json()["status"], "revoked", "{key:?}");
    let series = r#"sidekey_requests_total{outcome="forwarded",route="default"}"#;
    eventually("the key was used", || async {
        sidekey.metric(series).await >= 1.0
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_curl() {
    run("bash", "sh", &["bash"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn in_python() {
    run("python", "py", &["python3"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn in_javascript() {
    run("js", "mjs", &["node"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn in_go() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let file = directory.path().join("program.go");
    std::fs::write(&file, program("go")).expect("the program is written");
    let mut parser = Command::new(tool("python"));
    parser.args(["-c", PARSE_GO]).arg(&file);
    let ended = run_command(parser);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let has_go = Command::new("go").arg("version").output();
    if has_go.is_ok_and(|answer| answer.status.success()) {
        run("go", "go", &["go", "run"]).await;
    }
}
