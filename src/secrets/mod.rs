//! Key hashes and the mint key: what a [`SecretStore`] can do, and its embedded twin.
//!
//! Nothing else in the crate may keep a hash or a mint key.

pub mod embedded;

use async_trait::async_trait;

use crate::key::hash::SecretHash;
use crate::key::{Generation, KeyId, MintKeys, TenantId};

pub use embedded::EmbeddedSecrets;

/// Why a secret store did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The store can't be reached, or did not answer in time.
    #[error("the secret store is not available: {0}")]
    Unavailable(String),
    /// That generation has a hash already.
    #[error("the key was changed by somebody else at the same time")]
    Conflict,
    /// A value that this version can't have written.
    #[error("the secret store holds a damaged value: {0}")]
    Damaged(&'static str),
}

/// The hash of one of a key's secrets.
#[derive(Debug, Clone)]
pub struct StoredHash {
    pub generation: Generation,
    pub hash: SecretHash,
}

/// A key that has hashes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Holder {
    pub tenant: TenantId,
    pub key: KeyId,
}

/// Where hashes live. Every write that returned is durable.
#[async_trait]
pub trait SecretStore: Send + Sync + 'static {
    /// The mint keys; the first call on an empty store makes one.
    async fn mint_keys(&self) -> Result<MintKeys, SecretError>;

    /// All hashes of a key, newest first.
    async fn hashes(&self, tenant: &TenantId, key: KeyId) -> Result<Vec<StoredHash>, SecretError>;

    /// Adds a hash. [`SecretError::Conflict`] where that generation has one.
    async fn add_hash(
        &self,
        tenant: &TenantId,
        key: KeyId,
        hash: &StoredHash,
    ) -> Result<(), SecretError>;

    /// Removes the hashes of these generations, and no other: somebody else may be adding one.
    async fn remove_hashes(
        &self,
        tenant: &TenantId,
        key: KeyId,
        generations: &[Generation],
    ) -> Result<(), SecretError>;

    /// Every key that has hashes, in no order. What lies there and is not ours is left out.
    async fn holders(&self) -> Result<Vec<Holder>, SecretError>;

    /// Whether the store answers.
    async fn ping(&self) -> Result<(), SecretError>;
}
