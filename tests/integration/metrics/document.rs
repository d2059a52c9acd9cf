//! docs/metrics.md says of every metric what the program says of it.

use std::collections::BTreeMap;

use sidekey::telemetry::metrics::{DECLARATIONS, Declaration};

/// What begins a row of a metric.
const ROW: &str = "| `sidekey_";

/// The cells of each row: metric, type, labels, unit, meaning.
fn rows(document: &str) -> Vec<Vec<String>> {
    let rows = document.lines().filter(|line| line.starts_with(ROW));
    rows.map(|line| {
        let line = line.trim_start_matches('|').trim_end_matches('|');
        line.split('|').map(|cell| cell.trim().to_owned()).collect()
    })
    .collect()
}

/// Its type as Prometheus calls it.
fn kind(declaration: &Declaration) -> &'static str {
    match declaration.kind {
        "IntCounter" | "IntCounterVec" => "counter",
        "IntGauge" | "IntGaugeVec" => "gauge",
        "Histogram" | "HistogramVec" => "histogram",
        other => panic!("{other} has no name here"),
    }
}

fn labels(declaration: &Declaration) -> String {
    let labels = declaration.labels.iter();
    let labels: Vec<String> = labels.map(|label| format!("`{label}`")).collect();
    labels.join(", ")
}

/// The unit, where the name says it.
fn unit(declaration: &Declaration) -> Option<&'static str> {
    let name = declaration.name;
    match name {
        _ if name.ends_with("_timestamp_seconds") => Some("Unix time in seconds"),
        _ if name.ends_with("_seconds") => Some("seconds"),
        _ => None,
    }
}

/// A row that would do.
fn row(declaration: &Declaration) -> String {
    format!(
        "| `{}` | {} | {} | {} | {} |",
        declaration.name,
        kind(declaration),
        labels(declaration),
        unit(declaration).unwrap_or("(what it counts)"),
        declaration.help
    )
}

/// What is wrong with `document`, and the lines that would mend it.
fn faults(document: &str) -> Vec<String> {
    let mut faults = Vec::new();
    let mut told: BTreeMap<String, usize> = BTreeMap::new();
    for cells in rows(document) {
        let name = cells[0].trim_matches('`').to_owned();
        *told.entry(name.clone()).or_default() += 1;
        let Some(declaration) = DECLARATIONS.iter().find(|one| one.name == name) else {
            faults.push(format!("{name} is not declared any more"));
            continue;
        };
        let fits = cells.len() == 5
            && cells[1] == kind(declaration)
            && cells[2] == labels(declaration)
            && unit(declaration).is_none_or(|unit| unit == cells[3])
            && cells[3..].iter().all(|cell| !cell.is_empty());
        if !fits {
            faults.push(format!("not as declared: {}", row(declaration)));
        }
    }
    for declaration in DECLARATIONS {
        match told.get(declaration.name) {
            Some(1) => {}
            Some(_) => faults.push(format!("told twice: {}", declaration.name)),
            None => faults.push(format!("missing: {}", row(declaration))),
        }
    }
    faults
}

pub fn text() -> String {
    let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/metrics.md");
    std::fs::read_to_string(file).expect("the document")
}

#[test]
fn every_metric_is_told() {
    let faults = faults(&text());
    assert!(faults.is_empty(), "docs/metrics.md:\n{}", faults.join("\n"));
}

#[test]
fn what_is_wrong_is_found() {
    let document = text();
    let one = "| `sidekey_breaker_open` | gauge | `dependency` |";
    assert!(document.contains(one));
    for (wrong, expected) in [
        ("| `sidekey_breaker_shut` | gauge | `dependency` |", 2),
        ("| `sidekey_breaker_open` | counter | `dependency` |", 1),
        ("| `sidekey_breaker_open` | gauge | |", 1),
        ("| `sidekey_store_up` | gauge | `dependency` |", 3),
    ] {
        let faults = faults(&document.replace(one, wrong));
        assert_eq!(faults.len(), expected, "{faults:?}");
    }
}

/// Names as Prometheus wants them, whatever is in /metrics just now.
#[test]
fn names_say_what_they_count() {
    for declaration in DECLARATIONS {
        let name = declaration.name;
        assert!(name.starts_with("sidekey_"), "{name}");
        let is_total = name.ends_with("_total");
        assert_eq!(is_total, kind(declaration) == "counter", "{name}");
        let has_buckets = !declaration.buckets.is_empty();
        assert_eq!(has_buckets, kind(declaration) == "histogram", "{name}");
        assert!(declaration.buckets.is_sorted(), "{name}");
        assert!(declaration.help.ends_with('.'), "{name}");
    }
}
