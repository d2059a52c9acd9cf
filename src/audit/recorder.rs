//! What is noted beside an answer: sign-ins and refused calls of the admin port. They must not slow an
//! answer down, so they wait in a queue with an end, and one task writes them in batches. While the
//! database is away they stay in the queue. What there is no room for is counted, and the next entry
//! that is written tells how much it was.
//!
//! Whoever is refused again and again does not fill the chain: past [`CALLS_A_MINUTE_MAX`] refused calls
//! of one address within a minute, and past the first 429, the rest of the minute is one entry with their
//! number. If it stays open whether a batch was written, it is written again: calls can be told apart by
//! their request ids.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use moka::sync::Cache;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

use super::{Action, Actor, Note, Origin};
use crate::clock::SharedClock;
use crate::key::{KeyId, TenantId};
use crate::limit::address::AddressKey;
use crate::store::AuditStore;
use crate::telemetry::Metrics;

/// Notes that wait to be written.
const QUEUE_LEN_MAX: usize = 4096;
/// Notes that are written in one transaction, for as long as which changes of keys wait.
const BATCH_LEN_MAX: usize = 50;
/// How long a batch may gather.
const GATHER: Duration = Duration::from_millis(20);
/// How soon a batch that could not be written is tried again, and how often it is looked which minutes
/// are over.
const INTERVAL: Duration = Duration::from_secs(1);
/// Refused calls of one address within a minute that have an entry each.
const CALLS_A_MINUTE_MAX: u32 = 60;
/// So many answers 429 have one each.
const LIMITED_A_MINUTE_MAX: u32 = 1;
const MINUTE_US: u64 = 60_000_000;
/// Addresses whose minutes are looked after at the same time.
const ADDRESSES_MAX: usize = 4096;
/// A key's use from an address counts as one sign-in for so long.
const SIGN_IN_LASTS: Duration = Duration::from_secs(3600);
/// Sign-ins that are remembered.
const SIGN_INS_MAX: u64 = 10_000;

/// Too many requests.
const LIMITED: u16 = 429;

/// A refused call of the admin port.
#[derive(Debug, Clone)]
pub struct Refusal {
    pub origin: Origin,
    /// That of the actor, where it is known.
    pub tenant_id: Option<TenantId>,
    /// The key that was presented and not recognised, where the text named one.
    pub presented: Option<KeyId>,
    pub method: String,
    /// Without its query, and without what may be a secret.
    pub path: String,
    pub status: u16,
    /// The type of the problem that was answered.
    pub problem: &'static str,
}

/// The minute of one address.
#[derive(Debug)]
struct Minute {
    address: IpAddr,
    began_us: u64,
    noted: u32,
    /// Calls without an entry of their own, and the last of them.
    folded: u64,
    last: Option<(u16, &'static str)>,
}

#[derive(Debug, Default)]
struct Waiting {
    notes: VecDeque<Note>,
    /// By address, and whether it is about answers 429.
    minutes: HashMap<(AddressKey, bool), Minute>,
    /// What there was no room for.
    unrecorded: u64,
}

/// Takes notes of what is not a write.
pub struct Recorder {
    waiting: Mutex<Waiting>,
    signed_in: Cache<(KeyId, IpAddr), ()>,
    wake: Notify,
    clock: SharedClock,
    metrics: Arc<Metrics>,
}

impl Recorder {
    pub fn new(clock: SharedClock, metrics: Arc<Metrics>) -> Arc<Self> {
        Arc::new(Recorder {
            waiting: Mutex::default(),
            signed_in: Cache::builder()
                .max_capacity(SIGN_INS_MAX)
                .time_to_live(SIGN_IN_LASTS)
                .build(),
            wake: Notify::new(),
            clock,
            metrics,
        })
    }

    /// Notes that a key of `tenant` is used from an address, if it is new there.
    pub fn signed_in(&self, key: KeyId, tenant: TenantId, origin: Origin) {
        let Some(address) = origin.address else {
            return;
        };
        if self.signed_in.contains_key(&(key, address)) {
            return;
        }
        let note = Note {
            at: self.clock.now(),
            action: Action::AdminSignedIn,
            origin,
            key_id: Some(key),
            tenant_id: Some(tenant),
            details: serde_json::Map::new(),
        };
        if self.push(&mut self.waiting.lock(), note) {
            self.signed_in.insert((key, address), ());
        }
    }

    /// Notes that the holder of a key of `tenant` has signed out of the dashboard. The next time that the
    /// key is used from there is a sign-in again.
    pub fn signed_out(&self, tenant: TenantId, origin: Origin) {
        let Actor::Key(key) = origin.actor else {
            return;
        };
        if let Some(address) = origin.address {
            self.signed_in.invalidate(&(key, address));
        }
        let note = Note {
            at: self.clock.now(),
            action: Action::AdminSignedOut,
            origin,
            key_id: Some(key),
            tenant_id: Some(tenant),
            details: serde_json::Map::new(),
        };
        self.push(&mut self.waiting.lock(), note);
    }

    /// Notes that a call was refused.
    pub fn refused(&self, refusal: Refusal) {
        let now_us = self.clock.monotonic_us();
        let mut waiting = self.waiting.lock();
        let Some(address) = refusal.origin.address else {
            let note = self.note_of(refusal);
            self.push(&mut waiting, note);
            return;
        };
        let is_limited = refusal.status == LIMITED;
        let of_address = (AddressKey::from(address), is_limited);
        let has_room = waiting.minutes.len() < ADDRESSES_MAX;
        let minute = match waiting.minutes.get_mut(&of_address) {
            Some(minute) => minute,
            None if has_room => waiting.minutes.entry(of_address).or_insert(Minute {
                address,
                began_us: now_us,
                noted: 0,
                folded: 0,
                last: None,
            }),
            None => return self.count_unrecorded(&mut waiting),
        };
        let most = if is_limited {
            LIMITED_A_MINUTE_MAX
        } else {
            CALLS_A_MINUTE_MAX
        };
        if minute.noted >= most {
            minute.folded += 1;
            minute.last = Some((refusal.status, refusal.problem));
            return;
        }
        minute.noted += 1;
        let note = self.note_of(refusal);
        self.push(&mut waiting, note);
    }

    fn note_of(&self, refusal: Refusal) -> Note {
        let mut details = serde_json::Map::new();
        details.insert("method".to_owned(), refusal.method.into());
        details.insert("path".to_owned(), refusal.path.into());
        details.insert("status".to_owned(), refusal.status.into());
        details.insert("problem".to_owned(), refusal.problem.into());
        if let Some(presented) = refusal.presented {
            details.insert("presented_key_id".to_owned(), presented.as_str().into());
        }
        Note {
            at: self.clock.now(),
            action: Action::AdminCallRefused,
            origin: refusal.origin,
            key_id: None,
            tenant_id: refusal.tenant_id,
            details,
        }
    }

    /// Adds a note where there is room.
    fn push(&self, waiting: &mut Waiting, note: Note) -> bool {
        if waiting.notes.len() >= QUEUE_LEN_MAX {
            self.count_unrecorded(waiting);
            return false;
        }
        waiting.notes.push_back(note);
        self.wake.notify_one();
        true
    }

    fn count_unrecorded(&self, waiting: &mut Waiting) {
        waiting.unrecorded += 1;
        self.metrics.audit_unrecorded.inc();
    }

    /// Ends minutes that are over (all of them, where `is_end`), and notes what had no entry of its own.
    fn end_minutes(&self, is_end: bool) {
        let now_us = self.clock.monotonic_us();
        let is_over =
            |minute: &Minute| is_end || now_us.saturating_sub(minute.began_us) >= MINUTE_US;
        let mut waiting = self.waiting.lock();
        let over: Vec<Minute> = waiting
            .minutes
            .extract_if(|_, minute| is_over(minute))
            .map(|(_, minute)| minute)
            .collect();
        for minute in over {
            if let Some(note) = self.note_of_minute(&minute) {
                self.push(&mut waiting, note);
            }
        }
    }

    fn note_of_minute(&self, minute: &Minute) -> Option<Note> {
        let (status, problem) = minute.last?;
        let mut note = Note::by_system(Action::AdminCallRefused, self.clock.now());
        note.origin.actor = Actor::Unknown;
        note.origin.address = Some(minute.address);
        note.details.insert("status".to_owned(), status.into());
        note.details.insert("problem".to_owned(), problem.into());
        note.details
            .insert("count".to_owned(), minute.folded.into());
        Some(note)
    }

    /// The oldest notes, as many as one transaction takes, and how much was not recorded before them.
    fn batch(&self) -> (Vec<Note>, u64) {
        let waiting = self.waiting.lock();
        let notes = waiting.notes.iter().take(BATCH_LEN_MAX).cloned().collect();
        (notes, waiting.unrecorded)
    }

    /// Writes one batch; whether there is more.
    async fn write(&self, store: &dyn AuditStore) -> Result<bool, crate::store::StoreError> {
        let (mut notes, unrecorded) = self.batch();
        let count = notes.len();
        if unrecorded > 0 {
            let mut note = Note::by_system(Action::AdminCallRefused, self.clock.now());
            let details = &mut note.details;
            details.insert("unrecorded".to_owned(), unrecorded.into());
            notes.push(note);
        }
        if notes.is_empty() {
            return Ok(false);
        }
        store.note(&notes).await?;
        let mut waiting = self.waiting.lock();
        waiting.notes.drain(..count);
        waiting.unrecorded -= unrecorded;
        Ok(!waiting.notes.is_empty() || waiting.unrecorded > 0)
    }

    async fn write_all(&self, store: &dyn AuditStore) -> Result<(), crate::store::StoreError> {
        while self.write(store).await? {}
        Ok(())
    }

    /// How many notes wait to be written.
    pub fn waiting(&self) -> usize {
        self.waiting.lock().notes.len()
    }

    /// Writes what is noted until `stopping` says that no more will come; then the rest, if the store takes it.
    pub async fn run(
        self: Arc<Self>,
        store: Arc<dyn AuditStore>,
        mut stopping: watch::Receiver<bool>,
    ) {
        let mut is_failing = false;
        let mut is_end = false;
        while !is_end {
            tokio::select! {
                // Whoever is gone has nothing more to say either.
                _ = stopping.wait_for(|stop| *stop) => is_end = true,
                () = self.woken(is_failing) => {}
                () = tokio::time::sleep(INTERVAL) => {}
            }
            if !is_end {
                tokio::time::sleep(GATHER).await;
            }
            self.end_minutes(is_end);
            let result = self.write_all(&*store).await;
            if let (Err(error), false) = (&result, is_failing) {
                tracing::warn!(%error, "sign-ins and refused admin calls can't be noted; they wait");
            }
            is_failing = result.is_err();
        }
    }

    /// Waits for a note. While the store does not take any, new ones are no reason to ask it.
    async fn woken(&self, is_failing: bool) {
        if is_failing {
            std::future::pending().await
        } else {
            self.wake.notified().await
        }
    }
}

#[cfg(test)]
mod tests;
