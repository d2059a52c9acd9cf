//! The form of a key, as it is typed: to create one, and to change one. What is typed becomes the body
//! that the API would get, and is shown again as it was where something is wrong with it.

use std::time::Duration;

use serde_json::{Map, Value, json};

use super::limits::{self, LimitRow, field_name};
use super::metadata;
use crate::admin::access::Permission;
use crate::admin::dashboard::moment::{Moment, from_field, to_field};
use crate::admin::input::FieldError;
use crate::clock::Timestamp;
use crate::key::record::ROTATION_DAYS_DEFAULT;
use crate::key::scope::OWN_NAMESPACE;
use crate::key::{Catalogue, KeyRecord, ScopePattern};

/// The fields in the order of the form, as far as there is one of each.
const FIELDS: [&str; 10] = [
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
];
const DAY: Duration = Duration::from_secs(86_400);
/// When a key may end, counted in days.
const EXPIRY_DAYS: [u32; 3] = [30, 90, 365];

/// What is typed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyForm {
    pub name: String,
    pub tenant_id: String,
    pub environment: String,
    /// Those that are ticked.
    pub scopes: Vec<String>,
    /// Others, such as wildcards.
    pub more_scopes: String,
    /// `default`, `none` or `own`.
    pub limits: String,
    pub rows: Vec<LimitRow>,
    /// `never`, `at`, or a number of days.
    pub expiry: String,
    pub expires_at: String,
    pub allowed_ips: String,
    pub contact_email: String,
    pub rotation_days: String,
    pub metadata: String,
    /// When the form was opened: days are counted from here, so that a form that is sent twice says the
    /// same.
    pub opened: Timestamp,
}

impl KeyForm {
    /// The form of a key to be made.
    pub fn empty(now: Timestamp) -> Self {
        KeyForm {
            name: String::new(),
            tenant_id: String::new(),
            environment: "live".to_owned(),
            scopes: Vec::new(),
            more_scopes: String::new(),
            limits: "default".to_owned(),
            rows: limits::padded(Vec::new()),
            expiry: "never".to_owned(),
            expires_at: String::new(),
            allowed_ips: String::new(),
            contact_email: String::new(),
            rotation_days: String::new(),
            metadata: String::new(),
            opened: now,
        }
    }

    /// The form of a key that is there.
    pub fn of_record(key: &KeyRecord, catalogue: &Catalogue, now: Timestamp) -> Self {
        let (scopes, more) = sorted(&key.scopes, catalogue);
        let rows = key.rate_limits.iter().flatten().map(LimitRow::from);
        let limits = match &key.rate_limits {
            None => "default",
            Some(own) if own.is_empty() => "none",
            Some(_) => "own",
        };
        let nets = key.allowed_ips.iter().map(ToString::to_string);
        KeyForm {
            name: key.name.clone(),
            tenant_id: key.tenant_id.to_string(),
            environment: key.environment.as_str().to_owned(),
            scopes,
            more_scopes: more.join(" "),
            limits: limits.to_owned(),
            rows: limits::padded(rows.collect()),
            expiry: if key.expires_at.is_some() {
                "at"
            } else {
                "never"
            }
            .to_owned(),
            expires_at: key.expires_at.map(to_field).unwrap_or_default(),
            allowed_ips: nets.collect::<Vec<_>>().join("\n"),
            contact_email: key.contact_email.clone().unwrap_or_default(),
            rotation_days: key.rotation_days.to_string(),
            metadata: metadata::to_text(&key.metadata),
            opened: now,
        }
    }

    /// What was sent. What is absent is empty.
    pub fn of_pairs(pairs: &[(String, String)], now: Timestamp) -> Self {
        let text = |name: &str| {
            let found = pairs.iter().find(|(field, _)| field == name);
            // Browsers send lines as CRLF, whatever they were.
            found.map_or_else(String::new, |(_, value)| value.replace("\r\n", "\n"))
        };
        let ticked = pairs.iter().filter(|(field, _)| field == "scopes");
        KeyForm {
            name: text("name"),
            tenant_id: text("tenant_id"),
            environment: text("environment"),
            scopes: ticked.map(|(_, scope)| scope.clone()).collect(),
            more_scopes: text("more_scopes"),
            limits: text("limits"),
            rows: limits::padded(limits::rows_of(pairs)),
            expiry: text("expiry"),
            expires_at: text("expires_at"),
            allowed_ips: text("allowed_ips"),
            contact_email: text("contact_email"),
            rotation_days: text("rotation_days"),
            metadata: text("metadata"),
            opened: Timestamp::parse(&text("opened")).unwrap_or(now),
        }
    }

    /// The body that makes such a key, and what is wrong with the rest of the form.
    pub fn new_body(&self) -> (Map<String, Value>, Vec<FieldError>) {
        let mut body = Body::default();
        body.set("name", json!(self.name));
        if !self.tenant_id.trim().is_empty() {
            body.set("tenant_id", json!(self.tenant_id.trim()));
        }
        body.set("environment", json!(self.environment));
        body.set("scopes", self.scopes_value());
        body.try_set("rate_limits", self.limits_value());
        body.try_set("expires_at", self.expiry_value());
        body.set("allowed_ips", self.addresses_value());
        body.set("contact_email", optional(&self.contact_email));
        body.set("rotation_days", number(&self.rotation_days));
        body.try_set("metadata", self.metadata_value());
        (body.object, body.errors)
    }

    /// The body that makes of the key of `before` that of this form. What was not touched has no part in
    /// it: a field need not show all of what is stored.
    pub fn change_body(&self, before: &KeyForm) -> (Map<String, Value>, Vec<FieldError>) {
        let mut body = Body::default();
        if self.name != before.name {
            body.set("name", json!(self.name));
        }
        if self.grants() != before.grants() {
            body.set("scopes", self.scopes_value());
        }
        if self.limits != before.limits || self.limits == "own" && self.rows != before.rows {
            body.try_set("rate_limits", self.limits_value());
        }
        if self.expiry != before.expiry
            || self.expiry == "at" && self.expires_at != before.expires_at
        {
            body.try_set("expires_at", self.expiry_value());
        }
        if self.allowed_ips != before.allowed_ips {
            body.set("allowed_ips", self.addresses_value());
        }
        if self.contact_email != before.contact_email {
            body.set("contact_email", optional(&self.contact_email));
        }
        if self.rotation_days != before.rotation_days {
            body.set("rotation_days", number(&self.rotation_days));
        }
        if self.metadata != before.metadata {
            body.try_set("metadata", self.metadata_value());
        }
        (body.object, body.errors)
    }

    /// The names of all fields that the form has a place for errors for, in its order.
    pub fn fields(&self) -> Vec<String> {
        let mut fields = Vec::new();
        for field in FIELDS {
            if field == "expires_at" {
                for row in 0..self.rows.len() {
                    let of_row = ["name", "quota", "window_seconds", "burst"];
                    fields.extend(of_row.map(|field| field_name(row, field)));
                }
            }
            fields.push(field.to_owned());
        }
        fields
    }

    /// The name of a row's field, for what is wrong with it.
    pub fn row_field(&self, row: &usize, field: &str) -> String {
        field_name(*row, field)
    }

    pub fn has_scope(&self, scope: &str) -> bool {
        self.scopes.iter().any(|ticked| ticked == scope)
    }

    /// Whether one of Sidekey's own is ticked.
    pub fn has_own_scope(&self) -> bool {
        let mut ticked = self.scopes.iter();
        ticked.any(|scope| scope.starts_with(OWN_NAMESPACE))
    }

    /// The rotation of who writes none.
    pub fn rotation_default(&self) -> u32 {
        ROTATION_DAYS_DEFAULT
    }

    /// When keys may end, counted from the opening of the form: the field's value, and the moment.
    pub fn expiry_choices(&self) -> Vec<(String, Moment)> {
        let choice = |days: &u32| (days.to_string(), Moment::from(self.after(*days)));
        EXPIRY_DAYS.iter().map(choice).collect()
    }

    fn after(&self, days: u32) -> Timestamp {
        // Whole seconds: nobody means milliseconds.
        let opened = Timestamp::from_millis(self.opened.as_millis() / 1000 * 1000);
        opened.plus(DAY * days)
    }

    fn grants(&self) -> Vec<&str> {
        let more = self.more_scopes.split([' ', ',', '\n', '\t']);
        let more = more.filter(|scope| !scope.is_empty());
        let ticked = self.scopes.iter().map(String::as_str);
        let mut grants: Vec<&str> = Vec::new();
        for grant in ticked.chain(more) {
            if !grants.contains(&grant) {
                grants.push(grant);
            }
        }
        grants
    }

    fn scopes_value(&self) -> Value {
        json!(self.grants())
    }

    fn limits_value(&self) -> Result<Value, Vec<FieldError>> {
        match self.limits.as_str() {
            "own" => limits::value_of(&self.rows),
            "none" => Ok(json!([])),
            _ => Ok(Value::Null),
        }
    }

    fn expiry_value(&self) -> Result<Value, Vec<FieldError>> {
        let days = EXPIRY_DAYS
            .iter()
            .find(|days| days.to_string() == self.expiry);
        if let Some(days) = days {
            return Ok(json!(self.after(*days)));
        }
        if self.expiry != "at" {
            return Ok(Value::Null);
        }
        let at = from_field(self.expires_at.trim());
        let wrong = "must be a date and a time of UTC, such as 2027-01-31T12:00";
        at.map(|at| json!(at))
            .ok_or_else(|| bad("expires_at", wrong))
    }

    fn addresses_value(&self) -> Value {
        let lines = self.allowed_ips.split(['\n', ',', ' ']).map(str::trim);
        lines.filter(|line| !line.is_empty()).collect()
    }

    fn metadata_value(&self) -> Result<Value, Vec<FieldError>> {
        let read = metadata::from_text(&self.metadata);
        read.map(Value::Object)
            .map_err(|detail| bad("metadata", &detail))
    }
}

/// A body in the making.
#[derive(Default)]
struct Body {
    object: Map<String, Value>,
    errors: Vec<FieldError>,
}

impl Body {
    fn set(&mut self, field: &str, value: Value) {
        self.object.insert(field.to_owned(), value);
    }

    fn try_set(&mut self, field: &str, value: Result<Value, Vec<FieldError>>) {
        match value {
            Ok(value) => self.set(field, value),
            Err(errors) => self.errors.extend(errors),
        }
    }
}

fn bad(field: &str, detail: &str) -> Vec<FieldError> {
    vec![FieldError {
        field: field.to_owned(),
        detail: detail.to_owned(),
    }]
}

/// Null where nothing is written.
fn optional(text: &str) -> Value {
    match text.trim() {
        "" => Value::Null,
        text => json!(text),
    }
}

/// A number, if it is one: what else is written is refused by who reads the body.
fn number(text: &str) -> Value {
    let text = text.trim();
    text.parse::<u64>()
        .map_or_else(|_| optional(text), |number| json!(number))
}

/// Grants that have a box to be ticked, and the others.
fn sorted(grants: &[ScopePattern], catalogue: &Catalogue) -> (Vec<String>, Vec<String>) {
    let has_box = |grant: &&String| {
        let is_listed = catalogue
            .scopes()
            .iter()
            .any(|scope| scope.as_str() == **grant);
        let mut own = Permission::ALL.iter();
        is_listed || own.any(|permission| permission.as_str() == **grant)
    };
    let texts: Vec<String> = grants.iter().map(ToString::to_string).collect();
    texts.into_iter().partition(|grant| has_box(&grant))
}

#[cfg(test)]
mod tests;
