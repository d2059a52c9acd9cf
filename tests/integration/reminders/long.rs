//! A pass that takes long, because mails do.

use super::*;
use async_trait::async_trait;
use sidekey::store::reminders::{ClaimEnd, Claimed, Remindable, ReminderClaim, RotationCounts};

/// A store for which some minutes are gone after each mail.
struct Slow {
    inner: SqlStore,
    clock: Arc<ManualClock>,
}

#[async_trait]
impl ReminderStore for Slow {
    async fn remindable(&self, now: Timestamp) -> Result<Vec<Remindable>, StoreError> {
        self.inner.remindable(now).await
    }

    async fn claim_reminder(&self, claim: &ReminderClaim<'_>) -> Result<Claimed, StoreError> {
        self.inner.claim_reminder(claim).await
    }

    async fn end_claim(&self, end: &ClaimEnd) -> Result<bool, StoreError> {
        self.clock.advance(3 * MINUTE);
        self.inner.end_claim(end).await
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

#[tokio::test(flavor = "multi_thread")]
async fn a_long_pass_goes_by_the_time_and_ends() {
    let (world, smtp) = (World::new().await, Smtp::start("none"));
    for number in 1..=4 {
        let mut key = key(number);
        if number == 2 {
            key.expires_at = Some(day(76).plus(MINUTE));
        }
        world.add(&key).await;
    }
    let mut parts = world.parts(Some(mailer(&smtp.config())));
    parts.store = Arc::new(Slow {
        inner: world.store.clone(),
        clock: world.clock.clone(),
    });
    let instance = Reminders::new(parts);
    world.now_is(day(76));
    // The second has expired while the first was sent; and after five minutes there is an end.
    assert_eq!(instance.pass().await.unwrap(), sent(2));
    assert_eq!(instance.pass().await.unwrap(), sent(1));
    let to: Vec<_> = smtp.mails().into_iter().flat_map(|mail| mail.to).collect();
    assert_eq!(to, ["ops@1.example", "ops@3.example", "ops@4.example"]);
}
