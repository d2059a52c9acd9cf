//! What a page reads, on both engines: one index, from where the page starts, and not more than the page
//! needs, however many entries there are on both sides of it.

use secrecy::{ExposeSecret, SecretString};
use sidekey::audit::{Action, Actor, Note};
use sidekey::clock::Timestamp;
use sidekey::store::audit_page::page_statement;
use sidekey::store::sql::POSTGRES_SETTINGS;
use sidekey::store::{AuditStore, Order, SqlStore};
use sqlx::{AnyPool, AssertSqlSafe, Executor, Row};

use crate::harness::postgres::Postgres;

/// Enough for a wrong plan to show.
const MANY: i64 = 20_000;
/// Blocks of the table and of an index that a page of 100 entries needs at most.
const BLOCKS_MAX: u64 = 250;

const COLUMNS: [(Option<&str>, &str, &str); 5] = [
    (None, "", "audit_events_pkey"),
    (Some("key_id"), "000000000001", "audit_events_by_key"),
    (Some("tenant_id"), "acme", "audit_events_by_tenant"),
    (Some("actor"), "system", "audit_events_by_actor"),
    (Some("action"), "key.changed", "audit_events_by_action"),
];

async fn fill(store: &SqlStore) {
    let notes: Vec<Note> = (0..MANY)
        .map(|number| {
            let mut note = Note::by_system(Action::KeyChanged, Timestamp::from_millis(number));
            note.key_id = format!("{:012}", number % 2).parse().ok();
            note.tenant_id = (number % 10 != 0).then(|| "acme".parse().unwrap());
            if number % 3 == 0 {
                note.origin.actor = Actor::Unknown;
                note.action = Action::AdminCallRefused;
            }
            note
        })
        .collect();
    for notes in notes.chunks(1000) {
        store.note(notes).await.unwrap();
    }
}

/// The statement of a page in the middle of the chain, with its values in it.
fn statement(column: Option<&str>, value: &str, order: Order) -> String {
    page_statement(column, "*", order, 100, 0)
        .replace("$1", &(MANY / 2).to_string())
        .replace("$2", &(MANY / 2 + 2_000).to_string())
        .replace("$3", &format!("'{value}'"))
}

const ORDERS: [Order; 2] = [Order::NewestFirst, Order::OldestFirst];

#[tokio::test(flavor = "multi_thread")]
async fn sqlite_reads_pages_by_one_index() {
    let directory = tempfile::tempdir().unwrap();
    let url = format!("sqlite://{}/keys.db", directory.path().display());
    let store = SqlStore::open(&SecretString::from(url)).await.unwrap();
    fill(&store).await;
    for analyzed in [false, true] {
        if analyzed {
            store.writer().execute("ANALYZE").await.unwrap();
        }
        for (column, value, index) in COLUMNS {
            for order in ORDERS {
                let sql = format!("EXPLAIN QUERY PLAN {}", statement(column, value, order));
                let rows = sqlx::query(AssertSqlSafe(sql)).fetch_all(store.readers());
                let rows = rows.await.unwrap();
                let plan: String = rows[0].try_get("detail").unwrap();
                assert_eq!(rows.len(), 1, "{plan}");
                let expected = match column {
                    Some(column) => format!(
                        "USING INDEX {index} (({column},seq)>(?,?) AND ({column},seq)<(?,?))"
                    ),
                    None => "(seq>? AND seq<?)".to_owned(),
                };
                assert!(plan.ends_with(&expected), "{column:?} {order:?}: {plan}");
            }
        }
    }
    store.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn postgresql_reads_pages_by_one_index() {
    let postgres = Postgres::start().await;
    let url = SecretString::from(postgres.url());
    let store = SqlStore::open(&url).await.unwrap();
    fill(&store).await;
    store.close().await;
    let pool = AnyPool::connect(url.expose_secret()).await.unwrap();
    let mut connection = pool.acquire().await.unwrap();
    connection.execute(POSTGRES_SETTINGS).await.unwrap();
    for analyzed in [false, true] {
        if analyzed {
            connection.execute("ANALYZE").await.unwrap();
        }
        for (column, value, index) in COLUMNS {
            for order in ORDERS {
                let sql = format!(
                    "EXPLAIN (ANALYZE, BUFFERS, TIMING OFF) {}",
                    statement(column, value, order)
                );
                let rows = sqlx::query(AssertSqlSafe(sql)).fetch_all(&mut *connection);
                let rows = rows.await.unwrap();
                let lines: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
                let plan = lines.join("\n");
                assert!(plan.contains(&format!(" using {index} on ")), "{plan}");
                for other in ["Seq Scan", "Bitmap", "Sort", "Rows Removed"] {
                    assert!(!plan.contains(other), "{plan}");
                }
                assert!(blocks(&lines) <= BLOCKS_MAX, "{plan}");
            }
        }
    }
}

/// The blocks that a plan says were looked at.
fn blocks(plan: &[String]) -> u64 {
    let line = plan.iter().find(|line| line.contains("Buffers: shared"));
    let words = line.expect("buffers").split_whitespace();
    words
        .filter_map(|word| word.split('=').nth(1)?.parse::<u64>().ok())
        .sum()
}
