//! What is shipped beside the program: the image, compose, Kubernetes, systemd. There is no container
//! engine in the tests, so files are held against their schemas and against each other, and what they run
//! is run here as it stands.

mod compose;
mod image;
mod kubernetes;
mod memory;
mod prometheus;
mod sandbox;
mod stack;
mod systemd;
mod trusted;

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::harness::run::{Ended, run_command};
use crate::harness::service::tool;

/// A file of the repository.
fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn text(name: &str) -> String {
    std::fs::read_to_string(path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// Runs a program that `tools/setup test` has installed.
fn run_tool(name: &str, arguments: &[&str]) -> Ended {
    let mut command = Command::new(tool(name));
    command
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .args(arguments);
    run_command(command)
}

#[track_caller]
fn succeed(ended: Ended) -> Ended {
    assert_eq!(ended.code, Some(0), "{ended:?}");
    ended
}

/// The documents of a YAML file.
fn yaml(file: &Path) -> Vec<Value> {
    const AS_JSON: &str =
        "import json, sys, yaml; print(json.dumps(list(yaml.safe_load_all(open(sys.argv[1])))))";
    let ended = succeed(run_tool(
        "python",
        &["-c", AS_JSON, &file.display().to_string()],
    ));
    serde_json::from_str(&ended.stdout).expect("JSON")
}

/// The only document of a YAML file of the repository.
fn document(name: &str) -> Value {
    let mut documents = yaml(&path(name));
    assert_eq!(documents.len(), 1, "{name}");
    documents.remove(0)
}

/// The texts of a list.
fn texts(value: &Value) -> Vec<String> {
    let list = value.as_array().map(Vec::as_slice).unwrap_or_default();
    list.iter()
        .map(|text| text.as_str().expect("a text").to_owned())
        .collect()
}

/// How long a stop may take by a configuration: notice, then requests in flight.
fn stop_seconds(config: &str) -> i64 {
    let config: toml::Table = config.parse().expect("TOML");
    let setting = |name: &str| {
        let value = config.get("proxy").and_then(|proxy| proxy.get(name));
        value.and_then(toml::Value::as_integer)
    };
    setting("shutdown_notice_seconds").unwrap_or(0) + setting("shutdown_seconds").unwrap_or(10)
}
