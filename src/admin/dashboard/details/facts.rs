//! A key in words.

use serde_json::Value;

use super::scopes::{Grant, grants};
use crate::admin::dashboard::chart::text::count;
use crate::admin::dashboard::moment::{Moment, SOON};
use crate::admin::dashboard::words;
use crate::admin::deployment::Deployment;
use crate::admin::operations::Uses;
use crate::clock::Timestamp;
use crate::key::record::{CredentialKind, KeyOrigin, Status};
use crate::key::tenant::TenantStanding;
use crate::key::{Environment, KeyRecord, Policy, TenantRecord};
use crate::usage::{Counts, LastUse};

/// When something was used, and from where.
#[derive(Debug)]
pub struct LastUsed {
    pub at: Moment,
    pub address: String,
}

impl From<LastUse> for LastUsed {
    fn from(last: LastUse) -> Self {
        LastUsed {
            at: last.at.into(),
            address: last.address.to_string(),
        }
    }
}

/// A rate limit.
#[derive(Debug)]
pub struct Limit {
    pub name: String,
    pub words: String,
}

fn limits<'a>(policies: impl Iterator<Item = &'a Policy>) -> Vec<Limit> {
    let limit = |policy: &Policy| Limit {
        name: policy.name.clone(),
        words: words::limit(policy),
    };
    policies.map(limit).collect()
}

/// A moment that something is due at.
#[derive(Debug)]
pub struct Due {
    pub at: Moment,
    pub is_over: bool,
    pub is_soon: bool,
}

impl Due {
    fn at(at: Timestamp, now: Timestamp) -> Self {
        let is_over = at <= now;
        Due {
            at: at.into(),
            is_over,
            is_soon: !is_over && at <= now.plus(SOON),
        }
    }
}

/// Something that somebody noted of the key.
#[derive(Debug, PartialEq, Eq)]
pub struct Noted {
    pub name: String,
    pub value: String,
}

/// Everything that is known of a key, as its page tells it.
#[derive(Debug)]
pub struct Facts {
    pub id: String,
    pub name: String,
    pub hint: String,
    pub environment: &'static str,
    pub is_live: bool,
    pub tenant_id: String,
    pub tenant_name: Option<String>,
    pub is_suspended: bool,
    pub status: &'static str,
    pub tone: &'static str,
    pub reason: &'static str,
    pub credential: &'static str,
    pub grants: Vec<Grant>,
    pub has_own_limits: bool,
    pub limits: Vec<Limit>,
    pub tenant_limits: Vec<Limit>,
    pub allowed: Vec<String>,
    pub contact: Option<String>,
    pub rotation: String,
    pub rotation_due: Due,
    pub metadata: Vec<Noted>,
    pub created: Moment,
    pub updated: Moment,
    /// When its secret was made, where that is not when the key was.
    pub secret_made: Option<Moment>,
    pub expires: Option<Due>,
    pub revoked: Option<Moment>,
    pub last_used: Option<LastUsed>,
    pub requests: String,
}

impl Facts {
    pub fn of(
        deployment: &Deployment,
        key: &KeyRecord,
        tenant: Option<&TenantRecord>,
        uses: &Uses,
        total: &Counts,
        now: Timestamp,
    ) -> Self {
        let status = key.status(now);
        let is_suspended =
            tenant.is_some_and(|tenant| tenant.standing == TenantStanding::Suspended);
        let defaults = || limits(deployment.default_limits.iter().map(|policy| &**policy));
        let own = key.rate_limits.as_ref().map(|own| limits(own.iter()));
        let settings = tenant.map(|tenant| &tenant.settings);
        let is_renewed = key.secret_created_at != key.created_at;
        Facts {
            id: key.id.to_string(),
            name: key.name.clone(),
            hint: key.hint.clone(),
            environment: key.environment.as_str(),
            is_live: key.environment == Environment::Live,
            tenant_id: key.tenant_id.to_string(),
            tenant_name: settings.and_then(|settings| settings.display_name.clone()),
            is_suspended,
            status: status.as_str(),
            tone: tone(status),
            reason: reason(status, is_suspended),
            credential: credential(key),
            grants: grants(&key.scopes, &deployment.catalogue),
            has_own_limits: own.is_some(),
            limits: own.unwrap_or_else(defaults),
            tenant_limits: settings
                .map_or_else(Vec::new, |settings| limits(settings.rate_limits.iter())),
            allowed: key.allowed_ips.iter().map(ToString::to_string).collect(),
            contact: key.contact_email.clone(),
            rotation: words::days(key.rotation_days),
            rotation_due: Due::at(key.rotation_due_at(), now),
            metadata: key
                .metadata
                .iter()
                .map(|(name, value)| noted(name, value))
                .collect(),
            created: key.created_at.into(),
            updated: key.updated_at.into(),
            secret_made: is_renewed.then(|| key.secret_created_at.into()),
            expires: key.expires_at.map(|at| Due::at(at, now)),
            revoked: key.revoked_at.map(Moment::from),
            last_used: uses.latest(key.id).map(LastUsed::from),
            requests: count(total.requests),
        }
    }

    /// Whether its time matters still.
    pub fn is_over(&self) -> bool {
        self.revoked.is_some()
    }
}

fn tone(status: Status) -> &'static str {
    match status {
        Status::Active => "ok",
        Status::Disabled | Status::Expired => "warn",
        Status::Revoked => "bad",
    }
}

/// What its status means for whoever uses it.
fn reason(status: Status, is_suspended: bool) -> &'static str {
    match status {
        Status::Revoked => "It was revoked and stays so: its requests are refused for good.",
        Status::Disabled => "It was disabled: its requests are refused until it is enabled again.",
        Status::Expired => {
            "Its time is over: its requests are refused. A later expiry makes it work again."
        }
        Status::Active if is_suspended => {
            "Its tenant is suspended: requests with any of the tenant’s keys are refused."
        }
        Status::Active => "Requests with this key are let through, within its scopes and limits.",
    }
}

fn credential(key: &KeyRecord) -> &'static str {
    match (key.credential, key.origin) {
        (CredentialKind::Basic, _) => "User and password, imported",
        (CredentialKind::Key, _) if key.is_imported(key.generation) => "Text, imported",
        (CredentialKind::Key, KeyOrigin::Imported) => {
            "Text, made by Sidekey; the key’s first secret was imported"
        }
        (CredentialKind::Key, KeyOrigin::Minted) => "Text, made by Sidekey",
    }
}

fn noted(name: &str, value: &Value) -> Noted {
    Noted {
        name: name.to_owned(),
        value: match value {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        },
    }
}
