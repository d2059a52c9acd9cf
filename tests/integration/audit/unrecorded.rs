//! A write that can't be recorded isn't done.

use reqwest::Method;
use secrecy::SecretString;
use serde_json::{Value, json};
use sidekey::store::SqlStore;
use sqlx::{AssertSqlSafe, Executor};

use super::{events, verification};
use crate::harness::api::{forget_use, forget_uses};
use crate::harness::eventually;
use crate::harness::postgres::Postgres;
use crate::harness::sidekey::{KEYS, Key, Sidekey, config};
use crate::harness::upstream::Upstream;

/// A key or a list of them, but for their use: that is stored now and then.
async fn shown(sidekey: &Sidekey, path: &str) -> Value {
    let reply = sidekey.ask(Method::GET, path, None).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    let mut body = reply.json();
    if body.get("data").is_some() {
        forget_uses(&mut body);
    } else {
        forget_use(&mut body);
    }
    body
}

/// Every operation is 503 and changes nothing.
async fn expect_refused(sidekey: &Sidekey, key: &Key, way: &str) {
    let one = format!("{KEYS}/{}", key.id);
    let (key_before, list_before) = (shown(sidekey, &one).await, shown(sidekey, KEYS).await);
    let new = json!({"name": "n", "tenant_id": "acme", "environment": "live", "scopes": []});
    for (method, path, body) in [
        (Method::POST, KEYS.to_owned(), new),
        (Method::PATCH, one.clone(), json!({"name": "other"})),
        (Method::PATCH, one.clone(), json!({"status": "disabled"})),
        (Method::POST, format!("{one}/regenerate"), json!({})),
        (Method::DELETE, one.clone(), json!({})),
    ] {
        let reply = sidekey.ask(method.clone(), &path, Some(&body)).await;
        let problem = reply.problem(503);
        assert!(reply.header("retry-after").is_some(), "{way} {reply:?}");
        // Nothing about internals.
        assert!(!problem.to_string().contains("audit"), "{problem}");
        assert_eq!(shown(sidekey, &one).await, key_before, "{way} {method}");
        assert_eq!(sidekey.status("/", &key.text).await, 200, "{way} {method}");
    }
    assert_eq!(shown(sidekey, KEYS).await, list_before, "{way}");
}

async fn exercise(sidekey: &Sidekey, store: &str, ways: &[(&str, &[&str], &[&str])]) {
    let database = SqlStore::open(&SecretString::from(store.to_owned()))
        .await
        .unwrap();
    let execute = async |sql: &str| {
        let done = database
            .writer()
            .execute(AssertSqlSafe(sql.to_owned()))
            .await;
        done.unwrap_or_else(|error| panic!("{sql}: {error}"));
    };
    let key = sidekey.create_key(json!({})).await;
    assert_eq!(sidekey.status("/", &key.text).await, 200);
    eventually("the sign-in is noted", || async {
        !events(sidekey, "action=admin.signed_in").await.is_empty()
    })
    .await;
    for (way, break_it, mend_it) in ways {
        for statement in *break_it {
            execute(statement).await;
        }
        expect_refused(sidekey, &key, way).await;
        for statement in *mend_it {
            execute(statement).await;
        }
        let changed = sidekey.change_key(&key.id, json!({"name": way})).await;
        assert_eq!(changed["name"], *way);
        let body = verification(sidekey, "").await.json();
        assert_eq!(body["intact"], true, "{way}: {body}");
    }
    let failures = sidekey.metric("sidekey_audit_failures_total").await;
    assert!(failures >= 5.0 * ways.len() as f64, "{failures}");
    sidekey.revoke_key(&key.id).await;
    database.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_can_not_be_noted_is_not_done_on_sqlite() {
    let upstream = Upstream::start().await;
    let sidekey = Sidekey::start(&config(upstream.address, "")).await;
    let url = format!("sqlite://{}/data/sidekey.db", sidekey.directory().display());
    let trigger: &[&str] =
        &["CREATE TRIGGER no BEFORE INSERT ON audit_events BEGIN SELECT RAISE(ABORT, 'no'); END"];
    let ways: [(&str, &[&str], &[&str]); 3] = [
        ("a trigger", trigger, &["DROP TRIGGER no"]),
        (
            "no table",
            &["ALTER TABLE audit_events RENAME TO away"],
            &["ALTER TABLE away RENAME TO audit_events"],
        ),
        (
            "no head",
            &["UPDATE audit_head SET id = 2"],
            &["UPDATE audit_head SET id = 1"],
        ),
    ];
    exercise(&sidekey, &url, &ways).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_can_not_be_noted_is_not_done_on_postgresql() {
    let upstream = Upstream::start().await;
    let postgres = Postgres::start().await;
    let url = postgres.url();
    let environment = [("SIDEKEY__STORE__URL", url.as_str())];
    let sidekey = Sidekey::start_with(&config(upstream.address, ""), &environment).await;
    let ways: [(&str, &[&str], &[&str]); 3] = [
        (
            "a check",
            &["ALTER TABLE audit_events ADD CONSTRAINT no CHECK (seq < 0) NOT VALID"],
            &["ALTER TABLE audit_events DROP CONSTRAINT no"],
        ),
        (
            "no table",
            &["ALTER TABLE audit_events RENAME TO away"],
            &["ALTER TABLE away RENAME TO audit_events"],
        ),
        (
            "a taken place",
            &[
                "INSERT INTO audit_events SELECT seq + 1, noted_at, action, actor, key_id, tenant_id, address, request_id, details, previous_hash, hash, seal FROM audit_events ORDER BY seq DESC LIMIT 1",
            ],
            &["DELETE FROM audit_events WHERE seq > (SELECT seq FROM audit_head)"],
        ),
    ];
    exercise(&sidekey, &url, &ways).await;
}
