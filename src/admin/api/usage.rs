//! Usage over HTTP: of one key, of a tenant, of the platform.

use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde::Serialize;
use utoipa::ToSchema;

use super::extract::IdText;
use super::problems::ReadProblems;
use super::schemas::{IntervalName, KeyIdParameter, SpanParameters, TenantParameter};
use super::{Shared, private, query};
use crate::admin::AdminState;
use crate::admin::access::{Caller, Permission};
use crate::admin::answer::ApiError;
use crate::admin::input::FieldError;
use crate::admin::operations::keys::find;
use crate::admin::usage_report::{Report, latency_ms_max, latency_ms_mean};
use crate::clock::Timestamp;
use crate::key::{KeyId, TenantId};
use crate::manage::KeyError;
use crate::problem::Kind;
use crate::usage::roll_up::kept_from;
use crate::usage::span::{Interval, Span, SpanError};
use crate::usage::{Counts, Subject};

/// What is asked for.
struct UsageQuery {
    span: Span,
    tenant: Option<TenantId>,
}

/// Reads a query; `tenant_id` stands there only where `has_tenant`.
fn usage_query(
    pairs: Vec<(String, String)>,
    has_tenant: bool,
    now: Timestamp,
    kept_from: Timestamp,
) -> Result<UsageQuery, Vec<FieldError>> {
    let (mut interval, mut from, mut to, mut tenant) = (Interval::Day, None, now, None);
    query::read(&pairs, |name, value| {
        match name {
            "interval" => interval = Interval::from_name(value).ok_or("must be day or hour")?,
            "from" => from = Some(query::time(value)?),
            "to" => to = query::time(value)?,
            "tenant_id" if has_tenant => tenant = Some(query::parsed(value)?),
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    let bad = |field: &str, detail: String| {
        vec![FieldError {
            field: field.to_owned(),
            detail,
        }]
    };
    // Without `from`, it is `to` that lies before all rows.
    let span = Span::new(interval, from, to).map_err(|error| match (error, from) {
        (SpanError::Backwards, None) => bad("to", "must be after 1970".to_owned()),
        (error, _) => bad("from", error.to_string()),
    })?;
    if interval == Interval::Hour && span.from < kept_from {
        let detail =
            format!("is before {kept_from}, from where on hours are kept; ask for interval=day");
        return Err(bad("from", detail));
    }
    Ok(UsageQuery { span, tenant })
}

fn read_query(
    state: &AdminState,
    pairs: Vec<(String, String)>,
    has_tenant: bool,
) -> Result<UsageQuery, ApiError> {
    let now = state.clock.now();
    let kept_from = kept_from(now, state.usage_retention);
    usage_query(pairs, has_tenant, now, kept_from).map_err(|errors| ApiError::fields(&errors))
}

/// What something was used for.
#[derive(Debug, Serialize, ToSchema)]
pub struct UsageCounts {
    /// All requests with the right secret.
    requests: u64,
    /// Answered with a status of 400 to 499 that is not Sidekey's own refusal.
    errors_4xx: u64,
    errors_5xx: u64,
    /// Refused for another reason than a limit.
    denied: u64,
    rate_limited: u64,
    /// Of the requests' bodies.
    bytes_in: u64,
    /// Of the answers' bodies.
    bytes_out: u64,
}

/// Counts with latencies; 0 where there was no request.
#[derive(Debug, Serialize, ToSchema)]
pub struct UsageTotals {
    #[serde(flatten)]
    counts: UsageCounts,
    latency_ms_mean: f64,
    latency_ms_max: f64,
}

/// What something was used for in one hour, or one day.
#[derive(Debug, Serialize, ToSchema)]
pub struct UsageRow {
    #[schema(value_type = String, format = DateTime)]
    start: Timestamp,
    #[serde(flatten)]
    totals: UsageTotals,
}

/// What something was used for: rows, oldest first, without gaps.
#[derive(Debug, Serialize, ToSchema)]
pub struct UsageReport {
    #[schema(value_type = IntervalName, inline)]
    interval: &'static str,
    /// What was asked for, widened to whole rows.
    #[schema(value_type = String, format = DateTime)]
    from: Timestamp,
    #[schema(value_type = String, format = DateTime)]
    to: Timestamp,
    data: Vec<UsageRow>,
    totals: UsageTotals,
}

impl From<&Counts> for UsageCounts {
    fn from(counts: &Counts) -> Self {
        UsageCounts {
            requests: counts.requests,
            errors_4xx: counts.errors_4xx,
            errors_5xx: counts.errors_5xx,
            denied: counts.denied,
            rate_limited: counts.rate_limited,
            bytes_in: counts.bytes_in,
            bytes_out: counts.bytes_out,
        }
    }
}

impl From<&Counts> for UsageTotals {
    fn from(counts: &Counts) -> Self {
        UsageTotals {
            counts: counts.into(),
            latency_ms_mean: latency_ms_mean(counts),
            latency_ms_max: latency_ms_max(counts),
        }
    }
}

async fn answer(state: &AdminState, subject: &Subject, span: Span) -> Result<Response, ApiError> {
    let report = Report::read(state, subject, span).await?;
    let data = report.rows.iter().map(|(start, counts)| UsageRow {
        start: *start,
        totals: counts.into(),
    });
    let body = UsageReport {
        interval: span.interval.as_str(),
        from: span.from,
        to: span.to,
        data: data.collect(),
        totals: (&report.totals).into(),
    };
    Ok(private(StatusCode::OK, body))
}

/// What a key was used for
///
/// Needs `sidekey:usage:read`. Another tenant's key is not there.
#[utoipa::path(get, path = "/api/v1/platform/api-keys/{key_id}/usage", operation_id = "key_usage", tag = "usage",
    params(KeyIdParameter, SpanParameters),
    responses((status = 200, body = UsageReport, description = "Its usage."), ReadProblems))]
pub async fn of_key(
    State(state): Shared,
    caller: Caller,
    IdText(id): IdText,
    Query(pairs): Query<Vec<(String, String)>>,
) -> Result<Response, ApiError> {
    let actor = caller.authorize(&state, Permission::UsageRead)?;
    let record = find(&state, &actor, &id).await?;
    let query = read_query(&state, pairs, false)?;
    answer(&state, &Subject::Key(record.id), query.span).await
}

/// What a tenant was used for, or the whole platform
///
/// Needs `sidekey:usage:read`; for the platform, which is without `tenant_id`, `sidekey:admin`.
#[utoipa::path(get, path = "/api/v1/platform/usage", operation_id = "usage", tag = "usage",
    params(TenantParameter, SpanParameters),
    responses((status = 200, body = UsageReport, description = "The usage."), ReadProblems))]
pub async fn of_all(
    State(state): Shared,
    caller: Caller,
    Query(pairs): Query<Vec<(String, String)>>,
) -> Result<Response, ApiError> {
    let actor = caller.authorize(&state, Permission::UsageRead)?;
    let query = read_query(&state, pairs, true)?;
    let subject = match query.tenant {
        Some(tenant) if actor.sees(&tenant) => Subject::Tenant(tenant),
        Some(_) => return Err(ApiError::new(Kind::NotFound, "There is no such tenant.")),
        None => {
            actor.require_admin()?;
            Subject::Platform
        }
    };
    answer(&state, &subject, query.span).await
}

/// What a key was used for over all time.
pub async fn total(state: &AdminState, key: KeyId) -> Result<UsageCounts, ApiError> {
    let total = state.usage.usage_total(key).await.map_err(KeyError::from)?;
    Ok((&total).into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::usage::counts::{DAY_MS, HOUR_MS};
    use serde_json::json;

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    const NOW_MS: i64 = 1_000 * DAY_MS + 5 * HOUR_MS + 1;

    fn query(pairs: &[(&str, &str)], has_tenant: bool) -> Result<UsageQuery, Vec<String>> {
        let pairs = pairs
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        usage_query(pairs.collect(), has_tenant, at(NOW_MS), at(600 * DAY_MS))
            .map_err(|errors| errors.into_iter().map(|error| error.field).collect())
    }

    #[test]
    fn a_query_needs_nothing() {
        let query = query(&[], true).unwrap();
        assert_eq!(query.span.interval, Interval::Day);
        assert_eq!(query.span.from, at(970 * DAY_MS));
        assert_eq!(query.span.to, at(1_001 * DAY_MS));
        assert_eq!(query.tenant, None);
    }

    #[test]
    fn all_bad_fields_are_named() {
        let bad = |pairs: &[(&str, &str)], has_tenant| query(pairs, has_tenant).err().unwrap();
        assert_eq!(
            bad(
                &[
                    ("interval", "week"),
                    ("from", "yesterday"),
                    ("to", ""),
                    ("tenant_id", "../x"),
                    ("x", "1"),
                ],
                true
            ),
            ["interval", "from", "to", "tenant_id", "x"]
        );
        assert_eq!(bad(&[("tenant_id", "acme")], false), ["tenant_id"]);
        let day = "1972-01-01T00:00:00Z";
        assert_eq!(bad(&[("from", day), ("to", day)], true), ["from"]);
        assert_eq!(bad(&[("to", "1970-01-01T00:00:00Z")], true), ["to"]);
        assert_eq!(
            bad(&[("interval", "hour"), ("from", day)], true),
            ["from"],
            "too long"
        );
        let old = [("interval", "hour"), ("to", "1971-06-01T00:00:00Z")];
        assert_eq!(bad(&old, true), ["from"], "not kept");
        assert!(query(&[("from", day)], true).is_ok());
    }

    #[test]
    fn latencies_have_three_decimals() {
        let counts = Counts {
            requests: 3,
            latency_us_sum: 10_000,
            latency_us_max: 4_321,
            ..Counts::default()
        };
        let row = json!(UsageRow {
            start: at(0),
            totals: (&counts).into()
        });
        assert_eq!(row["start"], "1970-01-01T00:00:00Z");
        assert_eq!(row["latency_ms_mean"], json!(3.333));
        assert_eq!(row["latency_ms_max"], json!(4.321));
        assert_eq!(
            json!(UsageTotals::from(&Counts::default()))["latency_ms_mean"],
            json!(0.0)
        );
    }
}
