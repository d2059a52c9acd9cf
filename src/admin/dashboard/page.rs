//! What all pages share: their frame, how they are answered, how a failure looks.

use std::convert::Infallible;
use std::sync::{Arc, OnceLock};

use askama::Template;
use axum::extract::FromRequestParts;
use axum::http::header::{CONTENT_TYPE, LOCATION, RETRY_AFTER};
use axum::http::request::Parts;
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::{Html, IntoResponse, Response};

use super::assets;
use super::session::Visitor;
use crate::admin::access::Permission;
use crate::admin::answer::ApiError;
use crate::admin::request_id;
use crate::problem::{Kind, Problem};

/// Says that only a dialog's content is wanted.
const FRAGMENT: &str = "sidekey-fragment";
/// Where the script is to go: it can't see the target of a redirect.
const GO: &str = "sidekey-go";

/// The title where only the key's new secret would do.
const OUTDATED: &str = "Your key has a new secret";

/// The part of the dashboard that a page belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Section {
    Keys,
    Overview,
    Audit,
    /// None of them.
    Other,
}

impl Section {
    fn as_str(self) -> &'static str {
        match self {
            Section::Keys => "keys",
            Section::Overview => "overview",
            Section::Audit => "audit",
            Section::Other => "",
        }
    }
}

/// Who looks, and what the frame offers.
#[derive(Debug, Clone)]
pub struct Who {
    pub key_id: String,
    /// Empty where it can't be said now.
    pub key_name: String,
    pub tenant_id: String,
    pub is_admin: bool,
    /// Whether the secret that was signed in with is still the key's current one.
    pub is_current: bool,
    pub may_see_keys: bool,
    pub may_see_usage: bool,
    pub may_see_audit: bool,
}

impl Who {
    pub fn shown_name(&self) -> &str {
        if self.key_name.is_empty() {
            &self.key_id
        } else {
            &self.key_name
        }
    }
}

/// The frame of a page.
#[derive(Debug, Clone)]
pub struct Page {
    pub title: String,
    pub section: Section,
    /// Nobody on the sign-in page.
    pub who: Option<Who>,
    pub csrf: String,
    /// What has just been done, to be read out.
    pub done: Option<&'static str>,
    /// The address of scripts and styles.
    pub assets: &'static str,
}

impl Page {
    /// The frame of a page that `visitor` sees.
    pub fn new(visitor: &Visitor, title: impl Into<String>, section: Section) -> Self {
        let may = |permission| visitor.caller.holds(permission);
        let who = Who {
            key_id: visitor.caller.key_id().to_string(),
            key_name: visitor.key_name.clone(),
            tenant_id: visitor.caller.tenant_id().to_string(),
            is_admin: may(Permission::Admin),
            is_current: visitor.caller.is_current(),
            may_see_keys: may(Permission::KeysRead),
            may_see_usage: may(Permission::UsageRead),
            may_see_audit: may(Permission::AuditRead),
        };
        Page {
            title: title.into(),
            section,
            who: Some(who),
            csrf: visitor.csrf.clone(),
            done: None,
            assets: assets::path(),
        }
    }

    /// The frame where nobody is signed in.
    pub fn for_anybody(title: impl Into<String>) -> Self {
        Page {
            title: title.into(),
            section: Section::Other,
            who: None,
            csrf: String::new(),
            done: None,
            assets: assets::path(),
        }
    }

    /// With a word on what `query` says has been done, where that `is_so`: anybody can write an address.
    #[must_use]
    pub fn after(mut self, query: &[(String, String)], is_so: impl Fn(&str) -> bool) -> Self {
        let done = query.iter().find(|(name, _)| name == "done");
        let done = done.filter(|(_, value)| is_so(value));
        self.done = done.and_then(|(_, value)| told(value));
        self
    }

    /// Whether the page belongs to the section of that name.
    pub fn is_in(&self, name: &str) -> bool {
        self.section.as_str() == name
    }
}

/// Whoever is found to be signed in while a request is answered, for the page of a failure.
#[derive(Debug, Clone, Default)]
pub struct Frame(Arc<OnceLock<Page>>);

impl Frame {
    /// The frame is that of `visitor`.
    pub fn seen_by(&self, visitor: &Visitor) {
        // Whoever was first found is the same.
        let _ = self.0.set(Page::new(visitor, "", Section::Other));
    }

    fn with_title(&self, title: &str) -> Page {
        let title = title.to_owned();
        match self.0.get() {
            Some(page) => Page {
                title,
                ..page.clone()
            },
            None => Page::for_anybody(title),
        }
    }
}

/// What is told after a change. Its name stands in the address, its text only here.
fn told(name: &str) -> Option<&'static str> {
    Some(match name {
        "saved" => "The changes are saved.",
        "disabled" => "The key is disabled.",
        "enabled" => "The key is enabled again.",
        "revoked" => "The key is revoked, for good.",
        "overlap-ended" => "The old secret is ended.",
        "signed-out" => "You are signed out.",
        "session-ended" => "Your session has ended. Sign in again.",
        _ => return None,
    })
}

/// Whether only the content of a dialog is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fragment(pub bool);

impl<S: Send + Sync> FromRequestParts<S> for Fragment {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Infallible> {
        Ok(Fragment(parts.headers.contains_key(FRAGMENT)))
    }
}

/// A dialog's content as a page of its own: for who has no script, or opens its address.
#[derive(Template)]
#[template(path = "dialog.html")]
struct DialogPage<'a> {
    page: Page,
    content: &'a str,
}

/// A page with `status`.
pub fn render(status: StatusCode, template: &impl Template) -> Result<Response, PageError> {
    Ok((status, Html(text_of(template)?)).into_response())
}

/// A dialog with `status`: its content alone, or in `page`.
pub fn dialog(
    status: StatusCode,
    fragment: Fragment,
    page: Page,
    content: &impl Template,
) -> Result<Response, PageError> {
    if fragment.0 {
        return render(status, content);
    }
    let content = &*text_of(content)?;
    render(status, &DialogPage { page, content })
}

fn text_of(template: &impl Template) -> Result<String, ApiError> {
    template.render().map_err(|error| {
        tracing::error!(%error, "a page can't be made");
        ApiError::new(Kind::Internal, "The page can't be shown. Try again.")
    })
}

/// Leads on to `path`, one of ours.
pub fn go(fragment: Fragment, path: &str) -> Response {
    let status = if fragment.0 {
        StatusCode::NO_CONTENT
    } else {
        StatusCode::SEE_OTHER
    };
    lead(status, fragment, path)
}

/// The same with another status.
pub fn lead(status: StatusCode, fragment: Fragment, path: &str) -> Response {
    let field = if fragment.0 {
        HeaderName::from_static(GO)
    } else {
        LOCATION
    };
    let mut response = status.into_response();
    if let Ok(path) = HeaderValue::from_str(path) {
        response.headers_mut().insert(field, path);
    }
    response
}

/// The status of a problem.
pub fn status_of(error: &ApiError) -> StatusCode {
    let status = StatusCode::from_u16(error.problem.kind.status());
    status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

/// `response` with what else there is to say of `error`: for whoever notes refusals, and for machines.
pub fn marked(mut response: Response, error: &ApiError) -> Response {
    response.extensions_mut().insert(error.problem.kind);
    if let Some(seconds) = error.retry_after_seconds {
        let headers = response.headers_mut();
        headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

/// A failure, to be told by a page.
#[derive(Debug)]
pub enum PageError {
    /// By that of any failure.
    Any(ApiError),
    /// By one of its own, which is made.
    Told(Box<Response>),
}

impl From<ApiError> for PageError {
    fn from(error: ApiError) -> Self {
        PageError::Any(error)
    }
}

/// What the page of a failure is made from, where it is known how it is wanted.
#[derive(Debug, Clone)]
pub struct Failure(Problem);

impl IntoResponse for PageError {
    fn into_response(self) -> Response {
        match self {
            PageError::Told(response) => *response,
            PageError::Any(error) => {
                let mut response = marked(status_of(&error).into_response(), &error);
                response.extensions_mut().insert(Failure(*error.problem));
                response
            }
        }
    }
}

/// The content of a page, or of a dialog, that tells of a failure.
#[derive(Template)]
#[template(path = "problem.html")]
struct ProblemContent<'a> {
    title: &'a str,
    detail: &'a str,
    /// Whether the visitor can do it with the key's new secret.
    has_new_secret: bool,
    request_id: &'a str,
}

/// `response` with its page, where it is a failure that has none yet.
pub fn dressed(mut response: Response, fragment: Fragment, frame: &Frame) -> Response {
    let Some(Failure(problem)) = response.extensions_mut().remove() else {
        return response;
    };
    let request_id = request_id::current();
    let mut page = frame.with_title(problem.kind.title());
    let is_outdated = page.who.as_ref().is_some_and(|who| !who.is_current);
    let has_new_secret = is_outdated && problem.kind == Kind::InvalidKey;
    if has_new_secret {
        page.title = OUTDATED.to_owned();
    }
    let content = ProblemContent {
        title: &page.title.clone(),
        detail: &problem.detail,
        has_new_secret,
        request_id: &request_id,
    };
    if let Ok(made) = dialog(response.status(), fragment, page, &content) {
        *response.body_mut() = made.into_body();
        let html = HeaderValue::from_static("text/html; charset=utf-8");
        response.headers_mut().insert(CONTENT_TYPE, html);
    }
    response
}
