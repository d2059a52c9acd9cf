//! Who is told that a key's secret should be replaced, and how often.
//!
//! [`schedule`] says which reminder is due, [`mail`] what it says, [`send`] brings it to the mail server, and
//! here is what is done about it. All instances look; each reminder is claimed in the database before it is
//! sent, so one of them sends it.
//!
//! A reminder is sent **at least once**. Where a process ends between the mail and the note of it, the claim
//! runs out and the mail comes a second time, with the same Message-ID, by which many programs show it once.
//! A mail too many does little harm; a key that nobody was told of is what all this is against.

pub mod mail;
pub mod schedule;
pub mod send;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::{Map, Value};
use tokio::sync::watch;

use crate::audit::{Action, Note};
use crate::clock::{SharedClock, Timestamp};
use crate::config::settings::ReminderSettings;
use crate::key::tenant::TenantStanding;
use crate::key::{KeyRecord, Status, TenantId, TenantRecord};
use crate::store::reminders::{ClaimEnd, Claimed, REMINDERS_MAX, Remindable, ReminderClaim};
use crate::store::{ReminderStore, StoreError, TenantStore};
use crate::telemetry::Metrics;
use crate::telemetry::reminders::ReminderResult;
use mail::{About, Contact, Letterhead};
use schedule::{Rotation, Step};
use send::{Mailer, Session, Undelivered};

/// For how long a claim keeps others away: much longer than any mail takes, and than clocks differ.
const CLAIM_LASTS: Duration = Duration::from_secs(600);
/// How long after each failure of a mail it is tried again. After the last one it is given up, within a day:
/// the next reminder is on its way.
const RETRY_AFTER: [Duration; 7] = [
    Duration::from_secs(60),
    Duration::from_secs(5 * 60),
    Duration::from_secs(15 * 60),
    Duration::from_secs(3600),
    Duration::from_secs(2 * 3600),
    Duration::from_secs(4 * 3600),
    Duration::from_secs(8 * 3600),
];
/// Pages of keys that one pass looks at.
const PAGES_MAX: usize = 20;
/// Mails that one pass sends.
const MAILS_A_PASS_MAX: usize = 200;
/// How long nothing is sent after the mail server has failed, and by how much longer each time, up to this.
const PAUSE: Duration = Duration::from_secs(60);
const PAUSE_MAX: Duration = Duration::from_secs(15 * 60);
/// How soon a key is looked at again for which nothing can be said.
const REST: Duration = Duration::from_secs(24 * 3600);
/// Keys count as due soon within so long.
const SOON: Duration = Duration::from_secs(14 * 24 * 3600);
/// How often they are counted.
const COUNT_INTERVAL: Duration = Duration::from_secs(300);

/// What [`Reminders`] needs.
pub struct Parts {
    pub store: Arc<dyn ReminderStore>,
    pub tenants: Arc<dyn TenantStore>,
    /// `None`: reminders are only logged.
    pub mailer: Option<Mailer>,
    pub settings: ReminderSettings,
    /// Where a key's page is, but for its id; `None` where nobody knows how people reach the dashboard.
    pub pages: Option<String>,
    pub clock: SharedClock,
    pub metrics: Arc<Metrics>,
}

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

/// The mail server fails: nothing is sent until then.
#[derive(Debug, Default)]
struct Pause {
    until_us: u64,
    failures: u32,
}

/// Sends reminders.
pub struct Reminders {
    parts: Parts,
    pause: Mutex<Pause>,
    /// What came of mails, where it could not be written down yet. No more than one pass leaves.
    unwritten: Mutex<Vec<ClaimEnd>>,
    /// A pass ends with the mail that is on its way.
    is_ending: AtomicBool,
}

/// Whether a pass goes on after a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Then {
    GoOn,
    Stop,
}

/// One pass on its way.
struct Pass<'r> {
    now: Timestamp,
    session: Option<Session<'r>>,
    /// Those that were read already.
    tenants: HashMap<TenantId, Option<TenantRecord>>,
    passed: Passed,
}

/// To whom a reminder goes.
struct Addressee {
    address: String,
    contact: Contact,
}

/// A key with what is to be sent.
struct Due<'a> {
    key: &'a KeyRecord,
    step: Step,
    tenant: Option<TenantRecord>,
}

/// A claim that holds.
struct Held {
    token: String,
    /// Which attempt it is, from 1.
    attempt: u32,
}

impl Reminders {
    pub fn new(parts: Parts) -> Self {
        Reminders {
            parts,
            pause: Mutex::default(),
            unwritten: Mutex::default(),
            is_ending: AtomicBool::new(false),
        }
    }

    /// Looks again and again, until `stopping` says that it is over.
    pub async fn run(self, mut stopping: watch::Receiver<bool>) {
        let mut is_failing = false;
        let mut counted_us = None;
        loop {
            if self.is_time(&mut counted_us) {
                self.count().await;
            }
            if self.parts.settings.is_enabled {
                let passed = self.pass_until(&mut stopping).await;
                if let (Err(error), false) = (&passed, is_failing) {
                    tracing::warn!(%error, "reminders of rotation have to wait");
                }
                is_failing = passed.is_err();
            }
            // Whoever is gone stops nobody any more.
            let stopped = stopping.wait_for(|stop| *stop);
            tokio::select! {
                _ = stopped => return,
                () = tokio::time::sleep(self.parts.settings.interval) => {}
            }
        }
    }

    /// A pass that is short where the process ends.
    async fn pass_until(&self, stopping: &mut watch::Receiver<bool>) -> Result<Passed, StoreError> {
        let stopped = async {
            // Whoever is gone stops nobody any more.
            let _ = stopping.wait_for(|stop| *stop).await;
        };
        let mut pass = std::pin::pin!(self.pass());
        tokio::select! {
            passed = &mut pass => passed,
            () = stopped => {
                self.is_ending.store(true, Ordering::Relaxed);
                pass.await
            }
        }
    }

    fn is_time(&self, counted_us: &mut Option<u64>) -> bool {
        let now_us = self.parts.clock.monotonic_us();
        let interval_us = micros(COUNT_INTERVAL);
        let is_time = counted_us.is_none_or(|last| now_us.saturating_sub(last) >= interval_us);
        if is_time {
            *counted_us = Some(now_us);
        }
        is_time
    }

    /// Brings the gauges of keys that are due up to date.
    pub async fn count(&self) {
        let now = self.parts.clock.now();
        match self.parts.store.rotations(now, now.plus(SOON)).await {
            Ok(counts) => {
                self.parts.metrics.keys_rotation_overdue.set(counts.overdue);
                self.parts.metrics.keys_rotation_due.set(counts.soon);
            }
            Err(error) => {
                tracing::debug!(%error, "keys that are due for rotation can't be counted")
            }
        }
    }

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
        for _ in 0..PAGES_MAX {
            let page = self.parts.store.remindable(pass.now).await?;
            let is_last = page.len() < REMINDERS_MAX;
            for remindable in &page {
                if self.is_ending.load(Ordering::Relaxed) {
                    return Ok(());
                }
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
                let end = self.ended(due, &held, ReminderResult::NoAddress, next, None);
                self.end(end).await?;
                Ok(Then::GoOn)
            }
            (true, Some(addressee)) => self.mail(pass, due, &held, addressee, next).await,
        }
    }

    async fn log(
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

    async fn mail(
        &self,
        pass: &mut Pass<'_>,
        due: &Due<'_>,
        held: &Held,
        addressee: Addressee,
        next: Timestamp,
    ) -> Result<Then, StoreError> {
        let delivered = self.deliver(pass, due, &addressee).await;
        let is_last = usize::try_from(held.attempt).is_ok_and(|n| n > RETRY_AFTER.len());
        let mut then = Then::GoOn;
        match &delivered {
            Ok(()) => self.resume(),
            Err(Undelivered::Server(detail)) => {
                self.pause(detail);
                then = Then::Stop;
            }
            Err(_) => {}
        }
        let (result, reason, next) = match delivered {
            Ok(()) => (ReminderResult::Sent, None, next),
            Err(Undelivered::Refused(reason)) => (ReminderResult::GivenUp, Some(reason), next),
            Err(Undelivered::Later(reason) | Undelivered::Server(reason)) if is_last => {
                (ReminderResult::GivenUp, Some(reason), next)
            }
            Err(Undelivered::Later(reason) | Undelivered::Server(reason)) => {
                let again = self.parts.clock.now().plus(retry_after(held.attempt));
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
        let end = self.ended(due, held, result, next, note);
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
        let head = Letterhead {
            from: &mailer.settings().from,
            reply_to: mailer.settings().reply_to.as_ref(),
            to: to.clone(),
        };
        let mail = mail::compose(&about, &head).map_err(Undelivered::Refused)?;
        session.deliver(&to, &mail).await
    }

    /// What the log says of a mail.
    fn tell(&self, due: &Due<'_>, held: &Held, result: ReminderResult, reason: Option<&str>) {
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
    fn note(
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

    /// How the claim ends. Counts the result.
    fn ended(
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
            is_done: result != ReminderResult::Failed,
            next_at,
            note,
        }
    }

    /// Writes down what came of a claim, now or with the next pass: a mail that is gone must not go again
    /// because the database was away for a moment.
    async fn end(&self, end: ClaimEnd) -> Result<(), StoreError> {
        match self.parts.store.end_claim(&end).await {
            Ok(true) => Ok(()),
            Ok(false) => {
                tracing::warn!(key_id = %end.key_id, "a reminder of rotation took so long that another instance has begun it too");
                Ok(())
            }
            Err(error) => {
                self.unwritten.lock().push(end);
                Err(error)
            }
        }
    }

    async fn write_unwritten(&self) -> Result<(), StoreError> {
        let mut unwritten = std::mem::take(&mut *self.unwritten.lock());
        while let Some(end) = unwritten.pop() {
            if let Err(error) = self.end(end).await {
                self.unwritten.lock().append(&mut unwritten);
                return Err(error);
            }
        }
        Ok(())
    }

    fn is_paused(&self) -> bool {
        self.parts.clock.monotonic_us() < self.pause.lock().until_us
    }

    fn pause(&self, detail: &str) {
        let mut pause = self.pause.lock();
        let longer = PAUSE.saturating_mul(1 << pause.failures.min(16));
        let lasts = longer.min(PAUSE_MAX);
        pause.failures += 1;
        pause.until_us = self.parts.clock.monotonic_us() + micros(lasts);
        tracing::warn!(
            detail,
            pause_seconds = lasts.as_secs(),
            "the mail server takes no mail; reminders of rotation wait"
        );
    }

    fn resume(&self) {
        *self.pause.lock() = Pause::default();
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

fn retry_after(attempt: u32) -> Duration {
    let index = usize::try_from(attempt.saturating_sub(1)).unwrap_or(usize::MAX);
    RETRY_AFTER[index.min(RETRY_AFTER.len() - 1)]
}

/// The key's contact, or else its tenant's.
fn addressee(due: &Due<'_>) -> Option<Addressee> {
    let of_key = due.key.contact_email.clone();
    let of_tenant = || due.tenant.as_ref()?.settings.contact_email.clone();
    let (address, contact) = match of_key {
        Some(address) => (address, Contact::Key),
        None => (of_tenant()?, Contact::Tenant),
    };
    Some(Addressee { address, contact })
}
