//! `deploy/kubernetes`: every manifest by Kubernetes' own schemas, and what has to fit together.

use serde_json::Value;

use super::{document, run_tool, stop_seconds, succeed, text, texts};
use crate::harness::sidekey::{Sidekey, config};
use crate::harness::upstream::nobody;

const FOLDER: &str = "deploy/kubernetes";
/// Of the Prometheus operator, for which Kubernetes has no schema.
const FOREIGN: &str = "monitoring/podmonitor.yaml";

/// The manifests that a kustomization names.
fn resources(folder: &str) -> Vec<String> {
    let kustomization = document(&format!("{folder}/kustomization.yaml"));
    texts(&kustomization["resources"])
}

fn manifests() -> Vec<String> {
    let mut manifests = resources(FOLDER);
    let monitoring = resources(&format!("{FOLDER}/monitoring"));
    manifests.extend(monitoring.iter().map(|name| format!("monitoring/{name}")));
    manifests
}

fn manifest(name: &str) -> Value {
    document(&format!("{FOLDER}/{name}"))
}

/// One container of the deployment.
fn container(name: &str) -> Value {
    let deployment = manifest("deployment.yaml");
    let containers = deployment["spec"]["template"]["spec"]["containers"].as_array();
    let found = containers
        .into_iter()
        .flatten()
        .find(|container| container["name"] == name);
    found.expect("the container").clone()
}

fn validate(file: &str) -> Option<i32> {
    run_tool("kubernetes-validate", &["--strict", "--no-warn", file]).code
}

#[test]
fn every_manifest_is_what_kubernetes_takes() {
    let manifests = manifests();
    assert!(manifests.len() >= 7, "{manifests:?}");
    let ours: Vec<String> = manifests
        .iter()
        .filter(|name| *name != FOREIGN)
        .map(|name| format!("{FOLDER}/{name}"))
        .collect();
    let mut arguments = vec!["--strict"];
    arguments.extend(ours.iter().map(String::as_str));
    let ended = succeed(run_tool("kubernetes-validate", &arguments));
    let passed = format!("{}{}", ended.stdout, ended.stderr)
        .matches(" passed ")
        .count();
    assert_eq!(passed, ours.len(), "{ended:?}");

    let directory = tempfile::tempdir().unwrap();
    let bad = directory.path().join("deployment.yaml");
    let text = text(&format!("{FOLDER}/deployment.yaml"));
    std::fs::write(&bad, text.replace("readinessProbe:", "readynessProbe:")).unwrap();
    assert_ne!(validate(&bad.display().to_string()), Some(0), "strict");
}

/// No file of the folder is forgotten, and the monitor, which no schema is there for, names what exists.
#[test]
fn the_kustomization_names_every_file() {
    let mut there: Vec<String> = Vec::new();
    for folder in ["", "monitoring/"] {
        for entry in std::fs::read_dir(super::path(&format!("{FOLDER}/{folder}"))).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            if name.ends_with(".yaml") && name != "kustomization.yaml" {
                there.push(format!("{folder}{name}"));
            }
        }
    }
    let mut named = manifests();
    there.sort();
    named.sort();
    assert_eq!(there, named);
    let monitor = manifest(FOREIGN);
    assert_eq!(monitor["kind"], "PodMonitor");
    let endpoint = &monitor["spec"]["podMetricsEndpoints"][0];
    assert_eq!(
        (&endpoint["port"], &endpoint["path"]),
        (&"admin".into(), &"/metrics".into())
    );
    assert_eq!(endpoint["relabelings"][0]["replacement"], "sidekey");
    let labels = &manifest("deployment.yaml")["spec"]["template"]["metadata"]["labels"];
    assert_eq!(&monitor["spec"]["selector"]["matchLabels"], labels);
}

#[test]
fn parts_that_name_each_other_agree() {
    let deployment = manifest("deployment.yaml");
    let pod = &deployment["spec"]["template"];
    let labels = &pod["metadata"]["labels"];
    for (name, selector) in [
        ("deployment.yaml", "/spec/selector/matchLabels"),
        ("service.yaml", "/spec/selector"),
        ("networkpolicy.yaml", "/spec/podSelector/matchLabels"),
        (
            "monitoring/networkpolicy.yaml",
            "/spec/podSelector/matchLabels",
        ),
        ("poddisruptionbudget.yaml", "/spec/selector/matchLabels"),
    ] {
        assert_eq!(manifest(name).pointer(selector), Some(labels), "{name}");
    }
    let kustomization = manifest("kustomization.yaml");
    let generated = &kustomization["configMapGenerator"][0]["name"];
    let volumes = pod["spec"]["volumes"].as_array().unwrap();
    let mounted = volumes
        .iter()
        .find(|volume| volume["name"] == "config")
        .unwrap();
    assert_eq!(&mounted["configMap"]["name"], generated);
    assert_eq!(
        kustomization["images"][0]["name"],
        container("sidekey")["image"]
    );
    let account = &manifest("serviceaccount.yaml")["metadata"]["name"];
    assert_eq!(&pod["spec"]["serviceAccountName"], account);

    // Files that the configuration names are mounted.
    let config: toml::Table = text(&format!("{FOLDER}/sidekey.toml")).parse().unwrap();
    let mounts = container("sidekey")["volumeMounts"]
        .as_array()
        .unwrap()
        .clone();
    for file in [
        &config["store"]["url_file"],
        &config["redis"]["url_file"],
        &config["secrets"]["vault"]["jwt_file"],
    ] {
        let (folder, _) = file.as_str().unwrap().rsplit_once('/').unwrap();
        assert!(
            mounts.iter().any(|mount| mount["mountPath"] == folder),
            "{folder}"
        );
    }
    let instances = config["limits"]["instances"].as_integer();
    assert_eq!(instances, deployment["spec"]["replicas"].as_i64());
}

#[test]
fn only_the_proxy_is_reachable() {
    let ports = |name: &str| {
        let policy = manifest(name);
        assert_eq!(texts(&policy["spec"]["policyTypes"]), ["Ingress"]);
        let rules = policy["spec"]["ingress"].as_array().unwrap().clone();
        assert_eq!(rules.len(), 1, "{name}");
        rules[0].clone()
    };
    let everyone = ports("networkpolicy.yaml");
    assert_eq!(everyone["ports"].as_array().map(Vec::len), Some(1));
    assert_eq!(everyone["ports"][0]["port"], "proxy");
    let some = ports("monitoring/networkpolicy.yaml");
    assert_eq!(some["ports"][0]["port"], "admin");
    assert_eq!(some["from"].as_array().map(Vec::len), Some(1));
    let who = &some["from"][0];
    assert!(who["namespaceSelector"].is_object() && who["podSelector"].is_object());
    assert_eq!(
        manifest("service.yaml")["spec"]["ports"][0]["targetPort"],
        "proxy"
    );
    // The service behind listens on the pod's loopback address.
    let arguments = texts(&container("orders")["args"]);
    let config: toml::Table = text(&format!("{FOLDER}/sidekey.toml")).parse().unwrap();
    let server = config["upstreams"][0]["servers"][0].as_str().unwrap();
    assert!(
        arguments.contains(&format!("-listen={server}")),
        "{arguments:?}"
    );
    assert!(server.starts_with("127.0.0.1:"));
}

#[test]
fn containers_are_limited_and_unprivileged() {
    let pod = &manifest("deployment.yaml")["spec"]["template"]["spec"];
    assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
    assert_eq!(pod["automountServiceAccountToken"], false);
    for name in ["sidekey", "orders"] {
        let container = container(name);
        let context = &container["securityContext"];
        assert_eq!(context["readOnlyRootFilesystem"], true, "{name}");
        assert_eq!(context["allowPrivilegeEscalation"], false, "{name}");
        assert_eq!(texts(&context["capabilities"]["drop"]), ["ALL"], "{name}");
        for limit in ["cpu", "memory"] {
            assert!(
                !container["resources"]["limits"][limit].is_null(),
                "{name}: {limit}"
            );
            assert!(
                !container["resources"]["requests"][limit].is_null(),
                "{name}: {limit}"
            );
        }
    }
}

/// The service outlives Sidekey's requests, and Kubernetes waits for both.
#[test]
fn a_stop_has_the_time_that_it_takes() {
    let takes = stop_seconds(&text(&format!("{FOLDER}/sidekey.toml")));
    let pod = &manifest("deployment.yaml")["spec"]["template"]["spec"];
    let grace = pod["terminationGracePeriodSeconds"].as_i64().unwrap();
    let service = container("orders")["lifecycle"]["preStop"]["sleep"]["seconds"]
        .as_i64()
        .unwrap();
    assert!(
        takes < service && service < grace,
        "{takes} < {service} < {grace}"
    );
    // Kubernetes asks at least twice while Sidekey says that it is leaving.
    let probe = &container("sidekey")["readinessProbe"];
    let config: toml::Table = text(&format!("{FOLDER}/sidekey.toml")).parse().unwrap();
    let notice = config["proxy"]["shutdown_notice_seconds"]
        .as_integer()
        .unwrap();
    let asks =
        probe["periodSeconds"].as_i64().unwrap() * probe["failureThreshold"].as_i64().unwrap();
    assert!(2 * asks < notice, "{asks} {notice}");
}

#[tokio::test(flavor = "multi_thread")]
async fn probes_ask_what_the_program_answers() {
    let sidekey = Sidekey::start(&config(nobody(), "")).await;
    let container = container("sidekey");
    for probe in ["startupProbe", "livenessProbe", "readinessProbe"] {
        let get = &container[probe]["httpGet"];
        assert_eq!(get["port"], "admin", "{probe}");
        let path = get["path"].as_str().unwrap();
        let answer = sidekey.ask_as(None, reqwest::Method::GET, path, None).await;
        assert_eq!(answer.status, 200, "{probe}: {path}");
    }
    let ports = container["ports"].as_array().unwrap();
    let config: toml::Table = text(&format!("{FOLDER}/sidekey.toml")).parse().unwrap();
    for (name, listen) in [
        ("proxy", &config["proxy"]["listen"][0]),
        ("admin", &config["admin"]["listen"]),
    ] {
        let port = ports.iter().find(|port| port["name"] == name).unwrap();
        let listen = listen.as_str().unwrap();
        assert!(
            listen.ends_with(&format!(":{}", port["containerPort"])),
            "{name}: {listen}"
        );
    }
}
