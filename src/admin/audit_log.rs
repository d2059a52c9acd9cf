//! What callers may read of the audit log, whichever way they ask: filters, the boundary of tenants, and
//! exports. The API makes JSON of it, the dashboard pages.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use tokio::sync::mpsc;

use super::AdminState;
use super::access::{Actor, Caller, Permission};
use super::answer::ApiError;
use super::api::query;
use super::long_work;
use crate::audit::{self, Action};
use crate::manage::KeyError;
use crate::store::{EventFilter, EventRange, Order, StoreError};

/// The media type of an export.
pub const EXPORT_MEDIA_TYPE: &str = "application/jsonl";
/// Events that an export reads at once.
const EXPORT_PAGE_LEN: usize = 200;
/// Pages that an export has read before its reader wants them.
const EXPORT_PAGES_AHEAD: usize = 1;
/// How long an export may take.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(1800);

/// Takes a parameter into `filter`; `false` where no filter has that name.
pub fn take(filter: &mut EventFilter, name: &str, value: &str) -> Result<bool, query::Detail> {
    match name {
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

/// Where a page starts, as addresses have it.
pub fn write_cursor(seq: i64) -> String {
    URL_SAFE_NO_PAD.encode(seq.to_string())
}

pub fn read_cursor(text: &str) -> Option<i64> {
    String::from_utf8(URL_SAFE_NO_PAD.decode(text).ok()?)
        .ok()?
        .parse()
        .ok()
}

/// Holds a filter to the actor's own tenant; `false` where it asks for another's, whose events are not
/// there.
pub fn restrict(filter: &mut EventFilter, actor: &Actor) -> bool {
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

/// A failure of the store, as an answer.
pub fn failed(error: StoreError) -> ApiError {
    KeyError::from(error).into()
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

/// What `actor` may see of what `filter` lets through: one event a line, oldest first, as it was hashed.
/// `caller` is who asked, and is asked for again as long as it takes.
pub async fn export(
    state: Arc<AdminState>,
    caller: Caller,
    actor: &Actor,
    mut filter: EventFilter,
) -> Result<Body, ApiError> {
    if !restrict(&mut filter, actor) {
        return Ok(Body::empty());
    }
    let permit = long_work::begin(&state.exports, actor)?;
    let range = state.audit.event_range(&filter).await;
    let mut range = range.map_err(failed)?.in_order(Order::OldestFirst);
    // What is added meanwhile is for the next export: this one has an end.
    let head = state.audit.audit_head().await.map_err(failed)?;
    range.last = range.last.min(head.map_or(i64::MAX, |head| head.seq));
    let (sender, receiver) = mpsc::channel(EXPORT_PAGES_AHEAD);
    tokio::spawn(async move {
        let sending = send_all(&state, &caller, &filter, range, &sender);
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
    Ok(Body::from_stream(pages))
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

    #[test]
    fn cursors_survive_writing_and_reading() {
        assert_eq!(read_cursor(&write_cursor(17)), Some(17));
        assert_eq!(read_cursor("?"), None);
    }
}
