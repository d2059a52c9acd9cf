//! docs/troubleshooting.md: its queries and the metrics that it names. Its commands are run like those
//! of every other document (`docs.rs`).

use std::collections::BTreeSet;
use std::process::Command;

use super::selectors::undeclared;
use super::{GUIDE, alerts, text};
use crate::harness::run::run_command;

/// The anchors of a document's headings, as GitHub makes them.
pub fn anchors(document: &str) -> BTreeSet<String> {
    let mut is_code = false;
    let mut anchors = BTreeSet::new();
    for line in document.lines() {
        if line.starts_with("```") {
            is_code = !is_code;
        }
        let heading = line.trim_start_matches('#');
        if is_code || heading.len() == line.len() {
            continue;
        }
        let kept = heading.trim().to_lowercase();
        let kept = kept
            .chars()
            .filter(|c| c.is_alphanumeric() || [' ', '-', '_'].contains(c));
        anchors.insert(kept.map(|c| if c == ' ' { '-' } else { c }).collect());
    }
    anchors
}

/// The queries of a document: what stands in its `promql` blocks, one a paragraph.
pub fn queries(document: &str) -> Vec<String> {
    let blocks = document.split("```promql\n").skip(1);
    let blocks = blocks.map(|rest| rest.split("```").next().unwrap_or_default());
    let queries = blocks.flat_map(|block| block.split("\n\n"));
    let queries: Vec<String> = queries.map(|query| query.trim().to_owned()).collect();
    assert!(queries.len() > 10, "only {} queries", queries.len());
    queries
}

/// Links within the document, and to files beside it.
fn links(document: &str) -> Vec<&str> {
    let ends = document.split("](").skip(1);
    ends.filter_map(|rest| Some(rest.split_once(')')?.0))
        .collect()
}

#[test]
fn its_queries_are_promql() {
    let mut rules = "groups:\n  - name: guide\n    rules:\n".to_owned();
    for (index, query) in queries(&text(GUIDE)).iter().enumerate() {
        let query = query.replace('\n', "\n          ");
        rules.push_str(&format!(
            "      - record: guide:query:n{index}\n        expr: |\n          {query}\n"
        ));
    }
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("guide.yaml");
    std::fs::write(&file, &rules).expect("a file");
    let mut command = Command::new("promtool");
    command.args(["check", "rules"]).arg(&file);
    let ended = run_command(command);
    assert_eq!(
        ended.code,
        Some(0),
        "{}{}{rules}",
        ended.stdout,
        ended.stderr
    );
}

#[test]
fn it_names_metrics_labels_and_outcomes_that_there_are() {
    let wrong = undeclared(&text(GUIDE));
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn its_links_lead_somewhere() {
    let document = text(GUIDE);
    let anchors = anchors(&document);
    for link in links(&document) {
        let Some((name, anchor)) = link.split_once('#') else {
            text(&format!("docs/{link}"));
            continue;
        };
        let there = match name {
            "" => anchors.contains(anchor),
            name => self::anchors(&text(&format!("docs/{name}"))).contains(anchor),
        };
        assert!(there, "{link} leads nowhere");
    }
}

/// A section for an alert that is no more would explain nothing that anybody can meet.
#[test]
fn its_sections_about_alerts_have_their_alerts() {
    let names: BTreeSet<String> = alerts().into_iter().map(|alert| alert.name).collect();
    let document = text(GUIDE);
    let headings = document
        .lines()
        .filter_map(|line| line.strip_prefix("### Sidekey"));
    for heading in headings {
        assert!(
            names.contains(&format!("Sidekey{heading}")),
            "there is no alert Sidekey{heading}"
        );
    }
}

#[test]
fn anchors_are_made_as_readers_expect() {
    let document = "# A key: just made\n```sh\n# no heading\n```\n## 401 and `x_y`, or 4-0\n";
    let expected = ["a-key-just-made", "401-and-x_y-or-4-0"].map(str::to_owned);
    assert_eq!(anchors(document), BTreeSet::from(expected));
}
