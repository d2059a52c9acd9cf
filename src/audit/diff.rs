//! What a change has changed, for its note.

use serde_json::{Map, Value, json};

use crate::key::{KeyRecord, TenantRecord};

/// Something whose changes are noted.
pub trait Noted {
    /// What of it is worth a word, as the API shows it.
    fn fields(&self) -> Vec<(&'static str, Value)>;
}

impl Noted for KeyRecord {
    fn fields(&self) -> Vec<(&'static str, Value)> {
        let texts =
            |items: &mut dyn Iterator<Item = String>| Value::from(items.collect::<Vec<_>>());
        vec![
            ("name", json!(self.name)),
            ("environment", json!(self.environment.as_str())),
            ("origin", json!(self.origin.as_str())),
            ("credential", json!(self.credential.as_str())),
            ("hint", json!(self.hint)),
            (
                "scopes",
                texts(&mut self.scopes.iter().map(ToString::to_string)),
            ),
            ("rate_limits", json!(self.rate_limits)),
            (
                "allowed_ips",
                texts(&mut self.allowed_ips.iter().map(ToString::to_string)),
            ),
            ("contact_email", json!(self.contact_email)),
            ("rotation_days", json!(self.rotation_days)),
            ("metadata", json!(self.metadata)),
            ("status", json!(self.standing.as_str())),
            ("expires_at", json!(self.expires_at)),
        ]
    }
}

impl Noted for TenantRecord {
    fn fields(&self) -> Vec<(&'static str, Value)> {
        let settings = &self.settings;
        vec![
            ("display_name", json!(settings.display_name)),
            ("contact_email", json!(settings.contact_email)),
            ("rate_limits", json!(settings.rate_limits)),
            ("max_keys", json!(settings.max_keys)),
            ("status", json!(self.standing.as_str())),
        ]
    }
}

/// What a new thing is.
pub fn of_new(record: &impl Noted) -> Map<String, Value> {
    let fields = record.fields().into_iter();
    fields
        .map(|(name, value)| (name.to_owned(), json!({"to": value})))
        .collect()
}

/// What differs between two records of a thing.
pub fn between<T: Noted>(before: &T, after: &T) -> Map<String, Value> {
    let fields = before.fields().into_iter().zip(after.fields());
    fields
        .filter(|((_, from), (_, to))| from != to)
        .map(|((name, from), (_, to))| (name.to_owned(), json!({"from": from, "to": to})))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::record::tests::record;
    use crate::key::tenant::TenantStanding;
    use crate::key::tenant::tests::tenant;

    #[test]
    fn only_what_differs_is_told() {
        let before = record();
        let mut after = record();
        after.name = "other".to_owned();
        after.revision += 1;
        assert_eq!(
            Value::from(between(&before, &after)),
            json!({"name": {"from": "test", "to": "other"}})
        );
        assert!(between(&before, &before).is_empty());
    }

    #[test]
    fn so_it_is_with_tenants() {
        let before = tenant(1);
        let mut after = tenant(2);
        after.settings.max_keys = Some(3);
        after.standing = TenantStanding::Suspended;
        after.key_count += 1;
        assert_eq!(
            Value::from(between(&before, &after)),
            json!({
                "max_keys": {"from": null, "to": 3},
                "status": {"from": "active", "to": "suspended"},
            })
        );
        assert!(between(&before, &before).is_empty());
        assert_eq!(of_new(&before)["status"], json!({"to": "active"}));
    }
}
