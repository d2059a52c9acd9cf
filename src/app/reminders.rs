//! Who is told that a key's secret should be replaced.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::{AppError, failed};
use crate::admin::dashboard::KEYS_PATH;
use crate::clock::SharedClock;
use crate::config::Settings;
use crate::reminders::send::Mailer;
use crate::reminders::{self, Reminders};
use crate::store::{ReminderStore, TenantStore};
use crate::telemetry::Metrics;

/// How long the end waits for a mail that is on its way.
const END_TIMEOUT: Duration = Duration::from_secs(2);

/// The task that sends reminders.
pub(super) struct Reminding {
    task: JoinHandle<()>,
    stop: watch::Sender<bool>,
}

impl Reminding {
    pub(super) fn start(
        settings: &Settings,
        store: &Arc<dyn ReminderStore>,
        tenants: &Arc<dyn TenantStore>,
        clock: &SharedClock,
        metrics: &Arc<Metrics>,
    ) -> Result<Self, AppError> {
        let mailer = settings.smtp.as_ref().map(Mailer::new).transpose();
        let dashboard = &settings.dashboard;
        let address = dashboard.url.as_ref().filter(|_| dashboard.is_enabled);
        let reminders = Reminders::new(reminders::Parts {
            store: store.clone(),
            tenants: tenants.clone(),
            mailer: mailer.map_err(failed("mail can't be sent"))?,
            settings: settings.reminders.clone(),
            pages: address.map(|address| format!("{address}{KEYS_PATH}")),
            clock: clock.clone(),
            metrics: metrics.clone(),
        });
        let (stop, stopping) = watch::channel(false);
        Ok(Reminding {
            task: tokio::spawn(reminders.run(stopping)),
            stop,
        })
    }

    /// Begins no mail any more. Said as soon as the end is known, so that a mail that is on its way has time.
    pub(super) fn stop(&self) {
        let _ = self.stop.send(true);
    }

    /// Lets a mail that is on its way arrive, within some time.
    pub(super) async fn finish(mut self) {
        self.stop();
        if tokio::time::timeout(END_TIMEOUT, &mut self.task)
            .await
            .is_err()
        {
            self.task.abort();
        }
    }
}
