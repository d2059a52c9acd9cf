//! What a change has changed, for its note.

use serde_json::{Map, Value, json};

use crate::key::KeyRecord;

/// The fields of a record that are worth a word, as the API shows them.
fn fields(record: &KeyRecord) -> [(&'static str, Value); 13] {
    let texts = |items: &mut dyn Iterator<Item = String>| Value::from(items.collect::<Vec<_>>());
    [
        ("name", json!(record.name)),
        ("environment", json!(record.environment.as_str())),
        ("origin", json!(record.origin.as_str())),
        ("credential", json!(record.credential.as_str())),
        ("hint", json!(record.hint)),
        (
            "scopes",
            texts(&mut record.scopes.iter().map(ToString::to_string)),
        ),
        ("rate_limits", json!(record.rate_limits)),
        (
            "allowed_ips",
            texts(&mut record.allowed_ips.iter().map(ToString::to_string)),
        ),
        ("contact_email", json!(record.contact_email)),
        ("rotation_days", json!(record.rotation_days)),
        ("metadata", json!(record.metadata)),
        ("status", json!(record.standing.as_str())),
        ("expires_at", json!(record.expires_at)),
    ]
}

/// What a new key is.
pub fn of_new(record: &KeyRecord) -> Map<String, Value> {
    fields(record)
        .into_iter()
        .map(|(name, value)| (name.to_owned(), json!({"to": value})))
        .collect()
}

/// What differs between two records of a key.
pub fn between(before: &KeyRecord, after: &KeyRecord) -> Map<String, Value> {
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
    use crate::key::record::tests::record;

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
}
