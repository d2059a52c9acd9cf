//! What a change of a tenant has changed, for its note.

use serde_json::{Map, Value, json};

use crate::key::TenantRecord;

/// The fields of a tenant that are worth a word, as the API shows them.
fn fields(tenant: &TenantRecord) -> [(&'static str, Value); 5] {
    let settings = &tenant.settings;
    [
        ("display_name", json!(settings.display_name)),
        ("contact_email", json!(settings.contact_email)),
        ("rate_limits", json!(settings.rate_limits)),
        ("max_keys", json!(settings.max_keys)),
        ("status", json!(tenant.standing.as_str())),
    ]
}

/// What a new tenant is.
pub fn of_new(tenant: &TenantRecord) -> Map<String, Value> {
    fields(tenant)
        .into_iter()
        .map(|(name, value)| (name.to_owned(), json!({"to": value})))
        .collect()
}

/// What differs between two records of a tenant.
pub fn between(before: &TenantRecord, after: &TenantRecord) -> Map<String, Value> {
    fields(before)
        .into_iter()
        .zip(fields(after))
        .filter(|((_, from), (_, to))| from != to)
        .map(|((name, from), (_, to))| (name.to_owned(), json!({"from": from, "to": to})))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::tenant::TenantStanding;
    use crate::key::tenant::tests::tenant;

    #[test]
    fn only_what_differs_is_told() {
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
