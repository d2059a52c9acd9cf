//! `[verification]`, `[bcrypt]` and `[store]`.

use std::time::Duration;

use super::{Checker, SECONDS_MAX, THREADS_MAX, threads};
use crate::config::raw;
use crate::config::settings::*;
use crate::key::hash;

const POLL_MS_MIN: u64 = 10;
const POLL_MS_MAX: u64 = 60_000;
const PROPAGATION_WAIT_MS_MAX: u64 = 10_000;

impl Checker<'_> {
    pub(super) fn verification(&mut self, raw: &raw::Verification) -> VerificationSettings {
        self.number("verification.max_proofs", raw.max_proofs, 1, 100_000_000);
        self.number(
            "verification.proof_ttl_seconds",
            raw.proof_ttl_seconds,
            1,
            SECONDS_MAX,
        );
        self.number(
            "verification.negative_ttl_seconds",
            raw.negative_ttl_seconds,
            1,
            3600,
        );
        VerificationSettings {
            max_proofs: raw.max_proofs,
            proof_ttl: Duration::from_secs(raw.proof_ttl_seconds.min(SECONDS_MAX)),
            negative_ttl: Duration::from_secs(raw.negative_ttl_seconds.min(3600)),
        }
    }

    pub(super) fn bcrypt(&mut self, raw: &raw::Bcrypt) -> Option<BcryptSettings> {
        self.number("bcrypt.cost", raw.cost, hash::COST_MIN, hash::COST_MAX);
        self.number("bcrypt.max_queue", raw.max_queue, 1, 100_000);
        self.number("bcrypt.threads", raw.threads, 0, THREADS_MAX);
        let threads = if raw.threads == 0 {
            (threads(0) / 2).max(1)
        } else {
            raw.threads
        };
        Some(BcryptSettings {
            cost: raw.cost,
            max_queue: raw.max_queue,
            threads,
        })
    }

    pub(super) fn store(&mut self, raw: &raw::Store) -> Option<StoreSettings> {
        use secrecy::ExposeSecret;
        let url = self.secret("store.url", &raw.url, raw.url_file.as_deref())?;
        let text = url.expose_secret();
        let is_postgres = ["postgres://", "postgresql://"]
            .iter()
            .any(|scheme| text.len() > scheme.len() && text.starts_with(scheme));
        if !is_postgres && text.strip_prefix("sqlite://").is_none_or(str::is_empty) {
            // Not quoted back: it may hold a password.
            self.report(
                "store.url",
                "must be sqlite://PATH, such as sqlite://data/sidekey.db, or postgres://USER:PASSWORD@HOST/DATABASE",
            );
        }
        self.number(
            "store.max_stale_seconds",
            raw.max_stale_seconds,
            1,
            SECONDS_MAX,
        );
        self.number(
            "store.poll_interval_ms",
            raw.poll_interval_ms,
            POLL_MS_MIN,
            POLL_MS_MAX,
        );
        if raw.max_stale_seconds.saturating_mul(1000) < raw.poll_interval_ms.saturating_mul(2) {
            self.report(
                "store.max_stale_seconds",
                "must be at least twice store.poll_interval_ms, or keys would be refused between two looks",
            );
        }
        self.number(
            "store.propagation_wait_ms",
            raw.propagation_wait_ms,
            0,
            PROPAGATION_WAIT_MS_MAX,
        );
        if !raw.instance_name.is_empty() {
            self.name("store.instance_name", &raw.instance_name);
        }
        Some(StoreSettings {
            url,
            max_stale: Duration::from_secs(raw.max_stale_seconds),
            poll_interval: Duration::from_millis(raw.poll_interval_ms),
            propagation_wait: Duration::from_millis(raw.propagation_wait_ms),
            instance_name: Some(raw.instance_name.clone()).filter(|name| !name.is_empty()),
        })
    }
}
