//! The index of imports on both engines.

use futures_util::future::join_all;
use secrecy::SecretString;
use serde_json::json;
use sidekey::key::{CredentialKind, KeyOrigin, KeyRecord, Lookup};
use sidekey::store::{ImportStore, Imported, KeyStore, SqlStore, StoreError};
use sqlx::Row;

use super::{import, line, log_in, plain, strong};
use crate::harness::noted;
use crate::harness::openbao::OpenBao;
use crate::harness::postgres::Postgres;
use crate::harness::sidekey::{Sidekey, config};
use crate::harness::upstream::Upstream;
use crate::postgres::record;

fn imported(number: i64) -> KeyRecord {
    KeyRecord {
        origin: KeyOrigin::Imported,
        credential: CredentialKind::Basic,
        ..record(number)
    }
}

fn place(number: u32) -> Lookup {
    format!("{number:032x}").parse().unwrap()
}

/// What every engine has to do in the same way.
async fn exercise(store: &SqlStore) {
    assert_eq!(store.imports_since(0).await.unwrap().last, None);
    store.insert(&record(1), &noted()).await.unwrap();
    let first = imported(2);
    let added = store.insert_imported(&first, &[place(1)], &noted()).await;
    assert_eq!(added.unwrap(), Imported::Added);
    assert_eq!(store.get(first.id).await.unwrap(), Some(first.clone()));
    let places = [place(9), place(1)];
    let again = store.insert_imported(&imported(3), &places, &noted()).await;
    assert_eq!(again.unwrap(), Imported::Existing(first.id));
    assert_eq!(store.get(record(3).id).await.unwrap(), None);
    assert_eq!(
        store.last_change().await.unwrap(),
        2,
        "nothing is left of it"
    );
    let taken = store
        .insert_imported(&record(1), &[place(2)], &noted())
        .await;
    assert!(matches!(taken, Err(StoreError::Conflict)));
    assert_eq!(store.find_imported(&[place(2)]).await.unwrap(), None);
    assert_eq!(store.find_imported(&places).await.unwrap(), Some(first.id));

    // The same secret many times at once, each time with another id.
    let records: Vec<KeyRecord> = (10..20).map(imported).collect();
    let places = [place(3)];
    let note = noted();
    let all = records
        .iter()
        .map(|record| store.insert_imported(record, &places, &note));
    let all: Vec<Imported> = join_all(all)
        .await
        .into_iter()
        .map(Result::unwrap)
        .collect();
    let added = all.iter().filter(|outcome| **outcome == Imported::Added);
    assert_eq!(added.count(), 1);
    let winner = store.find_imported(&places).await.unwrap().unwrap();
    assert!(all.iter().all(
        |outcome| matches!(outcome, Imported::Added) || *outcome == Imported::Existing(winner)
    ));

    // In the order of the changes.
    store.insert(&record(30), &noted()).await.unwrap();
    store
        .insert_imported(&imported(31), &[place(0)], &noted())
        .await
        .unwrap();
    let page = store.imports_since(0).await.unwrap();
    assert_eq!(page.lookups, [place(1), place(3), place(0)]);
    assert_eq!(page.last, Some(store.last_change().await.unwrap()));
    let page = store.imports_since(2).await.unwrap();
    assert_eq!(page.lookups, [place(3), place(0)]);

    // What an older version writes is no import.
    let mut updated = first.clone();
    updated.revision = 2;
    store.update(&updated, &noted()).await.unwrap();
    sqlx::query("UPDATE api_keys SET name = 'older' WHERE id = $1")
        .bind(first.id.to_string())
        .execute(store.writer())
        .await
        .unwrap();
    let read = store.get(first.id).await.unwrap().unwrap();
    assert_eq!(
        (read.origin, read.credential),
        (KeyOrigin::Imported, CredentialKind::Basic)
    );
    sqlx::query(
        "INSERT INTO api_keys (id, tenant_id, name, environment, hint, scopes, rate_limits, \
         allowed_ips, contact_email, rotation_days, metadata, standing, created_at, updated_at, \
         expires_at, revoked_at, secret_created_at, generation, previous_generation, \
         previous_valid_until, revision) \
         SELECT 'olderversion', tenant_id, name, environment, hint, scopes, rate_limits, \
         allowed_ips, contact_email, rotation_days, metadata, standing, created_at, updated_at, \
         expires_at, revoked_at, secret_created_at, generation, previous_generation, \
         previous_valid_until, revision FROM api_keys WHERE id = $1",
    )
    .bind(first.id.to_string())
    .execute(store.writer())
    .await
    .unwrap();
    let read = store
        .get("olderversion".parse().unwrap())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(
        (read.origin, read.credential),
        (KeyOrigin::Minted, CredentialKind::Key)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn both_engines_keep_the_index_alike() {
    let directory = tempfile::tempdir().unwrap();
    let sqlite = format!("sqlite://{}/keys.db", directory.path().display());
    let postgres = Postgres::start().await;
    for url in [sqlite, postgres.url()] {
        let store = SqlStore::open(&SecretString::from(url)).await.unwrap();
        exercise(&store).await;
        store.close().await;
    }
}

/// The planner has the settings of the store's own connections, and never reads a whole table.
#[tokio::test(flavor = "multi_thread")]
async fn postgres_reads_by_indexes() {
    let postgres = Postgres::start().await;
    let store = SqlStore::open(&SecretString::from(postgres.url()))
        .await
        .unwrap();
    store
        .insert_imported(&imported(1), &[place(1)], &noted())
        .await
        .unwrap();
    for sql in [
        "EXPLAIN SELECT key_id FROM imported_keys WHERE lookup IN ('a', 'b') LIMIT 1",
        "EXPLAIN SELECT lookup, seq FROM imported_keys WHERE seq > 5 ORDER BY seq LIMIT 10000",
    ] {
        let rows = sqlx::query(sql).fetch_all(store.readers()).await.unwrap();
        let lines = rows.iter().map(|row| row.get::<String, _>(0));
        let plan = lines.collect::<Vec<_>>().join("\n");
        assert!(
            plan.contains("Index") && !plan.contains("Seq Scan"),
            "{plan}"
        );
        assert!(!plan.contains("Sort"), "{plan}");
    }
}

/// A foreign hash lies in Vault as it came, and works from there.
#[tokio::test(flavor = "multi_thread")]
async fn imports_work_with_their_hashes_in_vault() {
    let (upstream, bao) = (Upstream::start().await, OpenBao::start().await);
    let role = bao.app_role(json!({}), None).await;
    let more = format!(
        "{}\n[credentials]\nsources = [\"bearer\", \"basic\"]",
        bao.config(&role.lines())
    );
    let sidekey = Sidekey::start(&config(upstream.address, &more)).await;
    let hash = bcrypt::non_truncating_hash("wonderland", 5).unwrap();
    let hash = hash.replacen("$2b$", "$2y$", 1);
    let login = line(json!({"htpasswd": format!("alice:{hash}")}));
    let ids = import(&sidekey, &[plain(&strong(1)), login]).await;
    let value = bao.value(&format!("api_keys/acme/{}", ids[1])).await;
    assert_eq!(value, json!({"hashes": {"1": hash}}));
    let sidekey = sidekey.restart().await;
    assert_eq!(sidekey.status("/", &strong(1)).await, 200);
    assert_eq!(log_in(&sidekey, "alice", "wonderland").await, 200);
    assert_eq!(log_in(&sidekey, "alice", "Wonderland").await, 401);
    sidekey.revoke_key(&ids[1]).await;
    assert_eq!(log_in(&sidekey, "alice", "wonderland").await, 401);
}
