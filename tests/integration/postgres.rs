//! PostgreSQL for metadata: the same store as SQLite, several instances that act as one, and what
//! they do while the server is away.

use std::time::Duration;

use reqwest::Method;
use secrecy::SecretString;
use serde_json::json;
use sidekey::clock::Timestamp;
use sidekey::key::record::Standing;
use sidekey::key::{CredentialKind, Environment, Generation, KeyId, KeyOrigin, KeyRecord};
use sidekey::store::{
    Heartbeat, InstanceStore, KeyFilter, KeyOrder, KeyStore, PageFrom, Position, SqlStore,
    StoreError,
};
use tokio::time::timeout;

use crate::harness::api::Reply;
use crate::harness::noted;
use crate::harness::postgres::Postgres;
use crate::harness::sidekey::{KEYS, Key, Sidekey, config};
use crate::harness::upstream::Upstream;
use crate::harness::{DEADLINE, eventually};

pub fn record(number: i64) -> KeyRecord {
    let id: KeyId = format!("{number:012}").parse().unwrap();
    KeyRecord {
        id,
        tenant_id: if number % 2 == 0 { "even" } else { "odd" }
            .parse()
            .unwrap(),
        name: format!("Schlüssel {number}"),
        environment: Environment::Live,
        origin: KeyOrigin::Minted,
        credential: CredentialKind::Key,
        hint: "sk_live_..._...".to_owned(),
        scopes: vec!["orders:*".parse().unwrap()],
        rate_limits: None,
        allowed_ips: vec!["192.0.2.0/24".parse().unwrap()],
        contact_email: None,
        rotation_days: 90,
        metadata: serde_json::Map::from_iter([("note".to_owned(), json!("100 %"))]),
        standing: Standing::Active,
        created_at: Timestamp::from_millis(1_000 * number),
        updated_at: Timestamp::from_millis(1_000 * number),
        expires_at: None,
        revoked_at: None,
        secret_created_at: Timestamp::from_millis(0),
        generation: Generation::FIRST,
        previous: None,
        revision: 1,
    }
}

/// What every engine has to do in the same way.
async fn exercise(store: &SqlStore) {
    assert!(store.is_empty().await.unwrap());
    let first = record(1);
    store.insert_first(&first, &noted()).await.unwrap();
    let second = store.insert_first(&record(2), &noted()).await;
    assert!(matches!(second, Err(StoreError::Conflict)));
    assert_eq!(store.get(first.id).await.unwrap(), Some(first.clone()));
    assert_eq!(store.get(record(2).id).await.unwrap(), None);
    let again = store.insert(&first, &noted()).await;
    assert!(matches!(again, Err(StoreError::Conflict)));
    for number in 2..=9 {
        store.insert(&record(number), &noted()).await.unwrap();
    }

    // Changes are numbered, creations too; a write on an old revision changes nothing.
    assert_eq!(store.last_change().await.unwrap(), 9);
    let mut changed = first.clone();
    changed.revision = 2;
    changed.expires_at = Some(Timestamp::from_millis(5));
    changed.rate_limits = Some(vec![]);
    store.update(&changed, &noted()).await.unwrap();
    assert_eq!(store.get(first.id).await.unwrap(), Some(changed.clone()));
    let stale = store.update(&changed, &noted()).await;
    assert!(matches!(stale, Err(StoreError::Conflict)));
    let mut other = record(2);
    other.revision = 2;
    store.update(&other, &noted()).await.unwrap();
    let changes = store.changes_since(9).await.unwrap();
    let seen: Vec<_> = changes.iter().map(|c| (c.seq, c.key_id)).collect();
    assert_eq!(seen, [(10, first.id), (11, other.id)]);
    assert_eq!(store.changes_since(10).await.unwrap().len(), 1);
    assert_eq!(store.last_change().await.unwrap(), 11);
    store
        .forget_changes(Timestamp::from_millis(1_500))
        .await
        .unwrap();
    let left = store.changes_since(0).await.unwrap();
    let left: Vec<_> = left.iter().map(|c| c.seq).collect();
    assert_eq!(left, [2, 3, 4, 5, 6, 7, 8, 9, 11]);

    // Pages, newest first, with a filter and without.
    let mut filter = KeyFilter {
        tenant_id: Some("odd".parse().unwrap()),
        ..KeyFilter::default()
    };
    let newest = KeyOrder::NEWEST_FIRST;
    let page = store
        .page(&filter, newest, &PageFrom::Start, 2)
        .await
        .unwrap()
        .keys;
    let ids = |page: &[KeyRecord]| page.iter().map(|r| r.id).collect::<Vec<_>>();
    assert_eq!(ids(&page), [record(9).id, record(7).id]);
    let after = PageFrom::After(Position::behind(page[1].created_at, page[1].id));
    let page = store.page(&filter, newest, &after, 9).await.unwrap().keys;
    assert_eq!(ids(&page), [record(5).id, record(3).id, record(1).id]);
    filter.tenant_id = None;
    filter.text = Some("SCHLÜSSEL 3".to_owned().to_lowercase());
    assert_eq!(
        store
            .page(&filter, newest, &PageFrom::Start, 9)
            .await
            .unwrap()
            .keys
            .len(),
        1
    );
    store.ping().await.unwrap();
}

/// Instances that say that they live, and some that no longer do.
async fn exercise_instances(store: &SqlStore) {
    let beat = |id: &str, live_ms, serves_ms| Heartbeat {
        id: id.to_owned(),
        name: format!("name-{id}"),
        seen: 3,
        live_for: Duration::from_millis(live_ms),
        serves_for: Duration::from_millis(serves_ms),
    };
    let hour = 3_600_000;
    for beat in [
        beat("d", hour, hour),
        beat("live", hour, hour),
        beat("silent", 0, hour),
        beat("gone", 0, 0),
    ] {
        store.note_instance(&beat).await.unwrap();
    }
    let known = async || {
        let all = store.instances().await.unwrap();
        let each = all.into_iter().map(|one| (one.id, one.seen, one.is_live));
        each.collect::<Vec<_>>()
    };
    let one = |id: &str, seen, is_live| (id.to_owned(), seen, is_live);
    let expected = [
        one("d", 3, true),
        one("live", 3, true),
        one("silent", 3, false),
    ];
    eventually("some fall silent", || async { known().await == expected }).await;
    let mut again = beat("live", hour, hour);
    again.seen = 4;
    store.note_instance(&again).await.unwrap();
    store.forget_instance("d").await.unwrap();
    assert_eq!(
        known().await,
        [one("live", 4, true), one("silent", 3, false)]
    );
    store.forget_gone_instances().await.unwrap();
    store.forget_namesakes("new", "name-silent").await.unwrap();
    store.forget_namesakes("live", "name-live").await.unwrap();
    // A copied name takes nobody's row.
    store.forget_namesakes("new", "name-live").await.unwrap();
    assert_eq!(known().await, [one("live", 4, true)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn both_engines_do_the_same() {
    let directory = tempfile::tempdir().unwrap();
    let sqlite = format!("sqlite://{}/keys.db", directory.path().display());
    let postgres = Postgres::start().await;
    for url in [sqlite, postgres.url()] {
        let store = SqlStore::open(&SecretString::from(url)).await.unwrap();
        exercise(&store).await;
        exercise_instances(&store).await;
        store.close().await;
    }
}

/// Changes that are committed at the same time are numbered without gaps, in the order in which they
/// become visible: whoever follows them misses none.
#[tokio::test(flavor = "multi_thread")]
async fn no_change_is_missed_by_who_follows() {
    let postgres = Postgres::start().await;
    let url = SecretString::from(postgres.url());
    let store = SqlStore::open(&url).await.unwrap();
    for number in 0..8 {
        store.insert(&record(number), &noted()).await.unwrap();
    }
    let writers: Vec<_> = (0..8)
        .map(|number| {
            let store = store.clone();
            tokio::spawn(async move {
                for revision in 2..=30 {
                    let mut record = record(number);
                    record.revision = revision;
                    let mut is_again = false;
                    loop {
                        match store.update(&record, &noted()).await {
                            // On a busy machine the turn of one may not come in time.
                            Err(StoreError::Unavailable(_)) => is_again = true,
                            // It was written all the same.
                            Err(StoreError::Conflict) if is_again => break,
                            written => break written.unwrap(),
                        }
                    }
                }
            })
        })
        .collect();
    let follower = SqlStore::open(&url).await.unwrap();
    let mut seen = 0;
    let all = async {
        // Creations are changes too.
        while seen < 8 * 30 {
            for change in follower.changes_since(seen).await.unwrap() {
                assert_eq!(change.seq, seen + 1, "a gap");
                seen = change.seq;
            }
        }
    };
    let all = timeout(5 * DEADLINE, all);
    all.await.expect("all changes are seen");
    for writer in writers {
        writer.await.unwrap();
    }
}

/// Two instances on one database, with `more` in their configuration.
pub async fn pair(upstream: &Upstream, postgres: &Postgres, more: &str) -> [Sidekey; 2] {
    let config = config(upstream.address, more);
    let url = postgres.url();
    let environment = [("SIDEKEY__STORE__URL", url.as_str())];
    let (a, b) = tokio::join!(
        Sidekey::start_with(&config, &environment),
        Sidekey::start_with(&config, &environment)
    );
    // The one that was first has the admin key, whichever it was.
    if has_admin_key(&a) { [a, b] } else { [b, a] }
}

fn has_admin_key(sidekey: &Sidekey) -> bool {
    sidekey.directory().join("data/admin.key").exists()
}

async fn refused_soon(sidekey: &Sidekey, path: &str, key: &Key, status: u16) {
    eventually(&format!("{path} is {status}"), || async {
        sidekey.status(path, &key.text).await == status
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_instances_start_at_once_and_act_as_one() {
    let upstream = Upstream::start().await;
    let postgres = Postgres::start().await;
    let scoped = "[[routes]]\nname = \"write\"\npath = \"/write\"\nupstream = \"service\"\nscopes = [\"orders:write\"]\n";
    let [a, b] = pair(&upstream, &postgres, scoped).await;
    assert!(has_admin_key(&a) && !has_admin_key(&b), "one admin key");
    let key = a.create_key(json!({})).await;
    for instance in [&a, &b] {
        assert_eq!(instance.status("/write", &key.text).await, 200);
    }

    a.change_key(&key.id, json!({"scopes": ["orders:read"]}))
        .await;
    assert_eq!(a.status("/write", &key.text).await, 403);
    refused_soon(&b, "/write", &key, 403).await;
    a.change_key(&key.id, json!({"status": "disabled"})).await;
    refused_soon(&b, "/", &key, 401).await;
    a.change_key(&key.id, json!({"status": "active"})).await;
    refused_soon(&b, "/", &key, 200).await;
    let new = a.regenerate_key(&key.id, 0).await;
    assert_eq!(b.status("/", &new.text).await, 200);
    refused_soon(&b, "/", &key, 401).await;
    // By way of the other one, with the first one's admin key.
    let revoked = b
        .ask_as(
            Some(&a.admin_key()),
            Method::DELETE,
            &format!("{KEYS}/{}", key.id),
            None,
        )
        .await;
    assert_eq!(revoked.status, 204);
    refused_soon(&a, "/", &new, 401).await;
    let runs = b.metric("sidekey_bcrypt_runs_total").await;
    assert!(runs <= 4.0, "changes cost no bcrypt: {runs}");
}

async fn create(sidekey: &Sidekey) -> Reply {
    let body =
        json!({"name": "k", "tenant_id": "acme", "environment": "live", "scopes": ["orders:read"]});
    sidekey.ask(Method::POST, KEYS, Some(&body)).await
}

/// Killed, or hanging: warm keys are served, cold ones and writes are 503, and afterwards everything
/// works as before.
#[tokio::test(flavor = "multi_thread")]
async fn while_the_database_is_away_warm_keys_are_served() {
    let upstream = Upstream::start().await;
    let mut postgres = Postgres::start().await;
    let [sidekey, _other] = pair(&upstream, &postgres, "").await;
    let warm = sidekey.create_key(json!({})).await;
    assert_eq!(sidekey.status("/", &warm.text).await, 200);
    for way in ["killed", "hanging"] {
        let cold = sidekey.create_key(json!({})).await;
        if way == "killed" {
            postgres.kill();
        } else {
            postgres.signal("STOP");
        }
        let refused = sidekey.get("/", &cold.text).await;
        assert_eq!(refused.status(), 503, "{way}");
        assert!(refused.headers().contains_key("retry-after"), "{way}");
        assert_eq!(sidekey.status("/", &warm.text).await, 200, "{way}");
        assert_eq!(create(&sidekey).await.status, 503, "{way}");
        let ready = sidekey.ask_as(None, Method::GET, "/readyz", None).await;
        assert_eq!(ready.status, 503, "{way}");
        eventually("the metric tells", || async {
            sidekey.metric("sidekey_store_up").await == 0.0
        })
        .await;
        if way == "killed" {
            postgres.launch().await;
        } else {
            postgres.signal("CONT");
        }
        refused_soon(&sidekey, "/", &cold, 200).await;
        eventually("keys can be made", || async {
            create(&sidekey).await.status == 201
        })
        .await;
        eventually("the metric tells", || async {
            sidekey.metric("sidekey_store_up").await == 1.0
        })
        .await;
    }
}

/// Past `store.max_stale_seconds`, nobody can say any more what a key may do. A busy machine
/// may need some of them before anything is away.
#[tokio::test(flavor = "multi_thread")]
async fn records_that_got_too_old_are_not_trusted() {
    let upstream = Upstream::start().await;
    let mut postgres = Postgres::start().await;
    let [sidekey, _other] = pair(&upstream, &postgres, "[store]\nmax_stale_seconds = 15\n").await;
    let key = sidekey.create_key(json!({})).await;
    assert_eq!(sidekey.status("/", &key.text).await, 200);
    postgres.kill();
    refused_soon(&sidekey, "/", &key, 503).await;
    postgres.launch().await;
    refused_soon(&sidekey, "/", &key, 200).await;
}
