//! The dashboards as they are in the repository, and what they ask.

use std::path::{Path, PathBuf};

use serde_json::Value;

/// Grafana's folder.
pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("grafana")
}

/// A dashboard.
pub struct Board {
    /// Its file's name, without the extension.
    pub name: String,
    pub text: String,
    pub json: Value,
}

/// One query of Prometheus.
#[derive(Debug, Clone)]
pub struct Query {
    /// Such as `overview: Requests by outcome (A)`.
    pub place: String,
    pub text: String,
    /// Asked of one moment, not of a stretch of time.
    pub is_instant: bool,
}

/// A text that has to be there.
#[track_caller]
pub fn text_of<'v>(value: &'v Value, name: &str) -> &'v str {
    let text = value[name].as_str();
    text.unwrap_or_else(|| panic!("no text {name} in {value:#}"))
}

/// A list, empty where it isn't there.
pub fn list_of<'v>(value: &'v Value, name: &str) -> &'v [Value] {
    value[name].as_array().map_or(&[], Vec::as_slice)
}

impl Board {
    /// All of them, by name.
    pub fn all() -> Vec<Self> {
        let files = std::fs::read_dir(folder().join("dashboards")).expect("the dashboards");
        let mut boards: Vec<Board> = files
            .map(|file| Board::read(&file.expect("a file").path()))
            .collect();
        boards.sort_by(|a, b| a.name.cmp(&b.name));
        boards
    }

    fn read(file: &Path) -> Self {
        let text = std::fs::read_to_string(file).expect("a dashboard");
        Board {
            name: file
                .file_stem()
                .expect("a name")
                .to_string_lossy()
                .into_owned(),
            json: serde_json::from_str(&text)
                .unwrap_or_else(|error| panic!("{}: {error}", file.display())),
            text,
        }
    }

    /// Panels, with rows and what is in them.
    pub fn panels(&self) -> Vec<&Value> {
        let panels = list_of(&self.json, "panels").iter();
        panels
            .flat_map(|panel| std::iter::once(panel).chain(list_of(panel, "panels")))
            .collect()
    }

    /// Panels that draw something.
    pub fn drawn(&self) -> Vec<&Value> {
        let panels = self.panels().into_iter();
        panels.filter(|panel| panel["type"] != "row").collect()
    }

    /// What panels ask, and the annotations over them.
    pub fn queries(&self) -> Vec<Query> {
        let mut queries = Vec::new();
        for panel in self.drawn() {
            let title = text_of(panel, "title");
            for target in list_of(panel, "targets") {
                queries.push(Query {
                    place: format!("{}: {title} ({})", self.name, text_of(target, "refId")),
                    text: text_of(target, "expr").to_owned(),
                    is_instant: target["instant"] == true,
                });
            }
        }
        for annotation in list_of(&self.json["annotations"], "list") {
            if let Some(text) = annotation["target"]["expr"].as_str() {
                queries.push(Query {
                    place: format!("{}: annotation {}", self.name, text_of(annotation, "name")),
                    text: text.to_owned(),
                    is_instant: false,
                });
            }
        }
        queries
    }

    /// Variables that are filled by a query, with the query.
    pub fn variables(&self) -> Vec<(&str, &str)> {
        let variables = list_of(&self.json["templating"], "list").iter();
        variables
            .filter(|variable| variable["type"] == "query")
            .map(|variable| {
                (
                    text_of(variable, "name"),
                    text_of(&variable["query"], "query"),
                )
            })
            .collect()
    }
}
