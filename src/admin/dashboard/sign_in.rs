//! Signing in with an admin key, and out. The key comes in a form, never in an address, and is forgotten
//! with the request.

use std::net::IpAddr;
use std::sync::Arc;

use askama::Template;
use axum::extract::{RawQuery, Request, State};
use axum::http::StatusCode;
use axum::http::header::SET_COOKIE;
use axum::response::Response;
use zeroize::Zeroizing;

use super::cookie::SessionCookie;
use super::form::{self, Form};
use super::next::{own_path, sign_in_path};
use super::page::{Fragment, Page, PageError, go, marked, render, status_of};
use super::session::{self, Absence, Visitor};
use super::token::Token;
use super::{HOME_PATH, origin};
use crate::admin::AdminState;
use crate::admin::answer::ApiError;
use crate::admin::{access, client, counted};
use crate::problem::Kind;
use crate::telemetry::admin::SignIn;

type Shared = State<Arc<AdminState>>;

#[derive(Template)]
#[template(path = "sign_in.html")]
struct SignInPage {
    page: Page,
    /// What was wrong with the key.
    error: Option<String>,
    /// Where to go then: one of our own paths.
    next: String,
    /// Whether the browser sent no session: it may yet have one.
    is_stranger: bool,
}

/// The form; whoever is signed in already goes on, unless the key has a new secret by now.
pub async fn show(
    State(state): Shared,
    RawQuery(query): RawQuery,
    request: Request,
) -> Result<Response, PageError> {
    let query = query.unwrap_or_default();
    let query: Vec<(String, String)> = form_urlencoded::parse(query.as_bytes())
        .into_owned()
        .collect();
    let next = next_of(&query);
    let (headers, extensions) = (request.headers(), request.extensions());
    let is_stranger = match session::visitor(&state, headers, extensions).await {
        Ok(visitor) if visitor.caller.is_current() => return Ok(go(Fragment(false), &next)),
        Err(Absence::Unknown(error)) => return refused(&error, next),
        Ok(_) | Err(Absence::Ended) => false,
        Err(Absence::Stranger) => true,
    };
    let page = SignInPage {
        page: Page::for_anybody("Sign in").after(&query, is_about_sessions),
        error: None,
        next,
        is_stranger,
    };
    render(StatusCode::OK, &page)
}

/// Whether somebody is signed in, for the script of the sign-in page: who follows a link from elsewhere,
/// a mail say, comes without the cookie, which the next request from our own page carries.
pub async fn is_signed_in(_: Visitor) -> StatusCode {
    StatusCode::NO_CONTENT
}

/// Begins a session.
pub async fn sign_in(State(state): Shared, request: Request) -> Result<Response, PageError> {
    let url = state.dashboard.settings.url.as_deref();
    origin::check(request.headers(), url)
        .inspect_err(|_| state.counted.signed_in(SignIn::Refused))?;
    let client = client::of(request.extensions());
    let cookie = SessionCookie::of(&state.dashboard.settings);
    let before = cookie.read(request.headers());
    let mut pairs = form::pairs(request).await?;
    let next = next_of(&pairs);
    let key = pairs.iter_mut().find(|(name, _)| name == "key");
    let key = Zeroizing::new(key.map(|(_, key)| std::mem::take(key)).unwrap_or_default());
    match begin(&state, key.trim(), client, before).await {
        Ok(token) => {
            state.counted.signed_in(SignIn::Ok);
            let mut response = go(Fragment(false), &next);
            response
                .headers_mut()
                .insert(SET_COOKIE, cookie.set(&token));
            Ok(response)
        }
        Err(error) => {
            let result = counted::failed_sign_in(error.problem.kind);
            state.counted.signed_in(result);
            refused(&error, next)
        }
    }
}

/// Proves `key` and begins a session, under a new token; the one that the browser had is ended.
async fn begin(
    state: &AdminState,
    key: &str,
    client: IpAddr,
    before: Option<Token>,
) -> Result<Token, ApiError> {
    if key.is_empty() {
        return Err(ApiError::new(Kind::MissingCredential, "Enter your key."));
    }
    let dashboard = &state.dashboard;
    // Counted here alone: who guesses at a page's form keeps no program from the API.
    let caller = access::prove(state, key, client, &dashboard.failures).await?;
    let generation = caller.authorize_sign_in(state)?;
    let sessions = &dashboard.sessions;
    let begun = sessions.begin(caller.key_id(), generation).await;
    let begun = begun.map_err(|error| session::unavailable(&error))?;
    if let Some(before) = before
        && let Err(error) = sessions.end(&before).await
    {
        // The browser has forgotten it, and it ends in time.
        tracing::warn!(%error, "the session before a sign-in could not be ended");
    }
    Ok(begun)
}

/// The form again, with what was wrong beside it.
fn refused(error: &ApiError, next: String) -> Result<Response, PageError> {
    let page = SignInPage {
        page: Page::for_anybody("Sign in"),
        error: Some(told(error)),
        next,
        is_stranger: false,
    };
    Ok(marked(render(status_of(error), &page)?, error))
}

/// One wording for every key that is none. What else is wrong only a right key gets to know.
fn told(error: &ApiError) -> String {
    let text = match error.problem.kind {
        Kind::InvalidKey => {
            "This is not a valid key. Check that it was copied whole, or ask for a new one."
        }
        Kind::ExpiredKey => "This key has expired. Ask for a new one.",
        Kind::DisabledKey => "This key is disabled. Ask for it to be enabled again.",
        Kind::SuspendedTenant => {
            "The tenant of this key is suspended. Ask an administrator to resume it."
        }
        _ => &error.problem.detail,
    };
    match error.retry_after_seconds {
        Some(1) => format!("{text} Try again in a second."),
        Some(seconds) => format!("{text} Try again in {seconds} seconds."),
        None => text.to_owned(),
    }
}

/// Whether something was done that has led here.
fn is_about_sessions(done: &str) -> bool {
    matches!(done, "signed-out" | session::ENDED)
}

/// Where to go after signing in.
fn next_of(pairs: &[(String, String)]) -> String {
    let next = own_path(form::value(pairs, "next"));
    next.unwrap_or(HOME_PATH).to_owned()
}

/// Ends the session.
pub async fn sign_out(State(state): Shared, form: Form) -> Result<Response, PageError> {
    let dashboard = &state.dashboard;
    let ended = dashboard.sessions.end(&form.visitor.token).await;
    ended.map_err(|error| session::unavailable(&error))?;
    form.visitor.caller.note_sign_out(&state);
    let mut response = go(Fragment(false), &sign_in_path(None, Some("signed-out")));
    let cleared = SessionCookie::of(&dashboard.settings).cleared();
    response.headers_mut().insert(SET_COOKIE, cleared);
    Ok(response)
}
