//! Token buckets in this process's memory.
//!
//! Several buckets are decided together, all or nothing: a refused request takes no token from
//! any of them. Each bucket has its own small lock, held for some tens of nanoseconds; a request
//! takes the locks in the order of its list, and every list has its buckets in the same order
//! (the key's own first, then those it shares), so no two requests can wait for each other.

use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};
use smallvec::SmallVec;

use super::bucket::{Rate, Reading, State};
use crate::key::{Policy, policy::POLICIES_MAX};

/// One bucket, full at first.
#[derive(Debug)]
pub struct Bucket {
    rate: Rate,
    policy: Arc<Policy>,
    state: Mutex<State>,
}

/// What was decided about one request, bucket by bucket, in the order of the list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    pub allowed: bool,
    pub readings: Readings,
}

impl Decision {
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
        Bucket {
            rate,
            state: Mutex::new(rate.full(now_us)),
            policy,
        }
    }

    /// The bucket for a changed policy: it takes over the tokens of `old`, as far as they fit, so
    /// that an edit gives nobody a second burst.
    pub fn succeed(policy: Arc<Policy>, old: &Bucket, now_us: u64) -> Self {
        let rate = Rate::new(&policy);
        let tokens = old
            .rate
            .tokens(old.rate.refilled(*old.state.lock(), now_us));
        Bucket {
            rate,
            state: Mutex::new(rate.holding(tokens, now_us)),
            policy,
        }
    }

    pub fn policy(&self) -> &Arc<Policy> {
        &self.policy
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

/// Decides one request that costs `cost` tokens against all of `buckets`.
pub fn take_all(buckets: &[Arc<Bucket>], cost: u64, now_us: u64) -> Decision {
    let mut held: SmallVec<[(MutexGuard<'_, State>, State); POLICIES_MAX]> = buckets
        .iter()
        .map(|bucket| {
            let guard = bucket.state.lock();
            let refilled = bucket.rate.refilled(*guard, now_us);
            (guard, refilled)
        })
        .collect();
    let allowed = buckets
        .iter()
        .zip(&held)
        .all(|(bucket, (_, state))| bucket.rate.affords(*state, cost));
    for (bucket, (guard, state)) in buckets.iter().zip(&mut held) {
        if allowed {
            *state = bucket.rate.spend(*state, cost);
        }
        **guard = *state;
    }
    let readings = buckets
        .iter()
        .zip(&held)
        .map(|(bucket, (_, state))| {
            if allowed {
                bucket.rate.read_passed(*state)
            } else {
                bucket.rate.read(*state, cost)
            }
        })
        .collect();
    Decision { allowed, readings }
}

/// What every bucket of a list holds, taking nothing.
pub fn peek_all(buckets: &[Arc<Bucket>], cost: u64, now_us: u64) -> Decision {
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
        let buckets = [bucket("wide", 100, 1, 100), bucket("narrow", 1, 60, 1)];
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
            let buckets = [bucket("one", 1, 3600, 1)];
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

    #[test]
    fn no_buckets_is_no_limit() {
        let decision = take_all(&[], 1_000_000, 0);
        assert!(decision.allowed && decision.readings.is_empty());
    }

    #[test]
    fn a_changed_policy_gives_no_second_burst() {
        let old = bucket("p", 10, 60, 10);
        assert!(take_all(std::slice::from_ref(&old), 8, 0).allowed);
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
        let buckets = [bucket("p", 1, 60, 1)];
        assert!(peek_all(&buckets, 1, 0).allowed);
        assert!(peek_all(&buckets, 1, 0).allowed);
        assert!(!buckets[0].is_full(0) || take_all(&buckets, 1, 0).allowed);
        assert!(!peek_all(&buckets, 1, 0).allowed);
    }
}
