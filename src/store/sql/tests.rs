//! Tests of the SQL store, on SQLite.

use std::sync::atomic::{AtomicI64, Ordering};

use super::super::Position;
use super::*;
use crate::audit::tests::noted;
use crate::clock::Timestamp;
use crate::key::record::{PreviousSecret, Standing, tests::record};
use crate::key::{Environment, Generation, Policy, Status};

async fn store(directory: &tempfile::TempDir) -> SqlStore {
    let url = format!("sqlite://{}/deep/er/keys.db", directory.path().display());
    SqlStore::open(&SecretString::from(url)).await.unwrap()
}

fn numbered(n: i64) -> KeyRecord {
    let mut key = record();
    key.id = format!("key{n:09}").parse().unwrap();
    key.created_at = Timestamp::from_millis(1000 + n / 2);
    key.name = format!("Key_{n}");
    key
}

#[tokio::test]
async fn a_record_survives_with_every_field() {
    let directory = tempfile::tempdir().unwrap();
    let mut key = record();
    key.name = "Ümläut \u{1F511} 'quoted' \"and\"".to_owned();
    key.environment = Environment::Test;
    key.rate_limits = Some(vec![Policy {
        name: "p".into(),
        quota: 1,
        window_seconds: 2,
        burst: Some(3),
    }]);
    key.allowed_ips = vec!["10.0.0.0/8".parse().unwrap(), "::1/128".parse().unwrap()];
    key.contact_email = Some("a@b.example".into());
    key.metadata
        .insert("team".into(), serde_json::json!({"a": [1, null]}));
    key.expires_at = Some(Timestamp::MAX);
    key.revoked_at = Some(Timestamp::from_millis(7));
    key.previous = Some(PreviousSecret {
        generation: Generation(1),
        valid_until: Timestamp::from_millis(9),
    });
    key.generation = Generation(2);
    let plain = {
        let mut k = record();
        k.id = "000000000000".parse().unwrap();
        k
    };
    let first = store(&directory).await;
    first.insert(&key, &noted()).await.unwrap();
    first.insert(&plain, &noted()).await.unwrap();
    first.close().await;
    let again = store(&directory).await;
    assert_eq!(again.get(key.id).await.unwrap(), Some(key));
    assert_eq!(again.get(plain.id).await.unwrap(), Some(plain));
    assert_eq!(
        again.get("unknownkeyid".parse().unwrap()).await.unwrap(),
        None
    );
}

/// On one thread, so that none of them is stopped on its way back into the queue while others go on.
#[tokio::test]
async fn writers_wait_in_turn() {
    const WRITERS: i64 = 12;
    const WRITES: i64 = 40;
    /// Whose turn it is when the first one is done is chance.
    const BEHIND_MAX: i64 = 4;
    let directory = tempfile::tempdir().unwrap();
    let store = store(&directory).await;
    let done: Arc<Vec<AtomicI64>> = Arc::new((0..WRITERS).map(|_| AtomicI64::new(0)).collect());
    let writers = (0..WRITERS).map(|writer| {
        let (store, done) = (store.clone(), done.clone());
        tokio::spawn(async move {
            for n in 0..WRITES {
                let key = numbered(writer * WRITES + n);
                store.insert(&key, &noted()).await.unwrap();
                done[usize::try_from(writer).unwrap()].fetch_add(1, Ordering::SeqCst);
            }
            done.iter().map(|n| n.load(Ordering::SeqCst)).min()
        })
    });
    let least = futures_util::future::join_all(writers.collect::<Vec<_>>()).await;
    let least = least.into_iter().map(|least| least.unwrap().unwrap()).min();
    assert!(least >= Some(WRITES - BEHIND_MAX), "{least:?}");
}

#[tokio::test]
async fn the_file_is_its_owners_only() {
    use std::os::unix::fs::PermissionsExt;
    let directory = tempfile::tempdir().unwrap();
    let store = store(&directory).await;
    store.insert(&record(), &noted()).await.unwrap();
    let files: Vec<_> = std::fs::read_dir(directory.path().join("deep/er"))
        .unwrap()
        .collect();
    assert!(files.len() >= 2, "the database and its write-ahead log");
    for file in files {
        let file = file.unwrap();
        assert_eq!(
            file.metadata().unwrap().permissions().mode() & 0o777,
            0o600,
            "{file:?}"
        );
    }
}

#[tokio::test]
async fn a_stale_write_is_a_conflict() {
    let directory = tempfile::tempdir().unwrap();
    let store = store(&directory).await;
    let mut key = record();
    store.insert(&key, &noted()).await.unwrap();
    assert!(matches!(
        store.insert(&key, &noted()).await,
        Err(StoreError::Conflict)
    ));
    key.revision = 2;
    key.name = "two".into();
    store.update(&key, &noted()).await.unwrap();
    assert!(matches!(
        store.update(&key, &noted()).await,
        Err(StoreError::Conflict)
    ));
    assert_eq!(store.get(key.id).await.unwrap().unwrap().name, "two");
}

#[tokio::test]
async fn pages_have_every_key_once_also_while_keys_are_added() {
    let directory = tempfile::tempdir().unwrap();
    let store = store(&directory).await;
    for n in 0..25 {
        store.insert(&numbered(n), &noted()).await.unwrap();
    }
    let (mut seen, mut from) = (Vec::new(), PageFrom::Start);
    loop {
        let page = store
            .page(&KeyFilter::default(), KeyOrder::NEWEST_FIRST, &from, 10)
            .await
            .unwrap()
            .keys;
        let Some(last) = page.last() else { break };
        from = PageFrom::After(Position::behind(last.created_at, last.id));
        seen.extend(page.iter().map(|key| key.id));
        let newer = 1000 + i64::try_from(seen.len()).unwrap();
        store.insert(&numbered(newer), &noted()).await.unwrap();
    }
    let expected: Vec<KeyId> = (0..25).rev().map(|n| numbered(n).id).collect();
    assert_eq!(seen, expected);
}

#[tokio::test]
async fn filters_select() {
    let directory = tempfile::tempdir().unwrap();
    let store = store(&directory).await;
    let now = Timestamp::from_millis(50_000);
    for (n, change) in [
        (0, (|_| {}) as fn(&mut KeyRecord)),
        (1, |key| key.standing = Standing::Disabled),
        (2, |key| key.standing = Standing::Revoked),
        (3, |key| {
            key.expires_at = Some(Timestamp::from_millis(50_000))
        }),
        (4, |key| {
            key.expires_at = Some(Timestamp::from_millis(50_001))
        }),
        (5, |key| key.tenant_id = "other".parse().unwrap()),
        (6, |key| key.environment = Environment::Test),
        (7, |key| key.name = "100% sure".into()),
    ] {
        let mut key = numbered(n);
        change(&mut key);
        store.insert(&key, &noted()).await.unwrap();
    }
    let ids = async |filter: KeyFilter| -> Vec<i64> {
        let page = store.page(&filter, KeyOrder::NEWEST_FIRST, &PageFrom::Start, 100);
        let page = page.await.unwrap().keys;
        page.iter()
            .map(|key| key.id.as_str()[3..].parse().unwrap())
            .collect()
    };
    let status = |status| KeyFilter {
        status: Some((status, now)),
        ..KeyFilter::default()
    };
    let text = |text: &str| KeyFilter {
        text: Some(text.into()),
        ..KeyFilter::default()
    };
    assert_eq!(ids(status(Status::Active)).await, [7, 6, 5, 4, 0]);
    assert_eq!(ids(status(Status::Disabled)).await, [1]);
    assert_eq!(ids(status(Status::Revoked)).await, [2]);
    assert_eq!(ids(status(Status::Expired)).await, [3]);
    let tenant = KeyFilter {
        tenant_id: Some("other".parse().unwrap()),
        ..KeyFilter::default()
    };
    assert_eq!(ids(tenant).await, [5]);
    let test = KeyFilter {
        environment: Some(Environment::Test),
        ..KeyFilter::default()
    };
    assert_eq!(ids(test).await, [6]);
    assert_eq!(ids(text("100%")).await, [7]);
    assert_eq!(ids(text("KEY_3")).await, [3]);
    assert_eq!(ids(text("00006")).await, [6]);
    assert!(ids(text("x' OR '1'='1")).await.is_empty());
}
