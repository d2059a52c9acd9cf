//! When a secret was last used and from where, without a lock: a sequence lock. Who finds somebody
//! writing leaves it at that, because what is being written is as late; who reads never sees half an
//! address.

use std::hint::spin_loop;
use std::net::IpAddr;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicU64, fence};

use super::counts::LastUse;
use crate::clock::Timestamp;

/// The lower bits of the stamp are its version, odd while somebody writes; above it stands the time in
/// milliseconds, which fits into 48 bits as long as RFC 3339 can write it. 0: nothing was noted.
const VERSION_BITS: u32 = 16;
const VERSION_MASK: u64 = (1 << VERSION_BITS) - 1;
/// A writer takes some nanoseconds; if it takes so many looks, its thread is not running.
const SPINS_MAX: u32 = 100;

/// A use that was not taken out yet.
#[derive(Debug, Default)]
pub struct LastUseSlot {
    stamp: AtomicU64,
    /// The address as IPv6.
    high: AtomicU64,
    low: AtomicU64,
}

fn stamp(at: u64, version: u64) -> u64 {
    at << VERSION_BITS | version & VERSION_MASK
}

fn is_being_written(stamp: u64) -> bool {
    stamp & 1 == 1
}

impl LastUseSlot {
    /// Notes a use, unless a later one is noted, or somebody notes one now. `is_mine` is asked when
    /// nobody else can write: whether the use still belongs here.
    pub fn note(&self, last: LastUse, is_mine: impl FnOnce() -> bool) {
        let at = u64::try_from(last.at.as_millis()).unwrap_or_default();
        let seen = self.stamp.load(Acquire);
        if is_being_written(seen) || seen >> VERSION_BITS >= at {
            return;
        }
        let begun = self.stamp.compare_exchange(seen, seen | 1, AcqRel, Relaxed);
        if begun.is_err() {
            return;
        }
        if !is_mine() {
            self.stamp.store(seen, Release);
            return;
        }
        // Whoever sees what follows sees the odd version too.
        fence(Release);
        let address = match last.address {
            IpAddr::V4(v4) => v4.to_ipv6_mapped(),
            IpAddr::V6(v6) => v6,
        };
        let bits = address.to_bits();
        self.high.store((bits >> 64) as u64, Relaxed);
        self.low.store(bits as u64, Relaxed);
        self.stamp.store(stamp(at, seen + 2), Release);
    }

    /// Takes out what was noted.
    pub fn take(&self) -> Option<LastUse> {
        loop {
            let seen = self.settled();
            let last = self.read(seen);
            // Before the version is looked at again.
            fence(Acquire);
            let emptied = stamp(0, seen + 2);
            if last.is_none()
                || self
                    .stamp
                    .compare_exchange(seen, emptied, AcqRel, Relaxed)
                    .is_ok()
            {
                return last;
            }
        }
    }

    /// Takes out what was noted, and does `turn` while nobody can note anything.
    pub fn turn(&self, turn: impl FnOnce()) -> Option<LastUse> {
        loop {
            let seen = self.settled();
            let begun = self.stamp.compare_exchange(seen, seen | 1, AcqRel, Relaxed);
            if begun.is_ok() {
                let last = self.read(seen);
                turn();
                self.stamp.store(stamp(0, seen + 2), Release);
                return last;
            }
        }
    }

    /// The stamp when nobody writes.
    fn settled(&self) -> u64 {
        let mut spins = 0;
        loop {
            let seen = self.stamp.load(Acquire);
            if !is_being_written(seen) {
                return seen;
            }
            spins += 1;
            if spins < SPINS_MAX {
                spin_loop();
            } else {
                std::thread::yield_now();
            }
        }
    }

    fn read(&self, seen: u64) -> Option<LastUse> {
        let at = seen >> VERSION_BITS;
        if at == 0 {
            return None;
        }
        let bits = u128::from(self.high.load(Relaxed)) << 64 | u128::from(self.low.load(Relaxed));
        Some(LastUse {
            at: Timestamp::from_millis(i64::try_from(at).unwrap_or(i64::MAX)),
            address: IpAddr::V6(bits.into()).to_canonical(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv6Addr;
    use std::sync::Barrier;
    use std::sync::atomic::AtomicBool;

    fn used(at: i64, address: &str) -> LastUse {
        LastUse {
            at: Timestamp::from_millis(at),
            address: address.parse().unwrap(),
        }
    }

    #[test]
    fn the_latest_is_kept_until_it_is_taken() {
        let slot = LastUseSlot::default();
        assert_eq!(slot.take(), None);
        slot.note(used(5, "192.0.2.1"), || true);
        slot.note(used(9, "2001:db8::1"), || true);
        slot.note(used(7, "192.0.2.2"), || true);
        slot.note(used(11, "192.0.2.3"), || false);
        assert_eq!(slot.take(), Some(used(9, "2001:db8::1")));
        assert_eq!(slot.take(), None);
        slot.note(used(3, "192.0.2.4"), || true);
        assert_eq!(slot.take(), Some(used(3, "192.0.2.4")));
        slot.note(
            LastUse {
                at: Timestamp::MAX,
                ..used(0, "::1")
            },
            || true,
        );
        assert_eq!(slot.take().unwrap().at, Timestamp::MAX);
    }

    #[test]
    fn nothing_is_noted_while_it_is_turned() {
        let slot = LastUseSlot::default();
        slot.note(used(5, "192.0.2.1"), || true);
        let last = slot.turn(|| slot.note(used(6, "192.0.2.2"), || true));
        assert_eq!(last, Some(used(5, "192.0.2.1")));
        assert_eq!(slot.take(), None);
    }

    /// Both halves of an address, and its time, tell the same number.
    #[test]
    fn no_address_is_torn() {
        const EACH: u64 = 500_000;
        let (slot, done) = (LastUseSlot::default(), AtomicBool::new(false));
        let together = Barrier::new(4);
        let sound = |last: LastUse| {
            let IpAddr::V6(address) = last.address else {
                panic!("{last:?}")
            };
            let bits = address.to_bits();
            let at = last.at.as_millis() as u64;
            assert_eq!(((bits >> 64) as u64, bits as u64), (at, at), "{last:?}");
        };
        let mut taken = 0;
        std::thread::scope(|scope| {
            let writers: Vec<_> = (1..=3u64)
                .map(|n| {
                    let (slot, together) = (&slot, &together);
                    scope.spawn(move || {
                        together.wait();
                        for i in 1..=EACH {
                            // Neither half may look like a mapped IPv4 address.
                            let at = (1 << 40) | (i * 3 + n);
                            let bits = u128::from(at) << 64 | u128::from(at);
                            let last = LastUse {
                                at: Timestamp::from_millis(at as i64),
                                address: Ipv6Addr::from_bits(bits).into(),
                            };
                            slot.note(last, || true);
                        }
                    })
                })
                .collect();
            let reader = scope.spawn(|| {
                together.wait();
                let mut taken = 0;
                while !done.load(Relaxed) {
                    if let Some(last) = slot.take() {
                        sound(last);
                        taken += 1;
                    }
                }
                taken
            });
            for writer in writers {
                writer.join().unwrap();
            }
            done.store(true, Relaxed);
            taken = reader.join().unwrap();
        });
        assert!(taken > 0 || slot.take().is_some());
    }
}
