//! How requests through the proxy ended, by the hour: what the routes' counters have grown by since they
//! were read the last time. Requests pay nothing for it, and those without a key are among them.

use super::counts::{Hour, Subject};
use super::pending::Pending;
use crate::telemetry::metrics::OutcomeTotals;
use crate::telemetry::outcome::{OUTCOMES, Outcome};

/// What the counters said the last time.
#[derive(Debug, Default)]
pub struct Outcomes {
    seen: OutcomeTotals,
}

impl Outcomes {
    /// Adds what has come since then to `hour`.
    pub fn take(&mut self, now: OutcomeTotals, hour: Hour, into: &mut Pending) {
        let before = std::mem::replace(&mut self.seen, now);
        add(
            &before.requests,
            &now.requests,
            Subject::Outcome,
            hour,
            into,
        );
        add(&before.shadow, &now.shadow, Subject::Shadow, hour, into);
    }
}

fn add(
    before: &[u64; OUTCOMES],
    now: &[u64; OUTCOMES],
    subject: fn(Outcome) -> Subject,
    hour: Hour,
    into: &mut Pending,
) {
    for (outcome, (before, now)) in Outcome::ALL.iter().zip(before.iter().zip(now)) {
        let requests = now.saturating_sub(*before);
        if requests > 0 {
            into.add_outcome(subject(*outcome), hour, requests);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;
    use crate::usage::counts::HOUR_MS;

    #[test]
    fn what_has_come_since_is_of_that_hour() {
        let hour = |n: i64| Hour::of(Timestamp::from_millis(n * HOUR_MS));
        let mut pending = Pending::new("me".into(), 10);
        let mut outcomes = Outcomes::default();
        let mut totals = OutcomeTotals::default();
        totals.requests[Outcome::NoRoute as usize] = 3;
        totals.shadow[Outcome::InvalidKey as usize] = 2;
        outcomes.take(totals, hour(5), &mut pending);
        outcomes.take(totals, hour(6), &mut pending);
        totals.requests[Outcome::NoRoute as usize] = 7;
        outcomes.take(totals, hour(7), &mut pending);
        let batch = pending.current().unwrap();
        let sums = batch.sums().into_iter();
        let sums: Vec<_> = sums
            .map(|((subject, hour), counts)| (subject.to_string(), hour, counts.requests))
            .collect();
        assert_eq!(
            sums,
            [
                ("outcome/no_route".to_owned(), hour(5), 3),
                ("outcome/no_route".to_owned(), hour(7), 4),
                ("shadow/invalid_key".to_owned(), hour(5), 2),
            ]
        );
    }
}
