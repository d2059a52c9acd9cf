//! Every metric, declared once. Names follow the Prometheus conventions; labels come from closed enums
//! and from the configuration, and `tenant` from the database, for so many as the configuration allows;
//! never from a request.

mod declare;

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use prometheus::{
    Encoder, Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Registry,
    TextEncoder,
};

use super::addresses::Addresses;
use super::outcome::{OUTCOMES, Outcome};
use super::status::StatusClass;
use declare::{Metric, declare};

pub use declare::Declaration;

/// What a circuit breaker stands in front of. The label `dependency`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dependency {
    Database,
    Redis,
    Vault,
}

/// What a histogram is told of a time that the clock has counted.
pub fn seconds(us: u64) -> f64 {
    us as f64 / 1e6
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
    responses: Vec<IntCounter>,
    pub duration: Histogram,
    pub upstream_duration: Histogram,
    pub added_duration: Histogram,
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

    /// Counts what the client got, by its status.
    pub fn answered(&self, status: Option<u16>) {
        self.responses[StatusClass::of(status) as usize].inc();
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

/// Time of what is counted in milliseconds and more.
const SECONDS: &[f64] = &[
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
];

/// Time that Sidekey takes itself: microseconds where the key is warm, a tenth of a second where bcrypt has to
/// run, more where something is waited for.
const OWN_SECONDS: &[f64] = &[
    0.000_025, 0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1,
    0.25, 0.5, 1.0, 2.5, 5.0,
];

/// Time of one call on a network: some take a tenth of a millisecond, and none goes on for ever.
const CALL_SECONDS: &[f64] = &[
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
    5.0, 10.0,
];

declare! {
    requests: IntCounterVec by [route, outcome] = "sidekey_requests_total",
        "Requests through the proxy, by route and how they ended.";
    shadow_refusals: IntCounterVec by [route, outcome] = "sidekey_shadow_refusals_total",
        "Requests that would have been refused, were the mode not shadow, by route and reason.";
    duration: HistogramVec by [route] in SECONDS = "sidekey_request_duration_seconds",
        "Time from a request's header to the end of its answer, by route.";
    upstream_duration: HistogramVec by [route] in SECONDS = "sidekey_upstream_duration_seconds",
        "Time from the choice of a server to the header of its answer, other servers that were tried before included, by route. Without an answer there is none.";
    added_duration: HistogramVec by [route] in OWN_SECONDS = "sidekey_added_duration_seconds",
        "Time from a request's header until it was passed on or refused, by route: what Sidekey adds, waiting for bcrypt, stores and Redis included.";
    responses: IntCounterVec by [route, code] = "sidekey_responses_total",
        "Answers that clients got, whoever gave them, by route and class of the status; none where the client was gone before.";
    pub tenant_requests: IntCounterVec by [tenant, outcome] = "sidekey_tenant_requests_total",
        "Requests with a key that was proven, of the busiest tenants, by tenant and how they ended; (other) are all other tenants. Brought up to date with each flush of usage.";
    pub tenants_shown: IntGauge = "sidekey_tenants_shown",
        "Tenants that have series of their own: the busiest, at most metrics.max_tenants.";
    pub failed_authentications: IntCounterVec by [reason, source] = "sidekey_failed_authentications_total",
        "Requests that were refused for what their credential is, by reason and kind of the client's address.";
    failed_authentication_addresses: IntGauge = "sidekey_failed_authentication_addresses",
        "Addresses of clients (of IPv6: networks of 64 bits) that have presented a wrong key at either port in about the last hour; an estimate.";
    pub admin_responses: IntCounterVec by [code] = "sidekey_admin_responses_total",
        "Answers of the admin port, by class of the status.";
    pub admin_refusals: IntCounterVec by [reason] = "sidekey_admin_refusals_total",
        "Calls and forms that the admin port has refused, by reason.";
    pub sign_ins: IntCounterVec by [result] = "sidekey_sign_ins_total",
        "Attempts to sign in to the dashboard, by what came of them.";
    pub in_flight: IntGauge = "sidekey_requests_in_flight",
        "Requests that are being handled now.";
    pub connections: IntGauge = "sidekey_connections",
        "Client connections that are open.";
    pub connections_refused: IntCounter = "sidekey_connections_refused_total",
        "Client connections closed at once because proxy.max_connections were open.";
    pub proof_hits: IntCounter = "sidekey_proof_hits_total",
        "Presented keys that were remembered as proven.";
    pub proof_misses: IntCounter = "sidekey_proof_misses_total",
        "Presented keys that had to be verified.";
    pub proof_negative_hits: IntCounter = "sidekey_proof_negative_hits_total",
        "Presented keys that were remembered as wrong.";
    pub proof_entries: IntGauge = "sidekey_proof_entries",
        "Proven keys that are remembered.";
    pub live_keys: IntGauge = "sidekey_live_keys",
        "Keys whose record is held in memory.";
    pub forged_keys: IntCounter = "sidekey_forged_keys_total",
        "Presented keys that this deployment did not mint, refused without a look at any store.";
    pub imports: IntGauge = "sidekey_imported_keys",
        "Imported keys, revoked ones included, that this instance can tell from unknown ones in memory.";
    pub import_filter_full: IntGauge = "sidekey_import_filter_full",
        "1 where more keys were imported than are kept in memory, so that unknown keys are looked up in the database.";
    pub import_filter_rejections: IntCounter = "sidekey_import_filter_rejections_total",
        "Presented keys that are none that was imported, refused without a look at any store.";
    pub import_lookups: IntCounter = "sidekey_import_lookups_total",
        "Presented keys that were looked up among the imported ones in the database.";
    pub bcrypt_runs: IntCounter = "sidekey_bcrypt_runs_total",
        "bcrypt hashes computed, for checks and new keys.";
    pub bcrypt_refused: IntCounter = "sidekey_bcrypt_refused_total",
        "Checks that were refused because the bcrypt queue was full.";
    pub bcrypt_queued: IntGauge = "sidekey_bcrypt_queued",
        "Checks that wait for a bcrypt thread.";
    pub bcrypt_seconds: Histogram in SECONDS = "sidekey_bcrypt_duration_seconds",
        "Time of one bcrypt hash.";
    pub bcrypt_in_flight: IntGauge = "sidekey_bcrypt_in_flight",
        "bcrypt hashes that are being computed now.";
    pub bcrypt_threads: IntGauge = "sidekey_bcrypt_threads",
        "Threads that compute bcrypt hashes; where requests take every CPU, one more helps.";
    pub bcrypt_queue_capacity: IntGauge = "sidekey_bcrypt_queue_capacity",
        "Checks that may wait for a bcrypt thread (bcrypt.max_queue); more are refused.";
    pub(super) limit_decisions: IntCounterVec by [source, verdict] = "sidekey_limit_decisions_total",
        "Requests whose limits were decided, by who decided and what.";
    pub store_errors: IntCounter = "sidekey_store_errors_total",
        "Failed calls of the database or secret store.";
    pub store_up: IntGauge = "sidekey_store_up",
        "1 while the database answers, 0 while it is away.";
    pub(super) store_call_seconds: HistogramVec by [operation] in CALL_SECONDS
        = "sidekey_store_call_duration_seconds",
        "Time of one call of the database, failed ones included and those left out that its circuit breaker held back.";
    pub(super) keys: IntGaugeVec by [status] = "sidekey_keys",
        "Keys in the database by what they were when they were counted last.";
    pub tenants: IntGauge = "sidekey_tenants",
        "Tenants in the database when they were counted last.";
    breaker_open: IntGaugeVec by [dependency] = "sidekey_breaker_open",
        "1 while calls of a dependency are refused at once because the last ones failed.";
    pub redis_calls: IntCounter = "sidekey_redis_calls_total",
        "Decisions about limits that Redis was asked for.";
    pub redis_errors: IntCounter = "sidekey_redis_errors_total",
        "Decisions that Redis did not give, or not in time.";
    pub redis_seconds: Histogram in CALL_SECONDS = "sidekey_redis_call_duration_seconds",
        "Time of one call of Redis about limits, failed ones included.";
    pub redis_up: IntGauge = "sidekey_redis_up",
        "1 while Redis answers, 0 while it is away or not used.";
    pub leases_open: IntGauge = "sidekey_limit_leases",
        "Keys for which tokens of shared limits are held in advance.";
    pub lease_tokens_returned: IntCounter = "sidekey_limit_lease_tokens_returned_total",
        "Tokens that were taken from shared limits in advance, and given back.";
    pub outage_decisions: IntCounter = "sidekey_limit_outage_decisions_total",
        "Decisions about limits by limits.on_outage, because Redis was away.";
    pub vault_calls: IntCounter = "sidekey_vault_calls_total",
        "Calls of Vault, those included that its circuit breaker held back.";
    pub vault_errors: IntCounter = "sidekey_vault_errors_total",
        "Calls of Vault that were refused, failed, held back, or not answered in time.";
    pub(super) vault_call_seconds: HistogramVec by [operation] in CALL_SECONDS
        = "sidekey_vault_call_duration_seconds",
        "Time of one call of Vault, failed ones included and those left out that its circuit breaker held back.";
    pub vault_login_errors: IntCounter = "sidekey_vault_login_errors_total",
        "Logins at Vault and renewals of its token that failed, and looks that found a token which can't be replaced refused.";
    pub vault_up: IntGauge = "sidekey_vault_up",
        "1 while Vault answers and is unsealed, 0 while it is away or not used.";
    pub vault_token_ttl: IntGauge = "sidekey_vault_token_ttl_seconds",
        "How long the token of Vault lasts without being renewed; 0 where it has no end, or Vault is not used; -1 where it has ended, or Vault refuses it, and there is no other.";
    pub reconcile_runs: IntCounter = "sidekey_reconcile_runs_total",
        "Comparisons of the database with the secret store, failed ones included.";
    pub reconcile_errors: IntCounter = "sidekey_reconcile_errors_total",
        "Comparisons that ended early because a store did not answer.";
    pub reconcile_leftovers: IntCounter = "sidekey_reconcile_leftovers_total",
        "Hashes removed because nothing needed them.";
    pub reconcile_held_back: IntGauge = "sidekey_reconcile_held_back",
        "Keys whose left-over hashes are not removed because they are too many: rows may have been lost.";
    pub reconcile_broken_keys: IntGauge = "sidekey_reconcile_broken_keys",
        "Keys that are not revoked and can't work, because their hash is missing.";
    pub instances: IntGauge = "sidekey_instances",
        "Instances on the same database that were heard of lately, this one included.";
    pub changes_applied: IntCounter = "sidekey_changes_applied_total",
        "Changes and creations of keys, of all instances, that this one has followed.";
    pub events_connected: IntGauge = "sidekey_events_connected",
        "1 while changes are announced through Redis, 0 while they are found by polling alone.";
    pub events_failed: IntCounter = "sidekey_events_failed_total",
        "Attempts to announce a change that Redis did not take in time.";
    pub propagation_seconds: Histogram in SECONDS = "sidekey_propagation_seconds",
        "Time that answers to changes waited for the other instances' confirmation.";
    pub propagation_unconfirmed: IntCounter = "sidekey_propagation_unconfirmed_total",
        "Changes that were answered before all instances had confirmed them.";
    pub audit_entries: IntCounter = "sidekey_audit_entries_total",
        "Entries that this instance has added to the audit chain.";
    pub audit_failures: IntCounter = "sidekey_audit_failures_total",
        "Writes that were not done because the audit chain could not be continued; outages of the database are not among them.";
    pub audit_seconds: Histogram in CALL_SECONDS = "sidekey_audit_write_duration_seconds",
        "Time from asking for the end of the audit chain to the commit of what was added, failed writes included.";
    pub audit_unrecorded: IntCounter = "sidekey_audit_unrecorded_total",
        "Refused admin calls and sign-ins that there was no room to note one by one.";
    pub usage_flushes: IntCounter = "sidekey_usage_flushes_total",
        "Times that all usage which waited was stored.";
    pub usage_flush_failures: IntCounter = "sidekey_usage_flush_failures_total",
        "Batches of usage that could not be stored, and are tried again.";
    pub usage_flush_seconds: Histogram in SECONDS = "sidekey_usage_flush_seconds",
        "Time until all usage which waited was stored.";
    pub usage_last_flush: IntGauge = "sidekey_usage_last_flush_timestamp_seconds",
        "When all usage was last found stored, in seconds since the Unix epoch; 0 before the first time.";
    pub usage_pending_rows: IntGauge = "sidekey_usage_pending_rows",
        "Rows of usage, one a key and hour, that wait to be stored.";
    pub usage_rows_dropped: IntCounter = "sidekey_usage_rows_dropped_total",
        "Rows of usage that are lost because usage.max_pending_rows waited.";
    pub(super) reminders: IntCounterVec by [result] = "sidekey_reminders_total",
        "Reminders to replace a key's secret, by what came of them; failed ones are tried again.";
    pub keys_rotation_overdue: IntGauge = "sidekey_keys_rotation_overdue",
        "Active keys whose secret is older than their rotation_days, up to 100000.";
    pub keys_rotation_due: IntGauge = "sidekey_keys_rotation_due",
        "Active keys whose secret reaches their rotation_days within 14 days, up to 100000.";
    pub log_dropped: IntCounter = "sidekey_log_lines_dropped_total",
        "Log lines dropped because their reader was too slow.";
    pub(super) certificate_expiry: IntGaugeVec by [certificate]
        = "sidekey_certificate_expiry_timestamp_seconds",
        "When certificates end, in seconds since the Unix epoch: of a file with authorities (..._ca) the last, of one with a client's chain the first, of upstreams the first of the servers' own.";
    pub log_sampled_out: IntCounter = "sidekey_log_lines_sampled_out_total",
        "Lines about requests that were left out by log.sample.";
    pub trace_spans_dropped: IntCounter = "sidekey_trace_spans_dropped_total",
        "Spans that are lost because too many waited, or the collector did not take them.";
    pub trace_export_failures: IntCounter = "sidekey_trace_export_failures_total",
        "Batches of spans that the collector did not take, or not in time.";
    build_info: IntGaugeVec by [version] = "sidekey_build_info",
        "Always 1; the label names the version.";
}

impl Metrics {
    /// Registers everything.
    pub fn new() -> Result<Self, prometheus::Error> {
        let metrics = Metrics::declared(Registry::new())?;
        let version = env!("CARGO_PKG_VERSION");
        metrics.build_info.with_label_values(&[version]).set(1);
        metrics.show_reminders();
        let process = prometheus::process_collector::ProcessCollector::for_self();
        metrics.registry.register(Box::new(process))?;
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
        let classes = StatusClass::ALL.iter();
        RouteMetrics {
            requests: each(&self.requests),
            shadow_refusals: each(&self.shadow_refusals),
            responses: classes
                .map(|class| self.responses.with_label_values(&[name, class.as_str()]))
                .collect(),
            duration: self.duration.with_label_values(&[name]),
            upstream_duration: self.upstream_duration.with_label_values(&[name]),
            added_duration: self.added_duration.with_label_values(&[name]),
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

    /// Brings what has to be computed up to date: for whoever reads the values next.
    pub fn refresh(&self, now_us: u64) {
        let addresses = self.failed_addresses.estimate(now_us);
        let addresses = i64::try_from(addresses).unwrap_or(i64::MAX);
        self.failed_authentication_addresses.set(addresses);
    }

    /// All values in the Prometheus text format.
    pub fn text(&self) -> Result<String, prometheus::Error> {
        let mut buffer = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut buffer)?;
        String::from_utf8(buffer).map_err(|error| prometheus::Error::Msg(error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        route.answered(Some(429));
        let text = metrics.text().unwrap();
        assert!(
            text.contains("sidekey_requests_total{outcome=\"rate_limited\",route=\"orders\"} 1")
        );
        assert!(text.contains("sidekey_responses_total{code=\"4xx\",route=\"orders\"} 1"));
        assert!(text.contains(
            "sidekey_shadow_refusals_total{outcome=\"no_credential\",route=\"orders\"} 1"
        ));
    }
}
