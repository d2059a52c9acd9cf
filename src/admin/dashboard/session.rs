//! Who is signed in. A session is no authority of its own: on every request its key is held to what it is
//! now, and what a page may show is asked of the same [`Caller`] that the API asks.

use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::header::REFERER;
use axum::http::request::Parts;
use axum::http::{Extensions, HeaderMap, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use url::Position;

use super::cookie::SessionCookie;
use super::next::sign_in_path;
use super::page::{self, Fragment, Frame, PageError};
use super::token::Token;
use crate::admin::AdminState;
use crate::admin::access::Caller;
use crate::admin::answer::ApiError;
use crate::admin::client;
use crate::key::{Denial, KeyId};
use crate::manage::KeyError;
use crate::store::{Session, StoreError};
use crate::verify::{Proof, Refusal};

/// Said on the sign-in page to whose session has ended.
pub const ENDED: &str = "session-ended";

/// Somebody who is signed in.
pub struct Visitor {
    pub caller: Caller,
    /// What every form has to bring back.
    pub csrf: String,
    /// The name of the key that signed in; empty where it can't be said now.
    pub key_name: String,
    pub(super) token: Token,
}

/// Why nobody is signed in.
pub enum Absence {
    /// The browser holds no session.
    Stranger,
    /// It holds one that is over, or whose key may not act any more.
    Ended,
    /// It can't be said now.
    Unknown(ApiError),
}

impl From<StoreError> for Absence {
    fn from(error: StoreError) -> Self {
        Absence::Unknown(unavailable(&error))
    }
}

/// A session can't be read or written now.
pub fn unavailable(error: &StoreError) -> ApiError {
    KeyError::Unavailable(error.to_string()).into()
}

/// Who has sent a request with these fields.
pub async fn visitor(
    state: &AdminState,
    headers: &HeaderMap,
    extensions: &Extensions,
) -> Result<Visitor, Absence> {
    let dashboard = &state.dashboard;
    let token = SessionCookie::of(&dashboard.settings).read(headers);
    let token = token.ok_or(Absence::Stranger)?;
    let session = dashboard.sessions.find(&token).await?;
    let session = session.ok_or(Absence::Ended)?;
    let key = match state.verifier.revive(session.key_id).await {
        Ok(key) => key,
        Err(Refusal::Invalid) => return Err(end(state, &token, session.key_id).await),
        Err(Refusal::Unavailable) => {
            let cause = "the key of a session could not be read";
            return Err(Absence::Unknown(
                KeyError::Unavailable(cause.to_owned()).into(),
            ));
        }
    };
    let Session { generation, .. } = session;
    let client = client::of(extensions);
    let view = key.view_full();
    match view.admits(generation, client, state.clock.now()) {
        Ok(()) => {}
        Err(Denial::Revoked | Denial::Superseded) => {
            return Err(end(state, &token, session.key_id).await);
        }
        // It may be let in again.
        Err(Denial::Disabled | Denial::Expired | Denial::Suspended | Denial::Address) => {
            return Err(Absence::Ended);
        }
    }
    // A page does without it.
    let record = dashboard.records.of(&view).await.ok();
    let key_name = record.map(|record| record.name.clone());
    Ok(Visitor {
        caller: Caller::proven(Proof { key, generation }, client),
        csrf: token.csrf(),
        key_name: key_name.unwrap_or_default(),
        token,
    })
}

/// Ends the session of a key that will not come back.
async fn end(state: &AdminState, token: &Token, key: KeyId) -> Absence {
    if let Err(error) = state.dashboard.sessions.end(token).await {
        tracing::warn!(%error, key_id = %key, "a session whose key has ended could not be forgotten");
    }
    Absence::Ended
}

/// The page where somebody is: for what is a part of it, or would be done there, the one that asked.
fn page_of(parts: &Parts, fragment: Fragment) -> Option<String> {
    if parts.method == Method::GET && !fragment.0 {
        return parts.uri.path_and_query().map(ToString::to_string);
    }
    let referer = parts.headers.get(REFERER)?.to_str().ok()?;
    let page = url::Url::parse(referer).ok()?;
    Some(page[Position::BeforePath..Position::AfterQuery].to_owned())
}

impl FromRequestParts<Arc<AdminState>> for Visitor {
    type Rejection = Response;

    async fn from_request_parts(
        parts: &mut Parts,
        state: &Arc<AdminState>,
    ) -> Result<Self, Response> {
        let absence = match visitor(state, &parts.headers, &parts.extensions).await {
            Ok(visitor) => {
                if let Some(frame) = parts.extensions.get::<Frame>() {
                    frame.seen_by(&visitor);
                }
                return Ok(visitor);
            }
            Err(absence) => absence,
        };
        let Ok(fragment) = Fragment::from_request_parts(parts, state).await;
        let done = match absence {
            Absence::Stranger => None,
            Absence::Ended => Some(ENDED),
            Absence::Unknown(error) => return Err(PageError::from(error).into_response()),
        };
        let path = sign_in_path(page_of(parts, fragment).as_deref(), done);
        Err(if fragment.0 {
            page::lead(StatusCode::UNAUTHORIZED, fragment, &path)
        } else {
            page::go(fragment, &path)
        })
    }
}
