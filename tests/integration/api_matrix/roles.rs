//! Everybody who may call, and what the contract lets them do.

use serde_json::json;

use super::rules::{ADMIN, Rule, WRITE};
use crate::harness::sidekey::Sidekey;

/// The tenant of all roles.
pub const TENANT: &str = "acme";
/// A tenant that is suspended.
const SUSPENDED: &str = "frozen";
/// Longer than any test.
const GRACE_SECONDS: u64 = 86_400;

const ALL_BUT_ADMIN: [&str; 4] = [
    "sidekey:keys:read",
    WRITE,
    "sidekey:usage:read",
    "sidekey:audit:read",
];

/// What a credential is worth.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Standing {
    Good,
    /// A secret that was replaced and is in its grace period: it reads.
    Old,
    Refused,
}

pub struct Role {
    pub name: &'static str,
    pub key: Option<String>,
    pub standing: Standing,
    /// Those of Sidekey's scopes that its grants cover.
    holds: Vec<&'static str>,
}

impl Role {
    pub fn is_admin(&self) -> bool {
        self.standing != Standing::Refused && self.holds.contains(&ADMIN)
    }

    /// The status that refuses the call whatever it is about, if one does.
    pub fn refusal(&self, rule: &Rule) -> Option<u16> {
        let is_short = !self.is_admin() && !self.holds.contains(&rule.scope);
        match self.standing {
            _ if rule.scope.is_empty() => None,
            Standing::Refused => Some(401),
            Standing::Old if rule.scope == WRITE => Some(401),
            _ if is_short => Some(403),
            Standing::Old if rule.is_change() => Some(401),
            _ => None,
        }
    }
}

/// `key` with another last character.
fn forged(key: &str) -> String {
    let (rest, last) = key.split_at(key.len() - 1);
    format!("{rest}{}", if last == "a" { "b" } else { "a" })
}

/// Keys of [`TENANT`], one for each role.
pub async fn all(sidekey: &Sidekey) -> Vec<Role> {
    let mut roles = Vec::new();
    let mut add = |name, key, standing, holds: &[&'static str]| {
        roles.push(Role {
            name,
            key,
            standing,
            holds: holds.to_vec(),
        });
    };
    for (name, grants, holds) in [
        ("admin", json!([ADMIN]), &[ADMIN][..]),
        ("all of sidekey:", json!(["sidekey:*"]), &[ADMIN]),
        ("keys:read", json!([ALL_BUT_ADMIN[0]]), &ALL_BUT_ADMIN[..1]),
        ("keys:write", json!([WRITE]), &[WRITE]),
        (
            "usage:read",
            json!([ALL_BUT_ADMIN[2]]),
            &ALL_BUT_ADMIN[2..3],
        ),
        ("audit:read", json!([ALL_BUT_ADMIN[3]]), &ALL_BUT_ADMIN[3..]),
        (
            "all of keys",
            json!(["sidekey:keys:*"]),
            &ALL_BUT_ADMIN[..2],
        ),
        ("all but admin", json!(ALL_BUT_ADMIN), &ALL_BUT_ADMIN),
        ("ordinary", json!(["orders:*"]), &[]),
        ("star", json!(["*"]), &[]),
    ] {
        let key = sidekey.create_key(json!({"scopes": grants})).await;
        add(name, Some(key.text), Standing::Good, holds);
    }
    for (name, holds) in [
        ("old secret", &ALL_BUT_ADMIN[..]),
        ("admin's old secret", &[ADMIN]),
    ] {
        let key = sidekey.create_key(json!({"scopes": holds})).await;
        sidekey.regenerate_key(&key.id, GRACE_SECONDS).await;
        add(name, Some(key.text), Standing::Old, holds);
    }
    let admin = json!({"scopes": [ADMIN]});
    let [wrong, revoked, replaced, disabled, expired] = [
        sidekey.create_key(admin.clone()).await,
        sidekey.create_key(admin.clone()).await,
        sidekey.create_key(admin.clone()).await,
        sidekey.create_key(admin.clone()).await,
        sidekey.create_key(admin).await,
    ];
    sidekey.revoke_key(&revoked.id).await;
    sidekey.regenerate_key(&replaced.id, 0).await;
    for (id, change) in [
        (&disabled.id, json!({"status": "disabled"})),
        (&expired.id, json!({"expires_at": "2001-01-01T00:00:00Z"})),
    ] {
        sidekey.change_key(id, change).await;
    }
    let suspended = json!({"scopes": [ADMIN], "tenant_id": SUSPENDED});
    let suspended = sidekey.create_key(suspended).await;
    crate::tenancy::set(sidekey, SUSPENDED, "suspend").await;
    for (name, key) in [
        ("no key", None),
        ("wrong key", Some(forged(&wrong.text))),
        ("no key at all", Some("nonsense".to_owned())),
        ("revoked", Some(revoked.text)),
        ("replaced", Some(replaced.text)),
        ("disabled", Some(disabled.text)),
        ("expired", Some(expired.text)),
        ("of a suspended tenant", Some(suspended.text)),
    ] {
        add(name, key, Standing::Refused, &[]);
    }
    roles
}
