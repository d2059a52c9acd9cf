//! The busiest keys: a short list for each hour, of the platform and of each tenant, made by one instance
//! at a time. A page adds the lists up and counts the few keys that come out, instead of all.
//!
//! A list also says how many requests a key that is not in it can have had, and of how many all its
//! requests were. So it can be told for certain whether a key that is in no list might belong to those
//! shown: see [`Ranked::is_certain`].

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::sync::Arc;
use std::time::Duration;

use super::counts::{Counts, Hour, Subject};
use crate::clock::SharedClock;
use crate::key::{KeyId, TenantId};
use crate::store::{RankingStore, StoreError};

/// Keys in a list of the platform.
pub const PLATFORM_KEYS: usize = 50;
/// Keys in a list of a tenant: there are many tenants.
pub const TENANT_KEYS: usize = 20;
/// Tenants that have lists in one hour; what these take waits in memory while they are made.
const TENANTS_MAX: usize = 10_000;
/// How far back there are lists: as far as a page looks, and its first day.
pub const KEPT: Duration = Duration::from_secs(91 * 86_400);
/// How long after its end an hour is taken for complete: instances store what they counted in it.
const LATE: Duration = Duration::from_secs(120);
/// Where nothing older is left to be listed, only so far back is looked for more.
const RECENT: Duration = Duration::from_secs(2 * 86_400);
/// A turn takes at most one part of so many of all the time.
const PART_OF_TIME: u32 = 200;
/// How long a turn keeps others from theirs, where its instance has died.
const TURN_MAX: Duration = Duration::from_secs(600);
/// Past hours that are listed in one turn.
const HOURS_A_TURN: usize = 8;

/// A key of one hour, and how many requests it had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyHour {
    pub key_id: KeyId,
    pub tenant_id: TenantId,
    pub requests: u64,
}

/// The busiest keys of an hour.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopList {
    pub subject: Subject,
    /// The busiest first.
    pub keys: Vec<(KeyId, u64)>,
    /// The most requests that a key has which is not among them.
    pub rest: u64,
    /// The requests of all keys.
    pub all: u64,
}

/// A [`TopList`] that is being made.
#[derive(Debug)]
struct Top {
    length: usize,
    /// The least busy of the busiest on top.
    keys: BinaryHeap<Reverse<(u64, KeyId)>>,
    rest: u64,
    all: u64,
}

impl Top {
    fn new(length: usize) -> Self {
        Top {
            length,
            keys: BinaryHeap::new(),
            rest: 0,
            all: 0,
        }
    }

    fn add(&mut self, key: KeyId, requests: u64) {
        self.all = self.all.saturating_add(requests);
        self.keys.push(Reverse((requests, key)));
        if self.keys.len() > self.length
            && let Some(Reverse((least, _))) = self.keys.pop()
        {
            self.rest = self.rest.max(least);
        }
    }

    fn finish(self, subject: Subject) -> TopList {
        let keys = self.keys.into_sorted_vec();
        TopList {
            subject,
            keys: keys
                .into_iter()
                .map(|Reverse((requests, key))| (key, requests))
                .collect(),
            rest: self.rest,
            all: self.all,
        }
    }
}

/// All lists of an hour, while its keys are read.
#[derive(Debug)]
pub struct Lists {
    platform: Top,
    tenants: BTreeMap<TenantId, Top>,
}

impl Default for Lists {
    fn default() -> Self {
        Lists {
            platform: Top::new(PLATFORM_KEYS),
            tenants: BTreeMap::new(),
        }
    }
}

impl Lists {
    pub fn add(&mut self, key: KeyHour) {
        self.platform.add(key.key_id, key.requests);
        let has_place = self.tenants.len() < TENANTS_MAX;
        if has_place || self.tenants.contains_key(&key.tenant_id) {
            let top = self.tenants.entry(key.tenant_id);
            top.or_insert_with(|| Top::new(TENANT_KEYS))
                .add(key.key_id, key.requests);
        }
    }

    pub fn finish(self) -> Vec<TopList> {
        let tenants = self.tenants.into_iter();
        let mut lists: Vec<TopList> = tenants
            .map(|(tenant, top)| top.finish(Subject::Tenant(tenant)))
            .collect();
        lists.push(self.platform.finish(Subject::Platform));
        lists
    }
}

/// What the lists of some hours say together.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Listed {
    /// Keys that may be the busiest, those that can have most first; with each, by how much its listed
    /// requests exceed what a key that is never listed could have had in the same hours.
    pub keys: Vec<(KeyId, i64)>,
    /// The same of the first key that found no place.
    pub next: Option<i64>,
    /// The most that a key can have had in these hours without being listed.
    pub rest: u64,
    /// The requests that the lists know of.
    pub all: u64,
}

/// The busiest keys of a time.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ranked {
    /// With what each was used for, all of it; the busiest first.
    pub keys: Vec<(KeyId, Counts)>,
    /// The most requests that any other key can have had.
    pub others_max: u64,
}

impl Ranked {
    /// The busiest `count` of the keys that were listed, by what they were used for. `all` are the requests
    /// of the whole time, read later than the rest.
    pub fn new(listed: &Listed, mut keys: Vec<(KeyId, Counts)>, all: u64, count: usize) -> Self {
        // What no list knows of may all be of one key.
        let unknown = all.saturating_sub(listed.all);
        let above = listed.next.unwrap_or_default().max(0).unsigned_abs();
        let mut others_max = listed.rest.saturating_add(above).saturating_add(unknown);
        keys.sort_unstable_by_key(|(key, counts)| (Reverse(counts.requests), *key));
        // Nobody else can have more than all that is left.
        let known: u64 = keys.iter().map(|(_, counts)| counts.requests).sum();
        others_max = others_max.min(all.saturating_sub(known));
        keys.truncate(count);
        Ranked { keys, others_max }
    }

    /// Whether no other key belongs to the first `count`.
    pub fn is_certain(&self, count: usize) -> bool {
        let last = self.keys.get(count.saturating_sub(1));
        let least = last.map_or(0, |(_, counts)| counts.requests);
        self.others_max <= least
    }
}

/// Makes the lists from time to time, as any of the instances.
pub struct Ranker {
    store: Arc<dyn RankingStore>,
    /// The shortest time between two turns.
    interval: Duration,
    clock: SharedClock,
    /// Whether all hours that are kept have lists, but for the latest.
    is_complete: bool,
}

impl Ranker {
    pub fn new(store: Arc<dyn RankingStore>, interval: Duration, clock: SharedClock) -> Self {
        Ranker {
            store,
            interval,
            clock,
            is_complete: false,
        }
    }

    /// Does it for ever.
    pub async fn run(mut self) {
        loop {
            tokio::time::sleep(self.interval).await;
            if let Err(error) = self.take_turn().await {
                tracing::debug!(%error, "the busiest keys can't be listed now");
            }
        }
    }

    /// Makes what is to be made, unless another instance does.
    pub async fn take_turn(&mut self) -> Result<(), StoreError> {
        if !self.store.begin_ranking(TURN_MAX).await? {
            return Ok(());
        }
        let begun_us = self.clock.monotonic_us();
        let done = self.rank_all().await;
        let took_us = self.clock.monotonic_us().saturating_sub(begun_us);
        let pause = Duration::from_micros(took_us) * PART_OF_TIME;
        self.store.end_ranking(pause.max(self.interval)).await?;
        done
    }

    async fn rank_all(&mut self) -> Result<(), StoreError> {
        let now = self.clock.now();
        self.rank(Hour::of(now)).await?;
        let complete = Hour::of(now.minus(LATE)).start();
        for _ in 0..HOURS_A_TURN {
            let back = if self.is_complete { RECENT } else { KEPT };
            let from = Hour::of(now.minus(back)).start();
            let Some(hour) = self.store.unranked_hour(from, complete).await? else {
                self.is_complete = true;
                break;
            };
            self.rank(hour).await?;
            self.store.note_ranked(hour).await?;
        }
        // One for each that came.
        let oldest = Hour::of(now.minus(KEPT)).start();
        self.store.forget_rankings(oldest).await
    }

    async fn rank(&self, hour: Hour) -> Result<(), StoreError> {
        let (mut lists, mut after) = (Lists::default(), None);
        loop {
            let page = self.store.keys_of_hour(hour, after).await?;
            page.keys.into_iter().for_each(|key| lists.add(key));
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        self.store.write_rankings(hour, &lists.finish()).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn key(n: usize) -> KeyId {
        format!("{n:012}").parse().unwrap()
    }

    fn requests(n: u64) -> Counts {
        Counts {
            requests: n,
            ..Counts::default()
        }
    }

    fn of(n: usize, tenant: &str, requests: u64) -> KeyHour {
        KeyHour {
            key_id: key(n),
            tenant_id: tenant.parse().unwrap(),
            requests,
        }
    }

    #[test]
    fn a_list_has_the_busiest_and_says_what_others_have() {
        let mut lists = Lists::default();
        for n in 0..PLATFORM_KEYS + 2 {
            lists.add(of(n, if n % 2 == 0 { "a" } else { "b" }, n as u64));
        }
        let lists = lists.finish();
        assert_eq!(lists.len(), 3);
        assert_eq!(lists[0].subject, Subject::Tenant("a".parse().unwrap()));
        assert_eq!(lists[0].keys.len(), TENANT_KEYS);
        assert_eq!(lists[0].keys[0], (key(50), 50));
        assert_eq!(lists[0].rest, 10);
        let all = &lists[2];
        assert_eq!(all.subject, Subject::Platform);
        assert_eq!((all.rest, all.all), (1, 51 * 52 / 2));
        assert_eq!(all.keys.first(), Some(&(key(51), 51)));
        assert_eq!(all.keys.last(), Some(&(key(2), 2)));
    }

    #[test]
    fn without_lists_nothing_is_certain() {
        let ranked = Ranked::new(&Listed::default(), vec![], 5, 10);
        assert_eq!((ranked.others_max, ranked.is_certain(10)), (5, false));
        let ranked = Ranked::new(&Listed::default(), vec![], 0, 10);
        assert!(ranked.is_certain(10), "there is nobody");
    }

    /// What the store does with lists, in short.
    fn listed(lists: &[TopList], count: usize) -> Listed {
        let mut above: BTreeMap<KeyId, i64> = BTreeMap::new();
        for list in lists {
            for (key, requests) in &list.keys {
                *above.entry(*key).or_default() += *requests as i64 - list.rest as i64;
            }
        }
        let mut keys: Vec<(KeyId, i64)> = above.into_iter().collect();
        keys.sort_unstable_by_key(|(key, above)| (Reverse(*above), *key));
        let next = keys.get(count).map(|(_, above)| *above);
        keys.truncate(count);
        Listed {
            keys,
            next,
            rest: lists.iter().map(|list| list.rest).sum(),
            all: lists.iter().map(|list| list.all).sum(),
        }
    }

    proptest! {
        /// Whatever keys do, no key that is not shown has more than is said; and where it is said to be
        /// certain, those that are shown are the busiest.
        #[test]
        fn what_is_said_of_others_holds(
            hours in prop::collection::vec(prop::collection::vec(0u64..30, 12), 1..6),
            unlisted in prop::collection::vec(0u64..10, 12),
            length in 1usize..8,
            candidates in 1usize..8,
            shown in 1usize..6,
        ) {
            let mut lists = Vec::new();
            let mut totals = unlisted.clone();
            for hour in &hours {
                let mut top = Top::new(length);
                for (n, requests) in hour.iter().enumerate() {
                    totals[n] += requests;
                    top.add(key(n), *requests);
                }
                lists.push(top.finish(Subject::Platform));
            }
            let listed = listed(&lists, candidates);
            let counted = listed.keys.iter();
            let counted = counted.map(|(of, _)| {
                let n = (0..totals.len()).find(|n| key(*n) == *of).unwrap();
                (*of, requests(totals[n]))
            });
            let ranked = Ranked::new(&listed, counted.collect(), totals.iter().sum(), shown);
            let is_shown = |n: usize| ranked.keys.iter().any(|(of, _)| *of == key(n));
            let is_candidate = |n: usize| listed.keys.iter().any(|(of, _)| *of == key(n));
            for (n, total) in totals.iter().enumerate() {
                prop_assert!(is_candidate(n) || *total <= ranked.others_max);
            }
            if ranked.is_certain(shown) {
                let mut sorted = totals.clone();
                sorted.sort_unstable_by_key(|total| Reverse(*total));
                let shown_totals: Vec<u64> =
                    ranked.keys.iter().map(|(_, counts)| counts.requests).collect();
                prop_assert_eq!(&sorted[..shown_totals.len()], &shown_totals[..]);
                prop_assert!((0..totals.len()).all(|n| is_shown(n) || shown_totals.len() == shown || totals[n] == 0));
            }
        }
    }
}
