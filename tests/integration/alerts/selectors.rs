//! What a PromQL query asks for, compared with what is declared. No parser of the language: it finds
//! names and what stands in braces behind them, which is enough for queries that promtool has parsed.

use std::collections::BTreeSet;

use sidekey::telemetry::Outcome;
use sidekey::telemetry::metrics::{DECLARATIONS, Declaration};

/// Labels that Prometheus adds, and that histograms have.
const LABELS_OF_ALL: [&str; 3] = ["job", "instance", "le"];
/// What a histogram's series end with.
const OF_HISTOGRAMS: [&str; 3] = ["_bucket", "_sum", "_count"];
/// What every name of ours begins with.
const PREFIX: &str = "sidekey_";

fn is_part_of_a_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_' || c == ':'
}

/// The declaration of the metric that the series `name` belongs to.
fn declaration(name: &str) -> Option<&'static Declaration> {
    let find = |name: &str| DECLARATIONS.iter().find(|one| one.name == name);
    find(name).or_else(|| {
        let metric = OF_HISTOGRAMS
            .iter()
            .find_map(|end| name.strip_suffix(end))?;
        find(metric).filter(|one| one.kind.starts_with("Histogram"))
    })
}

/// Names of our series in `text`, each with what follows it.
fn series(text: &str) -> impl Iterator<Item = (&str, &str)> {
    text.match_indices(PREFIX).filter_map(|(start, _)| {
        let before = text[..start].chars().next_back();
        if before.is_some_and(is_part_of_a_name) {
            return None;
        }
        let rest = &text[start..];
        let end = rest.find(|c| !is_part_of_a_name(c)).unwrap_or(rest.len());
        Some(rest.split_at(end))
    })
}

/// What is wrong with a selector's labels `{...}`.
fn wrong_labels(metric: &Declaration, braces: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    for matcher in braces.split(',').filter(|part| !part.trim().is_empty()) {
        let matcher = matcher.trim();
        let end = matcher.find(['=', '!']).unwrap_or(matcher.len());
        let (label, value) = matcher.split_at(end);
        if !metric.labels.contains(&label) && !LABELS_OF_ALL.contains(&label) {
            wrong.push(format!("{} has no label {label}", metric.name));
        }
        // Other metrics have outcomes of their own.
        if label == "outcome" && metric.name == "sidekey_requests_total" {
            let value = value.trim_start_matches(['=', '!', '~']).trim_matches('"');
            let words = value.split('|').filter(|word| !word.starts_with('$'));
            let unknown = words.filter(|word| Outcome::ALL.iter().all(|o| o.as_str() != *word));
            wrong.extend(unknown.map(|word| format!("there is no outcome {word}")));
        }
    }
    wrong
}

/// What a text (a query, or prose that names metrics) asks for and nobody declares.
pub fn undeclared(text: &str) -> BTreeSet<String> {
    let mut wrong = BTreeSet::new();
    for (name, rest) in series(text) {
        let Some(metric) = declaration(name) else {
            wrong.insert(format!("{name} is not declared"));
            continue;
        };
        let braces = rest.strip_prefix('{').and_then(|rest| rest.split_once('}'));
        if let Some((braces, _)) = braces {
            wrong.extend(wrong_labels(metric, braces));
        }
    }
    wrong
}

#[test]
fn what_is_not_declared_is_found() {
    let sound = "sum by (job) (rate(sidekey_requests_total{outcome=~\"forwarded|rate_limited\", route=\"a\"}[5m]))
        / sidekey_request_duration_seconds_count + sidekey_store_up{job=\"sidekey\"}";
    assert_eq!(undeclared(sound), BTreeSet::new());
    for (query, found) in [
        (
            "rate(sidekey_request_total[5m])",
            "sidekey_request_total is not declared",
        ),
        (
            "sidekey_store_up_count",
            "sidekey_store_up_count is not declared",
        ),
        (
            "sidekey_store_up{route=\"a\"}",
            "sidekey_store_up has no label route",
        ),
        (
            "sidekey_requests_total{outcome!~\"forwarded|lost\"}",
            "there is no outcome lost",
        ),
    ] {
        assert_eq!(
            undeclared(query),
            BTreeSet::from([found.to_owned()]),
            "{query}"
        );
    }
}
