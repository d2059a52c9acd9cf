//! A span of time as rows of usage: whole days or hours of UTC, those without traffic too.

use super::counts::{Counts, DAY_MS, HOUR_MS};
use crate::clock::Timestamp;

/// The most rows of an answer.
pub const ROWS_MAX: i64 = 1000;

/// How long one row is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interval {
    Hour,
    Day,
}

impl Interval {
    /// The interval of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        [Interval::Hour, Interval::Day]
            .into_iter()
            .find(|interval| interval.as_str() == name)
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Interval::Hour => "hour",
            Interval::Day => "day",
        }
    }

    pub fn millis(self) -> i64 {
        match self {
            Interval::Hour => HOUR_MS,
            Interval::Day => DAY_MS,
        }
    }

    /// How far back is looked where nobody says.
    fn look_back_ms(self) -> i64 {
        match self {
            Interval::Hour => DAY_MS,
            Interval::Day => 30 * DAY_MS,
        }
    }
}

/// Why a span can't be answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SpanError {
    #[error("must be before the end")]
    Backwards,
    #[error("is too long ago for the end and the interval: at most {ROWS_MAX} rows fit")]
    TooLong,
}

/// A span of whole intervals.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    pub interval: Interval,
    /// Where the first row starts.
    pub from: Timestamp,
    /// Where the last row ends.
    pub to: Timestamp,
}

impl Span {
    /// The rows that `from` and `to` are in; `to` itself is not part of the span.
    pub fn new(
        interval: Interval,
        from: Option<Timestamp>,
        to: Timestamp,
    ) -> Result<Self, SpanError> {
        let (to, length) = (to.as_millis(), interval.millis());
        let from = from.map_or(to - interval.look_back_ms(), Timestamp::as_millis);
        let from = from.max(0);
        if from >= to {
            return Err(SpanError::Backwards);
        }
        let first = from.div_euclid(length);
        let last = (to - 1).div_euclid(length);
        if last - first >= ROWS_MAX {
            return Err(SpanError::TooLong);
        }
        Ok(Span {
            interval,
            from: Timestamp::from_millis(first * length),
            to: Timestamp::from_millis((last + 1) * length),
        })
    }

    /// All rows of the span, with the counts of those in `known`.
    pub fn rows(&self, known: &[(Timestamp, Counts)]) -> Vec<(Timestamp, Counts)> {
        let (from, length) = (self.from.as_millis(), self.interval.millis());
        // The last moment that can be written is not the end of its day.
        let last = (self.to.as_millis() - 1 - from).div_euclid(length);
        let mut rows: Vec<(Timestamp, Counts)> = (0..=last)
            .map(|n| (Timestamp::from_millis(from + n * length), Counts::default()))
            .collect();
        for (start, counts) in known {
            let place = (start.as_millis() - from).div_euclid(length);
            let row = usize::try_from(place).ok();
            if let Some((_, sum)) = row.and_then(|row| rows.get_mut(row)) {
                sum.add(counts);
            }
        }
        rows
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    #[test]
    fn spans_are_of_whole_rows() {
        let span = Span::new(Interval::Day, Some(at(DAY_MS + 5)), at(3 * DAY_MS)).unwrap();
        assert_eq!((span.from, span.to), (at(DAY_MS), at(3 * DAY_MS)));
        let span = Span::new(Interval::Hour, Some(at(5)), at(HOUR_MS + 1)).unwrap();
        assert_eq!((span.from, span.to), (at(0), at(2 * HOUR_MS)));
        let span = Span::new(Interval::Hour, None, at(100 * DAY_MS)).unwrap();
        assert_eq!(span.from, at(99 * DAY_MS));
        let span = Span::new(Interval::Day, None, at(100 * DAY_MS + 1)).unwrap();
        assert_eq!(span.rows(&[]).len(), 31);
    }

    #[test]
    fn spans_have_an_end_and_a_longest() {
        let span = |from, to| Span::new(Interval::Hour, Some(at(from)), at(to));
        assert_eq!(span(5, 5), Err(SpanError::Backwards));
        assert_eq!(span(6, 5), Err(SpanError::Backwards));
        assert_eq!(span(0, ROWS_MAX * HOUR_MS).unwrap().rows(&[]).len(), 1000);
        assert_eq!(span(0, ROWS_MAX * HOUR_MS + 1), Err(SpanError::TooLong));
        assert_eq!(span(0, i64::MAX), Err(SpanError::TooLong));
        let last = Span::new(Interval::Hour, None, Timestamp::MAX).unwrap();
        assert_eq!(last.rows(&[]).len(), 25);
        assert_eq!(
            Span::new(Interval::Day, None, at(0)),
            Err(SpanError::Backwards)
        );
    }

    #[test]
    fn rows_without_traffic_are_there() {
        let requests = |n| Counts {
            requests: n,
            ..Counts::default()
        };
        let span = Span::new(Interval::Day, Some(at(DAY_MS)), at(4 * DAY_MS)).unwrap();
        let known = [
            (at(2 * DAY_MS), requests(2)),
            (at(2 * DAY_MS), requests(3)),
            (at(9 * DAY_MS), requests(1)),
            (at(0), requests(1)),
        ];
        let rows: Vec<_> = span.rows(&known);
        let rows: Vec<_> = rows
            .iter()
            .map(|(s, c)| (s.as_millis(), c.requests))
            .collect();
        assert_eq!(rows, [(DAY_MS, 0), (2 * DAY_MS, 5), (3 * DAY_MS, 0)]);
    }
}
