//! The contract's row "verification can't answer": a full bcrypt queue ends in 503 at once, not in
//! latency, and warm keys don't notice.

use serde_json::json;

use crate::cases::bearer;
use crate::contract::{counts, log_line};
use crate::harness::raw::{Answer, Raw, get};
use crate::harness::sidekey::{Key, Sidekey, config};
use crate::harness::upstream::Upstream;

const COLD_KEYS: usize = 12;

async fn start(upstream: &Upstream, mode: &str) -> Sidekey {
    let more = format!(
        "[bcrypt]\nmax_queue = 1\nthreads = 1\n[log]\naccess = \"all\"\n[proxy]\nmode = \"{mode}\"\n"
    );
    Sidekey::start_with(
        &config(upstream.address, &more),
        &[("SIDEKEY__BCRYPT__COST", "10")],
    )
    .await
}

/// All keys at once, each for the first time. The program stands still while they are sent: on a busy machine
/// it could be done with one before the next comes.
async fn call_at_once(sidekey: &Sidekey, keys: &[Key]) -> Vec<Answer> {
    let mut connections = Vec::new();
    for _ in keys {
        connections.push(Raw::connect(sidekey.proxy).await);
    }
    sidekey.signal("STOP");
    for (raw, key) in connections.iter_mut().zip(keys) {
        raw.send(get("/", &[&bearer(key)])).await;
    }
    sidekey.signal("CONT");
    let mut answers = Vec::new();
    for raw in &mut connections {
        answers.push(raw.read_answer().await);
    }
    answers
}

async fn keys(sidekey: &Sidekey) -> Vec<Key> {
    let mut keys = Vec::new();
    for _ in 0..COLD_KEYS {
        keys.push(sidekey.create_key(json!({})).await);
    }
    keys
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_answers_503_and_says_when_to_come_back() {
    let upstream = Upstream::start().await;
    let sidekey = start(&upstream, "enforce").await;
    let warm = sidekey.create_key(json!({})).await;
    assert_eq!(sidekey.status("/", &warm.text).await, 200);
    let keys = keys(&sidekey).await;
    let answers = call_at_once(&sidekey, &keys).await;
    let refused: Vec<&Answer> = answers
        .iter()
        .filter(|answer| answer.status == 503)
        .collect();
    let passed = answers.iter().filter(|answer| answer.status == 200).count();
    assert_eq!(passed + refused.len(), COLD_KEYS);
    assert!(passed >= 1 && !refused.is_empty(), "{passed} passed");
    for answer in &refused {
        assert_eq!(answer.header("retry-after"), Some("1"));
        assert_eq!(answer.header("cache-control"), Some("no-store"));
        assert_eq!(answer.header("connection"), Some("keep-alive"));
        assert_eq!(
            answer.header("www-authenticate"),
            None,
            "the key may well be right"
        );
        let problem = answer.json();
        let kind = problem["type"].as_str().unwrap();
        assert!(kind.ends_with("#temporary-reduced-capacity"), "{kind}");
    }
    let refused = refused.len() as f64;
    counts(
        &sidekey,
        "sidekey_requests_total",
        "all",
        "unavailable",
        refused,
    )
    .await;
    assert_eq!(
        sidekey.metric("sidekey_bcrypt_refused_total").await,
        refused
    );
    // Not remembered as wrong: all of them work when they come back, one after the other.
    for key in &keys {
        assert_eq!(sidekey.status("/", &key.text).await, 200);
    }
    assert_eq!(sidekey.status("/", &warm.text).await, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn in_shadow_a_full_queue_lets_everybody_pass() {
    let upstream = Upstream::start().await;
    let sidekey = start(&upstream, "shadow").await;
    let keys = keys(&sidekey).await;
    let answers = call_at_once(&sidekey, &keys).await;
    let mut unavailable = 0;
    for answer in &answers {
        assert_eq!(answer.status, 200);
        let line = log_line(&sidekey, answer.header("x-request-id").unwrap()).await;
        unavailable += u32::from(line["shadow"] == "unavailable");
    }
    assert!(unavailable > 0);
    assert_eq!(upstream.count(), COLD_KEYS);
    let unavailable = f64::from(unavailable);
    counts(
        &sidekey,
        "sidekey_shadow_refusals_total",
        "all",
        "unavailable",
        unavailable,
    )
    .await;
}
