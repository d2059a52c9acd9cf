//! Usage in the database, on both engines: batches are added once and add up, whoever sends them; hours
//! become days; what is asked for is read by an index.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use secrecy::SecretString;
use sidekey::clock::{ManualClock, Timestamp};
use sidekey::key::{Generation, KeyId};
use sidekey::store::{KeyStore, SqlStore, UsageStore};
use sidekey::usage::counts::{DAY_MS, HOUR_MS};
use sidekey::usage::span::Interval;
use sidekey::usage::{Batch, Counts, Hour, HourRow, KeyUse, LastUse, RollUp, Subject};

use crate::harness::postgres::Postgres;

fn key(n: usize) -> KeyId {
    format!("{n:012}").parse().unwrap()
}

fn at(millis: i64) -> Timestamp {
    Timestamp::from_millis(millis)
}

fn hour(n: i64) -> Hour {
    Hour::of(at(n * HOUR_MS))
}

fn counts(n: u64) -> Counts {
    Counts {
        requests: n,
        errors_4xx: 2 * n,
        errors_5xx: 3 * n,
        denied: 4 * n,
        rate_limited: 5 * n,
        bytes_in: 6 * n,
        bytes_out: (1 << 40) * n,
        latency_us_sum: 8 * n,
        latency_us_max: 9 * n,
    }
}

fn row(n: usize, tenant: &str, of: i64, requests: u64) -> HourRow {
    HourRow {
        key_id: key(n),
        tenant_id: tenant.parse().unwrap(),
        hour: hour(of),
        counts: counts(requests),
    }
}

fn used(n: usize, generation: i64, millis: i64, address: &str) -> KeyUse {
    KeyUse {
        key_id: key(n),
        generation: Generation(generation),
        last: LastUse {
            at: at(millis),
            address: address.parse().unwrap(),
        },
    }
}

fn batch(instance: &str, number: i64, hours: Vec<HourRow>, uses: Vec<KeyUse>) -> Batch {
    Batch {
        instance: instance.into(),
        number,
        hours,
        uses,
        outcomes: vec![],
    }
}

async fn engines() -> (tempfile::TempDir, Postgres, [SqlStore; 2]) {
    let directory = tempfile::tempdir().unwrap();
    let sqlite = format!("sqlite://{}/keys.db", directory.path().display());
    let postgres = Postgres::start().await;
    let open = async |url: String| SqlStore::open(&SecretString::from(url)).await.unwrap();
    let stores = [open(sqlite).await, open(postgres.url()).await];
    (directory, postgres, stores)
}

/// What is known of a subject from hour `from` to hour `to`: starts in intervals, and requests.
async fn known(
    store: &SqlStore,
    subject: &Subject,
    interval: Interval,
    from: i64,
    to: i64,
) -> Vec<(i64, Counts)> {
    let (from, to) = (at(from * HOUR_MS), at(to * HOUR_MS));
    let rows = store.usage(subject, interval, from, to).await.unwrap();
    let mut rows: Vec<_> = rows
        .into_iter()
        .map(|(start, counts)| (start.as_millis() / interval.millis(), counts))
        .collect();
    rows.sort_unstable_by_key(|(start, _)| *start);
    rows
}

fn sum(parts: &[u64]) -> Counts {
    let mut all = Counts::default();
    for part in parts {
        all.add(&counts(*part));
    }
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn batches_add_up_and_each_is_added_once() {
    let (_directory, _postgres, stores) = engines().await;
    let (a, b) = (
        Subject::Tenant("a".parse().unwrap()),
        Subject::Tenant("b".parse().unwrap()),
    );
    for store in &stores {
        let first = batch(
            "one",
            1,
            vec![row(1, "a", 5, 1), row(1, "a", 6, 2), row(2, "b", 5, 3)],
            vec![
                used(1, 1, 100, "192.0.2.1"),
                used(1, 2, 200, "2001:db8::1"),
                used(2, 1, 300, "192.0.2.3"),
            ],
        );
        for _ in 0..3 {
            store.add_usage(&first).await.unwrap();
        }
        // Another instance begins with 1 as well, and its word is older in part.
        let other = batch(
            "two",
            1,
            vec![row(1, "a", 5, 10)],
            vec![used(1, 1, 99, "192.0.2.9"), used(1, 2, 201, "192.0.2.2")],
        );
        store.add_usage(&other).await.unwrap();
        store.add_usage(&first).await.unwrap();
        store
            .add_usage(&batch("one", 2, vec![row(1, "a", 5, 100)], vec![]))
            .await
            .unwrap();
        // One that comes very late was there before.
        store.add_usage(&first).await.unwrap();
        store.add_usage(&other).await.unwrap();

        let hours = async |subject: &Subject| known(store, subject, Interval::Hour, 0, 24).await;
        let one = Subject::Key(key(1));
        assert_eq!(hours(&one).await, [(5, sum(&[1, 10, 100])), (6, counts(2))]);
        assert_eq!(hours(&a).await, hours(&one).await);
        assert_eq!(hours(&b).await, [(5, counts(3))]);
        assert_eq!(
            hours(&Subject::Platform).await,
            [(5, sum(&[1, 3, 10, 100])), (6, counts(2))]
        );
        assert_eq!(hours(&Subject::Key(key(9))).await, []);
        // From its start to before its end.
        assert_eq!(
            known(store, &one, Interval::Hour, 6, 7).await,
            [(6, counts(2))]
        );
        assert_eq!(known(store, &one, Interval::Hour, 7, 9).await, []);
        assert_eq!(
            known(store, &one, Interval::Day, 0, 24).await,
            [(0, sum(&[1, 2, 10, 100]))]
        );
        assert_eq!(
            store.usage_total(key(1)).await.unwrap(),
            sum(&[1, 2, 10, 100])
        );
        assert_eq!(store.usage_total(key(9)).await.unwrap(), Counts::default());
        let mut uses = store.last_uses(&[key(1), key(9), key(2)]).await.unwrap();
        uses.sort_unstable_by_key(|one| (one.key_id, one.generation));
        assert_eq!(
            uses,
            [
                used(1, 1, 100, "192.0.2.1"),
                used(1, 2, 201, "192.0.2.2"),
                used(2, 1, 300, "192.0.2.3"),
            ]
        );
        assert_eq!(store.last_uses(&[]).await.unwrap(), []);
        let page: Vec<KeyId> = (0..1000).map(key).collect();
        assert_eq!(store.last_uses(&page).await.unwrap().len(), 3);

        // Of secrets that are not accepted any more, only the very last use stays.
        let generations = async || {
            let uses = store.last_uses(&[key(1)]).await.unwrap();
            let mut all: Vec<i64> = uses.iter().map(|one| one.generation.0).collect();
            all.sort_unstable();
            all
        };
        for (before, left) in [(1, vec![1, 2]), (2, vec![2]), (9, vec![2])] {
            store.forget_uses(key(1), Generation(before)).await.unwrap();
            assert_eq!(generations().await, left);
        }
        assert_eq!(store.last_uses(&[key(2)]).await.unwrap().len(), 1);

        // An instance that was silent for long is forgotten, and others are not.
        store.forget_flushes(at(1)).await.unwrap();
        store.add_usage(&first).await.unwrap();
        assert_eq!(
            store.usage_total(key(1)).await.unwrap(),
            sum(&[1, 2, 10, 100])
        );
        store.forget_flushes(Timestamp::MAX).await.unwrap();
        store.add_usage(&first).await.unwrap();
        assert_ne!(
            store.usage_total(key(1)).await.unwrap(),
            sum(&[1, 2, 10, 100])
        );
    }
}

/// Instances that store the same keys, in whatever order, end in each other's way neither on keys nor
/// on the rows that all share.
#[tokio::test(flavor = "multi_thread")]
async fn instances_that_flush_at_once_lose_nothing() {
    const INSTANCES: usize = 4;
    const KEYS: usize = 200;
    const BATCHES: i64 = 8;
    let (_directory, _postgres, stores) = engines().await;
    for store in &stores {
        let flushing = (0..INSTANCES).map(|instance| async move {
            for number in 1..=BATCHES {
                let hours = (0..KEYS).map(|n| row(n, ["a", "b", "c"][n % 3], 5, 1));
                let uses = (0..KEYS).map(|n| used(n, 1, number, "192.0.2.1"));
                let name = format!("instance {instance}");
                let batch = batch(&name, number, hours.collect(), uses.collect());
                store.add_usage(&batch).await.unwrap();
            }
        });
        join_all(flushing).await;
        let all = (INSTANCES * KEYS) as u64 * BATCHES as u64;
        let platform = known(store, &Subject::Platform, Interval::Hour, 0, 24).await;
        assert_eq!((platform[0].0, platform[0].1.requests), (5, all));
        let tenant = Subject::Tenant("a".parse().unwrap());
        let tenant = known(store, &tenant, Interval::Hour, 0, 24).await;
        let share = KEYS.div_ceil(3) * INSTANCES * BATCHES as usize;
        assert_eq!(tenant[0].1.requests, share as u64);
    }
}

/// Sent again while the first attempt may still be under way: a batch is added once.
#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_is_sent_twice_at_once_is_added_once() {
    let (_directory, _postgres, stores) = engines().await;
    for store in &stores {
        for number in 1..=10 {
            let batch = batch("one", number, vec![row(1, "a", 5, 1)], vec![]);
            let sent = join_all((0..4).map(|_| store.add_usage(&batch))).await;
            sent.into_iter().for_each(Result::unwrap);
        }
        assert_eq!(store.usage_total(key(1)).await.unwrap().requests, 10);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn old_hours_become_days_once() {
    const DAYS: i64 = 20;
    let (_directory, _postgres, stores) = engines().await;
    for store in &stores {
        for day in 0..DAYS {
            let hours = (0..24).map(|of| row(1, "a", 24 * day + of, 1));
            let more = (0..24).map(|of| row(2, "b", 24 * day + of, 2));
            let hours = hours.chain(more).collect();
            store
                .add_usage(&batch("one", day + 1, hours, vec![]))
                .await
                .unwrap();
        }
        let subjects = [
            Subject::Key(key(1)),
            Subject::Tenant("b".parse().unwrap()),
            Subject::Platform,
        ];
        let days = async || {
            let mut all = Vec::new();
            for subject in &subjects {
                all.push(known(store, subject, Interval::Day, 0, 24 * DAYS).await);
            }
            all
        };
        let before = days().await;
        assert_eq!(before[2][0].1.requests, 72);
        assert_eq!(before[2].len(), DAYS as usize);
        // Each instance does it, at the same time. Hours of 13 days are kept.
        let clock = ManualClock::at(at(DAYS * DAY_MS - 1));
        let turns = (0..3).map(|_| {
            let roll_up = RollUp {
                store: Arc::new(store.clone()),
                retention: Duration::from_secs(12 * 86_400),
                clock: clock.clone(),
            };
            async move { roll_up.roll_up().await }
        });
        join_all(turns).await;
        assert_eq!(days().await, before);
        let kept = known(store, &subjects[2], Interval::Hour, 0, 24 * DAYS).await;
        assert_eq!(kept.len(), 13 * 24);
        assert_eq!(kept[0].0, 7 * 24, "whole days are kept");

        // What comes late to a day that is one already, is added to it the next time.
        let late = batch("one", DAYS + 1, vec![row(1, "a", 30, 5)], vec![]);
        store.add_usage(&late).await.unwrap();
        for turn in 0..2 {
            let day = known(store, &subjects[0], Interval::Day, 24, 48).await;
            let requests: u64 = day.iter().map(|(_, counts)| counts.requests).sum();
            assert_eq!(requests, 29, "turn {turn}");
            assert_eq!(day.len(), 2 - turn);
            assert!(!store.roll_up(at(7 * DAY_MS)).await.unwrap());
        }
        assert_eq!(
            store.usage_total(key(1)).await.unwrap().requests,
            24 * DAYS as u64 + 5
        );
        store.ping().await.unwrap();
    }
}
