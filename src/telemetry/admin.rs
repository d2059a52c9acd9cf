//! What the admin port has answered, whom it has refused, and who has signed in: closed lists for
//! metrics.

use prometheus::IntCounter;

use super::metrics::Metrics;
use super::status::{CLASSES, StatusClass};

/// Why a call of the admin port was refused. The label `reason`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AdminRefusal {
    NoCredential,
    AmbiguousCredential,
    InvalidKey,
    ExpiredKey,
    DisabledKey,
    SuspendedTenant,
    AddressNotAllowed,
    /// The key's scopes don't allow it.
    Forbidden,
    /// Too many wrong keys from the address.
    Limited,
    /// A form that was not sent from a page of the dashboard.
    Origin,
}

const REFUSALS: usize = 10;

impl AdminRefusal {
    pub const ALL: [AdminRefusal; REFUSALS] = [
        AdminRefusal::NoCredential,
        AdminRefusal::AmbiguousCredential,
        AdminRefusal::InvalidKey,
        AdminRefusal::ExpiredKey,
        AdminRefusal::DisabledKey,
        AdminRefusal::SuspendedTenant,
        AdminRefusal::AddressNotAllowed,
        AdminRefusal::Forbidden,
        AdminRefusal::Limited,
        AdminRefusal::Origin,
    ];

    /// The label's value.
    pub fn as_str(self) -> &'static str {
        match self {
            AdminRefusal::NoCredential => "no_credential",
            AdminRefusal::AmbiguousCredential => "ambiguous_credential",
            AdminRefusal::InvalidKey => "invalid_key",
            AdminRefusal::ExpiredKey => "expired_key",
            AdminRefusal::DisabledKey => "disabled_key",
            AdminRefusal::SuspendedTenant => "suspended_tenant",
            AdminRefusal::AddressNotAllowed => "address_not_allowed",
            AdminRefusal::Forbidden => "forbidden",
            AdminRefusal::Limited => "limited",
            AdminRefusal::Origin => "origin",
        }
    }
}

/// What came of an attempt to sign in to the dashboard. The label `result`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SignIn {
    Ok,
    Refused,
    /// Too many wrong keys from the address.
    Limited,
    /// The key could not be verified, or the session not be stored.
    Unavailable,
}

const SIGN_INS: usize = 4;

impl SignIn {
    pub const ALL: [SignIn; SIGN_INS] = [
        SignIn::Ok,
        SignIn::Refused,
        SignIn::Limited,
        SignIn::Unavailable,
    ];

    /// The label's value.
    pub fn as_str(self) -> &'static str {
        match self {
            SignIn::Ok => "ok",
            SignIn::Refused => "refused",
            SignIn::Limited => "limited",
            SignIn::Unavailable => "unavailable",
        }
    }
}

/// Their counters, found once.
#[derive(Debug, Clone)]
pub struct AdminMetrics {
    responses: [IntCounter; CLASSES],
    refusals: [IntCounter; REFUSALS],
    sign_ins: [IntCounter; SIGN_INS],
}

impl AdminMetrics {
    pub fn of(metrics: &Metrics) -> Self {
        AdminMetrics {
            responses: StatusClass::ALL.map(|class| {
                let responses = &metrics.admin_responses;
                responses.with_label_values(&[class.as_str()])
            }),
            refusals: AdminRefusal::ALL.map(|reason| {
                let refusals = &metrics.admin_refusals;
                refusals.with_label_values(&[reason.as_str()])
            }),
            sign_ins: SignIn::ALL.map(|result| {
                let sign_ins = &metrics.sign_ins;
                sign_ins.with_label_values(&[result.as_str()])
            }),
        }
    }

    pub fn answered(&self, class: StatusClass) {
        self.responses[class as usize].inc();
    }

    pub fn refused(&self, reason: AdminRefusal) {
        self.refusals[reason as usize].inc();
    }

    pub fn signed_in(&self, result: SignIn) {
        self.sign_ins[result as usize].inc();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_counts_under_its_own_name() {
        let metrics = Metrics::new().unwrap();
        let admin = AdminMetrics::of(&metrics);
        let lines = |text: &str| text.lines().filter(|line| line.ends_with("} 1")).count();
        // The version has one as well.
        let before = lines(&metrics.text().unwrap());
        StatusClass::ALL
            .iter()
            .for_each(|class| admin.answered(*class));
        AdminRefusal::ALL
            .iter()
            .for_each(|reason| admin.refused(*reason));
        SignIn::ALL
            .iter()
            .for_each(|result| admin.signed_in(*result));
        let all = CLASSES + REFUSALS + SIGN_INS;
        assert_eq!(lines(&metrics.text().unwrap()) - before, all);
    }
}
