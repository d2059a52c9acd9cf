//! One pass: which keys there is something to do for, and what of it is ours to do. Each reminder is claimed
//! here before anything is done about it, and a pass has limits, so that no number of keys keeps it busy for
//! long.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::attempt::addressee;
use super::kept::ADDRESS_REST;
use super::schedule::{Rotation, Step};
use super::send::{Mailer, Session};
use super::{Reminders, micros};
use crate::clock::Timestamp;
use crate::key::tenant::TenantStanding;
use crate::key::{KeyRecord, Status, TenantId, TenantRecord};
use crate::store::StoreError;
use crate::store::reminders::{Claimed, Left, REMINDERS_MAX, Remindable, ReminderClaim};
use crate::telemetry::reminders::ReminderResult;

/// For how long a claim keeps others away: much longer than any mail takes, and than clocks differ.
const CLAIM_LASTS: Duration = Duration::from_secs(600);
/// Pages of keys that one pass looks at.
const PAGES_MAX: usize = 20;
/// Mails that one pass sends.
const MAILS_A_PASS_MAX: usize = 200;
/// When a pass ends with the mail that is on its way. What it goes by is no older than that.
const PASS_LASTS_MAX: Duration = Duration::from_secs(300);
/// How soon a key is looked at again for which nothing can be said.
const REST: Duration = Duration::from_secs(24 * 3600);

/// What one pass did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Passed {
    pub sent: usize,
    pub failed: usize,
    pub given_up: usize,
    pub no_address: usize,
    pub logged: usize,
}

impl Passed {
    fn tried(&self) -> usize {
        self.sent + self.failed + self.given_up + self.logged
    }
}

/// Whether a pass goes on after a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Then {
    GoOn,
    Stop,
}

/// One pass on its way.
pub(super) struct Pass<'r> {
    pub(super) now: Timestamp,
    pub(super) session: Option<Session<'r>>,
    /// Those that were read already, for this page of keys.
    pub(super) tenants: HashMap<TenantId, Option<TenantRecord>>,
    pub(super) passed: Passed,
}

/// A key with what is to be sent.
pub(super) struct Due<'a> {
    pub(super) key: &'a KeyRecord,
    pub(super) step: Step,
    pub(super) tenant: Option<TenantRecord>,
}

/// A claim that holds.
pub(super) struct Held {
    pub(super) token: String,
    /// Which attempt it is, from 1.
    pub(super) attempt: u32,
}

impl Reminders {
    /// Sends what is due, up to some limits.
    pub async fn pass(&self) -> Result<Passed, StoreError> {
        self.write_unwritten().await?;
        if self.is_paused() {
            return Ok(Passed::default());
        }
        let mut pass = Pass {
            now: self.parts.clock.now(),
            session: self.parts.mailer.as_ref().map(Mailer::session),
            tenants: HashMap::new(),
            passed: Passed::default(),
        };
        let done = self.go_through(&mut pass).await;
        if let Some(session) = pass.session.take() {
            session.close().await;
        }
        if pass.passed.no_address > 0 {
            tracing::info!(
                keys = pass.passed.no_address,
                "keys are due for rotation, and neither they nor their tenants have a contact_email"
            );
        }
        done.map(|()| pass.passed)
    }

    async fn go_through(&self, pass: &mut Pass<'_>) -> Result<(), StoreError> {
        let end_us = self.parts.clock.monotonic_us() + micros(PASS_LASTS_MAX);
        for _ in 0..PAGES_MAX {
            pass.now = self.parts.clock.now();
            // Somebody may have been suspended meanwhile.
            pass.tenants.clear();
            let page = self.parts.store.remindable(pass.now).await?;
            let is_last = page.len() < REMINDERS_MAX;
            for remindable in &page {
                let is_over = self.parts.clock.monotonic_us() >= end_us;
                if is_over || self.is_ending.load(Ordering::Relaxed) {
                    return Ok(());
                }
                // Mails take their time: the key may have expired, or have got its next reminder.
                pass.now = self.parts.clock.now();
                if self.look_at(pass, remindable).await? == Then::Stop {
                    return Ok(());
                }
            }
            if is_last {
                return Ok(());
            }
        }
        Ok(())
    }

    async fn look_at(
        &self,
        pass: &mut Pass<'_>,
        remindable: &Remindable,
    ) -> Result<Then, StoreError> {
        let key = &remindable.key;
        let rotation = Rotation::of(key);
        let next = rotation.next(pass.now).map(|step| step.at);
        let next = next.unwrap_or_else(|| pass.now.plus(REST));
        let tenant = self.tenant(pass, &key.tenant_id).await?;
        let is_suspended = tenant
            .as_ref()
            .is_some_and(|tenant| tenant.standing == TenantStanding::Suspended);
        let step = rotation.latest(pass.now).filter(|step| {
            let last = remindable.last;
            last.is_none_or(|last| {
                last.step_at < step.at || (last.step_at == step.at && !last.is_done)
            })
        });
        let Some(step) = step.filter(|_| key.status(pass.now) == Status::Active && !is_suspended)
        else {
            // What may be resumed, or get more time, without a change of the key is looked at again soon.
            let until = next.min(pass.now.plus(REST));
            self.parts.store.rest(key, pass.now, until).await?;
            return Ok(Then::GoOn);
        };
        let due = Due { key, step, tenant };
        let is_noted = remindable.last.is_some_and(|last| last.step_at == step.at);
        if is_noted && self.parts.mailer.is_some() && addressee(&due).is_none() {
            // Counted already; a contact may still come.
            let until = next.min(pass.now.plus(REST));
            self.parts.store.rest(key, pass.now, until).await?;
            return Ok(Then::GoOn);
        }
        self.remind(pass, &due, next).await
    }

    async fn tenant(
        &self,
        pass: &mut Pass<'_>,
        id: &TenantId,
    ) -> Result<Option<TenantRecord>, StoreError> {
        if let Some(known) = pass.tenants.get(id) {
            return Ok(known.clone());
        }
        let tenant = match self.parts.tenants.tenant(id).await {
            Err(StoreError::DamagedTenant { .. }) => None,
            read => read?,
        };
        pass.tenants.insert(id.clone(), tenant.clone());
        Ok(tenant)
    }

    async fn remind(
        &self,
        pass: &mut Pass<'_>,
        due: &Due<'_>,
        next: Timestamp,
    ) -> Result<Then, StoreError> {
        let addressee = addressee(due);
        let is_mail = self.parts.mailer.is_some();
        if let (true, Some(to)) = (is_mail, &addressee)
            && self.has_enough(&to.address, pass.now)
        {
            // Behind all others, so that it stands before nobody.
            let until = next.min(pass.now.plus(ADDRESS_REST));
            self.parts.store.rest(due.key, pass.now, until).await?;
            return Ok(Then::GoOn);
        }
        let counts = !is_mail || addressee.is_some();
        if counts && pass.passed.tried() >= MAILS_A_PASS_MAX {
            return Ok(Then::Stop);
        }
        let token = crate::problem::new_request_id();
        let token = token.to_str().unwrap_or_default();
        let claim = ReminderClaim {
            key: due.key,
            step_at: due.step.at,
            token,
            now: pass.now,
            until: self.parts.clock.now().plus(CLAIM_LASTS),
            hourly_max: counts.then_some(self.parts.settings.hourly_max),
        };
        let held = match self.parts.store.claim_reminder(&claim).await? {
            Claimed::Gone => return Ok(Then::GoOn),
            Claimed::HourIsFull => return Ok(Then::Stop),
            Claimed::Attempt(attempt) => Held {
                token: token.to_owned(),
                attempt,
            },
        };
        match (is_mail, addressee) {
            (false, _) => self.log(pass, due, &held, next).await,
            (true, None) => {
                pass.passed.no_address += 1;
                let again = next.min(pass.now.plus(REST));
                let mut end = self.ended(due, &held, ReminderResult::NoAddress, again, None);
                end.left = Left::Untried;
                self.end(end).await?;
                Ok(Then::GoOn)
            }
            (true, Some(addressee)) => self.mail(pass, due, &held, addressee, next).await,
        }
    }
}
