//! Key hashes and the mint key: what a [`SecretStore`] can do, Vault, and its embedded twin.
//!
//! Nothing else in the crate may keep a hash or a mint key.

pub mod embedded;
pub mod mint;
pub mod moving;
pub mod vault;

use std::sync::Arc;

use async_trait::async_trait;

use crate::clock::SharedClock;
use crate::config::settings::SecretsSettings;
use crate::key::hash::SecretHash;
use crate::key::{Generation, KeyId, MintKeys, TenantId};
use crate::store::{Guard, Guarded, KeyStore, SqlStore};
use crate::telemetry::Metrics;

pub use embedded::EmbeddedSecrets;
pub use vault::VaultSecrets;

/// Keys whose hashes may be in Vault before the database has its first key: a first start that crashes
/// leaves one.
const FIRST_STARTS_MAX: usize = 10;

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
    /// What is looked for lies somewhere else.
    #[error("{0}")]
    Misplaced(&'static str),
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

/// Opens the secret store that the configuration names, on an opened key store. Refuses to go on where
/// the two don't belong together. Without the mint keys of the keys that are there, a new mint key would
/// make each of them a forged one; without the rows of the hashes that are there, each hash would be a
/// left-over one.
pub async fn open(
    settings: &SecretsSettings,
    store: &SqlStore,
    guard: Arc<Guard>,
    clock: SharedClock,
    metrics: Arc<Metrics>,
) -> Result<Arc<dyn SecretStore>, SecretError> {
    let embedded = EmbeddedSecrets::new(store.pools().clone(), clock.clone());
    // Asked before the mint key, which comes before any row: another instance may be making both.
    let has_rows = has_keys(store).await?;
    match settings {
        SecretsSettings::Embedded => {
            if has_rows && embedded.mint_material().await?.is_empty() {
                return Err(SecretError::Misplaced(
                    "the database has keys, but no mint key: were the hashes moved to Vault? Then set secrets.backend to \"vault\"; otherwise restore the database",
                ));
            }
            Ok(Arc::new(Guarded::new(embedded, guard)))
        }
        SecretsSettings::Vault(settings) => {
            let vault = VaultSecrets::open(settings.clone(), clock, metrics).await?;
            if has_rows && vault.mint_material().await?.is_empty() {
                return Err(SecretError::Misplaced(
                    "the database has keys, but Vault has no mint key: run `sidekey secrets move`, or restore Vault's mint_keys from a backup",
                ));
            }
            if !has_rows {
                refuse_lost_rows(store, &vault).await?;
            }
            Ok(Arc::new(vault))
        }
    }
}

/// The mint keys of the secret store that the configuration names, without making any; `None` where there
/// are none.
pub async fn known_mint_keys(
    settings: &SecretsSettings,
    store: &SqlStore,
    clock: SharedClock,
    metrics: Arc<Metrics>,
) -> Result<Option<MintKeys>, SecretError> {
    let material = match settings {
        SecretsSettings::Embedded => {
            let embedded = EmbeddedSecrets::new(store.pools().clone(), clock);
            embedded.mint_material().await?
        }
        SecretsSettings::Vault(settings) => {
            let vault = VaultSecrets::open(settings.clone(), clock, metrics).await?;
            vault.mint_material().await?
        }
    };
    Ok(mint::ready(&material))
}

/// Refuses a database without keys beside a Vault with the hashes of some.
async fn refuse_lost_rows(store: &SqlStore, vault: &VaultSecrets) -> Result<(), SecretError> {
    let has_too_many = vault.holders().await?.len() > FIRST_STARTS_MAX;
    // Asked again: another instance may have made keys meanwhile.
    if has_too_many && !has_keys(store).await? {
        return Err(SecretError::Misplaced(
            "Vault has hashes of keys that the database does not have: check store.url, or restore the database; if those keys are gone for good, delete api_keys in Vault",
        ));
    }
    Ok(())
}

async fn has_keys(store: &SqlStore) -> Result<bool, SecretError> {
    let is_empty = store.is_empty().await;
    let is_empty = is_empty.map_err(|error| SecretError::Unavailable(error.to_string()))?;
    Ok(!is_empty)
}
