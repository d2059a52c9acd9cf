use super::*;
use crate::usage::counts::{DAY_MS, HOUR_MS};
use proptest::prelude::*;

fn chart(kind: Kind, unit: Unit, values: &[&[Option<u64>]]) -> Chart {
    let tones = [Tone::First, Tone::Second, Tone::Third, Tone::Fourth];
    let names = ["Fine", "Bad", "Worse", "Worst"];
    let series = values.iter().enumerate().map(|(at, values)| Series {
        name: names[at],
        tone: tones[at],
        values: values.to_vec(),
    });
    let places = values.first().map_or(0, |values| values.len() as i64);
    Chart {
        name: "things",
        title: "Things",
        unit,
        kind,
        series: series.collect(),
        starts: (0..places)
            .map(|day| Timestamp::from_millis((100 + day) * DAY_MS))
            .collect(),
        interval: Interval::Day,
    }
}

#[test]
fn shares_are_honest_at_both_ends() {
    assert_eq!(share(0, 0), None);
    assert_eq!(share(0, 7), Some(0));
    assert_eq!(share(7, 7), Some(10_000));
    assert_eq!(share(1, 3), Some(3_333));
    assert_eq!(share(2, 3), Some(6_667));
    assert_eq!(share(1, 1_000_000), Some(1));
    assert_eq!(share(999_999, 1_000_000), Some(9_999));
    assert_eq!(share(u64::MAX, u64::MAX), Some(10_000));
    assert_eq!(share(9, 7), Some(10_000));
}

#[test]
fn the_table_has_what_is_drawn() {
    let chart = chart(
        Kind::Bars,
        Unit::Count,
        &[&[Some(1_000), Some(0)], &[Some(20), None]],
    );
    let view = ChartView::from(&chart);
    assert!(view.has_sum && !view.is_empty);
    assert_eq!(view.view_box, "0 0 40 10000");
    let cells: Vec<_> = view.rows.iter().map(|row| row.cells.join(" ")).collect();
    assert_eq!(cells, ["1,000 20 1,020", "0 – 0"]);
    assert_eq!(view.rows[0].start, "11 Apr 1970");
    assert_eq!(view.rows[0].machine_start, "1970-04-11");
    assert_eq!(view.marks[1].class, "series-2");
    assert_eq!(
        view.summary,
        "11 Apr 1970 to 12 Apr 1970: 1,020 in all, most on 11 Apr 1970: 1,020."
    );
}

#[test]
fn a_line_says_where_it_is_highest() {
    let mut chart = chart(Kind::Line, Unit::Percent, &[&[None, Some(250), Some(125)]]);
    chart.interval = Interval::Hour;
    chart.starts = (0..3)
        .map(|at| Timestamp::from_millis(100 * DAY_MS + at * HOUR_MS))
        .collect();
    let view = ChartView::from(&chart);
    assert!(!view.has_sum && !view.is_empty);
    assert_eq!(
        view.summary,
        "11 Apr 1970 to 11 Apr 1970: Fine at most 2.5%, on 11 Apr 1970, 01:00 UTC."
    );
    assert_eq!(view.rows[0].cells, ["–"]);
    assert_eq!(view.rows[1].cells, ["2.5%"]);
    assert_eq!(view.rows[1].machine_start, "1970-04-11T01:00:00Z");
    assert_eq!(view.rows[1].start, "11 Apr 1970, 01:00 UTC");
    assert_eq!(view.ticks[0].label, "3%");
}

#[test]
fn nothing_is_told_as_nothing() {
    let none = ChartView::from(&chart(Kind::Bars, Unit::Count, &[&[Some(0), Some(0)]]));
    assert!(none.is_empty);
    assert_eq!(none.summary, "11 Apr 1970 to 12 Apr 1970: nothing to show.");
    assert_eq!(none.marks[0].path, "");
    // No failure is a good line, not an empty plot.
    let zero = ChartView::from(&chart(Kind::Line, Unit::Percent, &[&[Some(0), None]]));
    assert!(!zero.is_empty);
    let unknown = ChartView::from(&chart(Kind::Line, Unit::Percent, &[&[None, None]]));
    assert!(unknown.is_empty);
    let nowhere = ChartView::from(&chart(Kind::Line, Unit::Count, &[]));
    assert!(nowhere.is_empty && nowhere.rows.is_empty());
    assert_eq!(nowhere.summary, "Nothing to show for this time.");
}

proptest! {
    #[test]
    fn any_numbers_make_a_chart(
        values in proptest::collection::vec(proptest::option::of(any::<u64>()), 0..40),
        is_line in any::<bool>(),
    ) {
        let kind = if is_line { Kind::Line } else { Kind::Bars };
        let chart = chart(kind, Unit::Count, &[&values, &values]);
        let view = ChartView::from(&chart);
        prop_assert_eq!(view.rows.len(), values.len());
        prop_assert_eq!(view.marks.len(), 2);
    }
}
