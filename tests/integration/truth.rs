//! What the documents name is there: settings, metrics, other documents and their sections; and what the
//! API has is in its document.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use reqwest::Method;
use serde_json::Value;
use sidekey::audit::Action;
use sidekey::telemetry::metrics::DECLARATIONS;

use crate::harness::calls::documented;
use crate::harness::sidekey::{Sidekey, config};
use crate::harness::upstream::nobody;

/// What histograms add to their names.
const SERIES: [&str; 4] = ["_bucket", "_sum", "_count", ""];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every document, by its path.
fn documents() -> BTreeMap<PathBuf, String> {
    let folder = std::fs::read_dir(root().join("docs")).expect("the documents");
    let mut files: Vec<PathBuf> = folder
        .map(|entry| entry.expect("an entry").path())
        .collect();
    files.push(root().join("README.md"));
    files
        .into_iter()
        .filter(|file| file.extension().is_some_and(|extension| extension == "md"))
        .map(|file| {
            let text = std::fs::read_to_string(&file).expect("a document");
            (file, text)
        })
        .collect()
}

/// The words of a text that may stand in a name, dots and slashes included, so that a file is one.
fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !(c.is_ascii_alphanumeric() || "_./".contains(c)))
        .map(|word| word.trim_matches('.'))
}

/// What stands between single backticks.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    let beside_blocks = text.split("```").step_by(2);
    beside_blocks.flat_map(|part| part.split('`').skip(1).step_by(2))
}

/// The settings that the commented sample shows, as `section.field`.
fn settings() -> BTreeSet<String> {
    let sample = std::fs::read_to_string(root().join("config/sidekey.toml")).expect("the sample");
    let (mut section, mut all) = (String::new(), BTreeSet::new());
    for line in sample.lines() {
        if let Some(name) = line.strip_prefix('[') {
            section = name
                .trim_start_matches('[')
                .split(']')
                .next()
                .unwrap_or_default()
                .to_owned();
            continue;
        }
        if let Some((field, _)) = line.trim_start_matches("# ").split_once(" = ") {
            all.insert(format!("{section}.{field}"));
        }
    }
    all
}

#[test]
fn settings_that_documents_name_are_in_the_sample() {
    let (settings, mut wrong) = (settings(), Vec::new());
    let sections: BTreeSet<&str> = settings
        .iter()
        .filter_map(|setting| setting.rsplit_once('.'))
        .map(|(section, _)| section)
        .collect();
    assert!(sections.len() > 10, "{sections:?}");
    let mut named = 0;
    for (file, text) in documents() {
        for word in quoted(&text).flat_map(words) {
            let Some((section, _)) = word.rsplit_once('.') else {
                continue;
            };
            let is_action = Action::ALL.iter().any(|action| action.as_str() == word);
            if !sections.contains(section) || is_action {
                continue;
            }
            named += 1;
            if !settings.contains(word) {
                wrong.push(format!("{}: {word}", file.display()));
            }
        }
    }
    assert!(
        named > 50,
        "only {named} settings were found in the documents"
    );
    assert!(wrong.is_empty(), "there are no such settings: {wrong:#?}");
}

#[test]
fn metrics_that_documents_name_are_declared() {
    let (mut wrong, mut named) = (Vec::new(), 0);
    for (file, text) in documents() {
        for word in words(&text).filter(|word| word.starts_with("sidekey_")) {
            named += 1;
            let is_declared = DECLARATIONS.iter().any(|one| {
                let mut ends = SERIES.iter();
                ends.any(|end| word.strip_suffix(end) == Some(one.name))
            });
            // `sidekey_` alone stands for all of them.
            if !is_declared && word != "sidekey_" {
                wrong.push(format!("{}: {word}", file.display()));
            }
        }
    }
    assert!(
        named > 20,
        "only {named} metrics were found in the documents"
    );
    assert!(wrong.is_empty(), "there are no such metrics: {wrong:#?}");
}

/// The anchors of a document's headings, as GitHub makes them.
fn anchors(text: &str) -> BTreeSet<String> {
    let mut is_code = false;
    let headings = text.lines().filter(|line| {
        is_code ^= line.starts_with("```");
        !is_code && line.starts_with('#')
    });
    headings
        .map(|heading| {
            let words = heading.trim_start_matches('#').trim().to_lowercase();
            let kept = words
                .chars()
                .filter(|c| c.is_alphanumeric() || " -_".contains(*c));
            kept.collect::<String>().replace(' ', "-")
        })
        .collect()
}

#[test]
fn links_lead_somewhere() {
    let (documents, mut wrong) = (documents(), Vec::new());
    let mut followed = 0;
    for (file, text) in &documents {
        for link in text.split("](").skip(1) {
            let link = link.split([')', ' ', '\n']).next().unwrap_or_default();
            if link.contains("://") {
                continue;
            }
            followed += 1;
            let (path, anchor) = link.split_once('#').unwrap_or((link, ""));
            let folder = file.parent().expect("a folder");
            let target = if path.is_empty() {
                file.clone()
            } else {
                folder.join(path)
            };
            let has_anchor = || {
                let text = std::fs::read_to_string(&target).unwrap_or_default();
                anchors(&text).contains(anchor)
            };
            if !target.exists() || !(anchor.is_empty() || has_anchor()) {
                wrong.push(format!("{}: {link}", file.display()));
            }
        }
    }
    assert!(followed > 30, "only {followed} links were found");
    assert!(wrong.is_empty(), "these lead nowhere: {wrong:#?}");
}

/// Names of members, of all objects that the API takes or gives.
fn members(schema: &Value, names: &mut BTreeSet<String>) {
    match schema {
        Value::Object(object) => {
            if let Some(properties) = object.get("properties").and_then(Value::as_object) {
                names.extend(properties.keys().cloned());
            }
            object.values().for_each(|value| members(value, names));
        }
        Value::Array(list) => list.iter().for_each(|value| members(value, names)),
        _ => {}
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_apis_document_has_every_call_parameter_member_and_status() {
    let sidekey = Sidekey::start(&config(nobody(), "")).await;
    let guide = std::fs::read_to_string(root().join("docs/api.md")).expect("the document");
    let (_, errors) = guide.split_once("\n## Errors\n").expect("the errors");
    let first_cells = errors
        .lines()
        .filter_map(|line| line.strip_prefix("| ")?.split('|').next());
    let statuses: BTreeSet<u16> = first_cells
        .flat_map(|cell| cell.split(','))
        .filter_map(|status| status.trim().parse().ok())
        .collect();
    let named: BTreeSet<&str> = guide
        .split(|c: char| !(c.is_ascii_alphanumeric() || "_-.".contains(c)))
        .collect();
    let mut missing = BTreeSet::new();
    for call in documented(&sidekey).await {
        let (_, path) = call.name.split_once(' ').expect("a path");
        let segments = path.split('/').filter(|segment| !segment.is_empty());
        for name in segments.chain(call.query.iter().map(String::as_str)) {
            if !name.starts_with('{') && !named.contains(name) {
                missing.insert(format!("{name} of {}", call.name));
            }
        }
        let refused = call.statuses.iter().filter(|status| **status >= 400);
        let untold = refused.filter(|status| !statuses.contains(status));
        missing.extend(untold.map(|status| format!("status {status}")));
    }
    let api = sidekey
        .ask_as(None, Method::GET, "/api/v1/openapi.json", None)
        .await;
    let mut names = BTreeSet::new();
    members(&api.json()["components"]["schemas"], &mut names);
    assert!(names.len() > 40, "{names:?}");
    let untold = names.iter().filter(|name| !named.contains(name.as_str()));
    missing.extend(untold.map(|name| format!("member {name}")));
    assert!(
        missing.is_empty(),
        "docs/api.md does not tell of {missing:#?}"
    );
}
