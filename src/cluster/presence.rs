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
    joined_us: u64,
    told_us: u64,
    tidied_us: u64,
    has_company: bool,
    /// Whether a living instance of the same name has been told of.
    has_namesake: bool,
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
        store.note_instance(&beat).await?;
        let now_us = clock.monotonic_us();
        let mut presence = Presence {
            store,
            roster,
            clock,
            beat,
            joined_us: now_us,
            told_us: now_us,
            tidied_us: now_us,
            has_company: false,
            has_namesake: false,
            is_failing: false,
        };
        presence.forget_former_self().await?;
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
            self.forget_former_self().await?;
            self.look_around().await?;
            self.warn_of_namesake(now_us);
            self.tidy(now_us).await?;
        }
        Ok(())
    }

    /// What this instance was before a restart is not waited for, once it counts as live no more.
    async fn forget_former_self(&self) -> Result<(), StoreError> {
        let beat = &self.beat;
        self.store.forget_namesakes(&beat.id, &beat.name).await
    }

    fn warn_of_namesake(&mut self, now_us: u64) {
        let live_us = u64::try_from(LIVE_FOR.as_micros()).unwrap_or(u64::MAX);
        // Until then it may be what this one was before a restart.
        if self.has_namesake || now_us.saturating_sub(self.joined_us) <= live_us {
            return;
        }
        let beat = &self.beat;
        self.has_namesake = (self.roster.get().iter())
            .any(|other| other.is_live && other.name == beat.name && other.id != beat.id);
        if self.has_namesake {
            tracing::warn!(
                name = beat.name,
                "another instance has the same name; give each its own store.instance_name"
            );
        }
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

#[cfg(test)]
mod tests {
    use secrecy::SecretString;

    use super::*;
    use crate::clock::{ManualClock, Timestamp};
    use crate::store::SqlStore;
    use crate::telemetry::Metrics;

    const HOUR: Duration = Duration::from_secs(3600);

    #[tokio::test]
    async fn a_living_namesake_is_warned_of_and_a_dead_one_is_forgotten() {
        let directory = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}/keys.db", directory.path().display());
        let store = SqlStore::open(&SecretString::from(url)).await.unwrap();
        let mut beat = Heartbeat {
            id: "other".to_owned(),
            name: "me".to_owned(),
            seen: 1,
            live_for: HOUR,
            serves_for: HOUR,
        };
        store.note_instance(&beat).await.unwrap();
        beat.id = "former".to_owned();
        beat.live_for = Duration::ZERO;
        store.note_instance(&beat).await.unwrap();
        let count = async || store.instances().await.unwrap().len();
        // By the database's clock.
        while store
            .instances()
            .await
            .unwrap()
            .iter()
            .all(|one| one.is_live)
        {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }

        let clock = ManualClock::at(Timestamp::from_millis(0));
        let identity = Identity::new(Some("me"), 1).unwrap();
        let roster = Roster::new(Arc::new(Metrics::new().unwrap()));
        let instances = Arc::new(store.clone());
        let joining = Presence::join(&identity, HOUR, instances, roster, clock.clone());
        let mut presence = joining.await.unwrap();
        assert_eq!(count().await, 2, "the former self is forgotten");
        clock.advance(LIVE_FOR);
        presence.tell(1).await.unwrap();
        assert!(!presence.has_namesake, "it may be a former self");
        clock.advance(HEARTBEAT);
        presence.tell(1).await.unwrap();
        assert!(presence.has_namesake);
        assert_eq!(count().await, 2, "it keeps its row");
    }
}
