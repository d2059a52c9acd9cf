//! How people write times, limits and metadata in arguments.

use std::time::Duration;

use serde_json::{Map, Value};

use crate::clock::Timestamp;
use crate::key::Policy;

/// The longest span that can be written: a hundred years.
const SPAN_SECONDS_MAX: u64 = 36_525 * 86_400;

fn unit_seconds(unit: &str) -> Option<u64> {
    match unit {
        "s" => Some(1),
        "m" => Some(60),
        "h" => Some(3600),
        "d" => Some(86_400),
        "w" => Some(7 * 86_400),
        _ => None,
    }
}

/// `90d`, `24h`, `30m`, `45s`, `2w`; `0` needs no unit.
pub fn span(text: &str) -> Result<Duration, String> {
    let problem = || "write a number with its unit: 45s, 30m, 24h, 90d or 2w".to_owned();
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| problem())?;
    let seconds = unit_seconds(unit).and_then(|unit| number.checked_mul(unit));
    let seconds = seconds.ok_or_else(problem)?;
    if seconds > SPAN_SECONDS_MAX {
        return Err("is longer than a hundred years".to_owned());
    }
    Ok(Duration::from_secs(seconds))
}

/// A moment: written out, or by how far it is from now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    At(Timestamp),
    Distance(Duration),
}

impl Moment {
    /// The moment, where a distance is before `now`.
    pub fn before(self, now: Timestamp) -> Timestamp {
        match self {
            Moment::At(moment) => moment,
            // From zero on, where RFC 3339 begins for us.
            Moment::Distance(distance) => Timestamp::from_millis(now.minus(distance).as_millis()),
        }
    }

    /// The moment, where a distance is after `now`.
    pub fn after(self, now: Timestamp) -> Timestamp {
        match self {
            Moment::At(moment) => moment,
            Moment::Distance(distance) => now.plus(distance),
        }
    }
}

/// `2027-01-31T12:00:00Z`, or `2027-01-31` for its beginning in UTC.
pub fn time(text: &str) -> Result<Timestamp, String> {
    Timestamp::parse(text)
        .or_else(|_| Timestamp::parse(&format!("{text}T00:00:00Z")))
        .map_err(|_| "write a date and time such as 2027-01-31T12:00:00Z, or a date".to_owned())
}

/// A time, or a span from now.
pub fn moment(text: &str) -> Result<Moment, String> {
    if let Ok(distance) = span(text) {
        return Ok(Moment::Distance(distance));
    }
    let moment = time(text);
    moment.map(Moment::At).map_err(|_| {
        "write a date and time such as 2027-01-31T12:00:00Z, a date, or a span such as 24h or 30d"
            .to_owned()
    })
}

/// `NAME:QUOTA/WINDOW[:BURST]`, such as `day:10000/1d` or `burst:10/s:20`.
pub fn rate_limit(text: &str) -> Result<Policy, String> {
    let form =
        || "write NAME:QUOTA/WINDOW[:BURST], such as day:10000/1d or peak:10/1s:20".to_owned();
    let (name, rest) = text.split_once(':').ok_or_else(form)?;
    let (quota, rest) = rest.split_once('/').ok_or_else(form)?;
    let (window, burst) = match rest.split_once(':') {
        Some((window, burst)) => (window, Some(burst)),
        None => (rest, None),
    };
    let window_seconds = match unit_seconds(window) {
        Some(seconds) => seconds,
        None => span(window).map_err(|_| form())?.as_secs(),
    };
    let policy = Policy {
        name: name.to_owned(),
        quota: quota.parse().map_err(|_| form())?,
        window_seconds,
        burst: burst.map(str::parse).transpose().map_err(|_| form())?,
    };
    match policy.problems().first() {
        None => Ok(policy),
        Some(problem) => Err(problem.to_string()),
    }
}

/// A JSON object.
pub fn metadata(text: &str) -> Result<Map<String, Value>, String> {
    serde_json::from_str(text)
        .map_err(|_| "write a JSON object, such as '{\"team\": \"billing\"}'".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn spans_have_units() {
        for (text, seconds) in [
            ("0", 0),
            ("0d", 0),
            ("45s", 45),
            ("30m", 1800),
            ("24h", 86_400),
            ("90d", 90 * 86_400),
            ("2w", 14 * 86_400),
        ] {
            assert_eq!(span(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for text in [
            "",
            "d",
            "5",
            "-1d",
            "1.5h",
            "1 h",
            "1y",
            "1D",
            "+1d",
            "99999999999999999999d",
            "36526d",
            "1h30m",
            "١h",
        ] {
            assert!(span(text).is_err(), "{text}");
        }
    }

    #[test]
    fn moments_are_times_or_distances() {
        let now = Timestamp::parse("2027-01-31T12:00:00Z").unwrap();
        let at = |text| Timestamp::parse(text).unwrap();
        assert_eq!(
            moment("1h").unwrap().before(now),
            at("2027-01-31T11:00:00Z")
        );
        assert_eq!(moment("1h").unwrap().after(now), at("2027-01-31T13:00:00Z"));
        for text in [
            "2026-05-01",
            "2026-05-01T00:00:00Z",
            "2026-05-01T02:00:00+02:00",
        ] {
            assert_eq!(
                moment(text).unwrap().before(now),
                at("2026-05-01T00:00:00Z"),
                "{text}"
            );
        }
        assert_eq!(
            moment("36525d").unwrap().before(now),
            at("1970-01-01T00:00:00Z")
        );
        for text in ["yesterday", "2026-13-01", "", "12:00"] {
            assert!(moment(text).is_err(), "{text}");
        }
    }

    #[test]
    fn rate_limits_are_short() {
        let policy = |name: &str, quota, window_seconds, burst| Policy {
            name: name.to_owned(),
            quota,
            window_seconds,
            burst,
        };
        for (text, expected) in [
            ("day:10000/1d", policy("day", 10_000, 86_400, None)),
            ("peak:10/s:20", policy("peak", 10, 1, Some(20))),
            ("a.b-c:600/60s:100", policy("a.b-c", 600, 60, Some(100))),
        ] {
            assert_eq!(rate_limit(text), Ok(expected), "{text}");
        }
        for text in [
            "",
            "day",
            "day:10",
            "10/1d",
            ":10/1d",
            "day:0/1d",
            "day:10/0",
            "day:10/1d:0",
            "day:10/1d:x",
            "day:x/1d",
            "a b:1/1s",
            "day:10/1d:1:1",
            "day:-1/1s",
        ] {
            assert!(rate_limit(text).is_err(), "{text}");
        }
    }

    #[test]
    fn metadata_is_an_object() {
        assert_eq!(metadata("{\"a\": 1}").unwrap()["a"], 1);
        for text in ["", "[]", "1", "{a: 1}"] {
            assert!(metadata(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in ".{0,40}") {
            let _ = (span(&text), moment(&text), rate_limit(&text), metadata(&text));
        }
    }
}
