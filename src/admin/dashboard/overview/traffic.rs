//! Requests and errors: the numbers at the top, and their charts.

use super::of_many;
use super::reasons::Reasons;
use crate::admin::dashboard::chart::text::{NOTHING, count, decimal, percent};
use crate::admin::dashboard::chart::{Chart, ChartView, Kind, Series, Tone, Unit, share};
use crate::admin::usage_report::{Report, latency_ms_mean};
use crate::usage::Counts;

/// A number that is told large.
#[derive(Debug, PartialEq, Eq)]
pub struct Stat {
    pub label: &'static str,
    pub value: String,
    pub note: String,
}

/// What came of requests without an error and was not refused.
fn passed(counts: &Counts) -> u64 {
    let other = [
        counts.errors_4xx,
        counts.errors_5xx,
        counts.denied,
        counts.rate_limited,
    ];
    other.into_iter().fold(counts.requests, u64::saturating_sub)
}

fn percentage(part: u64, whole: u64) -> String {
    share(part, whole).map_or(NOTHING.to_owned(), percent)
}

/// The numbers at the top.
pub fn stats(report: &Report, reasons: &Reasons) -> Vec<Stat> {
    let totals = &report.totals;
    let errors = totals.errors_4xx.saturating_add(totals.errors_5xx);
    let refused = reasons.refused();
    let keyless = reasons.keyless();
    let mean_us = (latency_ms_mean(totals) * 10.0).round();
    vec![
        Stat {
            label: "Requests with a valid key",
            value: count(totals.requests),
            note: match keyless {
                Some(others) => format!("and {} without one", count(others)),
                None => format!("{} ms on average", decimal(mean_us as u64, 10)),
            },
        },
        Stat {
            label: "Answered with an error",
            value: percentage(errors, totals.requests),
            note: format!(
                "{} with 4xx, {} with 5xx",
                count(totals.errors_4xx),
                count(totals.errors_5xx)
            ),
        },
        Stat {
            label: "Over a limit",
            value: percentage(totals.rate_limited, totals.requests),
            note: of_many(totals.rate_limited, "request", "requests"),
        },
        Stat {
            label: "Refused by Sidekey",
            value: count(refused),
            note: "for every reason together".to_owned(),
        },
    ]
}

/// Requests, by how they ended.
pub fn chart(report: &Report) -> ChartView {
    let series = |name, tone, of: fn(&Counts) -> u64| Series {
        name,
        tone,
        values: report
            .rows
            .iter()
            .map(|(_, counts)| Some(of(counts)))
            .collect(),
    };
    ChartView::from(&Chart {
        name: "requests",
        title: "Requests with a valid key",
        unit: Unit::Count,
        kind: Kind::Bars,
        series: vec![
            series("Passed", Tone::First, passed),
            series("Errors", Tone::Second, |counts| {
                counts.errors_4xx.saturating_add(counts.errors_5xx)
            }),
            series("Over a limit", Tone::Third, |counts| counts.rate_limited),
            series("Otherwise refused", Tone::Fourth, |counts| counts.denied),
        ],
        starts: report.rows.iter().map(|(start, _)| *start).collect(),
        interval: report.span.interval,
    })
}

/// The share of errors.
pub fn error_chart(report: &Report) -> ChartView {
    let series = |name, tone, of: fn(&Counts) -> u64| Series {
        name,
        tone,
        values: report
            .rows
            .iter()
            .map(|(_, counts)| share(of(counts), counts.requests))
            .collect(),
    };
    ChartView::from(&Chart {
        name: "errors",
        title: "Share of errors",
        unit: Unit::Percent,
        kind: Kind::Line,
        series: vec![
            series("5xx", Tone::Second, |counts| counts.errors_5xx),
            series("4xx", Tone::Third, |counts| counts.errors_4xx),
        ],
        starts: report.rows.iter().map(|(start, _)| *start).collect(),
        interval: report.span.interval,
    })
}
