//! A request that is over, as its key's owner sees it.

use pingora_proxy::Session;

use super::Context;
use super::decide::Refusal;
use crate::usage::{Ending, LastUse, Request};

/// Counts a request for the key whose secret its caller has proven. No lock, no allocation, no look at a
/// clock.
pub fn count(session: &Session, ctx: &Context, took_us: u64) {
    let Some(caller) = &ctx.caller else {
        return;
    };
    let status = session.response_written();
    let request = Request {
        ending: ending(ctx.refusal, status.map(|response| response.status.as_u16())),
        bytes_in: session.body_bytes_read() as u64,
        bytes_out: session.body_bytes_sent() as u64,
        latency_us: took_us,
    };
    let last = LastUse {
        at: ctx.decided_at,
        address: ctx.client,
    };
    caller.key.count(&request, caller.generation, last);
}

/// How a request ended that was refused, or failed, for `refusal`, and whose answer had `status`. An
/// answer that broke off is the failure, not its status.
fn ending(refusal: Option<Refusal>, status: Option<u16>) -> Ending {
    match refusal {
        Some(
            Refusal::ExpiredKey
            | Refusal::DisabledKey
            | Refusal::SuspendedTenant
            | Refusal::AddressNotAllowed
            | Refusal::InsufficientScope,
        ) => Ending::Denied,
        Some(Refusal::RateLimited) => Ending::RateLimited,
        Some(
            refusal @ (Refusal::NoRoute
            | Refusal::AmbiguousPath(_)
            | Refusal::HeadersTooLarge
            | Refusal::BodyTooLarge
            | Refusal::NoCredential
            | Refusal::AmbiguousCredential
            | Refusal::InvalidKey
            | Refusal::FailedAuthLimited { .. }
            | Refusal::Unavailable
            | Refusal::UpstreamFailed
            | Refusal::UpstreamTimedOut
            | Refusal::BadRequest(_)
            | Refusal::Internal),
        ) => of_status(refusal.kind().status()),
        None => status.map_or(Ending::Plain, of_status),
    }
}

fn of_status(status: u16) -> Ending {
    match status {
        400..=499 => Ending::Error4xx,
        500..=599 => Ending::Error5xx,
        _ => Ending::Plain,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endings() {
        for (refusal, status, expected) in [
            (None, None, Ending::Plain),
            (None, Some(101), Ending::Plain),
            (None, Some(200), Ending::Plain),
            (None, Some(304), Ending::Plain),
            // The service's own say is no say of Sidekey's.
            (None, Some(401), Ending::Error4xx),
            (None, Some(429), Ending::Error4xx),
            (None, Some(500), Ending::Error5xx),
            (None, Some(999), Ending::Plain),
            (Some(Refusal::RateLimited), Some(429), Ending::RateLimited),
            (Some(Refusal::ExpiredKey), Some(401), Ending::Denied),
            (Some(Refusal::DisabledKey), Some(401), Ending::Denied),
            (Some(Refusal::SuspendedTenant), Some(401), Ending::Denied),
            (Some(Refusal::AddressNotAllowed), Some(403), Ending::Denied),
            (Some(Refusal::InsufficientScope), Some(403), Ending::Denied),
            (Some(Refusal::NoRoute), Some(404), Ending::Error4xx),
            (Some(Refusal::BodyTooLarge), Some(413), Ending::Error4xx),
            (Some(Refusal::Unavailable), Some(503), Ending::Error5xx),
            (Some(Refusal::UpstreamTimedOut), Some(504), Ending::Error5xx),
            (Some(Refusal::UpstreamFailed), Some(200), Ending::Error5xx),
        ] {
            assert_eq!(ending(refusal, status), expected, "{refusal:?} {status:?}");
        }
    }
}
