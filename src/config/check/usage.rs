//! `[usage]`: what each key was used for.

use std::time::Duration;

use super::Checker;
use crate::config::raw;
use crate::config::settings::UsageSettings;

/// The counters of a key have room for what comes in so long a time.
const FLUSH_SECONDS_MAX: u64 = 300;
const RETENTION_DAYS_MAX: u64 = 3650;
const PENDING_ROWS_MIN: usize = 1_000;
const PENDING_ROWS_MAX: usize = 100_000_000;

impl Checker<'_> {
    pub(super) fn usage(&mut self, raw: &raw::Usage) -> UsageSettings {
        let (interval, days) = (raw.flush_interval_seconds, raw.retention_days);
        self.number(
            "usage.flush_interval_seconds",
            interval,
            1,
            FLUSH_SECONDS_MAX,
        );
        self.number("usage.retention_days", days, 1, RETENTION_DAYS_MAX);
        self.number(
            "usage.max_pending_rows",
            raw.max_pending_rows,
            PENDING_ROWS_MIN,
            PENDING_ROWS_MAX,
        );
        UsageSettings {
            flush_interval: Duration::from_secs(interval.clamp(1, FLUSH_SECONDS_MAX)),
            retention: Duration::from_secs(days.clamp(1, RETENTION_DAYS_MAX) * 86_400),
            max_pending_rows: raw.max_pending_rows,
        }
    }
}
