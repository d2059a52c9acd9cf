//! The memory that containers are given is enough for what Sidekey may hold by its defaults.

use super::{document, text};

/// A proof with the record of its key, as the guides have it.
const PROOF_BYTES: u64 = 1_500;
/// As config/sidekey.toml has it.
const USAGE_ROW_BYTES: u64 = 250;

/// A setting that the commented sample shows.
fn default(name: &str) -> u64 {
    let sample = text("config/sidekey.toml");
    let start = format!("# {name} = ");
    let value = sample.lines().find_map(|line| line.strip_prefix(&start));
    let value = value.and_then(|rest| rest.split_whitespace().next());
    value.and_then(|number| number.parse().ok()).expect(name)
}

fn bytes(limit: &str) -> u64 {
    let digits = limit.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match &limit[digits.len()..] {
        "M" | "Mi" => 1 << 20,
        "G" | "Gi" => 1 << 30,
        other => panic!("{limit}: what is {other}?"),
    };
    digits.parse::<u64>().expect("a number") * unit
}

#[test]
fn sidekey_is_given_what_its_defaults_may_take() {
    let held = default("max_proofs") * PROOF_BYTES + default("max_pending_rows") * USAGE_ROW_BYTES;
    // Connections, requests and the program itself.
    let needed = held + held / 2;
    let compose = document("deploy/compose.yaml");
    let deployment = document("deploy/kubernetes/deployment.yaml");
    for limit in [
        compose.pointer("/services/sidekey/deploy/resources/limits/memory"),
        deployment.pointer("/spec/template/spec/containers/0/resources/limits/memory"),
    ] {
        let limit = limit.and_then(|limit| limit.as_str()).expect("a limit");
        assert!(
            bytes(limit) >= needed,
            "{limit} is less than {needed} bytes"
        );
    }
}

#[test]
fn a_proof_has_one_size_in_all_guides() {
    for name in [
        "config/sidekey.toml",
        "docs/troubleshooting.md",
        "grafana/dashboards/overview.json",
    ] {
        let lines = text(name);
        let mut lines = lines.lines();
        let told = lines.find(|line| line.contains("max_proofs") && line.contains(" kB"));
        let told = told.unwrap_or_else(|| panic!("{name} does not say"));
        assert!(told.contains(" 1.5 kB"), "{name}: {told}");
    }
}
