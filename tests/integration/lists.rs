//! Lists on both engines: what they find, how engines read them, and rows that other versions wrote.

use std::collections::BTreeSet;

use secrecy::{ExposeSecret, SecretString};
use sidekey::clock::Timestamp;
use sidekey::key::record::Standing;
use sidekey::key::{Environment, KeyRecord, Status};
use sidekey::store::few::FEW_MAX;
use sidekey::store::list::{self, Bind, EXAMINED_MAX, Statement};
use sidekey::store::sql::POSTGRES_SETTINGS;
use sidekey::store::{KeyFilter, KeyOrder, KeyStore, PageFrom, Position, SortBy, SqlStore, Value};
use sqlx::any::AnyRow;
use sqlx::{AnyPool, AssertSqlSafe, Row};

use self::fill::{STEP_MS, fill, fill_uses, now};
use crate::harness::noted;
use crate::harness::postgres::Postgres;
use crate::postgres::record;

#[path = "../../benches/store/fill.rs"]
pub mod fill;

/// The parts of a list of all keys.
const PARTS_MAX: u64 = 12;
/// Enough for a wrong plan to show.
pub const MANY: u64 = 20_000;

/// A store of each engine, and what it lives in.
pub async fn stores() -> (tempfile::TempDir, Postgres, [SecretString; 2]) {
    let directory = tempfile::tempdir().unwrap();
    let sqlite = format!("sqlite://{}/keys.db", directory.path().display());
    let postgres = Postgres::start().await;
    let urls = [sqlite, postgres.url()].map(SecretString::from);
    (directory, postgres, urls)
}

pub fn filters(now: Timestamp) -> Vec<KeyFilter> {
    let mut filters = Vec::new();
    let tenants = [None, Some("big"), Some("old"), Some("t17"), Some("nobody")];
    for tenant in tenants {
        for status in [None].into_iter().chain(Status::ALL.map(Some)) {
            for environment in [None, Some(Environment::Live), Some(Environment::Test)] {
                filters.push(KeyFilter {
                    tenant_id: tenant.map(|tenant| tenant.parse().unwrap()),
                    status: status.map(|status| (status, now)),
                    environment,
                    ..KeyFilter::default()
                });
            }
        }
    }
    filters
}

/// The same for keys that expire before some moments, and for keys that were not used since.
pub fn with_moments(filters: Vec<KeyFilter>, moments: [i64; 3]) -> Vec<KeyFilter> {
    let [early, middle, late] = moments.map(Timestamp::from_millis);
    let pairs = [
        (Some(early), None),
        (Some(late), None),
        (None, Some(early)),
        (None, Some(middle)),
        (Some(late), Some(late)),
    ];
    let with = |filter: &KeyFilter, (expiring_before, unused_since)| KeyFilter {
        expiring_before,
        unused_since,
        ..filter.clone()
    };
    let all = filters.iter();
    all.flat_map(|filter| pairs.map(|pair| with(filter, pair)))
        .collect()
}

pub fn with_texts(filters: Vec<KeyFilter>) -> Vec<KeyFilter> {
    let texts = ["service", "Partner", "needle", "9999", "3141592653", "9 "];
    let with = |filter: &KeyFilter, text: &str| KeyFilter {
        text: Some(text.to_owned()),
        ..filter.clone()
    };
    let all = filters.iter();
    all.flat_map(|filter| texts.map(|text| with(filter, text)))
        .collect()
}

/// A number that decides everything about a key, differently for each.
pub fn mixed(number: i64) -> KeyRecord {
    let mut key = record(number);
    let pick = (number * 7_919) % 1_000;
    key.tenant_id = ["big", "big", "old", "t17"][(pick % 4) as usize]
        .parse()
        .unwrap();
    key.environment = [Environment::Live, Environment::Test][usize::from(pick % 11 == 0)];
    key.standing = [
        Standing::Active,
        Standing::Active,
        Standing::Disabled,
        Standing::Revoked,
    ][(pick / 7 % 4) as usize];
    // Several in a millisecond, and some whose time is over since they were written.
    key.created_at = Timestamp::from_millis(number / 3);
    key.updated_at = key.created_at;
    key.secret_created_at = Timestamp::from_millis(pick % 50);
    key.rotation_days = u32::try_from(1 + pick % 3).unwrap();
    key.expires_at =
        [None, Some(0), Some(500), Some(900)][(pick / 3 % 4) as usize].map(Timestamp::from_millis);
    key.name = [
        "Partner service 9",
        "ÖRTLICHE needle",
        "100%_sure 9999!",
        "x",
        "PARTNER service 9",
    ][(pick / 5 % 5) as usize]
        .to_owned();
    key
}

/// When the secrets of the key with this number were last used, by generation.
pub fn uses(number: i64) -> Vec<i64> {
    match number % 4 {
        0 => vec![],
        1 => vec![number / 3 + 10],
        2 => vec![number / 3 + 2, number / 3],
        _ => vec![number / 3, number / 3 + 40],
    }
}

pub async fn use_keys(url: &SecretString, keys: &[KeyRecord]) {
    let pool = AnyPool::connect(url.expose_secret()).await.unwrap();
    for key in keys {
        let number: i64 = key.id.as_str()[3..].parse().unwrap();
        for (generation, moment) in uses(number).into_iter().enumerate() {
            let insert = "INSERT INTO key_uses (key_id, generation, last_used_at, last_used_ip) \
                          VALUES ($1, $2, $3, '192.0.2.1')";
            sqlx::query(insert)
                .bind(key.id.to_string())
                .bind(i64::try_from(generation).unwrap())
                .bind(moment)
                .execute(&pool)
                .await
                .unwrap();
        }
    }
    pool.close().await;
}

fn is_due(key: &KeyRecord, filter: &KeyFilter) -> bool {
    let number: i64 = key.id.as_str()[3..].parse().unwrap();
    let expires = |moment| key.expires_at.is_some_and(|end| end < moment);
    let is_unused = |moment: Timestamp| {
        let last = uses(number).into_iter().max();
        key.created_at < moment && last.is_none_or(|last| last < moment.as_millis())
    };
    filter.expiring_before.is_none_or(expires) && filter.unused_since.is_none_or(is_unused)
}

pub fn matches(key: &KeyRecord, filter: &KeyFilter) -> bool {
    let text = filter.text.as_deref().unwrap_or_default().to_lowercase();
    let id = key.id.to_string().to_lowercase();
    filter
        .tenant_id
        .as_ref()
        .is_none_or(|tenant| *tenant == key.tenant_id)
        && filter
            .environment
            .is_none_or(|environment| environment == key.environment)
        && filter
            .status
            .is_none_or(|(status, now)| key.status(now) == status)
        && is_due(key, filter)
        && (key.name.to_lowercase().contains(&text) || id.contains(&text))
}

/// All pages of `limit` keys.
pub async fn read_all(store: &SqlStore, filter: &KeyFilter, limit: usize) -> Vec<String> {
    let (mut ids, mut from) = (Vec::new(), PageFrom::Start);
    loop {
        let order = KeyOrder::NEWEST_FIRST;
        let page = store.page(filter, order, &from, limit).await.unwrap();
        assert!(page.keys.len() <= limit);
        ids.extend(page.keys.iter().map(|key| key.id.to_string()));
        match page.next {
            Some(next) => from = PageFrom::After(next),
            None => return ids,
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_filter_finds_what_it_should_in_order() {
    let (_directory, _postgres, urls) = stores().await;
    let now = Timestamp::from_millis(600);
    let mut keys: Vec<KeyRecord> = (0..300).map(mixed).collect();
    keys.sort_by_key(|key| std::cmp::Reverse((key.created_at, key.id.to_string())));
    for url in urls {
        let store = SqlStore::open(&url).await.unwrap();
        for key in &keys {
            store.insert(key, &noted()).await.unwrap();
        }
        use_keys(&url, &keys).await;
        let mut filters = filters(now);
        let with_moments = with_moments(filters.clone(), [30, 60, 901]);
        filters.extend(with_texts(filters.clone()));
        filters.extend(with_texts(with_moments[..10].to_vec()));
        filters.extend(with_moments.into_iter().step_by(2));
        for text in ["%", "100%_", "örtlich", "ÖRTLICH", "", "\n", "\0", "0001"] {
            let text = Some(text.to_owned());
            filters.push(KeyFilter {
                text,
                ..KeyFilter::default()
            });
        }
        // Before and after those are marked whose time is over.
        for _ in 0..2 {
            for filter in &filters {
                let found = read_all(&store, filter, 7).await;
                let expected: Vec<String> = keys
                    .iter()
                    .filter(|key| matches(key, filter))
                    .map(|key| key.id.to_string())
                    .collect();
                assert_eq!(found, expected, "{filter:?}");
            }
            while store.settle(now).await.unwrap() {}
        }
        // An instance whose clock is ahead has marked some too early.
        let ahead = Timestamp::from_millis(950);
        while store.settle(ahead).await.unwrap() {}
        for filter in &filters {
            let found = read_all(&store, filter, 7).await;
            let expected = keys.iter().filter(|key| matches(key, filter));
            let expected: Vec<String> = expected.map(|key| key.id.to_string()).collect();
            assert_eq!(found, expected, "marked too early: {filter:?}");
        }
        store.close().await;
    }
}

/// A key's new name is found and its old one no longer, whoever wrote it: this version, or one that
/// knows nothing of searches.
#[tokio::test(flavor = "multi_thread")]
async fn what_other_versions_wrote_is_found_too() {
    let (_directory, _postgres, urls) = stores().await;
    for url in urls {
        let store = SqlStore::open(&url).await.unwrap();
        let mut key = record(1);
        key.name = "First name".to_owned();
        store.insert(&key, &noted()).await.unwrap();
        store.insert(&record(2), &noted()).await.unwrap();
        let found = async |text: &str| -> usize {
            let text = Some(text.to_owned());
            let filter = KeyFilter {
                text,
                ..KeyFilter::default()
            };
            read_all(&store, &filter, 7).await.len()
        };
        key.name = "Second name".to_owned();
        key.revision = 2;
        store.update(&key, &noted()).await.unwrap();
        assert_eq!((found("first").await, found("SECOND").await), (0, 1));

        let pool = AnyPool::connect(url.expose_secret()).await.unwrap();
        for statement in [
            "UPDATE api_keys SET name = 'Third name', revision = 3, expires_at = 5 WHERE revision = 2",
            // As a row that was there before.
            "UPDATE api_keys SET search = NULL, search_revision = 0 WHERE revision = 1",
            "DELETE FROM key_grams WHERE created_at = 2000",
        ] {
            sqlx::raw_sql(statement).execute(&pool).await.unwrap();
        }
        pool.close().await;
        // Found at once, by another way, and then by its grams.
        assert_eq!(found("000000002").await, 1);
        while store.settle(now()).await.unwrap() {}
        assert_eq!(found("000000002").await, 1);
        assert_eq!((found("second").await, found("third n").await), (0, 1));
        let expired = KeyFilter {
            status: Some((Status::Expired, now())),
            ..KeyFilter::default()
        };
        assert_eq!(read_all(&store, &expired, 7).await, [key.id.to_string()]);
        store.close().await;
    }
}

/// Where more keys expire than can be read at once, pages are short, and together they have all.
#[tokio::test(flavor = "multi_thread")]
async fn many_keys_that_expire_come_in_short_pages() {
    let directory = tempfile::tempdir().unwrap();
    let url = SecretString::from(format!("sqlite://{}/keys.db", directory.path().display()));
    let store = SqlStore::open(&url).await.unwrap();
    fill(&url, MANY).await.unwrap().close().await;
    let expired = MANY as usize / 5 * 2;
    let all = KeyFilter {
        expiring_before: Some(now()),
        ..KeyFilter::default()
    };
    let first = store
        .page(&all, KeyOrder::NEWEST_FIRST, &PageFrom::Start, 100)
        .await
        .unwrap();
    assert!(first.keys.is_empty() && first.next.is_some(), "{first:?}");
    assert_eq!(read_all(&store, &all, 100).await.len(), expired);
    // Few expire in the time in question: all at once, though they are old.
    let few = KeyFilter {
        expiring_before: Some(Timestamp::from_millis(500 * STEP_MS)),
        ..KeyFilter::default()
    };
    let page = store
        .page(&few, KeyOrder::NEWEST_FIRST, &PageFrom::Start, 100)
        .await
        .unwrap();
    assert_eq!(page.keys.len(), 100);
    assert_eq!(read_all(&store, &few, 100).await.len(), 499);
    let unused = KeyFilter {
        unused_since: Some(Timestamp::from_millis(500 * STEP_MS)),
        ..KeyFilter::default()
    };
    let page = store
        .page(&unused, KeyOrder::NEWEST_FIRST, &PageFrom::Start, 100)
        .await
        .unwrap();
    assert_eq!(page.keys.len(), 100, "it begins where they are old enough");
    assert_eq!(read_all(&store, &unused, 100).await.len(), 499);
    store.close().await;
}

async fn explain(pool: &AnyPool, how: &str, statement: Statement) -> Vec<AnyRow> {
    let mut query = sqlx::query(AssertSqlSafe(format!("{how} {}", statement.sql)));
    for bind in statement.binds {
        query = match bind {
            Bind::Text(text) => query.bind(text),
            Bind::Integer(number) => query.bind(number),
        };
    }
    query.fetch_all(pool).await.unwrap()
}

/// How PostgreSQL runs a statement that was prepared.
async fn explain_prepared(pool: &AnyPool, mode: &str, statement: Statement) -> Vec<String> {
    let literal = |bind: &Bind| match bind {
        Bind::Text(text) => format!("'{text}'"),
        Bind::Integer(number) => number.to_string(),
    };
    let literals: Vec<String> = statement.binds.iter().map(literal).collect();
    let values = match literals.join(", ") {
        none if none.is_empty() => none,
        some => format!("({some})"),
    };
    let statements = [
        format!("SET plan_cache_mode = {mode}"),
        format!("PREPARE page AS {}", statement.sql),
        format!("EXPLAIN (ANALYZE, TIMING OFF) EXECUTE page{values}"),
        "DEALLOCATE page".to_owned(),
    ];
    let mut lines = Vec::new();
    for statement in statements {
        let rows = sqlx::raw_sql(AssertSqlSafe(statement)).fetch_all(pool);
        lines.extend(rows.await.unwrap().iter().map(|row| row.get(0)));
    }
    lines
}

/// A place in the list of `fill`ed keys, so many thousandths down from the greatest value.
fn depth(by: SortBy, thousandth: u64) -> Position {
    let greatest = i64::try_from(MANY - MANY * thousandth / 1000).unwrap();
    let value = match by {
        SortBy::Created => Value::Number(greatest * STEP_MS),
        SortBy::Name => Value::Text(format!("partner service {greatest}")),
        SortBy::LastUsed => Value::Number(now().as_millis() + greatest),
        SortBy::Expires | SortBy::RotationDue if thousandth < 500 => Value::Nothing,
        SortBy::Expires => Value::Number(greatest * STEP_MS),
        SortBy::RotationDue => Value::Number(greatest * STEP_MS + 90 * 86_400_000),
    };
    Position::behind(value, "zzzzzzzzzzzz".parse().unwrap())
}

/// Every statement of a list, for pages at several depths, with its filter; of other orders than the
/// usual one a part of the filters, differently for each.
fn statements() -> Vec<(String, Statement)> {
    let soon = now().as_millis() + 1_000;
    let moments = [MANY as i64 / 5 * STEP_MS, soon, i64::MAX];
    let mut filters = filters(now());
    let with_moments = with_moments(filters.clone(), moments);
    filters.extend(with_texts(filters.clone()));
    filters.extend(with_moments);
    let mut all = Vec::new();
    for (number, order) in KeyOrder::ALL.into_iter().enumerate() {
        let mut places = vec![PageFrom::Start];
        for thousandth in [500, 999] {
            places.push(PageFrom::After(depth(order.by, thousandth)));
            if order != KeyOrder::NEWEST_FIRST {
                places.push(PageFrom::Before(depth(order.by, thousandth)));
            }
        }
        let step = if order == KeyOrder::NEWEST_FIRST {
            1
        } else {
            17
        };
        for filter in filters.iter().skip(number % step).step_by(step) {
            for from in &places {
                let name = format!("{filter:?} {order:?} {from:?}");
                let statements = list::statements(filter, order, from, 50);
                all.extend(statements.into_iter().map(|s| (name.clone(), s)));
            }
        }
    }
    all
}

/// No page scans or sorts a table, however few keys its filter leaves.
#[tokio::test(flavor = "multi_thread")]
async fn sqlite_reads_pages_by_indexes() {
    let directory = tempfile::tempdir().unwrap();
    let url = SecretString::from(format!("sqlite://{}/keys.db", directory.path().display()));
    SqlStore::open(&url).await.unwrap().close().await;
    let pool = fill(&url, 100).await.unwrap();
    fill_uses(&pool, 100).await.unwrap();
    for (name, statement) in statements() {
        let sql = statement.sql.clone();
        let lines: Vec<String> = explain(&pool, "EXPLAIN QUERY PLAN", statement)
            .await
            .iter()
            .map(|row| row.get("detail"))
            .collect();
        for line in &lines {
            let tables = ["api_keys", "key_grams", "key_uses", "key_unused"];
            let is_table = tables.map(|table| line.contains(table)).contains(&true);
            // From the end of an index, with a limit.
            let whole = [
                "SCAN key_unused",
                "api_keys_by_time",
                "key_uses_by_time",
                "sqlite_autoindex_key_unused_1",
            ];
            let is_whole =
                line.starts_with("SCAN") && !whole.iter().any(|index| line.ends_with(index));
            assert!(!(is_table && is_whole), "{name}\n{sql}\n{lines:#?}");
        }
        if sql.contains("CROSS JOIN") {
            let looks_up = |line: &String| line.ends_with("sqlite_autoindex_api_keys_1 (id=?)");
            assert!(lines.iter().any(looks_up), "{name}\n{sql}\n{lines:#?}");
        }
    }
}

/// The same for PostgreSQL, by what was really read: its plans depend on how much there is.
#[tokio::test(flavor = "multi_thread")]
async fn postgres_reads_few_rows_for_a_page() {
    let postgres = Postgres::start().await;
    let url = SecretString::from(postgres.url());
    SqlStore::open(&url).await.unwrap().close().await;
    let pool = fill(&url, MANY).await.unwrap();
    fill_uses(&pool, MANY).await.unwrap();
    sqlx::raw_sql("ANALYZE").execute(&pool).await.unwrap();
    let indexes = few_rows_are_read(&pool).await;
    for index in [
        "api_keys_by_time",
        "api_keys_by_tenant",
        "api_keys_by_part",
        "api_keys_by_tenant_part",
        "api_keys_by_expiry",
        "key_grams_pkey",
        "key_uses_pkey",
        "api_keys_by_part_name",
        "api_keys_by_tenant_part_name",
        "api_keys_by_part_expires",
        "api_keys_by_tenant_part_expires",
        "api_keys_by_part_rotation",
        "api_keys_by_tenant_part_rotation",
        "key_uses_by_time",
        "key_uses_by_tenant",
        "key_unused_pkey",
        "key_unused_by_tenant",
    ] {
        assert!(indexes.contains(index), "{index} is of no use: {indexes:?}");
    }
}

/// It takes a minute or more until PostgreSQL has seen how many rows came: until then it guesses.
#[tokio::test(flavor = "multi_thread")]
async fn postgres_reads_few_rows_before_it_knows_how_many_there_are() {
    let postgres = Postgres::start().await;
    let url = SecretString::from(postgres.url());
    SqlStore::open(&url).await.unwrap().close().await;
    let pool = AnyPool::connect(&postgres.url()).await.unwrap();
    for table in ["api_keys", "key_grams", "key_uses", "key_unused"] {
        let unseen = format!("ALTER TABLE {table} SET (autovacuum_enabled = off)");
        sqlx::raw_sql(AssertSqlSafe(unseen))
            .execute(&pool)
            .await
            .unwrap();
    }
    pool.close().await;
    let pool = fill(&url, MANY).await.unwrap();
    fill_uses(&pool, MANY).await.unwrap();
    few_rows_are_read(&pool).await;
}

/// Fails where a statement of a list reads many rows; the indexes that are of use.
async fn few_rows_are_read(pool: &AnyPool) -> BTreeSet<String> {
    sqlx::raw_sql(POSTGRES_SETTINGS)
        .execute(pool)
        .await
        .unwrap();
    let mut indexes = BTreeSet::new();
    for (number, (name, statement)) in statements().into_iter().enumerate() {
        let sql = statement.sql.clone();
        // With a plan for these values, and with the one that a statement gets that is run again and again.
        let mode = ["force_custom_plan", "force_generic_plan"][number % 2];
        let lines = explain_prepared(pool, mode, statement).await;
        let plan = lines.join("\n");
        assert!(!plan.contains("Seq Scan"), "{name}\n{sql}\n{plan}");
        // A key is not looked for in an index of times.
        let is_lost = |pair: &[String]| {
            pair[0].contains("using key_uses_by_") && pair[1].contains("(key_id = ")
        };
        assert!(!lines.windows(2).any(is_lost), "{name}\n{sql}\n{plan}");
        let read: u64 = lines.iter().map(|line| rows_read(line)).sum();
        // Of each part of the list at most what may be looked at, or shown, and each of these keys once.
        let is_page = !sql.contains(" AS entries") && !sql.contains(" AS few");
        let examined = if is_page { 51 } else { EXAMINED_MAX as u64 };
        let mut most = (PARTS_MAX + 2) * examined;
        // Each key of what may be few, and what it was used for.
        let few = sql.matches(" AS few").count() as u64;
        most += 4 * few * FEW_MAX as u64;
        assert!(read <= most, "{read} rows\n{name}\n{sql}\n{plan}");
        let used = lines.iter().filter_map(|line| line.split(" using ").nth(1));
        indexes.extend(used.map(|rest| rest.split(' ').next().unwrap().to_owned()));
    }
    indexes
}

/// The rows that a line of a plan says were read from an index, or read and passed over.
fn rows_read(line: &str) -> u64 {
    let number = |name: &str| -> u64 {
        let text = line.split(name).nth(1).unwrap_or_default();
        let digits: String = text.chars().take_while(char::is_ascii_digit).collect();
        digits.parse().unwrap_or(0)
    };
    if line.contains("Index") && line.contains("(actual") {
        let actual = line.split("(actual").nth(1).unwrap_or_default();
        let count = |name: &str| -> u64 {
            let text = actual.split(name).nth(1).unwrap_or_default();
            let digits: String = text.chars().take_while(char::is_ascii_digit).collect();
            digits.parse().unwrap_or(0)
        };
        count("rows=").max(1) * count("loops=")
    } else {
        number("Rows Removed by Filter: ")
    }
}
