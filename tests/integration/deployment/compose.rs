//! `deploy/compose.yaml`: its shape, and what holds for every container.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::{document, path, run_tool, stop_seconds, succeed, text, texts};
use crate::harness::run::run;

const FILE: &str = "deploy/compose.yaml";
/// Runs to its end, and so has no health.
const ONE_SHOT: &str = "openbao-init";
/// The only port that clients from elsewhere reach.
const FOR_CLIENTS: &str = "8080:8080";

fn services() -> Map<String, Value> {
    let compose = document(FILE);
    compose["services"].as_object().expect("services").clone()
}

#[test]
fn it_is_what_the_compose_specification_allows() {
    let check = |file: &str| {
        run_tool(
            "check-jsonschema",
            &["--builtin-schema", "vendor.compose-spec", file],
        )
    };
    succeed(check(FILE));
    let directory = tempfile::tempdir().unwrap();
    let bad = directory.path().join("compose.yaml");
    std::fs::write(
        &bad,
        text(FILE).replace("    image: redis:", "    imgae: redis:"),
    )
    .unwrap();
    assert_eq!(check(&bad.display().to_string()).code, Some(1));
}

#[test]
fn every_container_is_pinned_and_held_to_little() {
    let services = services();
    let wanted = [
        "alertmanager",
        "grafana",
        "openbao",
        "openbao-init",
        "postgres",
        "prometheus",
        "redis",
        "sidekey",
        "upstream",
    ];
    let names: BTreeSet<&str> = services.keys().map(String::as_str).collect();
    assert_eq!(names, BTreeSet::from(wanted));
    for (name, service) in &services {
        let image = service["image"].as_str().expect("an image");
        let tag = image.rsplit_once(':').expect("a tag").1;
        let is_version = tag.trim_start_matches('v').split('.').count() >= 2;
        assert!(is_version, "{name}: {image} may be anything tomorrow");
        assert_eq!(service["read_only"], true, "{name}");
        assert_eq!(texts(&service["cap_drop"]), ["ALL"], "{name}");
        assert_eq!(
            texts(&service["security_opt"]),
            ["no-new-privileges:true"],
            "{name}"
        );
        assert!(
            service["cap_add"].is_null() && service["privileged"].is_null(),
            "{name}"
        );
        let limits = &service["deploy"]["resources"]["limits"];
        for limit in ["cpus", "memory", "pids"] {
            assert!(!limits[limit].is_null(), "{name} has no limit of {limit}");
        }
        assert_eq!(service["healthcheck"].is_null(), name == ONE_SHOT, "{name}");
        assert!(
            !service["networks"].is_null(),
            "{name}: not the default network"
        );
        for port in texts(&service["ports"]) {
            let is_local = port.starts_with("127.0.0.1:");
            assert!(
                is_local || (name == "sidekey" && port == FOR_CLIENTS),
                "{name}: {port}"
            );
        }
    }
}

/// Stores can be reached by Sidekey alone, and nobody from outside.
#[test]
fn networks_keep_apart_what_need_not_meet() {
    let compose = document(FILE);
    let members = |network: &str| -> BTreeSet<String> {
        let services = services();
        let inside = services.iter().filter(|(_, service)| {
            texts(&service["networks"])
                .iter()
                .any(|name| name == network)
        });
        inside.map(|(name, _)| name.clone()).collect()
    };
    let is_internal = |network: &str| compose["networks"][network]["internal"] == true;
    assert!(is_internal("stores") && is_internal("service") && is_internal("watch"));
    let set = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    let stores: BTreeSet<String> =
        set(&["openbao", "openbao-init", "postgres", "redis", "sidekey"]);
    assert_eq!(members("stores"), stores);
    assert_eq!(members("service"), set(&["sidekey", "upstream"]));
    assert_eq!(members("clients"), set(&["sidekey"]));
}

/// Of everything that is mounted there is the file, and no password stands in the open.
#[test]
fn every_file_is_there_and_no_secret_is() {
    let compose = document(FILE);
    let deploy = path("deploy");
    for (name, config) in compose["configs"].as_object().unwrap() {
        let file = deploy.join(config["file"].as_str().unwrap());
        assert!(file.is_file(), "{name}: {} is not there", file.display());
    }
    for (name, service) in services() {
        for mount in texts(&service["volumes"]) {
            let (source, _) = mount.split_once(':').unwrap();
            let is_there = if source.starts_with('.') {
                assert!(mount.ends_with(":ro"), "{name}: {mount}");
                deploy.join(source).exists()
            } else {
                compose["volumes"].get(source).is_some()
            };
            assert!(is_there, "{name}: {source} is not there");
        }
        for config in service["configs"].as_array().into_iter().flatten() {
            let source = config["source"].as_str().unwrap();
            assert!(compose["configs"].get(source).is_some(), "{name}: {source}");
        }
        for secret in texts(&service["secrets"]) {
            assert!(
                compose["secrets"].get(&secret).is_some(),
                "{name}: {secret}"
            );
        }
        for (variable, value) in service["environment"].as_object().into_iter().flatten() {
            let is_secret = ["PASSWORD", "TOKEN", "SECRET"]
                .iter()
                .any(|word| variable.contains(word));
            assert!(
                !is_secret || variable.ends_with("_FILE"),
                "{name}: {variable}={value}"
            );
        }
    }
    let rules = text(".gitignore");
    assert!(
        rules.lines().any(|rule| rule == "/deploy/secrets"),
        "secrets stay out of git"
    );
}

/// The dashboards are where Grafana is told to look for them.
#[test]
fn grafana_finds_its_dashboards() {
    let provider = document("grafana/provisioning/dashboards/sidekey.yaml");
    let folder = provider["providers"][0]["options"]["path"]
        .as_str()
        .unwrap();
    let mounts = texts(&services()["grafana"]["volumes"]);
    let wanted = format!("../grafana/dashboards:{folder}:ro");
    assert!(mounts.contains(&wanted), "{wanted} is not in {mounts:?}");
}

/// Sidekey's configurations for containers are sound, but for what only exists there.
#[test]
fn the_configurations_are_sound() {
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let file = directory.path().join(name);
        std::fs::write(&file, text).unwrap();
        file.display().to_string()
    };
    let files = [
        (
            "SIDEKEY__STORE__URL_FILE",
            file("database", "postgres://sidekey:x@postgres/sidekey"),
        ),
        (
            "SIDEKEY__REDIS__URL_FILE",
            file("redis", "redis://sidekey:x@redis:6379"),
        ),
        (
            "SIDEKEY__SECRETS__VAULT__SECRET_ID_FILE",
            file("secret-id", "x"),
        ),
    ];
    let files: Vec<(&str, &str)> = files
        .iter()
        .map(|(name, file)| (*name, file.as_str()))
        .collect();
    for name in ["deploy/sidekey.toml", "deploy/kubernetes/sidekey.toml"] {
        // Of an authority's file there has to be a certificate in it.
        let config = text(name).replace("ca_file = ", "# ca_file = ");
        let config = file("sidekey.toml", &config);
        let ended = run(directory.path(), &["check", "--config", &config], &files);
        assert_eq!(ended.code, Some(0), "{name}: {ended:?}");
    }
}

#[test]
fn containers_are_given_the_time_that_a_stop_takes() {
    let services = services();
    let given = services["sidekey"]["stop_grace_period"]
        .as_str()
        .expect("a time");
    let given: i64 = given.trim_end_matches('s').parse().expect("seconds");
    assert!(
        given > stop_seconds(&text("deploy/sidekey.toml")),
        "{given}"
    );
}
