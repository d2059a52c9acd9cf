//! What came of reminders, in metrics.

use prometheus::IntCounter;

use super::Metrics;

/// What came of one reminder. The label `result`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReminderResult {
    Sent,
    /// It is tried again.
    Failed,
    GivenUp,
    /// Nobody is named who could be reminded.
    NoAddress,
    /// There is no mail server.
    Logged,
}

impl ReminderResult {
    pub const ALL: [ReminderResult; 5] = [
        ReminderResult::Sent,
        ReminderResult::Failed,
        ReminderResult::GivenUp,
        ReminderResult::NoAddress,
        ReminderResult::Logged,
    ];

    /// The label's value.
    pub fn as_str(self) -> &'static str {
        match self {
            ReminderResult::Sent => "sent",
            ReminderResult::Failed => "failed",
            ReminderResult::GivenUp => "given_up",
            ReminderResult::NoAddress => "no_address",
            ReminderResult::Logged => "logged",
        }
    }
}

impl Metrics {
    /// The counter of one result.
    pub fn reminders(&self, result: ReminderResult) -> IntCounter {
        self.reminders.with_label_values(&[result.as_str()])
    }

    /// Shows all results from the start: a rate needs a zero to begin with.
    pub(super) fn show_reminders(&self) {
        for result in ReminderResult::ALL {
            self.reminders(result);
        }
    }
}
