//! `sidekey check --stores`: what it says, and that it only looks.

use std::collections::BTreeMap;
use std::path::Path;

use secrecy::SecretString;
use serde_json::json;
use sidekey::store::SqlStore;

use super::{check_stores, environment};
use crate::harness::eventually;
use crate::harness::postgres::Postgres;
use crate::harness::redis::Redis;
use crate::harness::sidekey::{Sidekey, config};
use crate::harness::upstream::{Upstream, nobody};

/// The database's files with what is in them; not SQLite's shared memory, which holds locks.
fn files(directory: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = std::fs::read_dir(directory).unwrap();
    let files = entries.map(|entry| entry.unwrap());
    files
        .filter(|file| !file.file_name().to_string_lossy().ends_with("-shm"))
        .map(|file| {
            let name = file.file_name().into_string().unwrap();
            (name, std::fs::read(file.path()).unwrap())
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_check_makes_and_changes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let config = config(nobody(), "");
    std::fs::write(directory.path().join("sidekey.toml"), &config).unwrap();
    let before = files(directory.path());
    let absent = check_stores(directory.path(), &[]);
    assert_eq!(absent.code, Some(1), "{absent:?}");
    assert!(absent.stderr.contains("data/sidekey.db"), "{absent:?}");
    assert_eq!(absent.stderr.lines().count(), 1, "{absent:?}");
    assert_eq!(files(directory.path()), before);

    // After a crash, where the last writes are still in the write-ahead log.
    let mut sidekey = Sidekey::start(&config).await;
    sidekey.create_key(json!({})).await;
    sidekey.kill();
    let data = sidekey.directory().join("data");
    let before = files(&data);
    assert!(before.contains_key("sidekey.db-wal"), "{:?}", before.keys());
    let found = check_stores(sidekey.directory(), &[]);
    assert_eq!(found.code, Some(0), "{found:?}");
    assert!(
        found.stdout.contains("the stores agree: 2 keys"),
        "{found:?}"
    );
    assert!(files(&data) == before, "the files were changed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_cannot_work_is_named() {
    let upstream = Upstream::start().await;
    let config = config(upstream.address, "");
    let directory = tempfile::tempdir().unwrap();
    let url = format!("sqlite://{}/keys.db", directory.path().display());
    // A creation may take half of it between its two writes.
    let environment = environment(&url, "10");
    let sidekey = Sidekey::start_with(&config, &environment).await;
    let key = sidekey.create_key(json!({})).await;
    let store = SqlStore::open(&SecretString::from(url.clone()))
        .await
        .unwrap();
    sqlx::query("DELETE FROM key_hashes WHERE key_id = $1")
        .bind(&key.id)
        .execute(store.writer())
        .await
        .unwrap();
    let broken = async |count: f64| {
        eventually("the metric tells", || async {
            sidekey.metric("sidekey_reconcile_broken_keys").await == count
        })
        .await;
    };
    broken(1.0).await;
    eventually("the log tells", || async {
        sidekey.output().contains("it can't work")
    })
    .await;
    let found = check_stores(sidekey.directory(), &environment);
    assert_eq!(found.code, Some(1), "{found:?}");
    let line = format!("key without a hash: key {} of tenant acme", key.id);
    assert!(found.stdout.contains(&line), "{found:?}");
    // What the line says to do helps.
    let new = sidekey.regenerate_key(&key.id, 0).await;
    assert_eq!(sidekey.status("/", &new.text).await, 200);
    broken(0.0).await;

    // A row that can't be read is named, and does not hide the others.
    sqlx::query("UPDATE api_keys SET standing = 'gone' WHERE id = $1")
        .bind(&key.id)
        .execute(store.writer())
        .await
        .unwrap();
    let found = check_stores(sidekey.directory(), &environment);
    assert_eq!(found.code, Some(1), "{found:?}");
    let line = format!("damaged: what is stored of key {} can't be read", key.id);
    assert_eq!(found.stdout.matches(&line).count(), 1, "{found:?}");
    super::passes(&sidekey, 2.0).await;
    assert_eq!(sidekey.metric(super::REMOVED).await, 0.0);
    store.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_cannot_be_reached_is_told() {
    let directory = tempfile::tempdir().unwrap();
    let limits = "[limits]\nbackend = \"redis\"";
    let config = config(nobody(), limits);
    std::fs::write(directory.path().join("sidekey.toml"), config).unwrap();
    let (mut postgres, mut redis) = (Postgres::start().await, Redis::start().await);
    let (database, limits) = (postgres.url(), redis.url());
    let environment = [
        ("SIDEKEY__STORE__URL", database.as_str()),
        ("SIDEKEY__REDIS__URL", limits.as_str()),
    ];
    let ended = check_stores(directory.path(), &environment);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(ended.stdout.contains("Redis answers"), "{ended:?}");
    redis.kill();
    let ended = check_stores(directory.path(), &environment);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.stderr.contains("redis.url"), "{ended:?}");
    assert!(ended.stdout.contains("the stores agree"), "{ended:?}");
    redis.launch().await;
    postgres.kill();
    let ended = check_stores(directory.path(), &environment);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.stderr.contains("the store"), "{ended:?}");
    // The configuration comes first.
    let bad = [("SIDEKEY__PROXY__MODE", "maybe")];
    assert_eq!(check_stores(directory.path(), &bad).code, Some(2));
}
