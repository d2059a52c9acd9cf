//! A store in which something happens whenever a pass says what came of a mail.

use super::*;
use async_trait::async_trait;
use sidekey::store::reminders::{ClaimEnd, Claimed, Remindable, ReminderClaim, RotationCounts};

type Before = Box<dyn Fn() -> Result<(), StoreError> + Send + Sync>;

pub struct Disturbed {
    pub inner: SqlStore,
    /// A failure is all that the pass hears.
    pub before_end: Before,
    pub after_end: Box<dyn Fn() + Send + Sync>,
}

impl Disturbed {
    pub fn of(
        world: &World,
        before_end: impl Fn() -> Result<(), StoreError> + Send + Sync + 'static,
    ) -> Self {
        Disturbed {
            inner: world.store.clone(),
            before_end: Box::new(before_end),
            after_end: Box::new(|| {}),
        }
    }
}

#[async_trait]
impl ReminderStore for Disturbed {
    async fn remindable(&self, now: Timestamp) -> Result<Vec<Remindable>, StoreError> {
        self.inner.remindable(now).await
    }

    async fn claim_reminder(&self, claim: &ReminderClaim<'_>) -> Result<Claimed, StoreError> {
        self.inner.claim_reminder(claim).await
    }

    async fn end_claim(&self, end: &ClaimEnd) -> Result<bool, StoreError> {
        (self.before_end)()?;
        let ended = self.inner.end_claim(end).await;
        (self.after_end)();
        ended
    }

    async fn rest(
        &self,
        key: &KeyRecord,
        now: Timestamp,
        until: Timestamp,
    ) -> Result<(), StoreError> {
        self.inner.rest(key, now, until).await
    }

    async fn rotations(
        &self,
        now: Timestamp,
        soon: Timestamp,
    ) -> Result<RotationCounts, StoreError> {
        self.inner.rotations(now, soon).await
    }
}
