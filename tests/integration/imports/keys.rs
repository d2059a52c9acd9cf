//! Plain keys of any look.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use reqwest::Method;
use serde_json::{Value, json};

use super::{import, line, plain, send, start, statuses, strong, work};
use crate::harness::eventually;
use crate::harness::raw::{Raw, get};
use crate::harness::run::run;
use crate::harness::sidekey::{KEYS, Key, Sidekey};

/// Looks that keys have elsewhere.
fn odd() -> Vec<String> {
    vec![
        "f47ac10b-58cc-4372-a567-0e02b2c3d479".to_owned(),
        "AKIA/x+9Qz==|w3R7~k2{M5}8vT".to_owned(),
        "pk:live:Zx81-Qw92.Er73_Ty64!".to_owned(),
        "%41%zz&a=b?c#d%20Kq83nd02mx".to_owned(),
        "'single'\\back\\Kq83nd02mxP5`".to_owned(),
        // As long as a key may be: bcrypt alone would read a third of it.
        (0..6).map(strong).collect::<String>()[..256].to_owned(),
    ]
}

/// The status of a request that presents `key` at `source`.
async fn present(sidekey: &Sidekey, source: &str, path: &str, key: &str) -> u16 {
    let escaped: String = key.bytes().map(|b| format!("%{b:02x}")).collect();
    let (mut target, mut lines) = (path.to_owned(), Vec::new());
    match source {
        "bearer" => lines.push(format!("Authorization: Bearer {key}")),
        "header" => lines.push(format!("X-API-Key: {key}")),
        "password" => {
            let encoded = STANDARD.encode(format!("anybody:{key}"));
            lines.push(format!("Authorization: Basic {encoded}"));
        }
        "user" => {
            let encoded = STANDARD.encode(format!("{key}:"));
            lines.push(format!("Authorization: Basic {encoded}"));
        }
        "cookie" => lines.push(format!("Cookie: a=b; session={key}")),
        _ => target = format!("{path}?a=b&api_key={escaped}"),
    }
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    let mut raw = Raw::connect(sidekey.proxy).await;
    raw.send(get(&target, &lines)).await;
    raw.read_answer().await.status
}

const SOURCES: [&str; 6] = ["bearer", "header", "query", "cookie", "password", "user"];

/// Whether a source can carry the key at all.
fn can_carry(source: &str, key: &str) -> bool {
    match source {
        // A colon ends the user's name.
        "user" => !key.contains(':'),
        _ => true,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_of_any_look_works_wherever_keys_are_presented() {
    let (sidekey, upstream) = start().await;
    let keys = odd();
    let lines: Vec<Value> = keys.iter().map(|key| plain(key)).collect();
    let ids = import(&sidekey, &lines).await;
    let (runs, _) = work(&sidekey).await;
    for (key, id) in keys.iter().zip(&ids) {
        for source in SOURCES.iter().filter(|source| can_carry(source, key)) {
            assert_eq!(
                present(&sidekey, source, "/", key).await,
                200,
                "{source} {key}"
            );
            let seen = upstream.last();
            assert_eq!(seen.header("x-sidekey-key-id"), Some(id.as_str()));
            let all = format!("{seen:?}");
            assert!(!all.contains(key.as_str()), "hidden: {source} {all}");
            assert!(seen.header("authorization").is_none());
            assert!(!seen.target.contains("api_key"));
            // What passes without a look at its key carries none further.
            assert_eq!(present(&sidekey, source, "/open", key).await, 200);
            let seen = upstream.last();
            assert!(
                !format!("{seen:?}").contains(key.as_str()),
                "{source} {seen:?}"
            );
            assert!(seen.header("authorization").is_none() && !seen.target.contains("api_key"));
            // One character more or less is another key.
            for wrong in [&key[1..], &format!("{}^", &key[..key.len() - 1])] {
                assert_eq!(present(&sidekey, source, "/", wrong).await, 401, "{wrong}");
            }
        }
    }
    // Each was hashed once, wherever it was presented.
    let expected = (runs + keys.len() as f64, keys.len() as f64);
    assert_eq!(work(&sidekey).await, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn foreign_credentials_go_where_they_are_meant_to_go() {
    let (sidekey, upstream) = start().await;
    import(&sidekey, &[plain(&strong(1))]).await;
    for source in SOURCES {
        present(&sidekey, source, "/open", "somebody-elses-token").await;
        let seen = upstream.last();
        let passed = format!("{seen:?}").contains("somebody-elses-token")
            || seen.header("authorization").is_some()
            || seen.target.contains("api_key=");
        assert!(passed, "{source}: {seen:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_imported_key_is_shown_as_one() {
    let (sidekey, _upstream) = start().await;
    let key = strong(1);
    let fields = json!({"key": key, "external_id": "customer-7", "metadata": {"team": "a"},
        "rotation_days": 30, "allowed_ips": ["127.0.0.0/8"]});
    let ids = import(&sidekey, &[line(fields)]).await;
    let shown = sidekey
        .ask(Method::GET, &format!("{KEYS}/{}", ids[0]), None)
        .await;
    let shown = shown.json();
    assert_eq!(shown["origin"], "imported");
    assert_eq!(shown["credential"], "key");
    assert_eq!(shown["hint"], format!("...{}", &key[key.len() - 4..]));
    assert_eq!(
        shown["metadata"],
        json!({"team": "a", "external_id": "customer-7"})
    );
    assert_eq!(shown["rotation_days"], 30);
    assert_eq!(shown["status"], "active");
    let minted = sidekey.create_key(json!({})).await;
    let shown = sidekey
        .ask(Method::GET, &format!("{KEYS}/{}", minted.id), None)
        .await;
    assert_eq!(shown.json()["origin"], "minted");
    assert_eq!(shown.json()["credential"], "key");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_imported_key_is_disabled_and_revoked_like_any_other() {
    let (sidekey, _upstream) = start().await;
    let key = strong(1);
    let id = import(&sidekey, &[plain(&key)]).await.remove(0);
    assert_eq!(sidekey.status("/", &key).await, 200);
    sidekey.change_key(&id, json!({"status": "disabled"})).await;
    assert_eq!(sidekey.status("/", &key).await, 401);
    sidekey.change_key(&id, json!({"status": "active"})).await;
    assert_eq!(sidekey.status("/", &key).await, 200);
    sidekey.revoke_key(&id).await;
    assert_eq!(sidekey.status("/", &key).await, 401);
    // Nor does it come back: by a restart, or by being imported again.
    let again = send(&sidekey, "", &[plain(&key)]).await;
    assert_eq!(statuses(&again), ["existing"]);
    assert_eq!(again.json()["results"][0]["key_id"], id.as_str());
    let sidekey = sidekey.restart().await;
    assert_eq!(sidekey.status("/", &key).await, 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_regenerated_import_is_replaced_by_a_minted_key() {
    let (sidekey, _upstream) = start().await;
    for (number, is_warm) in [(1, true), (2, false)] {
        let key = strong(number);
        let id = import(&sidekey, &[plain(&key)]).await.remove(0);
        if is_warm {
            assert_eq!(sidekey.status("/", &key).await, 200);
        }
        let new = sidekey.regenerate_key(&id, 3600).await;
        for text in [&key, &new.text] {
            assert_eq!(sidekey.status("/", text).await, 200);
        }
        let shown = sidekey
            .ask(Method::GET, &format!("{KEYS}/{id}"), None)
            .await;
        assert_eq!(shown.json()["origin"], "imported");
        assert_eq!(shown.json()["credential"], "key");
        assert!(
            shown.json()["hint"]
                .as_str()
                .unwrap()
                .starts_with("sk_live_")
        );
        // Replaced once more, without a grace period.
        let newest = sidekey.regenerate_key(&id, 0).await;
        for (text, status) in [(&key, 401), (&new.text, 401), (&newest.text, 200)] {
            assert_eq!(sidekey.status("/", text).await, status);
        }
        let again = send(&sidekey, "", &[plain(&key)]).await;
        assert_eq!(statuses(&again), ["existing"], "and not back to life");
        assert_eq!(sidekey.status("/", &key).await, 401);
    }
    let key = strong(3);
    let id = import(&sidekey, &[plain(&key)]).await.remove(0);
    sidekey.regenerate_key(&id, 15).await;
    assert_eq!(sidekey.status("/", &key).await, 200);
    eventually("the grace period ends", async || {
        sidekey.status("/", &key).await == 401
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn imports_outlive_a_restart_and_a_rotation_of_the_mint_key() {
    let (mut sidekey, _upstream) = start().await;
    let key = strong(1);
    let id = import(&sidekey, &[plain(&key)]).await.remove(0);
    sidekey.kill();
    let arguments = ["secrets", "rotate-mint-key", "--config", "sidekey.toml"];
    let ended = run(sidekey.directory(), &arguments, &[]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let sidekey = sidekey.restart().await;
    assert_eq!(sidekey.metric("sidekey_imported_keys").await, 1.0);
    assert_eq!(sidekey.status("/", &key).await, 200);
    let again = send(&sidekey, "", &[plain(&key), plain(&strong(2))]).await;
    assert_eq!(statuses(&again), ["existing", "created"]);
    assert_eq!(again.json()["results"][0]["key_id"], id.as_str());
    let sidekey = sidekey.restart().await;
    for number in [1, 2] {
        assert_eq!(sidekey.status("/", &strong(number)).await, 200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_imported_key_may_administrate() {
    let (sidekey, _upstream) = start().await;
    let key = strong(1);
    let admin = line(json!({"key": key, "scopes": ["sidekey:admin"]}));
    let id = import(&sidekey, &[admin]).await.remove(0);
    let list = sidekey.ask_as(Some(&key), Method::GET, KEYS, None).await;
    assert_eq!(list.status, 200);
    let key = Key { id, text: key };
    sidekey.revoke_key(&key.id).await;
    let list = sidekey
        .ask_as(Some(&key.text), Method::GET, KEYS, None)
        .await;
    list.problem(401);
}
