//! Sidekey's own answers: the words of each refusal, and how they are sent without closing the
//! client's connection.

use std::time::Duration;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderValue, Method, StatusCode, header};
use pingora_error::Result;
use pingora_http::ResponseHeader;
use pingora_proxy::Session;

use super::decide::Refusal;
use super::route::Route;
use crate::config::settings::{CredentialSettings, Source};
use crate::limit::{Decision, LimitFields};
use crate::problem::{self, Problem};

/// An unread body of at most this many bytes is read and thrown away, so that the connection can
/// be kept; a longer one closes it.
const DRAIN_BYTES_MAX: u64 = 64 << 10;
/// How long that may take.
pub const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);
/// When to come back after an answer that can't be given now.
const RETRY_SECONDS: u64 = 1;

/// What a refusal's words depend on.
pub struct Circumstances<'a> {
    pub route: Option<&'a Route>,
    pub limits: Option<(&'a LimitFields, &'a Decision)>,
    pub request_id: &'a str,
}

/// An answer, ready to be sent.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub body: String,
    pub challenges: Vec<HeaderValue>,
    pub retry_after_seconds: Option<u64>,
}

/// The words for `WWW-Authenticate` (RFC 6750 and 7617).
#[derive(Debug)]
pub struct Challenges {
    bearer: String,
    basic: Option<HeaderValue>,
}

impl Challenges {
    pub fn new(settings: &CredentialSettings) -> Self {
        let realm = &settings.realm;
        let basic = settings.sources.contains(&Source::Basic);
        Challenges {
            bearer: format!("Bearer realm=\"{realm}\""),
            // The realm is checked to be plain.
            basic: basic
                .then(|| HeaderValue::from_str(&format!("Basic realm=\"{realm}\"")).ok())
                .flatten(),
        }
    }

    fn of(&self, refusal: Refusal, route: Option<&Route>) -> Vec<HeaderValue> {
        let error = match refusal {
            Refusal::NoCredential => String::new(),
            Refusal::InvalidKey | Refusal::ExpiredKey | Refusal::DisabledKey => {
                ", error=\"invalid_token\"".to_owned()
            }
            Refusal::InsufficientScope => {
                format!(
                    ", error=\"insufficient_scope\", scope=\"{}\"",
                    needed_scopes(route)
                )
            }
            _ => return Vec::new(),
        };
        let bearer = HeaderValue::from_str(&format!("{}{error}", self.bearer)).ok();
        let basic = if refusal == Refusal::InsufficientScope {
            None
        } else {
            self.basic.clone()
        };
        bearer.into_iter().chain(basic).collect()
    }
}

fn needed_scopes(route: Option<&Route>) -> String {
    let scopes: Vec<&str> = route
        .into_iter()
        .flat_map(|route| &route.scopes)
        .map(|scope| scope.as_str())
        .collect();
    scopes.join(" ")
}

/// The answer to a refused request.
pub fn answer(refusal: Refusal, challenges: &Challenges, about: &Circumstances<'_>) -> Answer {
    let retry_after_seconds = match refusal {
        Refusal::RateLimited => about
            .limits
            .map(|(_, decision)| decision.retry_after_seconds()),
        Refusal::FailedAuthLimited {
            retry_after_seconds,
        } => Some(retry_after_seconds.max(1)),
        Refusal::Unavailable => Some(RETRY_SECONDS),
        _ => None,
    };
    let mut problem = Problem::new(refusal.kind(), detail(refusal, about, retry_after_seconds));
    if let (Refusal::RateLimited, Some((fields, decision))) = (refusal, about.limits) {
        let violated: Vec<&str> = fields.violated(&decision.readings).collect();
        problem = problem.with("violated-policies", violated);
    }
    Answer {
        status: StatusCode::from_u16(refusal.kind().status())
            .unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
        body: problem.body(about.request_id),
        challenges: challenges.of(refusal, about.route),
        retry_after_seconds,
    }
}

fn detail(refusal: Refusal, about: &Circumstances<'_>, retry_after_seconds: Option<u64>) -> String {
    let wait = retry_after_seconds.unwrap_or(RETRY_SECONDS);
    match refusal {
        Refusal::NoRoute => {
            "No route leads from this host, path and method to a service.".to_owned()
        }
        Refusal::AmbiguousPath(detail) | Refusal::BadRequest(detail) => detail.to_owned(),
        Refusal::HeadersTooLarge => "Send fewer or shorter header fields.".to_owned(),
        Refusal::BodyTooLarge => match about.route {
            Some(route) => format!("The body may have at most {} bytes.", route.max_body_bytes),
            None => "Send a shorter body.".to_owned(),
        },
        Refusal::NoCredential => {
            "Send an API key, for example as Authorization: Bearer <key>.".to_owned()
        }
        Refusal::AmbiguousCredential => "Send exactly one credential, once.".to_owned(),
        Refusal::InvalidKey => "Check the key, or ask its issuer for a new one.".to_owned(),
        Refusal::ExpiredKey => "Ask the key's issuer for a new one.".to_owned(),
        Refusal::DisabledKey => "Ask the key's issuer to enable it again.".to_owned(),
        Refusal::AddressNotAllowed => {
            "The key is limited to certain client addresses, and yours is not one of them."
                .to_owned()
        }
        Refusal::InsufficientScope => format!("The key needs: {}.", needed_scopes(about.route)),
        Refusal::RateLimited => format!("Wait {wait} s before the next request."),
        Refusal::FailedAuthLimited { .. } => {
            format!(
                "Too many requests from your address had a wrong key. Wait {wait} s, and check the key."
            )
        }
        Refusal::Unavailable => {
            format!("The key can't be checked just now. Try again in {wait} s.")
        }
        Refusal::UpstreamFailed => "Try again later.".to_owned(),
        Refusal::UpstreamTimedOut => {
            "Try again later; the request may have been carried out.".to_owned()
        }
        Refusal::Internal => "Report the request_id to whoever runs this service.".to_owned(),
    }
}

impl Answer {
    /// The header, without rate-limit fields and request id.
    pub fn header(&self) -> Result<ResponseHeader> {
        let mut header = ResponseHeader::build(self.status, Some(12))?;
        header.insert_header(CONTENT_TYPE, HeaderValue::from_static(problem::MEDIA_TYPE))?;
        header.insert_header(CONTENT_LENGTH, HeaderValue::from(self.body.len()))?;
        header.insert_header(CACHE_CONTROL, HeaderValue::from_static("no-store"))?;
        for challenge in &self.challenges {
            header.append_header("WWW-Authenticate", challenge.clone())?;
        }
        if let Some(seconds) = self.retry_after_seconds {
            header.insert_header("Retry-After", HeaderValue::from(seconds))?;
        }
        Ok(header)
    }
}

/// Sends `header` and `body`. The connection stays open if what is left of the request's body is
/// short enough to be read away.
pub async fn send(session: &mut Session, header: ResponseHeader, body: String) -> Result<()> {
    if !session.as_mut().is_body_done() {
        if is_drainable(session) {
            session.set_close_on_response_before_downstream_finish(false);
            session.set_total_drain_timeout(Some(DRAIN_TIMEOUT));
        } else {
            session.set_keepalive(None);
        }
    }
    let is_head = session.req_header().method == Method::HEAD;
    session
        .write_response_header(Box::new(header), is_head)
        .await?;
    if !is_head {
        session
            .write_response_body(Some(Bytes::from(body)), true)
            .await?;
    }
    Ok(())
}

fn is_drainable(session: &Session) -> bool {
    let headers = &session.req_header().headers;
    // Who waits for "100 Continue" may never send the body.
    let waits = headers.contains_key(header::EXPECT);
    let length = headers
        .get(CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    !waits && length.is_some_and(|length| length <= DRAIN_BYTES_MAX)
}
