//! What was counted, on its way to the store.

use std::sync::Arc;

use tokio::task::JoinHandle;

use crate::clock::SharedClock;
use crate::config::Settings;
use crate::store::{RankingStore, UsageStore};
use crate::telemetry::Metrics;
use crate::usage::flush::Parts;
use crate::usage::{Flusher, Ranker, RollUp};
use crate::verify::LiveKeys;

/// The tasks that store usage.
pub(super) struct Usage {
    flusher: Arc<Flusher>,
    flushing: JoinHandle<()>,
}

impl Usage {
    pub(super) fn start(
        settings: &Settings,
        live: &Arc<LiveKeys>,
        store: &Arc<dyn UsageStore>,
        rankings: &Arc<dyn RankingStore>,
        instance: &Arc<str>,
        clock: &SharedClock,
        metrics: &Arc<Metrics>,
    ) -> Self {
        let flusher = Flusher::new(Parts {
            source: live.clone(),
            store: store.clone(),
            instance: instance.clone(),
            interval: settings.usage.flush_interval,
            rows_max: settings.usage.max_pending_rows,
            shown_tenants_max: settings.metrics.max_tenants,
            clock: clock.clone(),
            metrics: metrics.clone(),
        });
        let roll_up = RollUp {
            store: store.clone(),
            retention: settings.usage.retention,
            clock: clock.clone(),
        };
        tokio::spawn(roll_up.run());
        let ranker = Ranker::new(
            rankings.clone(),
            settings.usage.flush_interval,
            clock.clone(),
        );
        tokio::spawn(ranker.run());
        Usage {
            flushing: tokio::spawn(flusher.clone().run()),
            flusher,
        }
    }

    /// Stores what is left, when no request is in flight any more.
    pub(super) async fn finish(self) {
        self.flushing.abort();
        // Two must not store at the same time.
        let _ = self.flushing.await;
        self.flusher.finish().await;
    }
}
