//! Buckets for callers that have no key, by client address: anonymous callers on routes with
//! `auth = "optional"`, and failed authentications.
//!
//! IPv6 clients count by /64, the smallest block that one customer is given (RFC 6177). The table
//! is bounded: an entry that was idle long enough to be full again is dropped, and past
//! `max_addresses` the least used go first (they start with a full bucket when they come back).

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use moka::sync::Cache;

use super::memory::{self, Bucket, Buckets, Decision};
use crate::key::Policy;

/// An address that was idle for this long (366 days) is forgotten, full again or not.
const IDLE_SECONDS_MAX: u64 = 366 * 86_400;

/// Whom one bucket belongs to: an IPv4 address, or an IPv6 /64.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct AddressKey(u64, bool);

impl From<IpAddr> for AddressKey {
    fn from(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(v4) => AddressKey(u64::from(u32::from(v4)), false),
            IpAddr::V6(v6) => AddressKey((u128::from(v6) >> 64) as u64, true),
        }
    }
}

/// One list of buckets for each client address.
pub struct AddressLimiter {
    policies: Vec<Arc<Policy>>,
    buckets: Cache<AddressKey, Arc<Buckets>>,
}

impl AddressLimiter {
    /// Holds each of at most `max_addresses` addresses to `policies`.
    pub fn new(policies: Vec<Arc<Policy>>, max_addresses: u64) -> Self {
        let seconds_to_fill = policies
            .iter()
            .map(|policy| (policy.burst() * policy.window_seconds).div_ceil(policy.quota))
            .max()
            .unwrap_or(0);
        let buckets = Cache::builder()
            .max_capacity(max_addresses)
            .time_to_idle(Duration::from_secs(
                seconds_to_fill.min(IDLE_SECONDS_MAX) + 1,
            ))
            .build();
        AddressLimiter { policies, buckets }
    }

    /// The policies that every address is held to.
    pub fn policies(&self) -> &[Arc<Policy>] {
        &self.policies
    }

    /// The buckets of `address`.
    pub fn buckets(&self, address: IpAddr, now_us: u64) -> Arc<Buckets> {
        self.buckets.get_with(address.into(), || {
            let full = |policy: &Arc<Policy>| Arc::new(Bucket::new(policy.clone(), now_us));
            Arc::new(self.policies.iter().map(full).collect())
        })
    }

    /// What is left for `address`, taking nothing and remembering nothing.
    pub fn peek(&self, address: IpAddr, now_us: u64) -> Option<Decision> {
        let buckets = self.buckets.get(&AddressKey::from(address))?;
        Some(memory::peek_all(&buckets, 1, now_us))
    }

    /// Counts one event of `address`, also when nothing is left.
    pub fn count(&self, address: IpAddr, now_us: u64) {
        for bucket in self.buckets(address, now_us).iter() {
            bucket.drain(1, now_us);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limiter(burst: u64) -> AddressLimiter {
        let policy = Policy {
            name: "a".into(),
            quota: 1,
            window_seconds: 60,
            burst: Some(burst),
        };
        AddressLimiter::new(vec![Arc::new(policy)], 100)
    }

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn neighbours_in_a_64_share_a_bucket() {
        let key = |text| AddressKey::from(address(text));
        assert_eq!(key("2001:db8::1"), key("2001:db8::ffff:1"));
        assert_ne!(key("2001:db8::1"), key("2001:db8:0:1::1"));
        assert_eq!(key("192.0.2.1"), key("::ffff:192.0.2.1"));
        assert_ne!(key("192.0.2.1"), key("192.0.2.2"));
        assert_ne!(key("0.0.0.1"), key("::"));
    }

    #[test]
    fn counting_exhausts_one_address_only() {
        let limiter = limiter(2);
        assert!(limiter.peek(address("192.0.2.1"), 0).is_none());
        limiter.count(address("192.0.2.1"), 0);
        assert!(limiter.peek(address("192.0.2.1"), 0).unwrap().allowed);
        limiter.count(address("192.0.2.1"), 0);
        assert!(!limiter.peek(address("192.0.2.1"), 0).unwrap().allowed);
        assert!(limiter.peek(address("192.0.2.2"), 0).is_none());
        assert!(
            limiter
                .peek(address("192.0.2.1"), 60_000_000)
                .unwrap()
                .allowed
        );
    }
}
