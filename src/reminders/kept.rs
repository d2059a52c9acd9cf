//! What is kept in memory from one pass for the next: that the mail server fails, and what could not be
//! written down because the database was away.

use std::collections::HashMap;
use std::time::Duration;

use super::{Reminders, micros};
use crate::clock::Timestamp;
use crate::store::StoreError;
use crate::store::reminders::ClaimEnd;

const HOUR_MS: i64 = 3_600_000;
/// How long nothing is sent after the mail server has failed, and by how much longer each time, up to this.
const PAUSE: Duration = Duration::from_secs(60);
const PAUSE_MAX: Duration = Duration::from_secs(15 * 60);

/// Mails to one address within an hour, of each instance: who is the contact of thousands of keys has not
/// thousands of mails at once.
const MAILS_TO_ONE_MAX: u32 = 20;
/// How long the others wait.
pub(super) const ADDRESS_REST: Duration = Duration::from_secs(3600);

/// How many mails were begun to whom, in this hour. No more than `reminders.max_per_hour` addresses.
#[derive(Debug, Default)]
pub(super) struct Addressed {
    hour: i64,
    mails: HashMap<String, u32>,
}

impl Addressed {
    /// Those of the hour that `now` is in.
    fn of_hour(&mut self, now: Timestamp) -> &mut HashMap<String, u32> {
        let hour = now.as_millis() / HOUR_MS;
        if hour != self.hour {
            self.hour = hour;
            self.mails.clear();
        }
        &mut self.mails
    }
}

/// The mail server fails: nothing is sent until then.
#[derive(Debug, Default)]
pub(super) struct Pause {
    until_us: u64,
    failures: u32,
}

impl Reminders {
    /// Writes down what came of a claim, now or with the next pass: a mail that is gone must not go again
    /// because the database was away for a moment.
    pub(super) async fn end(&self, end: ClaimEnd) -> Result<(), StoreError> {
        match self.parts.store.end_claim(&end).await {
            Ok(true) => Ok(()),
            Ok(false) => {
                tracing::warn!(key_id = %end.key_id, "a reminder of rotation took so long that another instance has begun it too");
                Ok(())
            }
            Err(error) => {
                self.unwritten.lock().push(end);
                Err(error)
            }
        }
    }

    pub(super) async fn write_unwritten(&self) -> Result<(), StoreError> {
        let mut unwritten = std::mem::take(&mut *self.unwritten.lock());
        while let Some(end) = unwritten.pop() {
            if let Err(error) = self.end(end).await {
                self.unwritten.lock().append(&mut unwritten);
                return Err(error);
            }
        }
        Ok(())
    }

    /// Whether that address has had its mails of this hour.
    pub(super) fn has_enough(&self, address: &str, now: Timestamp) -> bool {
        let mut addressed = self.addressed.lock();
        let mails = addressed.of_hour(now).get(&address.to_lowercase());
        mails.is_some_and(|mails| *mails >= MAILS_TO_ONE_MAX)
    }

    /// Counts a mail to that address.
    pub(super) fn count_mail(&self, address: &str, now: Timestamp) {
        let mut addressed = self.addressed.lock();
        let mails = addressed.of_hour(now);
        *mails.entry(address.to_lowercase()).or_default() += 1;
    }

    pub(super) fn is_paused(&self) -> bool {
        self.parts.clock.monotonic_us() < self.pause.lock().until_us
    }

    /// How long nothing is sent from now on.
    pub(super) fn pause_left(&self) -> Duration {
        let until_us = self.pause.lock().until_us;
        Duration::from_micros(until_us.saturating_sub(self.parts.clock.monotonic_us()))
    }

    pub(super) fn pause(&self, detail: &str) {
        let mut pause = self.pause.lock();
        let longer = PAUSE.saturating_mul(1 << pause.failures.min(16));
        let lasts = longer.min(PAUSE_MAX);
        pause.failures += 1;
        pause.until_us = self.parts.clock.monotonic_us() + micros(lasts);
        tracing::warn!(
            detail,
            pause_seconds = lasts.as_secs(),
            "the mail server takes no mail; reminders of rotation wait"
        );
    }

    pub(super) fn resume(&self) {
        *self.pause.lock() = Pause::default();
    }
}
