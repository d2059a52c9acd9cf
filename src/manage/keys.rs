//! What can be done with keys, and in which order it is written.
//!
//! The order makes every crash harmless: a new hash is written before the row that names it, so a
//! key that was acknowledged always works; a revoked row is written before its hashes go, so an
//! acknowledged revocation always holds. What a crash can leave behind is a hash that no row
//! names, and such a hash opens nothing; [`crate::reconcile`] finds and removes it. It takes what was
//! not named for a while for left over, so a row that comes late is not written; and one that comes
//! late all the same gets its hash again.

use std::sync::Arc;
use std::time::Duration;

use secrecy::SecretString;
use tokio::sync::Semaphore;
use zeroize::Zeroizing;

use super::expected::Expected;
use super::fields::{KeyChange, NewKey, apply, note_of_change, note_of_new, record_of};
use super::unnamed::Unnamed;
use crate::audit::{Action, Note, Origin};
use crate::clock::SharedClock;
use crate::cluster::Announcer;
use crate::key::hash::{HashError, SecretHash};
use crate::key::mint::MintedKey;
use crate::key::record::{PreviousSecret, Standing};
use crate::key::{
    Catalogue, CredentialKind, Environment, Generation, KeyId, KeyRecord, MintKeys, Prefix,
};
use crate::secrets::{SecretError, SecretStore};
use crate::store::{
    AnswerStore, ImportStore, KeyFilter, KeyOrder, KeyStore, Page, PageFrom, StoreError,
};
use crate::verify::{BcryptPool, Imports, LiveKeys};

/// How often an operation is tried again when somebody else changed the same thing meanwhile.
pub(super) const CONFLICT_RETRIES_MAX: usize = 5;

/// Why an operation was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    #[error("there is no such key")]
    NotFound,
    #[error("{0}")]
    Conflict(&'static str),
    #[error("the tenant may have {0} keys, and has them")]
    TooManyKeys(u64),
    /// The same idempotency key came with another body.
    #[error("the idempotency key was used for another request")]
    IdempotencyKeyReused,
    /// It is no longer what the caller means.
    #[error("the key is not as it was expected")]
    NotAsExpected,
    /// A store is away, or too many hashes wait.
    #[error("{0}")]
    Unavailable(String),
}

impl From<StoreError> for KeyError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Conflict => {
                KeyError::Conflict("the key was changed by somebody else at the same time")
            }
            StoreError::TooManyKeys { max } => KeyError::TooManyKeys(max),
            other => KeyError::Unavailable(other.to_string()),
        }
    }
}

impl From<SecretError> for KeyError {
    fn from(error: SecretError) -> Self {
        match error {
            SecretError::Conflict => {
                KeyError::Conflict("the key was changed by somebody else at the same time")
            }
            other => KeyError::Unavailable(other.to_string()),
        }
    }
}

impl From<HashError> for KeyError {
    fn from(error: HashError) -> Self {
        KeyError::Unavailable(error.to_string())
    }
}

const REVOKED: KeyError = KeyError::Conflict("the key is revoked, for good");

/// A record and the key that was made for it, to be shown once.
pub struct IssuedKey {
    pub record: KeyRecord,
    pub text: SecretString,
}

/// Carries key operations out.
pub struct KeyService {
    pub store: Arc<dyn KeyStore>,
    pub import_store: Arc<dyn ImportStore>,
    pub imports: Arc<Imports>,
    /// What is answered again to repeated calls.
    pub answers: Arc<dyn AnswerStore>,
    pub secrets: Arc<dyn SecretStore>,
    pub live: Arc<LiveKeys>,
    pub pool: Arc<BcryptPool>,
    pub mint_keys: MintKeys,
    pub prefix: Prefix,
    pub catalogue: Catalogue,
    pub bcrypt_cost: u32,
    /// How many new keys may be hashed at the same time: the bcrypt queue is for checks, and a
    /// flood of creations must not fill it.
    pub hashing: Semaphore,
    /// How long a hash that no row names is left alone.
    pub leftover_age: Duration,
    /// Tells the other instances.
    pub announcer: Announcer,
    pub clock: SharedClock,
}

/// New keys that may be hashed at the same time.
pub const HASHING_MAX: usize = 1;

impl KeyService {
    /// Mints and stores a key.
    pub async fn create(&self, new: NewKey, origin: &Origin) -> Result<IssuedKey, KeyError> {
        let minted = self.mint(new.environment, None)?;
        let (issued, unnamed) = self.prepare(new, minted).await?;
        self.check_in_time(&unnamed)?;
        let note = note_of_new(&issued.record, origin);
        if let Err(error) = self.store.insert(&issued.record, &note).await {
            return Err(self.not_stored(&issued.record, error).await);
        }
        self.live.apply(issued.record.clone());
        self.keep(&issued.record, &unnamed).await?;
        self.announcer.announce();
        Ok(issued)
    }

    /// Stores the first key of all, which was minted before. [`KeyError::Conflict`] where another
    /// instance was first.
    pub async fn create_first(
        &self,
        new: NewKey,
        minted: MintedKey,
    ) -> Result<IssuedKey, KeyError> {
        let (issued, unnamed) = self.prepare(new, minted).await?;
        self.check_in_time(&unnamed)?;
        let record = &issued.record;
        let note = note_of_new(record, &Origin::system());
        if let Err(error) = self.store.insert_first(record, &note).await {
            if matches!(error, StoreError::Conflict) {
                let generations = [record.generation];
                let secrets = &self.secrets;
                let removed = secrets.remove_hashes(&record.tenant_id, record.id, &generations);
                if let Err(error) = removed.await {
                    // It opens nothing: no row names it.
                    tracing::warn!(%error, "the hash of a key that was not stored stays behind");
                }
            }
            return Err(error.into());
        }
        self.keep(record, &unnamed).await?;
        Ok(issued)
    }

    pub(super) fn unnamed(&self, hash: SecretHash, generation: Generation) -> Unnamed {
        Unnamed::new(hash, generation, &*self.clock)
    }

    fn is_late(&self, unnamed: &Unnamed) -> bool {
        unnamed.is_late(self.leftover_age, &*self.clock)
    }

    /// To be asked before the row is written.
    pub(super) fn check_in_time(&self, unnamed: &Unnamed) -> Result<(), KeyError> {
        if self.is_late(unnamed) {
            let detail = "writing the new secret took too long; try again";
            return Err(KeyError::Unavailable(detail.to_owned()));
        }
        Ok(())
    }

    /// Makes sure that a row which was written late has its hash.
    pub(super) async fn keep(&self, record: &KeyRecord, unnamed: &Unnamed) -> Result<(), KeyError> {
        if !self.is_late(unnamed) {
            return Ok(());
        }
        let secrets = &self.secrets;
        match secrets
            .add_hash(&record.tenant_id, record.id, &unnamed.hash)
            .await
        {
            Ok(()) => {
                tracing::warn!(key_id = %record.id, "a row was written late: its hash is put back");
                Ok(())
            }
            Err(SecretError::Conflict) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Writes the hash of a new key, before the row that names it.
    pub(super) async fn prepare(
        &self,
        new: NewKey,
        minted: MintedKey,
    ) -> Result<(IssuedKey, Unnamed), KeyError> {
        let now = self.clock.now();
        let hash = self.hash(&minted).await?;
        let unnamed = self.unnamed(hash, Generation::FIRST);
        self.secrets
            .add_hash(&new.tenant_id, minted.id, &unnamed.hash)
            .await?;
        let record = record_of(new, minted.id, minted.hint, now);
        let issued = IssuedKey {
            record,
            text: minted.text,
        };
        Ok((issued, unnamed))
    }

    /// Mints a key, with a new id or for an old one.
    pub fn mint(&self, environment: Environment, id: Option<KeyId>) -> Result<MintedKey, KeyError> {
        match id {
            None => self.mint_keys.mint(&self.prefix, environment),
            Some(id) => self.mint_keys.mint_again(&self.prefix, environment, id),
        }
        .map_err(|error| KeyError::Unavailable(error.to_string()))
    }

    async fn hash(&self, minted: &MintedKey) -> Result<SecretHash, KeyError> {
        self.hash_secret(minted.secret()).await
    }

    /// Hashes in turn with all who make keys.
    pub(super) async fn hash_secret(
        &self,
        secret: Zeroizing<String>,
    ) -> Result<SecretHash, KeyError> {
        let cost = self.bcrypt_cost;
        let _turn = self
            .hashing
            .acquire()
            .await
            .map_err(|error| KeyError::Unavailable(error.to_string()))?;
        let hash = self
            .pool
            .run(move |pause| SecretHash::create(&secret, cost, pause))
            .await
            .map_err(|full| KeyError::Unavailable(full.to_string()))?;
        Ok(hash?)
    }

    /// The key of that id.
    pub async fn get(&self, id: KeyId) -> Result<KeyRecord, KeyError> {
        self.store.get(id).await?.ok_or(KeyError::NotFound)
    }

    /// A page of at most `limit` keys in this order, from that place.
    pub async fn page(
        &self,
        filter: &KeyFilter,
        order: KeyOrder,
        from: &PageFrom,
        limit: usize,
    ) -> Result<Page, KeyError> {
        Ok(self.store.page(filter, order, from, limit).await?)
    }

    /// Changes a key that is not revoked, and that still has the scopes of `authorised`.
    pub async fn change(
        &self,
        authorised: &KeyRecord,
        expected: &Expected,
        change: &KeyChange,
        origin: &Origin,
    ) -> Result<KeyRecord, KeyError> {
        self.write(authorised, expected, Action::KeyChanged, origin, |record| {
            if record.standing == Standing::Revoked {
                return Err(REVOKED);
            }
            apply(record, change);
            Ok(true)
        })
        .await
    }

    /// Revokes a key for good. Revoking a revoked key changes nothing.
    pub async fn revoke(
        &self,
        authorised: &KeyRecord,
        expected: &Expected,
        origin: &Origin,
    ) -> Result<KeyRecord, KeyError> {
        let now = self.clock.now();
        let record = self
            .write(authorised, expected, Action::KeyRevoked, origin, |record| {
                if record.standing == Standing::Revoked {
                    return Ok(false);
                }
                record.standing = Standing::Revoked;
                record.revoked_at = Some(now);
                record.previous = None;
                Ok(true)
            })
            .await?;
        // The row alone makes the revocation hold; a hash that stays opens nothing.
        self.remove_hashes_where(&record, |_| true).await;
        Ok(record)
    }

    /// Ends the grace period of a replaced secret now. Where there is none, nothing changes.
    pub async fn end_overlap(
        &self,
        authorised: &KeyRecord,
        origin: &Origin,
    ) -> Result<KeyRecord, KeyError> {
        let (any, action) = (Expected::Any, Action::KeyOverlapEnded);
        let record = self
            .write(authorised, &any, action, origin, |record| {
                Ok(record.previous.take().is_some())
            })
            .await?;
        // Those before the current one: somebody may be adding the next.
        let current = record.generation;
        self.remove_hashes_where(&record, |generation| generation < current)
            .await;
        Ok(record)
    }

    /// Makes a new secret for a key that is as `authorised`; the old one works for `grace` more.
    pub async fn regenerate(
        &self,
        authorised: &KeyRecord,
        expected: &Expected,
        grace: Duration,
        origin: &Origin,
    ) -> Result<IssuedKey, KeyError> {
        if !expected.admits(authorised.revision) {
            return Err(KeyError::NotAsExpected);
        }
        if authorised.standing == Standing::Revoked {
            return Err(REVOKED);
        }
        let minted = self.mint(authorised.environment, Some(authorised.id))?;
        let hash = self.hash(&minted).await?;
        let unnamed = self.add_hash(authorised, hash).await?;
        let generation = unnamed.hash.generation;
        let now = self.clock.now();
        let old = authorised.generation;
        let mut record = authorised.clone();
        record.generation = generation;
        record.previous = (!grace.is_zero()).then(|| PreviousSecret {
            generation: old,
            valid_until: now.plus(grace),
        });
        record.hint = minted.hint;
        record.credential = CredentialKind::Key;
        record.secret_created_at = now;
        record.updated_at = now;
        record.revision += 1;
        self.check_in_time(&unnamed)?;
        let mut note = note_of_change(Action::KeyRegenerated, authorised, &record, origin);
        note.details
            .insert("grace_period_seconds".to_owned(), grace.as_secs().into());
        if let Err(error) = self.save(&record, &note).await {
            if !matches!(error, KeyError::Conflict(_)) {
                return Err(error);
            }
            self.remove_hashes(&record, &[generation]).await;
            return Err(match expected {
                Expected::Any => error,
                Expected::OneOf(_) => KeyError::NotAsExpected,
            });
        }
        self.keep(&record, &unnamed).await?;
        let mut superseded: Vec<Generation> = authorised
            .previous
            .iter()
            .map(|previous| previous.generation)
            .collect();
        if grace.is_zero() {
            superseded.push(old);
        }
        self.remove_hashes(&record, &superseded).await;
        Ok(IssuedKey {
            record,
            text: minted.text,
        })
    }

    /// Adds `hash` under a generation that is free. One may be taken by somebody who regenerates
    /// the key at the same time, or by a crash before the row was written.
    async fn add_hash(&self, record: &KeyRecord, hash: SecretHash) -> Result<Unnamed, KeyError> {
        let generation = record.generation.new_after(self.clock.now());
        let mut unnamed = self.unnamed(hash, generation);
        for _ in 0..CONFLICT_RETRIES_MAX {
            match self
                .secrets
                .add_hash(&record.tenant_id, record.id, &unnamed.hash)
                .await
            {
                Ok(()) => return Ok(unnamed),
                Err(SecretError::Conflict) => {
                    let taken = self.secrets.hashes(&record.tenant_id, record.id).await?;
                    let newest = taken.iter().map(|hash| hash.generation).max();
                    let newest = newest.unwrap_or(generation);
                    unnamed = self.unnamed(unnamed.hash.hash, newest.next());
                }
                Err(error) => return Err(error.into()),
            }
        }
        Err(SecretError::Conflict.into())
    }

    /// What it means that a new key was not stored. The hash of one that its tenant may not have goes;
    /// after other failures the row may be there all the same, or come late.
    pub(super) async fn not_stored(&self, record: &KeyRecord, error: StoreError) -> KeyError {
        if let StoreError::TooManyKeys { .. } = error {
            self.remove_hashes(record, &[record.generation]).await;
        }
        error.into()
    }

    /// Removes hashes that no row names. One that stays opens nothing.
    pub(super) async fn remove_hashes(&self, record: &KeyRecord, generations: &[Generation]) {
        let removed = self
            .secrets
            .remove_hashes(&record.tenant_id, record.id, generations)
            .await;
        if let Err(error) = removed {
            tracing::warn!(key_id = %record.id, %error, "the hash of a replaced secret stays");
        }
    }

    /// Removes the hashes of those generations for which `is_over` holds.
    async fn remove_hashes_where(&self, record: &KeyRecord, is_over: impl Fn(Generation) -> bool) {
        match self.secrets.hashes(&record.tenant_id, record.id).await {
            Ok(hashes) => {
                let all = hashes.iter().map(|hash| hash.generation);
                let over: Vec<Generation> = all.filter(|generation| is_over(*generation)).collect();
                if !over.is_empty() {
                    self.remove_hashes(record, &over).await;
                }
            }
            Err(error) => {
                tracing::warn!(key_id = %record.id, %error, "hashes that are over stay");
            }
        }
    }

    /// Reads, edits and writes a record until nobody else writes in between. `edit` says whether
    /// there is anything to write. Where the key's scopes are no longer those of `authorised`,
    /// whoever was allowed to do this may no longer be; where it is no longer `expected`, somebody's
    /// edit would be lost.
    async fn write(
        &self,
        authorised: &KeyRecord,
        expected: &Expected,
        action: Action,
        origin: &Origin,
        edit: impl Fn(&mut KeyRecord) -> Result<bool, KeyError>,
    ) -> Result<KeyRecord, KeyError> {
        for _ in 0..CONFLICT_RETRIES_MAX {
            let mut record = self.get(authorised.id).await?;
            if !expected.admits(record.revision) {
                return Err(KeyError::NotAsExpected);
            }
            if record.scopes != authorised.scopes {
                break;
            }
            let before = record.clone();
            if !edit(&mut record)? || record == before {
                // What an earlier, interrupted call wrote may not have been announced.
                self.live.apply(record.clone());
                return Ok(record);
            }
            record.updated_at = self.clock.now();
            record.revision += 1;
            let note = note_of_change(action, &before, &record, origin);
            match self.save(&record, &note).await {
                Ok(()) => return Ok(record),
                Err(KeyError::Conflict(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Err(StoreError::Conflict.into())
    }

    /// Writes a record and makes it the current one. After a failure that leaves open whether it
    /// was written, what is stored becomes the current one.
    async fn save(&self, record: &KeyRecord, note: &Note) -> Result<(), KeyError> {
        match self.store.update(record, note).await {
            Ok(()) => {
                self.live.apply(record.clone());
                self.announcer.announce();
                Ok(())
            }
            Err(StoreError::Conflict) => Err(StoreError::Conflict.into()),
            Err(error) => {
                if let Ok(Some(stored)) = self.store.get(record.id).await {
                    self.live.apply(stored);
                }
                self.announcer.announce();
                Err(error.into())
            }
        }
    }
}
