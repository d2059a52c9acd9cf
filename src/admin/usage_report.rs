//! What something was used for, row by row: read once here, for the API and for the dashboard.

use super::AdminState;
use super::answer::ApiError;
use crate::clock::Timestamp;
use crate::manage::KeyError;
use crate::usage::span::Span;
use crate::usage::{Counts, Subject};

/// Rows of a span, oldest first, without gaps; and what they come to.
#[derive(Debug, Clone)]
pub struct Report {
    pub span: Span,
    pub rows: Vec<(Timestamp, Counts)>,
    pub totals: Counts,
}

impl Report {
    /// Reads that of `subject`. The caller has been asked whether it may be seen.
    pub async fn read(state: &AdminState, subject: &Subject, span: Span) -> Result<Self, ApiError> {
        let usage = state
            .usage
            .usage(subject, span.interval, span.from, span.to);
        let known = usage.await.map_err(KeyError::from)?;
        Ok(Self::new(span, &known))
    }

    /// `span` with what is known of it.
    pub fn new(span: Span, known: &[(Timestamp, Counts)]) -> Self {
        let rows = span.rows(known);
        let mut totals = Counts::default();
        for (_, counts) in &rows {
            totals.add(counts);
        }
        Report { span, rows, totals }
    }
}

/// Milliseconds with three decimals.
fn millis(us: f64) -> f64 {
    us.round() / 1000.0
}

/// How long a request took on average; 0 where there was none.
pub fn latency_ms_mean(counts: &Counts) -> f64 {
    millis(counts.latency_us_sum as f64 / counts.requests.max(1) as f64)
}

/// How long the slowest took.
pub fn latency_ms_max(counts: &Counts) -> f64 {
    millis(counts.latency_us_max as f64)
}
