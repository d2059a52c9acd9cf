//! Where a request's time has gone: to Sidekey, to the upstream, to both and the client.

use super::Context;
use crate::telemetry::metrics::{RouteMetrics, seconds};

impl Context {
    /// What Sidekey added to a request that ended at `ended_us`: from its header until it was passed on, or
    /// until it was known what Sidekey answers itself.
    pub(super) fn added_us(&self, ended_us: u64) -> u64 {
        let known_us = self.passed_on_us.or(self.own_answer_us);
        known_us.unwrap_or(ended_us).saturating_sub(self.started_us)
    }

    /// From the choice of a server to the header of its answer, where there was one.
    pub(super) fn upstream_us(&self) -> Option<u64> {
        Some(self.answered_us?.saturating_sub(self.passed_on_us?))
    }
}

/// Notes the times of a request that is over.
pub(super) fn observe(metrics: &RouteMetrics, ctx: &Context, ended_us: u64) {
    let took_us = ended_us.saturating_sub(ctx.started_us);
    metrics.duration.observe(seconds(took_us));
    metrics
        .added_duration
        .observe(seconds(ctx.added_us(ended_us)));
    if let Some(upstream_us) = ctx.upstream_us() {
        metrics.upstream_duration.observe(seconds(upstream_us));
    }
}
