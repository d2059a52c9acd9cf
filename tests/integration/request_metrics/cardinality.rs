//! Series cost memory here and in Prometheus, for ever: whatever clients send, there is a number that
//! they never exceed, and nothing that a client or a customer has made up stands in a label.

use std::collections::BTreeSet;

use futures_util::{StreamExt, stream};
use reqwest::Method;
use serde_json::{Value, json};
use sidekey::telemetry::metrics::DECLARATIONS;

use super::{NO_LIMITS, OFTEN, expect};
use crate::harness::raw::Raw;
use crate::harness::sidekey::{KEYS, Sidekey, config};
use crate::harness::upstream::Upstream;
use crate::harness::{HEAVY, eventually};

/// Tenants, each with one key.
const TENANTS: usize = 1_000;
/// Of each kind of odd request.
const ODD: usize = 1_500;
/// Tenants that are shown.
const SHOWN: usize = 7;
/// Requests at the same time.
const AT_ONCE: usize = 16;
/// Those that the library tells of the process.
const PROCESS: usize = 10;

/// How many values a label can have in this test's configuration.
fn values(metric: &str, label: &str) -> usize {
    match (metric, label) {
        // Two routes, and none.
        (_, "route") => 3,
        ("sidekey_tenant_requests_total", "outcome") => 5,
        (_, "tenant") => SHOWN + 1,
        (_, "outcome") => 21,
        (_, "reason") => 12,
        (_, "code") => 7,
        (_, "source" | "dependency" | "verdict" | "result" | "status") => 5,
        (_, "operation" | "certificate") => 8,
        (_, "version" | "revision" | "rust") => 1,
        _ => panic!("how many values can the label {label} of {metric} have?"),
    }
}

fn ceiling() -> usize {
    let of_each = DECLARATIONS.iter().map(|declaration| {
        let labels = declaration.labels.iter();
        let combinations: usize = labels
            .map(|label| values(declaration.name, label))
            .product();
        // A histogram has its buckets, one without a bound, a sum and a count.
        let lines = match declaration.buckets.len() {
            0 => 1,
            buckets => buckets + 3,
        };
        combinations * lines
    });
    of_each.sum::<usize>() + PROCESS
}

/// The series of /metrics, without their values.
fn series(text: &str) -> BTreeSet<String> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| line.rsplit_once(' ').expect("a value").0.to_owned())
        .collect()
}

fn plain_key(number: usize) -> String {
    let digest = blake3::hash(&number.to_be_bytes()).to_hex();
    format!("legacy.{}", &digest.as_str()[..40])
}

fn tenant(number: usize) -> String {
    format!("customer-{number}")
}

/// Brings a key of each tenant along.
async fn import_all(sidekey: &Sidekey) {
    for first in (0..TENANTS).step_by(100) {
        let line = |number: usize| {
            let line = json!({
                "key": plain_key(number), "name": "an old key", "tenant_id": tenant(number),
                "environment": "live", "scopes": ["orders:*"],
            });
            format!("{line}\n")
        };
        let list: String = (first..first + 100).map(line).collect();
        let request = sidekey.admin(Method::POST, &format!("{KEYS}/import"));
        let request = request.header("content-type", "application/jsonl");
        let answer = request.body(list).send().await.expect("an answer");
        let body: Value = answer.json().await.expect("JSON");
        assert_eq!(body["created"], 100, "{body}");
    }
}

/// Sends requests of many kinds, each with something that no other has.
async fn send_odd(sidekey: &Sidekey) {
    let requests = (0..ODD).map(|n| async move {
        let get = |path: &str| sidekey.request(Method::GET, path);
        let method = format!("METHOD{n}");
        let method = Method::from_bytes(method.as_bytes()).expect("a method");
        let address = format!("198.51.{}.{}", n / 250, n % 250);
        let forged = format!("sk_live_{n:012}_{}", "a".repeat(54));
        let all = [
            get(&format!("/path-{n}/{n}?query-{n}={n}")),
            get("/").header("host", format!("host-{n}.example")),
            sidekey.request(method, "/").bearer_auth("wrong"),
            get(&format!("/..%2f{n}")),
            get("/")
                .header("x-forwarded-for", address)
                .bearer_auth(forged),
        ];
        for request in all {
            assert!(
                request
                    .send()
                    .await
                    .expect("an answer")
                    .status()
                    .is_client_error()
            );
        }
    });
    stream::iter(requests)
        .buffer_unordered(AT_ONCE)
        .collect::<()>()
        .await;
}

/// Each tenant calls, with a status that the service has made up.
async fn call_as_all(sidekey: &Sidekey) {
    let calls = (0..TENANTS).map(|number| async move {
        let status = 200 + number % 400;
        let request = sidekey.request(Method::GET, &format!("/open-{number}"));
        let request = request.bearer_auth(plain_key(number));
        let request = request.header("x-answer-status", status.to_string());
        let answer = request.send().await.expect("an answer");
        assert_eq!(usize::from(answer.status().as_u16()), status);
    });
    stream::iter(calls)
        .buffer_unordered(AT_ONCE)
        .collect::<()>()
        .await;
}

async fn call_admin(sidekey: &Sidekey) {
    for n in 0..200 {
        for path in [format!("{KEYS}/{n:012}"), format!("/path-{n}")] {
            let reply = sidekey
                .ask_as(Some("wrong"), Method::GET, &path, None)
                .await;
            assert!(matches!(reply.status, 401 | 404 | 429), "{reply:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn series_have_a_ceiling_and_labels_no_data() {
    let _turn = HEAVY.acquire().await.expect("a turn");
    let upstream = Upstream::start().await;
    let more = format!(
        "{OFTEN}{NO_LIMITS}\n[proxy]\ntrusted_proxies = [\"127.0.0.1\"]\n\
         [metrics]\nmax_tenants = {SHOWN}\n\
         [[routes]]\nname = \"hosted\"\nhost = \"known.example\"\npath = \"/hosted\"\nupstream = \"service\"\n"
    );
    let sidekey = Sidekey::start(&config(upstream.address, &more)).await;
    let before = series(&sidekey.metrics().await);
    assert!(
        before.len() <= ceiling(),
        "{} of {}",
        before.len(),
        ceiling()
    );
    import_all(&sidekey).await;
    send_odd(&sidekey).await;
    call_as_all(&sidekey).await;
    call_admin(&sidekey).await;
    let mut raw = Raw::connect(sidekey.proxy).await;
    raw.send("made-up\r\n\r\n").await;
    raw.read_answer().await;
    expect(&sidekey, "sidekey_tenants_shown", SHOWN as f64).await;
    eventually("all tenants are counted", || async {
        let text = sidekey.metrics().await;
        let lines = text.lines();
        let of_tenants =
            lines.filter_map(|line| line.strip_prefix("sidekey_tenant_requests_total"));
        let sum: f64 = of_tenants
            .map(|line| {
                line.rsplit_once(' ')
                    .expect("a value")
                    .1
                    .parse::<f64>()
                    .expect("a number")
            })
            .sum();
        sum == TENANTS as f64
    })
    .await;

    let text = sidekey.metrics().await;
    let after = series(&text);
    assert!(after.len() <= ceiling(), "{} of {}", after.len(), ceiling());
    let new: Vec<&String> = after.difference(&before).collect();
    let is_of_tenant = |series: &&&String| series.starts_with("sidekey_tenant_requests_total{");
    let of_tenants = new.iter().filter(is_of_tenant).count();
    assert_eq!(of_tenants, SHOWN * 5);
    // A request finds its series there; nothing but tenants, and what is told of each dependency, comes later.
    assert!(new.len() - of_tenants < 20, "{new:?}");
    let rest: Vec<&String> = after
        .iter()
        .filter(|series| !is_of_tenant(&series))
        .collect();
    for made_up in [
        "path-",
        "host-",
        "METHOD",
        "198.51",
        "127.0",
        "customer-",
        "legacy",
        "sk_live",
        "/",
    ] {
        let found = rest.iter().find(|series| series.contains(made_up));
        assert_eq!(found, None, "{made_up}");
    }
    for id in key_ids(&sidekey).await {
        assert!(!text.contains(&id), "{id}");
    }
}

/// Some of the keys that there are.
async fn key_ids(sidekey: &Sidekey) -> Vec<String> {
    let reply = sidekey
        .ask(Method::GET, &format!("{KEYS}?limit=100"), None)
        .await;
    let body = reply.json();
    let keys = body["data"].as_array().expect("keys").iter();
    let ids: Vec<String> = keys
        .map(|key| key["id"].as_str().expect("an id").to_owned())
        .collect();
    assert_eq!(ids.len(), 100);
    ids
}
