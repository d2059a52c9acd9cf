//! What a key was used for: totals, charts, and the same rows as a file.

use axum::body::Body;
use axum::extract::{Query, State};
use axum::http::header::{CONTENT_DISPOSITION, CONTENT_TYPE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};

use super::Shared;
use crate::admin::AdminState;
use crate::admin::access::Permission;
use crate::admin::answer::ApiError;
use crate::admin::dashboard::chart::text::{self, count, percent};
use crate::admin::dashboard::chart::{Chart, ChartView, Kind, Series, Tone, Unit, share};
use crate::admin::dashboard::page::PageError;
use crate::admin::dashboard::path::IdText;
use crate::admin::dashboard::range::{self, Range, RangeLink};
use crate::admin::dashboard::session::Visitor;
use crate::admin::operations::keys::find;
use crate::admin::usage_report::{Report, latency_ms_max, latency_ms_mean};
use crate::key::KeyRecord;
use crate::problem::Kind as Problem;
use crate::usage::span::Interval;
use crate::usage::{Counts, Subject};

const CSV: HeaderValue = HeaderValue::from_static("text/csv; charset=utf-8; header=present");

/// The columns of the file: the API's names.
const COLUMNS: [&str; 10] = [
    "start",
    "requests",
    "errors_4xx",
    "errors_5xx",
    "denied",
    "rate_limited",
    "bytes_in",
    "bytes_out",
    "latency_ms_mean",
    "latency_ms_max",
];

/// A number that stands for the whole span.
#[derive(Debug)]
pub struct Stat {
    pub label: &'static str,
    pub value: String,
    /// What it is made of.
    pub note: String,
}

/// The page's section on usage.
#[derive(Debug)]
pub struct UsageSection {
    pub range: &'static str,
    pub in_words: &'static str,
    pub links: Vec<RangeLink>,
    pub is_daily: bool,
    pub stats: Vec<Stat>,
    pub requests: ChartView,
    pub rates: Vec<ChartView>,
}

impl UsageSection {
    /// Reads that of `key`, in the range that `query` asks for. The visitor may see it.
    pub async fn read(
        state: &AdminState,
        key: &KeyRecord,
        query: &[(String, String)],
    ) -> Result<Self, ApiError> {
        let range = Range::of(query);
        Ok(Self::new(range, &report(state, key, range).await?))
    }

    pub fn new(range: Range, report: &Report) -> Self {
        UsageSection {
            range: range.as_str(),
            in_words: range.in_words(),
            links: range::links(range),
            is_daily: report.span.interval == Interval::Day,
            stats: stats(&report.totals),
            requests: ChartView::from(&requests(report)),
            rates: vec![
                ChartView::from(&errors(report)),
                ChartView::from(&limited(report)),
            ],
        }
    }
}

async fn report(state: &AdminState, key: &KeyRecord, range: Range) -> Result<Report, ApiError> {
    let span = range.span(state.clock.now(), state.usage_retention);
    Report::read(state, &Subject::Key(key.id), span).await
}

fn failed(counts: &Counts) -> u64 {
    counts.errors_4xx.saturating_add(counts.errors_5xx)
}

fn refused(counts: &Counts) -> u64 {
    counts.denied.saturating_add(counts.rate_limited)
}

/// What was neither refused nor answered with an error.
fn fine(counts: &Counts) -> u64 {
    let other = failed(counts).saturating_add(refused(counts));
    counts.requests.saturating_sub(other)
}

fn stats(totals: &Counts) -> Vec<Stat> {
    let told = |part| share(part, totals.requests).map_or_else(nothing, percent);
    let (latency, slowest) = match totals.requests {
        0 => (nothing(), String::new()),
        _ => {
            let slowest = milliseconds(latency_ms_max(totals));
            let mean = milliseconds(latency_ms_mean(totals));
            (mean, format!("slowest {slowest}"))
        }
    };
    vec![
        Stat {
            label: "Requests",
            value: count(totals.requests),
            note: format!("{} successful", count(fine(totals))),
        },
        Stat {
            label: "Errors",
            value: told(failed(totals)),
            note: format!(
                "{} client (4xx), {} server (5xx)",
                count(totals.errors_4xx),
                count(totals.errors_5xx)
            ),
        },
        Stat {
            label: "Rate-limited",
            value: told(totals.rate_limited),
            note: format!(
                "{} over a limit, {} refused otherwise",
                count(totals.rate_limited),
                count(totals.denied)
            ),
        },
        Stat {
            label: "Mean latency",
            value: latency,
            note: slowest,
        },
    ]
}

fn nothing() -> String {
    text::NOTHING.to_owned()
}

/// Few digits for people: exact values are in the file.
fn milliseconds(millis: f64) -> String {
    match millis {
        millis if millis < 10.0 => format!("{millis:.2} ms"),
        millis if millis < 100.0 => format!("{millis:.1} ms"),
        millis => format!("{} ms", count(millis.round() as u64)),
    }
}

fn series(
    name: &'static str,
    tone: Tone,
    report: &Report,
    value: impl Fn(&Counts) -> Option<u64>,
) -> Series {
    Series {
        name,
        tone,
        values: report
            .rows
            .iter()
            .map(|(_, counts)| value(counts))
            .collect(),
    }
}

fn chart(name: &'static str, title: &'static str, report: &Report) -> Chart {
    Chart {
        name,
        title,
        unit: Unit::Percent,
        kind: Kind::Line,
        series: Vec::new(),
        starts: report.rows.iter().map(|(start, _)| *start).collect(),
        interval: report.span.interval,
    }
}

fn requests(report: &Report) -> Chart {
    let series = |name, tone, value: fn(&Counts) -> u64| {
        series(name, tone, report, |counts| Some(value(counts)))
    };
    Chart {
        unit: Unit::Count,
        kind: Kind::Bars,
        series: vec![
            series("Successful", Tone::First, fine),
            series("Refused", Tone::Fourth, refused),
            series("Client errors", Tone::Third, |counts| counts.errors_4xx),
            series("Server errors", Tone::Second, |counts| counts.errors_5xx),
        ],
        ..chart("requests", "Requests", report)
    }
}

fn errors(report: &Report) -> Chart {
    let rate = |counts: &Counts| share(failed(counts), counts.requests);
    Chart {
        series: vec![series("Error rate", Tone::Second, report, rate)],
        ..chart("errors", "Error rate", report)
    }
}

fn limited(report: &Report) -> Chart {
    let rate = |counts: &Counts| share(counts.rate_limited, counts.requests);
    Chart {
        series: vec![series("Rate-limited", Tone::Fourth, report, rate)],
        ..chart("limited", "Rate-limited share", report)
    }
}

/// The rows as a file (RFC 4180), with the numbers that the API tells.
pub async fn csv(
    State(state): Shared,
    visitor: Visitor,
    IdText(id): IdText,
    Query(query): Query<Vec<(String, String)>>,
) -> Result<Response, PageError> {
    let caller = &visitor.caller;
    let actor = caller.authorize(&state, Permission::UsageRead)?;
    let key = find(&state, &actor, &id).await?;
    let range = Range::of(&query);
    let report = report(&state, &key, range).await?;
    let file = written(&report).map_err(|error| {
        tracing::error!(%error, "a file of usage can't be made");
        ApiError::new(Problem::Internal, "The file can't be made. Try again.")
    })?;
    let mut response = (StatusCode::OK, Body::from(file)).into_response();
    let name = format!(
        "attachment; filename=\"usage-{}-{}.csv\"",
        key.id,
        range.as_str()
    );
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, CSV);
    if let Ok(name) = HeaderValue::from_str(&name) {
        headers.insert(CONTENT_DISPOSITION, name);
    }
    Ok(response)
}

fn written(report: &Report) -> Result<Vec<u8>, csv::Error> {
    let mut writer = csv::WriterBuilder::new()
        .terminator(csv::Terminator::CRLF)
        .from_writer(Vec::new());
    writer.write_record(COLUMNS)?;
    for (start, counts) in &report.rows {
        writer.write_record([
            start.to_string(),
            counts.requests.to_string(),
            counts.errors_4xx.to_string(),
            counts.errors_5xx.to_string(),
            counts.denied.to_string(),
            counts.rate_limited.to_string(),
            counts.bytes_in.to_string(),
            counts.bytes_out.to_string(),
            latency_ms_mean(counts).to_string(),
            latency_ms_max(counts).to_string(),
        ])?;
    }
    writer
        .into_inner()
        .map_err(|error| error.into_error().into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;
    use crate::usage::counts::DAY_MS;
    use crate::usage::span::Span;

    fn counts() -> Counts {
        Counts {
            requests: 1_000,
            errors_4xx: 30,
            errors_5xx: 5,
            denied: 7,
            rate_limited: 250,
            bytes_in: 10,
            bytes_out: 20,
            latency_us_sum: 12_345_000,
            latency_us_max: 1_234_567,
        }
    }

    fn report() -> Report {
        let at = Timestamp::from_millis;
        let span = Span::new(Interval::Day, Some(at(DAY_MS)), at(3 * DAY_MS)).unwrap();
        Report::new(span, &[(at(DAY_MS), counts())])
    }

    #[test]
    fn what_is_drawn_is_all_of_it() {
        let all = fine(&counts()) + refused(&counts()) + failed(&counts());
        assert_eq!(all, 1_000);
        let section = UsageSection::new(Range::Month, &report());
        let cells: Vec<String> = section
            .requests
            .rows
            .iter()
            .map(|row| row.cells.join(" "))
            .collect();
        assert_eq!(cells, ["708 257 30 5 1,000", "0 0 0 0 0"]);
        let rates: Vec<_> = section
            .rates
            .iter()
            .map(|chart| {
                chart
                    .rows
                    .iter()
                    .map(|row| row.cells.join(" "))
                    .collect::<Vec<_>>()
            })
            .collect();
        assert_eq!(rates, [["3.5%", "–"], ["25%", "–"]]);
    }

    #[test]
    fn totals_are_told() {
        let told = |totals: &Counts| -> Vec<String> {
            stats(totals).into_iter().map(|stat| stat.value).collect()
        };
        assert_eq!(told(&counts()), ["1,000", "3.5%", "25%", "12.3 ms"]);
        assert_eq!(told(&Counts::default()), ["0", "–", "–", "–"]);
        assert_eq!(milliseconds(1.234), "1.23 ms");
        assert_eq!(milliseconds(4_321.4), "4,321 ms");
    }

    #[test]
    fn the_file_has_a_line_for_each_row() {
        let file = String::from_utf8(written(&report()).unwrap()).unwrap();
        let lines: Vec<&str> = file.split("\r\n").collect();
        assert_eq!(
            lines,
            [
                "start,requests,errors_4xx,errors_5xx,denied,rate_limited,bytes_in,bytes_out,\
                 latency_ms_mean,latency_ms_max",
                "1970-01-02T00:00:00Z,1000,30,5,7,250,10,20,12.345,1234.567",
                "1970-01-03T00:00:00Z,0,0,0,0,0,0,0,0,0",
                "",
            ]
        );
    }
}
