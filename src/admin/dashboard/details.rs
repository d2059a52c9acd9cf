//! The page of a key: what it is, what it was used for, what happened to it.
//!
//! Who may see keys sees the page; its usage and its events are there for those alone who may see such.

mod facts;
mod scopes;
mod usage;

use std::sync::Arc;

use askama::Template;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::Response;

use super::KEYS_PATH;
use super::audit::AUDIT_PATH;
use super::events::{self, EventRow};
use super::moment::Moment;
use super::page::{Page, PageError, Section, render};
use super::path::IdText;
use super::session::Visitor;
use super::unconfirmed::Unconfirmed;
use crate::admin::AdminState;
use crate::admin::access::{Actor, Caller, Permission};
use crate::admin::answer::ApiError;
use crate::admin::operations::Uses;
use crate::admin::operations::keys::find;
use crate::clock::Timestamp;
use crate::key::record::{Standing, Status};
use crate::key::{KeyRecord, TenantRecord};
use crate::manage::fields::FIRST_REVISION;
use crate::manage::{KeyError, TenantError};
use crate::store::EventFilter;
use facts::{Facts, LastUsed};
use usage::UsageSection;
pub use usage::csv;

type Shared = State<Arc<AdminState>>;

/// Events that the page shows; the others are in the audit log.
const EVENTS_LEN: usize = 10;

/// What the visitor may do with the key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Actions {
    may_edit: bool,
    may_disable: bool,
    may_enable: bool,
    /// To regenerate, to revoke, to end the old secret.
    may_end: bool,
}

impl Actions {
    fn of(caller: &Caller, actor: &Actor, key: &KeyRecord, now: Timestamp) -> Self {
        let status = key.status(now);
        let may_write = caller.may_write() && status != Status::Revoked;
        let may_edit = may_write && actor.require_power_over(&key.scopes).is_ok();
        Actions {
            may_edit,
            may_disable: may_edit && status != Status::Disabled,
            may_enable: may_edit && status == Status::Disabled,
            may_end: may_write && actor.require_power_to_end(key).is_ok(),
        }
    }
}

/// The old secret while its grace period runs.
#[derive(Debug)]
struct Overlap {
    until: Moment,
    last_used: Option<LastUsed>,
    /// Whether it was used after the new one was made: somebody has not moved yet.
    is_in_use: bool,
}

impl Overlap {
    fn of(key: &KeyRecord, uses: &Uses, now: Timestamp) -> Option<Self> {
        let previous = key.previous.filter(|old| now < old.valid_until)?;
        if key.status(now) == Status::Revoked {
            return None;
        }
        let last = uses.of_previous(key);
        Some(Overlap {
            until: previous.valid_until.into(),
            is_in_use: last.is_some_and(|last| last.at > key.secret_created_at),
            last_used: last.map(LastUsed::from),
        })
    }
}

#[derive(Template)]
#[template(path = "details.html")]
struct DetailsPage {
    page: Page,
    path: String,
    audit_path: String,
    key: Facts,
    actions: Actions,
    /// Who has not confirmed what has just been done.
    unconfirmed: Option<Unconfirmed>,
    overlap: Option<Overlap>,
    /// None for whom usage is not shown.
    usage: Option<UsageSection>,
    /// None for whom events are not shown.
    recent: Option<Vec<EventRow>>,
}

/// The page.
pub async fn show(
    State(state): Shared,
    visitor: Visitor,
    IdText(id): IdText,
    Query(query): Query<Vec<(String, String)>>,
) -> Result<Response, PageError> {
    let caller = &visitor.caller;
    let actor = caller.authorize(&state, Permission::KeysRead)?;
    let key = find(&state, &actor, &id).await?;
    let now = state.clock.now();
    let uses = Uses::of(&state, std::slice::from_ref(&key)).await?;
    let total = state.usage.usage_total(key.id).await;
    let total = total.map_err(KeyError::from).map_err(ApiError::from)?;
    let tenant = tenant(&state, &key).await?;
    let may_see_usage = caller.authorize(&state, Permission::UsageRead).is_ok();
    let usage = if may_see_usage {
        Some(UsageSection::read(&state, &key, &query).await?)
    } else {
        None
    };
    let recent = if caller.authorize(&state, Permission::AuditRead).is_ok() {
        Some(recent(&state, caller, &key).await?)
    } else {
        None
    };
    let page = Page::new(&visitor, &*key.name, Section::Keys);
    let page = page.after(&query, |done| shows(&key, done, now));
    let details = DetailsPage {
        page,
        path: format!("{KEYS_PATH}/{}", key.id),
        audit_path: format!("{AUDIT_PATH}?key_id={}", key.id),
        actions: Actions::of(caller, &actor, &key, now),
        unconfirmed: Unconfirmed::after(&state, &query).await,
        overlap: Overlap::of(&key, &uses, now),
        key: Facts::of(&state.deployment, &key, tenant.as_ref(), &uses, &total, now),
        usage,
        recent,
    };
    render(StatusCode::OK, &details)
}

/// Whether `key` is as it would be if `done` had been done to it.
fn shows(key: &KeyRecord, done: &str, now: Timestamp) -> bool {
    match done {
        "saved" => key.revision > FIRST_REVISION,
        "disabled" => key.standing == Standing::Disabled,
        "enabled" => key.standing == Standing::Active,
        "revoked" => key.standing == Standing::Revoked,
        "overlap-ended" => key.previous.is_none_or(|old| old.valid_until <= now),
        _ => false,
    }
}

/// Whom the key belongs to, where that is known.
async fn tenant(state: &AdminState, key: &KeyRecord) -> Result<Option<TenantRecord>, ApiError> {
    match state.tenants.get(&key.tenant_id).await {
        Ok(tenant) => Ok(Some(tenant)),
        Err(TenantError::NotFound) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// What happened to the key last. Who sees the key sees what happened to it in its tenant.
async fn recent(
    state: &AdminState,
    caller: &Caller,
    key: &KeyRecord,
) -> Result<Vec<EventRow>, ApiError> {
    let filter = EventFilter {
        key_id: Some(key.id),
        tenant_id: Some(key.tenant_id.clone()),
        ..EventFilter::default()
    };
    let range = state.audit.event_range(&filter).await;
    let range = range.map_err(KeyError::from)?;
    let page = state.audit.events(&filter, range, EVENTS_LEN).await;
    let page = page.map_err(KeyError::from)?;
    Ok(events::rows(&page.entries, caller.into()))
}
