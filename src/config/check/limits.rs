//! `[limits]` and `[redis]`.

use std::sync::Arc;
use std::time::Duration;

use super::Checker;
use crate::config::{raw, settings::*};
use crate::key::Policy;
use crate::key::policy::POLICIES_MAX;

const INSTANCES_MAX: u64 = 1000;
pub(super) const ON_OUTAGE: [(&str, OnOutage); 3] = [
    ("local", OnOutage::Local),
    ("open", OnOutage::Open),
    ("closed", OnOutage::Closed),
];

impl Checker<'_> {
    pub(super) fn policies(&mut self, path: &str, raw: &[Policy]) -> Vec<Arc<Policy>> {
        if raw.len() > POLICIES_MAX {
            self.report(
                path,
                format!("has {} policies; at most {POLICIES_MAX} fit", raw.len()),
            );
        }
        self.unique(path, raw.iter().map(|policy| policy.name.as_str()));
        for (i, policy) in raw.iter().enumerate() {
            self.policy(&format!("{path}[{i}]"), policy);
        }
        raw.iter().cloned().map(Arc::new).collect()
    }

    pub(super) fn policy(&mut self, path: &str, policy: &Policy) {
        for problem in policy.problems() {
            self.report(format!("{path}.{}", problem.field()), problem.to_string());
        }
    }

    pub(super) fn limits(
        &mut self,
        raw: &raw::Limits,
        redis: &raw::Redis,
    ) -> Option<LimitSettings> {
        let found_before = self.problems.len();
        let default = self.policies("limits.default", &raw.default);
        let anonymous = self.policies("limits.anonymous", &raw.anonymous);
        self.policy("limits.failed_auth", &raw.failed_auth);
        let on_outage = self.choice("limits.on_outage", &raw.on_outage, &ON_OUTAGE);
        self.number("limits.instances", raw.instances, 1, INSTANCES_MAX);
        let is_shared = self.choice(
            "limits.backend",
            &raw.backend,
            &[("memory", false), ("redis", true)],
        );
        let redis = self.redis(redis, is_shared == Some(true));
        self.number("limits.max_lease_ms", raw.max_lease_ms, 0, 10_000);
        self.number("limits.max_addresses", raw.max_addresses, 1, 100_000_000);
        let (mut ratelimit_fields, mut x_ratelimit_fields) = (false, false);
        for (i, name) in raw.headers.0.iter().enumerate() {
            match name.as_str() {
                "ratelimit" => ratelimit_fields = true,
                "x-ratelimit" => x_ratelimit_fields = true,
                other => self.report(
                    format!("limits.headers[{i}]"),
                    format!("is \"{other}\"; it must be \"ratelimit\" or \"x-ratelimit\""),
                ),
            }
        }
        let on_outage = on_outage?;
        (self.problems.len() == found_before).then(|| LimitSettings {
            redis,
            on_outage,
            max_lease: Duration::from_millis(raw.max_lease_ms),
            instances: raw.instances,
            default,
            anonymous,
            failed_auth: Arc::new(raw.failed_auth.clone()),
            max_addresses: raw.max_addresses,
            ratelimit_fields,
            x_ratelimit_fields,
        })
    }
}
