//! Tells the others, through the database, that this instance lives and how far it has followed the
//! changes: at once when it has applied some and somebody else is there, and every [`HEARTBEAT`]
//! anyhow. An instance on its own writes only the latter, so changes cost it no second commit.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::{Identity, Roster};
use crate::clock::SharedClock;
use crate::store::{Heartbeat, InstanceStore, StoreError};

/// How often an instance says that it lives when it has nothing else to say.
const HEARTBEAT: Duration = Duration::from_secs(5);
/// One that missed two of them is not waited for any more.
const LIVE_FOR: Duration = Duration::from_secs(15);
/// How soon a word that failed is said again.
const RETRY: Duration = Duration::from_secs(1);
/// How often rows of instances that are long gone are deleted.
const TIDY_INTERVAL_US: u64 = 3_600_000_000;
/// How long an instance that ends takes to say so, at most.
const LEAVE_TIMEOUT: Duration = Duration::from_millis(500);

/// What this instance says of itself.
pub struct Presence {
    store: Arc<dyn InstanceStore>,
    roster: Roster,
    clock: SharedClock,
    beat: Heartbeat,
    told_us: u64,
    tidied_us: u64,
    has_company: bool,
    is_failing: bool,
}

impl Presence {
    /// Says that this instance is there, before it serves anybody: whoever changes a key from now on
    /// can know of it. `max_stale` is how long it serves what the database does not confirm.
    pub async fn join(
        identity: &Identity,
        max_stale: Duration,
        store: Arc<dyn InstanceStore>,
        roster: Roster,
        clock: SharedClock,
    ) -> Result<Self, StoreError> {
        let beat = Heartbeat {
            id: identity.id.to_string(),
            name: identity.name.to_string(),
            // Nothing is confirmed yet.
            seen: 0,
            live_for: LIVE_FOR,
            // What the database confirmed after the last word may be served for longer.
            serves_for: max_stale + HEARTBEAT + RETRY,
        };
        store.forget_namesakes(&beat.id, &beat.name).await?;
        store.note_instance(&beat).await?;
        let now_us = clock.monotonic_us();
        let mut presence = Presence {
            store,
            roster,
            clock,
            beat,
            told_us: now_us,
            tidied_us: now_us,
            has_company: false,
            is_failing: false,
        };
        presence.look_around().await?;
        Ok(presence)
    }

    /// Tells what `applied` says, until nobody says anything any more; then this instance is gone.
    pub async fn run(mut self, mut applied: watch::Receiver<i64>) {
        loop {
            let seen = *applied.borrow_and_update();
            let result = self.tell(seen).await;
            if let (Err(error), false) = (&result, self.is_failing) {
                tracing::warn!(%error, "the other instances can't be told that this one lives");
            }
            self.is_failing = result.is_err();
            let pause = if self.is_failing { RETRY } else { HEARTBEAT };
            let has_ended = tokio::select! {
                changed = applied.changed() => changed.is_err(),
                () = tokio::time::sleep(pause) => false,
            };
            if has_ended {
                break;
            }
        }
        // Otherwise the others would wait for it.
        let leaving = self.store.forget_instance(&self.beat.id);
        if !matches!(
            tokio::time::timeout(LEAVE_TIMEOUT, leaving).await,
            Ok(Ok(()))
        ) {
            tracing::warn!("the other instances can't be told that this one ends");
        }
    }

    async fn tell(&mut self, seen: i64) -> Result<(), StoreError> {
        let now_us = self.clock.monotonic_us();
        let beat_us = u64::try_from(HEARTBEAT.as_micros()).unwrap_or(u64::MAX);
        let is_due = self.is_failing || now_us.saturating_sub(self.told_us) >= beat_us;
        if !is_due {
            if seen == self.beat.seen {
                return Ok(());
            }
            if !self.has_company {
                // Somebody may have come since.
                self.look_around().await?;
            }
            if !self.has_company {
                return Ok(());
            }
        }
        let beat = Heartbeat {
            seen,
            ..self.beat.clone()
        };
        self.store.note_instance(&beat).await?;
        self.beat = beat;
        if is_due {
            self.told_us = now_us;
            self.look_around().await?;
            self.tidy(now_us).await?;
        }
        Ok(())
    }

    async fn look_around(&mut self) -> Result<(), StoreError> {
        let all = self.store.instances().await?;
        self.has_company = all.iter().any(|other| other.id != self.beat.id);
        self.roster.set(Arc::new(all));
        Ok(())
    }

    async fn tidy(&mut self, now_us: u64) -> Result<(), StoreError> {
        if now_us.saturating_sub(self.tidied_us) < TIDY_INTERVAL_US {
            return Ok(());
        }
        self.tidied_us = now_us;
        self.store.forget_gone_instances().await
    }
}
