//! What follows from a key's record, computed once when the record changes: rights, scopes as bits,
//! header strings, buckets. What many keys have in common (tenant, grants, policies) stands in
//! memory once.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::{Arc, Weak};

use http::HeaderValue;
use ipnet::IpNet;
use parking_lot::Mutex;

use super::tenant::{LiveTenants, Tenant};
use crate::clock::Timestamp;
use crate::key::record::Standing;
use crate::key::{
    Authority, Catalogue, Denial, Generation, KeyId, KeyRecord, Policy, ScopePattern, ScopeSet,
};
use crate::limit::redis::SharedBuckets;
use crate::limit::{Bucket, Buckets, LimitFields};
use crate::usage::LastUseSlot;

/// The record of a live key, as far as requests need it, and what follows from it.
#[derive(Debug)]
pub struct KeyView {
    pub id: KeyId,
    pub authority: Authority,
    /// Empty: any address.
    pub allowed_ips: Box<[IpNet]>,
    /// As it is now: where it changes, this view is built again.
    pub tenant: Arc<Tenant>,
    /// Beside what decides on every request, so that nothing else has to be looked at.
    is_suspended: bool,
    pub grants: Arc<Grants>,
    /// What the key is held to: by itself, and by its tenant.
    pub plan: Arc<Plan>,
    /// In the order of the plan's policies: first the key's own.
    pub buckets: Buckets,
    /// Where limits are shared by instances.
    pub shared: Option<Arc<SharedBuckets>>,
    /// Where the last use of the previous secret is noted, if there is one.
    pub previous_use: Option<Arc<LastUseSlot>>,
    /// When the current secret should be replaced.
    pub rotation_due: Hour,
    /// That of the record: a higher one is newer.
    pub revision: i64,
}

impl KeyView {
    /// Whether a caller at `client` who has proven the secret of `generation` may act at `now`. In
    /// this order, so that only the owner of a right secret learns anything about the key.
    pub fn admits(
        &self,
        generation: Generation,
        client: IpAddr,
        now: Timestamp,
    ) -> Result<(), Denial> {
        self.authority.check(generation, now)?;
        if self.is_suspended {
            return Err(Denial::Suspended);
        }
        let allowed = &self.allowed_ips;
        if allowed.is_empty() || allowed.iter().any(|net| net.contains(&client)) {
            Ok(())
        } else {
            Err(Denial::Address)
        }
    }
}

impl KeyView {
    /// The buckets that no other key has.
    pub fn own_buckets(&self) -> &[Arc<Bucket>] {
        &self.buckets[..own(&self.plan).policies.len().min(self.buckets.len())]
    }

    /// The same, but nobody is admitted. A newer record is still a newer one.
    pub fn closed(&self) -> Self {
        KeyView {
            id: self.id,
            authority: Authority {
                standing: Standing::Revoked,
                ..self.authority
            },
            allowed_ips: self.allowed_ips.clone(),
            tenant: self.tenant.clone(),
            is_suspended: self.is_suspended,
            grants: self.grants.clone(),
            plan: self.plan.clone(),
            buckets: self.buckets.iter().cloned().collect(),
            shared: self.shared.clone(),
            previous_use: self.previous_use.clone(),
            rotation_due: self.rotation_due,
            revision: self.revision,
        }
    }
}

/// An hour, in as many bytes as the other fields of a view leave free: with one more, each live key
/// would take the allocator's next size. It ends in the year 3883.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hour([u8; 3]);

impl Hour {
    const MS: i64 = 3_600_000;
    const LAST: i64 = (1 << 24) - 1;

    /// The one that `moment` is in.
    pub fn of(moment: Timestamp) -> Self {
        let number = moment.as_millis().div_euclid(Self::MS).clamp(0, Self::LAST);
        let [low, middle, high, ..] = number.to_le_bytes();
        Hour([low, middle, high])
    }

    /// When it begins.
    pub fn begins_at(self) -> Timestamp {
        let [low, middle, high] = self.0;
        let number = i64::from(u32::from_le_bytes([low, middle, high, 0]));
        Timestamp::from_millis(number * Self::MS)
    }
}

/// What keys are granted.
#[derive(Debug)]
pub struct Grants {
    pub patterns: Vec<ScopePattern>,
    /// What they cover in the catalogue.
    pub granted: ScopeSet,
    /// `X-Sidekey-Scopes`: separated by spaces, as in RFC 6749.
    pub field: HeaderValue,
}

/// What keys are limited to.
#[derive(Debug)]
pub struct Plan {
    policies: Vec<Arc<Policy>>,
    /// `None` where there is no limit.
    pub fields: Option<LimitFields>,
    /// The key's own part, where the tenant adds to it.
    own: Option<Arc<Plan>>,
}

impl Plan {
    pub fn new(policies: Vec<Arc<Policy>>) -> Self {
        Plan {
            fields: LimitFields::new(&policies),
            policies,
            own: None,
        }
    }

    /// `own`, and behind it what a tenant is held to.
    fn joint(own: &Arc<Plan>, common: &[Arc<Policy>]) -> Self {
        Plan {
            own: Some(own.clone()),
            ..Plan::new([&own.policies, common].concat())
        }
    }

    pub fn policies(&self) -> &[Arc<Policy>] {
        &self.policies
    }
}

/// The key's own part of a plan.
fn own(plan: &Arc<Plan>) -> &Arc<Plan> {
    plan.own.as_ref().unwrap_or(plan)
}

/// A field's value from a text that is plain ASCII by its type.
pub(super) fn field(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).unwrap_or(HeaderValue::from_static(""))
}

/// Values that are made once and shared for as long as somebody uses them.
struct Shared<K, V>(Mutex<HashMap<K, Weak<V>>>);

impl<K: Eq + Hash + Clone, V> Shared<K, V> {
    fn new() -> Self {
        Shared(Mutex::new(HashMap::new()))
    }

    fn get(&self, key: &K, make: impl FnOnce() -> V) -> Arc<V> {
        let mut known = self.0.lock();
        if let Some(value) = known.get(key).and_then(Weak::upgrade) {
            return value;
        }
        let value = Arc::new(make());
        known.insert(key.clone(), Arc::downgrade(&value));
        value
    }

    fn sweep(&self) {
        self.0.lock().retain(|_, value| value.strong_count() > 0);
    }
}

/// Makes views of records.
pub struct ViewBuilder {
    catalogue: Catalogue,
    default_plan: Arc<Plan>,
    are_limits_shared: bool,
    tenants: LiveTenants,
    grants: Shared<Vec<ScopePattern>, Grants>,
    plans: Shared<Vec<Policy>, Plan>,
    /// Those of a key and of its tenant.
    joint_plans: Shared<[Vec<Arc<Policy>>; 2], Plan>,
}

/// What of a view does not depend on the tenant.
struct Own {
    id: KeyId,
    authority: Authority,
    allowed_ips: Box<[IpNet]>,
    grants: Arc<Grants>,
    plan: Arc<Plan>,
    rotation_due: Hour,
    revision: i64,
}

impl ViewBuilder {
    pub fn new(catalogue: Catalogue, default_policies: Vec<Arc<Policy>>) -> Self {
        ViewBuilder {
            catalogue,
            default_plan: Arc::new(Plan::new(default_policies)),
            are_limits_shared: false,
            tenants: LiveTenants::default(),
            grants: Shared::new(),
            plans: Shared::new(),
            joint_plans: Shared::new(),
        }
    }

    /// The same for limits that instances share.
    pub fn with_shared_limits(mut self, are_shared: bool) -> Self {
        self.are_limits_shared = are_shared;
        self
    }

    /// The tenants that views are of.
    pub fn tenants(&self) -> &LiveTenants {
        &self.tenants
    }

    /// The view of `record`, which takes over what its buckets in `old` hold. To be called under the
    /// lock of the key's shard: the tenant may change at the same time.
    pub fn build(&self, record: &KeyRecord, old: Option<&KeyView>, now_us: u64) -> KeyView {
        let tenant = self.tenants.join(&record.tenant_id, record.id, now_us);
        let grants = self.grants.get(&record.scopes, || {
            let names: Vec<&str> = record.scopes.iter().map(ScopePattern::as_str).collect();
            Grants {
                patterns: record.scopes.clone(),
                granted: self.catalogue.granted(&record.scopes),
                field: field(&names.join(" ")),
            }
        });
        let plan = match &record.rate_limits {
            None => self.default_plan.clone(),
            Some(own) => self.plans.get(own, || {
                Plan::new(own.iter().cloned().map(Arc::new).collect())
            }),
        };
        let own = Own {
            id: record.id,
            authority: record.authority(),
            allowed_ips: record.allowed_ips.clone().into(),
            grants,
            plan,
            rotation_due: Hour::of(record.rotation_due_at()),
            revision: record.revision,
        };
        self.complete(own, tenant, old, now_us)
    }

    /// `view` again, with its tenant as it is now. To be called under the lock of the key's shard.
    pub fn rebuild(&self, view: &KeyView, now_us: u64) -> KeyView {
        let own = Own {
            id: view.id,
            authority: view.authority,
            allowed_ips: view.allowed_ips.clone(),
            grants: view.grants.clone(),
            plan: own(&view.plan).clone(),
            rotation_due: view.rotation_due,
            revision: view.revision,
        };
        let tenant = self.tenants.join(&view.tenant.id, view.id, now_us);
        self.complete(own, tenant, Some(view), now_us)
    }

    fn complete(
        &self,
        own: Own,
        tenant: Arc<Tenant>,
        old: Option<&KeyView>,
        now_us: u64,
    ) -> KeyView {
        let plan = self.joint_plan(&own.plan, &tenant);
        let held = old.map_or(&[][..], KeyView::own_buckets);
        let buckets = (own.plan.policies.iter())
            .map(|policy| Bucket::carry_over(policy, held, now_us))
            .chain(tenant.buckets.iter().cloned())
            .collect();
        KeyView {
            id: own.id,
            authority: own.authority,
            previous_use: previous_use(&own.authority, old),
            allowed_ips: own.allowed_ips,
            is_suspended: tenant.is_suspended,
            shared: (self.are_limits_shared).then(|| shared(own.id, &tenant, &plan, old)),
            tenant,
            grants: own.grants,
            plan,
            buckets,
            rotation_due: own.rotation_due,
            revision: own.revision,
        }
    }

    fn joint_plan(&self, own: &Arc<Plan>, tenant: &Tenant) -> Arc<Plan> {
        if tenant.policies.is_empty() {
            return own.clone();
        }
        let both = [own.policies.clone(), tenant.policies.clone()];
        let make = || Plan::joint(own, &tenant.policies);
        self.joint_plans.get(&both, make)
    }

    /// Forgets what nobody uses any more.
    pub fn sweep(&self, now_us: u64) {
        self.tenants.sweep(now_us);
        self.grants.sweep();
        self.plans.sweep();
        self.joint_plans.sweep();
    }
}

/// The shared buckets of `plan`: the old ones, with their lease, where nothing has changed.
fn shared(key: KeyId, tenant: &Tenant, plan: &Plan, old: Option<&KeyView>) -> Arc<SharedBuckets> {
    let before = old
        .filter(|old| old.plan.policies == plan.policies)
        .and_then(|old| old.shared.clone());
    before.unwrap_or_else(|| {
        let own = plan.policies.len() - tenant.policies.len();
        let (own, common) = plan.policies.split_at(own);
        Arc::new(SharedBuckets::new(&tenant.id, key, own, common))
    })
}

/// The place for the last use of the previous secret: the old one where it is the same secret.
fn previous_use(authority: &Authority, old: Option<&KeyView>) -> Option<Arc<LastUseSlot>> {
    let previous = authority.previous?;
    let before = old
        .filter(|old| {
            let known = old.authority.previous;
            known.is_some_and(|known| known.generation == previous.generation)
        })
        .and_then(|old| old.previous_use.clone());
    Some(before.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_hour_is_the_one_of_its_moment() {
        for (ms, begins) in [
            (0, 0),
            (3_599_999, 0),
            (3_600_000, 3_600_000),
            // 2026-11-26T06:59:59.999Z
            (1_795_676_399_999, 1_795_672_800_000),
            (-1, 0),
            (i64::MAX, Hour::LAST * Hour::MS),
        ] {
            let hour = Hour::of(Timestamp::from_millis(ms));
            assert_eq!(hour.begins_at(), Timestamp::from_millis(begins), "{ms}");
        }
    }
}
