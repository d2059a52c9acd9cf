//! Rate limits and lengths of time as people say them.

use std::time::Duration;

use crate::admin::dashboard::chart::text::count;
use crate::key::Policy;

const SECONDS: [(u64, &str); 4] = [
    (86_400, "day"),
    (3_600, "hour"),
    (60, "minute"),
    (1, "second"),
];

/// `600 a minute, bursts of 100`
pub fn limit(policy: &Policy) -> String {
    let quota = count(policy.quota);
    let rate = format!("{quota} {}", every(policy.window_seconds));
    match policy.burst() {
        burst if burst == policy.quota => rate,
        burst => format!("{rate}, bursts of {}", count(burst)),
    }
}

/// `a minute`, `every 10 seconds`, `an hour`
fn every(seconds: u64) -> String {
    let whole = SECONDS
        .iter()
        .find(|(length, _)| seconds.is_multiple_of(*length));
    let (length, name) = whole.copied().unwrap_or((1, "second"));
    match seconds / length {
        1 if name == "hour" => "an hour".to_owned(),
        1 => format!("a {name}"),
        several => format!("every {} {name}s", count(several)),
    }
}

/// `1 day`, `90 days`
pub fn days(days: u32) -> String {
    match days {
        1 => "1 day".to_owned(),
        days => format!("{} days", count(days.into())),
    }
}

/// `detail` as a sentence of its own.
pub fn sentence(detail: &str) -> String {
    let mut characters = detail.chars();
    let first = characters.next().map(char::to_uppercase);
    let mut text: String = first.into_iter().flatten().chain(characters).collect();
    if !text.ends_with(['.', '!', '?']) {
        text.push('.');
    }
    text
}

/// `10 minutes`, `90 seconds`
pub fn period(length: Duration) -> String {
    let seconds = length.as_secs();
    let whole = SECONDS
        .iter()
        .find(|(length, _)| seconds >= *length && seconds.is_multiple_of(*length));
    let (length, name) = whole.copied().unwrap_or((1, "second"));
    match seconds / length {
        1 => format!("1 {name}"),
        several => format!("{} {name}s", count(several)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_said_as_people_say_them() {
        for (quota, seconds, burst, words) in [
            (600, 60, Some(100), "600 a minute, bursts of 100"),
            (600, 60, None, "600 a minute"),
            (600, 60, Some(600), "600 a minute"),
            (5, 1, Some(20), "5 a second, bursts of 20"),
            (1_000_000, 86_400, None, "1,000,000 a day"),
            (1, 3_600, None, "1 an hour"),
            (10, 10, None, "10 every 10 seconds"),
            (10, 90, None, "10 every 90 seconds"),
            (10, 7_200, None, "10 every 2 hours"),
        ] {
            let policy = Policy {
                name: "x".to_owned(),
                quota,
                window_seconds: seconds,
                burst,
            };
            assert_eq!(limit(&policy), words);
        }
        assert_eq!(days(1), "1 day");
        assert_eq!(days(90), "90 days");
        for (seconds, words) in [
            (0, "0 seconds"),
            (90, "90 seconds"),
            (600, "10 minutes"),
            (3600, "1 hour"),
        ] {
            assert_eq!(period(Duration::from_secs(seconds)), words);
        }
    }
}
