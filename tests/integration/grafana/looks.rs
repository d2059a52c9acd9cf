//! What every dashboard has, so that people find their way: explanations, units, links, fixed ids.

use std::collections::BTreeSet;

use serde_json::Value;
use sidekey::telemetry::metrics::{DECLARATIONS, Declaration};

use super::files::{Board, list_of, text_of};

/// The width of Grafana's grid.
const COLUMNS: u64 = 24;
/// What Prometheus and its client library know of every process, as far as it is shown.
const FOREIGN: [&str; 7] = [
    "ALERTS",
    "process_cpu_seconds_total",
    "process_max_fds",
    "process_open_fds",
    "process_resident_memory_bytes",
    "process_start_time_seconds",
    "up",
];
const NAMES: [&str; 4] = [
    "keys-and-tenants",
    "limits-and-dependencies",
    "overview",
    "security",
];

/// The series that a metric is scraped as.
fn series(metric: &Declaration) -> Vec<String> {
    if metric.kind.starts_with("Histogram") {
        let parts = ["_bucket", "_count", "_sum"].iter();
        parts.map(|part| format!("{}{part}", metric.name)).collect()
    } else {
        vec![metric.name.to_owned()]
    }
}

/// Words of a query that are names of metrics.
fn metrics(query: &str) -> BTreeSet<&str> {
    let words = query.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words
        .filter(|word| word.starts_with("sidekey_") || word.starts_with("process_"))
        .collect()
}

#[test]
fn there_are_four_and_each_is_told_apart() {
    let boards = Board::all();
    let names: Vec<&str> = boards.iter().map(|board| &*board.name).collect();
    assert_eq!(names, NAMES);
    let of = |name: &str| -> BTreeSet<&str> {
        boards
            .iter()
            .map(|board| text_of(&board.json, name))
            .collect()
    };
    assert_eq!(of("uid").len(), NAMES.len());
    assert_eq!(of("title").len(), NAMES.len());
    for board in &boards {
        // Saved dashboards have a number in the database; files must not.
        assert!(board.json.get("id").is_none(), "{}", board.name);
        assert_eq!(board.json["refresh"], "30s", "{}", board.name);
        assert_eq!(board.json["time"]["from"], "now-6h", "{}", board.name);
        assert!(!text_of(&board.json, "description").is_empty());
        let pretty = serde_json::to_string_pretty(&board.json).expect("JSON");
        assert!(
            board.text == format!("{pretty}\n"),
            "{} is not written as JSON usually is",
            board.name
        );
    }
}

#[test]
fn every_panel_says_what_it_shows() {
    for board in Board::all() {
        let mut ids = BTreeSet::new();
        let mut titles = BTreeSet::new();
        for panel in board.panels() {
            let title = text_of(panel, "title");
            assert!(ids.insert(panel["id"].as_u64()), "{title}: its id is taken");
            if panel["type"] == "row" {
                continue;
            }
            assert!(titles.insert(title), "two panels are called {title}");
            let description = text_of(panel, "description");
            assert!(description.ends_with('.'), "{title}: {description}");
            assert!(has_unit(panel), "{title} has no unit");
            assert!(!list_of(panel, "targets").is_empty(), "{title}");
            for thing in std::iter::once(panel).chain(list_of(panel, "targets")) {
                assert_eq!(thing["datasource"]["uid"], "${datasource}", "{title}");
            }
            // A colour that warns is explained.
            let defaults = &panel["fieldConfig"]["defaults"];
            let steps = list_of(&defaults["thresholds"], "steps");
            let has_limits = steps.len() > 2;
            let is_explained = ["Yellow", "Red", "Line", "Colours"]
                .iter()
                .any(|word| description.contains(word));
            assert!(!has_limits || is_explained, "{title}: {description}");
        }
    }
}

fn has_unit(panel: &Value) -> bool {
    let unit = &panel["fieldConfig"]["defaults"]["unit"];
    unit.is_string() || panel["options"]["yAxis"]["unit"].is_string()
}

#[test]
fn panels_lie_beside_each_other() {
    for board in Board::all() {
        let mut taken = BTreeSet::new();
        for panel in list_of(&board.json, "panels") {
            let title = text_of(panel, "title");
            let place = |name: &str| panel["gridPos"][name].as_u64().expect("a place");
            let (x, y, w, h) = (place("x"), place("y"), place("w"), place("h"));
            assert!(w > 0 && h > 0 && x + w <= COLUMNS, "{title}");
            for cell in (y..y + h).flat_map(|line| (x..x + w).map(move |column| (line, column))) {
                assert!(
                    taken.insert(cell),
                    "{}: {title} lies on another",
                    board.name
                );
            }
        }
    }
}

#[test]
fn dashboards_lead_to_each_other_and_to_the_documents() {
    for board in Board::all() {
        assert_eq!(board.json["tags"], serde_json::json!(["sidekey"]));
        let links = list_of(&board.json, "links");
        let others = links.iter().find(|link| link["type"] == "dashboards");
        let others = others.expect("a link to the others");
        assert_eq!(others["tags"], board.json["tags"], "{}", board.name);
        assert_eq!(others["includeVars"], true, "{}", board.name);
        assert_eq!(others["keepTime"], true, "{}", board.name);
        let documents = links.iter().filter_map(|link| {
            let url = link["url"].as_str()?;
            url.strip_prefix("${docs}/")
        });
        let documents: Vec<&str> = documents.collect();
        assert!(documents.contains(&"troubleshooting.md"), "{}", board.name);
        let variables = list_of(&board.json["templating"], "list").iter();
        let variables: Vec<&str> = variables.map(|v| text_of(v, "name")).collect();
        for name in ["datasource", "job", "instance", "docs"] {
            assert!(variables.contains(&name), "{}: no {name}", board.name);
        }
        let uses = |name: &str| board.text.contains(&format!("${name}\\\""));
        for name in variables {
            assert!(
                ["datasource", "docs"].contains(&name) || uses(name),
                "{}: nothing is chosen by {name}",
                board.name
            );
        }
    }
}

#[test]
fn every_metric_that_is_asked_for_is_declared() {
    let declared: BTreeSet<String> = DECLARATIONS.iter().flat_map(series).collect();
    let mut missing = BTreeSet::new();
    for board in Board::all() {
        let queries = board.queries();
        let texts = queries.iter().map(|query| &*query.text);
        for text in texts.chain(board.variables().into_iter().map(|(_, query)| query)) {
            for name in metrics(text) {
                if !declared.contains(name) && !FOREIGN.contains(&name) {
                    missing.insert(format!("{name} ({})", board.name));
                }
            }
        }
    }
    assert!(missing.is_empty(), "nobody declares {missing:#?}");
}

/// What is counted can be looked at.
#[test]
fn every_metric_is_shown_somewhere() {
    let boards = Board::all();
    let queries: Vec<_> = boards.iter().flat_map(Board::queries).collect();
    let shown: BTreeSet<&str> = queries.iter().flat_map(|q| metrics(&q.text)).collect();
    let is_shown =
        |metric: &&Declaration| series(metric).iter().any(|name| shown.contains(&**name));
    let unseen: Vec<&str> = DECLARATIONS
        .iter()
        .filter(|metric| !is_shown(metric))
        .map(|metric| metric.name)
        .collect();
    assert!(unseen.is_empty(), "no panel shows {unseen:#?}");
}
