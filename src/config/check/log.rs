//! `[log]`.

use std::collections::BTreeMap;

use tracing::Level;

use super::Checker;
use crate::config::raw;
use crate::config::settings::*;
use crate::telemetry::Outcome;
use crate::telemetry::access::PerOutcome;

/// In `log.sample` and `log.levels`: every outcome that is not named.
const DEFAULT: &str = "default";
const LEVELS: [(&str, Level); 4] = [
    ("error", Level::ERROR),
    ("warn", Level::WARN),
    ("info", Level::INFO),
    ("debug", Level::DEBUG),
];

impl Checker<'_> {
    pub(super) fn log(&mut self, raw: &raw::Log) -> Option<LogSettings> {
        let level = self.choice("log.level", &raw.level, &LEVELS);
        let format = self.choice(
            "log.format",
            &raw.format,
            &[
                ("auto", LogFormat::Auto),
                ("json", LogFormat::Json),
                ("text", LogFormat::Text),
            ],
        );
        let access = self.choice(
            "log.access",
            &raw.access,
            &[
                ("refused", AccessLog::Refused),
                ("all", AccessLog::All),
                ("off", AccessLog::Off),
            ],
        );
        let shares = self.by_outcome("log.sample", &raw.sample, 1.0, |c, path, share| {
            c.share(path, *share)
        });
        let levels = self.by_outcome("log.levels", &raw.levels, Level::INFO, |c, path, level| {
            c.choice(path, level, &LEVELS)
        });
        Some(LogSettings {
            level: level?,
            format: format?,
            access: access?,
            shares,
            levels,
        })
    }

    /// A table whose names are outcomes, or `default`. What is wrong is reported and left out.
    fn by_outcome<R, T: Copy>(
        &mut self,
        path: &str,
        raw: &BTreeMap<String, R>,
        default: T,
        mut check: impl FnMut(&mut Self, &str, &R) -> Option<T>,
    ) -> PerOutcome<T> {
        let mut named: Vec<(Outcome, T)> = Vec::new();
        let mut rest = default;
        for (word, value) in raw {
            let path = format!("{path}.{word}");
            let value = check(self, &path, value);
            match (Outcome::from_word(word), value) {
                (Some(outcome), Some(value)) => named.push((outcome, value)),
                (None, Some(value)) if word == DEFAULT => rest = value,
                (None, _) if word != DEFAULT => self.report(path, no_such_outcome()),
                _ => {}
            }
        }
        let mut values = PerOutcome::all(rest);
        for (outcome, value) in named {
            values.set(outcome, value);
        }
        values
    }

    /// A number from 0 to 1.
    pub(super) fn share(&mut self, path: &str, share: raw::Share) -> Option<f64> {
        let is_share = (0.0..=1.0).contains(&share.0);
        if !is_share {
            self.report(path, format!("is {}; it must be 0 to 1", share.0));
        }
        is_share.then_some(share.0)
    }
}

fn no_such_outcome() -> String {
    let words: Vec<&str> = Outcome::ALL.iter().map(|o| o.as_str()).collect();
    format!("is no outcome; there are {DEFAULT}, {}", words.join(", "))
}
