//! Every metric, declared once. Names follow the Prometheus conventions; labels come from closed
//! enums and from the configuration, never from a request.

use std::collections::BTreeMap;

use parking_lot::Mutex;
use prometheus::core::Collector;
use prometheus::{
    Encoder, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge,
    IntGaugeVec, Opts, Registry, TextEncoder,
};

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

/// What a circuit breaker stands in front of. The label `dependency`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dependency {
    Database,
    Redis,
    Vault,
}

impl Dependency {
    /// The label's value.
    pub fn as_str(self) -> &'static str {
        match self {
            Dependency::Database => "database",
            Dependency::Redis => "redis",
            Dependency::Vault => "vault",
        }
    }
}

/// The counters of one route, found once when the configuration is loaded.
#[derive(Debug, Clone)]
pub struct RouteMetrics {
    requests: Vec<IntCounter>,
    shadow_refusals: Vec<IntCounter>,
    pub duration: Histogram,
}

impl RouteMetrics {
    /// Counts one request by its outcome.
    pub fn count(&self, outcome: Outcome) {
        self.requests[outcome as usize].inc();
    }

    /// Counts one request that would have been refused, were the mode not `shadow`.
    pub fn count_shadow(&self, outcome: Outcome) {
        self.shadow_refusals[outcome as usize].inc();
    }
}

/// Requests of all routes by their outcome, since the process began.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct OutcomeTotals {
    /// In the order of [`Outcome::ALL`], as the others.
    pub requests: [u64; OUTCOMES],
    /// Those that would have been refused, were the mode not `shadow`.
    pub shadow: [u64; OUTCOMES],
}

/// All metrics of the process.
pub struct Metrics {
    registry: Registry,
    routes: Mutex<BTreeMap<String, RouteMetrics>>,
    requests: IntCounterVec,
    shadow_refusals: IntCounterVec,
    duration: HistogramVec,
    pub in_flight: IntGauge,
    pub connections: IntGauge,
    pub connections_refused: IntCounter,
    pub proof_hits: IntCounter,
    pub proof_misses: IntCounter,
    pub proof_negative_hits: IntCounter,
    pub proof_entries: IntGauge,
    pub live_keys: IntGauge,
    pub forged_keys: IntCounter,
    pub imports: IntGauge,
    pub import_filter_full: IntGauge,
    pub import_filter_rejections: IntCounter,
    pub import_lookups: IntCounter,
    pub bcrypt_runs: IntCounter,
    pub bcrypt_refused: IntCounter,
    pub bcrypt_queued: IntGauge,
    pub bcrypt_seconds: Histogram,
    pub store_errors: IntCounter,
    pub store_up: IntGauge,
    breaker_open: IntGaugeVec,
    pub redis_calls: IntCounter,
    pub redis_errors: IntCounter,
    pub redis_up: IntGauge,
    pub leases_open: IntGauge,
    pub lease_tokens_returned: IntCounter,
    pub outage_decisions: IntCounter,
    pub vault_calls: IntCounter,
    pub vault_errors: IntCounter,
    pub vault_login_errors: IntCounter,
    pub vault_up: IntGauge,
    pub vault_token_ttl: IntGauge,
    pub reconcile_runs: IntCounter,
    pub reconcile_errors: IntCounter,
    pub reconcile_leftovers: IntCounter,
    pub reconcile_held_back: IntGauge,
    pub reconcile_broken_keys: IntGauge,
    pub instances: IntGauge,
    pub changes_applied: IntCounter,
    pub events_connected: IntGauge,
    pub events_failed: IntCounter,
    pub propagation_seconds: Histogram,
    pub propagation_unconfirmed: IntCounter,
    pub audit_entries: IntCounter,
    pub audit_failures: IntCounter,
    pub audit_unrecorded: IntCounter,
    pub usage_flushes: IntCounter,
    pub usage_flush_failures: IntCounter,
    pub usage_flush_seconds: Histogram,
    pub usage_pending_rows: IntGauge,
    pub usage_rows_dropped: IntCounter,
    pub log_dropped: IntGauge,
}

const SECONDS: &[f64] = &[
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
];

impl Metrics {
    /// Declares and registers everything.
    pub fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let r = &registry;
        let metrics = Metrics {
            requests: register(
                r,
                IntCounterVec::new(
                    Opts::new(
                        "sidekey_requests_total",
                        "Requests through the proxy, by route and how they ended.",
                    ),
                    &["route", "outcome"],
                )?,
            )?,
            shadow_refusals: register(
                r,
                IntCounterVec::new(
                    Opts::new(
                        "sidekey_shadow_refusals_total",
                        "Requests that would have been refused, were the mode not shadow, by route and reason.",
                    ),
                    &["route", "outcome"],
                )?,
            )?,
            duration: register(
                r,
                HistogramVec::new(
                    HistogramOpts::new(
                        "sidekey_request_duration_seconds",
                        "Time from a request's header to the end of its answer, by route.",
                    )
                    .buckets(SECONDS.to_vec()),
                    &["route"],
                )?,
            )?,
            in_flight: gauge(
                r,
                "sidekey_requests_in_flight",
                "Requests that are being handled now.",
            )?,
            connections: gauge(
                r,
                "sidekey_connections",
                "Client connections that are open.",
            )?,
            connections_refused: counter(
                r,
                "sidekey_connections_refused_total",
                "Client connections closed at once because proxy.max_connections were open.",
            )?,
            proof_hits: counter(
                r,
                "sidekey_proof_hits_total",
                "Presented keys that were remembered as proven.",
            )?,
            proof_misses: counter(
                r,
                "sidekey_proof_misses_total",
                "Presented keys that had to be verified.",
            )?,
            proof_negative_hits: counter(
                r,
                "sidekey_proof_negative_hits_total",
                "Presented keys that were remembered as wrong.",
            )?,
            proof_entries: gauge(
                r,
                "sidekey_proof_entries",
                "Proven keys that are remembered.",
            )?,
            live_keys: gauge(
                r,
                "sidekey_live_keys",
                "Keys whose record is held in memory.",
            )?,
            forged_keys: counter(
                r,
                "sidekey_forged_keys_total",
                "Presented keys that this deployment did not mint, refused without a look at any store.",
            )?,
            imports: gauge(
                r,
                "sidekey_imported_keys",
                "Imported keys, revoked ones included, that this instance can tell from unknown ones in memory.",
            )?,
            import_filter_full: gauge(
                r,
                "sidekey_import_filter_full",
                "1 where more keys were imported than are kept in memory, so that unknown keys are looked up in the database.",
            )?,
            import_filter_rejections: counter(
                r,
                "sidekey_import_filter_rejections_total",
                "Presented keys that are none that was imported, refused without a look at any store.",
            )?,
            import_lookups: counter(
                r,
                "sidekey_import_lookups_total",
                "Presented keys that were looked up among the imported ones in the database.",
            )?,
            bcrypt_runs: counter(
                r,
                "sidekey_bcrypt_runs_total",
                "bcrypt hashes computed, for checks and new keys.",
            )?,
            bcrypt_refused: counter(
                r,
                "sidekey_bcrypt_refused_total",
                "Checks that were refused because the bcrypt queue was full.",
            )?,
            bcrypt_queued: gauge(
                r,
                "sidekey_bcrypt_queued",
                "Checks that wait for a bcrypt thread.",
            )?,
            bcrypt_seconds: register(
                r,
                Histogram::with_opts(
                    HistogramOpts::new(
                        "sidekey_bcrypt_duration_seconds",
                        "Time of one bcrypt hash.",
                    )
                    .buckets(SECONDS.to_vec()),
                )?,
            )?,
            store_errors: counter(
                r,
                "sidekey_store_errors_total",
                "Failed calls of the database or secret store.",
            )?,
            store_up: gauge(
                r,
                "sidekey_store_up",
                "1 while the database answers, 0 while it is away.",
            )?,
            breaker_open: register(
                r,
                IntGaugeVec::new(
                    Opts::new(
                        "sidekey_breaker_open",
                        "1 while calls of a dependency are refused at once because the last ones failed.",
                    ),
                    &["dependency"],
                )?,
            )?,
            redis_calls: counter(
                r,
                "sidekey_redis_calls_total",
                "Decisions about limits that Redis was asked for.",
            )?,
            redis_errors: counter(
                r,
                "sidekey_redis_errors_total",
                "Decisions that Redis did not give, or not in time.",
            )?,
            redis_up: gauge(
                r,
                "sidekey_redis_up",
                "1 while Redis answers, 0 while it is away or not used.",
            )?,
            leases_open: gauge(
                r,
                "sidekey_limit_leases",
                "Keys for which tokens of shared limits are held in advance.",
            )?,
            lease_tokens_returned: counter(
                r,
                "sidekey_limit_lease_tokens_returned_total",
                "Tokens that were taken from shared limits in advance, and given back.",
            )?,
            outage_decisions: counter(
                r,
                "sidekey_limit_outage_decisions_total",
                "Decisions about limits by limits.on_outage, because Redis was away.",
            )?,
            vault_calls: counter(
                r,
                "sidekey_vault_calls_total",
                "Calls of Vault, those included that its circuit breaker held back.",
            )?,
            vault_errors: counter(
                r,
                "sidekey_vault_errors_total",
                "Calls of Vault that were refused, failed, held back, or not answered in time.",
            )?,
            vault_login_errors: counter(
                r,
                "sidekey_vault_login_errors_total",
                "Logins at Vault and renewals of its token that failed, and looks that found a token which can't be replaced refused.",
            )?,
            vault_up: gauge(
                r,
                "sidekey_vault_up",
                "1 while Vault answers and is unsealed, 0 while it is away or not used.",
            )?,
            vault_token_ttl: gauge(
                r,
                "sidekey_vault_token_ttl_seconds",
                "How long the token of Vault lasts without being renewed; 0 where it has no end, or Vault is not used; -1 where Vault refuses one that can't be replaced.",
            )?,
            reconcile_runs: counter(
                r,
                "sidekey_reconcile_runs_total",
                "Comparisons of the database with the secret store, failed ones included.",
            )?,
            reconcile_errors: counter(
                r,
                "sidekey_reconcile_errors_total",
                "Comparisons that ended early because a store did not answer.",
            )?,
            reconcile_leftovers: counter(
                r,
                "sidekey_reconcile_leftovers_total",
                "Hashes removed because nothing needed them.",
            )?,
            reconcile_held_back: gauge(
                r,
                "sidekey_reconcile_held_back",
                "Keys whose left-over hashes are not removed because they are too many: rows may have been lost.",
            )?,
            reconcile_broken_keys: gauge(
                r,
                "sidekey_reconcile_broken_keys",
                "Keys that are not revoked and can't work, because their hash is missing.",
            )?,
            instances: gauge(
                r,
                "sidekey_instances",
                "Instances on the same database that were heard of lately, this one included.",
            )?,
            changes_applied: counter(
                r,
                "sidekey_changes_applied_total",
                "Changes and creations of keys, of all instances, that this one has followed.",
            )?,
            events_connected: gauge(
                r,
                "sidekey_events_connected",
                "1 while changes are announced through Redis, 0 while they are found by polling alone.",
            )?,
            events_failed: counter(
                r,
                "sidekey_events_failed_total",
                "Attempts to announce a change that Redis did not take in time.",
            )?,
            propagation_seconds: register(
                r,
                Histogram::with_opts(
                    HistogramOpts::new(
                        "sidekey_propagation_seconds",
                        "Time that answers to changes waited for the other instances' confirmation.",
                    )
                    .buckets(SECONDS.to_vec()),
                )?,
            )?,
            propagation_unconfirmed: counter(
                r,
                "sidekey_propagation_unconfirmed_total",
                "Changes that were answered before all instances had confirmed them.",
            )?,
            audit_entries: counter(
                r,
                "sidekey_audit_entries_total",
                "Entries that this instance has added to the audit chain.",
            )?,
            audit_failures: counter(
                r,
                "sidekey_audit_failures_total",
                "Writes that were not done because the audit chain could not be continued.",
            )?,
            audit_unrecorded: counter(
                r,
                "sidekey_audit_unrecorded_total",
                "Refused admin calls and sign-ins that there was no room to note one by one.",
            )?,
            usage_flushes: counter(
                r,
                "sidekey_usage_flushes_total",
                "Times that all usage which waited was stored.",
            )?,
            usage_flush_failures: counter(
                r,
                "sidekey_usage_flush_failures_total",
                "Batches of usage that could not be stored, and are tried again.",
            )?,
            usage_flush_seconds: register(
                r,
                Histogram::with_opts(
                    HistogramOpts::new(
                        "sidekey_usage_flush_seconds",
                        "Time until all usage which waited was stored.",
                    )
                    .buckets(SECONDS.to_vec()),
                )?,
            )?,
            usage_pending_rows: gauge(
                r,
                "sidekey_usage_pending_rows",
                "Rows of usage, one a key and hour, that wait to be stored.",
            )?,
            usage_rows_dropped: counter(
                r,
                "sidekey_usage_rows_dropped_total",
                "Rows of usage that are lost because usage.max_pending_rows waited.",
            )?,
            log_dropped: gauge(
                r,
                "sidekey_log_lines_dropped",
                "Log lines dropped because their reader was too slow.",
            )?,
            routes: Mutex::default(),
            registry: registry.clone(),
        };
        let build = register(
            r,
            IntGaugeVec::new(
                Opts::new(
                    "sidekey_build_info",
                    "Always 1; the label names the version.",
                ),
                &["version"],
            )?,
        )?;
        build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        registry.register(Box::new(
            prometheus::process_collector::ProcessCollector::for_self(),
        ))?;
        Ok(metrics)
    }

    /// The counters of the route `name`.
    pub fn route(&self, name: &str) -> RouteMetrics {
        let mut routes = self.routes.lock();
        let known = routes.entry(name.to_owned());
        known.or_insert_with(|| self.new_route(name)).clone()
    }

    fn new_route(&self, name: &str) -> RouteMetrics {
        let each = |counters: &IntCounterVec| {
            Outcome::ALL
                .iter()
                .map(|o| counters.with_label_values(&[name, o.as_str()]))
                .collect()
        };
        RouteMetrics {
            requests: each(&self.requests),
            shadow_refusals: each(&self.shadow_refusals),
            duration: self.duration.with_label_values(&[name]),
        }
    }

    /// What the counters of all routes say, read while they count.
    pub fn outcomes(&self) -> OutcomeTotals {
        let mut totals = OutcomeTotals::default();
        for route in self.routes.lock().values() {
            for (sum, counter) in totals.requests.iter_mut().zip(&route.requests) {
                *sum += counter.get();
            }
            for (sum, counter) in totals.shadow.iter_mut().zip(&route.shadow_refusals) {
                *sum += counter.get();
            }
        }
        totals
    }

    /// The gauge of the circuit breaker in front of `dependency`.
    pub fn breaker_open(&self, dependency: Dependency) -> IntGauge {
        self.breaker_open.with_label_values(&[dependency.as_str()])
    }

    /// All values in the Prometheus text format.
    pub fn text(&self) -> Result<String, prometheus::Error> {
        let mut buffer = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut buffer)?;
        String::from_utf8(buffer).map_err(|error| prometheus::Error::Msg(error.to_string()))
    }
}

fn register<C: Collector + Clone + 'static>(
    registry: &Registry,
    collector: C,
) -> Result<C, prometheus::Error> {
    registry.register(Box::new(collector.clone()))?;
    Ok(collector)
}

fn counter(registry: &Registry, name: &str, help: &str) -> Result<IntCounter, prometheus::Error> {
    register(registry, IntCounter::new(name, help)?)
}

fn gauge(registry: &Registry, name: &str, help: &str) -> Result<IntGauge, prometheus::Error> {
    register(registry, IntGauge::new(name, help)?)
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

    #[test]
    fn outcomes_are_those_of_all_routes() {
        let metrics = Metrics::new().unwrap();
        let (a, b) = (metrics.route("a"), metrics.route("b"));
        // The same route twice is one.
        for route in [&a, &b, &metrics.route("b")] {
            route.count(Outcome::NoRoute);
        }
        a.count_shadow(Outcome::InvalidKey);
        let totals = metrics.outcomes();
        assert_eq!(totals.requests[Outcome::NoRoute as usize], 3);
        assert_eq!(totals.requests.iter().sum::<u64>(), 3);
        assert_eq!(totals.shadow[Outcome::InvalidKey as usize], 1);
        assert_eq!(totals.shadow.iter().sum::<u64>(), 1);
    }

    #[test]
    fn a_route_counts_under_its_name() {
        let metrics = Metrics::new().unwrap();
        let route = metrics.route("orders");
        route.count(Outcome::RateLimited);
        route.count_shadow(Outcome::NoCredential);
        let text = metrics.text().unwrap();
        assert!(
            text.contains("sidekey_requests_total{outcome=\"rate_limited\",route=\"orders\"} 1")
        );
        assert!(text.contains(
            "sidekey_shadow_refusals_total{outcome=\"no_credential\",route=\"orders\"} 1"
        ));
    }
}
