//! Moments as pages show them and as fields of forms have them: UTC, which a script turns into the viewer's
//! zone.

use std::time::Duration;

use crate::clock::Timestamp;

/// What happens within this time happens soon.
pub const SOON: Duration = Duration::from_secs(14 * 86_400);

/// A moment, for programs and for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Moment {
    /// RFC 3339.
    pub exact: String,
    /// To the second, in UTC.
    pub text: String,
}

impl From<Timestamp> for Moment {
    fn from(at: Timestamp) -> Self {
        let exact = at.to_string();
        let to_second = exact.get(..19).unwrap_or(&exact).replace('T', " ");
        Moment {
            exact,
            text: format!("{to_second} UTC"),
        }
    }
}

/// What a `datetime-local` field shows of a moment: UTC, to the second at most.
pub fn to_field(at: Timestamp) -> String {
    let text = at.to_string();
    let (minutes, seconds) = (text.get(..16), text.get(..19));
    match seconds {
        Some(seconds) if !seconds.ends_with(":00") => seconds.to_owned(),
        _ => minutes.unwrap_or_default().to_owned(),
    }
}

/// The moment that a `datetime-local` field means, in UTC.
pub fn from_field(text: &str) -> Option<Timestamp> {
    let colons = text.bytes().filter(|byte| *byte == b':').count();
    let seconds = if colons == 1 { ":00" } else { "" };
    Timestamp::parse(&format!("{text}{seconds}Z")).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_field_shows_is_what_it_means() {
        for (text, exact) in [
            ("2027-01-31T12:00", "2027-01-31T12:00:00Z"),
            ("2027-01-31T12:00:09", "2027-01-31T12:00:09Z"),
        ] {
            let at = from_field(text).unwrap();
            assert_eq!(at.to_string(), exact);
            assert_eq!(to_field(at), text);
        }
        let with_millis = Timestamp::parse("2027-01-31T12:00:00.789Z").unwrap();
        assert_eq!(to_field(with_millis), "2027-01-31T12:00");
        for text in [
            "",
            "2027-01-31",
            "12:00",
            "2027-02-30T12:00",
            "2027-01-31T12:00+01",
        ] {
            assert_eq!(from_field(text), None, "{text}");
        }
    }
}
