//! A circuit breaker: after a few failures in a row the answer is immediate, and one call at a time
//! looks for recovery. It keeps an outage from becoming latency.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

/// So many failures in a row open it.
const FAILURES_MAX: u32 = 3;
/// How long it stays open before the next call is let through.
const OPEN_US: u64 = 500_000;

/// How long a probe may be late before others than the one who usually makes it may.
const OVERDUE_US: u64 = 2 * OPEN_US;

/// Closed at first.
#[derive(Debug, Default)]
pub struct Breaker {
    failures: AtomicU32,
    open_until_us: AtomicU64,
    is_probing: AtomicBool,
}

/// A call that was let through. One that is dropped without a word (its caller went away) says
/// nothing about the other side.
pub struct Permit<'a> {
    breaker: &'a Breaker,
    is_probe: bool,
}

impl Breaker {
    /// Whether a call may be made at `now_us`.
    pub fn permit(&self, now_us: u64) -> Option<Permit<'_>> {
        let is_probe = self.is_open();
        if is_probe && (self.holds_back(now_us) || self.is_probing.swap(true, Ordering::Acquire)) {
            return None;
        }
        Some(Permit {
            breaker: self,
            is_probe,
        })
    }

    /// Whether a call at `now_us` would be held back, unless it is the next probe.
    pub fn holds_back(&self, now_us: u64) -> bool {
        self.is_open()
            && (now_us < self.open_until_us.load(Ordering::Relaxed)
                || self.is_probing.load(Ordering::Relaxed))
    }

    /// Whether a probe could have been made long ago.
    pub fn is_overdue(&self, now_us: u64) -> bool {
        let open_until_us = self.open_until_us.load(Ordering::Relaxed);
        now_us >= open_until_us.saturating_add(OVERDUE_US)
    }

    /// Whether it is open.
    pub fn is_open(&self) -> bool {
        self.failures.load(Ordering::Relaxed) >= FAILURES_MAX
    }
}

impl Permit<'_> {
    /// The call was answered.
    pub fn succeeded(self) {
        self.breaker.failures.store(0, Ordering::Relaxed);
    }

    /// The call was not answered, or not in time.
    pub fn failed(self, now_us: u64) {
        let breaker = self.breaker;
        breaker
            .open_until_us
            .fetch_max(now_us.saturating_add(OPEN_US), Ordering::Relaxed);
        let more = |count: u32| Some(count.saturating_add(1));
        // It always gives a number.
        let _ = (breaker.failures).fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        if self.is_probe {
            self.breaker.is_probing.store(false, Ordering::Release);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_opens_after_failures_in_a_row_and_closes_after_one_success() {
        let breaker = Breaker::default();
        for _ in 0..FAILURES_MAX - 1 {
            breaker.permit(0).unwrap().failed(0);
        }
        breaker.permit(0).unwrap().succeeded();
        for _ in 0..FAILURES_MAX {
            breaker.permit(0).unwrap().failed(0);
        }
        assert!(breaker.is_open() && breaker.permit(OPEN_US - 1).is_none());
        let probe = breaker.permit(OPEN_US).unwrap();
        assert!(breaker.permit(OPEN_US).is_none(), "one probe at a time");
        probe.failed(OPEN_US);
        assert!(breaker.permit(OPEN_US).is_none());
        breaker.permit(2 * OPEN_US).unwrap().succeeded();
        assert!(!breaker.is_open() && breaker.permit(2 * OPEN_US).is_some());
    }

    #[test]
    fn a_probe_whose_caller_goes_away_is_followed_by_another() {
        let breaker = Breaker::default();
        for _ in 0..FAILURES_MAX {
            breaker.permit(0).unwrap().failed(0);
        }
        drop(breaker.permit(OPEN_US));
        assert!(breaker.permit(OPEN_US).is_some());
    }
}
