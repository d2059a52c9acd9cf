//! How far a change has come: which instances have applied it, and which have not.
//!
//! An instance writes its row before it reads the first key, and a change is committed before the rows
//! are read. So an instance that is not among them has read the change itself, and none is left out.
//! An instance that was not heard of lately is not waited for, but it is named for as long as it might
//! serve from memory: it may have lost the database and not its clients.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;

use super::{Identity, Roster};
use crate::clock::SharedClock;
use crate::store::{Heard, InstanceStore, KeyStore, StoreError};
use crate::telemetry::Metrics;

/// How long to wait between two looks, at first and at most.
const LOOK_MIN: Duration = Duration::from_millis(4);
const LOOK_MAX: Duration = Duration::from_millis(25);
/// How long the first look may take, where nothing is to be waited for either.
const FIRST_LOOK_MAX: Duration = Duration::from_millis(100);

/// How far a change has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Propagation {
    /// All that may be serving, this one included.
    pub instances: usize,
    /// The names of those that have not confirmed the change.
    pub unconfirmed: Vec<String>,
    pub waited: Duration,
}

impl Propagation {
    /// How many instances have confirmed the change, this one included.
    pub fn confirmed(&self) -> usize {
        self.instances - self.unconfirmed.len()
    }
}

/// Those that have not confirmed a change yet.
struct Missing {
    instances: usize,
    names: Vec<String>,
    /// Whether one of them can be expected to.
    has_live: bool,
}

/// The rows of all instances, read at a moment.
struct Reading {
    begun_us: u64,
    all: Arc<Vec<Heard>>,
}

/// Asks who has confirmed changes.
pub struct Confirmations {
    identity: Identity,
    keys: Arc<dyn KeyStore>,
    store: Arc<dyn InstanceStore>,
    roster: Roster,
    /// How long an answer waits.
    wait: Duration,
    clock: SharedClock,
    metrics: Arc<Metrics>,
    /// Who waits at the same time reads once.
    latest: Mutex<Option<Reading>>,
}

/// What a [`Confirmations`] is made of.
pub struct Parts {
    pub identity: Identity,
    pub keys: Arc<dyn KeyStore>,
    pub store: Arc<dyn InstanceStore>,
    pub roster: Roster,
    pub wait: Duration,
    pub clock: SharedClock,
    pub metrics: Arc<Metrics>,
}

impl Confirmations {
    pub fn new(parts: Parts) -> Self {
        Confirmations {
            identity: parts.identity,
            keys: parts.keys,
            store: parts.store,
            roster: parts.roster,
            wait: parts.wait,
            clock: parts.clock,
            metrics: parts.metrics,
            latest: Mutex::new(None),
        }
    }

    /// Waits until every instance has confirmed what was changed before this call, but no longer than
    /// the configuration allows. Never fails: what can't be read is not confirmed.
    pub async fn wait(&self) -> Propagation {
        let begun_us = self.clock.monotonic_us();
        let mut missing = None;
        let look = self.look_until(begun_us, &mut missing);
        let look = tokio::time::timeout(self.wait.max(FIRST_LOOK_MAX), look);
        if let Ok(Err(error)) = look.await {
            tracing::warn!(%error, "it can't be read who has confirmed a change");
        }
        // Nothing could be read: nobody else has confirmed anything.
        let missing = missing.unwrap_or_else(|| self.missing(&self.roster.get(), i64::MAX));
        let waited = self.waited(begun_us);
        self.metrics
            .propagation_seconds
            .observe(waited.as_secs_f64());
        if !missing.names.is_empty() {
            self.metrics.propagation_unconfirmed.inc();
        }
        Propagation {
            instances: missing.instances,
            unconfirmed: missing.names,
            waited,
        }
    }

    fn waited(&self, begun_us: u64) -> Duration {
        Duration::from_micros(self.clock.monotonic_us().saturating_sub(begun_us))
    }

    async fn look_until(
        &self,
        begun_us: u64,
        missing: &mut Option<Missing>,
    ) -> Result<(), StoreError> {
        // That of the change, or a later one.
        let newest = self.keys.last_change().await?;
        let mut pause = LOOK_MIN;
        loop {
            let all = self.read(self.clock.monotonic_us()).await?;
            let found = missing.insert(self.missing(&all, newest));
            if !found.has_live || self.waited(begun_us) >= self.wait {
                return Ok(());
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LOOK_MAX);
        }
    }

    /// The rows as they are at `since_us` or later.
    async fn read(&self, since_us: u64) -> Result<Arc<Vec<Heard>>, StoreError> {
        let mut latest = self.latest.lock().await;
        if let Some(reading) = latest.as_ref().filter(|known| known.begun_us >= since_us) {
            return Ok(reading.all.clone());
        }
        let begun_us = self.clock.monotonic_us();
        let all = Arc::new(self.store.instances().await?);
        self.roster.set(all.clone());
        *latest = Some(Reading {
            begun_us,
            all: all.clone(),
        });
        Ok(all)
    }

    fn missing(&self, all: &[Heard], newest: i64) -> Missing {
        // This instance has applied what it wrote, whatever its row says.
        let others = all.iter().filter(|one| *one.id != *self.identity.id);
        let late: Vec<&Heard> = others.clone().filter(|other| other.seen < newest).collect();
        Missing {
            instances: 1 + others.count(),
            has_live: late.iter().any(|other| other.is_live),
            // Another version may have written it.
            names: late.iter().map(|other| super::plain(&other.name)).collect(),
        }
    }
}
