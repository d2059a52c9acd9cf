//! wrk as an instrument: a closed loop on so many connections, driven by a program that others
//! know and trust.

use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use crate::process::Programs;

/// What one run of wrk reports.
pub struct WrkReport {
    pub requests: u64,
    pub requests_per_second: f64,
    pub median_us: f64,
    pub p99_us: f64,
}

/// Loads `address` with GETs that carry `authorization`, and returns figures only if every
/// answer was right.
pub fn run(
    programs: &Programs,
    address: SocketAddr,
    path: &str,
    authorization: &str,
    connections: usize,
    run_for: Duration,
) -> Result<WrkReport, String> {
    let output = Command::new(&programs.wrk)
        .arg("--threads=1")
        .arg(format!("--connections={connections}"))
        .arg(format!("--duration={}s", run_for.as_secs()))
        .arg("--latency")
        .arg(format!("--header=Authorization: {authorization}"))
        .arg(format!("http://{address}{path}"))
        .output()
        .map_err(|error| format!("wrk could not be started: {error}"))?;
    parse(&String::from_utf8_lossy(&output.stdout))
}

/// Reads wrk's report. A single wrong answer makes it worthless: a refusal is cheaper than a
/// proxied request.
fn parse(text: &str) -> Result<WrkReport, String> {
    let line_with = |start: &str| text.lines().map(str::trim).find(|l| l.starts_with(start));
    for bad in ["Non-2xx or 3xx responses:", "Socket errors:"] {
        if let Some(line) = line_with(bad) {
            return Err(format!("wrk met wrong answers: {line}"));
        }
    }
    let percentile = |name: &str| {
        let (_, value) = line_with(name)?.split_once('%')?;
        microseconds(value.trim())
    };
    let requests = text
        .lines()
        .find_map(|line| line.trim().split_once(" requests in "))
        .and_then(|(count, _)| count.parse().ok());
    let requests_per_second =
        line_with("Requests/sec:").and_then(|line| line.split_once(':')?.1.trim().parse().ok());
    let report = || {
        Some(WrkReport {
            requests: requests?,
            requests_per_second: requests_per_second?,
            median_us: percentile("50%")?,
            p99_us: percentile("99%")?,
        })
    };
    report()
        .filter(|report| report.requests > 0)
        .ok_or_else(|| format!("wrk's report can't be read: {text:?}"))
}

/// `767.00us`, `1.02ms` or `3.10s` in microseconds.
fn microseconds(text: &str) -> Option<f64> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let scale = match &text[digits.len()..] {
        "us" => 1.0,
        "ms" => 1e3,
        "s" => 1e6,
        _ => return None,
    };
    digits.parse::<f64>().ok().map(|value| value * scale)
}
