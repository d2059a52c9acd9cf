//! How requests through the proxy end: a closed list, for metrics, logs, usage and pages.

/// How one request through the proxy ended. The label `outcome`, and the word in the access log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Outcome {
    /// Passed to the upstream, which answered.
    Forwarded,
    /// A key's holder asked about the key.
    SelfService,
    NoRoute,
    AmbiguousPath,
    HeadersTooLarge,
    BodyTooLarge,
    NoCredential,
    AmbiguousCredential,
    /// Unknown, malformed, forged, revoked or superseded.
    InvalidKey,
    ExpiredKey,
    DisabledKey,
    SuspendedTenant,
    AddressNotAllowed,
    InsufficientScope,
    RateLimited,
    /// Too many wrong keys from this address.
    FailedAuthLimited,
    /// The key could not be verified now.
    Unavailable,
    UpstreamFailed,
    UpstreamTimedOut,
    /// The client went away, or broke the protocol.
    ClientFailed,
    Internal,
}

/// How many outcomes there are.
pub const OUTCOMES: usize = 21;

impl Outcome {
    pub const ALL: [Outcome; OUTCOMES] = [
        Outcome::Forwarded,
        Outcome::SelfService,
        Outcome::NoRoute,
        Outcome::AmbiguousPath,
        Outcome::HeadersTooLarge,
        Outcome::BodyTooLarge,
        Outcome::NoCredential,
        Outcome::AmbiguousCredential,
        Outcome::InvalidKey,
        Outcome::ExpiredKey,
        Outcome::DisabledKey,
        Outcome::SuspendedTenant,
        Outcome::AddressNotAllowed,
        Outcome::InsufficientScope,
        Outcome::RateLimited,
        Outcome::FailedAuthLimited,
        Outcome::Unavailable,
        Outcome::UpstreamFailed,
        Outcome::UpstreamTimedOut,
        Outcome::ClientFailed,
        Outcome::Internal,
    ];

    /// The label's value.
    pub fn as_str(self) -> &'static str {
        match self {
            Outcome::Forwarded => "forwarded",
            Outcome::SelfService => "self_service",
            Outcome::NoRoute => "no_route",
            Outcome::AmbiguousPath => "ambiguous_path",
            Outcome::HeadersTooLarge => "headers_too_large",
            Outcome::BodyTooLarge => "body_too_large",
            Outcome::NoCredential => "no_credential",
            Outcome::AmbiguousCredential => "ambiguous_credential",
            Outcome::InvalidKey => "invalid_key",
            Outcome::ExpiredKey => "expired_key",
            Outcome::DisabledKey => "disabled_key",
            Outcome::SuspendedTenant => "suspended_tenant",
            Outcome::AddressNotAllowed => "address_not_allowed",
            Outcome::InsufficientScope => "insufficient_scope",
            Outcome::RateLimited => "rate_limited",
            Outcome::FailedAuthLimited => "failed_auth_limited",
            Outcome::Unavailable => "unavailable",
            Outcome::UpstreamFailed => "upstream_failed",
            Outcome::UpstreamTimedOut => "upstream_timed_out",
            Outcome::ClientFailed => "client_failed",
            Outcome::Internal => "internal",
        }
    }

    /// The outcome that is called `word`.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|known| known.as_str() == word)
    }

    /// Whether Sidekey has refused the request.
    pub fn is_refusal(self) -> bool {
        !matches!(
            self,
            Outcome::Forwarded
                | Outcome::SelfService
                | Outcome::UpstreamFailed
                | Outcome::UpstreamTimedOut
                | Outcome::ClientFailed
                | Outcome::Internal
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outcomes_index_their_counters() {
        for (index, outcome) in Outcome::ALL.iter().enumerate() {
            assert_eq!(*outcome as usize, index);
        }
    }
}
