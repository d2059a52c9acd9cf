//! One chain, whoever writes it, with every operation once.

use std::collections::HashMap;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use futures_util::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};

use super::{events, export, lines, verification, verify_over_api, verify_stores};
use crate::harness::api::Reply;
use crate::harness::eventually;
use crate::harness::postgres::Postgres;
use crate::harness::sidekey::{KEYS, Sidekey, config};
use crate::harness::upstream::{Upstream, nobody};
use crate::postgres::pair;

/// Clients that write at the same time, on each of two instances.
const WRITERS: usize = 8;
/// Changes that each makes of its key.
const CHANGES: usize = 16;

/// Every acknowledged operation: its request's id, and what has to be noted of it.
type Done = Vec<(String, (&'static str, String))>;

fn request_id(reply: &Reply) -> String {
    reply.header("x-request-id").expect("an id").to_owned()
}

/// Creates, changes, replaces and revokes a key.
async fn write(sidekey: &Sidekey, admin: &str, number: usize) -> Done {
    let ask = async |method, path: &str, body: &Value| {
        sidekey.ask_as(Some(admin), method, path, Some(body)).await
    };
    let new = json!({"name": format!("key {number}"), "tenant_id": "acme", "environment": "live",
        "scopes": ["orders:read"]});
    let created = ask(Method::POST, KEYS, &new).await;
    assert_eq!(created.status, 201, "{created:?}");
    let id = created.json()["api_key"]["id"].as_str().unwrap().to_owned();
    let mut done = vec![(request_id(&created), ("key.created", id.clone()))];
    let path = format!("{KEYS}/{id}");
    for change in 0..CHANGES {
        let body = json!({"name": format!("key {number}, {change}")});
        let changed = ask(Method::PATCH, &path, &body).await;
        assert_eq!(changed.status, 200, "{changed:?}");
        done.push((request_id(&changed), ("key.changed", id.clone())));
    }
    let again = format!("{path}/regenerate");
    let regenerated = ask(Method::POST, &again, &json!({})).await;
    assert_eq!(regenerated.status, 200, "{regenerated:?}");
    done.push((request_id(&regenerated), ("key.regenerated", id.clone())));
    let revoked = ask(Method::DELETE, &path, &json!({})).await;
    assert_eq!(revoked.status, 204, "{revoked:?}");
    done.push((request_id(&revoked), ("key.revoked", id.clone())));
    // A second time there is nothing to be done, and nothing to be noted.
    let again = ask(Method::DELETE, &path, &json!({})).await;
    assert_eq!(again.status, 204, "{again:?}");
    done
}

/// Checks an export with the script that the documents print.
pub fn check_by_script(export: &str) -> (bool, String) {
    let document = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/audit.md");
    let document = std::fs::read_to_string(document).expect("the document");
    let script = document.split("```python\n").nth(1).expect("a script");
    let script = script.split("```").next().expect("its end");
    let mut python = Command::new("python3")
        .args(["-c", script])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("python3 runs");
    let mut stdin = python.stdin.take().expect("its input");
    let export = export.to_owned();
    let writer = std::thread::spawn(move || {
        // It ends early where something is wrong.
        let _ = stdin.write_all(export.as_bytes());
    });
    let output = python.wait_with_output().expect("its output");
    writer.join().expect("its input is written");
    let text = [output.stdout, output.stderr].concat();
    (
        output.status.success(),
        String::from_utf8(text).expect("text").trim().to_owned(),
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn two_instances_write_one_chain_with_every_operation_once() {
    let upstream = Upstream::start().await;
    let postgres = Postgres::start().await;
    let [a, b] = pair(&upstream, &postgres, "").await;
    let (admin, both) = (a.admin_key(), Arc::new([a, b]));
    let writers = (0..2 * WRITERS).map(|number| {
        let (both, admin) = (both.clone(), admin.clone());
        tokio::spawn(async move { write(&both[number % 2], &admin, number).await })
    });
    let done: Done = join_all(writers)
        .await
        .into_iter()
        .flat_map(|done| done.expect("a writer"))
        .collect();
    assert_eq!(done.len(), 2 * WRITERS * (CHANGES + 3));

    let [a, b] = &*both;
    let text = export(a, "").await;
    let mut expected: HashMap<String, (&str, String)> = done.into_iter().collect();
    for (index, event) in lines(&text).iter().enumerate() {
        assert_eq!(event["seq"], index as u64 + 1);
        let action = event["action"].as_str().unwrap();
        let id = event["request_id"].as_str().unwrap_or_default();
        match expected.remove(id) {
            Some(operation) => {
                let key = event["key_id"].as_str().unwrap().to_owned();
                assert_eq!((action, key), operation);
                assert_eq!(event["actor"]["key_id"], admin[8..20]);
                assert_eq!(event["address"], "127.0.0.1");
                assert_eq!(event["tenant_id"], "acme");
            }
            None => assert!(
                action == "admin.signed_in" || event["actor"]["type"] == "system",
                "noted twice, or nobody did it: {event}"
            ),
        }
    }
    assert!(expected.is_empty(), "not noted: {expected:?}");

    let (is_sound, said) = check_by_script(&text);
    assert!(is_sound, "{said}");
    let anchor = said.split("anchor ").nth(1).unwrap().to_owned();
    for sidekey in [a, b] {
        let path = format!("{}/verification?anchor={anchor}", super::EVENTS);
        let verified = sidekey.ask_as(Some(&admin), Method::GET, &path, None).await;
        assert_eq!(verified.json()["intact"], true, "{verified:?}");
    }
    let from_stores = verify_stores(a, &postgres.url(), &["--anchor", &anchor]).await;
    assert_eq!(from_stores.code, Some(0), "{from_stores:?}");
    let over_api = verify_over_api(a, &["--anchor", &anchor]).await;
    assert_eq!(over_api.code, Some(0), "{over_api:?}");
    assert!(over_api.stdout.starts_with("the audit chain is intact: "));
    // A sign-in may be written just now, and is counted behind that.
    eventually("both have counted what they have written", || async {
        let entries = a.metric("sidekey_audit_entries_total").await
            + b.metric("sidekey_audit_entries_total").await;
        let head = verification(a, "").await.json()["entries"].clone();
        json!(entries as u64) == head
    })
    .await;
}

/// What entries say, on SQLite, and that the script of the documents can fail.
#[tokio::test(flavor = "multi_thread")]
async fn what_changed_is_told_without_secrets() {
    let sidekey = Sidekey::start(&config(nobody(), "")).await;
    // Numbers that other languages write in another way, and what JSON escapes.
    let metadata = json!({"n": [1e16, 1.5e300, -0.0, 18_446_744_073_709_551_615_u64, 0.1],
        "t": "ü\u{1F511}\"\\\u{7}\u{2028}"});
    let key = sidekey
        .create_key(json!({"name": "one", "metadata": metadata}))
        .await;
    let pasted = format!("was {}", key.text);
    sidekey
        .change_key(&key.id, json!({"name": pasted, "scopes": ["orders:read"]}))
        .await;
    sidekey
        .change_key(&key.id, json!({"status": "disabled"}))
        .await;
    let new = sidekey.regenerate_key(&key.id, 60).await;
    sidekey.revoke_key(&key.id).await;
    sidekey.revoke_key(&key.id).await;
    let told = events(&sidekey, &format!("key_id={}&limit=2", key.id)).await;
    let actions: Vec<_> = told.iter().map(|event| event["action"].clone()).collect();
    assert_eq!(
        actions,
        [
            "key.revoked",
            "key.regenerated",
            "key.changed",
            "key.changed",
            "key.created"
        ]
    );
    let hidden = format!("was {}...", &key.text[..21]);
    assert_eq!(
        told[3]["details"],
        json!({"name": {"from": "one", "to": hidden},
            "scopes": {"from": ["orders:*"], "to": ["orders:read"]}})
    );
    assert_eq!(
        told[2]["details"],
        json!({"status": {"from": "active", "to": "disabled"}})
    );
    assert_eq!(told[1]["details"]["grace_period_seconds"], 60);
    assert_eq!(told[4]["details"]["name"], json!({"to": "one"}));
    assert_eq!(
        told[0]["details"]["status"],
        json!({"from": "disabled", "to": "revoked"})
    );
    let first = events(&sidekey, "actor=system").await;
    assert_eq!(first.last().unwrap()["action"], "key.created");
    assert_eq!(first.last().unwrap()["seq"], 1);
    let text = export(&sidekey, "").await;
    for secret in [&key.text[21..], &new.text[21..], "$2"] {
        assert!(!text.contains(secret));
    }
    let (is_sound, said) = check_by_script(&text);
    assert!(is_sound, "{said}");
    let lines: Vec<&str> = text.lines().collect();
    let without_third = [&lines[..2], &lines[3..]].concat().join("\n");
    for (damaged, at) in [
        (text.replacen("disabled", "Disabled", 1), "entry "),
        (without_third, "entry 3 does not hold"),
    ] {
        let (is_sound, said) = check_by_script(&damaged);
        assert!(!is_sound && said.starts_with(at), "{said}");
    }
    // The list shows the same text as the export.
    let path = format!("{}?limit=1&key_id={}", super::EVENTS, key.id);
    let page = sidekey.ask(Method::GET, &path, None).await;
    let newest = lines
        .iter()
        .find(|line| line.contains("key.revoked"))
        .unwrap();
    assert!(page.text.contains(newest), "{page:?}");
}

/// Notes that are not part of a write reach the chain before the process ends.
#[tokio::test(flavor = "multi_thread")]
async fn the_end_writes_what_waits() {
    let mut sidekey = Sidekey::start(&config(nobody(), "")).await;
    let refused = sidekey.ask_as(None, Method::GET, KEYS, None).await;
    refused.problem(401);
    let id = request_id(&refused);
    sidekey.signal("TERM");
    assert!(sidekey.wait().success());
    let sidekey = sidekey.restart().await;
    eventually("the refusal is noted", || async {
        let refused = events(&sidekey, "action=admin.call_refused").await;
        refused.iter().any(|event| event["request_id"] == *id)
    })
    .await;
}
