//! The requests of tenants as metrics: the busiest have series of their own, all others share one. Fed
//! with what is taken out of the counters of keys, so requests pay nothing for it.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use prometheus::IntCounter;

use super::busiest::Busiest;
use super::counters::{ENDINGS, Ending};
use super::counts::Counts;
use crate::key::TenantId;
use crate::telemetry::Metrics;

/// The label `tenant` of those that have no series of their own. No tenant's id has parentheses.
const OTHER: &str = "(other)";

/// What came of each tenant's requests since it was looked at the last time.
pub type TenantCounts = HashMap<TenantId, Counts>;

/// The counters of one tenant, in the order of [`Ending::ALL`].
#[derive(Debug)]
struct Series {
    counters: [IntCounter; ENDINGS],
    /// Requests whose ending came before they were counted as requests.
    ahead: u64,
}

impl Series {
    fn of(metrics: &Metrics, tenant: &str) -> Self {
        Series {
            counters: Ending::ALL.map(|ending| {
                let requests = &metrics.tenant_requests;
                requests.with_label_values(&[tenant, ending.as_str()])
            }),
            ahead: 0,
        }
    }

    fn add(&mut self, counts: &Counts) {
        let told = [
            (Ending::Error4xx, counts.errors_4xx),
            (Ending::Error5xx, counts.errors_5xx),
            (Ending::Denied, counts.denied),
            (Ending::RateLimited, counts.rate_limited),
        ];
        for (ending, count) in told {
            self.counters[ending as usize].inc_by(count);
        }
        let others = self.ahead + told.iter().map(|(_, count)| count).sum::<u64>();
        let plain = counts.requests.saturating_sub(others);
        self.counters[Ending::Plain as usize].inc_by(plain);
        self.ahead = others.saturating_sub(counts.requests);
    }
}

/// All tenants' series.
pub struct TenantTraffic {
    metrics: Arc<Metrics>,
    busiest: Busiest,
    shown: BTreeMap<TenantId, Series>,
    others: Series,
}

impl TenantTraffic {
    /// At most `shown_max` tenants get series of their own.
    pub fn new(shown_max: usize, metrics: Arc<Metrics>) -> Self {
        TenantTraffic {
            busiest: Busiest::new(shown_max),
            shown: BTreeMap::new(),
            others: Series::of(&metrics, OTHER),
            metrics,
        }
    }

    /// Adds what has come since the last call, after it has been decided who is shown.
    pub fn add(&mut self, counts: &TenantCounts, now_us: u64) {
        let requests = counts
            .iter()
            .map(|(tenant, counts)| (tenant, counts.requests));
        let change = self.busiest.add(requests, now_us);
        for tenant in change.left {
            self.remove(&tenant);
        }
        for tenant in change.entered {
            let series = Series::of(&self.metrics, tenant.as_str());
            self.shown.insert(tenant, series);
        }
        for (tenant, counts) in counts {
            let series = self.shown.get_mut(tenant).unwrap_or(&mut self.others);
            series.add(counts);
        }
        let shown = i64::try_from(self.shown.len()).unwrap_or(i64::MAX);
        self.metrics.tenants_shown.set(shown);
    }

    fn remove(&mut self, tenant: &TenantId) {
        self.shown.remove(tenant);
        for ending in Ending::ALL {
            let labels = &[tenant.as_str(), ending.as_str()];
            // Made together with the others of the tenant.
            let _ = self.metrics.tenant_requests.remove_label_values(labels);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tenant(name: &str) -> TenantId {
        name.parse().unwrap()
    }

    fn requests(count: u64) -> Counts {
        Counts {
            requests: count,
            ..Counts::default()
        }
    }

    /// The series of tenants, such as `acme/ok=3`, without those that are 0.
    fn series(metrics: &Metrics) -> Vec<String> {
        let text = metrics.text().unwrap();
        let lines = text.lines();
        let of_tenants =
            lines.filter_map(|line| line.strip_prefix("sidekey_tenant_requests_total{"));
        let mut all: Vec<String> = of_tenants
            .filter(|line| !line.ends_with(" 0"))
            .map(|line| {
                let (labels, value) = line.split_once("} ").unwrap();
                let parts: Vec<&str> = labels.split('"').collect();
                format!("{}/{}={value}", parts[3], parts[1])
            })
            .collect();
        all.sort();
        all
    }

    #[test]
    fn each_ending_has_its_series() {
        let metrics = Arc::new(Metrics::new().unwrap());
        let mut traffic = TenantTraffic::new(1, metrics.clone());
        let counts = Counts {
            requests: 20,
            errors_4xx: 1,
            errors_5xx: 2,
            denied: 3,
            rate_limited: 4,
            ..Counts::default()
        };
        traffic.add(&[(tenant("acme"), counts)].into(), 0);
        assert_eq!(
            series(&metrics),
            [
                "acme/denied=3",
                "acme/error_4xx=1",
                "acme/error_5xx=2",
                "acme/ok=10",
                "acme/rate_limited=4"
            ]
        );
        assert_eq!(metrics.tenants_shown.get(), 1);
    }

    #[test]
    fn a_request_that_is_taken_out_in_two_parts_counts_once() {
        let metrics = Arc::new(Metrics::new().unwrap());
        let mut traffic = TenantTraffic::new(1, metrics.clone());
        let early = Counts {
            requests: 2,
            denied: 3,
            ..Counts::default()
        };
        traffic.add(&[(tenant("acme"), early)].into(), 0);
        traffic.add(&[(tenant("acme"), requests(1))].into(), 1);
        assert_eq!(series(&metrics), ["acme/denied=3"]);
        traffic.add(&[(tenant("acme"), requests(1))].into(), 2);
        assert_eq!(series(&metrics), ["acme/denied=3", "acme/ok=1"]);
    }

    #[test]
    fn who_leaves_has_no_series_and_counts_with_the_others() {
        let metrics = Arc::new(Metrics::new().unwrap());
        let mut traffic = TenantTraffic::new(1, metrics.clone());
        // A tenant may be called so.
        traffic.add(&[(tenant("other"), requests(10))].into(), 0);
        traffic.add(&[(tenant("b"), requests(9))].into(), 1);
        assert_eq!(series(&metrics), ["(other)/ok=9", "other/ok=10"]);
        traffic.add(&[(tenant("b"), requests(90))].into(), 2);
        assert_eq!(series(&metrics), ["(other)/ok=9", "b/ok=90"]);
        traffic.add(&[(tenant("other"), requests(2))].into(), 3);
        assert_eq!(series(&metrics), ["(other)/ok=11", "b/ok=90"]);
        assert_eq!(metrics.tenants_shown.get(), 1);
        let text = metrics.text().unwrap();
        let all = text.matches("sidekey_tenant_requests_total{").count();
        assert_eq!(all, 2 * ENDINGS);
    }

    #[test]
    fn all_are_others_where_nobody_is_shown() {
        let metrics = Arc::new(Metrics::new().unwrap());
        let mut traffic = TenantTraffic::new(0, metrics.clone());
        let counts = [(tenant("a"), requests(1)), (tenant("b"), requests(2))];
        traffic.add(&counts.into(), 0);
        assert_eq!(series(&metrics), ["(other)/ok=3"]);
        assert_eq!(metrics.tenants_shown.get(), 0);
    }
}
