//! docs/troubleshooting.md: its queries and the metrics that it names. Its commands are run like those
//! of every other document (`docs.rs`).

use std::collections::BTreeSet;
use std::process::Command;

use super::selectors::undeclared;
use super::{GUIDE, alerts, text};
use crate::harness::run::{run, run_command};

/// A document without its blocks of code.
fn prose(document: &str) -> String {
    let mut is_code = false;
    let lines = document.lines().filter(|line| {
        let is_fence = line.trim_start().starts_with("```");
        is_code ^= is_fence;
        !is_code && !is_fence
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// The anchors of a document's headings, as GitHub makes them.
pub fn anchors(document: &str) -> BTreeSet<String> {
    let document = prose(document);
    let headings = document.lines().filter_map(|line| line.strip_prefix('#'));
    let anchor = |heading: &str| {
        let heading = heading.trim_start_matches('#').trim().to_lowercase();
        let kept = heading
            .chars()
            .filter(|c| c.is_alphanumeric() || [' ', '-', '_'].contains(c));
        kept.map(|c| if c == ' ' { '-' } else { c }).collect()
    };
    headings.map(anchor).collect()
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

/// Commands that are named in passing have the options that are named with them. (Those in `console`
/// blocks are run.)
#[test]
fn its_commands_have_the_options_that_it_names() {
    let document = prose(&text(GUIDE));
    let spans = document.split('`').skip(1).step_by(2);
    let commands: Vec<&str> = spans.filter(|span| span.starts_with("sidekey ")).collect();
    assert!(commands.len() > 5, "{commands:?}");
    for command in commands {
        let words: Vec<&str> = command.split_whitespace().skip(1).collect();
        let is_name = |word: &&&str| word.chars().all(|c| c.is_ascii_lowercase() || c == '-');
        let path = words.iter().take_while(|word| !word.starts_with('-'));
        let mut arguments: Vec<&str> = path.take_while(is_name).copied().collect();
        arguments.push("--help");
        let help = run(std::path::Path::new("."), &arguments, &[]);
        assert_eq!(help.code, Some(0), "{command}: {}", help.stderr);
        for option in words.iter().filter(|word| word.starts_with("--")) {
            assert!(
                help.stdout.contains(option),
                "{command}: there is no {option}"
            );
        }
    }
}

/// What needs servers of the reader's own is not run, but it is a script.
#[test]
fn its_other_commands_are_scripts() {
    let document = text(GUIDE);
    for block in document.split("```sh\n").skip(1) {
        let mut command = Command::new("bash");
        let script = block.split("```").next().unwrap_or_default();
        command.args(["-n", "-c", script]);
        let ended = run_command(command);
        assert_eq!(ended.code, Some(0), "{script}{}", ended.stderr);
    }
}

#[test]
fn anchors_are_made_as_readers_expect() {
    let document = "# A key: just made\n```sh\n# no heading\n```\n## 401 and `x_y`, or 4-0\n";
    let expected = ["a-key-just-made", "401-and-x_y-or-4-0"].map(str::to_owned);
    assert_eq!(anchors(document), BTreeSet::from(expected));
}
