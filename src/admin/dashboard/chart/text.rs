//! Numbers and times as charts and the pages around them write them.

use time::OffsetDateTime;
use time::format_description::BorrowedFormatItem;
use time::macros::format_description;

use crate::clock::Timestamp;

/// Stands where there is no number.
pub const NOTHING: &str = "–";

/// With a comma before every three digits.
pub fn count(value: u64) -> String {
    let digits = value.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Hundredths of a percent as a percentage, without noughts that say nothing.
pub fn percent(hundredths: u64) -> String {
    format!("{}%", decimal(hundredths, 100))
}

/// `value / unit` (a power of ten), without noughts that say nothing.
pub fn decimal(value: u64, unit: u64) -> String {
    let (whole, rest) = (value / unit, value % unit);
    if rest == 0 {
        return count(whole);
    }
    let places = unit.ilog10() as usize;
    let rest = format!("{rest:0places$}");
    format!("{}.{}", count(whole), rest.trim_end_matches('0'))
}

/// `26 Nov 2026`, in UTC.
pub fn day(moment: Timestamp) -> String {
    written(
        moment,
        format_description!("[day padding:none] [month repr:short] [year]"),
    )
}

/// `26 Nov`, in UTC.
pub fn short_day(moment: Timestamp) -> String {
    written(
        moment,
        format_description!("[day padding:none] [month repr:short]"),
    )
}

/// `14:00`, in UTC.
pub fn hour(moment: Timestamp) -> String {
    written(moment, format_description!("[hour]:[minute]"))
}

/// `2026-11-26`, in UTC.
pub fn machine_day(moment: Timestamp) -> String {
    written(moment, format_description!("[year]-[month]-[day]"))
}

fn written(moment: Timestamp, format: &[BorrowedFormatItem<'_>]) -> String {
    let nanos = i128::from(moment.as_millis()) * 1_000_000;
    // In range by construction, so what else there could be is never seen.
    let moment = OffsetDateTime::from_unix_timestamp_nanos(nanos);
    let moment = moment.unwrap_or(OffsetDateTime::UNIX_EPOCH);
    moment.format(format).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_readable() {
        for (value, text) in [
            (0, "0"),
            (999, "999"),
            (1_000, "1,000"),
            (123_456, "123,456"),
            (u64::MAX, "18,446,744,073,709,551,615"),
        ] {
            assert_eq!(count(value), text);
        }
        for (value, text) in [
            (0, "0%"),
            (1, "0.01%"),
            (150, "1.5%"),
            (1_205, "12.05%"),
            (10_000, "100%"),
        ] {
            assert_eq!(percent(value), text);
        }
    }

    #[test]
    fn times_are_of_utc() {
        let moment = Timestamp::parse("2026-11-05T09:00:00Z").unwrap();
        assert_eq!(day(moment), "5 Nov 2026");
        assert_eq!(short_day(moment), "5 Nov");
        assert_eq!(hour(moment), "09:00");
        assert_eq!(machine_day(moment), "2026-11-05");
        assert_eq!(day(Timestamp::MAX), "31 Dec 9999");
    }
}
