//! `kill -9` between any two writes of an operation. The moment is exact: the database holds the
//! program at the next write while it is killed.

use std::sync::Arc;

use reqwest::{Method, RequestBuilder};
use serde_json::json;
use sqlx::{Connection, PgConnection, Row};
use tokio::time::timeout;

use super::{Barrier, agree_soon, check_stores, environment, leftovers, removed};
use crate::durability::{SharedLedger, check, work_until_killed};
use crate::harness::DEADLINE;
use crate::harness::postgres::Postgres;
use crate::harness::sidekey::{KEYS, Key, Sidekey, command, config};
use crate::harness::upstream::Upstream;

/// Long enough that creation on a busy machine is not late, which half of it would be.
const AGE: &str = "8";
const ROUNDS: usize = 10;

const ROWS: &str = "LOCK TABLE api_keys IN EXCLUSIVE MODE";
const HASHES: &str = "LOCK TABLE key_hashes IN EXCLUSIVE MODE";
/// Within the transaction that changes a row.
const CHANGES: &str = "LOCK TABLE key_changes IN EXCLUSIVE MODE";

/// Holds whoever removes these hashes of a key; others may be added and removed.
fn hashes_of(key: &Key, condition: &str) -> String {
    let id = &key.id;
    format!("SELECT 1 FROM key_hashes WHERE key_id = '{id}' AND {condition} FOR UPDATE")
}

struct World {
    _upstream: Upstream,
    postgres: Postgres,
    sidekey: Sidekey,
}

impl World {
    async fn start() -> Self {
        let (upstream, postgres) = (Upstream::start().await, Postgres::start().await);
        let url = postgres.url();
        let config = config(upstream.address, "");
        let sidekey = Sidekey::start_with(&config, &environment(&url, AGE)).await;
        World {
            _upstream: upstream,
            postgres,
            sidekey,
        }
    }

    /// Kills the program while it waits in `call` for what `lock` holds. What it leaves is named by a
    /// check; the program, started again, removes it.
    async fn kill_at(mut self, what: &str, lock: &str, call: RequestBuilder, left: usize) -> Self {
        let mut barrier = Barrier::set(&self.postgres, lock).await;
        let call = tokio::spawn(call.send());
        let reached = timeout(DEADLINE, barrier.reached()).await;
        reached.unwrap_or_else(|_| panic!("{what}: the program did not come to the lock"));
        self.sidekey.kill();
        barrier.lift_without_waiters().await;
        assert!(call.await.unwrap().is_err(), "{what} was acknowledged");

        let url = self.postgres.url();
        let environment = environment(&url, AGE);
        let found = check_stores(self.sidekey.directory(), &environment);
        assert_eq!(leftovers(&found), left, "{what}: {found:?}");
        assert_eq!(found.code, Some(i32::from(left > 0)), "{what}: {found:?}");
        assert!(
            !found.stdout.contains("without a hash"),
            "{what}: {found:?}"
        );
        self.sidekey = self.sidekey.restart().await;
        agree_soon(&self.sidekey, &environment).await;
        removed(&self.sidekey, left).await;
        self
    }

    fn regenerate(&self, key: &Key, grace: u64) -> RequestBuilder {
        let path = format!("{KEYS}/{}/regenerate", key.id);
        let call = self.sidekey.admin(Method::POST, &path);
        call.json(&json!({"grace_period_seconds": grace}))
    }

    fn create(&self) -> RequestBuilder {
        let body = json!({"name": "n", "tenant_id": "acme", "environment": "live", "scopes": []});
        self.sidekey.admin(Method::POST, KEYS).json(&body)
    }

    async fn status(&self, key: &Key) -> u16 {
        self.sidekey.status("/", &key.text).await
    }

    /// Whatever happened to a key, it can be given a new secret, which works alone.
    async fn assert_whole(&self, key: &Key) {
        let new = self.sidekey.regenerate_key(&key.id, 0).await;
        assert_eq!(self.status(&new).await, 200);
        assert_eq!(self.status(key).await, 401);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_creation_that_is_killed_leaves_no_key() {
    let mut world = World::start().await;
    for (what, lock, left) in [
        ("before the hash", HASHES, 0),
        ("between hash and row", ROWS, 1),
    ] {
        let call = world.create();
        world = world.kill_at(what, lock, call, left).await;
        let keys = world.sidekey.ask(Method::GET, KEYS, None).await.json();
        assert_eq!(keys["data"].as_array().unwrap().len(), 1, "the admin's");
    }
    let key = world.sidekey.create_key(json!({})).await;
    assert_eq!(world.status(&key).await, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_regeneration_that_is_killed_has_happened_or_not() {
    let mut world = World::start().await;
    // Before the row is written, the old secret is the key's.
    for (what, lock, grace, left) in [
        ("before the hash", HASHES, 0, 0),
        ("between hash and row", ROWS, 0, 1),
        ("between hash and row, with grace", ROWS, 3600, 1),
        ("while the row is written", CHANGES, 0, 1),
    ] {
        let key = world.sidekey.create_key(json!({})).await;
        let call = world.regenerate(&key, grace);
        world = world.kill_at(what, lock, call, left).await;
        assert_eq!(world.status(&key).await, 200, "{what}");
        world.assert_whole(&key).await;
    }
    // After it, the old one's time is over, though nobody has been told the new one.
    let key = world.sidekey.create_key(json!({})).await;
    let call = world.regenerate(&key, 0);
    let lock = hashes_of(&key, "generation = 1");
    world = world
        .kill_at("between row and old hash", &lock, call, 1)
        .await;
    assert_eq!(world.status(&key).await, 401);
    world.assert_whole(&key).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_regeneration_within_a_grace_period_that_is_killed_has_happened_or_not() {
    let mut world = World::start().await;
    for (what, condition, grace, left, in_grace) in [
        // Of two old secrets, the older one ends, and the other one begins its grace.
        (
            "before the oldest hash goes",
            "generation = 1",
            3600,
            1,
            200,
        ),
        ("before both old hashes go", "TRUE", 0, 2, 401),
        ("between the two old hashes", "generation > 1", 0, 1, 401),
    ] {
        let oldest = world.sidekey.create_key(json!({})).await;
        let old = world.sidekey.regenerate_key(&oldest.id, 3600).await;
        assert_eq!(world.status(&oldest).await, 200, "{what}");
        let call = world.regenerate(&old, grace);
        let lock = hashes_of(&old, condition);
        world = world.kill_at(what, &lock, call, left).await;
        assert_eq!(world.status(&oldest).await, 401, "{what}");
        assert_eq!(world.status(&old).await, in_grace, "{what}");
        world.assert_whole(&old).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revocation_that_is_killed_has_happened_or_not() {
    let mut world = World::start().await;
    for (what, lock, left) in [
        ("while the row is written", Some(CHANGES), 0),
        ("between row and hashes", None, 2),
        ("between the two hashes", None, 1),
    ] {
        let old = world.sidekey.create_key(json!({})).await;
        let key = world.sidekey.regenerate_key(&old.id, 3600).await;
        let path = format!("{KEYS}/{}", key.id);
        let call = world.sidekey.admin(Method::DELETE, &path);
        // The newest goes first.
        let condition = if left == 2 { "TRUE" } else { "generation = 1" };
        let lock = lock.map_or_else(|| hashes_of(&key, condition), str::to_owned);
        world = world.kill_at(what, &lock, call, left).await;
        let record = world.sidekey.ask(Method::GET, &path, None).await.json();
        let (status, answer) = if left == 0 {
            ("active", 200)
        } else {
            ("revoked", 401)
        };
        assert_eq!(record["status"], status, "{what}: {record}");
        for key in [&old, &key] {
            assert_eq!(world.status(key).await, answer, "{what}");
        }
        world.sidekey.revoke_key(&key.id).await;
        for key in [&old, &key] {
            assert_eq!(world.status(key).await, 401, "{what}");
        }
    }
}

/// The first key's file comes before its hash, and that before its row.
#[tokio::test(flavor = "multi_thread")]
async fn a_first_start_that_is_killed_locks_nobody_out() {
    let upstream = Upstream::start().await;
    let config = config(upstream.address, "");
    for (what, lock, left) in [
        ("between file and hash", HASHES, 0),
        ("between hash and row", ROWS, 1),
        (
            "while the row is written",
            "LOCK TABLE change_counter IN EXCLUSIVE MODE",
            1,
        ),
    ] {
        let (postgres, directory) = (Postgres::start().await, tempfile::tempdir().unwrap());
        let directory = Arc::new(directory);
        let url = postgres.url();
        let environment = environment(&url, AGE);
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let variables: Vec<_> = environment.iter().map(owned).collect();
        let mut barrier = Barrier::set(&postgres, lock).await;
        let mut first = command(directory.path(), &config, &variables)
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .spawn()
            .unwrap();
        let reached = timeout(DEADLINE, barrier.reached()).await;
        first.kill().unwrap();
        first.wait().unwrap();
        reached.unwrap_or_else(|_| panic!("{what}: the program did not come to the lock"));
        barrier.lift_without_waiters().await;
        assert!(directory.path().join("data/admin.key").exists(), "{what}");

        let found = check_stores(directory.path(), &environment);
        assert_eq!(leftovers(&found), left, "{what}: {found:?}");
        assert_eq!(found.code, Some(i32::from(left > 0)), "{what}: {found:?}");
        let sidekey = Sidekey::launch(directory, config.clone(), variables, Arc::default()).await;
        agree_soon(&sidekey, &environment).await;
        removed(&sidekey, left).await;
        let key = sidekey.create_key(json!({})).await;
        assert_eq!(sidekey.status("/", &key.text).await, 200, "{what}");
    }
}

/// What has to be true of the tables, asked without the code under test.
async fn assert_consistent(postgres: &Postgres) {
    let mut connection = PgConnection::connect(&postgres.url()).await.unwrap();
    for wrong in [
        "FROM key_hashes h LEFT JOIN api_keys k ON k.id = h.key_id AND k.tenant_id = h.tenant_id \
         WHERE k.id IS NULL OR k.standing = 'revoked' OR (h.generation <> k.generation \
         AND h.generation IS DISTINCT FROM k.previous_generation)",
        "FROM api_keys k WHERE k.standing <> 'revoked' AND NOT EXISTS (SELECT 1 FROM key_hashes h \
         WHERE h.key_id = k.id AND h.generation = k.generation)",
    ] {
        let sql = sqlx::AssertSqlSafe(format!("SELECT count(*) AS found {wrong}"));
        let row = sqlx::query(sql).fetch_one(&mut connection).await.unwrap();
        assert_eq!(row.get::<i64, _>("found"), 0, "{wrong}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn after_kills_at_any_moment_the_stores_agree() {
    let World {
        _upstream,
        postgres,
        mut sidekey,
    } = World::start().await;
    let admin_key = sidekey.admin_key();
    let ledger: SharedLedger = Arc::default();
    for _ in 0..ROUNDS {
        sidekey = work_until_killed(sidekey, &admin_key, &ledger).await;
    }
    let url = postgres.url();
    agree_soon(&sidekey, &environment(&url, AGE)).await;
    assert_consistent(&postgres).await;
    let facts = ledger.lock().unwrap().facts.clone();
    check(&sidekey, &facts, ROUNDS).await;
}
