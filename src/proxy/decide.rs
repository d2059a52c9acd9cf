//! Whether a proven key may make this request now. Pure: no I/O, no clock.

use std::net::IpAddr;

use super::route::Route;
use crate::clock::Timestamp;
use crate::key::{Denial, Generation};
use crate::problem::Kind;
use crate::telemetry::Outcome;
use crate::verify::KeyView;

/// Why a request is refused. The words for it stand in `respond`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    NoRoute,
    AmbiguousPath(&'static str),
    HeadersTooLarge,
    BodyTooLarge,
    NoCredential,
    AmbiguousCredential,
    InvalidKey,
    ExpiredKey,
    DisabledKey,
    SuspendedTenant,
    AddressNotAllowed,
    InsufficientScope,
    RateLimited,
    FailedAuthLimited { retry_after_seconds: u64 },
    Unavailable,
    UpstreamFailed,
    UpstreamTimedOut,
    BadRequest(&'static str),
    Internal,
}

impl Refusal {
    /// The label in metrics and logs.
    pub fn outcome(self) -> Outcome {
        match self {
            Refusal::NoRoute => Outcome::NoRoute,
            Refusal::AmbiguousPath(_) => Outcome::AmbiguousPath,
            Refusal::HeadersTooLarge => Outcome::HeadersTooLarge,
            Refusal::BodyTooLarge => Outcome::BodyTooLarge,
            Refusal::NoCredential => Outcome::NoCredential,
            Refusal::AmbiguousCredential => Outcome::AmbiguousCredential,
            Refusal::InvalidKey => Outcome::InvalidKey,
            Refusal::ExpiredKey => Outcome::ExpiredKey,
            Refusal::DisabledKey => Outcome::DisabledKey,
            Refusal::SuspendedTenant => Outcome::SuspendedTenant,
            Refusal::AddressNotAllowed => Outcome::AddressNotAllowed,
            Refusal::InsufficientScope => Outcome::InsufficientScope,
            Refusal::RateLimited => Outcome::RateLimited,
            Refusal::FailedAuthLimited { .. } => Outcome::FailedAuthLimited,
            Refusal::Unavailable => Outcome::Unavailable,
            Refusal::UpstreamFailed => Outcome::UpstreamFailed,
            Refusal::UpstreamTimedOut => Outcome::UpstreamTimedOut,
            Refusal::BadRequest(_) => Outcome::ClientFailed,
            Refusal::Internal => Outcome::Internal,
        }
    }

    /// The problem type, and with it the status.
    pub fn kind(self) -> Kind {
        match self {
            Refusal::NoRoute => Kind::NoRoute,
            Refusal::AmbiguousPath(_) => Kind::AmbiguousPath,
            Refusal::HeadersTooLarge => Kind::HeadersTooLarge,
            Refusal::BodyTooLarge => Kind::BodyTooLarge,
            Refusal::NoCredential => Kind::MissingCredential,
            Refusal::AmbiguousCredential => Kind::AmbiguousCredential,
            Refusal::InvalidKey => Kind::InvalidKey,
            Refusal::ExpiredKey => Kind::ExpiredKey,
            Refusal::DisabledKey => Kind::DisabledKey,
            Refusal::SuspendedTenant => Kind::SuspendedTenant,
            Refusal::AddressNotAllowed => Kind::AddressNotAllowed,
            Refusal::InsufficientScope => Kind::InsufficientScope,
            Refusal::RateLimited => Kind::QuotaExceeded,
            Refusal::FailedAuthLimited { .. } => Kind::TooManyFailures,
            Refusal::Unavailable => Kind::TemporaryReducedCapacity,
            Refusal::UpstreamFailed => Kind::UpstreamFailed,
            Refusal::UpstreamTimedOut => Kind::UpstreamTimedOut,
            Refusal::BadRequest(_) => Kind::BadRequest,
            Refusal::Internal => Kind::Internal,
        }
    }
}

/// What a record's own say means for the request.
pub fn refusal(denial: Denial) -> Refusal {
    match denial {
        Denial::Revoked | Denial::Superseded => Refusal::InvalidKey,
        Denial::Disabled => Refusal::DisabledKey,
        Denial::Expired => Refusal::ExpiredKey,
        Denial::Suspended => Refusal::SuspendedTenant,
        Denial::Address => Refusal::AddressNotAllowed,
    }
}

/// The record's own say, then the scopes that the route needs.
pub fn decide(
    view: &KeyView,
    generation: Generation,
    route: &Route,
    client: IpAddr,
    now: Timestamp,
) -> Result<(), Refusal> {
    view.admits(generation, client, now).map_err(refusal)?;
    if !view.grants.granted.contains_all(&route.required) {
        return Err(Refusal::InsufficientScope);
    }
    Ok(())
}
