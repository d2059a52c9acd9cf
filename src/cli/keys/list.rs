//! `sidekey keys list`

use serde_json::Value;

use super::KEYS;
use crate::cli::client::Api;
use crate::cli::failure::Failure;
use crate::cli::pages::{self, Paging};
use crate::cli::parse::{self, Moment};
use crate::cli::render::{Column, cell};
use crate::store::KeyOrder;

const EXAMPLES: &str = "\
Examples:
  sidekey keys list --tenant acme --status active
  # What expires within a month
  sidekey keys list --expiring-before 30d
  # What nobody has used for 90 days, one id a line
  sidekey keys list --unused-since 90d --all --json | jq -r '.[].id'";

/// List keys, newest first where nothing else is asked for
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct List {
    /// Only this tenant's
    #[arg(long, value_name = "TENANT")]
    tenant: Option<String>,
    /// Only those that are ...
    #[arg(long, value_parser = ["active", "disabled", "expired", "revoked"])]
    status: Option<String>,
    /// Only those for ...
    #[arg(long, value_parser = ["live", "test"])]
    environment: Option<String>,
    /// Only those with this text in their name or id
    #[arg(long, value_name = "TEXT")]
    search: Option<String>,
    /// Only those that expire before this time, or within this span from now
    #[arg(long, value_name = "TIME|SPAN", value_parser = parse::moment)]
    expiring_before: Option<Moment>,
    /// Only those not used since this time, or for this span
    #[arg(long, value_name = "TIME|SPAN", value_parser = parse::moment)]
    unused_since: Option<Moment>,
    /// In the order of one of these, upwards; with - before it downwards
    #[arg(long, value_name = "FIELD", allow_hyphen_values = true, value_parser = KeyOrder::ALL.map(KeyOrder::as_str))]
    sort: Option<String>,
    #[command(flatten)]
    paging: Paging,
}

#[rustfmt::skip]
const COLUMNS: &[Column] = &[
    Column { title: "ID", value: |key| cell(&key["id"]) },
    Column { title: "NAME", value: |key| cell(&key["name"]) },
    Column { title: "TENANT", value: |key| cell(&key["tenant_id"]) },
    Column { title: "ENV", value: |key| cell(&key["environment"]) },
    Column { title: "STATUS", value: |key| cell(&key["status"]) },
    Column { title: "SCOPES", value: scopes },
    Column { title: "EXPIRES", value: |key| cell(&key["expires_at"]) },
    Column { title: "LAST USED", value: |key| cell(&key["last_used_at"]) },
];

/// Scopes that a line of the list has place for.
const SCOPES_SHOWN_MAX: usize = 3;

fn scopes(key: &Value) -> String {
    let scopes = key["scopes"]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default();
    let shown = cell(&Value::from(&scopes[..scopes.len().min(SCOPES_SHOWN_MAX)]));
    match scopes.len().checked_sub(SCOPES_SHOWN_MAX) {
        Some(more) if more > 0 => format!("{shown}, {more} more"),
        _ => shown,
    }
}

pub async fn run(api: &Api, list: &List) -> Result<(), Failure> {
    let now = api.now();
    let call = api
        .get(&[KEYS])
        .query("tenant_id", list.tenant.as_ref())
        .query("status", list.status.as_ref())
        .query("environment", list.environment.as_ref())
        .query("q", list.search.as_ref())
        .query("sort", list.sort.as_ref())
        .query(
            "expiring_before",
            list.expiring_before.map(|moment| moment.after(now)),
        )
        .query(
            "unused_since",
            list.unused_since.map(|moment| moment.before(now)),
        );
    pages::show(api, call, &list.paging, COLUMNS).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_line_has_place_for_some_scopes() {
        assert_eq!(scopes(&json!({"scopes": []})), "-");
        assert_eq!(scopes(&json!({"scopes": ["a", "b", "c"]})), "a, b, c");
        assert_eq!(
            scopes(&json!({"scopes": ["a", "b", "c", "d", "e"]})),
            "a, b, c, 2 more"
        );
        assert_eq!(scopes(&json!({})), "-");
    }
}
