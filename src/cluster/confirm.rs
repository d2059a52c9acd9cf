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
        let look = self.look_until(begun_us, self.wait, &mut missing);
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

    /// The names of those that have not confirmed what was changed before this call. Waits for none of them.
    pub async fn unconfirmed_now(&self) -> Vec<String> {
        let mut missing = None;
        let look = self.look_until(self.clock.monotonic_us(), Duration::ZERO, &mut missing);
        if let Ok(Err(error)) = tokio::time::timeout(FIRST_LOOK_MAX, look).await {
            tracing::warn!(%error, "it can't be read who has confirmed a change");
        }
        let missing = missing.unwrap_or_else(|| self.missing(&self.roster.get(), i64::MAX));
        missing.names
    }

    /// The instances that were heard of when somebody looked last: their names, and whether each counts as
    /// live.
    pub fn known(&self) -> Vec<(String, bool)> {
        let all = self.roster.get();
        let named = all.iter();
        // Another version may have written it.
        named
            .map(|one| (super::plain(&one.name), one.is_live))
            .collect()
    }

    fn waited(&self, begun_us: u64) -> Duration {
        Duration::from_micros(self.clock.monotonic_us().saturating_sub(begun_us))
    }

    async fn look_until(
        &self,
        begun_us: u64,
        wait: Duration,
        missing: &mut Option<Missing>,
    ) -> Result<(), StoreError> {
        // That of the change, or a later one.
        let newest = self.keys.last_change().await?;
        let mut pause = LOOK_MIN;
        loop {
            let all = self.read(self.clock.monotonic_us()).await?;
            let found = missing.insert(self.missing(&all, newest));
            if !found.has_live || self.waited(begun_us) >= wait {
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

#[cfg(test)]
mod tests {
    use secrecy::SecretString;

    use super::*;
    use crate::clock::SystemClock;
    use crate::store::{Heartbeat, SqlStore};

    struct Bench {
        _directory: tempfile::TempDir,
        store: SqlStore,
        confirmations: Confirmations,
    }

    /// An instance after `changes` changes, that waits for others for at most `wait`.
    async fn bench(changes: i64, wait: Duration) -> Bench {
        let directory = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}/keys.db", directory.path().display());
        let store = SqlStore::open(&SecretString::from(url)).await.unwrap();
        sqlx::query("UPDATE change_counter SET seq = $1")
            .bind(changes)
            .execute(store.writer())
            .await
            .unwrap();
        let metrics = Arc::new(Metrics::new().unwrap());
        let confirmations = Confirmations::new(Parts {
            identity: Identity::new(Some("me"), 1).unwrap(),
            keys: Arc::new(store.clone()),
            store: Arc::new(store.clone()),
            roster: Roster::new(metrics.clone()),
            wait,
            clock: Arc::new(SystemClock::new()),
            metrics,
        });
        Bench {
            _directory: directory,
            store,
            confirmations,
        }
    }

    async fn note(store: &SqlStore, name: &str, seen: i64, live_for: Duration) {
        let beat = Heartbeat {
            id: format!("id of {name}"),
            name: name.to_owned(),
            seen,
            live_for,
            serves_for: HOUR,
        };
        store.note_instance(&beat).await.unwrap();
    }

    const HOUR: Duration = Duration::from_secs(3600);

    #[tokio::test]
    async fn whoever_lives_is_waited_for_and_whoever_is_silent_is_named() {
        let bench = bench(7, HOUR).await;
        note(&bench.store, "late", 6, HOUR).await;
        note(&bench.store, "silent\"", 6, Duration::ZERO).await;
        note(&bench.store, "ahead", 8, HOUR).await;
        // The wait is long enough for this to come in between.
        let catch_up = async {
            tokio::time::sleep(2 * LOOK_MIN).await;
            note(&bench.store, "late", 7, HOUR).await;
        };
        let (found, ()) = tokio::join!(bench.confirmations.wait(), catch_up);
        assert_eq!((found.instances, found.confirmed()), (4, 3));
        assert_eq!(found.unconfirmed, ["silent-"]);
    }

    #[tokio::test]
    async fn the_wait_is_limited() {
        for wait in [Duration::ZERO, Duration::from_millis(30)] {
            let bench = bench(7, wait).await;
            note(&bench.store, "late", 6, HOUR).await;
            let found = bench.confirmations.wait().await;
            assert_eq!((found.instances, found.confirmed()), (2, 1));
            assert_eq!(found.unconfirmed, ["late"]);
            assert_eq!(bench.confirmations.unconfirmed_now().await, ["late"]);
            note(&bench.store, "late", 7, HOUR).await;
            assert!(bench.confirmations.unconfirmed_now().await.is_empty());
            assert!(found.waited >= wait && found.waited < HOUR);
        }
    }

    #[tokio::test]
    async fn what_cannot_be_read_is_not_confirmed() {
        let bench = bench(7, HOUR).await;
        note(&bench.store, "other", 7, HOUR).await;
        assert_eq!(bench.confirmations.wait().await.confirmed(), 2);
        bench.store.close().await;
        let found = bench.confirmations.wait().await;
        assert_eq!((found.instances, found.confirmed()), (2, 1));
    }
}
