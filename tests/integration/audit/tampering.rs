//! Somebody writes the database by hand: each kind of it is found and named, by the program on the stores
//! themselves, by the program over the API, and by the API.

use secrecy::SecretString;
use serde_json::json;
use sidekey::store::SqlStore;
use sqlx::{AnyPool, AssertSqlSafe, Executor};

use super::{events, verification, verify_over_api, verify_stores};
use crate::harness::eventually;
use crate::harness::postgres::Postgres;
use crate::harness::sidekey::{Sidekey, config};
use crate::harness::upstream::nobody;

/// Entries of the chain that is tampered with.
const LEN: i64 = 12;

/// What is done, and what has to be said of it.
struct Tampering {
    name: &'static str,
    statements: &'static [&'static str],
    seq: i64,
    problem: &'static str,
}

#[rustfmt::skip]
const ALL: &[Tampering] = &[
    Tampering { name: "the action", seq: 5, problem: "edited",
        statements: &["UPDATE audit_events SET action = 'key.created' WHERE seq = 5"] },
    Tampering { name: "the actor", seq: 5, problem: "edited",
        statements: &["UPDATE audit_events SET actor = 'system' WHERE seq = 5"] },
    Tampering { name: "the key", seq: 5, problem: "edited",
        statements: &["UPDATE audit_events SET key_id = NULL WHERE seq = 5"] },
    Tampering { name: "the tenant", seq: 12, problem: "edited",
        statements: &["UPDATE audit_events SET tenant_id = 'other' WHERE seq = 12"] },
    Tampering { name: "the address", seq: 1, problem: "edited",
        statements: &["UPDATE audit_events SET address = '192.0.2.1' WHERE seq = 1"] },
    Tampering { name: "the request", seq: 5, problem: "edited",
        statements: &["UPDATE audit_events SET request_id = 'x' WHERE seq = 5"] },
    Tampering { name: "the time", seq: 5, problem: "edited",
        statements: &["UPDATE audit_events SET noted_at = noted_at - 1 WHERE seq = 5"] },
    Tampering { name: "what changed", seq: 5, problem: "edited",
        statements: &["UPDATE audit_events SET details = '{}' WHERE seq = 5"] },
    Tampering { name: "the hash", seq: 5, problem: "edited",
        statements: &["UPDATE audit_events SET hash = previous_hash WHERE seq = 5"] },
    Tampering { name: "the hash before", seq: 5, problem: "edited",
        statements: &["UPDATE audit_events SET previous_hash = hash WHERE seq = 5"] },
    Tampering { name: "the seal", seq: 5, problem: "unsealed",
        statements: &["UPDATE audit_events SET seal = hash WHERE seq = 5"] },
    Tampering { name: "several", seq: 3, problem: "edited",
        statements: &["UPDATE audit_events SET action = 'x' WHERE seq >= 3"] },
    Tampering { name: "one is deleted", seq: 5, problem: "removed",
        statements: &["DELETE FROM audit_events WHERE seq = 5"] },
    Tampering { name: "the first is deleted", seq: 1, problem: "removed",
        statements: &["DELETE FROM audit_events WHERE seq = 1"] },
    Tampering { name: "the last is deleted", seq: 12, problem: "cut",
        statements: &["DELETE FROM audit_events WHERE seq = 12"] },
    Tampering { name: "all are deleted", seq: 1, problem: "cut",
        statements: &["DELETE FROM audit_events"] },
    Tampering { name: "one is deleted and the gap closed", seq: 5, problem: "reordered",
        statements: &["DELETE FROM audit_events WHERE seq = 5",
            "UPDATE audit_events SET seq = -seq WHERE seq > 5", "UPDATE audit_events SET seq = -seq - 1 WHERE seq < -5"] },
    Tampering { name: "two change places", seq: 5, problem: "reordered",
        statements: &["UPDATE audit_events SET seq = -5 WHERE seq = 5",
            "UPDATE audit_events SET seq = 5 WHERE seq = 7", "UPDATE audit_events SET seq = 7 WHERE seq = -5"] },
    Tampering { name: "one is put in between", seq: 5, problem: "reordered",
        statements: &["UPDATE audit_events SET seq = -seq WHERE seq >= 5", "UPDATE audit_events SET seq = -seq + 1 WHERE seq < 0",
            "INSERT INTO audit_events SELECT 5, noted_at, action, actor, key_id, tenant_id, address, request_id, details, previous_hash, hash, seal FROM audit_events WHERE seq = 9"] },
    Tampering { name: "one is added that Sidekey did not write", seq: 13, problem: "inserted",
        statements: &["INSERT INTO audit_events SELECT 13, noted_at, action, actor, key_id, tenant_id, address, request_id, details, previous_hash, hash, seal FROM audit_events WHERE seq = 9"] },
    Tampering { name: "the same with the head moved", seq: 13, problem: "inserted",
        statements: &["INSERT INTO audit_events SELECT 13, noted_at, action, actor, key_id, tenant_id, address, request_id, details, previous_hash, hash, 'x' FROM audit_events WHERE seq = 9",
            "UPDATE audit_head SET seq = 13"] },
    Tampering { name: "one before the first", seq: 0, problem: "inserted",
        statements: &["INSERT INTO audit_events SELECT 0, noted_at, action, actor, key_id, tenant_id, address, request_id, details, previous_hash, hash, seal FROM audit_events WHERE seq = 9"] },
    Tampering { name: "the head's number is set on", seq: 13, problem: "cut",
        statements: &["UPDATE audit_head SET seq = 20"] },
    Tampering { name: "the head's number is set back", seq: 11, problem: "head",
        statements: &["UPDATE audit_head SET seq = 11"] },
    Tampering { name: "the head is set back", seq: 12, problem: "inserted",
        statements: &["UPDATE audit_head SET seq = 11, hash = (SELECT hash FROM audit_events WHERE seq = 11), seal = (SELECT seal FROM audit_events WHERE seq = 11)"] },
    Tampering { name: "the head's hash", seq: 12, problem: "head",
        statements: &["UPDATE audit_head SET hash = seal"] },
    Tampering { name: "the head's seal", seq: 12, problem: "head",
        statements: &["UPDATE audit_head SET seal = hash"] },
    Tampering { name: "the head is gone", seq: 0, problem: "head",
        statements: &["DELETE FROM audit_head"] },
    Tampering { name: "the end and the head, against an anchor", seq: 12, problem: "anchor",
        statements: &["DELETE FROM audit_events WHERE seq = 12", "UPDATE audit_head SET seq = 11, hash = (SELECT hash FROM audit_events WHERE seq = 11), seal = (SELECT seal FROM audit_events WHERE seq = 11)"] },
];

/// Only where the engine stores a text in a column of numbers.
const IN_SQLITE: Tampering = Tampering {
    name: "a number that is none",
    seq: 5,
    problem: "edited",
    statements: &["UPDATE audit_events SET noted_at = 'x' WHERE seq = 5"],
};

async fn execute(pool: &AnyPool, sql: &str) {
    let done = pool.execute(AssertSqlSafe(sql.to_owned())).await;
    done.unwrap_or_else(|error| panic!("{sql}: {error}"));
}

/// A running program whose chain has [`LEN`] entries and gets no more.
async fn start(environment: &[(&str, &str)]) -> Sidekey {
    let sidekey = Sidekey::start_with(&config(nobody(), ""), environment).await;
    let key = sidekey.create_key(json!({})).await;
    eventually("the sign-in is noted", || async {
        !events(&sidekey, "action=admin.signed_in").await.is_empty()
    })
    .await;
    for n in 0..LEN - 3 {
        let name = json!({"name": format!("name {n}")});
        sidekey.change_key(&key.id, name).await;
    }
    sidekey
}

async fn expect(sidekey: &Sidekey, store: &str, anchor: &str, tampering: &Tampering) {
    let Tampering {
        name, seq, problem, ..
    } = tampering;
    let reply = verification(sidekey, &format!("?anchor={anchor}")).await;
    assert_eq!(reply.status, 200, "{name}: {reply:?}");
    let body = reply.json();
    assert_eq!(body["intact"], false, "{name}");
    assert_eq!(
        (&body["broken"]["seq"], &body["broken"]["problem"]),
        (&json!(seq), &json!(problem)),
        "{name}"
    );
    let said = format!("the audit chain is broken at entry {seq}: {problem}: ");
    let with_anchor = ["--anchor", anchor];
    for ended in [
        verify_stores(sidekey, store, &with_anchor).await,
        verify_over_api(sidekey, &with_anchor).await,
    ] {
        assert_eq!(ended.code, Some(1), "{name}: {ended:?}");
        assert!(ended.stdout.starts_with(&said), "{name}: {ended:?}");
        assert_eq!(ended.stdout.lines().count(), 1, "{name}: {ended:?}");
    }
}

async fn expect_intact(sidekey: &Sidekey, store: &str) -> String {
    let reply = verification(sidekey, "").await.json();
    assert_eq!(reply["intact"], true, "{reply}");
    assert_eq!(reply["entries"], LEN);
    let ended = verify_stores(sidekey, store, &[]).await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let anchor = ended.stdout.trim().rsplit(' ').next().unwrap().to_owned();
    let hash = reply["head"]["hash"].as_str().unwrap();
    assert_eq!(anchor, format!("{LEN}:{hash}"));
    anchor
}

async fn tamper(sidekey: &Sidekey, store: &str, more: &[Tampering]) {
    let database = SqlStore::open(&SecretString::from(store.to_owned()))
        .await
        .unwrap();
    let pool = database.writer();
    let anchor = expect_intact(sidekey, store).await;
    for table in ["audit_events", "audit_head"] {
        execute(
            pool,
            &format!("CREATE TABLE saved_{table} AS SELECT * FROM {table}"),
        )
        .await;
    }
    for tampering in ALL.iter().chain(more) {
        for statement in tampering.statements {
            execute(pool, statement).await;
        }
        expect(sidekey, store, &anchor, tampering).await;
        for table in ["audit_events", "audit_head"] {
            execute(pool, &format!("DELETE FROM {table}")).await;
            let back = format!("INSERT INTO {table} SELECT * FROM saved_{table}");
            execute(pool, &back).await;
        }
    }
    assert_eq!(expect_intact(sidekey, store).await, anchor);
    database.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_tampering_is_found_on_postgresql() {
    let postgres = Postgres::start().await;
    let url = postgres.url();
    let sidekey = start(&[("SIDEKEY__STORE__URL", &url)]).await;
    tamper(&sidekey, &url, &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_tampering_is_found_on_sqlite() {
    let sidekey = start(&[]).await;
    let url = format!("sqlite://{}/data/sidekey.db", sidekey.directory().display());
    tamper(&sidekey, &url, &[IN_SQLITE]).await;
}

/// The end is cut off together with its head: who has written it knows, also when the chain goes on.
#[tokio::test(flavor = "multi_thread")]
async fn an_instance_remembers_what_it_has_written() {
    let sidekey = start(&[]).await;
    let url = format!("sqlite://{}/data/sidekey.db", sidekey.directory().display());
    let database = SqlStore::open(&SecretString::from(url.clone()))
        .await
        .unwrap();
    for statement in ALL.last().unwrap().statements {
        execute(database.writer(), statement).await;
    }
    database.close().await;
    // Without an anchor there is nothing to be seen in the stores.
    let ended = verify_stores(&sidekey, &url, &[]).await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    for more in 0..3 {
        let ended = verify_over_api(&sidekey, &[]).await;
        assert_eq!(ended.code, Some(1), "{more}: {ended:?}");
        let said = format!("the audit chain is broken at entry {LEN}: anchor: ");
        assert!(ended.stdout.starts_with(&said), "{more}: {ended:?}");
        sidekey.create_key(json!({})).await;
    }
    eventually("the log says so", || async {
        sidekey.output().contains("the audit chain ends before")
    })
    .await;
}
