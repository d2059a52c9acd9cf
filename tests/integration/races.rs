//! Verification under parallel load: one flight for a cold key, and edits that hold for every
//! request that starts after they were acknowledged.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::harness::sidekey::{Key, Sidekey, config};
use crate::harness::upstream::Upstream;

const CALLERS: usize = 8;
const ROUNDS: usize = 12;

/// Refused keys are part of the plan here.
const MANY_FAILURES: &str =
    "[limits]\nfailed_auth = { name = \"f\", quota = 1000000, window_seconds = 1 }";

#[tokio::test(flavor = "multi_thread")]
async fn many_first_uses_of_a_key_share_one_check() {
    let upstream = Upstream::start().await;
    let sidekey = Sidekey::start(&config(upstream.address, MANY_FAILURES)).await;
    for round in 0..5 {
        let key = sidekey.create_key(json!({"rate_limits": []})).await;
        let before = sidekey.metric("sidekey_bcrypt_runs_total").await;
        let calls = (0..100).map(|_| sidekey.status("/", &key.text));
        let statuses = join_all(calls).await;
        assert!(statuses.iter().all(|status| *status == 200), "{statuses:?}");
        let runs = sidekey.metric("sidekey_bcrypt_runs_total").await - before;
        assert_eq!(runs, 1.0, "round {round}");
    }
    assert_eq!(upstream.count(), 500);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_works_right_after_its_creation_under_load() {
    let upstream = Upstream::start().await;
    let sidekey = Sidekey::start(&config(upstream.address, MANY_FAILURES)).await;
    let tasks = (0..CALLERS).map(|_| async {
        for _ in 0..5 {
            let key = sidekey.create_key(json!({})).await;
            assert_eq!(sidekey.status("/", &key.text).await, 200, "{}", key.id);
        }
    });
    join_all(tasks).await;
}

/// What is done to a key, and how its callers are answered from then on.
#[derive(Debug, Clone, Copy)]
enum Ending {
    Revoked,
    Disabled,
    Expired,
    Replaced,
}

async fn end(sidekey: &Sidekey, key: &Key, ending: Ending) {
    match ending {
        Ending::Revoked => sidekey.revoke_key(&key.id).await,
        Ending::Disabled => drop(
            sidekey
                .change_key(&key.id, json!({"status": "disabled"}))
                .await,
        ),
        Ending::Expired => {
            let past: Value = json!({"expires_at": "2020-01-01T00:00:00Z"});
            sidekey.change_key(&key.id, past).await;
        }
        Ending::Replaced => drop(sidekey.regenerate_key(&key.id, 0).await),
    }
}

/// Calls in a loop until one call that started after the end was refused. Returns how many calls
/// that started after the acknowledged end have passed.
async fn keep_calling(
    sidekey: &Sidekey,
    key: &Key,
    over: &AtomicBool,
    passed: &AtomicUsize,
) -> usize {
    let mut late = 0;
    for _ in 0..100_000 {
        let started_after = over.load(Ordering::SeqCst);
        let status = sidekey.status("/", &key.text).await;
        match status {
            200 => {
                passed.fetch_add(1, Ordering::SeqCst);
                late += usize::from(started_after);
            }
            // A check under way while the hash goes can't tell; it is not remembered.
            401 | 503 => {}
            other => panic!("answered {other}"),
        }
        if started_after {
            return late;
        }
    }
    panic!("the key never ended");
}

async fn race(sidekey: &Sidekey, ending: Ending, is_warm: bool) {
    let key = sidekey.create_key(json!({"rate_limits": []})).await;
    let (over, passed) = (AtomicBool::new(false), AtomicUsize::new(0));
    let callers = join_all((0..CALLERS).map(|_| keep_calling(sidekey, &key, &over, &passed)));
    let ender = async {
        if is_warm {
            crate::harness::eventually("calls pass", || async {
                passed.load(Ordering::SeqCst) >= 2 * CALLERS
            })
            .await;
        }
        end(sidekey, &key, ending).await;
        over.store(true, Ordering::SeqCst);
    };
    let (late, ()) = futures_util::future::join(callers, ender).await;
    assert_eq!(late, [0; CALLERS], "{ending:?}, warm: {is_warm}");
    assert_eq!(
        sidekey.status("/", &key.text).await,
        401,
        "{ending:?}, warm: {is_warm}"
    );
}

/// No request that starts after the acknowledgement passes: warm, and also while the very first
/// checks of the key are under way.
#[tokio::test(flavor = "multi_thread")]
async fn no_call_that_starts_after_the_end_of_a_key_passes() {
    let upstream = Upstream::start().await;
    let sidekey = Sidekey::start(&config(upstream.address, MANY_FAILURES)).await;
    for ending in [
        Ending::Revoked,
        Ending::Disabled,
        Ending::Expired,
        Ending::Replaced,
    ] {
        for round in 0..ROUNDS {
            race(&sidekey, ending, round % 2 == 0).await;
        }
    }
}

/// Edits of one key at the same time: all are acknowledged or told of the conflict, and what was
/// acknowledged last is what holds.
#[tokio::test(flavor = "multi_thread")]
async fn a_revocation_wins_over_edits_at_the_same_time() {
    let upstream = Upstream::start().await;
    let sidekey = Sidekey::start(&config(upstream.address, MANY_FAILURES)).await;
    for _ in 0..ROUNDS {
        let key = sidekey.create_key(json!({})).await;
        assert_eq!(sidekey.status("/", &key.text).await, 200);
        let path = format!("{}/{}", crate::harness::sidekey::KEYS, key.id);
        let edit = || async {
            let change = json!({"status": "active", "name": "edited"});
            let call = sidekey.admin(reqwest::Method::PATCH, &path).json(&change);
            call.send().await.unwrap().status().as_u16()
        };
        let edits = join_all((0..4).map(|_| edit()));
        let (statuses, ()) = futures_util::future::join(edits, sidekey.revoke_key(&key.id)).await;
        assert!(
            statuses.iter().all(|status| matches!(status, 200 | 409)),
            "{statuses:?}"
        );
        assert_eq!(sidekey.status("/", &key.text).await, 401);
    }
}
