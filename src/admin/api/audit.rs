//! The audit log over HTTP: pages, newest first, and exports, oldest first.

use axum::body::Body;
use axum::extract::{Query, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};

use super::audit_schemas::{AuditPageBody, EventPageParameters, EventParameters};
use super::problems::ListProblems;
use super::{Shared, query};
use crate::admin::access::{Caller, Permission};
use crate::admin::answer::ApiError;
use crate::admin::audit_log::{
    self, EXPORT_MEDIA_TYPE, failed, read_cursor, restrict, write_cursor,
};
use crate::admin::input::FieldError;
use crate::audit::entry::Entry;
use crate::store::EventFilter;

/// Events in a page where the request doesn't say.
const PAGE_LEN_DEFAULT: usize = 50;

/// What a list or an export is asked for.
struct EventQuery {
    filter: EventFilter,
    after: Option<i64>,
    limit: usize,
}

/// Reads a query. Only a list has pages.
fn event_query(
    pairs: Vec<(String, String)>,
    has_pages: bool,
) -> Result<EventQuery, Vec<FieldError>> {
    let mut query = EventQuery {
        filter: EventFilter::default(),
        after: None,
        limit: PAGE_LEN_DEFAULT,
    };
    query::read(&pairs, |name, value| {
        match name {
            "limit" if has_pages => query.limit = query::page_len(value)?,
            "cursor" if has_pages => query.after = Some(query::cursor(read_cursor(value))?),
            _ => return audit_log::take(&mut query.filter, name, value),
        }
        Ok(true)
    })?;
    Ok(query)
}

/// An answer that no cache may keep, of text that is JSON already: an event is shown as it was hashed.
fn text(media_type: &'static str, body: impl Into<Body>) -> Response {
    let mut response = (StatusCode::OK, body.into()).into_response();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

pub(super) fn json(body: impl Into<Body>) -> Response {
    text("application/json", body)
}

fn page_body(entries: &[Entry], next: Option<i64>) -> String {
    let lines: Vec<String> = entries.iter().map(Entry::line).collect();
    let next = next.map(write_cursor);
    let next = serde_json::Value::from(next);
    format!(r#"{{"data":[{}],"next_cursor":{next}}}"#, lines.join(","))
}

/// List audit events
///
/// Newest first. Needs `sidekey:audit:read`; without `sidekey:admin` it has what was done to the own
/// tenant's things. A page may be short, and another follow all the same.
#[utoipa::path(get, path = "/api/v1/platform/audit-events", operation_id = "list_audit_events", tag = "audit",
    params(EventParameters, EventPageParameters),
    responses((status = 200, body = AuditPageBody, description = "A page of the log."), ListProblems))]
pub async fn list(
    State(state): Shared,
    caller: Caller,
    Query(pairs): Query<Vec<(String, String)>>,
) -> Result<Response, ApiError> {
    let actor = caller.authorize(&state, Permission::AuditRead)?;
    let mut query = event_query(pairs, true).map_err(|errors| ApiError::fields(&errors))?;
    if !restrict(&mut query.filter, &actor) {
        // Another tenant's events are not there.
        return Ok(json(page_body(&[], None)));
    }
    let range = state.audit.event_range(&query.filter).await;
    let mut range = range.map_err(failed)?;
    if let Some(seq) = query.after {
        range = range.after(seq);
    }
    let page = state.audit.events(&query.filter, range, query.limit).await;
    let page = page.map_err(failed)?;
    Ok(json(page_body(&page.entries, page.next)))
}

/// Export audit events
///
/// JSON lines, oldest first, as they were hashed. Needs `sidekey:audit:read`.
#[utoipa::path(get, path = "/api/v1/platform/audit-events/export", operation_id = "export_audit_events",
    tag = "audit", params(EventParameters),
    responses(
        (status = 200, description = "One event a line.", content_type = "application/jsonl", body = String),
        ListProblems,
    ))]
pub async fn export(
    State(state): Shared,
    caller: Caller,
    Query(pairs): Query<Vec<(String, String)>>,
) -> Result<Response, ApiError> {
    let actor = caller.authorize(&state, Permission::AuditRead)?;
    let query = event_query(pairs, false).map_err(|errors| ApiError::fields(&errors))?;
    let lines = audit_log::export(state, caller, &actor, query.filter).await?;
    Ok(text(EXPORT_MEDIA_TYPE, lines))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(query: &str) -> Vec<(String, String)> {
        form_urlencoded::parse(query.as_bytes())
            .into_owned()
            .collect()
    }

    #[test]
    fn every_bad_parameter_is_named() {
        let all = "key_id=x&tenant_id=/&actor=x&action=x&from=x&to=x&limit=0&cursor=x&status=x";
        let errors = event_query(pairs(all), true).err().unwrap_or_default();
        assert_eq!(errors.len(), 9);
        let errors = event_query(pairs("limit=1&cursor=MQ"), false).err();
        assert_eq!(errors.unwrap_or_default().len(), 2);
    }
}
