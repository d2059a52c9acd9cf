//! What is noted of a call beside its answer: who signed in with it, and that it was refused. Handlers and
//! extractors say what they know while they work; when there is an answer, it is noted.
//!
//! A 404 to a caller of one tenant is noted whether or not there is such a thing. If only those were that
//! hide another tenant's things, the caller's own audit log would tell which of them exist, by an entry
//! or by a gap between two.

use std::cell::RefCell;
use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::middleware::Next;
use axum::response::Response;

use super::{AdminState, client, request_id};
use crate::audit::recorder::Refusal;
use crate::audit::{Actor, Origin};
use crate::key::format::redact;
use crate::key::{KeyId, TenantId};
use crate::problem::Kind;

/// A path is noted up to this many characters.
const PATH_LEN_MAX: usize = 256;
/// One segment of a path: what names nothing is longer.
const SEGMENT_LEN_MAX: usize = 64;

/// What is known of the caller by now.
#[derive(Debug, Default)]
struct Seen {
    /// Whose key was proven.
    caller: Option<(KeyId, TenantId)>,
    /// The key that was named and not proven.
    presented: Option<KeyId>,
    /// Whether the key may do what it asked for.
    is_allowed: bool,
    /// Whether it sees every tenant.
    is_admin: bool,
}

tokio::task_local! {
    static SEEN: RefCell<Seen>;
}

fn see(edit: impl FnOnce(&mut Seen)) {
    // What is not a call has nobody to note it.
    let _ = SEEN.try_with(|seen| edit(&mut seen.borrow_mut()));
}

/// The call's key is proven to be `key`.
pub fn proven(key: KeyId, tenant: &TenantId) {
    see(|seen| {
        seen.caller = Some((key, tenant.clone()));
        seen.presented = None;
    });
}

/// The call has named `key` and is not known to hold it.
pub fn presented(key: KeyId) {
    see(|seen| seen.presented = Some(key));
}

/// The proven key may do what it asked for.
pub fn allowed(is_admin: bool) {
    see(|seen| {
        seen.is_allowed = true;
        seen.is_admin = is_admin;
    });
}

/// Lets the call be answered, and notes what there is to note of it.
pub async fn note(State(state): State<Arc<AdminState>>, request: Request, next: Next) -> Response {
    let address = client::of(request.extensions());
    let method = request.method().to_string();
    let path = shown_path(request.uri().path());
    let answer = async {
        let response = next.run(request).await;
        let seen = SEEN.with(RefCell::take);
        (response, seen)
    };
    let (response, seen) = SEEN.scope(RefCell::default(), answer).await;
    note_sign_in(&state, &seen, address);
    if let Some(kind) = refusal(&response, &seen) {
        let (caller, tenant_id) = seen.caller.unzip();
        state.recorder.refused(Refusal {
            origin: origin(caller.map_or(Actor::Unknown, Actor::Key), address),
            tenant_id,
            presented: seen.presented,
            method,
            path,
            status: kind.status(),
            problem: kind.uri(),
        });
    }
    response
}

fn origin(actor: Actor, address: IpAddr) -> Origin {
    Origin {
        actor,
        address: Some(address),
        request_id: Some(request_id::current()),
    }
}

fn note_sign_in(state: &AdminState, seen: &Seen, address: IpAddr) {
    if let (Some((key, tenant)), true) = (&seen.caller, seen.is_allowed) {
        let origin = origin(Actor::Key(*key), address);
        state.recorder.signed_in(*key, tenant.clone(), origin);
    }
}

/// The problem of an answer that refuses a call.
fn refusal(response: &Response, seen: &Seen) -> Option<Kind> {
    let kind = response.extensions().get::<Kind>().copied()?;
    let is_refused = match response.status() {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::TOO_MANY_REQUESTS => true,
        StatusCode::NOT_FOUND => seen.is_allowed && !seen.is_admin,
        _ => false,
    };
    is_refused.then_some(kind)
}

/// A path of which only what can be a name is left: somebody may have put a key where it does not belong.
fn shown_path(path: &str) -> String {
    let is_name = |segment: &str| {
        segment.len() <= SEGMENT_LEN_MAX
            && segment
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
    };
    let segments = path
        .split('/')
        .map(|segment| if is_name(segment) { segment } else { "..." });
    let shown = segments.collect::<Vec<_>>().join("/");
    let mut shown = redact(&shown).into_owned();
    // ASCII by now, so any place is between two characters.
    shown.truncate(PATH_LEN_MAX);
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_shows_names_alone() {
        let key = format!("sk_live_4fzN8cQ2pLrT_{}", "s".repeat(54));
        let short = format!("sk_live_4fzN8cQ2pLrT_{}", "s".repeat(20));
        for (path, shown) in [
            (
                "/api/v1/api-keys/4fzN8cQ2pLrT",
                "/api/v1/api-keys/4fzN8cQ2pLrT",
            ),
            (&*format!("/x/{key}/y"), "/x/.../y"),
            (&*format!("/x/{short}"), "/x/sk_live_4fzN8cQ2pLrT_..."),
            ("/x/sk%5Flive", "/x/..."),
            ("/ü", "/..."),
        ] {
            assert_eq!(shown_path(path), shown);
        }
        assert_eq!(shown_path(&"/abc".repeat(1000)).len(), PATH_LEN_MAX);
    }
}
