//! From a real Sidekey to whoever is on call: a real Prometheus scrapes it and evaluates the rules, and a
//! real Alertmanager with the sample's routes delivers to webhooks.
//!
//! Only waiting is left out. In the copies that run here `for` is a second and windows of five minutes are
//! five seconds; thresholds, labels, texts and routes are those that are shipped.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::extract::{Path as Route, State};
use axum::routing::post;
use axum::{Json, Router};
use futures_util::future::join_all;
use serde_json::Value;
use tempfile::TempDir;
use tokio::net::TcpListener;

use super::{GUIDE, RULES, guide, text};
use crate::harness::service::Service;
use crate::harness::sidekey::{Key, Sidekey, config};
use crate::harness::upstream::{Upstream, nobody};

/// How long a message may take: Prometheus looks for targets every five seconds only, and has to see a
/// figure grow.
const DELIVERY_LIMIT: Duration = Duration::from_secs(120);
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// Waits until `condition` holds.
async fn shortly<R>(what: &str, mut condition: impl FnMut() -> R)
where
    R: Future<Output = bool>,
{
    let start = Instant::now();
    while !condition().await {
        assert!(
            start.elapsed() < DELIVERY_LIMIT,
            "waited too long until {what}"
        );
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
}

/// What Alertmanager has sent: to which webhook, and what.
type Sent = Arc<Mutex<Vec<(String, Value)>>>;

/// The webhooks `/page` and `/ticket` of the sample.
async fn webhooks() -> (SocketAddr, Sent) {
    async fn note(State(sent): State<Sent>, Route(name): Route<String>, Json(body): Json<Value>) {
        sent.lock().expect("messages").push((name, body));
    }
    let sent = Sent::default();
    let app = Router::new()
        .route("/{name}", post(note))
        .with_state(sent.clone());
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move { axum::serve(listener, app).await });
    (address, sent)
}

/// `text` with `from` replaced, which has to be there.
fn replaced(text: &str, from: &str, to: &str) -> String {
    assert!(text.contains(from), "nothing to replace: {from}");
    text.replace(from, to)
}

/// The rules without their waiting.
fn quick_rules() -> String {
    let rules = replaced(&text(RULES), "[5m]", "[5s]");
    let lines = rules.lines().map(|line| match line.split_once("for: ") {
        Some((indent, _)) if indent.trim().is_empty() => format!("{indent}for: 1s"),
        _ => line.to_owned(),
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// Everything from the program to the webhooks.
struct World {
    sidekey: Sidekey,
    prometheus: Service,
    sent: Sent,
    _alertmanager: Service,
    _directory: TempDir,
}

impl World {
    async fn start(sidekey: Sidekey) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let (webhooks, sent) = webhooks().await;
        let alertmanager = alertmanager(directory.path(), webhooks);
        let prometheus = prometheus(directory.path(), &sidekey, &alertmanager);
        World {
            sidekey,
            prometheus,
            sent,
            _alertmanager: alertmanager,
            _directory: directory,
        }
    }

    /// Asks Prometheus; null while it is not ready yet.
    async fn ask(&self, path: &str, parameters: &[(&str, &str)]) -> Value {
        let url = format!("http://{}/api/v1/{path}", self.prometheus.address);
        let url = reqwest::Url::parse_with_params(&url, parameters).expect("a URL");
        let answer = self.sidekey.client.get(url).send().await;
        let answer = answer.expect("an answer").json().await;
        answer.unwrap_or_default()
    }

    /// The rules, as Prometheus has evaluated them.
    async fn rules(&self) -> Vec<Value> {
        let answer = self.ask("rules", &[]).await;
        let groups = answer["data"]["groups"].as_array().cloned();
        let rules = groups.into_iter().flatten();
        let rules = rules.filter_map(|group| group["rules"].as_array().cloned());
        rules.flatten().collect()
    }

    /// The alerts called `name` of a message to `webhook` that says `status` of them.
    fn delivered(&self, webhook: &str, status: &str, name: &str) -> Vec<Value> {
        let sent = self.sent.lock().expect("messages");
        let messages = sent.iter().filter(|(to, _)| to == webhook);
        let alerts = messages.flat_map(|(_, body)| body["alerts"].as_array().expect("alerts"));
        alerts
            .filter(|one| one["status"] == status && one["labels"]["alertname"] == name)
            .cloned()
            .collect()
    }

    /// Fails where `name` pages though `gauge` was 1 whenever Prometheus has looked. Where a machine stands
    /// still, a look may fail.
    async fn assert_quiet(&self, name: &str, gauge: &str) {
        let is_told = !self.delivered("page", "firing", name).is_empty();
        let always = format!("min_over_time({gauge}[1h]) == 1");
        let answer = self.ask("query", &[("query", &always)]).await;
        let was_up = answer["data"]["result"][0].is_object();
        assert!(!is_told || !was_up, "{name}: {answer}");
    }

    /// Sends requests with `key`, all the time, until an alert is delivered.
    async fn until_delivered(
        &self,
        key: &Key,
        requests: usize,
        webhook: &str,
        name: &str,
    ) -> Value {
        shortly("an alert is delivered", async || {
            join_all((0..requests).map(|_| self.sidekey.status("/", &key.text))).await;
            !self.delivered(webhook, "firing", name).is_empty()
        })
        .await;
        self.delivered(webhook, "firing", name).remove(0)
    }
}

fn alertmanager(directory: &Path, webhooks: SocketAddr) -> Service {
    let sample = text("grafana/alertmanager.yaml");
    let sample = replaced(&sample, "127.0.0.1:9099", &webhooks.to_string());
    let sample = replaced(&sample, "group_wait: 30s", "group_wait: 0s");
    let sample = replaced(&sample, "group_interval: 5m", "group_interval: 1s");
    Service::alertmanager(directory, &sample)
}

fn prometheus(directory: &Path, sidekey: &Sidekey, alertmanager: &Service) -> Service {
    std::fs::write(directory.join("rules.yaml"), quick_rules()).expect("the rules");
    let configuration = format!(
        r#"
global: {{scrape_interval: 1s, evaluation_interval: 1s}}
rule_files: [rules.yaml]
scrape_configs:
  - job_name: sidekey
    static_configs: [{{targets: ["{}"]}}]
alerting:
  alertmanagers:
    - static_configs: [{{targets: ["{}"]}}]
"#,
        sidekey.admin, alertmanager.address
    );
    Service::prometheus(directory, &configuration)
}

/// A key of another deployment: of our form, and not minted here.
async fn forged_key() -> Key {
    let upstream = Upstream::start().await;
    let other = Sidekey::start(&config(upstream.address, "")).await;
    other.create_key(serde_json::json!({})).await
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_page_and_forged_keys_make_a_ticket() {
    let more = "[log]\naccess = \"off\"\n[limits]\ndefault = []\nfailed_auth = { name = \"failed-auth\", quota = 600000, window_seconds = 60 }";
    let sidekey = Sidekey::start(&config(nobody(), more)).await;
    let key = sidekey.create_key(serde_json::json!({})).await;
    let world = World::start(sidekey).await;

    let alert = world
        .until_delivered(&key, 10, "page", "SidekeyErrorSpike")
        .await;
    assert_eq!(alert["labels"]["severity"], "page", "{alert}");
    assert_eq!(alert["labels"]["job"], "sidekey", "{alert}");
    let link = format!("{GUIDE}#sidekeyerrorspike");
    assert_eq!(
        alert["annotations"]["runbook_url"],
        link.as_str(),
        "{alert}"
    );
    let summary = alert["annotations"]["summary"].as_str();
    let summary = summary.expect("a summary");
    assert!(
        summary.ends_with("% of all answers are errors"),
        "{summary}"
    );
    assert!(
        world
            .delivered("ticket", "firing", "SidekeyErrorSpike")
            .is_empty()
    );

    // The errors end: so does the alert, and whoever is on call hears of that too.
    shortly("the errors are over", async || {
        !world
            .delivered("page", "resolved", "SidekeyErrorSpike")
            .is_empty()
    })
    .await;

    let forged = forged_key().await;
    let alert = world
        .until_delivered(&forged, 30, "ticket", "SidekeyForgedKeyFlood")
        .await;
    assert_eq!(
        alert["labels"]["instance"],
        world.sidekey.admin.to_string().as_str()
    );
    assert!(
        world
            .delivered("page", "firing", "SidekeyForgedKeyFlood")
            .is_empty()
    );
    // What is fine is not told of.
    for name in ["SidekeyNoTraffic", "SidekeyAuditWriteFailing"] {
        assert!(world.delivered("page", "firing", name).is_empty(), "{name}");
    }
    for (name, gauge) in [
        ("SidekeyDown", "up{job=\"sidekey\"}"),
        ("SidekeyDependencyDown", "sidekey_store_up"),
    ] {
        world.assert_quiet(name, gauge).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_that_dies_pages() {
    let upstream = Upstream::start().await;
    let sidekey = Sidekey::start(&config(upstream.address, "")).await;
    let mut world = World::start(sidekey).await;
    let up = [("query", "up{job=\"sidekey\"} == 1")];
    shortly("it is scraped", async || {
        world.ask("query", &up).await["data"]["result"][0].is_object()
    })
    .await;
    world
        .assert_quiet("SidekeyDown", "up{job=\"sidekey\"}")
        .await;
    world.sidekey.kill();
    shortly("its death is told of", async || {
        !world.delivered("page", "firing", "SidekeyDown").is_empty()
    })
    .await;
}

/// Prometheus evaluates every rule, and answers every query of the guide, on what a real Sidekey shows.
#[tokio::test(flavor = "multi_thread")]
async fn prometheus_evaluates_all_of_it() {
    let upstream = Upstream::start().await;
    let sidekey = Sidekey::start(&config(upstream.address, "")).await;
    let key = sidekey.create_key(serde_json::json!({})).await;
    assert_eq!(sidekey.status("/", &key.text).await, 200);
    let world = World::start(sidekey).await;
    shortly("all rules are evaluated", async || {
        let rules = world.rules().await;
        !rules.is_empty() && rules.iter().all(|rule| rule["health"] != "unknown")
    })
    .await;
    for rule in world.rules().await {
        assert_eq!(rule["health"], "ok", "{rule}");
    }
    for query in guide::queries(&text(GUIDE)) {
        let answer = world.ask("query", &[("query", &query)]).await;
        assert_eq!(answer["status"], "success", "{query}: {answer}");
    }
}
