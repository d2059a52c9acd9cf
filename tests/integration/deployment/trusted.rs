//! Whose word is taken for a client's address in what is shipped: a few machines', never a network's.

use ipnet::IpNet;

use super::{document, text};

/// The widest range in a sample: what somebody forgets to change must not let a whole network in.
const HOST_BITS_MAX: u8 = 4;

#[test]
fn samples_believe_a_few_machines_only() {
    for name in ["config/production.toml", "deploy/kubernetes/sidekey.toml"] {
        let config: toml::Table = text(name).parse().unwrap();
        let trusted = config["proxy"]["trusted_proxies"].as_array().unwrap();
        for range in trusted {
            let range: IpNet = range.as_str().unwrap().parse().unwrap();
            let host_bits = range.max_prefix_len() - range.prefix_len();
            assert!(host_bits <= HOST_BITS_MAX, "{name}: {range}");
        }
        let above = above_setting(name);
        assert!(above.contains("# CHANGE"), "{name}: {above}");
    }
}

/// What its section says before `trusted_proxies`.
fn above_setting(name: &str) -> String {
    let text = text(name);
    let (above, _) = text.split_once("\ntrusted_proxies").expect("the setting");
    let section = above.rsplit_once("\n[proxy]").expect("its section");
    section.1.to_owned()
}

/// On Kubernetes nobody but the ingress controller gets to the port where it is believed.
#[test]
fn on_kubernetes_only_the_ingress_reaches_the_port() {
    let policy = document("deploy/kubernetes/networkpolicy.yaml");
    let from = policy["spec"]["ingress"][0]["from"].as_array().unwrap();
    assert_eq!(from.len(), 1, "{from:?}");
    let labels = &from[0]["namespaceSelector"]["matchLabels"];
    assert!(labels["kubernetes.io/metadata.name"].is_string());
}
