//! The audit log over HTTP: pages, newest first, and exports, oldest first.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{Query, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use super::audit_schemas::{AuditPageBody, EventPageParameters, EventParameters};
use super::problems::ListProblems;
use super::{Shared, query};
use crate::admin::AdminState;
use crate::admin::access::{Actor, Caller, Permission};
use crate::admin::answer::ApiError;
use crate::admin::input::FieldError;
use crate::audit::entry::Entry;
use crate::audit::{self, Action};
use crate::manage::KeyError;
use crate::problem::Kind;
use crate::store::{EventFilter, EventRange, Order, StoreError};

/// Events in a page where the request doesn't say.
const PAGE_LEN_DEFAULT: usize = 50;
/// Events that an export reads at once.
const EXPORT_PAGE_LEN: usize = 200;
/// Pages that an export has read before its reader wants them.
const EXPORT_PAGES_AHEAD: usize = 1;
/// How long an export may take.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(1800);
/// Where nobody can be asked to wait for a number of seconds that is known.
const BUSY_SECONDS: u64 = 5;

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
    let filter = &mut query.filter;
    query::read(&pairs, |name, value| {
        match name {
            "limit" if has_pages => query.limit = query::page_len(value)?,
            "cursor" if has_pages => query.after = Some(query::cursor(read_cursor(value))?),
            "key_id" => filter.key_id = Some(query::parsed(value)?),
            "tenant_id" => filter.tenant_id = Some(query::parsed(value)?),
            "actor" => {
                let actor = read_actor(value);
                filter.actor = Some(actor.ok_or("must be a key's id, system or unknown")?);
            }
            "action" => {
                let action = Action::from_name(value);
                filter.action =
                    Some(action.ok_or_else(|| format!("must be one of: {}", action_names()))?);
            }
            "from" => filter.from = Some(query::time(value)?),
            "to" => filter.to = Some(query::time(value)?),
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    Ok(query)
}

fn read_actor(text: &str) -> Option<audit::Actor> {
    match text {
        "system" => Some(audit::Actor::System),
        "unknown" => Some(audit::Actor::Unknown),
        id => id.parse().ok().map(audit::Actor::Key),
    }
}

fn action_names() -> String {
    let names: Vec<_> = Action::ALL.iter().map(|action| action.as_str()).collect();
    names.join(", ")
}

fn write_cursor(seq: i64) -> String {
    URL_SAFE_NO_PAD.encode(seq.to_string())
}

fn read_cursor(text: &str) -> Option<i64> {
    String::from_utf8(URL_SAFE_NO_PAD.decode(text).ok()?)
        .ok()?
        .parse()
        .ok()
}

/// Holds a query to the actor's own tenant; `false` where it asks for another's.
fn restrict(filter: &mut EventFilter, actor: &Actor) -> bool {
    if actor.is_admin() {
        return true;
    }
    let own = filter.tenant_id.get_or_insert(actor.tenant_id.clone());
    *own == actor.tenant_id
}

/// Whether `actor` may see everything that `filter` lets through.
fn sees_all_of(filter: &EventFilter, actor: &Actor) -> bool {
    let tenant = filter.tenant_id.as_ref();
    actor.is_admin() || tenant.is_some_and(|tenant| actor.sees(tenant))
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

/// A failure of the store, as an answer.
pub(super) fn failed(error: StoreError) -> ApiError {
    KeyError::from(error).into()
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

/// Why an export ended early.
#[derive(Debug, thiserror::Error)]
enum ExportError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("it took longer than an export may")]
    TooLong,
    #[error("its reader may no longer see it")]
    Denied,
}

/// A permit for something that may take long, or an answer to come back later. Where there are several,
/// the last one is for administrators: tenants can't hold all of them.
pub(super) fn begin_long_work(
    permits: &Arc<Semaphore>,
    actor: &Actor,
) -> Result<OwnedSemaphorePermit, ApiError> {
    let kept_free = u32::from(!actor.is_admin());
    let permit = permits.clone().try_acquire_many_owned(1 + kept_free);
    let permit = permit.map(|mut permit| permit.split(1).unwrap_or(permit));
    permit.map_err(|_| {
        let mut error = ApiError::new(
            Kind::TemporaryReducedCapacity,
            format!("As many of these are under way as may be. Try again in {BUSY_SECONDS} s."),
        );
        error.retry_after_seconds = Some(BUSY_SECONDS);
        error
    })
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
    let mut query = event_query(pairs, false).map_err(|errors| ApiError::fields(&errors))?;
    if !restrict(&mut query.filter, &actor) {
        return Ok(text("application/jsonl", Body::empty()));
    }
    let permit = begin_long_work(&state.exports, &actor)?;
    let range = state.audit.event_range(&query.filter).await;
    let mut range = range.map_err(failed)?.in_order(Order::OldestFirst);
    // What is added meanwhile is for the next export: this one has an end.
    let head = state.audit.audit_head().await.map_err(failed)?;
    range.last = range.last.min(head.map_or(i64::MAX, |head| head.seq));
    let (sender, receiver) = mpsc::channel(EXPORT_PAGES_AHEAD);
    tokio::spawn(async move {
        let sending = send_all(&state, &caller, &query.filter, range, &sender);
        let result = match tokio::time::timeout(EXPORT_TIMEOUT, sending).await {
            Ok(result) => result,
            Err(_) => Err(ExportError::TooLong),
        };
        drop(permit);
        if let Err(error) = result {
            tracing::warn!(%error, "an export of the audit log ended early");
            // Breaks the answer off, so that it does not pass for a whole one. Who reads again will see it.
            let _ = sender.send(Err(error)).await;
        }
    });
    let pages = futures_util::stream::unfold(receiver, async |mut receiver| {
        receiver.recv().await.map(|page| (page, receiver))
    });
    Ok(text("application/jsonl", Body::from_stream(pages)))
}

/// Sends the lines of `range`, a page at a time, for as long as somebody reads them.
async fn send_all(
    state: &Arc<AdminState>,
    caller: &Caller,
    filter: &EventFilter,
    mut range: EventRange,
    to: &mpsc::Sender<Result<Bytes, ExportError>>,
) -> Result<(), ExportError> {
    loop {
        // It takes its time, and the caller's key may have been revoked meanwhile, or hold less.
        let actor = caller.authorize(state, Permission::AuditRead);
        if !actor.is_ok_and(|actor| sees_all_of(filter, &actor)) {
            return Err(ExportError::Denied);
        }
        let page = state.audit.events(filter, range, EXPORT_PAGE_LEN).await?;
        let mut lines = String::new();
        for entry in &page.entries {
            lines.push_str(&entry.line());
            lines.push('\n');
        }
        if !lines.is_empty() && to.send(Ok(lines.into())).await.is_err() {
            // Nobody reads any more, or the connection was closed because nobody did for too long.
            return Ok(());
        }
        match page.next {
            Some(seq) => range = range.after(seq),
            None => return Ok(()),
        }
    }
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

    #[test]
    fn cursors_survive_writing_and_reading() {
        assert_eq!(read_cursor(&write_cursor(17)), Some(17));
        assert_eq!(read_cursor("?"), None);
    }
}
