//! Live tenants: what all live keys of a tenant have in common, as their views hold it. A tenant's
//! state is replaced as a whole when its record changes, and the views of its keys after it; a warm
//! request follows the pointers that its key's view has, and knows nothing of this registry.
//!
//! The lock here is taken within that of a shard of live keys, never the other way round. So a view
//! that is built under its shard's lock gets the tenant as it is, and is built again by whoever
//! changes the tenant after that.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use http::HeaderValue;
use parking_lot::Mutex;

use super::view::field;
use crate::key::tenant::POLICY_PREFIX;
use crate::key::{KeyId, Policy, TenantId, TenantRecord};
use crate::limit::Bucket;

/// A tenant without a row, which is what a row of that revision would be older than.
const NO_REVISION: i64 = 0;

/// Whom keys belong to, at a moment.
#[derive(Debug)]
pub struct Tenant {
    pub id: TenantId,
    /// `X-Sidekey-Tenant-Id`
    pub field: HeaderValue,
    pub is_suspended: bool,
    /// Under the names that clients see.
    pub policies: Vec<Arc<Policy>>,
    /// That all its keys share, in the order of the policies.
    pub buckets: Vec<Arc<Bucket>>,
    /// That of the record: a higher one is newer.
    pub revision: i64,
}

impl Tenant {
    /// The tenant as `record` says, without one active and unlimited. It takes over what its buckets
    /// in `old` hold.
    fn new(
        id: &TenantId,
        record: Option<&TenantRecord>,
        old: Option<&Tenant>,
        now_us: u64,
    ) -> Self {
        let policies: Vec<Arc<Policy>> = record
            .into_iter()
            .flat_map(|record| &record.settings.rate_limits)
            .map(|policy| {
                Arc::new(Policy {
                    name: format!("{POLICY_PREFIX}{}", policy.name),
                    ..policy.clone()
                })
            })
            .collect();
        let held = old.map_or(&[][..], |old| &old.buckets[..]);
        Tenant {
            id: id.clone(),
            field: field(id.as_str()),
            is_suspended: record.is_some_and(TenantRecord::is_suspended),
            buckets: (policies.iter())
                .map(|policy| Bucket::carry_over(policy, held, now_us))
                .collect(),
            policies,
            revision: record.map_or(NO_REVISION, |record| record.revision),
        }
    }

    /// The same, but no key of it may act. A newer record is still a newer one.
    fn closed(&self) -> Self {
        Tenant {
            id: self.id.clone(),
            field: self.field.clone(),
            is_suspended: true,
            policies: self.policies.clone(),
            buckets: self.buckets.clone(),
            revision: self.revision,
        }
    }
}

/// What the registry knows about one tenant.
#[derive(Default)]
struct Slot {
    current: Option<Arc<Tenant>>,
    /// Its live keys.
    keys: HashSet<KeyId>,
    /// Loads under way.
    loads: u32,
    /// The newest record that was announced while the tenant was being loaded.
    announced: Option<TenantRecord>,
    /// The row could not be read any more while the tenant was being loaded, and nothing was announced
    /// since.
    is_closed: bool,
}

impl Slot {
    /// Makes `tenant` the current one; the keys whose views have to be built again.
    fn replace(&mut self, tenant: Tenant) -> Vec<KeyId> {
        self.current = Some(Arc::new(tenant));
        self.keys.iter().copied().collect()
    }
}

/// All tenants that have live keys, and those whose buckets are not full.
#[derive(Default)]
pub struct LiveTenants(Mutex<HashMap<TenantId, Slot>>);

/// A load under way: a change of the record that is announced meanwhile will not be missed, and the
/// tenant is not forgotten.
pub struct TenantLoad<'a> {
    tenants: &'a LiveTenants,
    id: TenantId,
}

impl LiveTenants {
    /// Announces that the row of `id` is about to be read from the store, if it has to be.
    pub fn begin_load(&self, id: &TenantId) -> TenantLoad<'_> {
        self.0.lock().entry(id.clone()).or_default().loads += 1;
        TenantLoad {
            tenants: self,
            id: id.clone(),
        }
    }

    /// The tenant of a live key, which is noted as one of its keys.
    pub fn join(&self, id: &TenantId, key: KeyId, now_us: u64) -> Arc<Tenant> {
        let mut all = self.0.lock();
        let slot = all.entry(id.clone()).or_default();
        slot.keys.insert(key);
        let make = || Arc::new(Tenant::new(id, None, None, now_us));
        slot.current.get_or_insert_with(make).clone()
    }

    /// A key is no longer live.
    pub fn leave(&self, id: &TenantId, key: KeyId) {
        if let Some(slot) = self.0.lock().get_mut(id) {
            slot.keys.remove(&key);
        }
    }

    /// Makes a record that was just written the current one, unless a newer one is. The keys whose
    /// views have to be built again.
    #[must_use]
    pub fn apply(&self, record: &TenantRecord, now_us: u64) -> Vec<KeyId> {
        let mut all = self.0.lock();
        let Some(slot) = all.get_mut(&record.id) else {
            return Vec::new();
        };
        match &slot.current {
            Some(current) if current.revision < record.revision => {
                let tenant = Tenant::new(&record.id, Some(record), Some(current), now_us);
                slot.replace(tenant)
            }
            Some(_) => Vec::new(),
            None => {
                let known = slot.announced.as_ref().map(|known| known.revision);
                if known.is_none_or(|known| known < record.revision) {
                    slot.announced = Some(record.clone());
                    slot.is_closed = false;
                }
                Vec::new()
            }
        }
    }

    /// Makes what was just read (perhaps no row) the current one, also where it is older: the database
    /// has no other. `before` is the live revision before the reading; if it has changed since,
    /// something newer was written. The keys whose views have to be built again.
    #[must_use]
    pub fn restore(
        &self,
        id: &TenantId,
        record: Option<&TenantRecord>,
        before: Option<i64>,
        now_us: u64,
    ) -> Vec<KeyId> {
        {
            let mut all = self.0.lock();
            let Some(slot) = all.get_mut(id) else {
                return Vec::new();
            };
            let current = slot.current.as_ref();
            if let Some(current) = current.filter(|current| Some(current.revision) == before) {
                let tenant = Tenant::new(id, record, Some(current), now_us);
                return slot.replace(tenant);
            }
        }
        record.map_or_else(Vec::new, |record| self.apply(record, now_us))
    }

    /// Lets no key of a tenant act until a newer record of it is read. `before` is the same as for
    /// [`LiveTenants::restore`]. The keys whose views have to be built again.
    #[must_use]
    pub fn close(&self, id: &TenantId, before: Option<i64>) -> Vec<KeyId> {
        let mut all = self.0.lock();
        let Some(slot) = all.get_mut(id) else {
            return Vec::new();
        };
        let Some(current) = &slot.current else {
            slot.is_closed = true;
            return Vec::new();
        };
        if before.is_none_or(|before| before == current.revision) {
            let closed = current.closed();
            return slot.replace(closed);
        }
        Vec::new()
    }

    /// Whether the tenant is live, or being loaded.
    pub fn knows(&self, id: &TenantId) -> bool {
        self.0.lock().contains_key(id)
    }

    /// The revision of a live tenant's record.
    pub fn revision(&self, id: &TenantId) -> Option<i64> {
        Some(self.0.lock().get(id)?.current.as_ref()?.revision)
    }

    /// All tenants that are live, or being loaded.
    pub fn ids(&self) -> Vec<TenantId> {
        self.0.lock().keys().cloned().collect()
    }

    /// Forgets tenants without live keys whose buckets are full.
    pub fn sweep(&self, now_us: u64) {
        self.0.lock().retain(|_, slot| {
            let mut buckets = slot.current.iter().flat_map(|tenant| &tenant.buckets);
            let is_idle = slot.keys.is_empty() && buckets.all(|bucket| bucket.is_full(now_us));
            slot.loads > 0 || !is_idle
        });
    }
}

impl TenantLoad<'_> {
    /// Whether the tenant is live already, and followed: its row need not be read.
    pub fn is_live(&self) -> bool {
        self.tenants.revision(&self.id).is_some()
    }

    /// Makes the tenant live with what was read (perhaps no row), or with a newer record that was
    /// announced meanwhile. The keys whose views have to be built again: somebody else may have been
    /// faster with an older one.
    #[must_use]
    pub fn finish(&self, record: Option<TenantRecord>, now_us: u64) -> Vec<KeyId> {
        let mut all = self.tenants.0.lock();
        let slot = all.entry(self.id.clone()).or_default();
        let revision = |record: &TenantRecord| record.revision;
        let newest = match (slot.announced.take(), record) {
            (Some(announced), read) if Some(announced.revision) > read.as_ref().map(revision) => {
                Some(announced)
            }
            (_, read) => read,
        };
        let Some(current) = &slot.current else {
            let tenant = Tenant::new(&self.id, newest.as_ref(), None, now_us);
            let tenant = if slot.is_closed {
                tenant.closed()
            } else {
                tenant
            };
            return slot.replace(tenant);
        };
        match newest.filter(|newest| current.revision < newest.revision) {
            Some(newest) => {
                let tenant = Tenant::new(&self.id, Some(&newest), Some(current), now_us);
                slot.replace(tenant)
            }
            None => Vec::new(),
        }
    }
}

impl Drop for TenantLoad<'_> {
    fn drop(&mut self) {
        if let Entry::Occupied(mut entry) = self.tenants.0.lock().entry(self.id.clone()) {
            let slot = entry.get_mut();
            slot.loads = slot.loads.saturating_sub(1);
            if slot.loads == 0 {
                slot.announced = None;
                slot.is_closed = false;
                if slot.current.is_none() {
                    entry.remove();
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
