//! Which requests get a line in the log, at which level, and of how many of them one is written.
//! Found by outcome, in what was computed when the configuration was loaded.

use prometheus::IntCounter;
use tracing::Level;

use super::outcome::{OUTCOMES, Outcome};
use crate::config::settings::{AccessLog, LogSettings};

/// One value for each outcome.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PerOutcome<T>([T; OUTCOMES]);

impl<T: Copy> PerOutcome<T> {
    /// The same value for all.
    pub fn all(value: T) -> Self {
        PerOutcome([value; OUTCOMES])
    }

    pub fn get(&self, outcome: Outcome) -> T {
        self.0[outcome as usize]
    }

    pub fn set(&mut self, outcome: Outcome, value: T) {
        self.0[outcome as usize] = value;
    }
}

/// How lines about requests of one outcome are written.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Line {
    pub level: Level,
    /// How many of them: more than 0, at most 1.
    pub share: f64,
}

impl Line {
    /// The share, for the line itself, where not every line is written.
    pub fn sampled(self) -> Option<f64> {
        (self.share < 1.0).then_some(self.share)
    }
}

/// What is said of lines, for each outcome.
#[derive(Debug, Clone, Copy)]
enum Rule {
    /// Not asked for: by `log.access`, or because `log.level` is above the line's.
    Unwanted,
    Wanted(Line),
}

/// The rules for all outcomes.
#[derive(Debug)]
pub struct AccessLines {
    rules: PerOutcome<Rule>,
    sampled_out: IntCounter,
}

impl AccessLines {
    pub fn new(settings: &LogSettings, sampled_out: IntCounter) -> Self {
        let mut rules = PerOutcome::all(Rule::Unwanted);
        for outcome in Outcome::ALL {
            let line = Line {
                level: settings.levels.get(outcome),
                share: settings.shares.get(outcome),
            };
            let is_asked_for = match settings.access {
                AccessLog::All => true,
                AccessLog::Refused => !matches!(outcome, Outcome::Forwarded | Outcome::SelfService),
                AccessLog::Off => false,
            };
            if is_asked_for && line.level <= settings.level {
                rules.set(outcome, Rule::Wanted(line));
            }
        }
        AccessLines { rules, sampled_out }
    }

    /// How to write the line about a request that ended with `outcome`, and would have been refused
    /// for `shadow`; `None` where none is to be written. Chance decides, not an id: ids may come from
    /// clients, and nobody who is refused may choose to go unseen.
    pub fn choose(&self, outcome: Outcome, shadow: Option<Outcome>) -> Option<Line> {
        let told = match outcome {
            Outcome::Forwarded | Outcome::SelfService => shadow.unwrap_or(outcome),
            _ => outcome,
        };
        let Rule::Wanted(line) = self.rules.get(told) else {
            return None;
        };
        if line.share >= 1.0 || fastrand::f64() < line.share {
            return Some(line);
        }
        self.sampled_out.inc();
        None
    }
}

/// Writes an event at a level that is known only when it is written.
macro_rules! event_at {
    ($level:expr, $($fields:tt)+) => {
        match $level {
            tracing::Level::ERROR => tracing::error!($($fields)+),
            tracing::Level::WARN => tracing::warn!($($fields)+),
            tracing::Level::INFO => tracing::info!($($fields)+),
            tracing::Level::DEBUG => tracing::debug!($($fields)+),
            tracing::Level::TRACE => tracing::trace!($($fields)+),
        }
    };
}

pub(crate) use event_at;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::settings::LogFormat;

    fn settings(access: AccessLog) -> LogSettings {
        LogSettings {
            level: Level::INFO,
            format: LogFormat::Json,
            access,
            shares: PerOutcome::all(1.0),
            levels: PerOutcome::all(Level::INFO),
        }
    }

    fn lines(settings: &LogSettings) -> AccessLines {
        AccessLines::new(settings, IntCounter::new("a", "b").unwrap())
    }

    #[test]
    fn who_gets_a_line() {
        use Outcome::{Forwarded, InvalidKey, SelfService, UpstreamFailed};
        for (access, outcome, shadow, is_written) in [
            (AccessLog::All, Forwarded, None, true),
            (AccessLog::Refused, Forwarded, None, false),
            (AccessLog::Refused, SelfService, None, false),
            (AccessLog::Refused, Forwarded, Some(InvalidKey), true),
            (AccessLog::Refused, InvalidKey, None, true),
            (AccessLog::Refused, UpstreamFailed, None, true),
            (AccessLog::Off, InvalidKey, None, false),
            (AccessLog::Off, Forwarded, Some(InvalidKey), false),
        ] {
            let lines = lines(&settings(access));
            let chosen = lines.choose(outcome, shadow);
            assert_eq!(chosen.is_some(), is_written, "{access:?} {outcome:?}");
            assert_eq!(lines.sampled_out.get(), 0);
        }
    }

    #[test]
    fn what_would_have_been_refused_is_told_as_a_refusal() {
        let mut settings = settings(AccessLog::Refused);
        settings.levels.set(Outcome::InvalidKey, Level::WARN);
        settings.levels.set(Outcome::UpstreamFailed, Level::ERROR);
        let lines = lines(&settings);
        let level = |outcome, shadow| lines.choose(outcome, shadow).unwrap().level;
        let shadow = Some(Outcome::InvalidKey);
        assert_eq!(level(Outcome::Forwarded, shadow), Level::WARN);
        // It failed, whatever would have been.
        assert_eq!(level(Outcome::UpstreamFailed, shadow), Level::ERROR);
    }

    #[test]
    fn a_level_below_that_of_the_log_is_not_written_and_not_counted() {
        let mut settings = settings(AccessLog::All);
        settings.levels.set(Outcome::Forwarded, Level::DEBUG);
        settings.shares = PerOutcome::all(0.0);
        let lines = lines(&settings);
        assert_eq!(lines.choose(Outcome::Forwarded, None), None);
        assert_eq!(lines.sampled_out.get(), 0);
        assert_eq!(lines.choose(Outcome::InvalidKey, None), None);
        assert_eq!(lines.sampled_out.get(), 1);
    }

    #[test]
    fn a_share_is_written_and_the_rest_is_counted() {
        const ASKED: u64 = 10_000;
        let mut settings = settings(AccessLog::All);
        settings.shares.set(Outcome::Forwarded, 0.1);
        let lines = lines(&settings);
        let written = (0..ASKED)
            .filter_map(|_| lines.choose(Outcome::Forwarded, None))
            .inspect(|line| assert_eq!(line.sampled(), Some(0.1)))
            .count() as u64;
        assert_eq!(written + lines.sampled_out.get(), ASKED);
        // 1000 expected; ten standard deviations either side.
        assert!((700..1300).contains(&written), "{written}");
        let line = lines.choose(Outcome::RateLimited, None).unwrap();
        assert_eq!(line.sampled(), None);
    }
}
