//! The rate-limit fields of an answer (draft-ietf-httpapi-ratelimit-headers-10, and the older
//! `X-RateLimit-*` trio). What stays the same from request to request is written once.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use http::HeaderValue;

use super::bucket::Reading;
use crate::key::Policy;

/// Digits of the largest number.
const NUMBER_LEN_MAX: usize = 20;
/// What a list member has behind its head: two numbers, `;t=` and `, `.
const MEMBER_LEN_MAX: usize = 2 * NUMBER_LEN_MAX + 5;

/// The unchanging part of the fields for one list of policies.
#[derive(Debug)]
pub struct LimitFields {
    /// `"default";q=600;w=60, "day";q=10000;w=86400`
    policy: HeaderValue,
    /// `"default";r=` for each policy.
    heads: Box<[Box<str>]>,
    /// `X-RateLimit-Limit` for each policy.
    quotas: Box<[HeaderValue]>,
    names: Box<[Box<str>]>,
}

/// The fields' values for one answer.
#[derive(Debug)]
pub struct LimitValues {
    /// `RateLimit`: one list member for each policy.
    pub ratelimit: HeaderValue,
    /// The policy that is closest to its limit.
    pub closest: Closest,
}

/// `X-RateLimit-*` of one policy.
#[derive(Debug)]
pub struct Closest {
    pub limit: HeaderValue,
    pub remaining: HeaderValue,
    pub remaining_count: u64,
    /// Seconds since the Unix epoch.
    pub reset: HeaderValue,
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
            quotas: policies
                .iter()
                .map(|policy| HeaderValue::from(policy.quota))
                .collect(),
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

    /// The values for `readings` taken at `now_seconds` since the Unix epoch. All of them share one
    /// piece of memory: they are written on every request.
    pub fn values(&self, readings: &[Reading], now_seconds: u64) -> Option<LimitValues> {
        let (closest, reading) = closest(readings)?;
        let length: usize = self
            .heads
            .iter()
            .map(|head| head.len() + MEMBER_LEN_MAX)
            .sum();
        let mut text = String::with_capacity(length + 2 * NUMBER_LEN_MAX);
        for (head, reading) in self.heads.iter().zip(readings) {
            if !text.is_empty() {
                text.push_str(", ");
            }
            text.push_str(head);
            push_number(&mut text, reading.remaining);
            text.push_str(";t=");
            push_number(&mut text, reading.reset_seconds);
        }
        let ratelimit_end = text.len();
        push_number(&mut text, reading.remaining);
        let remaining_end = text.len();
        push_number(&mut text, now_seconds.saturating_add(reading.reset_seconds));
        let text = Bytes::from(text);
        let value = |range: Range<usize>| HeaderValue::from_maybe_shared(text.slice(range)).ok();
        Some(LimitValues {
            ratelimit: value(0..ratelimit_end)?,
            closest: Closest {
                limit: self.quotas.get(closest)?.clone(),
                remaining: value(ratelimit_end..remaining_end)?,
                remaining_count: reading.remaining,
                reset: value(remaining_end..text.len())?,
            },
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

/// The reading under which the fewest requests are left; of several, the one that fills last.
fn closest(readings: &[Reading]) -> Option<(usize, &Reading)> {
    readings
        .iter()
        .enumerate()
        .min_by_key(|(_, reading)| (reading.remaining, std::cmp::Reverse(reading.reset_seconds)))
}

fn push_number(text: &mut String, number: u64) {
    text.push_str(itoa::Buffer::new().format(number));
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
        let values = fields.values(&readings, 1000).unwrap();
        assert_eq!(values.ratelimit, "\"default\";r=99;t=10, \"day\";r=0;t=9");
        assert_eq!(values.closest.limit, "10000");
        assert_eq!(values.closest.remaining, "0");
        assert_eq!(values.closest.reset, "1009");
        assert_eq!(fields.violated(&readings).collect::<Vec<_>>(), ["day"]);
    }

    #[test]
    fn the_closest_policy_has_the_fewest_requests_left() {
        let closest = |a, b| closest(&[a, b]).unwrap().0;
        assert_eq!(closest(reading(5, 1, false), reading(50, 1, false)), 0);
        assert_eq!(closest(reading(50, 1, false), reading(5, 1, false)), 1);
        assert_eq!(closest(reading(0, 1, false), reading(0, 9, false)), 1);
    }

    #[test]
    fn no_policies_have_no_fields() {
        assert!(LimitFields::new(&[]).is_none());
    }
}
