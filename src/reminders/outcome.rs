//! What came of a reminder, as it is told: in the log, in the audit log, and by how its claim ends.

use serde_json::{Map, Value};

use super::Reminders;
use super::attempt::Addressee;
use super::pass::{Due, Held};
use crate::audit::{Action, Note};
use crate::clock::Timestamp;
use crate::store::reminders::{ClaimEnd, Left};
use crate::telemetry::reminders::ReminderResult;

impl Reminders {
    /// What the log says of a mail.
    pub(super) fn tell(
        &self,
        due: &Due<'_>,
        held: &Held,
        result: ReminderResult,
        reason: Option<&str>,
    ) {
        let (key_id, tenant_id) = (due.key.id, &due.key.tenant_id);
        let (reminder, attempt) = (due.step.name(), held.attempt);
        match result {
            ReminderResult::Sent => {
                tracing::info!(%key_id, %tenant_id, reminder, attempt, "a reminder of rotation was sent");
            }
            ReminderResult::GivenUp => {
                tracing::warn!(%key_id, %tenant_id, reminder, attempt, reason, "a reminder of rotation is given up");
            }
            _ => {
                tracing::warn!(%key_id, %tenant_id, reminder, attempt, reason, "a reminder of rotation was not sent; it is tried again");
            }
        }
    }

    /// The audit log's note of what came of a mail in the end.
    pub(super) fn note(
        &self,
        due: &Due<'_>,
        held: &Held,
        result: ReminderResult,
        addressee: &Addressee,
        reason: Option<String>,
    ) -> Option<Note> {
        let action = match result {
            ReminderResult::Sent => Action::KeyReminderSent,
            ReminderResult::GivenUp => Action::KeyReminderFailed,
            _ => return None,
        };
        let mut details: Map<String, Value> = Map::new();
        let mut detail = |name: &str, value: Value| details.insert(name.to_owned(), value);
        detail("reminder", due.step.name().into());
        detail(
            "rotation_due_at",
            due.key.rotation_due_at().to_string().into(),
        );
        detail("to", addressee.address.clone().into());
        detail("attempts", held.attempt.into());
        if let Some(reason) = reason {
            detail("reason", reason.into());
        }
        Some(Note {
            key_id: Some(due.key.id),
            tenant_id: Some(due.key.tenant_id.clone()),
            details,
            ..Note::by_system(action, self.parts.clock.now())
        })
    }

    /// How the claim ends. Counts the result. A mail that fails without an attempt says so afterwards.
    pub(super) fn ended(
        &self,
        due: &Due<'_>,
        held: &Held,
        result: ReminderResult,
        next_at: Timestamp,
        note: Option<Note>,
    ) -> ClaimEnd {
        self.parts.metrics.reminders(result).inc();
        ClaimEnd {
            key_id: due.key.id,
            token: held.token.clone(),
            left: match result {
                ReminderResult::Failed => Left::Again,
                _ => Left::Nothing,
            },
            next_at,
            note,
        }
    }
}
