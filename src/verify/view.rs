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

use crate::clock::Timestamp;
use crate::key::record::Standing;
use crate::key::{
    Authority, Catalogue, Denial, Generation, KeyId, KeyRecord, Policy, ScopePattern, ScopeSet,
    TenantId,
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
    pub tenant: Arc<Tenant>,
    pub grants: Arc<Grants>,
    pub plan: Arc<Plan>,
    /// In the order of the plan's policies.
    pub buckets: Buckets,
    /// Where limits are shared by instances.
    pub shared: Option<Arc<SharedBuckets>>,
    /// `X-Sidekey-Key-Id`
    pub id_field: HeaderValue,
    /// Where the last use of the previous secret is noted, if there is one.
    pub previous_use: Option<Arc<LastUseSlot>>,
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
        let allowed = &self.allowed_ips;
        if allowed.is_empty() || allowed.iter().any(|net| net.contains(&client)) {
            Ok(())
        } else {
            Err(Denial::Address)
        }
    }
}

impl KeyView {
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
            grants: self.grants.clone(),
            plan: self.plan.clone(),
            buckets: self.buckets.iter().cloned().collect(),
            shared: self.shared.clone(),
            id_field: self.id_field.clone(),
            previous_use: self.previous_use.clone(),
            revision: self.revision,
        }
    }
}

/// Whom keys belong to.
#[derive(Debug)]
pub struct Tenant {
    pub id: TenantId,
    /// `X-Sidekey-Tenant-Id`
    pub field: HeaderValue,
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
}

impl Plan {
    pub fn new(policies: Vec<Arc<Policy>>) -> Self {
        Plan {
            fields: LimitFields::new(&policies),
            policies,
        }
    }
}

/// A field's value from a text that is plain ASCII by its type.
fn field(text: &str) -> HeaderValue {
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
    tenants: Shared<TenantId, Tenant>,
    grants: Shared<Vec<ScopePattern>, Grants>,
    plans: Shared<Vec<Policy>, Plan>,
}

impl ViewBuilder {
    pub fn new(catalogue: Catalogue, default_policies: Vec<Arc<Policy>>) -> Self {
        ViewBuilder {
            catalogue,
            default_plan: Arc::new(Plan::new(default_policies)),
            are_limits_shared: false,
            tenants: Shared::new(),
            grants: Shared::new(),
            plans: Shared::new(),
        }
    }

    /// The same for limits that instances share.
    pub fn with_shared_limits(mut self, are_shared: bool) -> Self {
        self.are_limits_shared = are_shared;
        self
    }

    /// The view of `record`, which takes over what its buckets in `old` hold.
    pub fn build(&self, record: &KeyRecord, old: Option<&KeyView>, now_us: u64) -> KeyView {
        let tenant = self.tenants.get(&record.tenant_id, || Tenant {
            id: record.tenant_id.clone(),
            field: field(record.tenant_id.as_str()),
        });
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
        let buckets = plan
            .policies
            .iter()
            .map(|policy| carry_over(policy, old, now_us))
            .collect();
        KeyView {
            id: record.id,
            authority: record.authority(),
            allowed_ips: record.allowed_ips.clone().into(),
            tenant,
            grants,
            shared: self.are_limits_shared.then(|| shared(record, &plan, old)),
            plan,
            buckets,
            id_field: field(record.id.as_str()),
            previous_use: previous_use(record, old),
            revision: record.revision,
        }
    }

    /// Forgets what nobody uses any more.
    pub fn sweep(&self) {
        self.tenants.sweep();
        self.grants.sweep();
        self.plans.sweep();
    }
}

/// The shared buckets of `plan`: the old ones, with their lease, where nothing has changed.
fn shared(record: &KeyRecord, plan: &Plan, old: Option<&KeyView>) -> Arc<SharedBuckets> {
    let before = old
        .filter(|old| old.plan.policies == plan.policies)
        .and_then(|old| old.shared.clone());
    before.unwrap_or_else(|| {
        let buckets = SharedBuckets::new(&record.tenant_id, record.id, &plan.policies);
        Arc::new(buckets)
    })
}

/// The place for the last use of the previous secret: the old one where it is the same secret.
fn previous_use(record: &KeyRecord, old: Option<&KeyView>) -> Option<Arc<LastUseSlot>> {
    let previous = record.previous?;
    let before = old
        .filter(|old| {
            let known = old.authority.previous;
            known.is_some_and(|known| known.generation == previous.generation)
        })
        .and_then(|old| old.previous_use.clone());
    Some(before.unwrap_or_default())
}

/// The bucket for `policy`: the old one where the policy is as it was, one with the same tokens
/// where it changed, a full one where it is new.
fn carry_over(policy: &Arc<Policy>, old: Option<&KeyView>, now_us: u64) -> Arc<Bucket> {
    let before = old
        .into_iter()
        .flat_map(|view| view.buckets.iter())
        .find(|bucket| bucket.policy().name == policy.name);
    match before {
        Some(bucket) if **bucket.policy() == **policy => bucket.clone(),
        Some(bucket) => Arc::new(Bucket::succeed(policy.clone(), bucket, now_us)),
        None => Arc::new(Bucket::new(policy.clone(), now_us)),
    }
}
