//! What a key is given when it is created, and what can be changed of it later.

use std::time::Duration;

use clap::value_parser;
use serde_json::{Map, Value, json};

use crate::cli::parse;
use crate::clock::Timestamp;
use crate::key::Policy;

#[derive(clap::Args)]
pub struct Fields {
    /// A scope that it may use, such as orders:read or 'orders:*'; may stand there several times
    #[arg(long = "scope", value_name = "SCOPE")]
    scopes: Vec<String>,
    /// A limit of its own in place of the configuration's, such as day:10000/1d or peak:10/1s:20; may
    /// stand there several times
    #[arg(long = "rate-limit", value_name = "NAME:QUOTA/WINDOW[:BURST]", value_parser = parse::rate_limit)]
    rate_limits: Vec<Policy>,
    /// No limit at all
    #[arg(long, conflicts_with = "rate_limits")]
    unlimited: bool,
    /// When it expires, such as 2027-01-31T12:00:00Z
    #[arg(long, value_name = "TIME", value_parser = parse::time)]
    expires_at: Option<Timestamp>,
    /// How long it works from now on, such as 90d
    #[arg(long, value_name = "SPAN", value_parser = parse::span, conflicts_with = "expires_at")]
    expires_in: Option<Duration>,
    /// An address or CIDR from which it may be used; may stand there several times
    #[arg(long = "allow-ip", value_name = "CIDR")]
    allowed_ips: Vec<String>,
    /// Whom to remind of rotation
    #[arg(long, value_name = "ADDRESS")]
    contact_email: Option<String>,
    /// After how many days to remind, 1 to 3650
    #[arg(long, value_name = "DAYS", value_parser = value_parser!(u32))]
    rotation_days: Option<u32>,
    /// A JSON object of yours. It is shown to whoever may see the key: no place for secrets
    #[arg(long, value_name = "JSON", value_parser = parse::metadata)]
    metadata: Option<Map<String, Value>>,
}

impl Fields {
    /// The members of a body: what was given, and nothing else.
    pub fn members(&self, now: Timestamp) -> Map<String, Value> {
        let mut members = Map::new();
        let mut set = |name: &str, value: Value| members.insert(name.to_owned(), value);
        if !self.scopes.is_empty() {
            set("scopes", json!(self.scopes));
        }
        if self.unlimited || !self.rate_limits.is_empty() {
            set("rate_limits", json!(self.rate_limits));
        }
        let end = self.expires_in.map(|span| now.plus(span));
        if let Some(end) = self.expires_at.or(end) {
            set("expires_at", json!(end));
        }
        if !self.allowed_ips.is_empty() {
            set("allowed_ips", json!(self.allowed_ips));
        }
        if let Some(email) = &self.contact_email {
            set("contact_email", json!(email));
        }
        if let Some(days) = self.rotation_days {
            set("rotation_days", json!(days));
        }
        if let Some(metadata) = &self.metadata {
            set("metadata", json!(metadata));
        }
        members
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        fields: Fields,
    }

    fn members(arguments: &[&str]) -> Option<Value> {
        let line = Line::try_parse_from(std::iter::once(&"x").chain(arguments)).ok()?;
        let now = Timestamp::parse("2027-01-01T00:00:00Z").unwrap();
        Some(Value::Object(line.fields.members(now)))
    }

    #[test]
    fn only_what_is_given_is_sent() {
        assert_eq!(members(&[]), Some(json!({})));
        assert_eq!(
            members(&[
                "--scope",
                "a:b",
                "--scope",
                "c",
                "--rate-limit",
                "d:5/1m:2",
                "--rate-limit",
                "e:1/s",
                "--expires-in",
                "2d",
                "--allow-ip",
                "10.0.0.0/8",
                "--contact-email",
                "a@b",
                "--rotation-days",
                "30",
                "--metadata",
                "{\"a\":1}",
            ]),
            Some(json!({
                "scopes": ["a:b", "c"],
                "rate_limits": [{"name": "d", "quota": 5, "window_seconds": 60, "burst": 2},
                                {"name": "e", "quota": 1, "window_seconds": 1, "burst": null}],
                "expires_at": "2027-01-03T00:00:00Z", "allowed_ips": ["10.0.0.0/8"],
                "contact_email": "a@b", "rotation_days": 30, "metadata": {"a": 1},
            }))
        );
        assert_eq!(members(&["--unlimited"]), Some(json!({"rate_limits": []})));
        assert_eq!(
            members(&["--expires-at", "2027-02-01"]),
            Some(json!({"expires_at": "2027-02-01T00:00:00Z"}))
        );
    }

    #[test]
    fn contradictions_are_refused() {
        for arguments in [
            &["--unlimited", "--rate-limit", "a:1/1s"][..],
            &["--expires-in", "1d", "--expires-at", "2027-02-01"],
            &["--rotation-days", "soon"],
            &["--metadata", "[]"],
            &["--expires-in", "90"],
        ] {
            assert_eq!(members(arguments), None, "{arguments:?}");
        }
    }
}
