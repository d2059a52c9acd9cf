//! Finds what a crash left between the two stores, and takes it away.
//!
//! A pass looks at every key. A hash that nothing needs is removed if it is still not needed
//! `secrets.leftover_age_seconds` later: whoever makes a key writes its hash before its row, and
//! gives up where more than half of that time has passed in between ([`crate::manage::keys`]). What
//! was removed and turns out to be needed all the same (a row was written late by a process that had
//! stood still) is put back, by both sides: each looks again after its own write, so one of them sees
//! the other's. A generation is never used twice, so a removal that arrives late removes nothing else.
//!
//! Every step can be done twice, so several instances may do this at once. Failure: where a store
//! does not answer, a pass ends and removes nothing more. Must never remove a hash that a row names,
//! nor take a store that has lost its rows for one whose hashes are too many.

mod compare;
mod look;

use std::sync::Arc;
use std::time::Duration;

use crate::config::settings::ReconcileSettings;
use crate::key::Generation;
use crate::secrets::{Holder, SecretError, StoredHash};
use crate::telemetry::Metrics;

pub use compare::{Comparison, Reason, compare};
pub use look::{FINDINGS_MAX, Finding, Overview, Pair, ReconcileError};

/// The first pass begins at some moment within this time after the start.
const FIRST_LOOK_MAX: Duration = Duration::from_secs(30);
/// The time between two reads of a pass.
pub const PACE: Duration = Duration::from_millis(5);
/// Where left-overs are more than `secrets.reconcile_max_removals`, and of more than this share of
/// the keys, they are no crash's.
const SUSPICIOUS_PERCENT: usize = 10;
/// Keys that can't work are named in the log up to this many times a pass.
const NAMED_MAX: usize = 20;

/// Looks for left-overs, for ever.
pub struct Reconciler {
    pub pair: Pair,
    pub metrics: Arc<Metrics>,
    pub settings: ReconcileSettings,
}

/// A random part of `time`, so that instances don't look in step.
fn part_of(time: Duration) -> Duration {
    time.mul_f64(fastrand::f64())
}

/// Whether so many left-overs look like lost rows.
fn is_suspicious(with_leftovers: usize, holders: usize, max_removals: usize) -> bool {
    with_leftovers > max_removals
        && with_leftovers.saturating_mul(100) > holders.saturating_mul(SUSPICIOUS_PERCENT)
}

impl Reconciler {
    /// A pass soon after the start, then one every `secrets.reconcile_interval_seconds`.
    pub async fn run(self) {
        let Some(interval) = self.settings.interval else {
            return;
        };
        tokio::time::sleep(part_of(interval.min(FIRST_LOOK_MAX))).await;
        loop {
            let result = self.pass().await;
            self.metrics.reconcile_runs.inc();
            if let Err(error) = result {
                self.metrics.reconcile_errors.inc();
                tracing::warn!(%error, "the stores could not be compared; the next pass tries again");
            }
            tokio::time::sleep(interval.mul_f64(0.9) + part_of(interval / 5)).await;
        }
    }

    /// Looks at everything, and removes what is left over.
    pub async fn pass(&self) -> Result<(), ReconcileError> {
        let seen = self.pair.look().await?;
        self.report(&seen);
        let is_held_back = self.is_held_back(&seen);
        let held_back = if is_held_back { seen.with_leftovers } else { 0 };
        let held_back = i64::try_from(held_back).unwrap_or(i64::MAX);
        self.metrics.reconcile_held_back.set(held_back);
        if is_held_back || seen.with_leftovers == 0 {
            return Ok(());
        }
        tokio::time::sleep(self.settings.leftover_age).await;
        for finding in &seen.findings {
            if let Finding::Leftovers {
                holder,
                generations,
            } = finding
            {
                self.settle(holder, generations).await?;
            }
        }
        Ok(())
    }

    fn report(&self, seen: &Overview) {
        let lacking = i64::try_from(seen.lacking).unwrap_or(i64::MAX);
        self.metrics.reconcile_broken_keys.set(lacking);
        let broken = seen.findings.iter();
        let broken = broken.filter(|finding| !matches!(finding, Finding::Leftovers { .. }));
        for finding in broken.take(NAMED_MAX) {
            match finding {
                Finding::Leftovers { .. } => {}
                Finding::LacksHash { holder, .. } => {
                    tracing::error!(key_id = %holder.key, "the key has no hash, so it can't work; regenerate or revoke it");
                }
                Finding::Unreadable { key } => {
                    tracing::error!(key_id = %key, "what is stored of the key can't be read");
                }
            }
        }
    }

    /// Whether nothing may be removed because too much would be.
    fn is_held_back(&self, seen: &Overview) -> bool {
        if seen.with_leftovers == 0 {
            return false;
        }
        if seen.rows == 0 {
            tracing::error!(
                keys = seen.with_leftovers,
                "the database has no keys and the secret store has hashes; nothing is removed: check store.url, or restore the database"
            );
            return true;
        }
        if is_suspicious(
            seen.with_leftovers,
            seen.holders,
            self.settings.max_removals,
        ) {
            tracing::error!(
                keys = seen.with_leftovers,
                of = seen.holders,
                "too many keys have hashes that nothing needs; nothing is removed: if rows were lost, restore them; if they are gone for good, raise secrets.reconcile_max_removals for one pass"
            );
            return true;
        }
        false
    }

    /// Removes those of `generations`, left over some time ago, that still are.
    async fn settle(
        &self,
        holder: &Holder,
        generations: &[(Generation, Reason)],
    ) -> Result<(), ReconcileError> {
        let Some(seen) = self.pair.examine_readable(holder).await? else {
            return Ok(());
        };
        let (due, reasons): (Vec<Generation>, Vec<Reason>) =
            seen.still_left(generations).into_iter().unzip();
        let Some(reason) = reasons.first() else {
            return Ok(());
        };
        let secrets = &self.pair.secrets;
        secrets
            .remove_hashes(&holder.tenant, holder.key, &due)
            .await?;
        for generation in &due {
            self.metrics.reconcile_leftovers.inc();
            tracing::info!(
                key_id = %holder.key,
                tenant = %holder.tenant,
                generation = generation.0,
                reason = reason.as_str(),
                "removed a hash that nothing needs"
            );
        }
        let removed = seen.hashes.into_iter();
        let removed = removed.filter(|hash| due.contains(&hash.generation));
        self.put_back(holder, removed.collect()).await
    }

    /// Puts back what a row names after all.
    async fn put_back(
        &self,
        holder: &Holder,
        removed: Vec<StoredHash>,
    ) -> Result<(), ReconcileError> {
        let Some(row) = self.pair.claim(holder.key).await? else {
            return Ok(());
        };
        let now = self.pair.clock.now();
        for hash in removed {
            if row.tenant_id != holder.tenant || !row.names(hash.generation, now) {
                continue;
            }
            tracing::warn!(key_id = %holder.key, generation = hash.generation.0, "a row came late: its hash is put back");
            let secrets = &self.pair.secrets;
            match secrets.add_hash(&holder.tenant, holder.key, &hash).await {
                Ok(()) | Err(SecretError::Conflict) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
