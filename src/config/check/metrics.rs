//! `[metrics]`: what is shown to Prometheus.

use super::Checker;
use crate::config::raw;
use crate::config::settings::MetricsSettings;

/// Each tenant is five series.
const TENANTS_MAX: usize = 1_000;

impl Checker<'_> {
    pub(super) fn metrics(&mut self, raw: &raw::Metrics) -> MetricsSettings {
        self.number("metrics.max_tenants", raw.max_tenants, 0, TENANTS_MAX);
        MetricsSettings {
            max_tenants: raw.max_tenants,
        }
    }
}
