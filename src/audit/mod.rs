//! What happened: who did what to which key or tenant, when, and from where. A note of a change is
//! written in the transaction that makes the change, so that neither is there without the other.
//!
//! Must never hold a secret or a hash of one.
//!
//! `entry` says how a note is stored and hashed, `seal` and `chain` how it is known to be what was written;
//! `verify` walks through a store's chain, and `recorder` has what is noted beside an answer.

pub mod chain;
pub mod diff;
pub mod entry;
pub mod recorder;
pub mod seal;
pub mod verify;

use std::net::IpAddr;

use serde_json::{Map, Value};

use crate::clock::Timestamp;
use crate::key::{KeyId, TenantId};

/// Everything that is noted, declared once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    KeyCreated,
    KeyChanged,
    KeyRegenerated,
    /// The grace period of a replaced secret was ended before its time.
    KeyOverlapEnded,
    KeyRevoked,
    KeyImported,
    /// Somebody was reminded to replace its secret.
    KeyReminderSent,
    /// Nobody could be reminded of that, and it is not tried again.
    KeyReminderFailed,
    TenantCreated,
    TenantChanged,
    TenantSuspended,
    TenantResumed,
    AdminSignedIn,
    AdminSignedOut,
    AdminCallRefused,
}

impl Action {
    pub const ALL: [Action; 15] = [
        Action::KeyCreated,
        Action::KeyChanged,
        Action::KeyRegenerated,
        Action::KeyOverlapEnded,
        Action::KeyRevoked,
        Action::KeyImported,
        Action::KeyReminderSent,
        Action::KeyReminderFailed,
        Action::TenantCreated,
        Action::TenantChanged,
        Action::TenantSuspended,
        Action::TenantResumed,
        Action::AdminSignedIn,
        Action::AdminSignedOut,
        Action::AdminCallRefused,
    ];

    /// The name in the store and in answers.
    pub fn as_str(self) -> &'static str {
        match self {
            Action::KeyCreated => "key.created",
            Action::KeyChanged => "key.changed",
            Action::KeyRegenerated => "key.regenerated",
            Action::KeyOverlapEnded => "key.overlap_ended",
            Action::KeyRevoked => "key.revoked",
            Action::KeyImported => "key.imported",
            Action::KeyReminderSent => "key.reminder_sent",
            Action::KeyReminderFailed => "key.reminder_failed",
            Action::TenantCreated => "tenant.created",
            Action::TenantChanged => "tenant.changed",
            Action::TenantSuspended => "tenant.suspended",
            Action::TenantResumed => "tenant.resumed",
            Action::AdminSignedIn => "admin.signed_in",
            Action::AdminSignedOut => "admin.signed_out",
            Action::AdminCallRefused => "admin.call_refused",
        }
    }

    /// The action of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|action| action.as_str() == name)
    }
}

/// Who did something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Actor {
    /// Whoever held this admin key.
    Key(KeyId),
    /// Sidekey itself: the first start, housekeeping.
    System,
    /// Nobody who could be recognised.
    Unknown,
}

/// Who did something, and from where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    pub actor: Actor,
    pub address: Option<IpAddr>,
    /// That of the admin call.
    pub request_id: Option<String>,
}

impl Origin {
    /// Sidekey itself.
    pub fn system() -> Self {
        Origin {
            actor: Actor::System,
            address: None,
            request_id: None,
        }
    }
}

/// What is to be noted.
#[derive(Debug, Clone, PartialEq)]
pub struct Note {
    pub at: Timestamp,
    pub action: Action,
    pub origin: Origin,
    /// What it was done to.
    pub key_id: Option<KeyId>,
    pub tenant_id: Option<TenantId>,
    /// What else there is to say: for a change `{field: {"from": ..., "to": ...}}`.
    pub details: Map<String, Value>,
}

impl Note {
    /// What Sidekey did by itself.
    pub fn by_system(action: Action, at: Timestamp) -> Self {
        Note {
            at,
            action,
            origin: Origin::system(),
            key_id: None,
            tenant_id: None,
            details: Map::new(),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A note, for tests of what is noted.
    pub(crate) fn noted() -> Note {
        Note::by_system(Action::KeyChanged, Timestamp::from_millis(1000))
    }

    #[test]
    fn every_action_has_a_name_of_its_own() {
        for action in Action::ALL {
            assert_eq!(Action::from_name(action.as_str()), Some(action));
        }
    }
}
