//! What Grafana reads when it starts: where Prometheus is, and where the dashboards are.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use super::files::{Board, folder, list_of, text_of};
use crate::harness::run::run_command;
use crate::harness::service::tool;

/// Prints a YAML file as JSON.
const TO_JSON: &str = "import json, sys; from ruamel.yaml import YAML; \
    print(json.dumps(YAML(typ='safe').load(open(sys.argv[1]))))";

/// The files of a folder of provisioning.
fn read(kind: &str) -> Vec<Value> {
    let files = std::fs::read_dir(folder().join("provisioning").join(kind)).expect("a folder");
    let yaml = |file: &Path| {
        let mut command = Command::new(tool("python"));
        command.args(["-c", TO_JSON]).arg(file);
        let ended = run_command(command);
        assert_eq!(ended.code, Some(0), "{ended:?}");
        let json: Value = serde_json::from_str(&ended.stdout).expect("JSON");
        assert_eq!(json["apiVersion"], 1, "{}", file.display());
        json
    };
    files
        .map(|file| yaml(&file.expect("a file").path()))
        .collect()
}

#[test]
fn the_data_source_is_the_one_that_dashboards_start_with() {
    let files = read("datasources");
    let sources: Vec<&Value> = files
        .iter()
        .flat_map(|file| list_of(file, "datasources"))
        .collect();
    let [source] = sources[..] else {
        panic!("{files:?}");
    };
    assert_eq!(source["type"], "prometheus");
    // Asked by the server, so that browsers need not reach Prometheus.
    assert_eq!(source["access"], "proxy");
    assert!(text_of(source, "url").starts_with("http://"));
    for board in Board::all() {
        let variables = list_of(&board.json["templating"], "list");
        let chosen = &variables[0]["current"];
        assert_eq!(variables[0]["name"], "datasource", "{}", board.name);
        assert_eq!(chosen["value"], source["uid"], "{}", board.name);
        assert_eq!(chosen["text"], source["name"], "{}", board.name);
    }
}

#[test]
fn the_provider_reads_files_and_leaves_them_as_they_are() {
    let files = read("dashboards");
    let providers: Vec<&Value> = files
        .iter()
        .flat_map(|file| list_of(file, "providers"))
        .collect();
    let [provider] = providers[..] else {
        panic!("{files:?}");
    };
    assert_eq!(provider["type"], "file");
    assert_eq!(provider["folder"], "Sidekey");
    assert!(text_of(&provider["options"], "path").starts_with('/'));
    // What is changed in the browser would be lost with the next update of the files.
    assert_eq!(provider["allowUiUpdates"], false);
}
