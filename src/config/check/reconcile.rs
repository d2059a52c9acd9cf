//! `[secrets]`: what a crash left behind.

use std::time::Duration;

use super::{Checker, SECONDS_MAX};
use crate::config::raw;
use crate::config::settings::ReconcileSettings;

const LEFTOVER_AGE_SECONDS_MAX: u64 = 86_400;

impl Checker<'_> {
    pub(super) fn reconcile(&mut self, raw: &raw::Secrets) -> ReconcileSettings {
        let (interval, age) = (raw.reconcile_interval_seconds, raw.leftover_age_seconds);
        self.number(
            "secrets.reconcile_interval_seconds",
            interval,
            0,
            SECONDS_MAX,
        );
        self.number(
            "secrets.leftover_age_seconds",
            age,
            1,
            LEFTOVER_AGE_SECONDS_MAX,
        );
        ReconcileSettings {
            interval: (interval > 0).then(|| Duration::from_secs(interval.min(SECONDS_MAX))),
            leftover_age: Duration::from_secs(age.min(LEFTOVER_AGE_SECONDS_MAX)),
            max_removals: raw.reconcile_max_removals,
        }
    }
}
