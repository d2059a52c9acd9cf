//! Which reminder of a secret's age is to be sent, and when the next one is. Pure, and in UTC: a day has 24
//! hours.
//!
//! Reminders stand 14 days before the secret is due, 3 days before, then, and every week after that. One that
//! would stand before the secret was made is none. Whoever looks late sends the latest one alone.

use crate::clock::Timestamp;
use crate::key::KeyRecord;

const DAY_MS: i64 = 86_400_000;
/// Where reminders stand that come before those of every week, in days from the moment when the secret is due.
const FIRST_DAYS: [i64; 3] = [-14, -3, 0];
/// How many days are between those that follow.
const WEEK_DAYS: i64 = 7;

/// One reminder of a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Step {
    /// From when on it is to be sent.
    pub at: Timestamp,
    /// How many days after the secret is due; less than 0 before.
    pub days: i64,
}

impl Step {
    /// Its name in notes.
    pub fn name(self) -> String {
        match self.days {
            0 => "on the day".to_owned(),
            days if days < 0 => format!("{} days before", -days),
            days => format!("{days} days after"),
        }
    }
}

/// How long a secret should live.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rotation {
    created_ms: i64,
    due_ms: i64,
}

impl Rotation {
    pub fn new(secret_created_at: Timestamp, rotation_days: u32) -> Self {
        let created_ms = secret_created_at.as_millis();
        Rotation {
            created_ms,
            due_ms: created_ms + i64::from(rotation_days) * DAY_MS,
        }
    }

    /// That of a key's current secret.
    pub fn of(key: &KeyRecord) -> Self {
        Self::new(key.secret_created_at, key.rotation_days)
    }

    /// The reminder that should have been sent last at `now`.
    pub fn latest(self, now: Timestamp) -> Option<Step> {
        let now_ms = now.as_millis();
        if self.due_ms <= now_ms {
            let weeks = (now_ms - self.due_ms) / (WEEK_DAYS * DAY_MS);
            return self.step(weeks * WEEK_DAYS);
        }
        let begun = |step: &Step| step.at <= now;
        let mut steps = FIRST_DAYS.into_iter().filter_map(|days| self.step(days));
        steps.rfind(begun)
    }

    /// The first reminder after `now`.
    pub fn next(self, now: Timestamp) -> Option<Step> {
        let now_ms = now.as_millis();
        let steps = FIRST_DAYS.into_iter().filter_map(|days| self.step(days));
        let mut later = steps.filter(|step| step.at > now);
        later.next().or_else(|| {
            let weeks = (now_ms - self.due_ms).div_euclid(WEEK_DAYS * DAY_MS) + 1;
            self.step(weeks * WEEK_DAYS)
        })
    }

    /// The reminder of that day, if it is one.
    fn step(self, days: i64) -> Option<Step> {
        let at_ms = self.due_ms + days * DAY_MS;
        let is_one = at_ms > self.created_ms && at_ms < Timestamp::MAX.as_millis();
        is_one.then(|| Step {
            at: Timestamp::from_millis(at_ms),
            days,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// 2027-01-01T00:00:00Z
    const MADE_MS: i64 = 1_798_761_600_000;

    /// So many days after the secret was made, and a few milliseconds.
    fn day(days: i64, more_ms: i64) -> Timestamp {
        Timestamp::from_millis(MADE_MS + days * DAY_MS + more_ms)
    }

    fn rotation(days: u32) -> Rotation {
        Rotation::new(day(0, 0), days)
    }

    #[test]
    fn reminders_stand_where_they_should() {
        // Days from when the secret was made, and of the reminder from when it is due.
        for (rotation_days, now, latest, next) in [
            (90, day(0, 0), None, Some(-14)),
            (90, day(76, -1), None, Some(-14)),
            (90, day(76, 0), Some(-14), Some(-3)),
            (90, day(87, -1), Some(-14), Some(-3)),
            (90, day(87, 0), Some(-3), Some(0)),
            (90, day(90, -1), Some(-3), Some(0)),
            (90, day(90, 0), Some(0), Some(7)),
            (90, day(97, -1), Some(0), Some(7)),
            (90, day(97, 0), Some(7), Some(14)),
            // After a long stop the latest alone.
            (90, day(455, 5), Some(364), Some(371)),
            // None of them stands before the secret, or with it.
            (14, day(0, 0), None, Some(-3)),
            (15, day(1, 0), Some(-14), Some(-3)),
            (3, day(0, 0), None, Some(0)),
            (1, day(0, 5), None, Some(0)),
            (1, day(1, 0), Some(0), Some(7)),
        ] {
            let rotation = rotation(rotation_days);
            let days = |step: Option<Step>| step.map(|step| step.days);
            assert_eq!(days(rotation.latest(now)), latest, "{rotation_days} {now}");
            assert_eq!(days(rotation.next(now)), next, "{rotation_days} {now}");
        }
    }

    #[test]
    fn steps_have_names() {
        let named = |days| rotation(90).step(days).unwrap().name();
        assert_eq!(named(-14), "14 days before");
        assert_eq!(named(0), "on the day");
        assert_eq!(named(7), "7 days after");
    }

    proptest! {
        /// Whoever looks at any moments in their order, and sends what has not been sent, sends each
        /// reminder once at most, none too early, and always the latest.
        #[test]
        fn each_is_sent_once_and_in_order(
            rotation_days in 1_u32..=3650,
            pauses in prop::collection::vec(1_i64..40 * DAY_MS, 1..200),
        ) {
            let rotation = rotation(rotation_days);
            let mut now = MADE_MS;
            let mut last: Option<Step> = None;
            for pause in pauses {
                now += pause;
                let moment = Timestamp::from_millis(now);
                let latest = rotation.latest(moment);
                let next = rotation.next(moment).unwrap();
                prop_assert!(next.at > moment);
                prop_assert!(latest.is_none_or(|latest| latest.at <= moment && latest < next));
                // Nothing stands between the two.
                let before_next = Timestamp::from_millis(next.at.as_millis() - 1);
                prop_assert_eq!(rotation.latest(before_next), latest);
                prop_assert_eq!(rotation.latest(next.at), Some(next));
                // It never goes back.
                prop_assert!(last <= latest);
                last = latest;
            }
        }
    }
}
