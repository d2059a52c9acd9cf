//! What stands beside a plot: round numbers to the left of it, times below it.

use super::text::{count, decimal, hour, percent, short_day};
use super::{Tick, Unit};
use crate::clock::Timestamp;
use crate::usage::counts::{DAY_MS, HOUR_MS};
use crate::usage::span::Interval;

/// Lines across the plot above its foot, at most.
const STEPS_MAX: u64 = 4;
/// What the top of a plot of shares is at least, in hundredths of a percent: less would make mountains
/// of single failures.
const PERCENT_TOP_MIN: u64 = 100;
/// Nobody reads the axis of more than this; what is higher ends at the top.
const COUNT_TOP_MAX: u64 = 1_000_000_000_000_000_000;
/// Times below a plot, about.
const TIMES_MAX: usize = 8;
/// A plot of more hours than this has days below it.
const HOURS_MAX: usize = 48;
/// Hours from one time to the next below a plot of hours.
const HOURS_STEP: i64 = 3;
/// Days from one to the next below a plot of days.
const DAYS_STEPS: [usize; 5] = [1, 2, 7, 14, 28];
/// Percent of a plot's width within which a time would not fit centred.
const EDGE_PERCENT: f64 = 4.0;

/// From nought to the top of a plot, in round steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scale {
    unit: Unit,
    step: u64,
    steps: u64,
}

impl Scale {
    /// One that reaches `most`, in the fewest round steps.
    pub fn new(unit: Unit, most: u64) -> Self {
        let most = match unit {
            Unit::Count => most.clamp(1, COUNT_TOP_MAX),
            Unit::Percent => most.max(PERCENT_TOP_MIN),
        };
        let step = round_steps().find(|step| step.saturating_mul(STEPS_MAX) >= most);
        let step = step.unwrap_or(most.div_ceil(STEPS_MAX));
        Scale {
            unit,
            step,
            steps: most.div_ceil(step),
        }
    }

    /// What the plot's top stands for.
    pub fn top(&self) -> u64 {
        self.step.saturating_mul(self.steps)
    }

    /// All lines, from the top.
    pub fn ticks(&self) -> Vec<Tick> {
        let tick = |step: u64| Tick {
            label: self.label(step * self.step),
            y: percentage((self.steps - step) as f64 / self.steps as f64),
        };
        (0..=self.steps).rev().map(tick).collect()
    }

    /// One of the numbers, all of a plot in the same unit.
    fn label(&self, value: u64) -> String {
        if self.unit == Unit::Percent {
            return percent(value);
        }
        let (unit, name) = match self.top() {
            0..10_000 => return count(value),
            10_000..1_000_000 => (1_000, "k"),
            1_000_000..1_000_000_000 => (1_000_000, "M"),
            1_000_000_000..1_000_000_000_000 => (1_000_000_000, "B"),
            _ => (1_000_000_000_000, "T"),
        };
        match value {
            0 => "0".to_owned(),
            value => format!("{}{name}", decimal(value, unit)),
        }
    }
}

/// 1, 2, 5, 10, 20, 25, 50, 100 ... : the steps that people count in.
fn round_steps() -> impl Iterator<Item = u64> {
    let powers = (0..=18).map_while(|power| 10_u64.checked_pow(power));
    powers.flat_map(|power| {
        let quarter = (power >= 10).then_some(power / 10 * 25);
        [
            Some(power),
            Some(power.saturating_mul(2)),
            quarter,
            Some(power.saturating_mul(5)),
        ]
        .into_iter()
        .flatten()
    })
}

/// A time below a plot.
#[derive(Debug, PartialEq, Eq)]
pub struct TimeLabel {
    pub label: String,
    /// From the left, as a percentage.
    pub x: String,
    /// How it lies there: `start`, `middle`, `end`.
    pub anchor: &'static str,
    /// Left out where there is little room.
    pub is_minor: bool,
}

/// The times below a plot of `starts`.
pub fn time_labels(starts: &[Timestamp], interval: Interval) -> Vec<TimeLabel> {
    let chosen: Vec<(usize, bool)> = match interval {
        Interval::Hour if starts.len() <= HOURS_MAX => hours(starts).collect(),
        Interval::Hour => thinned(midnights(starts)),
        Interval::Day => thinned((0..starts.len()).rev().collect()),
    };
    let label = |(at, is_minor): (usize, bool)| {
        let start = starts.get(at)?;
        let x = (at as f64 + 0.5) / starts.len() as f64;
        let of_day = start.as_millis().rem_euclid(DAY_MS);
        Some(TimeLabel {
            label: match interval {
                Interval::Hour if of_day != 0 => hour(*start),
                _ => short_day(*start),
            },
            x: percentage(x),
            anchor: match x * 100.0 {
                x if x < EDGE_PERCENT => "start",
                x if x > 100.0 - EDGE_PERCENT => "end",
                _ => "middle",
            },
            is_minor,
        })
    };
    chosen.into_iter().filter_map(label).collect()
}

/// Places of some round hours, and whether each may be left out.
fn hours(starts: &[Timestamp]) -> impl Iterator<Item = (usize, bool)> {
    let step = |times: i64| times * HOURS_STEP * HOUR_MS;
    let starts = starts.iter().enumerate();
    let round = starts.filter(move |(_, start)| start.as_millis().rem_euclid(step(1)) == 0);
    round.map(move |(at, start)| (at, start.as_millis().rem_euclid(step(2)) != 0))
}

/// Places where days begin, from the last.
fn midnights(starts: &[Timestamp]) -> Vec<usize> {
    let starts = starts.iter().enumerate().rev();
    let first = starts.filter(|(_, start)| start.as_millis().rem_euclid(DAY_MS) == 0);
    first.map(|(at, _)| at).collect()
}

/// As many of the places of days, the last of them first, as fit; and whether each may be left out.
fn thinned(days: Vec<usize>) -> Vec<(usize, bool)> {
    let fits = |step: &&usize| days.len().div_ceil(**step) <= TIMES_MAX;
    let step = DAYS_STEPS.iter().find(fits).copied();
    let step = step.unwrap_or(days.len().div_ceil(TIMES_MAX));
    let kept = days.into_iter().step_by(step).enumerate();
    kept.map(|(nth, at)| (at, nth % 2 != 0)).collect()
}

/// A part of the whole, for an attribute.
fn percentage(part: f64) -> String {
    let text = format!("{:.2}", part * 100.0);
    format!("{}%", text.trim_end_matches('0').trim_end_matches('.'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn labels(unit: Unit, most: u64) -> Vec<String> {
        let ticks = Scale::new(unit, most).ticks();
        ticks.into_iter().rev().map(|tick| tick.label).collect()
    }

    #[test]
    fn ticks_are_round() {
        assert_eq!(labels(Unit::Count, 0), ["0", "1"]);
        assert_eq!(labels(Unit::Count, 3), ["0", "1", "2", "3"]);
        assert_eq!(labels(Unit::Count, 7), ["0", "2", "4", "6", "8"]);
        assert_eq!(labels(Unit::Count, 11), ["0", "5", "10", "15"]);
        assert_eq!(labels(Unit::Count, 90), ["0", "25", "50", "75", "100"]);
        assert_eq!(labels(Unit::Count, 4_001), ["0", "2,000", "4,000", "6,000"]);
        assert_eq!(
            labels(Unit::Count, 9_999),
            ["0", "2.5k", "5k", "7.5k", "10k"]
        );
        assert_eq!(
            labels(Unit::Count, 1_000_000),
            ["0", "0.25M", "0.5M", "0.75M", "1M"]
        );
        assert_eq!(
            labels(Unit::Percent, 0),
            ["0%", "0.25%", "0.5%", "0.75%", "1%"]
        );
        assert_eq!(
            labels(Unit::Percent, 10_000),
            ["0%", "25%", "50%", "75%", "100%"]
        );
        let ys: Vec<String> = Scale::new(Unit::Count, 3)
            .ticks()
            .into_iter()
            .map(|tick| tick.y)
            .collect();
        assert_eq!(ys, ["0%", "33.33%", "66.67%", "100%"]);
    }

    fn starts(interval: Interval, first_ms: i64, count: i64) -> Vec<Timestamp> {
        let start = |n| Timestamp::from_millis(first_ms + n * interval.millis());
        (0..count).map(start).collect()
    }

    fn shown(interval: Interval, first_ms: i64, count: i64) -> (Vec<String>, usize) {
        let labels = time_labels(&starts(interval, first_ms, count), interval);
        let minor = labels.iter().filter(|label| label.is_minor).count();
        (labels.into_iter().map(|label| label.label).collect(), minor)
    }

    #[test]
    fn times_are_few_and_round() {
        let (hours, minor) = shown(Interval::Hour, 100 * DAY_MS + 5 * HOUR_MS, 24);
        assert_eq!(
            hours,
            [
                "06:00", "09:00", "12:00", "15:00", "18:00", "21:00", "12 Apr", "03:00"
            ]
        );
        assert_eq!(minor, 4);
        let (days, _) = shown(Interval::Hour, 100 * DAY_MS + 5 * HOUR_MS, 168);
        assert_eq!(days.len(), 7);
        assert_eq!(days[0], "18 Apr");
        let (days, minor) = shown(Interval::Day, 100 * DAY_MS, 30);
        assert_eq!(days, ["10 May", "3 May", "26 Apr", "19 Apr", "12 Apr"]);
        assert_eq!(minor, 2);
        assert_eq!(shown(Interval::Day, 0, 90).0.len(), 7);
        assert_eq!(shown(Interval::Day, 0, 7).0.len(), 7);
        assert_eq!(shown(Interval::Day, 0, 0).0.len(), 0);
    }

    #[test]
    fn times_stay_below_the_plot() {
        let labels = time_labels(&starts(Interval::Day, 0, 30), Interval::Day);
        let last = labels.first().unwrap();
        assert_eq!((last.x.as_str(), last.anchor), ("98.33%", "end"));
        let labels = time_labels(&starts(Interval::Day, 0, 1), Interval::Day);
        assert_eq!((labels[0].x.as_str(), labels[0].anchor), ("50%", "middle"));
    }

    proptest! {
        #[test]
        fn a_scale_reaches_what_it_is_for(most in any::<u64>(), is_percent in any::<bool>()) {
            let (unit, most) = if is_percent { (Unit::Percent, most % 10_001) } else { (Unit::Count, most % (COUNT_TOP_MAX + 1)) };
            let scale = Scale::new(unit, most);
            prop_assert!(scale.top() >= most);
            prop_assert!((1..=STEPS_MAX).contains(&scale.steps));
            // No whole step is empty at the top.
            let least = if is_percent { PERCENT_TOP_MIN } else { 1 };
            prop_assert!(scale.step * (scale.steps - 1) < most.max(least));
            prop_assert!(!is_percent || scale.top() <= 10_000);
            let ticks = scale.ticks();
            prop_assert_eq!(&ticks[0].y, "0%");
            prop_assert_eq!(&ticks.last().unwrap().y, "100%");
            prop_assert!(ticks.iter().all(|tick| tick.label.len() <= 12), "{:?}", ticks);
        }

        #[test]
        fn times_never_crowd(first in 0..20_000_i64, count in 0..1_000_i64, by_day in any::<bool>()) {
            let interval = if by_day { Interval::Day } else { Interval::Hour };
            let labels = time_labels(&starts(interval, first * HOUR_MS, count), interval);
            prop_assert!(labels.len() <= 2 * TIMES_MAX);
        }
    }
}
