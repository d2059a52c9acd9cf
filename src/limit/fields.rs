//! The rate-limit fields of an answer (draft-ietf-httpapi-ratelimit-headers-10, and the older
//! `X-RateLimit-*` trio). What stays the same from request to request is written once.

use std::fmt::Write;
use std::sync::Arc;

use http::HeaderValue;

use super::bucket::Reading;
use crate::key::Policy;

/// The unchanging part of the fields for one list of policies.
#[derive(Debug)]
pub struct LimitFields {
    /// `"default";q=600;w=60, "day";q=10000;w=86400`
    policy: HeaderValue,
    /// `"default";r=` for each policy.
    heads: Box<[Box<str>]>,
    quotas: Box<[u64]>,
    names: Box<[Box<str>]>,
}

/// The policy that is closest to its limit, as `X-RateLimit-*` show it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Closest {
    pub limit: u64,
    pub remaining: u64,
    pub reset_seconds: u64,
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
        Some(LimitFields {
            // Names are checked to be plain ASCII.
            policy: HeaderValue::from_str(&members.join(", ")).ok()?,
            heads: policies
                .iter()
                .map(|policy| format!("\"{}\";r=", policy.name).into())
                .collect(),
            quotas: policies.iter().map(|policy| policy.quota).collect(),
            names: policies
                .iter()
                .map(|policy| policy.name.as_str().into())
                .collect(),
        })
    }

    /// `RateLimit-Policy`
    pub fn policy(&self) -> &HeaderValue {
        &self.policy
    }

    /// `RateLimit`: one list member for each policy.
    pub fn ratelimit(&self, readings: &[Reading]) -> Option<HeaderValue> {
        let mut text = String::with_capacity(self.heads.iter().map(|head| head.len() + 26).sum());
        for (head, reading) in self.heads.iter().zip(readings) {
            if !text.is_empty() {
                text.push_str(", ");
            }
            text.push_str(head);
            push_number(&mut text, reading.remaining);
            text.push_str(";t=");
            push_number(&mut text, reading.reset_seconds);
        }
        HeaderValue::from_maybe_shared(bytes::Bytes::from(text)).ok()
    }

    /// The policy under which the fewest requests are left; of several, the one that fills last.
    pub fn closest(&self, readings: &[Reading]) -> Option<Closest> {
        self.quotas
            .iter()
            .zip(readings)
            .min_by_key(|(_, reading)| {
                (reading.remaining, std::cmp::Reverse(reading.reset_seconds))
            })
            .map(|(limit, reading)| Closest {
                limit: *limit,
                remaining: reading.remaining,
                reset_seconds: reading.reset_seconds,
            })
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

fn push_number(text: &mut String, number: u64) {
    // Writing into a String can't fail.
    let _ = text.write_str(itoa::Buffer::new().format(number));
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
        assert_eq!(
            fields.policy(),
            "\"default\";q=600;w=60, \"day\";q=10000;w=86400"
        );
        let readings = [reading(99, 10, false), reading(0, 9, true)];
        assert_eq!(
            fields.ratelimit(&readings).unwrap(),
            "\"default\";r=99;t=10, \"day\";r=0;t=9"
        );
        assert_eq!(fields.violated(&readings).collect::<Vec<_>>(), ["day"]);
    }

    #[test]
    fn the_closest_policy_has_the_fewest_requests_left() {
        let fields = fields();
        let closest = |a, b| fields.closest(&[a, b]).unwrap().limit;
        assert_eq!(closest(reading(5, 1, false), reading(50, 1, false)), 600);
        assert_eq!(closest(reading(50, 1, false), reading(5, 1, false)), 10_000);
        assert_eq!(closest(reading(0, 1, false), reading(0, 9, false)), 10_000);
    }

    #[test]
    fn no_policies_have_no_fields() {
        assert!(LimitFields::new(&[]).is_none());
    }
}
