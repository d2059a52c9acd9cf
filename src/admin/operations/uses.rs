//! When the secrets of keys were last used.

use std::collections::HashMap;

use crate::admin::AdminState;
use crate::admin::answer::{ApiError, ApiKey, key_json};
use crate::clock::Timestamp;
use crate::key::{Generation, KeyId, KeyRecord};
use crate::manage::KeyError;
use crate::usage::{KeyUse, LastUse};

/// When the secrets of some keys were last used.
#[derive(Debug, Default)]
pub struct Uses(HashMap<KeyId, Vec<(Generation, LastUse)>>);

impl Uses {
    /// Reads those of `records`.
    pub async fn of(state: &AdminState, records: &[KeyRecord]) -> Result<Self, ApiError> {
        let ids: Vec<KeyId> = records.iter().map(|record| record.id).collect();
        let known = state.usage.last_uses(&ids).await.map_err(KeyError::from)?;
        Ok(Self::from(known))
    }

    /// The last use of any secret of `key`.
    pub fn latest(&self, key: KeyId) -> Option<LastUse> {
        let uses = self.of_key(key).iter().map(|(_, last)| *last);
        uses.reduce(LastUse::later)
    }

    /// The last use of the secret of `record` that was replaced.
    pub fn of_previous(&self, record: &KeyRecord) -> Option<LastUse> {
        let previous = record.previous?;
        let mut uses = self.of_key(record.id).iter();
        let found = uses.find(|(generation, _)| *generation == previous.generation);
        found.map(|(_, last)| *last)
    }

    /// `record` as the contract shows it, with its last uses.
    pub fn key_json(&self, record: &KeyRecord, now: Timestamp) -> ApiKey {
        key_json(record, now).with_uses(self.latest(record.id), self.of_previous(record))
    }

    fn of_key(&self, key: KeyId) -> &[(Generation, LastUse)] {
        self.0.get(&key).map_or(&[], Vec::as_slice)
    }
}

impl From<Vec<KeyUse>> for Uses {
    fn from(known: Vec<KeyUse>) -> Self {
        let mut uses = Uses::default();
        for one in known {
            let of_key = uses.0.entry(one.key_id).or_default();
            of_key.push((one.generation, one.last));
        }
        uses
    }
}

/// Forgets what is not shown any more of a key whose secret of `generation` was replaced. Nothing
/// depends on it but the length of what is read: if it fails, the next time does it.
pub(super) async fn forget_old_uses(state: &AdminState, key: KeyId, generation: Generation) {
    if let Err(error) = state.usage.forget_uses(key, generation).await {
        tracing::warn!(%error, key_id = %key, "old uses of a key can't be forgotten");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::record::{PreviousSecret, Standing, tests::record};
    use serde_json::{Value, json};

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    #[test]
    fn last_uses_are_shown_with_the_key() {
        let mut key = record();
        key.generation = Generation(7);
        key.previous = Some(PreviousSecret {
            generation: Generation(5),
            valid_until: at(100),
        });
        let used = |generation, millis, address: &str| KeyUse {
            key_id: key.id,
            generation: Generation(generation),
            last: LastUse {
                at: at(millis),
                address: address.parse().unwrap(),
            },
        };
        let uses = Uses::from(vec![
            used(3, 1, "192.0.2.3"),
            used(5, 9_000, "2001:db8::5"),
            used(7, 8_000, "192.0.2.7"),
        ]);
        let shown = json!(uses.key_json(&key, at(99)));
        assert_eq!(shown["last_used_at"], "1970-01-01T00:00:09Z");
        assert_eq!(shown["last_used_ip"], "2001:db8::5");
        assert_eq!(
            shown["previous_secret"],
            json!({
                "valid_until": at(100),
                "last_used_at": "1970-01-01T00:00:09Z",
                "last_used_ip": "2001:db8::5",
            })
        );
        let over = json!(uses.key_json(&key, at(100)));
        assert_eq!(over["previous_secret"], Value::Null);
        let unused = json!(Uses::default().key_json(&key, at(99)));
        assert_eq!(unused["last_used_at"], Value::Null);
        assert_eq!(
            unused["previous_secret"],
            json!({"valid_until": at(100), "last_used_at": null, "last_used_ip": null})
        );
        key.standing = Standing::Revoked;
        let revoked = json!(uses.key_json(&key, at(99)));
        assert_eq!(revoked["previous_secret"], Value::Null);
        assert_eq!(revoked["last_used_ip"], "2001:db8::5");
    }
}
