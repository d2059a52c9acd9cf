//! How many different addresses were seen lately: an estimate in little memory, however many there are.
//!
//! HyperLogLog: an address's hash names a register and bids a rank for it; the ranks tell how many
//! different hashes there were. Slices of ten minutes, each with registers of its own, are merged where
//! somebody asks, so what is old goes without being looked for. No lock: who begins a slice empties it,
//! and an address that comes at that very moment may be missed.

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicU8, AtomicU64};

/// Bits of a hash that name a register. The error is about 1.04 / sqrt(4096) = 1.6 %.
const REGISTER_BITS: u32 = 12;
const REGISTERS: usize = 1 << REGISTER_BITS;
/// The estimator's constant for so many registers, by Flajolet and others.
const ALPHA: f64 = 0.7213 / (1.0 + 1.079 / REGISTERS as f64);
/// Below this many a register, empty registers tell more than ranks do.
const SMALL: f64 = 2.5;

const SLICE_US: u64 = 600_000_000;
/// What was seen is told for 60 to 70 minutes. All slices take 28 kB.
const SLICES: usize = 7;
/// The number of a slice that has not begun.
const NEVER: u64 = u64::MAX;

/// The addresses of ten minutes.
#[derive(Debug)]
struct Slice {
    /// Which ten minutes they are.
    number: AtomicU64,
    ranks: [AtomicU8; REGISTERS],
}

impl Slice {
    fn new() -> Self {
        Slice {
            number: AtomicU64::new(NEVER),
            ranks: [const { AtomicU8::new(0) }; REGISTERS],
        }
    }

    /// Begins the ten minutes `number` if others stand here; `false` where later ones do.
    fn begin(&self, number: u64) -> bool {
        let seen = self.number.load(Relaxed);
        if seen == number {
            return true;
        }
        if seen != NEVER && seen > number {
            return false;
        }
        let begun = self.number.compare_exchange(seen, number, Relaxed, Relaxed);
        if begun.is_ok() {
            for rank in &self.ranks {
                rank.store(0, Relaxed);
            }
        }
        true
    }
}

/// Different addresses of the last hour or so.
#[derive(Debug)]
pub struct Addresses {
    slices: Box<[Slice]>,
    /// Its secret is new in each process, so nobody can choose addresses that count for many.
    hasher: RandomState,
}

impl Default for Addresses {
    fn default() -> Self {
        Addresses {
            slices: (0..SLICES).map(|_| Slice::new()).collect(),
            hasher: RandomState::new(),
        }
    }
}

impl Addresses {
    /// Notes that `address` was seen. Of IPv6 a /64 is one: whoever has one address has all of them.
    pub fn see(&self, address: IpAddr, now_us: u64) {
        let hash = match address.to_canonical() {
            IpAddr::V4(address) => self.hasher.hash_one(address),
            IpAddr::V6(address) => self.hasher.hash_one(address.to_bits() >> 64),
        };
        let number = now_us / SLICE_US;
        let Some(slice) = self.slices.get((number % SLICES as u64) as usize) else {
            return;
        };
        if slice.begin(number) {
            let register = (hash >> (u64::BITS - REGISTER_BITS)) as usize;
            // The bit at the end bounds the rank.
            let rest = (hash << REGISTER_BITS) | (1 << (REGISTER_BITS - 1));
            let rank = rest.leading_zeros() as u8 + 1;
            slice.ranks[register].fetch_max(rank, Relaxed);
        }
    }

    /// How many there were, about.
    pub fn estimate(&self, now_us: u64) -> u64 {
        let now = now_us / SLICE_US;
        let mut ranks = [0_u8; REGISTERS];
        for slice in &self.slices {
            let number = slice.number.load(Relaxed);
            if number == NEVER || number.saturating_add(SLICES as u64) <= now {
                continue;
            }
            for (highest, rank) in ranks.iter_mut().zip(&slice.ranks) {
                *highest = rank.load(Relaxed).max(*highest);
            }
        }
        estimate(&ranks).round() as u64
    }
}

fn estimate(ranks: &[u8; REGISTERS]) -> f64 {
    let registers = REGISTERS as f64;
    let sum: f64 = ranks
        .iter()
        .map(|rank| 0.5_f64.powi(i32::from(*rank)))
        .sum();
    let by_ranks = ALPHA * registers * registers / sum;
    let empty = ranks.iter().filter(|rank| **rank == 0).count();
    if by_ranks <= SMALL * registers && empty > 0 {
        registers * (registers / empty as f64).ln()
    } else {
        by_ranks
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{Ipv4Addr, Ipv6Addr};

    fn v4(n: u32) -> IpAddr {
        IpAddr::V4(Ipv4Addr::from_bits(n))
    }

    fn v6(network: u128, host: u128) -> IpAddr {
        IpAddr::V6(Ipv6Addr::from_bits(
            (0x2001_0db8 << 96) | (network << 64) | host,
        ))
    }

    /// Six standard errors, and what the estimator errs between its two ways.
    #[track_caller]
    fn assert_about(told: u64, count: u64) {
        let slack = (count as f64 * 0.12).max(1.0);
        assert!(
            (told as f64 - count as f64).abs() <= slack,
            "{told}, not {count}"
        );
    }

    #[test]
    fn an_estimate_is_near_the_number() {
        let addresses = Addresses::default();
        assert_eq!(addresses.estimate(0), 0);
        let mut count = 0;
        for next in [1_u32, 3, 10, 100, 1_000, 10_000, 30_000, 200_000] {
            for n in count..next {
                addresses.see(v4(n), 0);
                addresses.see(v4(n), 1);
            }
            count = next;
            assert_about(addresses.estimate(2), count.into());
        }
    }

    #[test]
    fn a_network_of_ipv6_is_one() {
        let addresses = Addresses::default();
        for host in 0..1_000 {
            addresses.see(v6(1, host), 0);
        }
        assert_eq!(addresses.estimate(0), 1);
        for network in 2..=1_000 {
            addresses.see(v6(network, 1), 0);
        }
        assert_about(addresses.estimate(0), 1_000);
    }

    #[test]
    fn an_address_is_the_same_however_it_is_written() {
        let addresses = Addresses::default();
        addresses.see(v4(7), 0);
        addresses.see(IpAddr::V6(Ipv4Addr::from_bits(7).to_ipv6_mapped()), 0);
        assert_eq!(addresses.estimate(0), 1);
    }

    #[test]
    fn what_is_old_goes() {
        let addresses = Addresses::default();
        let minutes = |n: u64| n * 60_000_000;
        addresses.see(v4(1), minutes(1));
        addresses.see(v4(2), minutes(31));
        assert_eq!(addresses.estimate(minutes(60)), 2);
        assert_eq!(addresses.estimate(minutes(69)), 2);
        assert_eq!(addresses.estimate(minutes(70)), 1);
        // The slice of the first, once more: what stood there is not told again.
        addresses.see(v4(3), minutes(71));
        assert_eq!(addresses.estimate(minutes(71)), 2);
        // Who comes with an old time changes nothing.
        addresses.see(v4(4), minutes(1));
        assert_eq!(addresses.estimate(minutes(71)), 2);
        assert_eq!(addresses.estimate(minutes(10_000)), 0);
    }

    #[test]
    fn many_may_see_at_once() {
        let addresses = Addresses::default();
        std::thread::scope(|scope| {
            for part in 0..4 {
                let addresses = &addresses;
                scope
                    .spawn(move || (0..5_000).for_each(|n| addresses.see(v4(part * 5_000 + n), 0)));
            }
        });
        // Who came while the slice was emptied may be missing.
        assert_about(addresses.estimate(0), 20_000);
    }
}
