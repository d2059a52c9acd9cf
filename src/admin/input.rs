//! Reading what clients send: every bad field is reported at once, by its name.

mod tenants;

pub use tenants::tenant_settings;

use ipnet::IpNet;
use serde_json::{Map, Value};

use super::access::Permission;
use crate::clock::Timestamp;
use crate::key::policy::POLICIES_MAX;
use crate::key::record::{self, ROTATION_DAYS_DEFAULT};
use crate::key::{Catalogue, Environment, Policy, ScopePattern, TenantId};
use crate::manage::{KeyChange, NewKey};

/// A key's name has at most this many characters.
pub const NAME_LEN_MAX: usize = 200;
/// A key is granted at most this many scopes.
pub const SCOPES_MAX: usize = 100;
/// A key is limited to at most this many address ranges.
pub const ALLOWED_IPS_MAX: usize = 100;
/// An e-mail address has at most this many characters (RFC 5321).
pub const EMAIL_LEN_MAX: usize = 254;
/// Metadata has at most this many bytes as JSON.
pub const METADATA_BYTES_MAX: usize = 8 << 10;
/// The longest time between rotations: ten years.
pub const ROTATION_DAYS_MAX: u64 = 3650;
/// The longest grace period: 90 days.
pub const GRACE_SECONDS_MAX: u64 = 90 * 86_400;

/// A field that can't be accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldError {
    pub field: String,
    pub detail: String,
}

/// A body's fields. What is read is taken out; what is left in the end was not expected.
pub struct Fields {
    object: Map<String, Value>,
    errors: Vec<FieldError>,
}

impl Fields {
    pub fn new(object: Map<String, Value>) -> Self {
        Fields {
            object,
            errors: Vec::new(),
        }
    }

    /// Reports a bad field.
    pub fn report(&mut self, field: &str, detail: impl Into<String>) {
        self.errors.push(FieldError {
            field: field.to_owned(),
            detail: detail.into(),
        });
    }

    /// Ends the reading: all errors, those of unknown fields included.
    pub fn finish(mut self) -> Result<(), Vec<FieldError>> {
        let unknown: Vec<String> = self.object.keys().cloned().collect();
        for field in unknown {
            self.report(&field, "is not known here; leave it out");
        }
        if self.errors.is_empty() {
            Ok(())
        } else {
            Err(self.errors)
        }
    }

    /// The field's value; `None` where it is absent.
    fn take(&mut self, field: &str) -> Option<Value> {
        self.object.remove(field)
    }

    /// The field's value as `read` understands it. Absent and null are `None`.
    fn optional<T>(
        &mut self,
        field: &str,
        read: impl FnOnce(Value) -> Result<T, String>,
    ) -> Option<T> {
        match self.take(field) {
            None | Some(Value::Null) => None,
            Some(value) => self.checked(field, read(value)),
        }
    }

    /// The field's value; it must be there.
    fn required<T>(
        &mut self,
        field: &str,
        read: impl FnOnce(Value) -> Result<T, String>,
    ) -> Option<T> {
        match self.take(field) {
            None | Some(Value::Null) => {
                self.report(field, "is missing");
                None
            }
            Some(value) => self.checked(field, read(value)),
        }
    }

    /// A change of a field that can be cleared with null: `None` where it is absent.
    fn clearable<T>(
        &mut self,
        field: &str,
        read: impl FnOnce(Value) -> Result<T, String>,
    ) -> Option<Option<T>> {
        match self.take(field)? {
            Value::Null => Some(None),
            value => self.checked(field, read(value)).map(Some),
        }
    }

    /// A change of a field that can't be null: `None` where it is absent.
    fn change<T>(
        &mut self,
        field: &str,
        read: impl FnOnce(Value) -> Result<T, String>,
    ) -> Option<T> {
        let value = self.take(field)?;
        self.checked(field, read(value))
    }

    fn checked<T>(&mut self, field: &str, result: Result<T, String>) -> Option<T> {
        result.map_err(|detail| self.report(field, detail)).ok()
    }
}

/// Reads the body of a creation. `own_tenant` is whose key it is where the body doesn't say.
pub fn new_key(
    object: Map<String, Value>,
    own_tenant: Option<&TenantId>,
    catalogue: &Catalogue,
    now: Timestamp,
) -> Result<NewKey, Vec<FieldError>> {
    let mut fields = Fields::new(object);
    let name = fields.required("name", name);
    let tenant_id = match (fields.object.contains_key("tenant_id"), own_tenant) {
        (false, Some(own)) => Some(own.clone()),
        _ => fields.required("tenant_id", |value| parsed::<TenantId>(&value)),
    };
    let environment = fields.required("environment", environment);
    let scopes = fields.required("scopes", |value| scopes(value, catalogue));
    let rate_limits = fields.optional("rate_limits", rate_limits);
    let expires_at = fields.optional("expires_at", |value| {
        let end = time(value)?;
        if end > now {
            Ok(end)
        } else {
            Err("must lie in the future".to_owned())
        }
    });
    let allowed_ips = fields
        .optional("allowed_ips", allowed_ips)
        .unwrap_or_default();
    let contact_email = fields.optional("contact_email", email);
    let rotation_days = fields
        .optional("rotation_days", rotation_days)
        .unwrap_or(ROTATION_DAYS_DEFAULT);
    let metadata = fields.optional("metadata", metadata).unwrap_or_default();
    let sound = (name, tenant_id, environment, scopes);
    fields.finish()?;
    let (Some(name), Some(tenant_id), Some(environment), Some(scopes)) = sound else {
        // Whatever is missing has been reported.
        return Err(Vec::new());
    };
    Ok(NewKey {
        name,
        tenant_id,
        environment,
        scopes,
        rate_limits,
        expires_at,
        allowed_ips,
        contact_email,
        rotation_days,
        metadata,
    })
}

/// Reads the body of a change.
pub fn key_change(
    object: Map<String, Value>,
    catalogue: &Catalogue,
) -> Result<KeyChange, Vec<FieldError>> {
    let mut fields = Fields::new(object);
    let change = KeyChange {
        name: fields.change("name", name),
        scopes: fields.change("scopes", |value| scopes(value, catalogue)),
        rate_limits: fields.clearable("rate_limits", rate_limits),
        expires_at: fields.clearable("expires_at", time),
        allowed_ips: fields
            .clearable("allowed_ips", allowed_ips)
            .map(Option::unwrap_or_default),
        contact_email: fields.clearable("contact_email", email),
        rotation_days: fields
            .clearable("rotation_days", rotation_days)
            .map(|days| days.unwrap_or(ROTATION_DAYS_DEFAULT)),
        metadata: fields
            .clearable("metadata", metadata)
            .map(Option::unwrap_or_default),
        disabled: fields.change("status", |value| match value.as_str() {
            Some("active") => Ok(false),
            Some("disabled") => Ok(true),
            _ => Err("must be \"active\" or \"disabled\"; to revoke a key use DELETE".to_owned()),
        }),
    };
    fields.finish()?;
    Ok(change)
}

/// Reads the body of a regeneration: the grace period in seconds.
pub fn grace_period_seconds(object: Map<String, Value>) -> Result<u64, Vec<FieldError>> {
    let mut fields = Fields::new(object);
    let seconds = fields.optional("grace_period_seconds", |value| {
        value
            .as_u64()
            .filter(|seconds| *seconds <= GRACE_SECONDS_MAX)
            .ok_or_else(|| format!("must be a whole number from 0 to {GRACE_SECONDS_MAX}"))
    });
    fields.finish()?;
    Ok(seconds.unwrap_or(0))
}

fn text(value: Value) -> Result<String, String> {
    match value {
        Value::String(text) => Ok(text),
        _ => Err("must be a text".to_owned()),
    }
}

fn parsed<T: std::str::FromStr>(value: &Value) -> Result<T, String>
where
    T::Err: std::fmt::Display,
{
    let text = value.as_str().ok_or("must be a text")?;
    text.parse().map_err(|error: T::Err| error.to_string())
}

fn list(value: Value, max: usize) -> Result<Vec<Value>, String> {
    match value {
        Value::Array(items) if items.len() <= max => Ok(items),
        Value::Array(items) => Err(format!("has {} entries; at most {max} fit", items.len())),
        _ => Err("must be a list".to_owned()),
    }
}

fn name(value: Value) -> Result<String, String> {
    let name = text(value)?;
    let length = name.chars().count();
    if name.trim().is_empty() || length > NAME_LEN_MAX || name.chars().any(char::is_control) {
        return Err(format!(
            "must be 1 to {NAME_LEN_MAX} characters, without control characters"
        ));
    }
    Ok(name)
}

fn environment(value: Value) -> Result<Environment, String> {
    value
        .as_str()
        .and_then(Environment::from_name)
        .ok_or_else(|| "must be \"live\" or \"test\"".to_owned())
}

fn scopes(value: Value, catalogue: &Catalogue) -> Result<Vec<ScopePattern>, String> {
    let mut scopes: Vec<ScopePattern> = Vec::new();
    for item in list(value, SCOPES_MAX)? {
        let scope: ScopePattern = parsed(&item).map_err(|detail| format!("{item} {detail}"))?;
        if !catalogue.can_grant(&scope) && !Permission::can_grant(&scope) {
            return Err(format!("\"{scope}\" is not in the catalogue of scopes"));
        }
        if !scopes.contains(&scope) {
            scopes.push(scope);
        }
    }
    Ok(scopes)
}

fn rate_limits(value: Value) -> Result<Vec<Policy>, String> {
    let mut policies: Vec<Policy> = Vec::new();
    for item in list(value, POLICIES_MAX)? {
        let policy: Policy = serde_json::from_value(item).map_err(|error| {
            format!("must be a list of {{name, quota, window_seconds, burst?}}: {error}")
        })?;
        if let Some(problem) = policy.problems().first() {
            return Err(format!("\"{}\": {problem}", policy.name));
        }
        if policies.iter().any(|other| other.name == policy.name) {
            return Err(format!("\"{}\" stands there twice", policy.name));
        }
        policies.push(policy);
    }
    Ok(policies)
}

fn time(value: Value) -> Result<Timestamp, String> {
    Timestamp::parse(&text(value)?).map_err(|error| error.to_string())
}

fn allowed_ips(value: Value) -> Result<Vec<IpNet>, String> {
    list(value, ALLOWED_IPS_MAX)?
        .iter()
        .map(|item| {
            let net = item.as_str().and_then(record::parse_net);
            net.ok_or_else(|| format!("{item} is neither an address nor a CIDR such as 10.0.0.0/8"))
        })
        .collect()
}

fn email(value: Value) -> Result<String, String> {
    let email = text(value)?;
    let plain = email
        .chars()
        .all(|c| !c.is_control() && !c.is_whitespace() && !matches!(c, '<' | '>' | ',' | ';'));
    let (local, domain) = email.rsplit_once('@').unwrap_or_default();
    if email.len() > EMAIL_LEN_MAX || !plain || local.is_empty() || domain.is_empty() {
        return Err("must be an e-mail address".to_owned());
    }
    Ok(email)
}

fn rotation_days(value: Value) -> Result<u32, String> {
    value
        .as_u64()
        .filter(|days| (1..=ROTATION_DAYS_MAX).contains(days))
        .and_then(|days| u32::try_from(days).ok())
        .ok_or_else(|| format!("must be a whole number from 1 to {ROTATION_DAYS_MAX}"))
}

fn metadata(value: Value) -> Result<Map<String, Value>, String> {
    let Value::Object(metadata) = value else {
        return Err("must be an object".to_owned());
    };
    let text = Value::Object(metadata.clone()).to_string();
    if text.len() > METADATA_BYTES_MAX {
        return Err(format!(
            "has {} bytes as JSON; at most {METADATA_BYTES_MAX} fit",
            text.len()
        ));
    }
    if text.contains("\\u0000") {
        return Err("may not hold NUL characters".to_owned());
    }
    Ok(metadata)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn object(value: Value) -> Map<String, Value> {
        value.as_object().cloned().unwrap()
    }

    fn catalogue() -> Catalogue {
        Catalogue::new(vec!["orders:write".parse().unwrap()])
    }

    fn create(value: Value) -> Result<NewKey, Vec<String>> {
        new_key(
            object(value),
            None,
            &catalogue(),
            Timestamp::from_millis(1_000_000),
        )
        .map_err(|errors| errors.into_iter().map(|error| error.field).collect())
    }

    #[test]
    fn a_key_needs_little() {
        let key = create(json!({
            "name": "n", "tenant_id": "t", "environment": "live", "scopes": ["orders:write", "orders:write"],
        }))
        .unwrap();
        assert_eq!(key.scopes.len(), 1);
        assert_eq!(key.rotation_days, ROTATION_DAYS_DEFAULT);
        assert_eq!(key.rate_limits, None);
    }

    #[test]
    fn every_bad_field_is_reported() {
        let errors = create(json!({
            "name": " ", "tenant_id": "../x", "environment": "prod", "scopes": ["orders:read"],
            "rate_limits": [{"name": "a", "quota": 0, "window_seconds": 1}],
            "expires_at": "1970-01-01T00:00:01Z", "allowed_ips": ["10.0.0.0/40"], "contact_email": "nobody",
            "rotation_days": 0, "metadata": [], "colour": "blue",
        }))
        .unwrap_err();
        assert_eq!(
            errors,
            [
                "name",
                "tenant_id",
                "environment",
                "scopes",
                "rate_limits",
                "expires_at",
                "allowed_ips",
                "contact_email",
                "rotation_days",
                "metadata",
                "colour",
            ]
        );
        assert_eq!(
            create(json!({})).unwrap_err(),
            ["name", "tenant_id", "environment", "scopes"]
        );
    }

    #[test]
    fn limits_on_every_length() {
        let base = json!({"name": "n", "tenant_id": "t", "environment": "live", "scopes": []});
        for (field, value) in [
            ("name", json!("x".repeat(NAME_LEN_MAX + 1))),
            ("name", json!("a\nb")),
            ("tenant_id", json!("x".repeat(65))),
            ("scopes", json!(vec!["orders:write"; SCOPES_MAX + 1])),
            ("allowed_ips", json!(vec!["10.0.0.1"; ALLOWED_IPS_MAX + 1])),
            ("metadata", json!({"a": "x".repeat(METADATA_BYTES_MAX)})),
            ("metadata", json!({"a": "\0"})),
            (
                "contact_email",
                json!(format!("a@{}", "x".repeat(EMAIL_LEN_MAX))),
            ),
            (
                "rate_limits",
                json!(vec![
                    json!({"name": "a", "quota": 1, "window_seconds": 1});
                    9
                ]),
            ),
        ] {
            let mut body = object(base.clone());
            body.insert(field.to_owned(), value);
            assert_eq!(create(Value::Object(body)).unwrap_err(), [field]);
        }
    }

    #[test]
    fn a_change_tells_absent_from_null() {
        let change = key_change(
            object(json!({"expires_at": null, "status": "disabled"})),
            &catalogue(),
        )
        .unwrap();
        assert_eq!(change.expires_at, Some(None));
        assert_eq!(change.contact_email, None);
        assert_eq!(change.disabled, Some(true));
        let errors = key_change(
            object(json!({"name": null, "status": "revoked", "id": "x"})),
            &catalogue(),
        );
        let fields: Vec<String> = errors
            .unwrap_err()
            .into_iter()
            .map(|error| error.field)
            .collect();
        assert_eq!(fields, ["name", "status", "id"]);
    }
}
