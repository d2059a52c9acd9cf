//! The spans of time that people choose from.

use std::time::Duration;

use crate::clock::Timestamp;
use crate::usage::counts::{DAY_MS, HOUR_MS};
use crate::usage::roll_up::kept_from;
use crate::usage::span::{Interval, Span};

/// How far back is looked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Range {
    Day,
    Week,
    #[default]
    Month,
    Quarter,
}

impl Range {
    pub const ALL: [Range; 4] = [Range::Day, Range::Week, Range::Month, Range::Quarter];

    /// What stands in addresses, and on links.
    pub fn as_str(self) -> &'static str {
        match self {
            Range::Day => "24h",
            Range::Week => "7d",
            Range::Month => "30d",
            Range::Quarter => "90d",
        }
    }

    /// As a sentence goes on: "in ...".
    pub fn in_words(self) -> &'static str {
        match self {
            Range::Day => "the last 24 hours",
            Range::Week => "the last 7 days",
            Range::Month => "the last 30 days",
            Range::Quarter => "the last 90 days",
        }
    }

    /// What `query` asks for; the usual one where it says nothing that is known.
    pub fn of(query: &[(String, String)]) -> Self {
        let asked = query.iter().find(|(name, _)| name == "range");
        let known = |value: &str| Self::ALL.into_iter().find(|range| range.as_str() == value);
        asked
            .and_then(|(_, value)| known(value))
            .unwrap_or_default()
    }

    fn days(self) -> i64 {
        match self {
            Range::Day => 1,
            Range::Week => 7,
            Range::Month => 30,
            Range::Quarter => 90,
        }
    }

    /// The rows up to the one that `now` is in. A week is told by the hour, because days say little of
    /// it, if its hours are still kept.
    pub fn span(self, now: Timestamp, retention: Duration) -> Span {
        let by_hour = self.last_rows(now, Interval::Hour, self.days() * DAY_MS / HOUR_MS);
        match self {
            Range::Day => by_hour,
            Range::Week if by_hour.from >= kept_from(now, retention) => by_hour,
            _ => self.last_rows(now, Interval::Day, self.days()),
        }
    }

    fn last_rows(self, now: Timestamp, interval: Interval, rows: i64) -> Span {
        let length = interval.millis();
        let end = now.as_millis().div_euclid(length).saturating_add(1) * length;
        Span {
            interval,
            from: Timestamp::from_millis(end - rows * length),
            to: Timestamp::from_millis(end),
        }
    }
}

/// A link to a range.
#[derive(Debug)]
pub struct RangeLink {
    pub name: &'static str,
    pub in_words: &'static str,
    pub is_chosen: bool,
}

/// Links to all of them.
pub fn links(chosen: Range) -> Vec<RangeLink> {
    let link = |range: Range| RangeLink {
        name: range.as_str(),
        in_words: range.in_words(),
        is_chosen: range == chosen,
    };
    Range::ALL.into_iter().map(link).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::usage::span::Interval::{Day, Hour};

    fn query(range: &str) -> Vec<(String, String)> {
        vec![("range".to_owned(), range.to_owned())]
    }

    #[test]
    fn ranges_have_names() {
        for range in Range::ALL {
            assert_eq!(Range::of(&query(range.as_str())), range);
        }
        for other in [query("1y"), query(""), vec![]] {
            assert_eq!(Range::of(&other), Range::Month);
        }
        let chosen: Vec<bool> = links(Range::Week)
            .iter()
            .map(|link| link.is_chosen)
            .collect();
        assert_eq!(chosen, [false, true, false, false]);
    }

    #[test]
    fn spans_end_with_the_row_of_now() {
        let now = Timestamp::from_millis(1_000 * DAY_MS + 5 * HOUR_MS + 1);
        let kept = Duration::from_secs(400 * 86_400);
        let spans = Range::ALL.map(|range| range.span(now, kept));
        let rows = spans.map(|span| (span.interval, span.rows(&[]).len()));
        assert_eq!(rows, [(Hour, 24), (Hour, 168), (Day, 30), (Day, 90)]);
        for span in spans {
            assert!(
                span.to > now && span.to.as_millis() - now.as_millis() <= span.interval.millis()
            );
        }
        let early = Timestamp::from_millis(HOUR_MS);
        assert_eq!(
            Range::Quarter.span(early, kept).from,
            Timestamp::from_millis(0)
        );
    }

    #[test]
    fn hours_that_are_not_kept_are_told_as_days() {
        let now = Timestamp::from_millis(1_000 * DAY_MS + 5 * HOUR_MS);
        let days = |days: u64| Range::Week.span(now, Duration::from_secs(days * 86_400));
        assert_eq!(days(7).interval, Hour);
        let span = days(6);
        assert_eq!((span.interval, span.rows(&[]).len()), (Day, 7));
    }
}
