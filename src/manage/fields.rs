//! What a new key is made of, what a change changes, and what is noted of either.

use ipnet::IpNet;
use serde_json::{Map, Value, json};

use crate::audit::{Action, Note, Origin, diff};
use crate::clock::Timestamp;
use crate::key::record::{CredentialKind, KeyOrigin, Standing};
use crate::key::{Environment, Generation, KeyId, KeyRecord, Policy, ScopePattern, TenantId};

/// The revision of a new key.
pub const FIRST_REVISION: i64 = 1;

/// A key to be made. Every field is sound.
#[derive(Debug, Clone)]
pub struct NewKey {
    pub name: String,
    pub tenant_id: TenantId,
    pub environment: Environment,
    pub scopes: Vec<ScopePattern>,
    pub rate_limits: Option<Vec<Policy>>,
    pub expires_at: Option<Timestamp>,
    pub allowed_ips: Vec<IpNet>,
    pub contact_email: Option<String>,
    pub rotation_days: u32,
    pub metadata: Map<String, Value>,
}

/// A change of a key. `None` leaves a field as it is.
#[derive(Debug, Clone, Default)]
pub struct KeyChange {
    pub name: Option<String>,
    pub scopes: Option<Vec<ScopePattern>>,
    pub rate_limits: Option<Option<Vec<Policy>>>,
    pub expires_at: Option<Option<Timestamp>>,
    pub allowed_ips: Option<Vec<IpNet>>,
    pub contact_email: Option<Option<String>>,
    pub rotation_days: Option<u32>,
    pub metadata: Option<Map<String, Value>>,
    pub disabled: Option<bool>,
}

/// The first record of a key.
pub(super) fn record_of(new: NewKey, id: KeyId, hint: String, now: Timestamp) -> KeyRecord {
    KeyRecord {
        id,
        tenant_id: new.tenant_id,
        name: new.name,
        environment: new.environment,
        origin: KeyOrigin::Minted,
        credential: CredentialKind::Key,
        hint,
        scopes: new.scopes,
        rate_limits: new.rate_limits,
        allowed_ips: new.allowed_ips,
        contact_email: new.contact_email,
        rotation_days: new.rotation_days,
        metadata: new.metadata,
        standing: Standing::Active,
        created_at: now,
        updated_at: now,
        expires_at: new.expires_at,
        revoked_at: None,
        secret_created_at: now,
        generation: Generation::FIRST,
        previous: None,
        revision: FIRST_REVISION,
    }
}

pub(super) fn note_of_new(record: &KeyRecord, origin: &Origin) -> Note {
    Note {
        at: record.created_at,
        action: Action::KeyCreated,
        origin: origin.clone(),
        key_id: Some(record.id),
        tenant_id: Some(record.tenant_id.clone()),
        details: diff::of_new(record),
    }
}

pub(super) fn note_of_change(
    action: Action,
    before: &KeyRecord,
    after: &KeyRecord,
    origin: &Origin,
) -> Note {
    let mut details = diff::between(before, after);
    let [from, to] = [before, after].map(|record| record.previous.map(|old| old.valid_until));
    if from != to {
        let change = json!({"from": from, "to": to});
        details.insert("previous_secret_valid_until".to_owned(), change);
    }
    Note {
        at: after.updated_at,
        action,
        origin: origin.clone(),
        key_id: Some(after.id),
        tenant_id: Some(after.tenant_id.clone()),
        details,
    }
}

/// Makes a change of a record.
pub(super) fn apply(record: &mut KeyRecord, change: &KeyChange) {
    fn set<T: Clone>(field: &mut T, value: &Option<T>) {
        if let Some(value) = value {
            *field = value.clone();
        }
    }
    set(&mut record.name, &change.name);
    set(&mut record.scopes, &change.scopes);
    set(&mut record.rate_limits, &change.rate_limits);
    set(&mut record.expires_at, &change.expires_at);
    set(&mut record.allowed_ips, &change.allowed_ips);
    set(&mut record.contact_email, &change.contact_email);
    set(&mut record.rotation_days, &change.rotation_days);
    set(&mut record.metadata, &change.metadata);
    if let Some(disabled) = change.disabled {
        record.standing = if disabled {
            Standing::Disabled
        } else {
            Standing::Active
        };
    }
}
