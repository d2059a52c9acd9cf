//! Tenants in the store, the same on both engines, and whoever else writes keys.

use futures_util::future::join_all;
use secrecy::{ExposeSecret, SecretString};
use sidekey::clock::Timestamp;
use sidekey::key::record::Standing;
use sidekey::key::tenant::TenantStanding;
use sidekey::key::{KeyRecord, Policy, TenantId, TenantRecord, TenantSettings};
use sidekey::store::tenants::page_statement;
use sidekey::store::{KeyStore, SqlStore, StoreError, TenantFilter, TenantStore};
use sqlx::{AnyPool, AssertSqlSafe, Row};

use crate::harness::noted;
use crate::harness::postgres::Postgres;
use crate::postgres::record;

struct Engines {
    urls: [SecretString; 2],
    _directory: tempfile::TempDir,
    _postgres: Postgres,
}

async fn engines() -> Engines {
    let directory = tempfile::tempdir().unwrap();
    let sqlite = format!("sqlite://{}/keys.db", directory.path().display());
    let postgres = Postgres::start().await;
    Engines {
        urls: [sqlite, postgres.url()].map(SecretString::from),
        _directory: directory,
        _postgres: postgres,
    }
}

fn id(text: &str) -> TenantId {
    text.parse().unwrap()
}

fn key(number: i64, tenant: &str) -> KeyRecord {
    KeyRecord {
        tenant_id: id(tenant),
        ..record(number)
    }
}

fn tenant(text: &str, settings: TenantSettings) -> TenantRecord {
    TenantRecord::new(id(text), settings, Timestamp::from_millis(7_000))
}

fn capped(max_keys: u64) -> TenantSettings {
    TenantSettings {
        max_keys: Some(max_keys),
        ..TenantSettings::default()
    }
}

async fn count(store: &SqlStore, tenant: &str) -> Option<u64> {
    let row = store.tenant(&id(tenant)).await.unwrap();
    row.map(|tenant| tenant.key_count)
}

async fn revoke(store: &SqlStore, mut key: KeyRecord) -> KeyRecord {
    key.standing = Standing::Revoked;
    key.revision += 1;
    store.update(&key, &noted()).await.unwrap();
    key
}

async fn by_hand(url: &SecretString, statements: &[&'static str]) {
    sqlx::any::install_default_drivers();
    let pool = AnyPool::connect(url.expose_secret()).await.unwrap();
    for statement in statements {
        sqlx::raw_sql(*statement).execute(&pool).await.unwrap();
    }
    pool.close().await;
}

/// Writing, reading, conflicts, and a place among the changes.
#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_survives_with_every_field() {
    let engines = engines().await;
    for url in &engines.urls {
        let store = SqlStore::open(url).await.unwrap();
        let mut acme = tenant(
            "acme",
            TenantSettings {
                display_name: Some("Ümläut 'quoted' \u{1F511}".to_owned()),
                contact_email: Some("a@b.example".to_owned()),
                rate_limits: vec![Policy {
                    name: "day".to_owned(),
                    quota: 5,
                    window_seconds: 60,
                    burst: Some(2),
                }],
                max_keys: Some(3),
            },
        );
        assert_eq!(store.tenant(&acme.id).await.unwrap(), None);
        store.insert_tenant(&acme, &noted()).await.unwrap();
        let again = store.insert_tenant(&acme, &noted()).await;
        assert!(matches!(again, Err(StoreError::Conflict)));
        assert_eq!(store.tenant(&acme.id).await.unwrap(), Some(acme.clone()));

        store.insert(&key(1, "acme"), &noted()).await.unwrap();
        acme.settings = TenantSettings::default();
        acme.standing = TenantStanding::Suspended;
        acme.updated_at = Timestamp::from_millis(9_000);
        acme.revision = 2;
        assert_eq!(store.update_tenant(&acme, &noted()).await.unwrap(), 1);
        let stale = store.update_tenant(&acme, &noted()).await;
        assert!(matches!(stale, Err(StoreError::Conflict)));
        acme.key_count = 1;
        assert_eq!(store.tenant(&acme.id).await.unwrap(), Some(acme.clone()));

        let changes = store.changes_since(0).await.unwrap();
        let changed: Vec<_> = changes.iter().map(|c| c.tenant_id.clone()).collect();
        assert_eq!(changed, [Some(id("acme")), None, Some(id("acme"))]);
        // Who knows of keys alone looks for one that is not there.
        assert_eq!(store.get(changes[0].key_id).await.unwrap(), None);
        store.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_have_every_tenant_once_in_the_order_of_ids() {
    let engines = engines().await;
    for url in &engines.urls {
        let store = SqlStore::open(url).await.unwrap();
        let mut ids: Vec<String> = (0..23).map(|n| format!("t{n}")).collect();
        ids.extend(["B", "a", "Z.z", "a-b", "a_b", "9"].map(str::to_owned));
        for (number, text) in ids.iter().enumerate() {
            let name = format!("100% No_{number}");
            let settings = TenantSettings {
                display_name: (number % 2 == 0).then_some(name),
                ..TenantSettings::default()
            };
            let mut record = tenant(text, settings);
            if number % 3 == 0 {
                record.standing = TenantStanding::Suspended;
            }
            store.insert_tenant(&record, &noted()).await.unwrap();
        }
        let all = async |filter: &TenantFilter, limit| {
            let (mut seen, mut after) = (Vec::new(), None);
            loop {
                let page = store.tenants(filter, after.as_ref(), limit).await.unwrap();
                assert!(page.tenants.len() <= limit);
                seen.extend(page.tenants.into_iter().map(|t| t.id.to_string()));
                match page.next {
                    Some(next) => after = Some(next),
                    None => return seen,
                }
            }
        };
        let numbered = ids.iter().enumerate();
        let mut suspended: Vec<String> = numbered
            .clone()
            .filter(|(n, _)| n % 3 == 0)
            .map(|(_, id)| id.clone())
            .collect();
        suspended.sort();
        ids.sort();
        for limit in [1, 7, 29, 1000] {
            assert_eq!(all(&TenantFilter::default(), limit).await, ids);
            let filter = TenantFilter {
                standing: Some(TenantStanding::Suspended),
                ..TenantFilter::default()
            };
            assert_eq!(all(&filter, limit).await, suspended, "{limit}");
            for (text, expected) in [
                ("100% nO_", 15),
                ("No_22", 1),
                ("z.Z", 1),
                ("' OR 1", 0),
                ("a_b", 1),
            ] {
                let filter = TenantFilter {
                    text: Some(text.to_owned()),
                    ..TenantFilter::default()
                };
                assert_eq!(all(&filter, limit).await.len(), expected, "{text}");
            }
        }
        store.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_counted_and_capped() {
    let engines = engines().await;
    for url in &engines.urls {
        let store = SqlStore::open(url).await.unwrap();
        assert_eq!(count(&store, "acme").await, None);
        store.insert_first(&key(1, "acme"), &noted()).await.unwrap();
        store.insert(&key(2, "acme"), &noted()).await.unwrap();
        store.insert(&key(3, "other"), &noted()).await.unwrap();
        let again = store.insert(&key(3, "acme"), &noted()).await;
        assert!(matches!(again, Err(StoreError::Conflict)));
        let first = store.insert_first(&key(4, "acme"), &noted()).await;
        assert!(matches!(first, Err(StoreError::Conflict)));
        assert_eq!(count(&store, "acme").await, Some(2));
        assert_eq!(count(&store, "other").await, Some(1));
        // Made with a key, a row has no limits, and is there before anybody sets it.
        let mut acme = store.tenant(&id("acme")).await.unwrap().unwrap();
        assert_eq!(
            (acme.revision, &acme.settings),
            (1, &TenantSettings::default())
        );

        acme.settings = capped(2);
        acme.revision = 2;
        store.update_tenant(&acme, &noted()).await.unwrap();
        let full = store.insert(&key(5, "acme"), &noted()).await;
        assert!(matches!(full, Err(StoreError::TooManyKeys { max: 2 })));
        assert_eq!(store.get(key(5, "acme").id).await.unwrap(), None);
        assert_eq!(store.changes_since(0).await.unwrap().len(), 4);
        store.insert(&key(6, "other"), &noted()).await.unwrap();

        let mut renamed = key(1, "acme");
        renamed.name = "renamed".to_owned();
        renamed.standing = Standing::Disabled;
        renamed.revision = 2;
        store.update(&renamed, &noted()).await.unwrap();
        assert_eq!(count(&store, "acme").await, Some(2));
        let gone = revoke(&store, renamed).await;
        assert_eq!(count(&store, "acme").await, Some(1));
        // A write on an old revision counts nothing, nor does one of a key that is revoked already.
        store.update(&gone, &noted()).await.unwrap_err();
        revoke(&store, gone).await;
        assert_eq!(count(&store, "acme").await, Some(1));
        store.insert(&key(5, "acme"), &noted()).await.unwrap();
        store.insert(&key(7, "acme"), &noted()).await.unwrap_err();
        assert_eq!(count(&store, "acme").await, Some(2));
        store.close().await;
    }
}

/// Whoever comes at the same time: exactly as many as the cap allows, and the count is right while keys
/// are made and revoked.
#[tokio::test(flavor = "multi_thread")]
async fn the_cap_holds_for_those_who_come_at_once() {
    const MAX: u64 = 5;
    let engines = engines().await;
    for url in &engines.urls {
        let stores = [
            SqlStore::open(url).await.unwrap(),
            SqlStore::open(url).await.unwrap(),
        ];
        let acme = tenant("acme", capped(MAX));
        stores[0].insert_tenant(&acme, &noted()).await.unwrap();
        let insert = async |number: i64| {
            let store = &stores[usize::try_from(number).unwrap() % 2];
            match store.insert(&key(number, "acme"), &noted()).await {
                Ok(()) => Some(number),
                Err(StoreError::TooManyKeys { max: MAX }) => None,
                Err(other) => panic!("{other}"),
            }
        };
        let made = join_all((0..24).map(&insert)).await;
        let made: Vec<i64> = made.into_iter().flatten().collect();
        assert_eq!(made.len() as u64, MAX);
        assert_eq!(count(&stores[0], "acme").await, Some(MAX));
        // As many more as are revoked at the same time, at most.
        let revoked = made[..3].iter().map(|number| {
            let store = &stores[usize::try_from(*number + 1).unwrap() % 2];
            revoke(store, key(*number, "acme"))
        });
        // While the tenant is set again and again: nobody waits for one who waits for him.
        let set = async {
            for revision in 2..20 {
                let mut again = acme.clone();
                again.settings.display_name = Some(format!("Acme {revision}"));
                again.revision = revision;
                stores[0].update_tenant(&again, &noted()).await.unwrap();
            }
        };
        let inserted = join_all((24..40).map(&insert));
        let (_, more, ()) = tokio::join!(join_all(revoked), inserted, set);
        let more = more.into_iter().flatten().count() as u64;
        assert!(more <= 3, "{more}");
        assert_eq!(count(&stores[0], "acme").await, Some(MAX - 3 + more));
        for store in stores {
            store.close().await;
        }
    }
}

/// What a page costs depends on its length: each is a range of one index.
#[tokio::test(flavor = "multi_thread")]
async fn pages_are_read_by_their_index() {
    let engines = engines().await;
    let indexes = [
        ["sqlite_autoindex_tenants_1", "tenants_by_standing"],
        ["tenants_pkey", "tenants_by_standing"],
    ];
    let ways = ["EXPLAIN QUERY PLAN", "EXPLAIN"];
    for ((url, indexes), how) in engines.urls.iter().zip(indexes).zip(ways) {
        let store = SqlStore::open(url).await.unwrap();
        for (of_standing, index) in [(false, indexes[0]), (true, indexes[1])] {
            let sql = format!("{how} {}", page_statement(of_standing, 50));
            let mut query = sqlx::query(AssertSqlSafe(sql)).bind("acme");
            if of_standing {
                query = query.bind("active");
            }
            let rows = query.fetch_all(store.readers()).await.unwrap();
            let column = if how == "EXPLAIN" { 0 } else { 3 };
            let lines: Vec<String> = rows.iter().map(|row| row.get(column)).collect();
            let plan = lines.join("\n");
            assert!(plan.contains(index), "{plan}");
            assert!(
                !plan.contains("Sort") && !plan.contains("TEMP B-TREE"),
                "{plan}"
            );
        }
        store.close().await;
    }
}

/// The first keys of a new tenant, all at once: one row, and all are counted.
#[tokio::test(flavor = "multi_thread")]
async fn a_new_tenants_first_keys_make_one_row() {
    let engines = engines().await;
    for url in &engines.urls {
        let stores = [
            SqlStore::open(url).await.unwrap(),
            SqlStore::open(url).await.unwrap(),
        ];
        let keys: Vec<_> = (0..12).map(|number| key(number, "new")).collect();
        let note = noted();
        let made = keys.iter().zip(stores.iter().cycle());
        let made = join_all(made.map(|(key, store)| store.insert(key, &note))).await;
        assert!(made.iter().all(Result::is_ok), "{made:?}");
        assert_eq!(count(&stores[0], "new").await, Some(12));
        for store in stores {
            store.close().await;
        }
    }
}

/// How a version that knows nothing of tenants writes keys.
const OLD_INSERT: &str = "INSERT INTO api_keys (id, tenant_id, name, environment, hint, scopes, \
    rate_limits, allowed_ips, contact_email, rotation_days, metadata, standing, created_at, updated_at, \
    expires_at, revoked_at, secret_created_at, generation, previous_generation, previous_valid_until, \
    revision, search_revision, lapsed, search) VALUES ('oldversion01', 'acme', 'k', 'live', 'h', '[]', \
    NULL, '[]', NULL, 90, '{}', 'active', 1, 1, NULL, NULL, 1, 1, NULL, NULL, 1, 1, 'no', 'k')";
const OLD_CHANGE: &str =
    "INSERT INTO key_changes (seq, key_id, changed_at) VALUES (1000, 'oldversion01', 1)";
const OLD_REVOCATION: &str = "UPDATE api_keys SET standing = 'revoked', name = 'k', revision = 2 \
    WHERE id = 'oldversion01' AND revision = 1";
const OLD_EDIT: &str = "UPDATE api_keys SET standing = 'revoked', name = 'l', revision = 3 \
    WHERE id = 'oldversion01' AND revision = 2";

/// While instances are brought up to date, the older ones write keys too: the counts are right at any
/// moment.
#[tokio::test(flavor = "multi_thread")]
async fn what_older_versions_write_is_counted_too() {
    let engines = engines().await;
    for url in &engines.urls {
        let store = SqlStore::open(url).await.unwrap();
        by_hand(url, &[OLD_INSERT, OLD_CHANGE]).await;
        assert_eq!(count(&store, "acme").await, Some(1));
        let changes = store.changes_since(999).await.unwrap();
        assert_eq!(changes[0].tenant_id, None);
        store.insert(&key(1, "acme"), &noted()).await.unwrap();
        assert_eq!(count(&store, "acme").await, Some(2));
        by_hand(url, &[OLD_REVOCATION, OLD_EDIT]).await;
        assert_eq!(count(&store, "acme").await, Some(1));
        by_hand(url, &["DELETE FROM api_keys"]).await;
        assert_eq!(count(&store, "acme").await, Some(0));
        store.close().await;
    }
}

/// The schema as it was before tenants.
const BEFORE: [&str; 4] = [
    "DROP TABLE tenants",
    "ALTER TABLE key_changes DROP COLUMN tenant_id",
    "DELETE FROM _sqlx_migrations WHERE version = 7",
    OLD_CHANGE,
];
const UNCOUNTED: [&[&str]; 2] = [
    &[
        "DROP TRIGGER api_keys_count_inserted",
        "DROP TRIGGER api_keys_count_updated",
        "DROP TRIGGER api_keys_count_deleted",
    ],
    &[
        "DROP FUNCTION count_inserted_keys() CASCADE",
        "DROP FUNCTION count_changed_key() CASCADE",
    ],
];

#[tokio::test(flavor = "multi_thread")]
async fn tenants_that_have_keys_get_rows_with_the_update() {
    let engines = engines().await;
    for (url, uncounted) in engines.urls.iter().zip(UNCOUNTED) {
        let store = SqlStore::open(url).await.unwrap();
        for number in 1..=7 {
            let tenant = if number % 3 == 0 { "other" } else { "acme" };
            store.insert(&key(number, tenant), &noted()).await.unwrap();
        }
        revoke(&store, key(1, "acme")).await;
        revoke(&store, key(3, "other")).await;
        revoke(&store, key(6, "other")).await;
        store.close().await;
        by_hand(url, uncounted).await;
        by_hand(url, &BEFORE).await;

        let store = SqlStore::open(url).await.unwrap();
        let page = store.tenants(&TenantFilter::default(), None, 10).await;
        let page = page.unwrap().tenants;
        let rows: Vec<_> = page
            .iter()
            .map(|tenant| (tenant.id.as_str(), tenant.key_count, tenant.revision))
            .collect();
        assert_eq!(rows, [("acme", 4, 1), ("other", 0, 1)]);
        assert_eq!(page[0].created_at, Timestamp::from_millis(1_000));
        store.insert(&key(8, "acme"), &noted()).await.unwrap();
        assert_eq!(count(&store, "acme").await, Some(5));
        store.close().await;
    }
}
