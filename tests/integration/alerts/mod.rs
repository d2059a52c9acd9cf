//! The alerts of `grafana/alerts`, and the guide to which they lead. Each rule is held to what is
//! declared (metrics, labels, outcomes) and to its own tests; the guide's queries are held to the same;
//! and a real Prometheus and Alertmanager deliver what a real Sidekey gives rise to.

mod delivery;
mod guide;
mod rules;
mod selectors;

use std::io::{Seek, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::harness::service::tool;

/// The guide that runbook links lead to.
const GUIDE: &str = "docs/troubleshooting.md";
/// The rules.
const RULES: &str = "grafana/alerts/sidekey.rules.yaml";

/// A file of the repository.
fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// Its text.
fn text(name: &str) -> String {
    std::fs::read_to_string(file(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// A YAML file of the repository.
fn yaml(name: &str) -> Value {
    parsed(text(name).as_bytes())
}

/// What a YAML document says.
fn parsed(document: &[u8]) -> Value {
    let program = "import json, sys, yaml; json.dump(yaml.safe_load(sys.stdin), sys.stdout)";
    let mut input = tempfile::tempfile().expect("a file");
    input.write_all(document).expect("written");
    input.rewind().expect("from its beginning");
    let output = Command::new(tool("python"))
        .args(["-c", program])
        .stdin(input)
        .stdout(Stdio::piped())
        .output()
        .expect("python runs");
    let start = String::from_utf8_lossy(&document[..document.len().min(80)]);
    assert!(output.status.success(), "no YAML: {start}");
    serde_json::from_slice(&output.stdout).expect("JSON")
}

/// One rule that alerts.
#[derive(Debug)]
struct Alert {
    name: String,
    expression: String,
    severity: String,
    annotations: Value,
}

impl Alert {
    fn annotation(&self, name: &str) -> &str {
        self.annotations[name].as_str().unwrap_or_default()
    }
}

/// All of them, in the file's order.
fn alerts() -> Vec<Alert> {
    let rules = yaml(RULES);
    let groups = rules["groups"].as_array().expect("groups");
    let all = groups
        .iter()
        .flat_map(|group| group["rules"].as_array().expect("rules"));
    let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let alerts: Vec<Alert> = all
        .map(|rule| Alert {
            name: word(&rule["alert"]),
            expression: word(&rule["expr"]),
            severity: word(&rule["labels"]["severity"]),
            annotations: rule["annotations"].clone(),
        })
        .collect();
    assert!(alerts.len() > 20, "only {} alerts", alerts.len());
    alerts
}
