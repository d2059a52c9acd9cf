//! Why requests were refused. Of the platform each reason is counted, with a key or without one. Of a
//! tenant only what its keys' usage tells: over a limit, or for another reason.

use crate::admin::AdminState;
use crate::admin::answer::ApiError;
use crate::admin::dashboard::chart::text::{count, percent};
use crate::admin::dashboard::chart::{Chart, ChartView, Kind, Series, Tone, Unit, share};
use crate::admin::usage_report::Report;
use crate::clock::Timestamp;
use crate::manage::KeyError;
use crate::telemetry::Outcome;
use crate::usage::Subject;

/// Refusals that are drawn together.
const GROUPS: [(&str, Tone, &[Outcome]); 4] = [
    (
        "No valid key",
        Tone::First,
        &[
            Outcome::NoCredential,
            Outcome::AmbiguousCredential,
            Outcome::InvalidKey,
            Outcome::FailedAuthLimited,
        ],
    ),
    (
        "Key may not act",
        Tone::Second,
        &[
            Outcome::ExpiredKey,
            Outcome::DisabledKey,
            Outcome::SuspendedTenant,
            Outcome::AddressNotAllowed,
            Outcome::InsufficientScope,
        ],
    ),
    ("Over a limit", Tone::Third, &[Outcome::RateLimited]),
    (
        "Others",
        Tone::Fourth,
        &[
            Outcome::NoRoute,
            Outcome::AmbiguousPath,
            Outcome::HeadersTooLarge,
            Outcome::BodyTooLarge,
            Outcome::Unavailable,
        ],
    ),
];

/// A reason, for people: what it is called, and what it means or what can be done.
fn told(outcome: Outcome) -> (&'static str, &'static str) {
    match outcome {
        Outcome::NoCredential => ("No key", "401. The request had no key."),
        Outcome::AmbiguousCredential => ("Two keys", "400. The request had more than one key."),
        Outcome::InvalidKey => (
            "Wrong key",
            "401. Unknown, mistyped, forged, revoked, or replaced.",
        ),
        Outcome::FailedAuthLimited => (
            "Too many wrong keys",
            "429. The client’s address had too many wrong keys before.",
        ),
        Outcome::ExpiredKey => ("Expired key", "401. The key’s time is over."),
        Outcome::DisabledKey => ("Disabled key", "401. The key is disabled."),
        Outcome::SuspendedTenant => ("Suspended tenant", "401. The key’s tenant is suspended."),
        Outcome::AddressNotAllowed => (
            "Address not allowed",
            "403. The key is limited to other addresses.",
        ),
        Outcome::InsufficientScope => ("Missing scope", "403. The key lacks a scope of the route."),
        Outcome::RateLimited => ("Over a limit", "429. The key’s, or its tenant’s."),
        Outcome::NoRoute => ("No route", "404. No route leads there."),
        Outcome::AmbiguousPath => (
            "Ambiguous path",
            "400. The path can be read in more than one way.",
        ),
        Outcome::HeadersTooLarge => (
            "Headers too large",
            "431. The request’s header is too long.",
        ),
        Outcome::BodyTooLarge => ("Body too large", "413. The request’s body is too long."),
        Outcome::Unavailable => (
            "Could not be decided",
            "503. A key or a limit could not be looked at: see the state of the stores.",
        ),
        // No refusals.
        Outcome::Forwarded
        | Outcome::SelfService
        | Outcome::UpstreamFailed
        | Outcome::UpstreamTimedOut
        | Outcome::ClientFailed
        | Outcome::Internal => (outcome.as_str(), ""),
    }
}

/// A reason with its number.
#[derive(Debug, PartialEq, Eq)]
pub struct RefusalRow {
    pub name: &'static str,
    pub meaning: &'static str,
    /// What metrics and the access log call it.
    pub code: &'static str,
    pub count: String,
    pub share: String,
    /// How long its bar is, of 100.
    pub bar: u64,
}

/// What is known of refusals.
pub enum Reasons {
    Platform {
        /// Requests of each outcome, row by row.
        rows: Vec<(Outcome, Vec<u64>)>,
        shadow: Vec<(Outcome, u64)>,
        /// Those with a valid key among all, row by row.
        keyed: Vec<u64>,
        /// When the first outcomes were counted, where there were requests before.
        since: Option<Timestamp>,
    },
    Tenant {
        limited: u64,
        denied: u64,
    },
}

impl Reasons {
    pub fn of_tenant(report: &Report) -> Self {
        Reasons::Tenant {
            limited: report.totals.rate_limited,
            denied: report.totals.denied,
        }
    }

    /// Reads those of the platform.
    pub async fn read(state: &AdminState, report: &Report) -> Result<Self, ApiError> {
        let outcomes = Outcome::ALL.map(Subject::Outcome);
        let shadow = Outcome::ALL
            .into_iter()
            .filter(|outcome| outcome.is_refusal())
            .map(Subject::Shadow);
        let subjects: Vec<Subject> = outcomes.into_iter().chain(shadow).collect();
        let span = &report.span;
        let known = state
            .overview
            .requests_of(&subjects, span.interval, span.from, span.to)
            .await
            .map_err(KeyError::from)?;
        let length = span.interval.millis();
        let mut counted = vec![vec![0_u64; report.rows.len()]; subjects.len()];
        for (subject, start, requests) in known {
            let place = (start.as_millis() - span.from.as_millis()).div_euclid(length);
            let row = usize::try_from(place).ok();
            let of_subject = counted.get_mut(subject);
            if let Some(sum) = of_subject.and_then(|rows| rows.get_mut(row?)) {
                *sum = sum.saturating_add(requests);
            }
        }
        let (mut rows, mut shadow) = (Vec::new(), Vec::new());
        for (subject, counts) in subjects.into_iter().zip(counted) {
            match subject {
                Subject::Outcome(outcome) => rows.push((outcome, counts)),
                Subject::Shadow(outcome) => shadow.push((outcome, counts.iter().sum())),
                Subject::Key(_) | Subject::Tenant(_) | Subject::Platform => {}
            }
        }
        let keyed: Vec<u64> = report.rows.iter().map(|(_, of)| of.requests).collect();
        let first = first_counted(&row_sums(&rows, keyed.len()), &keyed);
        let start = |row: usize| report.rows.get(row).map_or(span.to, |(start, _)| *start);
        Ok(Reasons::Platform {
            rows,
            shadow,
            keyed,
            since: first.map(start),
        })
    }

    /// How many were refused.
    pub fn refused(&self) -> u64 {
        match self {
            Reasons::Platform { rows, .. } => rows
                .iter()
                .filter(|(outcome, _)| outcome.is_refusal())
                .flat_map(|(_, counts)| counts)
                .fold(0, |sum, count| sum.saturating_add(*count)),
            Reasons::Tenant { limited, denied } => limited.saturating_add(*denied),
        }
    }

    /// Requests without a valid key, where that is known. Row by row: a row whose outcomes nobody counted
    /// takes nothing from the others.
    pub fn keyless(&self) -> Option<u64> {
        let Reasons::Platform { rows, keyed, .. } = self else {
            return None;
        };
        let all = row_sums(rows, keyed.len());
        let keyless = all
            .iter()
            .zip(keyed)
            .map(|(all, keyed)| all.saturating_sub(*keyed));
        Some(keyless.fold(0, u64::saturating_add))
    }

    /// Before this moment there were requests of which nobody counted how they ended.
    pub fn since(&self) -> Option<Timestamp> {
        match self {
            Reasons::Platform { since, .. } => *since,
            Reasons::Tenant { .. } => None,
        }
    }

    pub fn has_any(&self) -> bool {
        self.refused() > 0 || self.keyless().is_some_and(|others| others > 0)
    }

    /// Refusals over time; for a tenant the chart of its requests tells them.
    pub fn chart(&self, report: &Report) -> Option<ChartView> {
        let Reasons::Platform { rows, .. } = self else {
            return None;
        };
        let series = GROUPS.map(|(name, tone, outcomes)| {
            let of_group = rows
                .iter()
                .filter(|(outcome, _)| outcomes.contains(outcome));
            let mut values = vec![0_u64; report.rows.len()];
            for (_, counts) in of_group {
                for (sum, count) in values.iter_mut().zip(counts) {
                    *sum = sum.saturating_add(*count);
                }
            }
            Series {
                name,
                tone,
                values: values.into_iter().map(Some).collect(),
            }
        });
        Some(ChartView::from(&Chart {
            name: "refusals",
            title: "Refused requests",
            unit: Unit::Count,
            kind: Kind::Bars,
            series: series.into(),
            starts: report.rows.iter().map(|(start, _)| *start).collect(),
            interval: report.span.interval,
        }))
    }

    /// The reasons, the most frequent first.
    pub fn rows(&self) -> Vec<RefusalRow> {
        match self {
            Reasons::Platform { rows, .. } => {
                let sum =
                    |counts: &Vec<u64>| counts.iter().fold(0_u64, |a, b| a.saturating_add(*b));
                let refusals = rows.iter().filter(|(outcome, _)| outcome.is_refusal());
                told_rows(
                    refusals
                        .map(|(outcome, counts)| (*outcome, sum(counts)))
                        .collect(),
                )
            }
            Reasons::Tenant { limited, denied } => {
                let whole = limited.saturating_add(*denied);
                let row = |name, meaning, code, value: u64| RefusalRow {
                    name,
                    meaning,
                    code,
                    count: count(value),
                    share: share(value, whole).map_or_else(String::new, percent),
                    bar: bar(value, *limited.max(denied)),
                };
                let limited = row(
                    "Over a limit",
                    "429. The key’s, or the tenant’s.",
                    "rate_limited",
                    *limited,
                );
                let denied = row(
                    "For another reason",
                    "401 or 403. A missing scope, an address that is not allowed, a key that is disabled or expired, or the tenant is suspended.",
                    "denied",
                    *denied,
                );
                if whole == 0 {
                    vec![]
                } else {
                    vec![limited, denied]
                }
            }
        }
    }

    /// What would have been refused in shadow mode.
    pub fn shadow_rows(&self) -> Vec<RefusalRow> {
        match self {
            Reasons::Platform { shadow, .. } => told_rows(shadow.clone()),
            Reasons::Tenant { .. } => vec![],
        }
    }
}

/// Requests of all outcomes, row by row.
fn row_sums(rows: &[(Outcome, Vec<u64>)], len: usize) -> Vec<u64> {
    let mut sums = vec![0_u64; len];
    for (_, counts) in rows {
        for (sum, count) in sums.iter_mut().zip(counts) {
            *sum = sum.saturating_add(*count);
        }
    }
    sums
}

/// The first row in which outcomes were counted, where there were requests in one before it; the end where
/// they were counted in none.
fn first_counted(all: &[u64], keyed: &[u64]) -> Option<usize> {
    let first = all.iter().position(|sum| *sum > 0).unwrap_or(all.len());
    let was_used = keyed.iter().take(first).any(|requests| *requests > 0);
    was_used.then_some(first)
}

fn bar(value: u64, most: u64) -> u64 {
    share(value, most).unwrap_or_default() / 100
}

fn told_rows(mut counted: Vec<(Outcome, u64)>) -> Vec<RefusalRow> {
    counted.retain(|(_, value)| *value > 0);
    counted.sort_by_key(|(_, value)| std::cmp::Reverse(*value));
    let whole = counted
        .iter()
        .fold(0_u64, |sum, (_, value)| sum.saturating_add(*value));
    let most = counted.first().map_or(0, |(_, value)| *value);
    let row = |(outcome, value): (Outcome, u64)| {
        let (name, meaning) = told(outcome);
        RefusalRow {
            name,
            meaning,
            code: outcome.as_str(),
            count: count(value),
            share: share(value, whole).map_or_else(String::new, percent),
            bar: bar(value, most),
        }
    };
    counted.into_iter().map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_refusal_is_in_one_group_and_is_told() {
        for outcome in Outcome::ALL {
            let groups = GROUPS
                .iter()
                .filter(|(_, _, outcomes)| outcomes.contains(&outcome));
            assert_eq!(
                groups.count(),
                usize::from(outcome.is_refusal()),
                "{outcome:?}"
            );
            assert_eq!(told(outcome).1.is_empty(), !outcome.is_refusal());
        }
    }

    #[test]
    fn what_was_used_before_outcomes_were_counted_hides_no_refusals_after() {
        let reasons = Reasons::Platform {
            rows: vec![
                (Outcome::Forwarded, vec![0, 0, 10, 20]),
                (Outcome::InvalidKey, vec![0, 0, 3, 4]),
            ],
            shadow: vec![],
            keyed: vec![0, 1_000, 10, 20],
            since: None,
        };
        assert_eq!((reasons.refused(), reasons.keyless()), (7, Some(7)));
    }

    #[test]
    fn it_is_known_since_when_outcomes_are_counted() {
        assert_eq!(first_counted(&[0, 0, 3], &[0, 9, 3]), Some(2));
        assert_eq!(first_counted(&[0, 0], &[0, 9]), Some(2), "in none yet");
        for (all, keyed) in [
            ([0, 5, 0], [0, 5, 9]),
            ([0, 0, 0], [0, 0, 0]),
            ([4, 0, 1], [0, 3, 1]),
        ] {
            assert_eq!(first_counted(&all, &keyed), None, "{all:?} {keyed:?}");
        }
    }

    #[test]
    fn the_most_frequent_reason_comes_first() {
        let rows = told_rows(vec![
            (Outcome::NoRoute, 1),
            (Outcome::NoCredential, 0),
            (Outcome::InvalidKey, 3),
        ]);
        let told: Vec<_> = rows
            .iter()
            .map(|row| (row.code, row.count.as_str(), row.share.as_str(), row.bar))
            .collect();
        assert_eq!(
            told,
            [
                ("invalid_key", "3", "75%", 100),
                ("no_route", "1", "25%", 33)
            ]
        );
        assert_eq!(told_rows(vec![]), []);
    }
}
