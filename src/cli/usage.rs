//! `sidekey usage`: what a key, a tenant or the platform was used for.

use std::process::ExitCode;

use serde_json::Value;

use super::access::AccessArguments;
use super::client::{self, Api};
use super::failure::Failure;
use super::keys;
use super::parse::{self, Moment};
use super::render::{self, Column, cell};

const EXAMPLES: &str = "\
Examples:
  # The last 30 days of a key
  sidekey usage 4fzN8cQ2pLrT
  # The last two days of a tenant, hour by hour
  sidekey usage --tenant acme --from 2d --interval hour
  # Everything, as JSON
  sidekey usage --from 2026-01-01 --to 2026-02-01 --json";

/// Show how much was asked for and refused, by day or hour
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Usage {
    #[command(flatten)]
    access: AccessArguments,
    /// Of this key; without it of a tenant, or of the whole platform
    #[arg(value_name = "KEY_ID")]
    key: Option<String>,
    /// Of this tenant
    #[arg(long, value_name = "TENANT", conflicts_with = "key")]
    tenant: Option<String>,
    /// From this time on, or this span before now [default: 30 days ago, 24 hours by hour]
    #[arg(long, value_name = "TIME|SPAN", value_parser = parse::moment)]
    from: Option<Moment>,
    /// Up to this time, or this span before now [default: now]
    #[arg(long, value_name = "TIME|SPAN", value_parser = parse::moment)]
    to: Option<Moment>,
    /// A line for each ...
    #[arg(long, value_parser = ["day", "hour"], default_value = "day")]
    interval: String,
}

#[rustfmt::skip]
const COLUMNS: &[Column] = &[
    Column { title: "START", value: |row| cell(&row["start"]) },
    Column { title: "REQUESTS", value: |row| cell(&row["requests"]) },
    Column { title: "4XX", value: |row| cell(&row["errors_4xx"]) },
    Column { title: "5XX", value: |row| cell(&row["errors_5xx"]) },
    Column { title: "DENIED", value: |row| cell(&row["denied"]) },
    Column { title: "LIMITED", value: |row| cell(&row["rate_limited"]) },
    Column { title: "BYTES IN", value: |row| cell(&row["bytes_in"]) },
    Column { title: "BYTES OUT", value: |row| cell(&row["bytes_out"]) },
    Column { title: "MEAN MS", value: |row| cell(&row["latency_ms_mean"]) },
    Column { title: "MAX MS", value: |row| cell(&row["latency_ms_max"]) },
];

pub fn run(usage: &Usage) -> ExitCode {
    client::run(&usage.access, async |api| show(api, usage).await)
}

async fn show(api: &Api, usage: &Usage) -> Result<(), Failure> {
    let now = api.now();
    let call = match &usage.key {
        Some(id) => api.get(&[keys::KEYS, id, "usage"]).see(keys::SEE),
        None => api.get(&["usage"]),
    };
    let call = call
        .query("tenant_id", usage.tenant.as_ref())
        .query("from", usage.from.map(|moment| moment.before(now)))
        .query("to", usage.to.map(|moment| moment.before(now)))
        .query("interval", Some(&usage.interval));
    let answer = api.send(&call).await?;
    if api.json {
        return render::json(&answer.text);
    }
    render::out(&table(&answer.json()?))
}

/// The rows, and the totals below them.
fn table(answer: &Value) -> String {
    let mut rows = answer["data"].as_array().cloned().unwrap_or_default();
    let mut totals = answer["totals"].clone();
    if totals.is_object() {
        totals["start"] = "total".into();
        rows.push(totals);
    }
    render::rows(COLUMNS, &rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn totals_stand_below() {
        let text = table(&json!({
            "data": [{"start": "2027-01-01T00:00:00Z", "requests": 3, "errors_4xx": 1, "errors_5xx": 0, "denied": 0,
                      "rate_limited": 0, "bytes_in": 10, "bytes_out": 20, "latency_ms_mean": 1.5, "latency_ms_max": 9}],
            "totals": {"requests": 3, "errors_4xx": 1, "errors_5xx": 0, "denied": 0, "rate_limited": 0,
                       "bytes_in": 10, "bytes_out": 20},
        }));
        let cells = |line: &str| {
            line.split_whitespace()
                .map(str::to_owned)
                .collect::<Vec<_>>()
        };
        let lines: Vec<_> = text.lines().map(cells).collect();
        assert_eq!(lines.len(), 3, "{text}");
        assert_eq!(
            lines[1],
            [
                "2027-01-01T00:00:00Z",
                "3",
                "1",
                "0",
                "0",
                "0",
                "10",
                "20",
                "1.5",
                "9"
            ]
        );
        assert_eq!(
            lines[2],
            ["total", "3", "1", "0", "0", "0", "10", "20", "-", "-"]
        );
    }
}
