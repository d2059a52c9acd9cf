//! What an overview is read from, on both engines: how requests ended, each batch once; and lists of the
//! busiest keys, made by whichever instance has the turn.

use std::sync::Arc;
use std::time::Duration;

use secrecy::SecretString;
use sidekey::clock::{ManualClock, Timestamp};
use sidekey::key::KeyId;
use sidekey::store::overview::LISTED_KEYS;
use sidekey::store::{KeyStore, OverviewStore, RankingStore, SqlStore, UsageStore};
use sidekey::telemetry::Outcome;
use sidekey::usage::counts::{DAY_MS, HOUR_MS};
use sidekey::usage::ranking::{PLATFORM_KEYS, Ranked, TENANT_KEYS};
use sidekey::usage::span::Interval;
use sidekey::usage::{Batch, Counts, Hour, HourRow, OutcomeRow, Ranker, RollUp, Subject};

use crate::harness::noted;
use crate::harness::postgres::Postgres;
use crate::postgres::record;

/// In the middle of an hour.
const NOW_MS: i64 = 1_000 * DAY_MS + 12 * HOUR_MS + HOUR_MS / 2;

fn at(millis: i64) -> Timestamp {
    Timestamp::from_millis(millis)
}

/// The running hour, or one that was so many hours ago.
fn ago(hours: i64) -> Hour {
    Hour::of(at(NOW_MS - hours * HOUR_MS))
}

fn key(n: usize) -> KeyId {
    format!("{n:012}").parse().unwrap()
}

fn tenant(name: &str) -> Subject {
    Subject::Tenant(name.parse().unwrap())
}

fn requests(n: u64) -> Counts {
    Counts {
        requests: n,
        errors_5xx: n / 2,
        ..Counts::default()
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

/// Batches of one instance.
struct Instance<'a> {
    store: &'a SqlStore,
    number: i64,
}

impl Instance<'_> {
    async fn add(&mut self, hours: Vec<HourRow>, outcomes: Vec<OutcomeRow>) {
        self.number += 1;
        let batch = Batch {
            instance: "one".into(),
            number: self.number,
            hours,
            uses: vec![],
            outcomes,
        };
        // Nobody knows whether it arrived.
        for _ in 0..2 {
            self.store.add_usage(&batch).await.unwrap();
        }
    }
}

fn used(n: usize, tenant: &str, hour: Hour, requests: u64) -> HourRow {
    HourRow {
        key_id: key(n),
        tenant_id: tenant.parse().unwrap(),
        hour,
        counts: self::requests(requests),
    }
}

/// A key in the store: lists are of keys that are there.
async fn insert(store: &SqlStore, n: usize, tenant: &str) {
    let mut record = record(n as i64);
    record.id = key(n);
    record.tenant_id = tenant.parse().unwrap();
    store.insert(&record, &noted()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn outcomes_are_added_once_and_become_days() {
    let (_directory, _postgres, stores) = engines().await;
    let refused = Subject::Outcome(Outcome::InvalidKey);
    let shadow = Subject::Shadow(Outcome::InvalidKey);
    let unused = Subject::Outcome(Outcome::NoRoute);
    let subjects = [unused, refused.clone(), shadow.clone()];
    for store in &stores {
        let mut instance = Instance { store, number: 0 };
        let row = |subject: &Subject, hour: i64, requests| OutcomeRow {
            subject: subject.clone(),
            hour: ago(hour),
            requests,
        };
        let first = vec![
            row(&refused, 30, 1),
            row(&refused, 1, 2),
            row(&shadow, 1, 4),
        ];
        instance.add(vec![], first).await;
        let keyed = vec![used(1, "a", ago(1), 100)];
        instance.add(keyed, vec![row(&refused, 1, 8)]).await;
        let known = async |interval: Interval| {
            let (from, to) = (at(NOW_MS - 48 * HOUR_MS), at(NOW_MS));
            let from = at(from.as_millis() - from.as_millis() % DAY_MS);
            let rows = store.requests_of(&subjects, interval, from, to).await;
            let mut rows: Vec<_> = rows.unwrap();
            rows.sort_unstable();
            rows
        };
        let hours = [
            (1, ago(30).start(), 1),
            (1, ago(1).start(), 10),
            (2, ago(1).start(), 4),
        ];
        assert_eq!(known(Interval::Hour).await, hours);
        let day = |n: i64| at((1_000 - n) * DAY_MS);
        let days = [(1, day(1), 1), (1, day(0), 10), (2, day(0), 4)];
        assert_eq!(known(Interval::Day).await, days);
        let roll_up = RollUp {
            store: Arc::new(store.clone()),
            retention: Duration::from_secs(1),
            clock: ManualClock::at(at(NOW_MS)),
        };
        roll_up.roll_up().await;
        assert_eq!(known(Interval::Day).await, days);
        assert_eq!(known(Interval::Hour).await, hours[1..]);
        // What keys did is apart.
        let from = at(NOW_MS - 90 * DAY_MS);
        let platform = [Subject::Platform, refused.clone()];
        let sums = store.sums_of(&platform, from, at(NOW_MS)).await.unwrap();
        let mut sums: Vec<_> = sums
            .into_iter()
            .map(|(place, counts)| (place, counts.requests))
            .collect();
        sums.sort_unstable();
        assert_eq!(sums, [(0, 100), (1, 11)]);
        assert_eq!(
            store
                .requests_of(&[], Interval::Day, from, at(NOW_MS))
                .await
                .unwrap(),
            []
        );
    }
}

fn ranker(store: &SqlStore, clock: &Arc<ManualClock>) -> Ranker {
    Ranker::new(Arc::new(store.clone()), Duration::ZERO, clock.clone())
}

/// The ten busiest of the last 24 hours: their numbers and requests; and whether that is certain.
async fn busiest(store: &SqlStore, subject: &Subject) -> (Vec<(KeyId, u64)>, bool) {
    let (from, to) = (ago(23).start(), ago(0).end());
    let listed = store.listed(subject, from, to).await.unwrap();
    let subjects: Vec<Subject> = listed
        .keys
        .iter()
        .map(|(key, _)| Subject::Key(*key))
        .collect();
    let sums = store.sums_of(&subjects, from, to).await.unwrap();
    let counted = sums
        .into_iter()
        .map(|(place, counts)| (listed.keys[place].0, counts))
        .collect();
    let all = store
        .usage(subject, Interval::Hour, from, to)
        .await
        .unwrap();
    let all = all.iter().map(|(_, counts)| counts.requests).sum();
    let ranked = Ranked::new(&listed, counted, all, 10);
    let is_certain = ranked.is_certain(10);
    let keys = ranked.keys.into_iter();
    (
        keys.map(|(key, counts)| (key, counts.requests)).collect(),
        is_certain,
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn the_busiest_keys_are_listed_by_the_hour() {
    const KEYS: usize = 1_200;
    let (_directory, _postgres, stores) = engines().await;
    for store in &stores {
        for n in 0..KEYS {
            insert(store, n, if n % 2 == 0 { "a" } else { "b" }).await;
        }
        let of = |n: usize| if n.is_multiple_of(2) { "a" } else { "b" };
        let mut instance = Instance { store, number: 0 };
        // Some keys are busy all the time, one in a past hour, one in the running one; all others a little.
        for hour in 0..3 {
            let hours = (0..KEYS).map(|n| {
                let requests = match (n, hour) {
                    (0..9, _) => 1_000 + n as u64,
                    (500, 2) => 9_000,
                    (501, 0) => 8_000,
                    _ => 3,
                };
                used(n, of(n), ago(hour), requests)
            });
            instance.add(hours.collect(), vec![]).await;
        }
        let clock = ManualClock::at(at(NOW_MS));
        assert_eq!(
            busiest(store, &Subject::Platform).await,
            (vec![], false),
            "no list yet"
        );
        let mut rankers = [ranker(store, &clock), ranker(store, &clock)];
        for ranker in &mut rankers {
            ranker.take_turn().await.unwrap();
            // The next turn may be far off, because this one took long.
            store.end_ranking(Duration::ZERO).await.unwrap();
        }
        let (keys, is_certain) = busiest(store, &Subject::Platform).await;
        let expected: Vec<_> = [(500, 9_006), (501, 8_006)]
            .into_iter()
            .chain((1..9).rev().map(|n| (n, 3 * (1_000 + n as u64))))
            .map(|(n, requests)| (key(n), requests))
            .collect();
        assert_eq!((keys, is_certain), (expected, true));
        let (keys, is_certain) = busiest(store, &tenant("a")).await;
        assert_eq!(keys[0], (key(500), 9_006));
        assert_eq!(keys[1], (key(8), 3_024));
        assert_eq!(keys.len(), 10);
        assert!(is_certain, "others have as many as the last at most");
        assert_eq!(busiest(store, &tenant("c")).await, (vec![], true));
        let (from, to) = (ago(23).start(), ago(0).end());
        let listed = store.listed(&Subject::Platform, from, to).await.unwrap();
        assert_eq!((listed.keys.len(), listed.rest), (LISTED_KEYS, 9));
        let past = store.unranked_hour(from, ago(0).start()).await.unwrap();
        assert_eq!(past, None, "all past hours are noted");

        // Since the lists were made, a key that is in none has become busy: nothing is certain any more,
        // until they are made again.
        instance
            .add(vec![used(700, "a", ago(0), 50_000)], vec![])
            .await;
        let (keys, is_certain) = busiest(store, &Subject::Platform).await;
        assert_eq!((keys[0].0, is_certain), (key(500), false));
        rankers[1].take_turn().await.unwrap();
        for subject in [Subject::Platform, tenant("a")] {
            let (keys, is_certain) = busiest(store, &subject).await;
            assert_eq!((keys[0], is_certain), ((key(700), 50_009), true));
        }
        assert_rows(store).await;
    }
}

/// Lists have their lengths, and are written over.
async fn assert_rows(store: &SqlStore) {
    for (subject, length) in [("platform", PLATFORM_KEYS), ("tenant/b", TENANT_KEYS)] {
        let row: (i64,) = sqlx::query_as("SELECT COUNT(*) FROM usage_rankings WHERE subject = $1")
            .bind(subject)
            .fetch_one(store.readers())
            .await
            .unwrap();
        assert_eq!(row.0, 3 * length as i64, "{subject}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn turns_are_of_one_instance_and_old_lists_go() {
    let (_directory, _postgres, stores) = engines().await;
    for store in &stores {
        insert(store, 1, "a").await;
        let mut instance = Instance { store, number: 0 };
        for hour in [0, 2_000, 2_183, 3_000] {
            instance.add(vec![used(1, "a", ago(hour), 5)], vec![]).await;
        }
        let limit = Duration::from_secs(3_600);
        assert!(store.begin_ranking(limit).await.unwrap());
        assert!(!store.begin_ranking(limit).await.unwrap());
        let clock = ManualClock::at(at(NOW_MS));
        let mut waits = ranker(store, &clock);
        waits.take_turn().await.unwrap();
        let count = async || {
            let row: (i64,) = sqlx::query_as("SELECT COUNT(*) FROM usage_rankings")
                .fetch_one(store.readers())
                .await
                .unwrap();
            row.0
        };
        assert_eq!(count().await, 0, "somebody else has the turn");
        store.end_ranking(Duration::ZERO).await.unwrap();
        waits.take_turn().await.unwrap();
        assert_eq!(
            count().await,
            6,
            "three hours, of the platform and the tenant"
        );
        // Two days later the oldest goes; what was the running hour is listed once more.
        clock.advance(Duration::from_secs(2 * 86_400));
        store.end_ranking(Duration::ZERO).await.unwrap();
        waits.take_turn().await.unwrap();
        assert_eq!(count().await, 4);
        let all = (at(0), at(NOW_MS + 30 * DAY_MS));
        let left = store.unranked_hour(all.0, all.1).await.unwrap();
        assert_eq!(
            left,
            Some(ago(2_183)),
            "forgotten, and too old to be asked for"
        );
    }
}
