//! Who is told that a key's secret should be replaced, and how often.
//!
//! [`schedule`] says which reminder is due, [`mail`] what it says, [`send`] brings it to the mail server, and
//! here is when somebody looks: `pass` finds and claims, `attempt` sends, `outcome` tells what came of it, and
//! `kept` has what one pass leaves for the next. All instances look; each reminder is claimed in the database
//! before it is sent, so one of them sends it.
//!
//! A reminder is sent **at least once**. Where a process ends between the mail and the note of it, the claim
//! runs out and the mail comes a second time, with the same Message-ID, by which many programs show it once.
//! A mail too many does little harm; a key that nobody was told of is what all this is against.

mod attempt;
mod kept;
pub mod mail;
mod outcome;
mod pass;
pub mod schedule;
pub mod send;

pub use pass::Passed;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;

use crate::clock::SharedClock;
use crate::config::settings::ReminderSettings;
use crate::store::reminders::ClaimEnd;
use crate::store::{ReminderStore, StoreError, TenantStore};
use crate::telemetry::Metrics;
use kept::{Addressed, Pause};
use send::Mailer;

/// Keys count as due soon within so long.
const SOON: Duration = Duration::from_secs(14 * 24 * 3600);
/// How often they are counted.
const COUNT_INTERVAL: Duration = Duration::from_secs(300);

/// What [`Reminders`] needs.
pub struct Parts {
    pub store: Arc<dyn ReminderStore>,
    pub tenants: Arc<dyn TenantStore>,
    /// `None`: reminders are only logged.
    pub mailer: Option<Mailer>,
    pub settings: ReminderSettings,
    /// Where a key's page is, but for its id; `None` where nobody knows how people reach the dashboard.
    pub pages: Option<String>,
    pub clock: SharedClock,
    pub metrics: Arc<Metrics>,
}

/// Sends reminders.
pub struct Reminders {
    parts: Parts,
    pause: Mutex<Pause>,
    addressed: Mutex<Addressed>,
    /// What came of mails, where it could not be written down yet. No more than one pass leaves.
    unwritten: Mutex<Vec<ClaimEnd>>,
    /// A pass ends with the mail that is on its way.
    is_ending: AtomicBool,
    /// The last count of keys failed.
    is_uncounted: AtomicBool,
}

impl Reminders {
    pub fn new(parts: Parts) -> Self {
        Reminders {
            parts,
            pause: Mutex::default(),
            addressed: Mutex::default(),
            unwritten: Mutex::default(),
            is_ending: AtomicBool::new(false),
            is_uncounted: AtomicBool::new(false),
        }
    }

    /// Looks again and again, until `stopping` says that it is over.
    pub async fn run(self, mut stopping: watch::Receiver<bool>) {
        let mut is_failing = false;
        let mut counted_us = None;
        loop {
            if self.is_time(&mut counted_us) {
                self.count().await;
            }
            if self.parts.settings.is_enabled {
                let passed = self.pass_until(&mut stopping).await;
                if let (Err(error), false) = (&passed, is_failing) {
                    tracing::warn!(%error, "reminders of rotation have to wait");
                }
                is_failing = passed.is_err();
            }
            // Whoever is gone stops nobody any more.
            let stopped = stopping.wait_for(|stop| *stop);
            tokio::select! {
                _ = stopped => return,
                () = tokio::time::sleep(self.parts.settings.interval) => {}
            }
        }
    }

    /// A pass that is short where the process ends.
    async fn pass_until(&self, stopping: &mut watch::Receiver<bool>) -> Result<Passed, StoreError> {
        let stopped = async {
            // Whoever is gone stops nobody any more.
            let _ = stopping.wait_for(|stop| *stop).await;
        };
        let mut pass = std::pin::pin!(self.pass());
        tokio::select! {
            passed = &mut pass => passed,
            () = stopped => {
                self.is_ending.store(true, Ordering::Relaxed);
                pass.await
            }
        }
    }

    fn is_time(&self, counted_us: &mut Option<u64>) -> bool {
        let now_us = self.parts.clock.monotonic_us();
        let interval_us = micros(COUNT_INTERVAL);
        let is_time = counted_us.is_none_or(|last| now_us.saturating_sub(last) >= interval_us);
        if is_time {
            *counted_us = Some(now_us);
        }
        is_time
    }

    /// Brings the gauges of keys that are due up to date.
    pub async fn count(&self) {
        let now = self.parts.clock.now();
        match self.parts.store.rotations(now, now.plus(SOON)).await {
            Ok(counts) => {
                self.parts.metrics.keys_rotation_overdue.set(counts.overdue);
                self.parts.metrics.keys_rotation_due.set(counts.soon);
            }
            Err(error) => {
                if !self.is_uncounted.swap(true, Ordering::Relaxed) {
                    tracing::warn!(%error, "keys that are due for rotation can't be counted");
                }
                return;
            }
        }
        self.is_uncounted.store(false, Ordering::Relaxed);
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
