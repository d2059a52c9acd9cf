//! `[reminders]`: who is told that a key's secret should be replaced.

use std::time::Duration;

use super::Checker;
use crate::config::raw;
use crate::config::settings::ReminderSettings;

const INTERVAL_SECONDS_MAX: u64 = 86_400;
const HOURLY_MAX: u64 = 1_000_000;

impl Checker<'_> {
    pub(super) fn reminders(&mut self, raw: &raw::Reminders) -> ReminderSettings {
        let interval = raw.interval_seconds;
        self.number(
            "reminders.interval_seconds",
            interval,
            1,
            INTERVAL_SECONDS_MAX,
        );
        self.number("reminders.max_per_hour", raw.max_per_hour, 1, HOURLY_MAX);
        ReminderSettings {
            is_enabled: raw.enabled,
            interval: Duration::from_secs(interval.clamp(1, INTERVAL_SECONDS_MAX)),
            hourly_max: raw.max_per_hour,
            has_response_header: raw.response_header,
        }
    }
}
