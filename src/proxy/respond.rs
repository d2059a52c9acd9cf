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
/// How long an answer waits for that.
const DRAIN_TIMEOUT: Duration = Duration::from_millis(500);
/// When to come back after an answer that can't be given now.
const RETRY_SECONDS: u64 = 1;

/// What a refusal's words depend on.
pub struct Circumstances<'a> {
    pub route: Option<&'a Route>,
    pub limits: Option<(&'a LimitFields, &'a Decision)>,
    /// The policy that failed authentications are held to.
    pub failed_auth: &'a str,
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
            Refusal::InvalidKey
            | Refusal::ExpiredKey
            | Refusal::DisabledKey
            | Refusal::SuspendedTenant => ", error=\"invalid_token\"".to_owned(),
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
    if let Refusal::FailedAuthLimited { .. } = refusal {
        problem = problem.with("violated-policies", vec![about.failed_auth]);
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
        Refusal::SuspendedTenant => {
            "All keys of the tenant are suspended. Ask the key's issuer to resume it.".to_owned()
        }
        Refusal::AddressNotAllowed => {
            "The key is limited to certain client addresses, and yours is not one of them."
                .to_owned()
        }
        Refusal::InsufficientScope => format!("The key needs: {}.", needed_scopes(about.route)),
        Refusal::RateLimited => match never_enough(about) {
            Some((cost, name, burst)) => format!(
                "A request here takes {cost} tokens, and the policy {name} never holds more than {burst}. Ask the key's issuer for a higher limit."
            ),
            None => format!("Wait {wait} s before the next request."),
        },
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

/// What the route takes and a policy never has: the cost, the policy's name, and its burst.
fn never_enough<'a>(about: &Circumstances<'a>) -> Option<(u64, &'a str, u64)> {
    let ((fields, _), route) = (about.limits?, about.route?);
    let (name, burst) = fields.too_small(route.cost)?;
    Some((route.cost, name, burst))
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

/// A whole answer, ready for the wire, to a request that can't be read: after it the connection is
/// closed.
pub fn bare(refusal: Refusal, request_id: &str) -> Vec<u8> {
    let about = Circumstances {
        route: None,
        limits: None,
        failed_auth: "",
        request_id,
    };
    let kind = refusal.kind();
    let body = Problem::new(kind, detail(refusal, &about, None)).body(request_id);
    let status = StatusCode::from_u16(kind.status()).unwrap_or(StatusCode::BAD_REQUEST);
    let reason = status.canonical_reason().unwrap_or_default();
    format!(
        "HTTP/1.1 {} {reason}\r\nContent-Type: {}\r\nContent-Length: {}\r\n\
         Cache-Control: no-store\r\nX-Request-Id: {request_id}\r\nConnection: close\r\n\r\n{body}",
        status.as_u16(),
        problem::MEDIA_TYPE,
        body.len(),
    )
    .into_bytes()
}

/// Sends `header` and `body`. The connection stays open if what is left of the request's body could
/// be read away.
pub async fn send(session: &mut Session, header: ResponseHeader, body: String) -> Result<()> {
    if !session.as_mut().is_body_done() && !read_away(session).await {
        session.set_keepalive(None);
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

/// Reads a short body away, and says whether all of it came and was sound. It has to be before the
/// answer: who looks for a body's end behind it may read into the next request, and take it for
/// something else.
async fn read_away(session: &mut Session) -> bool {
    let headers = &session.req_header().headers;
    let is_long = headers.get(CONTENT_LENGTH).is_some_and(|length| {
        let length = length
            .to_str()
            .ok()
            .and_then(|text| text.parse::<u64>().ok());
        length.is_none_or(|length| length > DRAIN_BYTES_MAX)
    });
    // Who waits for "100 Continue" may never send the body.
    if is_long || headers.contains_key(header::EXPECT) {
        return false;
    }
    let mut left = DRAIN_BYTES_MAX;
    let all = async {
        loop {
            match session.as_mut().read_request_body().await {
                Ok(Some(chunk)) => match left.checked_sub(chunk.len() as u64) {
                    Some(less) => left = less,
                    None => return false,
                },
                Ok(None) => return true,
                // Nobody knows where it ends.
                Err(_) => return false,
            }
        }
    };
    // What comes later is not waited for: the answer is.
    matches!(tokio::time::timeout(DRAIN_TIMEOUT, all).await, Ok(true))
}
