//! A hash between the moment when it is written and the moment when a row names it. Whoever takes too
//! long over that must not write the row: the hash may have been taken for left over.

use std::time::Duration;

use crate::clock::{Clock, Timestamp};
use crate::key::Generation;
use crate::key::hash::SecretHash;
use crate::secrets::StoredHash;

/// A hash that no row names yet.
pub struct Unnamed {
    pub hash: StoredHash,
    since: Timestamp,
    since_us: u64,
}

impl Unnamed {
    /// A hash that is about to be written.
    pub fn new(hash: SecretHash, generation: Generation, clock: &dyn Clock) -> Self {
        Unnamed {
            hash: StoredHash { generation, hash },
            since: clock.now(),
            since_us: clock.monotonic_us(),
        }
    }

    /// Whether more than half of the time has passed after which it is left over. By both clocks: one
    /// of them stands still while the machine sleeps.
    pub fn is_late(&self, leftover_age: Duration, clock: &dyn Clock) -> bool {
        let limit = leftover_age / 2;
        let passed_us = clock.monotonic_us().saturating_sub(self.since_us);
        clock.now() > self.since.plus(limit) || Duration::from_micros(passed_us) > limit
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ManualClock;

    /// The wall clock goes on, the other one stands still, as while a machine sleeps.
    struct Asleep(Timestamp);

    impl Clock for Asleep {
        fn now(&self) -> Timestamp {
            self.0
        }

        fn monotonic_us(&self) -> u64 {
            0
        }
    }

    #[test]
    fn half_of_the_age_is_too_long() {
        let (start, age) = (Timestamp::from_millis(1000), Duration::from_secs(60));
        let clock = ManualClock::at(start);
        let hash = SecretHash::from_stored(String::new());
        let unnamed = Unnamed::new(hash, Generation::FIRST, &*clock);
        assert!(!unnamed.is_late(age, &*clock));
        clock.advance(Duration::from_secs(30));
        assert!(!unnamed.is_late(age, &*clock));
        clock.advance(Duration::from_millis(1));
        assert!(unnamed.is_late(age, &*clock));
        for (millis, is_late) in [(31_000, false), (31_001, true)] {
            let clock = Asleep(Timestamp::from_millis(millis));
            assert_eq!(unnamed.is_late(age, &clock), is_late);
        }
    }
}
