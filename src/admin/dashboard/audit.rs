//! The audit log: what happened, newest first, with filters; an export of it; and whether it is what was
//! written.

mod chain;
mod filters;

use std::sync::Arc;

use askama::Template;
use axum::Router;
use axum::extract::{Query, State};
use axum::http::header::{CONTENT_DISPOSITION, CONTENT_TYPE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use super::events::{self, EventRow, Reader};
use super::page::{Page, PageError, Section, render};
use super::session::Visitor;
use crate::admin::AdminState;
use crate::admin::access::{Actor, Permission};
use crate::admin::answer::ApiError;
use crate::admin::audit_log::{self, EXPORT_MEDIA_TYPE, failed, restrict, write_cursor};
use crate::admin::input::FieldError;
use crate::audit::entry::Entry;
use crate::store::{EventPage, EventRange, Order};
use chain::{Chain, ChainState};
use filters::{Choice, Filters, Place};

/// Where the audit log is.
pub const AUDIT_PATH: &str = "/dashboard/audit";
const EXPORT_NAME: HeaderValue =
    HeaderValue::from_static("attachment; filename=\"sidekey-audit-events.jsonl\"");
/// Events in a page.
const PAGE_LEN: usize = 25;

/// Its pages.
pub fn routes() -> Router<Arc<AdminState>> {
    Router::new()
        .route(AUDIT_PATH, get(show))
        .route(&format!("{AUDIT_PATH}/export.jsonl"), get(export))
        .route(
            &format!("{AUDIT_PATH}/verification"),
            get(chain::show).post(chain::verify),
        )
}

#[derive(Template)]
#[template(path = "audit.html")]
struct AuditPage {
    page: Page,
    is_admin: bool,
    tenant_id: String,
    chain: Chain,
    filters: Filters,
    actions: Vec<Choice>,
    events: Vec<EventRow>,
    /// Addresses of the neighbours, where there are some.
    newer: Option<String>,
    older: Option<String>,
    export: String,
}

/// A page of the log, and where its neighbours start.
#[derive(Default)]
struct Found {
    entries: Vec<Entry>,
    newer: Option<i64>,
    older: Option<i64>,
}

async fn show(
    State(state): State<Arc<AdminState>>,
    visitor: Visitor,
    Query(pairs): Query<Vec<(String, String)>>,
) -> Result<Response, PageError> {
    let actor = visitor.caller.authorize(&state, Permission::AuditRead)?;
    let mut filters = Filters::read(&pairs);
    let found = if filters.are_sound() {
        find(&state, &mut filters, &actor).await?
    } else {
        Found::default()
    };
    let status = if filters.are_sound() {
        StatusCode::OK
    } else {
        StatusCode::UNPROCESSABLE_ENTITY
    };
    let link = |name: &str, seq: i64| {
        let query = filters.query(Some((name, &write_cursor(seq))));
        format!("{AUDIT_PATH}?{query}")
    };
    let page = AuditPage {
        page: Page::new(&visitor, "Audit log", Section::Audit),
        is_admin: actor.is_admin(),
        tenant_id: actor.tenant_id.to_string(),
        chain: Chain::look(&state, &visitor, &actor).await?,
        actions: filters.actions(),
        events: events::rows(&found.entries, Reader::from(&visitor.caller)),
        newer: found.newer.map(|seq| link("before", seq)),
        older: found.older.map(|seq| link("cursor", seq)),
        export: format!("{AUDIT_PATH}/export.jsonl?{}", filters.query(None)),
        filters,
    };
    render(status, &page)
}

async fn find(state: &AdminState, filters: &mut Filters, actor: &Actor) -> Result<Found, ApiError> {
    if !restrict(&mut filters.filter, actor) {
        return Ok(Found::default());
    }
    let range = state.audit.event_range(&filters.filter).await;
    let range = range.map_err(failed)?;
    let read = async |range: EventRange| -> Result<EventPage, ApiError> {
        let filter = &filters.filter;
        // One more than is shown, so that no link leads to a page without any.
        let page = state.audit.events(filter, range, PAGE_LEN + 1).await;
        Ok(shortened(page.map_err(failed)?))
    };
    match filters.place {
        Place::Newest => Ok(newest(read(range).await?)),
        Place::After(seq) => {
            let page = read(range.after(seq)).await?;
            // Of an empty page the newer ones begin where it does.
            let first = page.entries.first().map(|entry| entry.seq);
            Ok(Found {
                newer: Some(first.unwrap_or(seq.saturating_sub(1))),
                older: page.next,
                entries: page.entries,
            })
        }
        Place::Before(seq) => {
            let page = read(range.in_order(Order::OldestFirst).after(seq)).await?;
            let Some(next) = page.next else {
                // The newest page, and a whole one.
                return Ok(newest(read(range).await?));
            };
            let mut entries = page.entries;
            entries.reverse();
            let last = entries.last().map(|entry| entry.seq);
            Ok(Found {
                newer: Some(next),
                older: Some(last.unwrap_or(seq.saturating_add(1))),
                entries,
            })
        }
    }
}

fn shortened(mut page: EventPage) -> EventPage {
    if page.entries.len() > PAGE_LEN {
        page.entries.truncate(PAGE_LEN);
        page.next = page.entries.last().map(|entry| entry.seq);
    }
    page
}

fn newest(page: EventPage) -> Found {
    Found {
        entries: page.entries,
        newer: None,
        older: page.next,
    }
}

async fn export(
    State(state): State<Arc<AdminState>>,
    visitor: Visitor,
    Query(pairs): Query<Vec<(String, String)>>,
) -> Result<Response, PageError> {
    let actor = visitor.caller.authorize(&state, Permission::AuditRead)?;
    let filters = Filters::read(&pairs);
    if !filters.are_sound() {
        let complaints = filters.complaints().into_iter();
        let errors = complaints.map(|(field, detail)| FieldError {
            field: field.to_owned(),
            detail: detail.to_owned(),
        });
        return Err(ApiError::fields(&errors.collect::<Vec<_>>()).into());
    }
    let lines = audit_log::export(state, visitor.caller, &actor, filters.filter).await?;
    let fields = [
        (CONTENT_TYPE, HeaderValue::from_static(EXPORT_MEDIA_TYPE)),
        (CONTENT_DISPOSITION, EXPORT_NAME),
    ];
    Ok((fields, lines).into_response())
}
