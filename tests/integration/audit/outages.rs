//! A database that is away for a moment is no broken chain: nobody is told to look for tampering.

use std::cell::Cell;
use std::sync::Arc;

use secrecy::{ExposeSecret, SecretString};
use sidekey::audit::seal::Sealer;
use sidekey::audit::{Action, Note};
use sidekey::clock::{SystemClock, Timestamp};
use sidekey::store::{AuditStore, Journal, SqlStore, StoreError};
use sidekey::telemetry::Metrics;
use sqlx::{Any, AnyPool, Executor, Row, Transaction};

use crate::harness::eventually;
use crate::harness::postgres::Postgres;

/// A store that counts, and somebody else on the same database, who may take any time.
struct Bench {
    store: SqlStore,
    other: AnyPool,
    metrics: Arc<Metrics>,
}

impl Bench {
    async fn open(url: &str) -> Self {
        let url = SecretString::from(url.to_owned());
        let metrics = Arc::new(Metrics::new().unwrap());
        let journal = Journal::new(Sealer::new(&[]), Arc::new(SystemClock::new()), &metrics);
        Bench {
            store: SqlStore::open(&url).await.unwrap().with_journal(journal),
            other: AnyPool::connect(url.expose_secret()).await.unwrap(),
            metrics,
        }
    }

    async fn note(&self) -> Result<(), StoreError> {
        let note = Note::by_system(Action::KeyCreated, Timestamp::from_millis(1));
        self.store.note(&[note]).await
    }

    /// Somebody else has the end of the chain, until this is dropped.
    async fn held(&self) -> Transaction<'static, Any> {
        let mut transaction = self.other.begin().await.unwrap();
        let hold = "UPDATE audit_head SET seq = seq WHERE id = 1";
        transaction.execute(hold).await.unwrap();
        transaction
    }

    async fn execute(&self, sql: &'static str) {
        self.other.execute(sql).await.unwrap();
    }

    /// Nothing counts as a broken chain so far, and the next entry is taken.
    async fn expect_whole(&self, way: &str) {
        self.note().await.unwrap_or_else(|e| panic!("{way}: {e}"));
        assert_eq!(self.metrics.audit_failures.get(), 0, "{way}");
    }

    /// A chain that is broken does count.
    async fn expect_broken_without_its_table(&self) {
        self.execute("ALTER TABLE audit_events RENAME TO away")
            .await;
        let broken = self.note().await;
        assert!(
            matches!(broken, Err(StoreError::Unrecorded(_))),
            "{broken:?}"
        );
        assert_eq!(self.metrics.audit_failures.get(), 1);
    }

    /// `signal` (a function of PostgreSQL) of the session that waits for the chain's end is an outage.
    async fn expect_outage_by(&self, way: &str, signal: &'static str) {
        let held = self.held().await;
        let is_interrupted = Cell::new(false);
        let interrupt = async {
            eventually("it waits for the end of the chain", || async {
                let row = self.other.fetch_one(signal).await.unwrap();
                row.get::<i64, _>(0) > 0
            })
            .await;
            is_interrupted.set(true);
        };
        // Who has waited too long before that waits again.
        let note = async {
            while !is_interrupted.get() {
                assert_outage(&self.note().await, way);
            }
        };
        tokio::join!(note, interrupt);
        held.rollback().await.unwrap();
    }

    /// Whether no session is a standby's any more: each hears of it by itself.
    async fn can_write(&self) -> bool {
        for pool in [self.store.writer(), &self.other] {
            let mut sessions = Vec::new();
            for _ in 0..pool.size() {
                let Ok(session) = pool.acquire().await else {
                    return false;
                };
                sessions.push(session);
            }
            for session in &mut sessions {
                let asked = session.fetch_one("SHOW default_transaction_read_only");
                if asked.await.unwrap().get::<String, _>(0) != "off" {
                    return false;
                }
            }
        }
        true
    }
}

fn assert_outage(noted: &Result<(), StoreError>, way: &str) {
    assert!(
        matches!(noted, Err(StoreError::Unavailable(_))),
        "{way}: {noted:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chain_that_is_waited_for_in_vain_is_not_broken_on_sqlite() {
    let directory = tempfile::tempdir().unwrap();
    let url = format!("sqlite://{}/keys.db", directory.path().display());
    let bench = Bench::open(&url).await;
    let held = bench.held().await;
    assert_outage(&bench.note().await, "busy");
    held.rollback().await.unwrap();
    bench.expect_whole("busy").await;
    bench.expect_broken_without_its_table().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_is_no_broken_chain_on_postgresql() {
    let postgres = Postgres::start().await;
    let bench = Bench::open(&postgres.url()).await;
    let held = bench.held().await;
    assert_outage(&bench.note().await, "lock_timeout");
    held.rollback().await.unwrap();
    bench.expect_whole("lock_timeout").await;

    for (way, signal) in [
        (
            "a cancelled statement",
            "SELECT COUNT(pg_cancel_backend(pid)) FROM pg_stat_activity \
             WHERE wait_event_type = 'Lock' AND query LIKE 'UPDATE audit_head%'",
        ),
        (
            "an ended session",
            "SELECT COUNT(pg_terminate_backend(pid)) FROM pg_stat_activity \
             WHERE wait_event_type = 'Lock' AND query LIKE 'UPDATE audit_head%'",
        ),
    ] {
        bench.expect_outage_by(way, signal).await;
        bench.expect_whole(way).await;
    }

    // A standby that was taken for the primary.
    bench
        .execute("ALTER SYSTEM SET default_transaction_read_only = on")
        .await;
    bench.execute("SELECT pg_reload_conf()").await;
    eventually("nothing can be written", || async {
        let noted = bench.note().await;
        if noted.is_err() {
            assert_outage(&noted, "a standby");
        }
        noted.is_err()
    })
    .await;
    bench
        .execute("ALTER SYSTEM RESET default_transaction_read_only")
        .await;
    bench.execute("SELECT pg_reload_conf()").await;
    eventually("it can be written again", || bench.can_write()).await;
    bench.expect_whole("a standby").await;
    bench.expect_broken_without_its_table().await;
}
