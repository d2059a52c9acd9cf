//! A real Prometheus that scrapes Sidekey, asked as Grafana asks it.

use std::net::SocketAddr;

use serde_json::Value;
use tempfile::TempDir;

use crate::harness::service::Service;
use crate::harness::{client_builder, eventually};

/// So often that a test is soon over. Grafana then takes rates of four times this.
const SCRAPE_INTERVAL_SECONDS: u64 = 1;
pub const RATE_INTERVAL: &str = "4s";
/// The time between two points of an answer.
const STEP_SECONDS: u64 = 1;

pub struct Prometheus {
    service: Service,
    client: reqwest::Client,
    _directory: TempDir,
}

/// What came of a query.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Found {
    Error(String),
    Nothing,
    /// Points, but each of them is 0.
    Zero,
    Something,
}

impl Prometheus {
    /// Starts, and has scraped all of `targets`.
    pub async fn start(targets: &[SocketAddr]) -> Self {
        let targets: Vec<String> = targets
            .iter()
            .map(|target| format!("\"{target}\""))
            .collect();
        let configuration = format!(
            "global:\n  scrape_interval: {SCRAPE_INTERVAL_SECONDS}s\nscrape_configs:\n  - job_name: sidekey\n    static_configs:\n      - targets: [{}]\n",
            targets.join(", ")
        );
        let directory = tempfile::tempdir().expect("a directory");
        let prometheus = Prometheus {
            service: Service::prometheus(directory.path(), &configuration),
            client: client_builder().build().expect("a client"),
            _directory: directory,
        };
        let up = format!("sum(up) == {}", targets.len());
        eventually("all targets are scraped", || prometheus.holds(&up)).await;
        prometheus
    }

    /// Whether a query finds anything now.
    pub async fn holds(&self, query: &str) -> bool {
        matches!(self.now(query).await, Found::Zero | Found::Something)
    }

    /// Asks for one moment: now.
    pub async fn now(&self, query: &str) -> Found {
        self.find("query", &[("query", query)]).await
    }

    /// Asks for each second since `start` (seconds of the epoch).
    pub async fn since(&self, start: u64, end: u64, query: &str) -> Found {
        let (start, end) = (start.to_string(), end.to_string());
        let step = STEP_SECONDS.to_string();
        let parameters = [
            ("query", query),
            ("start", &start),
            ("end", &end),
            ("step", &step),
        ];
        self.find("query_range", &parameters).await
    }

    /// The values of a label among the series that `matcher` chooses.
    pub async fn label_values(&self, matcher: &str, label: &str) -> Result<Vec<String>, String> {
        let path = format!("label/{label}/values");
        let data = self.ask(&path, &[("match[]", matcher)]).await?;
        let values = data.as_array().into_iter().flatten();
        Ok(values
            .filter_map(Value::as_str)
            .map(str::to_owned)
            .collect())
    }

    async fn find(&self, path: &str, parameters: &[(&str, &str)]) -> Found {
        match self.ask(path, parameters).await {
            Err(error) => Found::Error(error),
            Ok(data) => found(&data),
        }
    }

    /// The data of an answer, or what is wrong with the query.
    async fn ask(&self, path: &str, parameters: &[(&str, &str)]) -> Result<Value, String> {
        let mut query = form_urlencoded::Serializer::new(String::new());
        query.extend_pairs(parameters);
        let address = self.service.address;
        let url = format!("http://{address}/api/v1/{path}?{}", query.finish());
        let answer = self.client.get(url).send().await.expect("an answer");
        let text = answer.text().await.expect("a text");
        // While it starts it says so in plain words.
        let mut answer: Value = serde_json::from_str(&text).map_err(|_| text)?;
        if answer["status"] == "success" && answer.get("warnings").is_none() {
            Ok(answer["data"].take())
        } else {
            Err(answer.to_string())
        }
    }
}

/// What a vector or a matrix has. Only numbers count: Grafana shows nothing for the others.
fn found(data: &Value) -> Found {
    let series = data["result"].as_array().into_iter().flatten();
    let points = series.flat_map(|series| match &series["values"] {
        Value::Array(points) => points.clone(),
        _ => vec![series["value"].clone()],
    });
    let number = |point: Value| point[1].as_str()?.parse::<f64>().ok();
    let numbers = points
        .filter_map(number)
        .filter(|number| number.is_finite());
    numbers
        .map(|number| {
            if number == 0.0 {
                Found::Zero
            } else {
                Found::Something
            }
        })
        .max()
        .unwrap_or(Found::Nothing)
}
