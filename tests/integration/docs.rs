//! The documents' examples work as printed: every `console` block is run, in order, against the
//! program with the shipped configuration. A line `$ command` is run by bash; what follows is what
//! it must print, where `...` stands for anything.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::harness::run::{path_with_program, run};
use crate::harness::sidekey::{Sidekey, config};

/// Printed between the outputs of two commands.
const MARK: &str = "=== next ===";
/// A busy machine gets five times as long as the documents wait.
const PATIENT: &str = "sleep() { command sleep $((5 * $1)); }\n";

/// A command and what it must print.
struct Step {
    command: String,
    expected: Vec<String>,
}

fn steps(document: &str) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    let mut is_console = false;
    for line in document.lines() {
        match line.strip_prefix("```") {
            Some(language) => is_console = language == "console",
            None if !is_console => {}
            None => match line.strip_prefix("$ ") {
                Some(command) => steps.push(Step {
                    command: command.to_owned(),
                    expected: vec![],
                }),
                None => steps
                    .last_mut()
                    .expect("a command first")
                    .expected
                    .push(line.to_owned()),
            },
        }
    }
    steps
}

/// Whether `text` is `pattern` with anything in place of each `...`.
fn fits(pattern: &str, text: &str) -> bool {
    let mut parts: Vec<&str> = pattern.split("...").collect();
    let last = parts.pop().unwrap_or_default();
    let Some((first, middle)) = parts.split_first() else {
        return text == last;
    };
    let Some(mut rest) = text.strip_prefix(first) else {
        return false;
    };
    for part in middle {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

async fn run_document(name: &str, environment: &[(&str, &str)]) {
    let config = std::fs::read_to_string(repository().join("config/sidekey.toml"))
        .expect("the configuration");
    let sidekey = Sidekey::start_with(&config, environment).await;
    let document = std::fs::read_to_string(repository().join(name)).expect("the document");
    let steps = steps(&document);
    assert!(steps.len() >= 8, "{name} has only {} commands", steps.len());
    let mut script = PATIENT.to_owned();
    for step in &steps {
        let command = step
            .command
            .replace("localhost:8080", &sidekey.proxy.to_string())
            .replace("localhost:8081", &sidekey.admin.to_string())
            // Where the program under test has it.
            .replace("config/sidekey.toml", "sidekey.toml");
        script.push_str(&format!("{command}\nprintf '\\n{MARK}\\n'\n"));
    }
    let output = Command::new("bash")
        .args(["-c", &script])
        .current_dir(sidekey.directory())
        .env("PATH", path_with_program())
        .env("SIDEKEY_ADMIN_URL", format!("http://{}", sidekey.admin))
        .stdin(Stdio::null())
        .output()
        .expect("bash runs");
    let text = String::from_utf8(output.stdout)
        .expect("text")
        .replace('\r', "");
    let mark = format!("\n{MARK}\n");
    let mut printed = text.split(&mark);
    for step in &steps {
        let actual = printed.next().unwrap_or_default().trim_end();
        let expected = step.expected.join("\n");
        assert!(
            fits(expected.trim_end(), actual),
            "{name}: `{}` should print\n{expected}\nbut printed\n{actual}\n{}",
            step.command,
            String::from_utf8_lossy(&output.stderr)
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_readmes_first_five_minutes() {
    run_document("README.md", &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_key_api() {
    run_document("docs/api.md", &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_people_on_call_try() {
    run_document("docs/troubleshooting.md", &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_line() {
    // As the document says; but for counts, for which nobody waits 10 s here.
    let environment = [
        (
            "SIDEKEY__CREDENTIALS__SOURCES",
            "[\"bearer\", \"header:X-API-Key\", \"basic\"]",
        ),
        ("SIDEKEY__USAGE__FLUSH_INTERVAL_SECONDS", "1"),
    ];
    run_document("docs/cli.md", &environment).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_security_guide() {
    run_document("docs/security.md", &[]).await;
}

/// What the guides say to write into the file is taken.
#[test]
fn the_configuration_of_the_dashboard() {
    let guide = std::fs::read_to_string(repository().join("docs/dashboard.md")).expect("the guide");
    let blocks: Vec<&str> = guide.split("```toml\n").skip(1).collect();
    assert!(!blocks.is_empty());
    for block in blocks {
        let block = block.split("```").next().unwrap_or_default();
        let directory = tempfile::tempdir().expect("a directory");
        let file = config("127.0.0.1:9000".parse().expect("an address"), block);
        std::fs::write(directory.path().join("sidekey.toml"), file).expect("a file");
        let checked = run(
            directory.path(),
            &["check", "--config", "sidekey.toml"],
            &[],
        );
        assert_eq!(checked.code, Some(0), "{checked:?}");
    }
}

#[test]
fn the_comparison_can_fail() {
    assert!(fits("a...c", "abbc") && fits("", "") && fits("...", "x") && fits("x...", "x"));
    assert!(!fits("a...c", "abb") && !fits("", "x") && !fits("a", "ab") && !fits("a...b", "ac"));
}
