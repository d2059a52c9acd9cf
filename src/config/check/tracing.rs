//! `[tracing]`.

use std::time::Duration;

use super::Checker;
use crate::config::settings::TracingSettings;
use crate::config::{parse, raw};

const TIMEOUT_MS_MIN: u64 = 100;
/// So long nothing else is sent.
const TIMEOUT_MS_MAX: u64 = 60_000;

impl Checker<'_> {
    pub(super) fn tracing(&mut self, raw: &raw::Tracing) -> TracingSettings {
        let endpoint = self.web_address(
            "tracing.otlp_endpoint",
            &raw.otlp_endpoint,
            parse::otlp_traces,
        );
        self.name("tracing.service_name", &raw.service_name);
        self.number(
            "tracing.timeout_ms",
            raw.timeout_ms,
            TIMEOUT_MS_MIN,
            TIMEOUT_MS_MAX,
        );
        let sample_ratio = self.share("tracing.sample_ratio", raw.sample_ratio);
        TracingSettings {
            endpoint,
            service_name: raw.service_name.clone(),
            creates: raw.create,
            sample_ratio: sample_ratio.unwrap_or_default(),
            follows_parent: raw.follow_parent,
            timeout: Duration::from_millis(raw.timeout_ms),
        }
    }
}
