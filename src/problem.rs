//! Every problem type that Sidekey answers with, declared once (RFC 9457). The proxy and the
//! admin port both write their errors from here.
//!
//! A problem's text is for the caller: what is wrong with the request, and what to do. Nothing
//! about internals, and never a credential.

use http::HeaderValue;
use serde_json::{Map, Value, json};

/// The media type of the bodies.
pub const MEDIA_TYPE: &str = "application/problem+json";

/// What kind of problem.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    MissingCredential,
    InvalidKey,
    ExpiredKey,
    DisabledKey,
    SuspendedTenant,
    AmbiguousCredential,
    AddressNotAllowed,
    InsufficientScope,
    UntrustedForm,
    QuotaExceeded,
    TooManyFailures,
    TemporaryReducedCapacity,
    AmbiguousPath,
    BadRequest,
    BodyTooLarge,
    HeadersTooLarge,
    NoRoute,
    UpstreamFailed,
    UpstreamTimedOut,
    NotFound,
    MethodNotAllowed,
    RequestTimeout,
    Conflict,
    TooManyKeys,
    IdempotencyKeyReused,
    PreconditionFailed,
    UnsupportedMediaType,
    InvalidFields,
    Internal,
}

impl Kind {
    pub const ALL: [Kind; 29] = [
        Kind::MissingCredential,
        Kind::InvalidKey,
        Kind::ExpiredKey,
        Kind::DisabledKey,
        Kind::SuspendedTenant,
        Kind::AmbiguousCredential,
        Kind::AddressNotAllowed,
        Kind::InsufficientScope,
        Kind::UntrustedForm,
        Kind::QuotaExceeded,
        Kind::TooManyFailures,
        Kind::TemporaryReducedCapacity,
        Kind::AmbiguousPath,
        Kind::BadRequest,
        Kind::BodyTooLarge,
        Kind::HeadersTooLarge,
        Kind::NoRoute,
        Kind::UpstreamFailed,
        Kind::UpstreamTimedOut,
        Kind::NotFound,
        Kind::MethodNotAllowed,
        Kind::RequestTimeout,
        Kind::Conflict,
        Kind::TooManyKeys,
        Kind::IdempotencyKeyReused,
        Kind::PreconditionFailed,
        Kind::UnsupportedMediaType,
        Kind::InvalidFields,
        Kind::Internal,
    ];

    /// The HTTP status.
    pub fn status(self) -> u16 {
        match self {
            Kind::AmbiguousCredential | Kind::AmbiguousPath | Kind::BadRequest => 400,
            Kind::MissingCredential
            | Kind::InvalidKey
            | Kind::ExpiredKey
            | Kind::DisabledKey
            | Kind::SuspendedTenant => 401,
            Kind::AddressNotAllowed | Kind::InsufficientScope | Kind::UntrustedForm => 403,
            Kind::NoRoute | Kind::NotFound => 404,
            Kind::MethodNotAllowed => 405,
            Kind::RequestTimeout => 408,
            Kind::Conflict | Kind::TooManyKeys | Kind::IdempotencyKeyReused => 409,
            Kind::PreconditionFailed => 412,
            Kind::BodyTooLarge => 413,
            Kind::UnsupportedMediaType => 415,
            Kind::InvalidFields => 422,
            Kind::QuotaExceeded | Kind::TooManyFailures => 429,
            Kind::HeadersTooLarge => 431,
            Kind::Internal => 500,
            Kind::UpstreamFailed => 502,
            Kind::TemporaryReducedCapacity => 503,
            Kind::UpstreamTimedOut => 504,
        }
    }

    /// The `type` member. The first three are those of draft-ietf-httpapi-ratelimit-headers-10.
    pub fn uri(self) -> &'static str {
        match self {
            Kind::QuotaExceeded => "https://iana.org/assignments/http-problem-types#quota-exceeded",
            Kind::TemporaryReducedCapacity => {
                "https://iana.org/assignments/http-problem-types#temporary-reduced-capacity"
            }
            Kind::TooManyFailures => {
                "https://iana.org/assignments/http-problem-types#abnormal-usage-detected"
            }
            Kind::MissingCredential => "urn:sidekey:problem:missing-credential",
            Kind::InvalidKey => "urn:sidekey:problem:invalid-key",
            Kind::ExpiredKey => "urn:sidekey:problem:expired-key",
            Kind::DisabledKey => "urn:sidekey:problem:disabled-key",
            Kind::SuspendedTenant => "urn:sidekey:problem:suspended-tenant",
            Kind::AmbiguousCredential => "urn:sidekey:problem:ambiguous-credential",
            Kind::AddressNotAllowed => "urn:sidekey:problem:address-not-allowed",
            Kind::InsufficientScope => "urn:sidekey:problem:insufficient-scope",
            Kind::UntrustedForm => "urn:sidekey:problem:untrusted-form",
            Kind::AmbiguousPath => "urn:sidekey:problem:ambiguous-path",
            Kind::BadRequest => "urn:sidekey:problem:bad-request",
            Kind::BodyTooLarge => "urn:sidekey:problem:body-too-large",
            Kind::HeadersTooLarge => "urn:sidekey:problem:headers-too-large",
            Kind::NoRoute => "urn:sidekey:problem:no-route",
            Kind::UpstreamFailed => "urn:sidekey:problem:upstream-failed",
            Kind::UpstreamTimedOut => "urn:sidekey:problem:upstream-timed-out",
            Kind::NotFound => "urn:sidekey:problem:not-found",
            Kind::MethodNotAllowed => "urn:sidekey:problem:method-not-allowed",
            Kind::RequestTimeout => "urn:sidekey:problem:request-timeout",
            Kind::Conflict => "urn:sidekey:problem:conflict",
            Kind::TooManyKeys => "urn:sidekey:problem:too-many-keys",
            Kind::IdempotencyKeyReused => "urn:sidekey:problem:idempotency-key-reused",
            Kind::PreconditionFailed => "urn:sidekey:problem:precondition-failed",
            Kind::UnsupportedMediaType => "urn:sidekey:problem:unsupported-media-type",
            Kind::InvalidFields => "urn:sidekey:problem:invalid-fields",
            Kind::Internal => "urn:sidekey:problem:internal",
        }
    }

    /// The `title` member: the same for every occurrence.
    pub fn title(self) -> &'static str {
        match self {
            Kind::MissingCredential => "An API key is needed",
            Kind::InvalidKey => "The API key is not valid",
            Kind::ExpiredKey => "The API key has expired",
            Kind::DisabledKey => "The API key is disabled",
            Kind::SuspendedTenant => "The tenant of the API key is suspended",
            Kind::AmbiguousCredential => "More than one credential was sent",
            Kind::AddressNotAllowed => "The API key may not be used from this address",
            Kind::InsufficientScope => "The API key lacks a scope",
            Kind::UntrustedForm => "The form can't be trusted",
            Kind::QuotaExceeded => "The quota of the API key is used up",
            Kind::TooManyFailures => "Too many requests with wrong API keys",
            Kind::TemporaryReducedCapacity => "The request can't be answered just now",
            Kind::AmbiguousPath => "The path can be read in more than one way",
            Kind::BadRequest => "The request can't be read",
            Kind::BodyTooLarge => "The request's body is too large",
            Kind::HeadersTooLarge => "The request's header fields are too large",
            Kind::NoRoute => "Nothing is served here",
            Kind::UpstreamFailed => "The service behind the gateway can't be reached",
            Kind::UpstreamTimedOut => "The service behind the gateway did not answer in time",
            Kind::NotFound => "There is no such thing",
            Kind::MethodNotAllowed => "The method is not allowed here",
            Kind::RequestTimeout => "The request did not arrive in time",
            Kind::Conflict => "The request conflicts with another one",
            Kind::TooManyKeys => "The tenant has as many keys as it may have",
            Kind::PreconditionFailed => "The thing has changed since it was read",
            Kind::IdempotencyKeyReused => "The idempotency key was used for another request",
            Kind::UnsupportedMediaType => "The body has the wrong media type",
            Kind::InvalidFields => "Some fields are not valid",
            Kind::Internal => "Something went wrong",
        }
    }
}

/// A new id for a request: 128 random bits in hexadecimal. Unique, not secret; the form of a W3C
/// trace id.
pub fn new_request_id() -> HeaderValue {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut number = fastrand::u128(..);
    let mut text = [0u8; 32];
    for digit in &mut text {
        *digit = DIGITS[(number & 15) as usize];
        number >>= 4;
    }
    HeaderValue::from_bytes(&text).unwrap_or(HeaderValue::from_static("0"))
}

/// One occurrence of a problem.
#[derive(Debug, Clone)]
pub struct Problem {
    pub kind: Kind,
    pub detail: String,
    /// Extension members.
    pub members: Map<String, Value>,
}

impl Problem {
    /// A problem with its explanation.
    pub fn new(kind: Kind, detail: impl Into<String>) -> Self {
        Problem {
            kind,
            detail: detail.into(),
            members: Map::new(),
        }
    }

    /// Adds an extension member.
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.members.insert(name.to_owned(), value.into());
        self
    }

    /// The body.
    pub fn body(&self, request_id: &str) -> String {
        let mut body = json!({
            "type": self.kind.uri(),
            "title": self.kind.title(),
            "status": self.kind.status(),
            "detail": self.detail,
            "request_id": request_id,
        });
        if let Value::Object(object) = &mut body {
            object.extend(self.members.clone());
        }
        body.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn types_differ() {
        let uris: HashSet<_> = Kind::ALL.iter().map(|kind| kind.uri()).collect();
        assert_eq!(uris.len(), Kind::ALL.len());
    }

    #[test]
    fn the_body_has_the_members_of_rfc_9457() {
        let problem =
            Problem::new(Kind::QuotaExceeded, "wait").with("violated-policies", vec!["day"]);
        let body: Value = serde_json::from_str(&problem.body("r1")).unwrap();
        assert_eq!(body["status"], 429);
        assert_eq!(body["detail"], "wait");
        assert_eq!(body["request_id"], "r1");
        assert_eq!(body["violated-policies"], json!(["day"]));
        assert!(body["title"].is_string() && body["type"].is_string());
    }
}
