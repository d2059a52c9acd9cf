//! A proof is not an authority: with a warm cache, every edit of a key acts on the very next
//! request, and costs no bcrypt. What costs bcrypt, and what must not.

use futures_util::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};

use crate::cases::forged;
use crate::harness::eventually;
use crate::harness::sidekey::{Key, Sidekey, config};
use crate::harness::upstream::Upstream;

const SCOPED: &str = r#"
[[routes]]
name = "write"
path = "/write"
upstream = "service"
scopes = ["orders:write"]
"#;

async fn start() -> (Upstream, Sidekey) {
    let upstream = Upstream::start().await;
    let sidekey = Sidekey::start(&config(upstream.address, SCOPED)).await;
    (upstream, sidekey)
}

/// A key that was used once.
async fn warm(sidekey: &Sidekey, fields: Value) -> Key {
    let key = sidekey.create_key(fields).await;
    assert_eq!(sidekey.status("/", &key.text).await, 200);
    key
}

async fn bcrypt_runs(sidekey: &Sidekey) -> f64 {
    sidekey.metric("sidekey_bcrypt_runs_total").await
}

/// Status and the problem's type, without what all types start with.
async fn refusal(sidekey: &Sidekey, path: &str, key: &str) -> (u16, String) {
    let answer = sidekey.get(path, key).await;
    let status = answer.status().as_u16();
    let problem: Value = answer.json().await.expect("a problem");
    let kind = problem["type"].as_str().unwrap();
    (status, kind.rsplit(':').next().unwrap().to_owned())
}

/// An RFC 3339 time, `seconds` from now.
fn from_now(seconds: f64) -> String {
    let time = time::OffsetDateTime::now_utc() + time::Duration::seconds_f64(seconds);
    time.format(&time::format_description::well_known::Rfc3339)
        .unwrap()
}

/// Edits in a row on one warm key: each acts on the very next request, and none runs bcrypt.
#[tokio::test(flavor = "multi_thread")]
async fn every_edit_acts_on_the_next_request_and_costs_no_bcrypt() {
    let (upstream, sidekey) = start().await;
    let key = warm(&sidekey, json!({})).await;
    let before = bcrypt_runs(&sidekey).await;
    for (change, path, status, problem) in [
        (json!({"status": "disabled"}), "/", 401, "disabled-key"),
        (json!({"status": "active"}), "/", 200, ""),
        (
            json!({"expires_at": "2020-01-01T00:00:00Z"}),
            "/",
            401,
            "expired-key",
        ),
        (json!({"expires_at": from_now(3600.0)}), "/", 200, ""),
        (
            json!({"expires_at": from_now(-0.001)}),
            "/",
            401,
            "expired-key",
        ),
        (json!({"expires_at": null}), "/", 200, ""),
        (
            json!({"scopes": ["orders:read"]}),
            "/write",
            403,
            "insufficient-scope",
        ),
        (json!({"scopes": ["orders:write"]}), "/write", 200, ""),
        (json!({"scopes": []}), "/write", 403, "insufficient-scope"),
        (json!({"scopes": ["orders:*"]}), "/write", 200, ""),
        (
            json!({"allowed_ips": ["203.0.113.0/24"]}),
            "/",
            403,
            "address-not-allowed",
        ),
        (
            json!({"allowed_ips": ["203.0.113.0/24", "127.0.0.1"]}),
            "/",
            200,
            "",
        ),
        (
            json!({"allowed_ips": ["::1"]}),
            "/",
            403,
            "address-not-allowed",
        ),
        (json!({"allowed_ips": []}), "/", 200, ""),
        (json!({"name": "another name"}), "/", 200, ""),
    ] {
        sidekey.change_key(&key.id, change.clone()).await;
        if status == 200 {
            assert_eq!(sidekey.status(path, &key.text).await, 200, "{change}");
        } else {
            let refused = refusal(&sidekey, path, &key.text).await;
            assert_eq!(refused, (status, problem.to_owned()), "{change}");
        }
    }
    sidekey
        .change_key(&key.id, json!({"scopes": ["orders:read"]}))
        .await;
    assert_eq!(sidekey.status("/", &key.text).await, 200);
    assert_eq!(
        upstream.last().header("x-sidekey-scopes"),
        Some("orders:read")
    );
    sidekey.revoke_key(&key.id).await;
    let revoked = refusal(&sidekey, "/", &key.text).await;
    assert_eq!(revoked, (401, "invalid-key".to_owned()));
    assert_eq!(bcrypt_runs(&sidekey).await, before);
    let again = sidekey
        .admin(
            Method::PATCH,
            &format!("{}/{}", crate::harness::sidekey::KEYS, key.id),
        )
        .json(&json!({"status": "active"}));
    assert_eq!(
        again.send().await.unwrap().status(),
        409,
        "revoked for good"
    );
    assert_eq!(sidekey.status("/", &key.text).await, 401);
}

/// What is graver is told first: a disabled key that has expired is disabled, and a revoked one is
/// nothing at all.
#[tokio::test(flavor = "multi_thread")]
async fn the_gravest_state_counts() {
    let (_upstream, sidekey) = start().await;
    let key = warm(&sidekey, json!({})).await;
    let past = json!({"expires_at": "2020-01-01T00:00:00Z", "status": "disabled"});
    sidekey.change_key(&key.id, past).await;
    assert_eq!(refusal(&sidekey, "/", &key.text).await.1, "disabled-key");
    sidekey
        .change_key(&key.id, json!({"status": "active"}))
        .await;
    assert_eq!(refusal(&sidekey, "/", &key.text).await.1, "expired-key");
    sidekey.revoke_key(&key.id).await;
    assert_eq!(refusal(&sidekey, "/", &key.text).await.1, "invalid-key");
}

/// A key that expires soon and was used before that, however slow the machine is.
async fn short_lived(sidekey: &Sidekey) -> Key {
    for seconds in [1.5, 4.0, 10.0] {
        let end = json!({"expires_at": from_now(seconds)});
        let key = sidekey.create_key(end).await;
        if sidekey.status("/", &key.text).await == 200 {
            return key;
        }
    }
    panic!("a key was never valid");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_expires_by_itself() {
    let (_upstream, sidekey) = start().await;
    let created = short_lived(&sidekey).await;
    let changed = warm(&sidekey, json!({})).await;
    sidekey
        .change_key(&changed.id, json!({"expires_at": from_now(1.0)}))
        .await;
    for key in [created, changed] {
        eventually("the key expires", || async {
            sidekey.status("/", &key.text).await == 401
        })
        .await;
        assert_eq!(refusal(&sidekey, "/", &key.text).await.1, "expired-key");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn regenerating_ends_the_old_secret_at_once_or_after_its_grace() {
    let (_upstream, sidekey) = start().await;
    let old = warm(&sidekey, json!({})).await;
    let new = sidekey.regenerate_key(&old.id, 0).await;
    assert_eq!(
        refusal(&sidekey, "/", &old.text).await,
        (401, "invalid-key".to_owned())
    );
    assert_eq!(sidekey.status("/", &new.text).await, 200);

    let with_grace = sidekey.regenerate_key(&old.id, 3600).await;
    for text in [&new.text, &with_grace.text] {
        assert_eq!(sidekey.status("/", text).await, 200);
    }
    // Only the last secret is kept beside the current one.
    let third = sidekey.regenerate_key(&old.id, 3600).await;
    let expected = [(&old, 401), (&new, 401), (&with_grace, 200), (&third, 200)];
    for (key, status) in expected {
        assert_eq!(sidekey.status("/", &key.text).await, status);
    }
    sidekey
        .change_key(&old.id, json!({"status": "disabled"}))
        .await;
    for key in [&with_grace, &third] {
        assert_eq!(refusal(&sidekey, "/", &key.text).await.1, "disabled-key");
    }
    sidekey
        .change_key(&old.id, json!({"status": "active"}))
        .await;
    let last = sidekey.regenerate_key(&old.id, 1).await;
    assert_eq!(sidekey.status("/", &last.text).await, 200);
    eventually("the grace period ends", || async {
        sidekey.status("/", &third.text).await == 401
    })
    .await;
    assert_eq!(sidekey.status("/", &last.text).await, 200);
    sidekey.revoke_key(&old.id).await;
    assert_eq!(sidekey.status("/", &last.text).await, 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_in_its_grace_period_works_cold_too() {
    let (_upstream, sidekey) = start().await;
    let old = sidekey.create_key(json!({})).await;
    let new = sidekey.regenerate_key(&old.id, 3600).await;
    assert_eq!(sidekey.status("/", &old.text).await, 200);
    assert_eq!(sidekey.status("/", &new.text).await, 200);
    sidekey.revoke_key(&old.id).await;
    assert_eq!(sidekey.status("/", &old.text).await, 401);
    assert_eq!(sidekey.status("/", &new.text).await, 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn bcrypt_runs_once_for_a_key_and_never_for_a_forged_one() {
    let (upstream, sidekey) = start().await;
    let key = sidekey.create_key(json!({"rate_limits": []})).await;
    let before = bcrypt_runs(&sidekey).await;
    for _ in 0..30 {
        assert_eq!(sidekey.status("/", &key.text).await, 200);
    }
    assert_eq!(bcrypt_runs(&sidekey).await, before + 1.0);
    let mut forgeries = vec![forged(&key).text];
    for at in (8..key.text.len()).step_by(3).filter(|at| *at != 20) {
        let mut text = key.text.clone();
        let other = if &text[at..=at] == "Z" { "Y" } else { "Z" };
        text.replace_range(at..=at, other);
        forgeries.push(text);
    }
    let known = sidekey.metric("sidekey_forged_keys_total").await;
    let statuses = join_all(forgeries.iter().map(|text| sidekey.status("/", text))).await;
    assert!(statuses.iter().all(|status| *status == 401), "{statuses:?}");
    assert_eq!(bcrypt_runs(&sidekey).await, before + 1.0);
    let found = sidekey.metric("sidekey_forged_keys_total").await - known;
    assert_eq!(
        found,
        forgeries.len() as f64,
        "each was seen for what it is"
    );
    assert_eq!(upstream.count(), 30);
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_and_their_states_survive_a_restart() {
    let (_upstream, sidekey) = start().await;
    let good = warm(&sidekey, json!({})).await;
    let fresh = sidekey.create_key(json!({})).await;
    let revoked = warm(&sidekey, json!({})).await;
    sidekey.revoke_key(&revoked.id).await;
    let disabled = warm(&sidekey, json!({})).await;
    sidekey
        .change_key(&disabled.id, json!({"status": "disabled"}))
        .await;
    let reader = warm(&sidekey, json!({"scopes": ["orders:read"]})).await;
    let old = warm(&sidekey, json!({})).await;
    let new = sidekey.regenerate_key(&old.id, 3600).await;
    let sidekey = sidekey.restart().await;
    for (name, path, key, status) in [
        ("good", "/write", &good, 200),
        ("fresh", "/", &fresh, 200),
        ("revoked", "/", &revoked, 401),
        ("disabled", "/", &disabled, 401),
        ("reader", "/", &reader, 200),
        ("reader", "/write", &reader, 403),
        ("in its grace period", "/", &old, 200),
        ("regenerated", "/", &new, 200),
    ] {
        assert_eq!(
            sidekey.status(path, &key.text).await,
            status,
            "{name} {path}"
        );
    }
    assert_eq!(refusal(&sidekey, "/", &revoked.text).await.1, "invalid-key");
    assert_eq!(
        refusal(&sidekey, "/", &disabled.text).await.1,
        "disabled-key"
    );
    sidekey.revoke_key(&good.id).await;
    assert_eq!(sidekey.status("/", &good.text).await, 401);
}
