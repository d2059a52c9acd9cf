//! The end: what is waited for, and for how long.

use std::time::Duration;

use prometheus::IntGauge;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::{AppError, failed};
use crate::limit::redis::RedisLimiter;
use crate::telemetry::Metrics;

/// How often to look whether there is still something to wait for.
const DRAIN_INTERVAL: Duration = Duration::from_millis(20);

/// SIGTERM and SIGINT. Awaited by the same streams for the life of the process, so that none is lost between two
/// looks.
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    pub(super) fn new() -> Result<Self, AppError> {
        let terminate = signal(SignalKind::terminate());
        let interrupt = signal(SignalKind::interrupt());
        Ok(Signals {
            terminate: terminate.map_err(failed("SIGTERM can't be awaited"))?,
            interrupt: interrupt.map_err(failed("SIGINT can't be awaited"))?,
        })
    }

    /// Waits for the next of them.
    pub(super) async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Lets everything go on for `notice`, in which `/readyz` says that this instance is leaving. A second
/// signal ends it.
pub(super) async fn give_notice(notice: Duration, signals: &mut Signals) {
    if notice.is_zero() {
        return;
    }
    tracing::info!(
        seconds = notice.as_secs(),
        "leaving: not ready any more, but requests are still taken"
    );
    tokio::select! {
        () = tokio::time::sleep(notice) => {}
        () = signals.next() => {}
    }
}

/// Waits until `gauge` is 0, and says whether it is within `limit`.
async fn reaches_zero(gauge: &IntGauge, limit: Duration) -> bool {
    let idle = async {
        while gauge.get() > 0 {
            tokio::time::sleep(DRAIN_INTERVAL).await;
        }
    };
    tokio::time::timeout(limit, idle).await.is_ok()
}

/// Gives back the tokens that were taken in advance, which takes one call of Redis each.
pub(super) async fn give_back_leases(limiter: &RedisLimiter, metrics: &Metrics, limit: Duration) {
    limiter.close();
    if !reaches_zero(&metrics.leases_open, limit.saturating_add(DRAIN_INTERVAL)).await {
        tracing::warn!("tokens of shared limits that were taken in advance are lost");
    }
}

/// Waits until no request is in flight, but no longer than `limit`.
pub(super) async fn drain(metrics: &Metrics, limit: Duration) {
    if !reaches_zero(&metrics.in_flight, limit).await {
        tracing::warn!(
            requests = metrics.in_flight.get(),
            "requests were still in flight after proxy.shutdown_seconds, and were cut off"
        );
    }
}
