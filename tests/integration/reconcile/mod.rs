//! What a crash leaves between the two stores is found, named and removed; and nothing else is.

mod crash;
mod guard;
mod slow;
mod stores;

use std::path::Path;

use sqlx::{Connection, PgConnection, Row};

use crate::harness::eventually;
use crate::harness::postgres::Postgres;
use crate::harness::run::{Ended, run};
use crate::harness::sidekey::Sidekey;

/// The environment of a program that looks every second, and takes for left over what is `age`
/// seconds old.
fn environment<'a>(url: &'a str, age: &'a str) -> Vec<(&'a str, &'a str)> {
    vec![
        ("SIDEKEY__STORE__URL", url),
        ("SIDEKEY__SECRETS__RECONCILE_INTERVAL_SECONDS", "1"),
        ("SIDEKEY__SECRETS__LEFTOVER_AGE_SECONDS", age),
    ]
}

/// `sidekey check --stores` with the configuration that lies in `directory`.
fn check_stores(directory: &Path, environment: &[(&str, &str)]) -> Ended {
    let arguments = ["check", "--stores", "--config", "sidekey.toml"];
    run(directory, &arguments, environment)
}

/// How many left-over hashes a check has named.
fn leftovers(ended: &Ended) -> usize {
    let lines = ended.stdout.lines();
    lines
        .filter(|line| line.starts_with("left-over hash: key "))
        .count()
}

/// Waits until a check finds nothing any more.
async fn agree_soon(sidekey: &Sidekey, environment: &[(&str, &str)]) {
    eventually("the stores agree", || async {
        check_stores(sidekey.directory(), environment).code == Some(0)
    })
    .await;
    let ended = check_stores(sidekey.directory(), environment);
    assert!(ended.stdout.contains("the stores agree"), "{ended:?}");
    assert_eq!(ended.stderr, "", "{ended:?}");
}

/// Waits until `count` more passes have come to their end.
async fn passes(sidekey: &Sidekey, count: f64) {
    let runs = "sidekey_reconcile_runs_total";
    let before = sidekey.metric(runs).await;
    eventually("the stores are compared", || async {
        sidekey.metric(runs).await >= before + count
    })
    .await;
}

const REMOVED: &str = "sidekey_reconcile_leftovers_total";

/// Waits until so many hashes are counted as removed, which they are afterwards.
async fn removed(sidekey: &Sidekey, count: usize) {
    eventually("what was removed is counted", || async {
        sidekey.metric(REMOVED).await >= count as f64
    })
    .await;
    assert_eq!(sidekey.metric(REMOVED).await, count as f64);
}

/// A lock in the database, at which the program has to wait.
struct Barrier {
    holder: PgConnection,
    watcher: PgConnection,
}

/// Who waits for a lock.
const WAITING: &str = "FROM pg_stat_activity WHERE wait_event_type = 'Lock'";

impl Barrier {
    /// Holds what `lock` locks.
    async fn set(postgres: &Postgres, lock: &str) -> Self {
        let connect = async || PgConnection::connect(&postgres.url()).await.unwrap();
        let (mut holder, watcher) = (connect().await, connect().await);
        let sql = sqlx::AssertSqlSafe(format!("BEGIN; {lock}"));
        sqlx::raw_sql(sql).execute(&mut holder).await.unwrap();
        Barrier { holder, watcher }
    }

    async fn waiting(&mut self) -> i64 {
        let sql = sqlx::AssertSqlSafe(format!("SELECT count(*) AS waiting {WAITING}"));
        let row = sqlx::query(sql).fetch_one(&mut self.watcher).await.unwrap();
        row.get("waiting")
    }

    /// Waits until the program waits.
    async fn reached(&mut self) {
        while self.waiting().await == 0 {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    }

    /// Lifts the lock.
    async fn lift(mut self) {
        sqlx::raw_sql("ROLLBACK")
            .execute(&mut self.holder)
            .await
            .unwrap();
    }

    /// Lifts the lock when the server has given up what a killed program had asked for: otherwise it
    /// would still be done.
    async fn lift_without_waiters(mut self) {
        while self.waiting().await > 0 {
            let sql = sqlx::AssertSqlSafe(format!("SELECT pg_terminate_backend(pid) {WAITING}"));
            sqlx::query(sql).execute(&mut self.watcher).await.unwrap();
        }
        self.lift().await;
    }
}
