//! So many left-overs are not a crash's: rows were lost, and may come back.

use std::sync::Arc;

use secrecy::SecretString;
use serde_json::json;
use sidekey::store::SqlStore;
use sqlx::AssertSqlSafe;

use super::{REMOVED, agree_soon, check_stores, environment, leftovers, passes, removed};
use crate::harness::eventually;
use crate::harness::sidekey::{Sidekey, config};
use crate::harness::upstream::Upstream;

/// A creation may take half of it between its two writes.
const AGE: &str = "6";
const LOST: usize = 150;
const HELD_BACK: &str = "sidekey_reconcile_held_back";
const HASH: &str = "not-to-be-shown";

/// Hashes of keys that have no rows, all at once: a few of them would be removed.
async fn lose_rows(store: &SqlStore) {
    let rows: Vec<String> = (0..LOST)
        .map(|number| format!("('lost{number:08}', 1, 'acme', '{HASH}')"))
        .collect();
    let sql = format!(
        "INSERT INTO key_hashes (key_id, generation, tenant_id, hash) VALUES {}",
        rows.join(", ")
    );
    sqlx::query(AssertSqlSafe(sql))
        .execute(store.writer())
        .await
        .unwrap();
}

async fn held_back(sidekey: &Sidekey, keys: usize) {
    eventually("nothing is removed", || async {
        sidekey.metric(HELD_BACK).await == keys as f64
    })
    .await;
    passes(sidekey, 2.0).await;
    assert_eq!(sidekey.metric(REMOVED).await, 0.0);
    eventually("the log tells", || async {
        sidekey.output().contains("nothing is removed")
    })
    .await;
    assert!(!sidekey.output().contains(HASH));
}

async fn start(
    directory: &Arc<tempfile::TempDir>,
    config: &str,
    environment: &[(&str, &str)],
) -> Sidekey {
    let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    let variables = environment.iter().map(owned).collect();
    Sidekey::launch(
        directory.clone(),
        config.to_owned(),
        variables,
        Arc::default(),
    )
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_looks_like_lost_rows_is_left_alone_until_somebody_says_otherwise() {
    let upstream = Upstream::start().await;
    let directory = Arc::new(tempfile::tempdir().unwrap());
    let config = config(upstream.address, "");
    let url = format!("sqlite://{}/keys.db", directory.path().display());
    let mut environment = environment(&url, AGE);
    let sidekey = start(&directory, &config, &environment).await;
    let key = sidekey.create_key(json!({})).await;
    let store = SqlStore::open(&SecretString::from(url.clone()))
        .await
        .unwrap();
    lose_rows(&store).await;
    held_back(&sidekey, LOST).await;
    let found = check_stores(directory.path(), &environment);
    assert_eq!((found.code, leftovers(&found)), (Some(1), LOST));
    assert!(!found.stdout.contains(HASH));
    drop(sidekey);

    environment.push(("SIDEKEY__SECRETS__RECONCILE_MAX_REMOVALS", "150"));
    let sidekey = start(&directory, &config, &environment).await;
    agree_soon(&sidekey, &environment).await;
    removed(&sidekey, LOST).await;
    assert_eq!(sidekey.status("/", &key.text).await, 200);
    assert_eq!(sidekey.metric(HELD_BACK).await, 0.0);
    drop(sidekey);

    // A database without any key is none that Sidekey has made.
    let sidekey = start(&directory, &config, &environment).await;
    sqlx::query("DELETE FROM api_keys")
        .execute(store.writer())
        .await
        .unwrap();
    held_back(&sidekey, 2).await;
    store.close().await;
}
