//! The rules themselves, and the sample for Alertmanager.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::selectors::undeclared;
use super::{Alert, GUIDE, RULES, alerts, file, guide, parsed, text, yaml};
use crate::harness::run::{Ended, run_command_within};

/// The guide that says how to load the rules.
const OPERATIONS: &str = "docs/operations.md";
/// The tests that promtool runs.
const TESTS: &str = "grafana/alerts/tests";
/// Evaluating rules over simulated weeks takes half a minute, on a machine that has nothing else to do.
const PROMTOOL_LIMIT: Duration = Duration::from_secs(300);
/// How a resource is handed to Kubernetes.
const APPLY: &str = "kubectl apply --namespace monitoring --filename -";
/// The sample for Alertmanager.
const ALERTMANAGER: &str = "grafana/alertmanager.yaml";

/// promtool and amtool, run to their end; they have to be content.
#[track_caller]
fn content(program: &str, arguments: &[&str], files: &[PathBuf]) -> Ended {
    let mut command = Command::new(program);
    command.args(arguments).args(files);
    let ended = run_command_within(command, PROMTOOL_LIMIT);
    assert_eq!(ended.code, Some(0), "{}{}", ended.stdout, ended.stderr);
    ended
}

fn test_files() -> Vec<String> {
    let files = std::fs::read_dir(file(TESTS)).expect("the tests");
    let names = files.map(|entry| entry.expect("an entry").file_name());
    let names = names.map(|name| format!("{TESTS}/{}", name.to_string_lossy()));
    names.collect()
}

#[test]
fn prometheus_takes_the_rules() {
    content("promtool", &["check", "rules"], &[file(RULES)]);
}

#[test]
fn each_alert_fires_when_it_should_and_not_otherwise() {
    let files: Vec<PathBuf> = test_files().iter().map(|name| file(name)).collect();
    content("promtool", &["test", "rules"], &files);
}

/// Both cases are tested of each alert: it fires, with all that it says, and it stays quiet.
#[test]
fn each_alert_is_tested_both_ways() {
    let (mut fired, mut quiet) = (BTreeSet::new(), BTreeSet::new());
    for name in test_files() {
        let tests = yaml(&name);
        for test in tests["tests"].as_array().expect("tests") {
            // A test without series would be quiet whatever a rule says.
            assert_ne!(
                test["input_series"].as_array().map(Vec::len),
                Some(0),
                "{name}"
            );
            for case in test["alert_rule_test"].as_array().expect("cases") {
                let alert = case["alertname"].as_str().expect("a name").to_owned();
                match case["exp_alerts"].as_array().map(Vec::len) {
                    None | Some(0) => quiet.insert(alert),
                    Some(_) => fired.insert(alert),
                };
            }
        }
    }
    let names: BTreeSet<String> = alerts().into_iter().map(|alert| alert.name).collect();
    assert_eq!(fired, names, "each alert has a test in which it fires");
    assert_eq!(
        quiet, names,
        "each alert has a test in which it stays quiet"
    );
}

#[test]
fn each_alert_says_how_urgent_it_is_and_where_to_read_on() {
    let anchors = guide::anchors(&text(GUIDE));
    for alert in alerts() {
        let Alert { name, severity, .. } = &alert;
        assert!(["page", "ticket"].contains(&severity.as_str()), "{name}");
        for part in ["summary", "description"] {
            assert!(!alert.annotation(part).is_empty(), "{name} has no {part}");
        }
        let expected = format!("{GUIDE}#{}", name.to_lowercase());
        assert_eq!(alert.annotation("runbook_url"), expected, "{name}");
        assert!(
            anchors.contains(&name.to_lowercase()),
            "{GUIDE} has no section {name}"
        );
    }
}

/// The commands of docs/operations.md that hold `word`, as they stand there.
fn commands(word: &str) -> String {
    let document = text(OPERATIONS);
    let blocks = document.split("```sh\n").skip(1);
    let mut blocks = blocks.filter_map(|rest| rest.split("```").next());
    let block = blocks.find(|block| block.contains(word));
    block
        .unwrap_or_else(|| panic!("{OPERATIONS} has no commands with {word}"))
        .to_owned()
}

/// Runs `script` in `directory`, with its own copy of the rules and their tests.
fn run_beside_the_rules(script: &str, directory: &Path) -> Ended {
    std::fs::create_dir_all(directory.join(TESTS)).expect("a directory");
    for name in test_files().into_iter().chain([RULES.to_owned()]) {
        std::fs::copy(file(&name), directory.join(&name)).expect("a copy");
    }
    let mut command = Command::new("bash");
    command.args(["-ec", script]).current_dir(directory);
    let ended = run_command_within(command, PROMTOOL_LIMIT);
    assert_eq!(ended.code, Some(0), "{script}{}", ended.stderr);
    ended
}

#[test]
fn links_to_the_guide_can_be_pointed_elsewhere() {
    let directory = tempfile::tempdir().expect("a directory");
    run_beside_the_rules(&commands("runbook_url"), directory.path());
    for name in test_files().into_iter().chain([RULES.to_owned()]) {
        let text = std::fs::read_to_string(directory.path().join(&name)).expect("a copy");
        assert!(!text.contains("runbook_url: docs/"), "{name}");
        let link = "runbook_url: https://wiki.example.com/sidekey/troubleshooting.md#sidekey";
        assert!(text.contains(link), "{name}");
    }
}

/// What the Prometheus operator is given are the same rules.
#[test]
fn the_rules_can_be_given_to_an_operator() {
    let script = commands("PrometheusRule").replace(APPLY, "cat");
    assert!(!script.contains("kubectl"), "{script}");
    let directory = tempfile::tempdir().expect("a directory");
    let ended = run_beside_the_rules(&script, directory.path());
    let resource = parsed(ended.stdout.as_bytes());
    assert_eq!(resource["apiVersion"], "monitoring.coreos.com/v1");
    assert_eq!(resource["kind"], "PrometheusRule");
    assert_eq!(resource["spec"], yaml(RULES));
}

/// A threshold without a reason is a guess that nobody dares to change.
#[test]
fn each_threshold_has_its_reason_above_it() {
    let rules = text(RULES);
    let lines: Vec<&str> = rules.lines().map(str::trim).collect();
    for (index, line) in lines.iter().enumerate() {
        if line.starts_with("- alert: ") {
            assert!(lines[index - 1].starts_with("# "), "{line} has no reason");
        }
    }
}

#[test]
fn each_alert_asks_for_what_is_declared() {
    let mut wrong = BTreeSet::new();
    for alert in alerts() {
        let found = undeclared(&alert.expression);
        wrong.extend(
            found
                .into_iter()
                .map(|what| format!("{}: {what}", alert.name)),
        );
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn alertmanager_takes_the_sample_and_sends_by_severity() {
    content("amtool", &["check-config"], &[file(ALERTMANAGER)]);
    let config = format!("--config.file={}", file(ALERTMANAGER).display());
    for (severity, receiver) in [("page", "on-call"), ("ticket", "tickets"), ("", "tickets")] {
        let label = format!("severity={severity}");
        let arguments = ["config", "routes", "test", config.as_str(), label.as_str()];
        let ended = content("amtool", &arguments, &[]);
        assert_eq!(ended.stdout.trim(), receiver, "{severity}");
    }
}

/// What one instance has lost says nothing about the others: an alert of an instance keeps back its own only.
#[test]
fn one_instance_does_not_keep_back_what_is_told_of_all() {
    let alerts = alerts();
    let sample = yaml(ALERTMANAGER);
    let rules = sample["inhibit_rules"].as_array().expect("rules");
    assert!(rules.len() > 3, "{rules:?}");
    for rule in rules {
        let source = rule["source_matchers"].to_string();
        let named = |alert: &&Alert| source.contains(&format!("\"{}\\", alert.name));
        let alert = alerts.iter().find(named);
        let alert = alert.unwrap_or_else(|| panic!("{source} is about no alert"));
        let equal = rule["equal"].to_string();
        let is_of_an_instance = !alert.expression.contains("by (job");
        assert!(!is_of_an_instance || equal.contains("instance"), "{rule}");
    }
}

/// A rule of the sample that names an alert of another name would hold nothing back.
#[test]
fn the_sample_names_alerts_that_there_are() {
    let names: BTreeSet<String> = alerts().into_iter().map(|alert| alert.name).collect();
    let sample = text(ALERTMANAGER);
    let words = sample.split(|c: char| !c.is_ascii_alphanumeric());
    let named: BTreeSet<&str> = words
        .filter(|word| word.starts_with("Sidekey") && word.len() > "Sidekey".len())
        .collect();
    assert!(named.len() > 5, "{named:?}");
    for name in named {
        assert!(names.contains(name), "there is no alert {name}");
    }
}
