//! Sparklines: numbers over time as one small line. Pure: numbers become the path of an SVG, which has no
//! style of its own.

/// How far apart two numbers are drawn.
const STEP: u32 = 4;
/// How much higher the greatest number is drawn than 0.
const RISE: u32 = 18;
/// Room above and below for half of a line.
const MARGIN: u32 = 1;

/// The height of a drawing.
pub const HEIGHT: u32 = RISE + 2 * MARGIN;

/// The width of a drawing of so many numbers.
pub const fn width(numbers: u32) -> u32 {
    numbers.saturating_sub(1) * STEP
}

/// How high `value` is drawn where `greatest` is the greatest. What is more than nothing can be seen.
fn rise(value: u64, greatest: u64) -> i64 {
    if value == 0 {
        return 0;
    }
    let greatest = u128::from(greatest.max(1));
    let rise = (u128::from(value) * u128::from(RISE) + greatest / 2) / greatest;
    i64::try_from(rise.clamp(1, u128::from(RISE))).unwrap_or_default()
}

/// The path of a line through `values`; none where all of them are 0.
pub fn path(values: &[u64]) -> Option<String> {
    let greatest = values.iter().copied().max().filter(|most| *most > 0)?;
    let mut rises = values.iter().map(|value| rise(*value, greatest));
    let mut before = rises.next()?;
    let mut path = format!("M0 {}l", i64::from(HEIGHT - MARGIN) - before);
    for (number, rise) in rises.enumerate() {
        // From point to point, which takes the fewest characters.
        let down = before - rise;
        let between = if down < 0 { "" } else { " " };
        let space = if number == 0 { "" } else { " " };
        path.push_str(&format!("{space}{STEP}{between}{down}"));
        before = rise;
    }
    Some(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The points of a path, as a browser would find them.
    fn points(path: &str) -> Vec<(i64, i64)> {
        let (start, steps) = path.strip_prefix('M').unwrap().split_once('l').unwrap();
        let numbers = |text: &str| -> Vec<i64> {
            let text = text.replace('-', " -");
            let parts = text.split_whitespace().map(str::parse);
            parts.collect::<Result<_, _>>().unwrap()
        };
        let mut at = (numbers(start)[0], numbers(start)[1]);
        let mut points = vec![at];
        for step in numbers(steps).chunks(2) {
            at = (at.0 + step[0], at.1 + step[1]);
            points.push(at);
        }
        points
    }

    #[test]
    fn a_line_goes_up_with_its_numbers() {
        assert_eq!(path(&[0, 10, 5, 5]).unwrap(), "M0 19l4-18 4 9 4 0");
        assert_eq!(
            points("M0 19l4-18 4 9 4 0"),
            [(0, 19), (4, 1), (8, 10), (12, 10)]
        );
        assert_eq!(path(&[7]).unwrap(), "M0 1l");
    }

    #[test]
    fn nothing_is_no_line() {
        assert_eq!(path(&[]), None);
        assert_eq!(path(&[0, 0, 0]), None);
    }

    #[test]
    fn one_request_among_very_many_is_seen() {
        let line = path(&[1, 1_000_000, 0]).unwrap();
        assert_eq!(points(&line), [(0, 18), (4, 1), (8, 19)]);
    }

    proptest! {
        #[test]
        fn every_line_stays_in_its_room(values in prop::collection::vec(any::<u64>(), 1..60)) {
            let Some(line) = path(&values) else {
                prop_assert!(values.iter().all(|value| *value == 0));
                return Ok(());
            };
            let points = points(&line);
            prop_assert_eq!(points.len(), values.len());
            let last = points.last().unwrap().0;
            prop_assert_eq!(last, i64::from(width(u32::try_from(values.len()).unwrap())));
            for ((_, y), value) in points.iter().zip(&values) {
                prop_assert!((1..=19).contains(y));
                prop_assert_eq!(*y == 19, *value == 0);
            }
            let highest = points.iter().map(|(_, y)| *y).min();
            prop_assert_eq!(highest, Some(1));
        }
    }
}
