//! Turns hours that are older than they are kept into days.

use std::sync::Arc;
use std::time::Duration;

use super::counts::DAY_MS;
use crate::clock::{SharedClock, Timestamp};
use crate::store::UsageStore;

/// How often it is looked whether there is something to do.
const INTERVAL: Duration = Duration::from_secs(3600);
/// The first look, when an instance that starts has other things to do no more.
const FIRST: Duration = Duration::from_secs(60);
/// What is remembered of instances that have stored nothing for so long is forgotten.
const FLUSHES_KEPT: Duration = Duration::from_secs(30 * 86_400);

/// Does it from time to time, as any of the instances.
pub struct RollUp {
    pub store: Arc<dyn UsageStore>,
    /// How long hours are kept.
    pub retention: Duration,
    pub clock: SharedClock,
}

/// Where the days begin of which the hours are kept.
pub fn kept_from(now: Timestamp, retention: Duration) -> Timestamp {
    let oldest = now.minus(retention).as_millis().max(0);
    Timestamp::from_millis(oldest - oldest.rem_euclid(DAY_MS))
}

impl RollUp {
    /// Looks for ever.
    pub async fn run(self) {
        let mut wait = FIRST;
        loop {
            tokio::time::sleep(std::mem::replace(&mut wait, INTERVAL)).await;
            self.roll_up().await;
        }
    }

    /// Does all that there is to do. After each part of it others have their turn for as long.
    pub async fn roll_up(&self) {
        let before = kept_from(self.clock.now(), self.retention);
        loop {
            let begun_us = self.clock.monotonic_us();
            match self.store.roll_up(before).await {
                Ok(true) => {}
                Ok(false) => break,
                Err(error) => {
                    tracing::warn!(%error, "old hours of usage can't be turned into days");
                    return;
                }
            }
            let took_us = self.clock.monotonic_us().saturating_sub(begun_us);
            tokio::time::sleep(Duration::from_micros(took_us)).await;
        }
        let silent_since = self.clock.now().minus(FLUSHES_KEPT);
        if let Err(error) = self.store.forget_flushes(silent_since).await {
            tracing::warn!(%error, "instances that are gone can't be forgotten");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_days_are_kept() {
        let day = Duration::from_secs(86_400);
        let at = Timestamp::from_millis;
        assert_eq!(kept_from(at(10 * DAY_MS), 3 * day), at(7 * DAY_MS));
        assert_eq!(kept_from(at(11 * DAY_MS - 1), 3 * day), at(7 * DAY_MS));
        assert_eq!(kept_from(at(DAY_MS), 3 * day), at(0));
    }
}
