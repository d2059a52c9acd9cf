//! What the store keeps of reminders, on both engines.

use super::*;
use sidekey::key::Generation;
use sidekey::key::record::Standing;
use sidekey::reminders::schedule::Rotation;
use sidekey::store::reminders::{
    ClaimEnd, Claimed, LastReminder, Left, ReminderClaim, remindable_statement, rotations_statement,
};
use sidekey::store::sql::POSTGRES_SETTINGS;
use sqlx::any::AnyRow;
use sqlx::{AnyPool, AssertSqlSafe, Executor, Row};

use crate::lists::stores;

/// A world for each engine.
async fn worlds() -> (Vec<World>, crate::harness::postgres::Postgres) {
    let (directory, postgres, urls) = stores().await;
    let mut worlds = Vec::new();
    for url in urls {
        let store = SqlStore::open(&url).await.unwrap();
        worlds.push(World::of(tempfile::tempdir().unwrap(), store));
    }
    // The database's folder has to stay as long as its server.
    worlds[0]._directory = directory;
    (worlds, postgres)
}

async fn found(world: &World, now: Timestamp) -> Vec<String> {
    let found = world.store.remindable(now).await.unwrap();
    found.iter().map(|one| one.key.id.to_string()).collect()
}

fn claim<'a>(key: &'a KeyRecord, token: &'a str, now: Timestamp) -> ReminderClaim<'a> {
    ReminderClaim {
        key,
        step_at: Rotation::of(key).latest(now).unwrap().at,
        token,
        now,
        until: now.plus(10 * MINUTE),
        hourly_max: Some(100),
    }
}

fn end(key: &KeyRecord, token: &str, is_done: bool, next_at: Timestamp) -> ClaimEnd {
    ClaimEnd {
        key_id: key.id,
        token: token.to_owned(),
        left: if is_done { Left::Nothing } else { Left::Again },
        next_at,
        note: None,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_found_when_their_first_reminder_is_due() {
    let (worlds, _postgres) = worlds().await;
    for world in &worlds {
        for number in 1..=20 {
            let mut key = key(number);
            key.rotation_days = u32::try_from(number).unwrap();
            key.contact_email = None;
            world.add(&key).await;
            let first = Rotation::of(&key).next(made()).unwrap().at;
            let before = Timestamp::from_millis(first.as_millis() - 1);
            let id = key.id.to_string();
            assert!(!found(world, before).await.contains(&id), "{number}");
            assert!(found(world, first).await.contains(&id), "{number}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reminder_is_claimed_once() {
    let (worlds, _postgres) = worlds().await;
    for world in &worlds {
        let (store, now) = (&world.store, day(76));
        world.add(&key(1)).await;
        let one = store.get(key(1).id).await.unwrap().unwrap();
        // Many at once.
        let tokens: Vec<String> = (0..8).map(|n| format!("token-{n}")).collect();
        let claims: Vec<_> = tokens.iter().map(|token| claim(&one, token, now)).collect();
        let all = claims.iter().map(|claim| store.claim_reminder(claim));
        let all = futures_util::future::join_all(all).await;
        let won: Vec<usize> = (0..8)
            .filter(|&n| matches!(all[n], Ok(Claimed::Attempt(1))))
            .collect();
        assert_eq!(won.len(), 1, "{all:?}");
        let token = &tokens[won[0]];
        assert!(found(world, now).await.is_empty());
        // Whoever has read it before and finds nothing to do takes nothing away.
        store.rest(&one, now, day(80)).await.unwrap();
        // It failed: it is there again when it was said.
        let again = now.plus(MINUTE);
        assert!(
            store
                .end_claim(&end(&one, token, false, again))
                .await
                .unwrap()
        );
        assert!(
            !store
                .end_claim(&end(&one, token, true, again))
                .await
                .unwrap()
        );
        assert!(found(world, now).await.is_empty());
        let last = store.remindable(again).await.unwrap()[0].last;
        let expected = LastReminder {
            step_at: now,
            is_done: false,
        };
        assert_eq!(last, Some(expected));
        let second = store.claim_reminder(&claim(&one, "second", again)).await;
        assert_eq!(second.unwrap(), Claimed::Attempt(2));
        // Its holder is gone.
        let later = again.plus(10 * MINUTE);
        let third = store.claim_reminder(&claim(&one, "third", later)).await;
        assert_eq!(third.unwrap(), Claimed::Attempt(3));
        assert!(
            !store
                .end_claim(&end(&one, "second", true, later))
                .await
                .unwrap()
        );
        assert!(
            store
                .end_claim(&end(&one, "third", true, day(87)))
                .await
                .unwrap()
        );
        assert!(found(world, day(86)).await.is_empty());
        let last = store.remindable(day(87)).await.unwrap()[0].last.unwrap();
        assert!(last.is_done);
        // The next reminder is another one.
        let next = store.claim_reminder(&claim(&one, "next", day(87))).await;
        assert_eq!(next.unwrap(), Claimed::Attempt(1));
        // So it is where the one before was not done.
        let failed = end(&one, "next", false, day(90));
        assert!(store.end_claim(&failed).await.unwrap());
        let last = store.claim_reminder(&claim(&one, "last", day(90))).await;
        assert_eq!(last.unwrap(), Claimed::Attempt(1));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_changed_is_not_claimed() {
    let (worlds, _postgres) = worlds().await;
    for world in &worlds {
        let (store, now) = (&world.store, day(76));
        world.add(&key(1)).await;
        let stale = store.get(key(1).id).await.unwrap().unwrap();
        world
            .change(&stale, |key| key.name = "another".to_owned())
            .await;
        let claimed = store
            .claim_reminder(&claim(&stale, "a", now))
            .await
            .unwrap();
        assert_eq!(claimed, Claimed::Gone);
        let fresh = store.get(stale.id).await.unwrap().unwrap();
        let claimed = store
            .claim_reminder(&claim(&fresh, "b", now))
            .await
            .unwrap();
        assert_eq!(claimed, Claimed::Attempt(1));
        assert!(
            store
                .end_claim(&end(&fresh, "b", true, day(87)))
                .await
                .unwrap()
        );
        assert!(found(world, day(80)).await.is_empty());
        // Another time to live, or another secret: what was noted does not count.
        let shorter = world.change(&fresh, |key| key.rotation_days = 84).await;
        assert_eq!(found(world, day(80)).await.len(), 1);
        store.rest(&shorter, day(80), day(81)).await.unwrap();
        assert!(found(world, day(80)).await.is_empty());
        let last = store.remindable(day(81)).await.unwrap()[0].last.unwrap();
        assert_eq!((last.step_at, last.is_done), (day(76), true));
        let new = world
            .change(&fresh, |key| {
                key.generation = Generation(7);
                key.secret_created_at = day(10);
            })
            .await;
        assert!(store.remindable(day(82)).await.unwrap()[0].last.is_none());
        store.rest(&new, day(82), day(83)).await.unwrap();
        assert!(store.remindable(day(83)).await.unwrap()[0].last.is_none());
        world
            .change(&new, |key| key.standing = Standing::Disabled)
            .await;
        assert!(found(world, day(3000)).await.is_empty());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_has_expired_is_not_looked_at_every_day() {
    let (worlds, _postgres) = worlds().await;
    for world in &worlds {
        let mut key = key(1);
        key.expires_at = Some(day(70));
        world.add(&key).await;
        assert_eq!(found(world, day(76)).await.len(), 1, "nobody has noted it");
        world.store.settle(day(71)).await.unwrap();
        assert!(found(world, day(3000)).await.is_empty());
        world.change(&key, |key| key.expires_at = None).await;
        assert_eq!(found(world, day(76)).await.len(), 1, "it lives again");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_hour_has_its_limit() {
    let (worlds, _postgres) = worlds().await;
    let hour = Duration::from_secs(3600);
    for world in &worlds {
        for number in 1..=8 {
            world.add(&key(number)).await;
        }
        let mut number = 0;
        let mut begin = async |now: Timestamp| {
            number += 1;
            let one = world.store.get(key(number).id).await.unwrap().unwrap();
            let claim = ReminderClaim {
                hourly_max: Some(2),
                ..claim(&one, "t", now)
            };
            let claimed = world.store.claim_reminder(&claim).await.unwrap();
            if claimed == Claimed::HourIsFull {
                number -= 1;
            }
            claimed == Claimed::Attempt(1)
        };
        assert!(begin(day(76)).await && begin(day(76)).await);
        assert!(!begin(day(76).plus(hour - MINUTE)).await);
        assert!(begin(day(76).plus(hour)).await);
        // A clock that is a little behind counts with the others.
        assert!(begin(day(76).plus(hour - MINUTE)).await);
        assert!(!begin(day(76).plus(hour - MINUTE)).await);
        // One that was far ahead for a moment stops nobody.
        assert!(begin(day(80)).await && begin(day(80)).await);
        assert!(begin(day(76).plus(hour)).await);
        // What does not count is not held up.
        let one = world.store.get(key(8).id).await.unwrap().unwrap();
        let free = ReminderClaim {
            hourly_max: None,
            ..claim(&one, "t", day(76).plus(hour))
        };
        let claimed = world.store.claim_reminder(&free).await.unwrap();
        assert_eq!(claimed, Claimed::Attempt(1));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_cannot_be_read_stands_in_nobody_s_way() {
    let (worlds, _postgres) = worlds().await;
    for world in &worlds {
        let mut first = key(1);
        first.secret_created_at = Timestamp::from_millis(0);
        world.add(&first).await;
        world.add(&key(2)).await;
        sqlx::query("UPDATE api_keys SET scopes = 'nonsense' WHERE id = $1")
            .bind(first.id.to_string())
            .execute(world.store.writer())
            .await
            .unwrap();
        assert_eq!(found(world, day(76)).await, [key(2).id.to_string()]);
        let due = "SELECT id FROM api_keys WHERE sort_reminder <= $1";
        let rows = sqlx::query(due)
            .bind(day(76).as_millis())
            .fetch_all(world.store.readers())
            .await
            .unwrap();
        assert_eq!(rows.len(), 1, "it is left alone for a while");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn postgresql_reads_them_by_an_index() {
    let postgres = crate::harness::postgres::Postgres::start().await;
    let url = postgres.url();
    let store = SqlStore::open(&SecretString::from(url.clone()))
        .await
        .unwrap();
    // Some at a time: a statement may take five seconds.
    for first in (1..=5_000_i64).step_by(500) {
        let some = sqlx::query(
            "INSERT INTO api_keys (id, tenant_id, name, environment, hint, scopes, allowed_ips, rotation_days, \
               metadata, standing, created_at, updated_at, secret_created_at, generation, revision, search_revision) \
             SELECT lpad(n::text, 12, '0'), 't' || n % 7, 'n', 'live', 'h', '[]', '[]', 90, '{}', 'active', \
               n, n, n * 86400000::bigint, 1, 1, 1 FROM generate_series($1::bigint, $2::bigint) AS n",
        );
        let some = some.bind(first).bind(first + 499);
        some.execute(store.writer()).await.unwrap();
    }
    store.close().await;
    let pool = AnyPool::connect(&url).await.unwrap();
    let mut connection = pool.acquire().await.unwrap();
    connection.execute(POSTGRES_SETTINGS).await.unwrap();
    for analyzed in [false, true] {
        if analyzed {
            connection.execute("ANALYZE").await.unwrap();
        }
        let sql = format!("EXPLAIN {}", remindable_statement());
        let due = sqlx::query(AssertSqlSafe(sql)).bind(1_000 * 86_400_000_i64);
        let plan = text(due.fetch_all(&mut *connection).await.unwrap());
        assert_by_index(&plan, "api_keys_by_reminder");
        let sql = format!("EXPLAIN {}", rotations_statement());
        let counted = sqlx::query(AssertSqlSafe(sql))
            .bind("active/no/live/rotation")
            .bind(-1_i64)
            .bind(1_000 * 86_400_000_i64);
        let plan = text(counted.fetch_all(&mut *connection).await.unwrap());
        assert_by_index(&plan, "api_keys_by_part_rotation");
    }
}

fn text(rows: Vec<AnyRow>) -> String {
    let lines: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    lines.join("\n")
}

fn assert_by_index(plan: &str, index: &str) {
    assert!(plan.contains(&format!(" using {index} on ")), "{plan}");
    for other in ["Seq Scan", "Bitmap", "Sort"] {
        assert!(!plan.contains(other), "{plan}");
    }
}
