//! What the gateway itself counts, and the memory that it takes.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::report::{Memory, Tally};
use super::world::LIMITED_KEYS;
use crate::harness::sidekey::Sidekey;

/// A request is counted behind its answer: how long that may take.
const COUNTED_WITHIN: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(20);
/// What the load leads to.
const OUTCOMES: [&str; 6] = [
    "forwarded",
    "rate_limited",
    "insufficient_scope",
    "invalid_key",
    "expired_key",
    "unavailable",
];

/// Counters at one moment.
#[derive(Debug)]
pub struct Counters {
    requests: u64,
    outcomes: BTreeMap<&'static str, u64>,
    bcrypt_runs: u64,
    forged_keys: u64,
}

impl Counters {
    async fn read(sidekey: &Sidekey) -> Self {
        let text = sidekey.metrics().await;
        let outcomes = OUTCOMES.map(|outcome| {
            let label = format!("outcome=\"{outcome}\"");
            let series =
                |line: &str| line.starts_with("sidekey_requests_total{") && line.contains(&label);
            (outcome, sum(&text, series))
        });
        let alone = |name: &str| sum(&text, |line| line.split(' ').next() == Some(name));
        Counters {
            requests: sum(&text, |line| line.starts_with("sidekey_requests_total{")),
            outcomes: outcomes.into(),
            bcrypt_runs: alone("sidekey_bcrypt_runs_total"),
            forged_keys: alone("sidekey_forged_keys_total"),
        }
    }

    /// Once `requests` are counted: all that there were.
    pub async fn after(sidekey: &Sidekey, requests: u64) -> Self {
        let start = Instant::now();
        loop {
            let counters = Self::read(sidekey).await;
            if counters.requests >= requests || start.elapsed() > COUNTED_WITHIN {
                return counters;
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Hashes computed since.
    pub fn bcrypt_runs_since(&self, before: &Counters) -> u64 {
        self.bcrypt_runs - before.bcrypt_runs
    }

    /// What differs between the gateway's counts since `before` and what callers were answered.
    fn complaints(&self, before: &Counters, tally: &Tally) -> Vec<String> {
        let mut complaints = Vec::new();
        let mut compare = |what: &str, counted: u64, low: u64, high: u64| {
            if !(low..=high).contains(&counted) {
                complaints.push(format!("{what}: the gateway counted {counted}, not {low}"));
            }
        };
        for outcome in OUTCOMES {
            let counted = self.outcomes[outcome] - before.outcomes[outcome];
            let met = tally.with_outcome(outcome);
            compare(outcome, counted, met, met);
        }
        let forged = tally.with_outcome("invalid_key");
        let counted = self.forged_keys - before.forged_keys;
        compare("forged keys", counted, forged, forged);
        // Each new key once, and nothing else: no forged key, and no warm one. The first uses of the
        // limited keys are in the load too. Of a caller who was told to come back the hash may have been
        // computed or not.
        let cold = tally.of(super::calls::Kind::Cold);
        let of = |status| cold.statuses.get(&status).copied().unwrap_or_default();
        let runs = of(200) + LIMITED_KEYS as u64;
        let counted = self.bcrypt_runs_since(before);
        compare("bcrypt hashes", counted, runs, runs + of(503));
        complaints
    }
}

fn sum(text: &str, is_wanted: impl Fn(&str) -> bool) -> u64 {
    let values = text.lines().filter(|line| is_wanted(line));
    values
        .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
        .sum::<f64>() as u64
}

/// Waits until the gateway has counted what callers were answered; the counters, and what differs still.
pub async fn settle(
    sidekey: &Sidekey,
    before: &Counters,
    tally: &Tally,
) -> (Counters, Vec<String>) {
    let start = Instant::now();
    loop {
        let after = Counters::read(sidekey).await;
        let complaints = after.complaints(before, tally);
        if complaints.is_empty() || start.elapsed() > COUNTED_WITHIN {
            return (after, complaints);
        }
        tokio::time::sleep(POLL).await;
    }
}

/// Memory of the process `pid`.
pub fn memory(pid: u32) -> Memory {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let kib = |name: &str| {
        let mut lines = status.lines().filter_map(|line| line.split_once(':'));
        let value = lines.find(|(known, _)| *known == name);
        value
            .and_then(|(_, value)| value.split_whitespace().next()?.parse().ok())
            .unwrap_or_default()
    };
    Memory {
        resident: kib("VmRSS"),
        peak: kib("VmHWM"),
    }
}
