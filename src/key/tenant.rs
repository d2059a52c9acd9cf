//! Whom keys belong to: what all keys of a tenant have in common.

use std::fmt;
use std::str::FromStr;

use super::Policy;
use crate::clock::Timestamp;

/// A tenant id has at most this many characters.
pub const TENANT_ID_LEN_MAX: usize = 64;
/// The highest cap on a tenant's keys that can be set.
pub const KEYS_MAX: u64 = 1_000_000_000;
/// What the names of a tenant's policies begin with where they stand beside those of a key, which
/// have no colon.
pub const POLICY_PREFIX: &str = "tenant:";

/// Whom a key belongs to: `^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`. It is part of paths in Vault.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TenantId(String);

/// A text that can't be a tenant id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "must be 1 to {TENANT_ID_LEN_MAX} letters, digits, '.', '_' or '-', and start with a letter or digit"
)]
pub struct TenantIdError;

impl TenantId {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for TenantId {
    type Err = TenantIdError;

    fn from_str(text: &str) -> Result<Self, TenantIdError> {
        let well_formed = text.len() <= TENANT_ID_LEN_MAX
            && text
                .bytes()
                .next()
                .is_some_and(|b| b.is_ascii_alphanumeric())
            && text
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'));
        if well_formed {
            Ok(TenantId(text.to_owned()))
        } else {
            Err(TenantIdError)
        }
    }
}

impl fmt::Display for TenantId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whether a tenant's keys may act at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TenantStanding {
    Active,
    Suspended,
}

impl TenantStanding {
    /// The name in the store and in answers.
    pub fn as_str(self) -> &'static str {
        match self {
            TenantStanding::Active => "active",
            TenantStanding::Suspended => "suspended",
        }
    }

    /// The standing of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        [TenantStanding::Active, TenantStanding::Suspended]
            .into_iter()
            .find(|standing| standing.as_str() == name)
    }
}

/// What an administrator has set for a tenant, replaced as a whole.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct TenantSettings {
    pub display_name: Option<String>,
    pub contact_email: Option<String>,
    /// What all its keys together are held to, besides each key's own. Empty: nothing.
    pub rate_limits: Vec<Policy>,
    /// How many keys it may have; `None`: as many as it likes. One that has more keeps them.
    pub max_keys: Option<u64>,
}

/// A tenant as the store keeps it.
#[derive(Debug, Clone, PartialEq)]
pub struct TenantRecord {
    pub id: TenantId,
    pub settings: TenantSettings,
    pub standing: TenantStanding,
    /// Keys that are not revoked. The store counts them.
    pub key_count: u64,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
    /// Counts the writes to this record, keys aside: a higher one is newer.
    pub revision: i64,
}

impl TenantRecord {
    /// A new tenant.
    pub fn new(id: TenantId, settings: TenantSettings, now: Timestamp) -> Self {
        TenantRecord {
            id,
            settings,
            standing: TenantStanding::Active,
            key_count: 0,
            created_at: now,
            updated_at: now,
            revision: 1,
        }
    }

    pub fn is_suspended(&self) -> bool {
        self.standing == TenantStanding::Suspended
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A tenant `acme` of that revision, without limits.
    pub(crate) fn tenant(revision: i64) -> TenantRecord {
        TenantRecord {
            revision,
            ..TenantRecord::new(
                "acme".parse().unwrap(),
                TenantSettings::default(),
                Timestamp::from_millis(1000),
            )
        }
    }

    #[test]
    fn tenant_ids_can_stand_in_a_path() {
        for text in ["a", "acme", "Acme-1.eu_west"] {
            assert!(text.parse::<TenantId>().is_ok(), "{text}");
        }
        for text in ["", ".", "..", "-a", "a/b", "a b", "ä", &"x".repeat(65)] {
            assert!(text.parse::<TenantId>().is_err(), "{text}");
        }
    }
}
