//! The live record of a key: everything that decides whether it may act now.

use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;

use super::{Environment, KeyId, Policy, ScopePattern, TenantId};
use crate::clock::Timestamp;

/// How long a secret may live before its owner is reminded, where the key doesn't say.
pub const ROTATION_DAYS_DEFAULT: u32 = 90;

const DAY_MS: i64 = 86_400_000;

/// How many days are left at `now` until `end`, begun ones included; 0 on the day that begins with it, and
/// less than 0 from a day after it on.
pub fn days_left(end: Timestamp, now: Timestamp) -> i64 {
    let left_ms = end.as_millis() - now.as_millis();
    -(-left_ms).div_euclid(DAY_MS)
}

/// Reads a CIDR, or an address as a CIDR of one.
pub fn parse_net(text: &str) -> Option<IpNet> {
    let net = text.parse::<IpNet>().ok();
    net.or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from))
}

/// Which of a key's secrets: each regeneration has a higher one. None is used twice, so that whoever
/// removes one late removes no other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Generation(pub i64);

impl Generation {
    /// The generation of a new key.
    pub const FIRST: Generation = Generation(1);

    /// One that no earlier secret of the key has had: the time tells it from those of which nothing
    /// is left.
    pub fn new_after(self, now: Timestamp) -> Self {
        self.next().max(Generation(now.as_millis()))
    }

    /// The one after this.
    pub fn next(self) -> Self {
        Generation(self.0 + 1)
    }
}

/// What an administrator has decided about a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    Active,
    Disabled,
    /// For good.
    Revoked,
}

impl Standing {
    /// The name in the store.
    pub fn as_str(self) -> &'static str {
        match self {
            Standing::Active => "active",
            Standing::Disabled => "disabled",
            Standing::Revoked => "revoked",
        }
    }

    /// The standing of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        [Standing::Active, Standing::Disabled, Standing::Revoked]
            .into_iter()
            .find(|standing| standing.as_str() == name)
    }
}

/// What a key is at a given moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    Active,
    Disabled,
    Expired,
    Revoked,
}

impl Status {
    pub const ALL: [Status; 4] = [
        Status::Active,
        Status::Disabled,
        Status::Expired,
        Status::Revoked,
    ];

    /// The name in answers.
    pub fn as_str(self) -> &'static str {
        match self {
            Status::Active => "active",
            Status::Disabled => "disabled",
            Status::Expired => "expired",
            Status::Revoked => "revoked",
        }
    }

    /// The status of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.as_str() == name)
    }
}

/// Where a key comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyOrigin {
    /// Sidekey made it.
    Minted,
    /// It was there before, and was brought along.
    Imported,
}

impl KeyOrigin {
    /// The name in the store and in answers.
    pub fn as_str(self) -> &'static str {
        match self {
            KeyOrigin::Minted => "minted",
            KeyOrigin::Imported => "imported",
        }
    }

    /// The origin of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        [KeyOrigin::Minted, KeyOrigin::Imported]
            .into_iter()
            .find(|origin| origin.as_str() == name)
    }
}

/// How a key's current secret is presented.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CredentialKind {
    /// A text, as a bearer token for example.
    Key,
    /// User and password, as HTTP Basic.
    Basic,
}

impl CredentialKind {
    /// The name in the store and in answers.
    pub fn as_str(self) -> &'static str {
        match self {
            CredentialKind::Key => "key",
            CredentialKind::Basic => "basic",
        }
    }

    /// The kind of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        [CredentialKind::Key, CredentialKind::Basic]
            .into_iter()
            .find(|kind| kind.as_str() == name)
    }
}

/// A secret that was replaced and still works for a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PreviousSecret {
    pub generation: Generation,
    pub valid_until: Timestamp,
}

/// Why a key with the right secret may not act now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Denial {
    Revoked,
    /// The secret was replaced, and its grace period is over.
    Superseded,
    Disabled,
    Expired,
    /// All keys of its tenant are suspended.
    Suspended,
    /// The caller's address is not one of those that the key is limited to.
    Address,
}

/// A key as the store keeps it. Holds neither a secret nor a hash.
#[derive(Debug, Clone, PartialEq)]
pub struct KeyRecord {
    pub id: KeyId,
    pub tenant_id: TenantId,
    pub name: String,
    pub environment: Environment,
    pub origin: KeyOrigin,
    pub credential: CredentialKind,
    /// `sk_live_4fzN8cQ2pLrT_...a1B2`
    pub hint: String,
    pub scopes: Vec<ScopePattern>,
    /// `None`: the deployment's defaults. Empty: no limit.
    pub rate_limits: Option<Vec<Policy>>,
    /// Empty: any address.
    pub allowed_ips: Vec<IpNet>,
    pub contact_email: Option<String>,
    pub rotation_days: u32,
    pub metadata: serde_json::Map<String, serde_json::Value>,
    pub standing: Standing,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
    pub expires_at: Option<Timestamp>,
    pub revoked_at: Option<Timestamp>,
    /// When the current secret was made.
    pub secret_created_at: Timestamp,
    pub generation: Generation,
    pub previous: Option<PreviousSecret>,
    /// Counts the writes to this record: a higher one is newer.
    pub revision: i64,
}

/// The part of a record that decides whether the key may act now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Authority {
    pub standing: Standing,
    pub expires_at: Option<Timestamp>,
    pub generation: Generation,
    pub previous: Option<PreviousSecret>,
}

impl Authority {
    /// What the key is at `now`. What is graver wins.
    pub fn status(&self, now: Timestamp) -> Status {
        match self.standing {
            Standing::Revoked => Status::Revoked,
            Standing::Disabled => Status::Disabled,
            Standing::Active if self.expires_at.is_some_and(|end| end <= now) => Status::Expired,
            Standing::Active => Status::Active,
        }
    }

    /// Whether a caller that has proven the secret of `generation` may act at `now`.
    pub fn check(&self, generation: Generation, now: Timestamp) -> Result<(), Denial> {
        let status = self.status(now);
        if status == Status::Revoked {
            return Err(Denial::Revoked);
        }
        if !self.accepts(generation, now) {
            return Err(Denial::Superseded);
        }
        match status {
            Status::Active => Ok(()),
            Status::Disabled => Err(Denial::Disabled),
            Status::Expired => Err(Denial::Expired),
            Status::Revoked => Err(Denial::Revoked),
        }
    }

    /// Whether the secret of `generation` is the key's current one, or in its grace period.
    pub fn accepts(&self, generation: Generation, now: Timestamp) -> bool {
        generation == self.generation
            || self
                .previous
                .is_some_and(|old| old.generation == generation && now < old.valid_until)
    }
}

impl KeyRecord {
    /// What decides whether the key may act.
    pub fn authority(&self) -> Authority {
        Authority {
            standing: self.standing,
            expires_at: self.expires_at,
            generation: self.generation,
            previous: self.previous,
        }
    }

    /// Whether the secret of `generation` was imported. The first one of an imported key was; those
    /// that replace it are minted.
    pub fn is_imported(&self, generation: Generation) -> bool {
        self.origin == KeyOrigin::Imported && generation == Generation::FIRST
    }

    /// What the key is at `now`.
    pub fn status(&self, now: Timestamp) -> Status {
        self.authority().status(now)
    }

    /// When the owner should have replaced the secret.
    pub fn rotation_due_at(&self) -> Timestamp {
        self.secret_created_at
            .plus(Duration::from_secs(u64::from(self.rotation_days) * 86_400))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn record() -> KeyRecord {
        KeyRecord {
            id: "4fzN8cQ2pLrT".parse().unwrap(),
            tenant_id: "acme".parse().unwrap(),
            name: "test".to_owned(),
            environment: Environment::Live,
            origin: KeyOrigin::Minted,
            credential: CredentialKind::Key,
            hint: "sk_live_4fzN8cQ2pLrT_...a1B2".to_owned(),
            scopes: vec!["orders:*".parse().unwrap()],
            rate_limits: None,
            allowed_ips: vec![],
            contact_email: None,
            rotation_days: ROTATION_DAYS_DEFAULT,
            metadata: serde_json::Map::new(),
            standing: Standing::Active,
            created_at: Timestamp::from_millis(1000),
            updated_at: Timestamp::from_millis(1000),
            expires_at: None,
            revoked_at: None,
            secret_created_at: Timestamp::from_millis(1000),
            generation: Generation::FIRST,
            previous: None,
            revision: 1,
        }
    }

    #[test]
    fn days_are_counted_as_people_do() {
        let end = Timestamp::from_millis(90 * DAY_MS);
        for (more_ms, left) in [
            (-14 * DAY_MS, 14),
            (-14 * DAY_MS + 60_000, 14),
            (-DAY_MS - 1, 2),
            (-DAY_MS, 1),
            (-1, 1),
            (0, 0),
            (DAY_MS - 1, 0),
            (DAY_MS, -1),
        ] {
            let now = Timestamp::from_millis(end.as_millis() + more_ms);
            assert_eq!(days_left(end, now), left, "{more_ms}");
        }
    }

    #[test]
    fn what_is_graver_wins() {
        let (before, at) = (Timestamp::from_millis(4999), Timestamp::from_millis(5000));
        let mut key = record();
        key.expires_at = Some(at);
        assert_eq!(key.status(before), Status::Active);
        assert_eq!(key.status(at), Status::Expired);
        key.standing = Standing::Disabled;
        assert_eq!(key.status(at), Status::Disabled);
        key.standing = Standing::Revoked;
        assert_eq!(key.status(before), Status::Revoked);
    }

    #[test]
    fn authority_follows_status_and_generation() {
        let now = Timestamp::from_millis(5000);
        let mut key = record();
        assert_eq!(key.authority().check(Generation(1), now), Ok(()));
        assert_eq!(
            key.authority().check(Generation(2), now),
            Err(Denial::Superseded)
        );
        key.standing = Standing::Disabled;
        assert_eq!(
            key.authority().check(Generation(1), now),
            Err(Denial::Disabled)
        );
        // Whoever holds an old secret learns nothing about the key.
        assert_eq!(
            key.authority().check(Generation(0), now),
            Err(Denial::Superseded)
        );
        key.standing = Standing::Revoked;
        assert_eq!(
            key.authority().check(Generation(1), now),
            Err(Denial::Revoked)
        );
    }

    #[test]
    fn an_old_secret_works_until_its_grace_period_ends() {
        let mut key = record();
        key.generation = Generation(2);
        key.previous = Some(PreviousSecret {
            generation: Generation(1),
            valid_until: Timestamp::from_millis(5000),
        });
        assert_eq!(
            key.authority()
                .check(Generation(1), Timestamp::from_millis(4999)),
            Ok(())
        );
        assert_eq!(
            key.authority()
                .check(Generation(1), Timestamp::from_millis(5000)),
            Err(Denial::Superseded)
        );
        assert_eq!(
            key.authority()
                .check(Generation(2), Timestamp::from_millis(5000)),
            Ok(())
        );
    }

    #[test]
    fn a_generation_is_higher_than_those_before_and_not_used_twice() {
        let now = Timestamp::from_millis(5000);
        assert_eq!(Generation::FIRST.new_after(now), Generation(5000));
        // Where the clock went back, or two are made at once.
        assert_eq!(Generation(5000).new_after(now), Generation(5001));
    }
}
