//! Token buckets in this process's memory.
//!
//! Several buckets are decided together, all or nothing: a refused request takes no token from
//! any of them. Each bucket has its own small lock, held for some tens of nanoseconds. Requests
//! may hold the same buckets in lists of different order (an edit reorders a key's policies while
//! requests run), so locks are taken in the order of the buckets' serial numbers, whatever the
//! order of the list: no two requests can wait for each other.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::{Mutex, MutexGuard};
use smallvec::SmallVec;

use super::bucket::{Rate, Reading, State};
use crate::key::{Policy, policy::POLICIES_MAX};

/// The most buckets that one request is held to: those of its key, and those of its tenant.
pub const BUCKETS_MAX: usize = 2 * POLICIES_MAX;

/// One bucket, full at first.
#[derive(Debug)]
pub struct Bucket {
    serial: u64,
    rate: Rate,
    policy: Arc<Policy>,
    state: Mutex<State>,
}

/// The buckets that one request is held to, in the order of their policies.
#[derive(Debug, Default)]
pub struct Buckets {
    list: Box<[Arc<Bucket>]>,
    /// Indices into `list` by serial number; empty where that is the order of the list. It mostly is,
    /// and there is one list for each key.
    lock_order: Box<[usize]>,
}

impl FromIterator<Arc<Bucket>> for Buckets {
    /// Each bucket may stand there once: a second lock of it would wait for the first.
    fn from_iter<I: IntoIterator<Item = Arc<Bucket>>>(buckets: I) -> Self {
        let mut list: Vec<Arc<Bucket>> = Vec::new();
        for bucket in buckets {
            if list.iter().all(|known| known.serial != bucket.serial) {
                list.push(bucket);
            }
        }
        let mut lock_order: Box<[usize]> = (0..list.len()).collect();
        lock_order.sort_by_key(|index| list[*index].serial);
        if lock_order.is_sorted() {
            lock_order = Box::default();
        }
        Buckets {
            list: list.into(),
            lock_order,
        }
    }
}

impl std::ops::Deref for Buckets {
    type Target = [Arc<Bucket>];

    fn deref(&self) -> &[Arc<Bucket>] {
        &self.list
    }
}

/// What was decided about one request, bucket by bucket, in the order of the list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    pub allowed: bool,
    pub readings: Readings,
}

impl Decision {
    /// As it is for one of `instances` that share the limits evenly, each taking for so many.
    pub fn share_of(mut self, instances: u64) -> Self {
        for reading in &mut self.readings {
            reading.remaining /= instances.max(1);
        }
        self
    }

    /// Seconds after which a refused request can pass, at least 1: the value of `Retry-After`.
    pub fn retry_after_seconds(&self) -> u64 {
        self.readings
            .iter()
            .map(|reading| reading.wait_seconds)
            .max()
            .unwrap_or(0)
            .max(1)
    }
}

/// One reading for each bucket of a request.
pub type Readings = SmallVec<[Reading; 2]>;

impl Bucket {
    /// A full bucket for a sound `policy`.
    pub fn new(policy: Arc<Policy>, now_us: u64) -> Self {
        let rate = Rate::new(&policy);
        Self::with_state(policy, rate, rate.full(now_us))
    }

    fn with_state(policy: Arc<Policy>, rate: Rate, state: State) -> Self {
        static NEXT_SERIAL: AtomicU64 = AtomicU64::new(0);
        let serial = NEXT_SERIAL.fetch_add(1, Ordering::Relaxed);
        Bucket {
            serial,
            rate,
            policy,
            state: Mutex::new(state),
        }
    }

    /// The bucket for a changed policy: it takes over the tokens of `old`, as far as they fit, so
    /// that an edit gives nobody a second burst.
    pub fn succeed(policy: Arc<Policy>, old: &Bucket, now_us: u64) -> Self {
        let rate = Rate::new(&policy);
        let tokens = old
            .rate
            .tokens(old.rate.refilled(*old.state.lock(), now_us));
        Self::with_state(policy, rate, rate.holding(tokens, now_us))
    }

    /// The bucket for `policy` where there were those of `old`: the old one where the policy is as it
    /// was, one with the same tokens where it changed, a full one where it is new.
    pub fn carry_over(policy: &Arc<Policy>, old: &[Arc<Bucket>], now_us: u64) -> Arc<Bucket> {
        let before = old
            .iter()
            .find(|bucket| bucket.policy().name == policy.name);
        match before {
            Some(bucket) if **bucket.policy() == **policy => bucket.clone(),
            Some(bucket) => Arc::new(Bucket::succeed(policy.clone(), bucket, now_us)),
            None => Arc::new(Bucket::new(policy.clone(), now_us)),
        }
    }

    pub fn policy(&self) -> &Arc<Policy> {
        &self.policy
    }

    pub fn rate(&self) -> &Rate {
        &self.rate
    }

    /// Whether the bucket is full, so that forgetting it loses nothing.
    pub fn is_full(&self, now_us: u64) -> bool {
        self.rate
            .is_full(self.rate.refilled(*self.state.lock(), now_us))
    }

    /// What a caller who wants `cost` tokens would find. Takes nothing.
    pub fn peek(&self, cost: u64, now_us: u64) -> Reading {
        self.rate
            .read(self.rate.refilled(*self.state.lock(), now_us), cost)
    }

    /// Takes `cost` tokens, or what is there if that is less.
    pub fn drain(&self, cost: u64, now_us: u64) {
        let mut state = self.state.lock();
        let refilled = self.rate.refilled(*state, now_us);
        *state = self.rate.spend(refilled, cost);
    }
}

/// A locked bucket: where it stands in the list, and what it holds now.
struct Held<'a> {
    index: usize,
    guard: MutexGuard<'a, State>,
    state: State,
}

/// Decides one request that costs `cost` tokens against all of `buckets`.
pub fn take_all(buckets: &Buckets, cost: u64, now_us: u64) -> Decision {
    let mut held: SmallVec<[Held<'_>; POLICIES_MAX]> = SmallVec::new();
    for place in 0..buckets.list.len() {
        let index = buckets.lock_order.get(place).copied().unwrap_or(place);
        let bucket = &buckets.list[index];
        let guard = bucket.state.lock();
        let state = bucket.rate.refilled(*guard, now_us);
        held.push(Held {
            index,
            guard,
            state,
        });
    }
    let rate = |held: &Held<'_>| buckets.list[held.index].rate;
    let allowed = held.iter().all(|held| rate(held).affords(held.state, cost));
    let mut readings = Readings::from_elem(Reading::default(), buckets.len());
    for held in &mut held {
        let rate = rate(held);
        readings[held.index] = if allowed {
            held.state = rate.spend(held.state, cost);
            rate.read_passed(held.state)
        } else {
            rate.read(held.state, cost)
        };
        *held.guard = held.state;
    }
    Decision { allowed, readings }
}

/// What every bucket of a list holds, taking nothing.
pub fn peek_all(buckets: &Buckets, cost: u64, now_us: u64) -> Decision {
    let readings: Readings = buckets
        .iter()
        .map(|bucket| bucket.peek(cost, now_us))
        .collect();
    Decision {
        allowed: readings.iter().all(|reading| !reading.violated),
        readings,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bucket(name: &str, quota: u64, window_seconds: u64, burst: u64) -> Arc<Bucket> {
        let policy = Policy {
            name: name.to_owned(),
            quota,
            window_seconds,
            burst: Some(burst),
        };
        Arc::new(Bucket::new(Arc::new(policy), 0))
    }

    #[test]
    fn a_refused_request_takes_nothing_from_any_bucket() {
        let buckets = Buckets::from_iter([bucket("wide", 100, 1, 100), bucket("narrow", 1, 60, 1)]);
        assert!(take_all(&buckets, 1, 0).allowed);
        for _ in 0..10 {
            let refused = take_all(&buckets, 1, 0);
            assert!(!refused.allowed);
            assert_eq!(refused.readings[0].remaining, 99);
            assert_eq!(refused.readings[1].remaining, 0);
            assert_eq!(refused.readings[1].wait_seconds, 60);
            assert_eq!(refused.readings[0].wait_seconds, 0);
        }
    }

    #[test]
    fn one_token_and_many_threads_is_one_pass() {
        for _ in 0..50 {
            let buckets = Buckets::from_iter([bucket("one", 1, 3600, 1)]);
            let passed: usize = std::thread::scope(|scope| {
                let threads: Vec<_> = (0..8)
                    .map(|_| scope.spawn(|| usize::from(take_all(&buckets, 1, 0).allowed)))
                    .collect();
                threads
                    .into_iter()
                    .map(|thread| thread.join().unwrap())
                    .sum()
            });
            assert_eq!(passed, 1);
        }
    }

    /// Without one order of locks this stands still within milliseconds.
    #[test]
    fn lists_of_opposite_order_do_not_wait_for_each_other() {
        let all: Vec<Arc<Bucket>> = (0..8)
            .map(|n| bucket(&n.to_string(), 1000, 1, 1000))
            .collect();
        let forward = Buckets::from_iter(all.iter().cloned());
        let backward = Buckets::from_iter(all.iter().rev().cloned());
        std::thread::scope(|scope| {
            for buckets in [&forward, &backward, &forward, &backward] {
                scope.spawn(move || {
                    for now_us in 0..20_000 {
                        take_all(buckets, 1, now_us);
                    }
                });
            }
        });
    }

    #[test]
    fn readings_are_in_the_order_of_the_list() {
        let (late, early) = (bucket("b", 5, 60, 5), bucket("a", 9, 60, 9));
        let backward = Buckets::from_iter([early.clone(), late.clone(), early]);
        let decision = take_all(&backward, 1, 0);
        let remaining: Vec<u64> = decision.readings.iter().map(|r| r.remaining).collect();
        assert_eq!(remaining, [8, 4]);
    }

    #[test]
    fn no_buckets_is_no_limit() {
        let decision = take_all(&Buckets::default(), 1_000_000, 0);
        assert!(decision.allowed && decision.readings.is_empty());
    }

    #[test]
    fn a_changed_policy_gives_no_second_burst() {
        let old = bucket("p", 10, 60, 10);
        assert!(take_all(&Buckets::from_iter([old.clone()]), 8, 0).allowed);
        let policy = Arc::new(Policy {
            name: "p".into(),
            quota: 100,
            window_seconds: 60,
            burst: None,
        });
        let new = Bucket::succeed(policy, &old, 0);
        assert_eq!(new.peek(1, 0).remaining, 2);
    }

    #[test]
    fn peeking_takes_nothing() {
        let buckets = Buckets::from_iter([bucket("p", 1, 60, 1)]);
        assert!(peek_all(&buckets, 1, 0).allowed);
        assert!(peek_all(&buckets, 1, 0).allowed);
        assert!(!buckets[0].is_full(0) || take_all(&buckets, 1, 0).allowed);
        assert!(!peek_all(&buckets, 1, 0).allowed);
    }
}
