//! Charts: plain SVG, made here from numbers. The same numbers stand in a table beside each, from which
//! the script that tells exact values reads them too.
//!
//! Nothing in a chart is styled in place: geometry is in attributes, colours come by class from the style
//! sheet, so that both schemes and a strict policy are served by the same markup. The plot is stretched to
//! whatever room there is; texts are not, because they stand outside of what is stretched.

mod axis;
mod marks;
pub mod text;

use crate::clock::Timestamp;
use crate::usage::span::Interval;
use axis::Scale;
pub use axis::TimeLabel;
use text::{count, day, hour, percent};

/// What numbers count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    Count,
    /// Hundredths of a percent: see [`share`].
    Percent,
}

/// How a chart is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Series stand on each other: together they are the whole.
    Bars,
    /// Series stand beside each other.
    Line,
}

/// Which of the style sheet's colours a series has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tone {
    First,
    Second,
    Third,
    Fourth,
}

impl Tone {
    fn class(self) -> &'static str {
        match self {
            Tone::First => "series-1",
            Tone::Second => "series-2",
            Tone::Third => "series-3",
            Tone::Fourth => "series-4",
        }
    }
}

/// Numbers over time, one for each start; none where there is nothing to tell.
#[derive(Debug, Clone)]
pub struct Series {
    pub name: &'static str,
    pub tone: Tone,
    pub values: Vec<Option<u64>>,
}

/// What is to be drawn.
#[derive(Debug, Clone)]
pub struct Chart {
    /// The chart's own in its page: ids begin with it.
    pub name: &'static str,
    pub title: &'static str,
    pub unit: Unit,
    pub kind: Kind,
    pub series: Vec<Series>,
    pub starts: Vec<Timestamp>,
    pub interval: Interval,
}

/// `part` of `whole` in hundredths of a percent; nothing of nothing is no share. What is more than nothing
/// is not told as nothing, and what is less than all not as all.
pub fn share(part: u64, whole: u64) -> Option<u64> {
    if whole == 0 {
        return None;
    }
    let part = part.min(whole);
    let rounded = (u128::from(part) * 10_000 + u128::from(whole) / 2) / u128::from(whole);
    let rounded = u64::try_from(rounded).unwrap_or(10_000);
    Some(match part {
        0 => 0,
        _ if part == whole => 10_000,
        _ => rounded.clamp(1, 9_999),
    })
}

/// A line across the plot, and what it stands for.
#[derive(Debug, PartialEq, Eq)]
pub struct Tick {
    pub label: String,
    /// From the top, as a percentage.
    pub y: String,
}

/// A series as it is drawn.
#[derive(Debug)]
pub struct Mark {
    pub name: &'static str,
    pub class: &'static str,
    /// The path of its bars, or of its line.
    pub path: String,
    /// Single values of a line.
    pub dots: String,
    /// What is under a line.
    pub area: Option<String>,
}

/// A line of the table.
#[derive(Debug)]
pub struct Row {
    /// As machines read it: a day alone where the row is one.
    pub machine_start: String,
    pub start: String,
    pub cells: Vec<String>,
}

/// A chart, ready for `parts/chart.html`, which expects it as `chart`.
#[derive(Debug)]
pub struct ChartView {
    pub name: &'static str,
    pub title: &'static str,
    pub kind: &'static str,
    pub interval: &'static str,
    pub per: &'static str,
    pub first_column: &'static str,
    /// Also for those who don't see the plot.
    pub summary: String,
    pub is_empty: bool,
    pub view_box: String,
    /// From the top.
    pub ticks: Vec<Tick>,
    pub times: Vec<TimeLabel>,
    pub marks: Vec<Mark>,
    /// Whether the table's last column is the sum of the others.
    pub has_sum: bool,
    pub rows: Vec<Row>,
}

impl From<&Chart> for ChartView {
    fn from(chart: &Chart) -> Self {
        let scale = Scale::new(chart.unit, chart.most());
        let has_sum = chart.kind == Kind::Bars && chart.series.len() > 1;
        let (per, first_column) = match chart.interval {
            Interval::Hour => ("per hour", "Hour"),
            Interval::Day => ("per day (UTC)", "Day (UTC)"),
        };
        ChartView {
            name: chart.name,
            title: chart.title,
            kind: match chart.kind {
                Kind::Bars => "bars",
                Kind::Line => "line",
            },
            interval: chart.interval.as_str(),
            per,
            first_column,
            summary: chart.summary(),
            is_empty: chart.is_empty(),
            view_box: marks::view_box(chart.starts.len()),
            ticks: scale.ticks(),
            times: axis::time_labels(&chart.starts, chart.interval),
            marks: chart.marks(scale.top()),
            has_sum,
            rows: chart.rows(has_sum),
        }
    }
}

impl Chart {
    fn value(&self, series: usize, at: usize) -> Option<u64> {
        self.series.get(series)?.values.get(at).copied().flatten()
    }

    /// What all series come to at a place.
    fn sum(&self, at: usize) -> u64 {
        let values = (0..self.series.len()).filter_map(|series| self.value(series, at));
        values.fold(0, u64::saturating_add)
    }

    /// How high the plot has to reach.
    fn most(&self) -> u64 {
        let places = 0..self.starts.len();
        let most = match self.kind {
            Kind::Bars => places.map(|at| self.sum(at)).max(),
            Kind::Line => self.series.iter().flat_map(known).max(),
        };
        most.unwrap_or_default()
    }

    fn is_empty(&self) -> bool {
        match self.kind {
            Kind::Bars => self.most() == 0,
            Kind::Line => self.series.iter().all(|series| known(series).count() == 0),
        }
    }

    fn marks(&self, top: u64) -> Vec<Mark> {
        let places = self.starts.len();
        let mut below = vec![0; places];
        let mark = |series: &Series| {
            let (path, dots, area) = match self.kind {
                Kind::Bars => {
                    let bars = marks::bars(&series.values, &mut below, top);
                    (bars, String::new(), None)
                }
                Kind::Line => {
                    let line = marks::line(&series.values, top);
                    (line.path, line.dots, Some(line.area))
                }
            };
            Mark {
                name: series.name,
                class: series.tone.class(),
                path,
                dots,
                area,
            }
        };
        self.series.iter().map(mark).collect()
    }

    fn told(&self, value: u64) -> String {
        match self.unit {
            Unit::Count => count(value),
            Unit::Percent => percent(value),
        }
    }

    fn told_at(&self, at: usize) -> String {
        let start = self.starts.get(at).copied();
        let start = start.unwrap_or(Timestamp::from_millis(0));
        match self.interval {
            Interval::Hour => format!("{}, {} UTC", day(start), hour(start)),
            Interval::Day => day(start),
        }
    }

    fn summary(&self) -> String {
        let (Some(first), Some(last)) = (self.starts.first(), self.starts.last()) else {
            return "Nothing to show for this time.".to_owned();
        };
        let span = format!("{} to {}", day(*first), day(*last));
        if self.is_empty() {
            return format!("{span}: nothing to show.");
        }
        let places = 0..self.starts.len();
        let told = match self.kind {
            Kind::Bars => {
                let total = places.clone().map(|at| self.sum(at));
                let total = total.fold(0, u64::saturating_add);
                let peak = places.rev().max_by_key(|at| self.sum(*at)).unwrap_or(0);
                let (most, at) = (self.told(self.sum(peak)), self.told_at(peak));
                format!("{} in all, most on {at}: {most}.", self.told(total))
            }
            Kind::Line => self
                .series
                .iter()
                .enumerate()
                .filter_map(|(index, series)| {
                    let known = places.clone().rev();
                    let known = known.filter(|at| self.value(index, *at).is_some());
                    let peak = known.max_by_key(|at| self.value(index, *at))?;
                    let most = self.told(self.value(index, peak)?);
                    Some(format!(
                        "{} at most {most}, on {}.",
                        series.name,
                        self.told_at(peak)
                    ))
                })
                .collect::<Vec<_>>()
                .join(" "),
        };
        format!("{span}: {told}")
    }

    fn rows(&self, has_sum: bool) -> Vec<Row> {
        let row = |(at, start): (usize, &Timestamp)| {
            let value = |series| match self.value(series, at) {
                Some(value) => self.told(value),
                None => text::NOTHING.to_owned(),
            };
            let sum = has_sum.then(|| self.told(self.sum(at)));
            Row {
                machine_start: match self.interval {
                    Interval::Hour => start.to_string(),
                    Interval::Day => text::machine_day(*start),
                },
                start: match self.interval {
                    Interval::Hour => format!("{}, {} UTC", day(*start), hour(*start)),
                    Interval::Day => day(*start),
                },
                cells: (0..self.series.len()).map(value).chain(sum).collect(),
            }
        };
        self.starts.iter().enumerate().map(row).collect()
    }
}

fn known(series: &Series) -> impl Iterator<Item = u64> {
    series.values.iter().copied().flatten()
}

#[cfg(test)]
mod tests;
