//! Sessions in the database, on both engines.

use futures_util::future::join_all;
use secrecy::SecretString;
use sidekey::clock::Timestamp;
use sidekey::key::{Generation, KeyId};
use sidekey::store::sessions::SESSIONS_OF_KEY_MAX;
use sidekey::store::{Session, SessionStore, SqlStore};
use sqlx::{AssertSqlSafe, Row};

use crate::harness::postgres::Postgres;

fn key(n: usize) -> KeyId {
    format!("{n:012}").parse().unwrap()
}

fn session(of: usize, id: &str, created: i64, seen: i64) -> Session {
    Session {
        id: id.to_owned(),
        key_id: key(of),
        generation: Generation(2),
        created_at: Timestamp::from_millis(created),
        seen_at: Timestamp::from_millis(seen),
    }
}

struct Engines {
    _postgres: Postgres,
    _directory: tempfile::TempDir,
    stores: Vec<SqlStore>,
}

async fn engines() -> Engines {
    let postgres = Postgres::start().await;
    let directory = tempfile::tempdir().unwrap();
    let sqlite = format!("sqlite://{}/keys.db", directory.path().display());
    let mut stores = Vec::new();
    for url in [sqlite, postgres.url()] {
        stores.push(SqlStore::open(&SecretString::from(url)).await.unwrap());
    }
    Engines {
        _postgres: postgres,
        _directory: directory,
        stores,
    }
}

async fn ids(store: &SqlStore) -> Vec<String> {
    let sql = "SELECT id FROM dashboard_sessions ORDER BY id";
    let rows = sqlx::query(sql).fetch_all(store.readers()).await.unwrap();
    rows.iter().map(|row| row.get("id")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_is_kept_seen_and_ended() {
    let engines = engines().await;
    for store in &engines.stores {
        let made = session(1, "a", 1000, 1000);
        store.add_session(&made).await.unwrap();
        assert_eq!(store.session("a").await.unwrap(), Some(made.clone()));
        assert_eq!(store.session("b").await.unwrap(), None);
        // Of two instances the later one is right, whoever writes last.
        for at in [5000, 3000] {
            let now = Timestamp::from_millis(at);
            store.touch_session("a", now).await.unwrap();
        }
        let seen = store.session("a").await.unwrap().unwrap();
        assert_eq!(seen, session(1, "a", 1000, 5000));
        store.end_session("a").await.unwrap();
        assert_eq!(store.session("a").await.unwrap(), None);
        store.end_session("a").await.unwrap();
        store.touch_session("a", made.seen_at).await.unwrap();
        assert!(ids(store).await.is_empty());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_ended_is_forgotten() {
    let engines = engines().await;
    for store in &engines.stores {
        for (id, created, seen) in [
            ("idle", 9000, 5000),
            ("in use", 9000, 5001),
            ("old", 8000, 9000),
            ("older", 1000, 1000),
        ] {
            let made = session(1, id, created, seen);
            store.add_session(&made).await.unwrap();
        }
        let (created, seen) = (Timestamp::from_millis(8000), Timestamp::from_millis(5000));
        assert!(!store.forget_sessions(created, seen).await.unwrap());
        assert_eq!(ids(store).await, ["in use"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_has_only_so_many() {
    let engines = engines().await;
    for store in &engines.stores {
        let others = session(2, "another key's", 0, 0);
        store.add_session(&others).await.unwrap();
        let many: Vec<Session> = (0..SESSIONS_OF_KEY_MAX + 5)
            .map(|n| session(1, &format!("{n:03}"), 1000, 1000 + n as i64))
            .collect();
        // Not all at once: none waits for its turn for more than a few seconds.
        for some in many.chunks(11) {
            join_all(some.iter().map(|made| store.add_session(made))).await;
        }
        // Those who came at the same time may have seen each other too late, or not at all.
        let last = session(1, "last", 9000, 9000);
        store.add_session(&last).await.unwrap();
        let left = ids(store).await;
        assert_eq!(left.len(), SESSIONS_OF_KEY_MAX + 1, "{left:?}");
        assert!(left.contains(&"another key's".to_owned()));
        assert!(left.contains(&"last".to_owned()));
        assert!(!left.contains(&"000".to_owned()));
    }
}

/// Whatever the planner knows, each statement reads few rows by an index.
#[tokio::test(flavor = "multi_thread")]
async fn statements_read_by_an_index() {
    let engines = engines().await;
    let statements = [
        "SELECT id FROM dashboard_sessions WHERE id = 'a'",
        "SELECT id FROM dashboard_sessions WHERE key_id = 'a' ORDER BY seen_at DESC LIMIT 5 OFFSET 5",
        "SELECT created_at FROM dashboard_sessions WHERE created_at <= 5 ORDER BY created_at LIMIT 5",
        "SELECT seen_at FROM dashboard_sessions WHERE seen_at <= 5 ORDER BY seen_at LIMIT 5",
        "DELETE FROM dashboard_sessions WHERE created_at <= 5",
    ];
    let ways = [("EXPLAIN QUERY PLAN", 3), ("EXPLAIN", 0)];
    for (store, (how, column)) in engines.stores.iter().zip(ways) {
        for statement in statements {
            let sql = AssertSqlSafe(format!("{how} {statement}"));
            let rows = sqlx::query(sql).fetch_all(store.readers()).await.unwrap();
            let lines: Vec<String> = rows.iter().map(|row| row.get(column)).collect();
            let plan = lines.join("\n");
            for bad in ["Seq Scan", "Sort", "TEMP B-TREE", "SCAN"] {
                assert!(!plan.contains(bad), "{statement}: {plan}");
            }
        }
    }
}
