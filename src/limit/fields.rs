//! The rate-limit fields of an answer (draft-ietf-httpapi-ratelimit-headers-10, and the older
//! `X-RateLimit-*` trio), as lines that are ready for the wire: they go into every answer, and a
//! header map would parse, hash and copy each of them. What stays the same from request to request
//! is written once.

use std::sync::Arc;

use http::HeaderValue;

use super::bucket::Reading;
use crate::key::Policy;

/// The unchanging part of the fields for one list of policies.
#[derive(Debug)]
pub struct LimitFields {
    /// `RateLimit-Policy: "default";q=600;w=60, "day";q=10000;w=86400`, and `RateLimit: ` below it.
    policy: Box<str>,
    /// `"default";r=` for each policy.
    heads: Box<[Box<str>]>,
    /// Each policy's quota, and `X-RateLimit-Limit` with it and `X-RateLimit-Remaining: ` below.
    quotas: Box<[(u64, Box<str>)]>,
    names: Box<[Box<str>]>,
    bursts: Box<[u64]>,
}

/// The policy that is closest to its limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Closest {
    index: usize,
    pub remaining: u64,
    reset_seconds: u64,
}

impl LimitFields {
    /// Fields for `policies`; `None` where there is no limit to speak of.
    pub fn new(policies: &[Arc<Policy>]) -> Option<Self> {
        if policies.is_empty() {
            return None;
        }
        let members: Vec<String> = policies
            .iter()
            .map(|policy| {
                format!(
                    "\"{}\";q={};w={}",
                    policy.name, policy.quota, policy.window_seconds
                )
            })
            .collect();
        let members = members.join(", ");
        // Whatever a store gave us as a name: nothing in it may end the line.
        HeaderValue::from_str(&members).ok()?;
        Some(LimitFields {
            policy: format!("RateLimit-Policy: {members}\r\nRateLimit: ").into(),
            heads: policies
                .iter()
                .map(|policy| format!("\"{}\";r=", policy.name).into())
                .collect(),
            quotas: policies
                .iter()
                .map(|policy| {
                    let quota = policy.quota;
                    let lines = format!("X-RateLimit-Limit: {quota}\r\nX-RateLimit-Remaining: ");
                    (quota, lines.into())
                })
                .collect(),
            names: policies
                .iter()
                .map(|policy| policy.name.as_str().into())
                .collect(),
            bursts: policies.iter().map(|policy| policy.burst()).collect(),
        })
    }

    /// Writes `RateLimit-Policy` and `RateLimit`, one list member for each policy.
    pub fn write_ratelimit(&self, readings: &[Reading], lines: &mut Vec<u8>) {
        let mut before = self.policy.as_bytes();
        for (head, reading) in self.heads.iter().zip(readings) {
            lines.extend_from_slice(before);
            before = b", ";
            lines.extend_from_slice(head.as_bytes());
            push_number(lines, reading.remaining);
            lines.extend_from_slice(b";t=");
            push_number(lines, reading.reset_seconds);
        }
        lines.extend_from_slice(b"\r\n");
    }

    /// The quota of the policy that is closest to its limit.
    pub fn quota(&self, closest: Closest) -> u64 {
        self.quotas
            .get(closest.index)
            .map_or(0, |(quota, _)| *quota)
    }

    /// Writes `X-RateLimit-Limit`, `-Remaining` and `-Reset` of one policy, at `now_seconds` since
    /// the Unix epoch.
    pub fn write_x_ratelimit(&self, closest: Closest, now_seconds: u64, lines: &mut Vec<u8>) {
        let Some((_, quota)) = self.quotas.get(closest.index) else {
            return;
        };
        lines.extend_from_slice(quota.as_bytes());
        push_number(lines, closest.remaining);
        lines.extend_from_slice(b"\r\nX-RateLimit-Reset: ");
        push_number(lines, now_seconds.saturating_add(closest.reset_seconds));
        lines.extend_from_slice(b"\r\n");
    }

    /// A policy whose bucket never holds `cost` tokens, by its name, and what it holds at most.
    pub fn too_small(&self, cost: u64) -> Option<(&str, u64)> {
        let mut both = self.names.iter().zip(&self.bursts);
        both.find(|(_, burst)| **burst < cost)
            .map(|(name, burst)| (&**name, *burst))
    }

    /// The names of the policies whose bucket did not hold what was asked.
    pub fn violated<'a>(&'a self, readings: &'a [Reading]) -> impl Iterator<Item = &'a str> {
        self.names
            .iter()
            .zip(readings)
            .filter(|(_, reading)| reading.violated)
            .map(|(name, _)| &**name)
    }
}

/// The policy under which the fewest requests are left; of several, the one that fills last.
pub fn closest(readings: &[Reading]) -> Option<Closest> {
    readings
        .iter()
        .enumerate()
        .map(|(index, reading)| Closest {
            index,
            remaining: reading.remaining,
            reset_seconds: reading.reset_seconds,
        })
        .min_by_key(|one| (one.remaining, std::cmp::Reverse(one.reset_seconds)))
}

fn push_number(lines: &mut Vec<u8>, number: u64) {
    lines.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields() -> LimitFields {
        let policy = |name: &str, quota, window_seconds| {
            Arc::new(Policy {
                name: name.into(),
                quota,
                window_seconds,
                burst: None,
            })
        };
        LimitFields::new(&[policy("default", 600, 60), policy("day", 10_000, 86_400)]).unwrap()
    }

    fn reading(remaining: u64, reset_seconds: u64, violated: bool) -> Reading {
        Reading {
            remaining,
            reset_seconds,
            wait_seconds: 0,
            violated,
        }
    }

    #[test]
    fn the_fields_are_structured_lists() {
        let fields = fields();
        let readings = [reading(99, 10, false), reading(0, 9, true)];
        let mut lines = Vec::new();
        fields.write_ratelimit(&readings, &mut lines);
        fields.write_x_ratelimit(closest(&readings).unwrap(), 1000, &mut lines);
        let expected = concat!(
            "RateLimit-Policy: \"default\";q=600;w=60, \"day\";q=10000;w=86400\r\n",
            "RateLimit: \"default\";r=99;t=10, \"day\";r=0;t=9\r\n",
            "X-RateLimit-Limit: 10000\r\n",
            "X-RateLimit-Remaining: 0\r\n",
            "X-RateLimit-Reset: 1009\r\n",
        );
        assert_eq!(String::from_utf8(lines).unwrap(), expected);
        assert_eq!(fields.violated(&readings).collect::<Vec<_>>(), ["day"]);
    }

    #[test]
    fn the_closest_policy_has_the_fewest_requests_left() {
        let closest = |a, b| closest(&[a, b]).unwrap().index;
        assert_eq!(closest(reading(5, 1, false), reading(50, 1, false)), 0);
        assert_eq!(closest(reading(50, 1, false), reading(5, 1, false)), 1);
        assert_eq!(closest(reading(0, 1, false), reading(0, 9, false)), 1);
    }

    #[test]
    fn a_name_that_would_end_the_line_has_no_fields() {
        let policy = Policy {
            name: "p\r\nX: y".into(),
            quota: 1,
            window_seconds: 1,
            burst: None,
        };
        assert!(LimitFields::new(&[Arc::new(policy)]).is_none());
    }

    #[test]
    fn no_policies_have_no_fields() {
        assert!(LimitFields::new(&[]).is_none());
    }
}
