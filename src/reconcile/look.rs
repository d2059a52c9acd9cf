//! Looks at every key in both stores, a page of rows at a time. Changes nothing.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::compare::{Comparison, Reason, compare};
use crate::clock::SharedClock;
use crate::key::record::Standing;
use crate::key::{Generation, KeyId, TenantId};
use crate::secrets::{Holder, SecretError, SecretStore, StoredHash};
use crate::store::{Claim, KeyStore, StoreError};

/// What is wrong is remembered up to this many times; the rest is counted, and found again by a
/// later look.
pub const FINDINGS_MAX: usize = 10_000;
/// How often one key is read again because its row changed meanwhile.
const READS_MAX: usize = 5;

/// Why a look or a removal did not come to its end.
#[derive(Debug, thiserror::Error)]
pub enum ReconcileError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Secrets(#[from] SecretError),
}

impl ReconcileError {
    /// Whether this concerns one key alone.
    fn is_damage(&self) -> bool {
        matches!(
            self,
            ReconcileError::Store(StoreError::Damaged { .. })
                | ReconcileError::Secrets(SecretError::Damaged(_))
        )
    }
}

/// Something that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
    /// Hashes of a key that nothing needs.
    Leftovers {
        holder: Holder,
        generations: Vec<(Generation, Reason)>,
    },
    /// A key that is not revoked lacks the hash of its current secret.
    LacksHash {
        holder: Holder,
        generation: Generation,
    },
    /// What one of the stores has of a key can't be read.
    Unreadable { key: String },
}

/// What a look has found.
#[derive(Debug, Default)]
pub struct Overview {
    pub rows: usize,
    pub holders: usize,
    /// Keys with left-over hashes.
    pub with_leftovers: usize,
    /// Keys that can't work.
    pub lacking: usize,
    /// At most [`FINDINGS_MAX`].
    pub findings: Vec<Finding>,
    /// Findings that there was no room for.
    pub omitted: usize,
}

impl Overview {
    fn add(&mut self, finding: Finding) {
        if self.findings.len() < FINDINGS_MAX {
            self.findings.push(finding);
        } else {
            self.omitted += 1;
        }
    }

    /// Whether the stores agree.
    pub fn is_sound(&self) -> bool {
        self.findings.is_empty()
    }
}

impl Seen {
    /// Those of `earlier` that are still left over.
    pub fn still_left(&self, earlier: &[(Generation, Reason)]) -> Vec<(Generation, Reason)> {
        let mut left = self.comparison.leftovers.clone();
        left.retain(|(generation, _)| earlier.iter().any(|(before, _)| before == generation));
        left
    }
}

/// Both stores, to be compared.
pub struct Pair {
    pub store: Arc<dyn KeyStore>,
    pub secrets: Arc<dyn SecretStore>,
    pub clock: SharedClock,
    /// The time between two reads, so that a look is no load. Zero: none.
    pub pace: Duration,
}

/// One key, as both stores had it at the same time.
pub struct Seen {
    pub comparison: Comparison,
    pub hashes: Vec<StoredHash>,
}

impl Pair {
    async fn wait(&self) {
        if !self.pace.is_zero() {
            tokio::time::sleep(self.pace).await;
        }
    }

    /// What the row of `key` names, if there is a row.
    pub async fn claim(&self, key: KeyId) -> Result<Option<Claim>, StoreError> {
        let record = self.store.get(key).await?;
        Ok(record.as_ref().map(Claim::from))
    }

    /// Compares one key. The row is the same before and after its hashes were read, so what is
    /// reported is not a change that was under way; except that a new hash comes before the row
    /// that names it. `None` where the row changes all the time.
    pub async fn examine(&self, holder: &Holder) -> Result<Option<Seen>, ReconcileError> {
        let mut row = self.claim(holder.key).await?;
        for _ in 0..READS_MAX {
            self.wait().await;
            let hashes = self.secrets.hashes(&holder.tenant, holder.key).await?;
            let again = self.claim(holder.key).await?;
            if again == row {
                let comparison = self.compare(holder, row.as_ref(), &hashes);
                return Ok(Some(Seen { comparison, hashes }));
            }
            row = again;
        }
        Ok(None)
    }

    /// As [`Pair::examine`]; `None` also where something is damaged.
    pub async fn examine_readable(&self, holder: &Holder) -> Result<Option<Seen>, ReconcileError> {
        match self.examine(holder).await {
            Err(error) if error.is_damage() => Ok(None),
            other => other,
        }
    }

    fn compare(&self, holder: &Holder, row: Option<&Claim>, hashes: &[StoredHash]) -> Comparison {
        let stored: Vec<Generation> = hashes.iter().map(|hash| hash.generation).collect();
        compare(&holder.tenant, row, &stored, self.clock.now())
    }

    /// Looks at every key.
    pub async fn look(&self) -> Result<Overview, ReconcileError> {
        // Before the rows: whoever is here and gets no row is made right now, or left over.
        let mut holders = Holders::new(self.secrets.holders().await?);
        let mut overview = Overview {
            holders: holders.count,
            ..Overview::default()
        };
        let mut after = None;
        loop {
            self.wait().await;
            let page = self.store.claims(after).await?;
            overview.rows += page.claims.len() + page.damaged.len();
            for key in page.damaged {
                overview.add(Finding::Unreadable { key });
            }
            for row in &page.claims {
                self.look_at_row(row, holders.take(row), &mut overview)
                    .await?;
            }
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        for holder in holders.rest() {
            self.confirm(&holder, &mut overview).await?;
        }
        Ok(overview)
    }

    /// What of `seen` is still wrong. What was not found then is not looked for.
    pub async fn look_again(&self, seen: Overview) -> Result<Overview, ReconcileError> {
        let mut still = Overview {
            findings: Vec::new(),
            ..seen
        };
        for finding in seen.findings {
            match finding {
                Finding::Unreadable { .. } => still.add(finding),
                Finding::LacksHash { holder, generation } => {
                    let now = self.examine_readable(&holder).await?;
                    if now.is_some_and(|now| now.comparison.lacks == Some(generation)) {
                        still.add(Finding::LacksHash { holder, generation });
                    } else {
                        still.lacking -= 1;
                    }
                }
                Finding::Leftovers {
                    holder,
                    generations,
                } => {
                    let now = self.examine_readable(&holder).await?;
                    let generations = now.map_or_else(Vec::new, |now| now.still_left(&generations));
                    if generations.is_empty() {
                        still.with_leftovers -= 1;
                    } else {
                        still.add(Finding::Leftovers {
                            holder,
                            generations,
                        });
                    }
                }
            }
        }
        Ok(still)
    }

    async fn look_at_row(
        &self,
        row: &Claim,
        has_hashes: bool,
        overview: &mut Overview,
    ) -> Result<(), ReconcileError> {
        let holder = Holder {
            tenant: row.tenant_id.clone(),
            key: row.id,
        };
        if !has_hashes {
            return match row.standing {
                Standing::Revoked => Ok(()),
                Standing::Active | Standing::Disabled => self.confirm(&holder, overview).await,
            };
        }
        self.wait().await;
        let is_sound = match self.secrets.hashes(&holder.tenant, holder.key).await {
            Ok(hashes) => self.compare(&holder, Some(row), &hashes).is_sound(),
            Err(SecretError::Damaged(_)) => false,
            Err(error) => return Err(error.into()),
        };
        if is_sound {
            return Ok(());
        }
        self.confirm(&holder, overview).await
    }

    /// Notes what is wrong with a key that looked wrong, if it still does.
    async fn confirm(
        &self,
        holder: &Holder,
        overview: &mut Overview,
    ) -> Result<(), ReconcileError> {
        let comparison = match self.examine(holder).await {
            Ok(Some(seen)) => seen.comparison,
            Ok(None) => return Ok(()),
            Err(error) if error.is_damage() => {
                let key = holder.key.to_string();
                let finding = Finding::Unreadable { key };
                if !overview.findings.contains(&finding) {
                    overview.add(finding);
                }
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        if let Some(generation) = comparison.lacks {
            overview.lacking += 1;
            let holder = holder.clone();
            overview.add(Finding::LacksHash { holder, generation });
        }
        if !comparison.leftovers.is_empty() {
            overview.with_leftovers += 1;
            overview.add(Finding::Leftovers {
                holder: holder.clone(),
                generations: comparison.leftovers,
            });
        }
        Ok(())
    }
}

/// The keys that have hashes, and for which no row has been seen.
struct Holders {
    count: usize,
    /// Nearly always one tenant a key.
    by_key: HashMap<KeyId, Vec<TenantId>>,
}

impl Holders {
    fn new(all: Vec<Holder>) -> Self {
        let mut holders = Holders {
            count: all.len(),
            by_key: HashMap::with_capacity(all.len()),
        };
        for holder in all {
            let tenants = holders.by_key.entry(holder.key).or_default();
            tenants.push(holder.tenant);
        }
        holders
    }

    /// Takes out the holder that a row belongs to; whether there was one.
    fn take(&mut self, row: &Claim) -> bool {
        let Some(tenants) = self.by_key.get_mut(&row.id) else {
            return false;
        };
        let before = tenants.len();
        tenants.retain(|tenant| *tenant != row.tenant_id);
        let had = tenants.len() < before;
        if tenants.is_empty() {
            self.by_key.remove(&row.id);
        }
        had
    }

    fn rest(self) -> impl Iterator<Item = Holder> {
        self.by_key.into_iter().flat_map(|(key, tenants)| {
            let holders = tenants.into_iter();
            holders.map(move |tenant| Holder { tenant, key })
        })
    }
}
