//! What is counted of databases, Vault, Redis and their certificates: labels, and handles that are found
//! once.

use std::sync::Arc;

use prometheus::{Histogram, IntCounter};

use super::Metrics;
use super::metrics::seconds;
use crate::clock::SharedClock;
use crate::key::Status;

/// What a call of the database does. The label `operation`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoreOperation {
    Read,
    Write,
}

/// What a call of Vault does. The label `operation`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VaultOperation {
    Read,
    Write,
    Delete,
    List,
    /// A login, and what keeps its token alive.
    Login,
}

/// Who decided about a request's limits. The label `source`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LimitSource {
    /// Buckets in this process, where they are all there is.
    Memory,
    /// What an instance holds of shared buckets in advance, or knows of them.
    Lease,
    /// Redis, asked for this request.
    Redis,
    /// What is configured for an outage of Redis.
    Outage,
}

/// What was decided. The label `verdict`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LimitVerdict {
    Allowed,
    Limited,
    /// Nobody could decide, and nobody passes then.
    Unavailable,
}

/// Whose certificates they are. The label `certificate`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Certificate {
    DatabaseCa,
    DatabaseClient,
    RedisCa,
    RedisClient,
    VaultCa,
    SmtpCa,
    /// What servers behind Sidekey show.
    Upstream,
}

impl StoreOperation {
    fn as_str(self) -> &'static str {
        match self {
            StoreOperation::Read => "read",
            StoreOperation::Write => "write",
        }
    }
}

impl VaultOperation {
    const ALL: [VaultOperation; 5] = [
        VaultOperation::Read,
        VaultOperation::Write,
        VaultOperation::Delete,
        VaultOperation::List,
        VaultOperation::Login,
    ];

    fn as_str(self) -> &'static str {
        match self {
            VaultOperation::Read => "read",
            VaultOperation::Write => "write",
            VaultOperation::Delete => "delete",
            VaultOperation::List => "list",
            VaultOperation::Login => "login",
        }
    }
}

impl LimitSource {
    const ALL: [LimitSource; 4] = [
        LimitSource::Memory,
        LimitSource::Lease,
        LimitSource::Redis,
        LimitSource::Outage,
    ];

    fn as_str(self) -> &'static str {
        match self {
            LimitSource::Memory => "memory",
            LimitSource::Lease => "lease",
            LimitSource::Redis => "redis",
            LimitSource::Outage => "outage",
        }
    }
}

impl LimitVerdict {
    const ALL: [LimitVerdict; 3] = [
        LimitVerdict::Allowed,
        LimitVerdict::Limited,
        LimitVerdict::Unavailable,
    ];

    /// What a decision that was made says.
    pub fn of(allowed: bool) -> Self {
        if allowed {
            LimitVerdict::Allowed
        } else {
            LimitVerdict::Limited
        }
    }

    fn as_str(self) -> &'static str {
        match self {
            LimitVerdict::Allowed => "allowed",
            LimitVerdict::Limited => "limited",
            LimitVerdict::Unavailable => "unavailable",
        }
    }
}

impl Certificate {
    /// The label's value.
    pub fn as_str(self) -> &'static str {
        match self {
            Certificate::DatabaseCa => "database_ca",
            Certificate::DatabaseClient => "database_client",
            Certificate::RedisCa => "redis_ca",
            Certificate::RedisClient => "redis_client",
            Certificate::VaultCa => "vault_ca",
            Certificate::SmtpCa => "smtp_ca",
            Certificate::Upstream => "upstream",
        }
    }

    /// Whether it is of authorities that are trusted, each for itself.
    pub fn is_of_authorities(self) -> bool {
        match self {
            Certificate::DatabaseCa
            | Certificate::RedisCa
            | Certificate::VaultCa
            | Certificate::SmtpCa => true,
            Certificate::DatabaseClient | Certificate::RedisClient | Certificate::Upstream => false,
        }
    }
}

/// How long calls of the database take.
#[derive(Debug, Clone)]
pub struct StoreTimes {
    read: Histogram,
    write: Histogram,
}

impl StoreTimes {
    pub fn of(&self, operation: StoreOperation) -> &Histogram {
        match operation {
            StoreOperation::Read => &self.read,
            StoreOperation::Write => &self.write,
        }
    }
}

/// How long calls of Vault take.
#[derive(Debug, Clone)]
pub struct VaultTimes([Histogram; VaultOperation::ALL.len()]);

impl VaultTimes {
    pub fn of(&self, operation: VaultOperation) -> &Histogram {
        &self.0[operation as usize]
    }
}

/// The counters of decisions about limits.
#[derive(Debug, Clone)]
pub struct LimitDecisions(Arc<[[IntCounter; LimitVerdict::ALL.len()]; LimitSource::ALL.len()]>);

impl LimitDecisions {
    /// Counts one.
    pub fn count(&self, source: LimitSource, verdict: LimitVerdict) {
        self.0[source as usize][verdict as usize].inc();
    }
}

impl Metrics {
    /// The histograms of the database.
    pub fn store_times(&self) -> StoreTimes {
        let of = |operation: StoreOperation| {
            self.store_call_seconds
                .with_label_values(&[operation.as_str()])
        };
        StoreTimes {
            read: of(StoreOperation::Read),
            write: of(StoreOperation::Write),
        }
    }

    /// The histograms of Vault.
    pub fn vault_times(&self) -> VaultTimes {
        VaultTimes(VaultOperation::ALL.map(|operation| {
            self.vault_call_seconds
                .with_label_values(&[operation.as_str()])
        }))
    }

    /// The counters of decisions about limits.
    pub fn limit_decisions(&self) -> LimitDecisions {
        let of = |source: LimitSource| {
            LimitVerdict::ALL.map(|verdict| {
                self.limit_decisions
                    .with_label_values(&[source.as_str(), verdict.as_str()])
            })
        };
        LimitDecisions(Arc::new(LimitSource::ALL.map(of)))
    }

    /// Shows when the first of some certificates ends.
    pub fn show_certificate_end(&self, certificate: Certificate, unix_seconds: i64) {
        self.certificate_expiry
            .with_label_values(&[certificate.as_str()])
            .set(unix_seconds);
    }

    /// Shows how many keys have a status.
    pub fn show_keys(&self, status: Status, count: u64) {
        self.keys
            .with_label_values(&[status.as_str()])
            .set(i64::try_from(count).unwrap_or(i64::MAX));
    }
}

/// Measures a call until it is dropped, so that one which nobody waits for any more is seen too.
pub struct Timer<'a> {
    histogram: &'a Histogram,
    clock: &'a SharedClock,
    begun_us: u64,
}

impl<'a> Timer<'a> {
    pub fn begin(histogram: &'a Histogram, clock: &'a SharedClock) -> Self {
        Timer {
            histogram,
            clock,
            begun_us: clock.monotonic_us(),
        }
    }
}

impl Drop for Timer<'_> {
    fn drop(&mut self) {
        let took_us = self.clock.monotonic_us().saturating_sub(self.begun_us);
        self.histogram.observe(seconds(took_us));
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::clock::{ManualClock, Timestamp};

    #[test]
    fn labels_index_their_handles() {
        for (index, operation) in VaultOperation::ALL.into_iter().enumerate() {
            assert_eq!(operation as usize, index);
        }
        for (index, source) in LimitSource::ALL.into_iter().enumerate() {
            assert_eq!(source as usize, index);
        }
        for (index, verdict) in LimitVerdict::ALL.into_iter().enumerate() {
            assert_eq!(verdict as usize, index);
        }
    }

    #[test]
    fn a_decision_is_counted_under_its_words() {
        let metrics = Metrics::new().unwrap();
        let decisions = metrics.limit_decisions();
        decisions.count(LimitSource::Outage, LimitVerdict::Unavailable);
        decisions.count(LimitSource::Lease, LimitVerdict::of(true));
        decisions.count(LimitSource::Lease, LimitVerdict::of(false));
        let text = metrics.text().unwrap();
        for (source, verdict) in [
            ("outage", "unavailable"),
            ("lease", "allowed"),
            ("lease", "limited"),
        ] {
            let series = format!(
                "sidekey_limit_decisions_total{{source=\"{source}\",verdict=\"{verdict}\"}} 1"
            );
            assert!(text.contains(&series), "{series}");
        }
    }

    #[tokio::test]
    async fn what_nobody_waits_for_any_more_is_measured() {
        let clock = ManualClock::at(Timestamp::from_millis(0));
        let shared: SharedClock = clock.clone();
        let times = Metrics::new().unwrap().store_times();
        let histogram = times.of(StoreOperation::Write);
        let endless = async {
            let _timer = Timer::begin(histogram, &shared);
            std::future::pending::<()>().await;
        };
        let waiting = tokio::time::timeout(Duration::from_millis(1), endless);
        clock.advance(Duration::ZERO);
        waiting.await.unwrap_err();
        assert_eq!(histogram.get_sample_count(), 1);
        let timer = Timer::begin(histogram, &shared);
        clock.advance(Duration::from_millis(1500));
        drop(timer);
        assert_eq!(histogram.get_sample_sum(), 1.5);
    }
}
