//! `deploy/prometheus.yml`, by Prometheus itself.

use std::path::Path;
use std::process::Command;

use super::{document, path, succeed, text};
use crate::harness::run::{Ended, run_command};

const FILE: &str = "deploy/prometheus.yml";

/// What promtool says of the file, with its rules where they are here.
fn check(directory: &Path, config: &str) -> Ended {
    let rules = format!("{}/", path("grafana/alerts").display());
    let file = directory.join("prometheus.yml");
    std::fs::write(&file, config.replace("/etc/prometheus/rules/", &rules)).unwrap();
    let mut promtool = Command::new("promtool");
    promtool.args(["check", "config"]).arg(&file);
    run_command(promtool)
}

#[test]
fn prometheus_takes_it_with_its_rules() {
    let directory = tempfile::tempdir().unwrap();
    let ended = succeed(check(directory.path(), &text(FILE)));
    assert!(ended.stdout.contains("rules found"), "{ended:?}");
    let bad = text(FILE).replace("scrape_interval:", "scrape_intervall:");
    assert_eq!(check(directory.path(), &bad).code, Some(1));
}

/// What alerts and dashboards ask for, at the port that compose gives to Sidekey's admin API.
#[test]
fn the_job_is_called_as_alerts_ask() {
    let config = document(FILE);
    let job = &config["scrape_configs"][0];
    assert_eq!(job["job_name"], "sidekey");
    let target = job["static_configs"][0]["targets"][0].as_str().unwrap();
    let sidekey: toml::Table = text("deploy/sidekey.toml").parse().unwrap();
    let listen = sidekey["admin"]["listen"].as_str().unwrap();
    assert_eq!(
        target.split_once(':').unwrap().1,
        listen.split_once(':').unwrap().1
    );
    let compose = document("deploy/compose.yaml");
    for host in [target, "alertmanager:9093"] {
        let name = host.split(':').next().unwrap();
        assert!(compose["services"].get(name).is_some(), "{name}");
    }
}

/// Whether messages arrive at all is known from Alertmanager itself.
#[test]
fn alertmanager_is_watched_where_alerts_are_sent() {
    let config = document(FILE);
    let sent_to = &config["alerting"]["alertmanagers"][0]["static_configs"][0]["targets"];
    let jobs = config["scrape_configs"].as_array().unwrap();
    let job = jobs.iter().find(|job| job["job_name"] == "alertmanager");
    let asked = &job.expect("a job")["static_configs"][0]["targets"];
    assert_eq!(asked, sent_to);
}
