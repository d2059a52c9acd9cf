//! What was counted and is not stored yet: rows that wait, with a limit, and the batch that is being
//! stored.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;

use smallvec::SmallVec;

use super::counts::{Counts, Hour, KeyUse, LastUse, Subject};
use super::tenants::TenantCounts;
use crate::key::{Generation, KeyId, TenantId};

/// Keys in one batch, which is one transaction: nobody waits long for the rows that it holds.
pub const BATCH_KEYS_MAX: usize = 1000;
/// Rows of outcomes that wait, at most: a few for each hour of an outage.
const OUTCOME_ROWS_MAX: usize = 10_000;

/// What waits of one key.
#[derive(Debug, Default)]
struct Waiting {
    /// Known where there are counts.
    tenant: Option<TenantId>,
    hours: SmallVec<[(Hour, Counts); 1]>,
    uses: SmallVec<[(Generation, LastUse); 1]>,
}

impl Waiting {
    /// What it counts for: a key of which only uses are known is a row as well.
    fn rows(&self) -> usize {
        self.hours.len().max(1)
    }
}

/// An hour of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HourRow {
    pub key_id: KeyId,
    pub tenant_id: TenantId,
    pub hour: Hour,
    pub counts: Counts,
}

/// Requests of an hour that ended in one way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutcomeRow {
    /// [`Subject::Outcome`] or [`Subject::Shadow`].
    pub subject: Subject,
    pub hour: Hour,
    pub requests: u64,
}

/// Rows that are stored together, once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// The instance that counted, new at each start.
    pub instance: Arc<str>,
    /// Its batches are numbered from 1.
    pub number: i64,
    /// In the order of keys and hours.
    pub hours: Vec<HourRow>,
    /// In the order of keys and generations.
    pub uses: Vec<KeyUse>,
    /// In the order of subjects and hours.
    pub outcomes: Vec<OutcomeRow>,
}

impl Batch {
    /// The hours of tenants, of outcomes and of the platform that these rows add to, in order.
    pub fn sums(&self) -> BTreeMap<(Subject, Hour), Counts> {
        let mut sums: BTreeMap<(Subject, Hour), Counts> = BTreeMap::new();
        for row in &self.hours {
            for subject in [Subject::Tenant(row.tenant_id.clone()), Subject::Platform] {
                sums.entry((subject, row.hour))
                    .or_default()
                    .add(&row.counts);
            }
        }
        for row in &self.outcomes {
            let counts = Counts {
                requests: row.requests,
                ..Counts::default()
            };
            sums.entry((row.subject.clone(), row.hour))
                .or_default()
                .add(&counts);
        }
        sums
    }

    /// What each key's totals grow by, in order.
    pub fn totals(&self) -> BTreeMap<KeyId, Counts> {
        let mut totals: BTreeMap<KeyId, Counts> = BTreeMap::new();
        for row in &self.hours {
            totals.entry(row.key_id).or_default().add(&row.counts);
        }
        totals
    }

    fn rows(&self) -> usize {
        self.hours.len().max(self.uses.len())
    }
}

/// Everything that waits.
#[derive(Debug)]
pub struct Pending {
    instance: Arc<str>,
    keys: BTreeMap<KeyId, Waiting>,
    outcomes: BTreeMap<(Subject, Hour), u64>,
    /// Of all that was added since somebody asked, that included which found no place.
    tenants: TenantCounts,
    rows: usize,
    rows_max: usize,
    dropped: u64,
    /// The batch of which it is not known yet that it is stored. It is never changed: it may be.
    current: Option<Arc<Batch>>,
    numbered: i64,
}

impl Pending {
    /// Nothing yet. Of new rows of keys and hours there are never more than `rows_max`.
    pub fn new(instance: Arc<str>, rows_max: usize) -> Self {
        Pending {
            instance,
            keys: BTreeMap::new(),
            outcomes: BTreeMap::new(),
            tenants: TenantCounts::new(),
            rows: 0,
            rows_max,
            dropped: 0,
            current: None,
            numbered: 0,
        }
    }

    /// Rows of keys that wait, those of the current batch among them.
    pub fn rows(&self) -> usize {
        self.rows + self.current.as_ref().map_or(0, |batch| batch.rows())
    }

    /// How many rows found no place since the last call.
    pub fn take_dropped(&mut self) -> u64 {
        std::mem::take(&mut self.dropped)
    }

    /// What was added of each tenant since the last call.
    pub fn take_tenants(&mut self) -> TenantCounts {
        std::mem::take(&mut self.tenants)
    }

    fn is_full(&self) -> bool {
        self.rows() >= self.rows_max
    }

    /// Adds what a key's requests of an hour came to.
    pub fn add(&mut self, key: KeyId, tenant: &TenantId, hour: Hour, counts: &Counts) {
        self.add_to_tenant(tenant, counts);
        let is_full = self.is_full();
        let known = self.keys.get_mut(&key);
        if let Some(waiting) = known {
            if let Some((_, sum)) = waiting.hours.iter_mut().find(|(of, _)| *of == hour) {
                sum.add(counts);
                return;
            }
            // The first takes the place of a row that only had uses.
            if waiting.hours.is_empty() || !is_full {
                let before = waiting.rows();
                waiting.tenant.get_or_insert_with(|| tenant.clone());
                waiting.hours.push((hour, *counts));
                self.rows += waiting.rows() - before;
                return;
            }
        }
        if is_full {
            self.dropped += 1;
            return;
        }
        let mut waiting = Waiting {
            tenant: Some(tenant.clone()),
            ..Waiting::default()
        };
        waiting.hours.push((hour, *counts));
        self.keys.insert(key, waiting);
        self.rows += 1;
    }

    fn add_to_tenant(&mut self, tenant: &TenantId, counts: &Counts) {
        match self.tenants.get_mut(tenant) {
            Some(sum) => sum.add(counts),
            None => {
                self.tenants.insert(tenant.clone(), *counts);
            }
        }
    }

    /// Adds requests of an hour that ended in one way.
    pub fn add_outcome(&mut self, subject: Subject, hour: Hour, requests: u64) {
        let is_full = self.outcomes.len() >= OUTCOME_ROWS_MAX;
        match self.outcomes.entry((subject, hour)) {
            Entry::Occupied(mut known) => {
                let sum = known.get().saturating_add(requests);
                known.insert(sum);
            }
            Entry::Vacant(_) if is_full => self.dropped += 1,
            Entry::Vacant(free) => {
                free.insert(requests);
            }
        }
    }

    /// Notes when a secret of a key was last used.
    pub fn note_use(&mut self, key: KeyId, generation: Generation, last: LastUse) {
        if !self.keys.contains_key(&key) {
            if self.is_full() {
                self.dropped += 1;
                return;
            }
            self.rows += 1;
        }
        let uses = &mut self.keys.entry(key).or_default().uses;
        match uses.iter_mut().find(|(of, _)| *of == generation) {
            Some((_, known)) => *known = known.later(last),
            // A key has a new generation when somebody replaces its secret, so these are few.
            None => uses.push((generation, last)),
        }
    }

    /// The batch to be stored: the one that may have been, or the next; `None` where nothing waits.
    pub fn current(&mut self) -> Option<Arc<Batch>> {
        if self.current.is_none() {
            self.current = self.cut();
        }
        self.current.clone()
    }

    /// The current batch is stored.
    pub fn stored(&mut self) {
        self.current = None;
    }

    fn cut(&mut self) -> Option<Arc<Batch>> {
        if self.keys.is_empty() && self.outcomes.is_empty() {
            return None;
        }
        let outcomes = std::mem::take(&mut self.outcomes).into_iter();
        let outcomes = outcomes.map(|((subject, hour), requests)| OutcomeRow {
            subject,
            hour,
            requests,
        });
        let (mut hours, mut uses) = (Vec::new(), Vec::new());
        for _ in 0..BATCH_KEYS_MAX {
            let Some((key_id, mut waiting)) = self.keys.pop_first() else {
                break;
            };
            self.rows -= waiting.rows();
            waiting.hours.sort_unstable_by_key(|(hour, _)| *hour);
            waiting
                .uses
                .sort_unstable_by_key(|(generation, _)| *generation);
            if let Some(tenant_id) = waiting.tenant {
                hours.extend(waiting.hours.into_iter().map(|(hour, counts)| HourRow {
                    key_id,
                    tenant_id: tenant_id.clone(),
                    hour,
                    counts,
                }));
            }
            uses.extend(waiting.uses.into_iter().map(|(generation, last)| KeyUse {
                key_id,
                generation,
                last,
            }));
        }
        self.numbered += 1;
        Some(Arc::new(Batch {
            instance: self.instance.clone(),
            number: self.numbered,
            hours,
            uses,
            outcomes: outcomes.collect(),
        }))
    }
}

#[cfg(test)]
mod tests;
