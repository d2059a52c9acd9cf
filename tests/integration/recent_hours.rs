//! The latest hours of many keys, on both engines: what is found, and how engines read it.

use secrecy::{ExposeSecret, SecretString};
use sidekey::clock::Timestamp;
use sidekey::key::KeyId;
use sidekey::store::recent::statement;
use sidekey::store::sql::POSTGRES_SETTINGS;
use sidekey::store::{SqlStore, UsageStore};
use sidekey::usage::Subject;
use sidekey::usage::counts::HOUR_MS;
use sidekey::usage::span::Interval;
use sqlx::any::{AnyPoolOptions, AnyRow};
use sqlx::{AnyPool, AssertSqlSafe, Row};

use crate::harness::postgres::Postgres;

/// Keys with usage, and hours of each.
const KEYS: usize = 500;
const HOURS: i64 = 120;
/// Hours that are asked for: the last ones.
const RECENT: i64 = 24;
/// Keys of a page.
const PAGE: usize = 25;
/// Hours that are added at once: a statement may take five seconds.
const STEP: i64 = 10;

fn key(number: usize) -> KeyId {
    format!("{number:012}").parse().unwrap()
}

fn hour(number: i64) -> Timestamp {
    Timestamp::from_millis(number * HOUR_MS)
}

/// Adds hours `from` to before `to` of all keys, with as many requests as the hour's number; every
/// seventh is missing.
async fn fill(pool: &AnyPool, from: i64, to: i64) {
    for first in (from..to).step_by(STEP as usize) {
        let sql = format!(
            "INSERT INTO usage_hours (subject, start, requests, errors_4xx, errors_5xx, denied, \
               rate_limited, bytes_in, bytes_out, latency_us_sum, latency_us_max) \
             WITH RECURSIVE numbers (n) AS (\
               SELECT {} UNION ALL SELECT n + 1 FROM numbers WHERE n + 1 < {}) \
             SELECT 'key/' || substr(CAST(1000000000000 + n % {KEYS} AS TEXT), 2), n / {KEYS} * {HOUR_MS}, \
               n / {KEYS}, 0, 0, 0, 0, 0, 0, 0, 0 FROM numbers WHERE n / {KEYS} % 7 <> 0",
            first * KEYS as i64,
            to.min(first + STEP) * KEYS as i64
        );
        sqlx::raw_sql(AssertSqlSafe(sql))
            .execute(pool)
            .await
            .unwrap();
    }
}

/// The plan of what a page asks for, as the store asks it.
async fn explain(pool: &AnyPool, how: &str) -> Vec<AnyRow> {
    let mut query = sqlx::query(AssertSqlSafe(format!("{how} {}", statement(PAGE))))
        .bind((HOURS - RECENT) * HOUR_MS)
        .bind(HOURS * HOUR_MS);
    for number in 0..PAGE.next_power_of_two() {
        query = query.bind(Subject::Key(key(number)).to_string());
    }
    query.fetch_all(pool).await.unwrap()
}

/// What the store says of keys one by one.
async fn one_by_one(store: &SqlStore, keys: &[KeyId]) -> Vec<(KeyId, Timestamp, u64)> {
    let mut all = Vec::new();
    for key in keys {
        let (subject, from, to) = (Subject::Key(*key), hour(HOURS - RECENT), hour(HOURS));
        let hours = store.usage(&subject, Interval::Hour, from, to).await;
        let hours = hours.unwrap().into_iter();
        all.extend(hours.map(|(start, counts)| (*key, start, counts.requests)));
    }
    all.sort_unstable();
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn many_keys_are_found_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let postgres = Postgres::start().await;
    let sqlite = format!("sqlite://{}/keys.db", directory.path().display());
    for url in [sqlite, postgres.url()].map(SecretString::from) {
        let store = SqlStore::open(&url).await.unwrap();
        fill(store.writer(), 0, HOURS + 2).await;
        for count in [0, 1, 2, 3, PAGE, 100] {
            let mut keys: Vec<KeyId> = (0..count).map(|number| key(3 * number)).collect();
            // One that was never used.
            keys.push(key(9_999_999));
            let (from, to) = (hour(HOURS - RECENT), hour(HOURS));
            let found = store.recent(&keys, from, to).await.unwrap();
            let mut found: Vec<_> = found
                .iter()
                .map(|one| (one.key_id, one.start, one.requests))
                .collect();
            found.sort_unstable();
            let expected = one_by_one(&store, &keys).await;
            assert_eq!(found, expected, "{count} keys");
            assert!(count == 0 || expected.len() > 15 * count);
        }
        let nothing = store.recent(&[], hour(0), hour(HOURS)).await.unwrap();
        assert_eq!(nothing, []);
        store.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sqlite_reads_each_keys_hours_alone() {
    let directory = tempfile::tempdir().unwrap();
    let url = format!("sqlite://{}/keys.db", directory.path().display());
    let store = SqlStore::open(&SecretString::from(url)).await.unwrap();
    fill(store.writer(), 0, HOURS).await;
    for analysed in [false, true] {
        if analysed {
            sqlx::raw_sql("ANALYZE")
                .execute(store.writer())
                .await
                .unwrap();
        }
        let rows = explain(store.readers(), "EXPLAIN QUERY PLAN").await;
        let lines: Vec<String> = rows.iter().map(|row| row.get("detail")).collect();
        let is_range = |line: &String| {
            line.starts_with("SEARCH hours USING PRIMARY KEY ((subject,start)>(?,?) AND subject<?")
        };
        assert!(lines.iter().any(is_range), "{lines:#?}");
    }
    store.close().await;
}

/// Also where the statistics know nothing of the last day: by them, the index by time has nothing there.
#[tokio::test(flavor = "multi_thread")]
async fn postgres_reads_each_keys_hours_alone() {
    let postgres = Postgres::start().await;
    let url = SecretString::from(postgres.url());
    SqlStore::open(&url).await.unwrap().close().await;
    let one = AnyPoolOptions::new().max_connections(1);
    let pool = one.connect(url.expose_secret()).await.unwrap();
    let run = async |sql: &'static str| sqlx::raw_sql(sql).execute(&pool).await.unwrap();
    run(POSTGRES_SETTINGS).await;
    run("ALTER TABLE usage_hours SET (autovacuum_enabled = off)").await;
    fill(&pool, 0, HOURS - RECENT).await;
    run("ANALYZE usage_hours").await;
    fill(&pool, HOURS - RECENT, HOURS).await;
    for settled in [false, true] {
        if settled {
            run("ANALYZE usage_hours").await;
        }
        let rows = explain(&pool, "EXPLAIN (ANALYZE, BUFFERS, TIMING OFF)").await;
        let lines: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
        let plan = lines.join("\n");
        assert!(plan.contains("usage_hours_pkey"), "{plan}");
        assert!(!plan.contains("Seq Scan"), "{plan}");
        // Each row that was read was wanted.
        assert!(!plan.contains("Rows Removed"), "{plan}");
    }
    pool.close().await;
}
