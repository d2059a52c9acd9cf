//! How many keys and tenants there are: counted right on both engines, by one index.

use std::sync::Arc;
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use sidekey::clock::SystemClock;
use sidekey::key::Status;
use sidekey::store::census::{CENSUS_STEP, Census, KEY_STATEMENTS, TENANT_STATEMENTS, parts_of};
use sidekey::store::sql::POSTGRES_SETTINGS;
use sidekey::store::{CensusStore, SqlStore};
use sidekey::telemetry::Metrics;
use sqlx::{AnyPool, AssertSqlSafe, Row};

use crate::lists::fill::fill;
use crate::lists::{MANY, stores};

/// More tenants than are counted at once.
const TENANTS: i64 = 2 * CENSUS_STEP + 7;

async fn one_number(pool: &AnyPool, sql: String) -> i64 {
    let row = sqlx::query(AssertSqlSafe(sql)).fetch_one(pool).await;
    row.unwrap().get(0)
}

async fn add_tenants(pool: &AnyPool) {
    let sql = format!(
        "INSERT INTO tenants (id, created_at, updated_at) \
         WITH RECURSIVE numbers (n) AS (\
           SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < {TENANTS}) \
         SELECT 'extra-' || CAST(n AS TEXT), 1, 1 FROM numbers"
    );
    sqlx::raw_sql(AssertSqlSafe(sql))
        .execute(pool)
        .await
        .unwrap();
}

fn shown(text: &str, series: &str) -> i64 {
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("{series} in {text}"))
        .parse()
        .unwrap()
}

/// What stands in the rows, read one by one.
async fn expected(pool: &AnyPool, status: Status) -> i64 {
    let condition = match status {
        Status::Active => "standing = 'active' AND lapsed = 'no'",
        Status::Expired => "standing = 'active' AND lapsed = 'yes'",
        Status::Disabled => "standing = 'disabled'",
        Status::Revoked => "standing = 'revoked'",
    };
    one_number(
        pool,
        format!("SELECT COUNT(*) FROM api_keys WHERE {condition}"),
    )
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn both_engines_count_every_key_and_tenant_once() {
    let (_directory, _postgres, urls) = stores().await;
    for url in urls {
        let store = SqlStore::open(&url).await.unwrap();
        let metrics = Arc::new(Metrics::new().unwrap());
        let census = Census {
            store: Arc::new(store.clone()),
            clock: Arc::new(SystemClock::new()),
            metrics: metrics.clone(),
        };
        let mut worked = Duration::ZERO;
        census.count(&mut worked).await.unwrap();
        assert!(worked > Duration::ZERO);
        let empty = metrics.text().unwrap();
        for status in Status::ALL {
            let series = format!("sidekey_keys{{status=\"{}\"}}", status.as_str());
            assert_eq!(shown(&empty, &series), 0);
        }
        let pool = fill(&url, MANY).await.unwrap();
        add_tenants(&pool).await;
        census.count(&mut worked).await.unwrap();
        let text = metrics.text().unwrap();
        let mut all = 0;
        for status in Status::ALL {
            let series = format!("sidekey_keys{{status=\"{}\"}}", status.as_str());
            let count = shown(&text, &series);
            assert_eq!(count, expected(&pool, status).await, "{status:?}");
            assert!(count > 0, "{status:?}");
            all += count;
        }
        assert_eq!(all, i64::try_from(MANY).unwrap());
        let tenants = one_number(&pool, "SELECT COUNT(*) FROM tenants".to_owned()).await;
        assert!(tenants > TENANTS);
        assert_eq!(shown(&text, "sidekey_tenants"), tenants);
        pool.close().await;
        store.close().await;
    }
}

/// A step has a bound, and the next one goes on where it ended.
#[tokio::test(flavor = "multi_thread")]
async fn a_step_counts_no_more_than_it_should() {
    let directory = tempfile::tempdir().unwrap();
    let url = format!("sqlite://{}/keys.db", directory.path().display());
    let url = SecretString::from(url);
    let store = SqlStore::open(&url).await.unwrap();
    let pool = fill(&url, MANY).await.unwrap();
    let active = &parts_of(Status::Active)[0];
    let first = store.count_keys(active, None).await.unwrap();
    assert_eq!(first.count, CENSUS_STEP as u64);
    let second = store.count_keys(active, first.next.as_ref()).await.unwrap();
    assert!(second.count < CENSUS_STEP as u64 && second.next.is_none());
    pool.close().await;
    store.close().await;
}

/// The statements with values in them, and the index that each has to be read by.
fn statements() -> Vec<(String, &'static str)> {
    let of_keys = KEY_STATEMENTS.map(|sql| {
        let sql = sql
            .replace("$1", "'active/no/live'")
            .replace("$2", "9000000")
            .replace("$3", "'ky'")
            .replace("$4", "5000");
        (sql, "api_keys_by_part")
    });
    let of_tenants = TENANT_STATEMENTS.map(|sql| {
        let sql = sql.replace("$1", "'t1'").replace("$2", "5000");
        (sql, "tenants")
    });
    of_keys.into_iter().chain(of_tenants).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_statement_reads_one_index() {
    let (_directory, _postgres, [sqlite, postgres]) = stores().await;
    for url in [&sqlite, &postgres] {
        SqlStore::open(url).await.unwrap().close().await;
        fill(url, MANY).await.unwrap().close().await;
    }
    let pool = AnyPool::connect(sqlite.expose_secret()).await.unwrap();
    for (sql, index) in statements() {
        let sql = format!("EXPLAIN QUERY PLAN {sql}");
        let rows = sqlx::query(AssertSqlSafe(sql))
            .fetch_all(&pool)
            .await
            .unwrap();
        let plan: Vec<String> = rows.iter().map(|row| row.get("detail")).collect();
        let plan = plan.join("\n");
        // A column that the engine computes is not read from an index, so each key's row is looked at.
        let found = plan.contains(" USING ") && plan.contains(index);
        assert!(found && !plan.contains("SCAN api_keys"), "{plan}");
        assert!(!plan.contains("TEMP B-TREE"), "{plan}");
    }
    pool.close().await;
    let pool = AnyPool::connect(postgres.expose_secret()).await.unwrap();
    let mut connection = pool.acquire().await.unwrap();
    sqlx::raw_sql(POSTGRES_SETTINGS)
        .execute(&mut *connection)
        .await
        .unwrap();
    for (sql, index) in statements() {
        let sql = format!("EXPLAIN {sql}");
        let rows = sqlx::query(AssertSqlSafe(sql))
            .fetch_all(&mut *connection)
            .await
            .unwrap();
        let plan: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
        let plan = plan.join("\n");
        assert!(
            plan.contains("Index Only Scan using") && plan.contains(index),
            "{plan}"
        );
        for other in ["Seq Scan", "Bitmap", "Sort", "Filter"] {
            assert!(!plan.contains(other), "{plan}");
        }
    }
}
