//! Reading what is set for a tenant.

use serde_json::{Map, Value};

use super::{FieldError, Fields, email, name, rate_limits};
use crate::key::tenant::KEYS_MAX;
use crate::key::{TenantId, TenantSettings};

/// Reads the id in a path and the body that is to be set for it.
pub fn tenant_settings(
    id: &str,
    object: Map<String, Value>,
) -> Result<(TenantId, TenantSettings), Vec<FieldError>> {
    let mut fields = Fields::new(object);
    let id = id.parse::<TenantId>();
    if let Err(error) = &id {
        fields.report("tenant_id", error.to_string());
    }
    let settings = TenantSettings {
        display_name: fields.optional("display_name", name),
        contact_email: fields.optional("contact_email", email),
        rate_limits: fields
            .optional("rate_limits", rate_limits)
            .unwrap_or_default(),
        max_keys: fields.optional("max_keys", max_keys),
    };
    fields.finish()?;
    // What is wrong with it has been reported.
    Ok((id.map_err(|_| Vec::new())?, settings))
}

fn max_keys(value: Value) -> Result<u64, String> {
    value
        .as_u64()
        .filter(|max| *max <= KEYS_MAX)
        .ok_or_else(|| format!("must be a whole number from 0 to {KEYS_MAX}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(id: &str, value: Value) -> Result<TenantSettings, Vec<String>> {
        let object = value.as_object().cloned().unwrap();
        tenant_settings(id, object)
            .map(|(_, settings)| settings)
            .map_err(|errors| errors.into_iter().map(|error| error.field).collect())
    }

    #[test]
    fn what_is_absent_or_null_is_none() {
        let nulls = json!({"display_name": null, "contact_email": null, "rate_limits": null, "max_keys": null});
        for body in [json!({}), nulls] {
            assert_eq!(read("acme", body), Ok(TenantSettings::default()));
        }
        let body = json!({"display_name": "Acme", "max_keys": 0, "rate_limits": []});
        let settings = read("acme", body).unwrap();
        assert_eq!(settings.max_keys, Some(0));
        assert_eq!(settings.display_name.as_deref(), Some("Acme"));
    }

    #[test]
    fn every_bad_field_is_reported() {
        let body = json!({
            "display_name": "a\nb", "contact_email": "nobody", "max_keys": -1, "status": "suspended",
            "rate_limits": [{"name": "tenant:a", "quota": 1, "window_seconds": 1}],
        });
        assert_eq!(
            read("../x", body).unwrap_err(),
            [
                "tenant_id",
                "display_name",
                "contact_email",
                "rate_limits",
                "max_keys",
                "status"
            ]
        );
        for max in [json!(KEYS_MAX + 1), json!(1.5), json!("1")] {
            assert_eq!(
                read("acme", json!({"max_keys": max})).unwrap_err(),
                ["max_keys"]
            );
        }
    }
}
