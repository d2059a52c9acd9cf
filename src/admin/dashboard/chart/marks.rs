//! What is drawn in a plot. Each place in time has the same width; what is above the foot is in proportion
//! to the top. Whole numbers, so that what stands on something begins exactly where that ends.

use std::fmt::Write;

/// How wide a place is.
const PLACE: usize = 20;
/// How much of it is free between bars; in a crowd less, or nothing would be left of them.
const GAP: usize = 4;
const GAP_IN_A_CROWD: usize = 2;
/// More bars than this are a crowd.
const CROWD: usize = 60;
/// How high a plot is.
pub const HEIGHT: u64 = 10_000;

/// The field in which paths are drawn.
pub fn view_box(places: usize) -> String {
    format!("0 0 {} {HEIGHT}", places.max(1) * PLACE)
}

/// How high above the foot `value` is.
fn height(value: u64, top: u64) -> u64 {
    let value = u128::from(value.min(top));
    let height = value * u128::from(HEIGHT) / u128::from(top.max(1));
    u64::try_from(height).unwrap_or(HEIGHT)
}

/// Bars of `values` on what is `below`, which then includes them.
pub fn bars(values: &[Option<u64>], below: &mut [u64], top: u64) -> String {
    let gap = if values.len() > CROWD {
        GAP_IN_A_CROWD
    } else {
        GAP
    };
    let mut path = String::new();
    for (at, (value, below)) in values.iter().zip(below).enumerate() {
        let foot = height(*below, top);
        *below = below.saturating_add(value.unwrap_or_default());
        let head = height(*below, top);
        if head > foot {
            let (x, width) = (at * PLACE + gap / 2, PLACE - gap);
            let (foot, head) = (HEIGHT - foot, HEIGHT - head);
            let _ = write!(path, "M{x} {foot}V{head}h{width}V{foot}z");
        }
    }
    path
}

/// A line and what is under it.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Line {
    pub path: String,
    /// Values with none beside them, as dots.
    pub dots: String,
    pub area: String,
}

/// A line through `values`. It is interrupted where there is none.
pub fn line(values: &[Option<u64>], top: u64) -> Line {
    let mut line = Line::default();
    let places: Vec<usize> = (0..values.len()).collect();
    let known = |at: &usize| values.get(*at).copied().flatten();
    for run in places.chunk_by(|a, b| known(a).is_some() == known(b).is_some()) {
        let points: Vec<(usize, u64)> = run
            .iter()
            .filter_map(|at| Some((at * PLACE + PLACE / 2, HEIGHT - height(known(at)?, top))))
            .collect();
        let (Some((first, _)), Some((last, _))) = (points.first(), points.last()) else {
            continue;
        };
        let drawn: Vec<String> = points.iter().map(|(x, y)| format!("{x} {y}")).collect();
        let drawn = drawn.join("L");
        let _ = match points.len() {
            1 => write!(line.dots, "M{drawn}h0"),
            _ => write!(line.path, "M{drawn}"),
        };
        let _ = write!(line.area, "M{first} {HEIGHT}L{drawn}L{last} {HEIGHT}z");
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn bars_stand_on_each_other() {
        let mut below = vec![0; 3];
        let first = bars(&[Some(5), Some(0), None], &mut below, 10);
        assert_eq!(first, "M2 10000V5000h16V10000z");
        let second = bars(&[Some(5), Some(1), Some(10)], &mut below, 10);
        assert_eq!(
            second,
            "M2 5000V0h16V5000zM22 10000V9000h16V10000zM42 10000V0h16V10000z"
        );
        assert_eq!(below, [10, 1, 10]);
    }

    #[test]
    fn lines_have_gaps() {
        let drawn = line(&[Some(0), Some(10), None, Some(5), None], 10);
        assert_eq!(drawn.path, "M10 10000L30 0");
        assert_eq!(drawn.dots, "M70 5000h0");
        assert_eq!(
            drawn.area,
            "M10 10000L10 10000L30 0L30 10000zM70 10000L70 5000L70 10000z"
        );
        assert_eq!(line(&[None, None], 10), Line::default());
    }

    /// The numbers of each bar: left, foot, head, width.
    fn numbers(path: &str) -> Vec<[u64; 4]> {
        let bars = path.split_terminator('z');
        let read = |bar: &str| {
            let texts = bar.split(|c: char| !c.is_ascii_digit());
            let texts: Vec<u64> = texts.filter_map(|text| text.parse().ok()).collect();
            assert_eq!((texts.len(), texts[1]), (5, texts[4]), "{bar}");
            [texts[0], texts[1], texts[2], texts[3]]
        };
        bars.map(read).collect()
    }

    proptest! {
        #[test]
        fn bars_stay_in_the_plot_and_leave_no_gap(
            columns in proptest::collection::vec(proptest::array::uniform3(0..1_000_000_u64), 1..100),
        ) {
            let top = columns.iter().map(|column| column.iter().sum::<u64>()).max().unwrap().max(1);
            let mut below = vec![0; columns.len()];
            let mut heads = vec![HEIGHT; columns.len()];
            for series in 0..3 {
                let values: Vec<Option<u64>> = columns.iter().map(|column| Some(column[series])).collect();
                for [left, foot, head, width] in numbers(&bars(&values, &mut below, top)) {
                    let at = left as usize / PLACE;
                    prop_assert!(head < foot && foot <= HEIGHT);
                    prop_assert!(left as usize >= at * PLACE && (left + width) as usize <= (at + 1) * PLACE);
                    prop_assert_eq!(foot, heads[at]);
                    heads[at] = head;
                }
            }
            for (column, head) in columns.iter().zip(heads) {
                // What is drawn is the sum, to the last unit.
                prop_assert_eq!(HEIGHT - head, height(column.iter().sum(), top));
            }
        }

        #[test]
        fn lines_stay_in_the_plot(values in proptest::collection::vec(proptest::option::of(0..=10_000_u64), 0..100)) {
            let drawn = line(&values, 10_000);
            let points = drawn.path.split(['M', 'L']).chain(drawn.dots.split('M'));
            let mut points: Vec<(usize, u64)> = points
                .filter(|point| !point.is_empty())
                .map(|point| point.trim_end_matches("h0").split_once(' ').unwrap())
                .map(|(x, y)| (x.parse().unwrap(), y.parse().unwrap()))
                .collect();
            points.sort_unstable();
            let known = values.iter().enumerate().filter_map(|(at, value)| Some((at * PLACE + PLACE / 2, HEIGHT - (*value)?)));
            prop_assert_eq!(points, known.collect::<Vec<_>>());
        }
    }
}
