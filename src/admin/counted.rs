//! Counts what the port answers, and whom it refuses.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;

use super::AdminState;
use crate::problem::Kind;
use crate::telemetry::admin::{AdminRefusal, SignIn};
use crate::telemetry::status::StatusClass;

/// Lets the call be answered, and counts the answer.
pub async fn count(State(state): State<Arc<AdminState>>, request: Request, next: Next) -> Response {
    let response = next.run(request).await;
    let class = StatusClass::of(Some(response.status().as_u16()));
    state.counted.answered(class);
    let kind = response.extensions().get::<Kind>().copied();
    if let Some(reason) = kind.and_then(refusal) {
        state.counted.refused(reason);
    }
    response
}

/// Why a call was refused that was answered with a problem of this kind; `None` where it wasn't.
fn refusal(kind: Kind) -> Option<AdminRefusal> {
    Some(match kind {
        Kind::MissingCredential => AdminRefusal::NoCredential,
        Kind::AmbiguousCredential => AdminRefusal::AmbiguousCredential,
        Kind::InvalidKey => AdminRefusal::InvalidKey,
        Kind::ExpiredKey => AdminRefusal::ExpiredKey,
        Kind::DisabledKey => AdminRefusal::DisabledKey,
        Kind::SuspendedTenant => AdminRefusal::SuspendedTenant,
        Kind::AddressNotAllowed => AdminRefusal::AddressNotAllowed,
        Kind::InsufficientScope => AdminRefusal::Forbidden,
        Kind::TooManyFailures => AdminRefusal::Limited,
        Kind::UntrustedForm => AdminRefusal::Origin,
        _ => return None,
    })
}

/// What came of a sign-in that failed with a problem of this kind.
pub fn failed_sign_in(kind: Kind) -> SignIn {
    match kind {
        Kind::TooManyFailures => SignIn::Limited,
        Kind::TemporaryReducedCapacity | Kind::Internal => SignIn::Unavailable,
        _ => SignIn::Refused,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_is_told_no_is_refused() {
        for kind in Kind::ALL {
            let is_no = matches!(kind.status(), 401 | 403 | 429) && kind != Kind::QuotaExceeded;
            let is_no = is_no || kind == Kind::AmbiguousCredential;
            assert_eq!(refusal(kind).is_some(), is_no, "{kind:?}");
        }
    }
}
