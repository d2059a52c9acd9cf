//! What is known of usage, once it was taken out of the counters.

use std::fmt;
use std::net::IpAddr;

use crate::clock::Timestamp;
use crate::key::{Generation, KeyId, TenantId};
use crate::telemetry::Outcome;

pub const HOUR_MS: i64 = 3_600_000;
pub const DAY_MS: i64 = 24 * HOUR_MS;

/// What some requests came to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    pub requests: u64,
    /// Answers that Sidekey did not give to deny something, by their status.
    pub errors_4xx: u64,
    pub errors_5xx: u64,
    /// Refused by Sidekey for another reason than a limit.
    pub denied: u64,
    pub rate_limited: u64,
    /// Of bodies.
    pub bytes_in: u64,
    pub bytes_out: u64,
    pub latency_us_sum: u64,
    pub latency_us_max: u64,
}

impl Counts {
    /// Adds those of other requests.
    pub fn add(&mut self, other: &Counts) {
        for (mine, more) in [
            (&mut self.requests, other.requests),
            (&mut self.errors_4xx, other.errors_4xx),
            (&mut self.errors_5xx, other.errors_5xx),
            (&mut self.denied, other.denied),
            (&mut self.rate_limited, other.rate_limited),
            (&mut self.bytes_in, other.bytes_in),
            (&mut self.bytes_out, other.bytes_out),
            (&mut self.latency_us_sum, other.latency_us_sum),
        ] {
            *mine = mine.saturating_add(more);
        }
        self.latency_us_max = self.latency_us_max.max(other.latency_us_max);
    }
}

/// An hour of UTC, counted since the Unix epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hour(i64);

impl Hour {
    /// The hour that `moment` is in.
    pub fn of(moment: Timestamp) -> Self {
        Hour(moment.as_millis().div_euclid(HOUR_MS))
    }

    pub fn start(self) -> Timestamp {
        Timestamp::from_millis(self.0.saturating_mul(HOUR_MS))
    }

    /// Where the next one starts.
    pub fn end(self) -> Timestamp {
        Hour(self.0.saturating_add(1)).start()
    }
}

/// Whose usage it is, or which. Rows are written in this order, so that nobody who writes some waits for
/// somebody who waits for him; the rows that all writers share come last.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Subject {
    Key(KeyId),
    Tenant(TenantId),
    /// Requests through the proxy that ended so, with a key or without one. Only requests are counted.
    Outcome(Outcome),
    /// Requests that would have been refused so, were the mode not `shadow`.
    Shadow(Outcome),
    /// All keys.
    Platform,
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Subject::Key(id) => write!(f, "key/{id}"),
            Subject::Tenant(id) => write!(f, "tenant/{id}"),
            Subject::Outcome(outcome) => write!(f, "outcome/{}", outcome.as_str()),
            Subject::Shadow(outcome) => write!(f, "shadow/{}", outcome.as_str()),
            Subject::Platform => f.write_str("platform"),
        }
    }
}

/// When a secret was last used, and from where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LastUse {
    pub at: Timestamp,
    pub address: IpAddr,
}

impl LastUse {
    /// The later of two.
    pub fn later(self, other: LastUse) -> LastUse {
        if other.at > self.at { other } else { self }
    }
}

/// The last use of one secret of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyUse {
    pub key_id: KeyId,
    pub generation: Generation,
    pub last: LastUse,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hours_have_edges() {
        let at = Timestamp::from_millis;
        let hour = Hour::of(at(HOUR_MS));
        assert_eq!(hour.start(), at(HOUR_MS));
        assert_eq!(hour.end(), at(2 * HOUR_MS));
        assert_eq!(Hour::of(at(2 * HOUR_MS - 1)), hour);
        assert!(Hour::of(at(2 * HOUR_MS)) > hour);
        assert!(Hour::of(Timestamp::MAX).end() <= Timestamp::MAX);
    }

    #[test]
    fn sums_end_where_numbers_do() {
        let most = Counts {
            requests: u64::MAX,
            latency_us_max: 7,
            ..Counts::default()
        };
        let mut sum = Counts {
            requests: 1,
            denied: 2,
            latency_us_max: 9,
            ..Counts::default()
        };
        sum.add(&most);
        assert_eq!((sum.requests, sum.denied), (u64::MAX, 2));
        assert_eq!(sum.latency_us_max, 9);
    }

    #[test]
    fn the_rows_that_all_share_come_last() {
        let tenant = |name: &str| Subject::Tenant(name.parse().unwrap());
        let key = |id: &str| Subject::Key(id.parse().unwrap());
        let mut all = [
            Subject::Platform,
            Subject::Shadow(Outcome::NoRoute),
            Subject::Outcome(Outcome::InvalidKey),
            tenant("b"),
            key("zzzzzzzzzzzz"),
            tenant("a"),
            key("aaaaaaaaaaaa"),
        ];
        all.sort();
        let names = all.map(|subject| subject.to_string());
        assert_eq!(
            names,
            [
                "key/aaaaaaaaaaaa",
                "key/zzzzzzzzzzzz",
                "tenant/a",
                "tenant/b",
                "outcome/invalid_key",
                "shadow/no_route",
                "platform"
            ]
        );
    }
}
