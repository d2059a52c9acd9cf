//! What is done about a reminder that is claimed: a mail to whoever answers for the key, or a line in the log
//! where there is no mail server. What has failed is tried again after longer and longer times, and not for
//! ever.

use std::time::Duration;

use super::Reminders;
use super::mail::{self, About, Contact};
use super::pass::{Due, Held, Pass, Then};
use super::send::Undelivered;
use crate::clock::Timestamp;
use crate::store::StoreError;
use crate::store::reminders::Left;
use crate::telemetry::reminders::ReminderResult;

/// How long after each failure of a mail it is tried again. After the last one it is given up, within a day:
/// the next reminder is on its way. Where the server takes no mail at all, that is no attempt: an outage, or a
/// wrong password, must not cost anybody a reminder.
const RETRY_AFTER: [Duration; 7] = [
    Duration::from_secs(60),
    Duration::from_secs(5 * 60),
    Duration::from_secs(15 * 60),
    Duration::from_secs(3600),
    Duration::from_secs(2 * 3600),
    Duration::from_secs(4 * 3600),
    Duration::from_secs(8 * 3600),
];

/// A mail of which nobody knows whether the server took it is sent so often at most.
const COPIES_MAX: u32 = 2;

/// To whom a reminder goes.
pub(super) struct Addressee {
    pub(super) address: String,
    pub(super) contact: Contact,
}

impl Reminders {
    pub(super) async fn log(
        &self,
        pass: &mut Pass<'_>,
        due: &Due<'_>,
        held: &Held,
        next: Timestamp,
    ) -> Result<Then, StoreError> {
        tracing::warn!(
            key_id = %due.key.id,
            tenant_id = %due.key.tenant_id,
            rotation_due_at = %due.key.rotation_due_at(),
            reminder = due.step.name(),
            "a key's secret should be replaced; nobody is told, because there is no mail server (smtp.host)"
        );
        pass.passed.logged += 1;
        let end = self.ended(due, held, ReminderResult::Logged, next, None);
        self.end(end).await?;
        Ok(Then::GoOn)
    }

    pub(super) async fn mail(
        &self,
        pass: &mut Pass<'_>,
        due: &Due<'_>,
        held: &Held,
        addressee: Addressee,
        next: Timestamp,
    ) -> Result<Then, StoreError> {
        self.count_mail(&addressee.address, pass.now);
        let delivered = self.deliver(pass, due, &addressee).await;
        let is_last = usize::try_from(held.attempt).is_ok_and(|n| n > RETRY_AFTER.len());
        let mut then = Then::GoOn;
        let is_untried = matches!(delivered, Err(Undelivered::Server(_)));
        match &delivered {
            Ok(()) => self.resume(),
            Err(Undelivered::Server(detail) | Undelivered::Unknown(detail)) => {
                self.pause(detail);
                then = Then::Stop;
            }
            Err(_) => {}
        }
        let (result, reason, next) = match delivered {
            Ok(()) => (ReminderResult::Sent, None, next),
            Err(Undelivered::Refused(reason)) => (ReminderResult::GivenUp, Some(reason), next),
            Err(Undelivered::Later(reason)) if is_last => {
                (ReminderResult::GivenUp, Some(reason), next)
            }
            Err(Undelivered::Unknown(reason)) if held.attempt >= COPIES_MAX => {
                let reason = format!("{reason}; it may have been taken");
                (ReminderResult::GivenUp, Some(reason), next)
            }
            Err(Undelivered::Later(reason) | Undelivered::Unknown(reason)) => {
                let again = self.parts.clock.now().plus(retry_after(held.attempt));
                (ReminderResult::Failed, Some(reason), again.min(next))
            }
            Err(Undelivered::Server(reason)) => {
                let again = self.parts.clock.now().plus(self.pause_left());
                (ReminderResult::Failed, Some(reason), again.min(next))
            }
        };
        self.tell(due, held, result, reason.as_deref());
        match result {
            ReminderResult::Sent => pass.passed.sent += 1,
            ReminderResult::GivenUp => pass.passed.given_up += 1,
            _ => pass.passed.failed += 1,
        }
        let note = self.note(due, held, result, &addressee, reason);
        let mut end = self.ended(due, held, result, next, note);
        if is_untried {
            end.left = Left::Untried;
        }
        self.end(end).await?;
        Ok(then)
    }

    async fn deliver(
        &self,
        pass: &mut Pass<'_>,
        due: &Due<'_>,
        addressee: &Addressee,
    ) -> Result<(), Undelivered> {
        let (Some(mailer), Some(session)) = (&self.parts.mailer, &mut pass.session) else {
            return Err(Undelivered::Server("there is no mail server".to_owned()));
        };
        let to: lettre::Address = addressee.address.parse().map_err(|_| {
            Undelivered::Refused(
                "the contact_email is not an address that mail can be sent to".to_owned(),
            )
        })?;
        let about = About {
            key: due.key,
            tenant: due.tenant.as_ref(),
            contact: addressee.contact,
            step_at: due.step.at,
            now: self.parts.clock.now(),
            link: self
                .parts
                .pages
                .as_ref()
                .map(|pages| format!("{pages}/{}", due.key.id)),
        };
        let head = mailer.letterhead(to.clone());
        let mail = mail::compose(&about, &head).map_err(Undelivered::Refused)?;
        session.deliver(&to, &mail).await
    }
}

fn retry_after(attempt: u32) -> Duration {
    let index = usize::try_from(attempt.saturating_sub(1)).unwrap_or(usize::MAX);
    RETRY_AFTER[index.min(RETRY_AFTER.len() - 1)]
}

/// The key's contact, or else its tenant's.
pub(super) fn addressee(due: &Due<'_>) -> Option<Addressee> {
    let of_key = due.key.contact_email.clone();
    let of_tenant = || due.tenant.as_ref()?.settings.contact_email.clone();
    let (address, contact) = match of_key {
        Some(address) => (address, Contact::Key),
        None => (of_tenant()?, Contact::Tenant),
    };
    Some(Addressee { address, contact })
}
