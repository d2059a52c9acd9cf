//! Hashes and mint keys in HashiCorp Vault or OpenBao (the same API), KV v2.
//!
//! `value` is what lies there, `link` makes the calls (limits on time, breaker, errors), `login` looks
//! after the token.
//!
//! Concurrency: every write names the version that it replaces (check-and-set) and is made again on
//! what is there now where somebody was faster, so instances never lose one another's hashes. Removing
//! the last hash first writes an empty value in the same way, and only then deletes the path: who adds
//! meanwhile sees the empty value and waits until it has gone. (A path's versions start again with it, so
//! a write that was read before and comes after would not be noticed; but the last hash only goes when
//! its key is revoked, and no hash of a revoked key matters any more.)
//!
//! Removal: Vault keeps old versions of a value, with hashes that were taken out. A path from which
//! a hash is removed keeps one version from then on, and a path that is empty goes with its history.
//!
//! Failure: a value that is not ours fails for its key alone ([`SecretError::Damaged`]), with a line
//! in the log that names the key.

mod link;
mod login;
mod value;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde_json::Value;
use vaultrs::api::kv2::requests::{
    ReadSecretRequest, SetSecretMetadataRequest, SetSecretRequestOptions,
};
use vaultrs::{api, kv2};

use self::link::{Failure, Link};
use self::value::{HASHES, Hashes, MINT_KEYS};
use super::mint::{self, MintMaterial};
use super::{Holder, SecretError, SecretStore, StoredHash};
use crate::clock::SharedClock;
use crate::config::settings::VaultSettings;
use crate::key::{Generation, KeyId, MintKeys, TenantId};
use crate::telemetry::Metrics;
use crate::telemetry::dependencies::VaultOperation;

/// How often a write is made again because somebody else was faster.
const RACES_MAX: usize = 20;
/// After so many of them a path that is still empty was left by somebody who crashed.
const EMPTY_RACES_MAX: usize = 10;
/// About how long to wait before that.
const RACE_PAUSE: Duration = Duration::from_millis(20);
/// Versions that a path keeps once a hash was removed from it.
const VERSIONS_KEPT: u64 = 1;

/// A value as it was read.
struct Found {
    value: Value,
    version: u32,
}

/// Hashes and mint keys in Vault.
#[derive(Clone)]
pub struct VaultSecrets {
    link: Arc<Link>,
}

impl VaultSecrets {
    /// Logs in, and looks after the token from then on, on the runtime where this is called.
    pub async fn open(
        settings: VaultSettings,
        clock: SharedClock,
        metrics: Arc<Metrics>,
    ) -> Result<Self, SecretError> {
        // Once a process; Pingora and the other clients use the same.
        pingora_core::tls::install_default_crypto_provider();
        let link = Arc::new(Link::new(settings, clock, metrics));
        link.guarded(VaultOperation::Login, link.log_in()).await?;
        tokio::spawn(link.clone().keep());
        Ok(VaultSecrets { link })
    }

    /// The mint keys as they are stored, newest first, and their version; none where there are none.
    async fn stored_mint_keys(&self) -> Result<(Vec<MintMaterial>, u32), SecretError> {
        let found = match self.read(MINT_KEYS).await {
            Ok(found) => found,
            Err(Failure::Missing) => return Ok((Vec::new(), 0)),
            Err(Failure::Deleted) => {
                tracing::error!(path = %self.shown(MINT_KEYS), "the mint keys were deleted; bring them back (kv undelete), or no key can be checked");
                return Err(SecretError::Damaged("the mint keys were deleted"));
            }
            Err(failure) => return Err(failure.into()),
        };
        match value::read_mint_keys(found.value) {
            Some(keys) => Ok((keys, found.version)),
            None => {
                tracing::error!(path = %self.shown(MINT_KEYS), "the mint keys in Vault are not as Sidekey wrote them; restore an earlier version (kv rollback)");
                Err(SecretError::Damaged("the mint keys"))
            }
        }
    }

    /// The mint keys as they are stored, newest first.
    pub async fn mint_material(&self) -> Result<Vec<MintMaterial>, SecretError> {
        Ok(self.stored_mint_keys().await?.0)
    }

    /// Writes the first mint keys. [`SecretError::Conflict`] where there are some.
    pub async fn put_first_mint_keys(&self, keys: &[MintMaterial]) -> Result<(), SecretError> {
        let written = self.write(MINT_KEYS, value::write_mint_keys(keys), 0).await;
        Ok(written?)
    }

    /// Puts a new mint key in front of the others; how many there are now.
    pub async fn rotate_mint_key(&self) -> Result<usize, SecretError> {
        for _ in 0..RACES_MAX {
            let (keys, version) = self.stored_mint_keys().await?;
            let keys = mint::rotated(&keys)?;
            let written = self.write(MINT_KEYS, value::write_mint_keys(&keys), version);
            match written.await {
                Ok(()) => return Ok(keys.len()),
                Err(Failure::Raced) => pause().await,
                Err(failure) => return Err(failure.into()),
            }
        }
        Err(SecretError::Conflict)
    }

    async fn read_or_make_mint_keys(&self) -> Result<MintKeys, SecretError> {
        for _ in 0..RACES_MAX {
            let stored = self.mint_material().await?;
            if let Some(ready) = mint::ready(&stored) {
                return Ok(ready);
            }
            // They are written before any hash is. A new one would make every key a forged one.
            if !self.list(HASHES).await?.is_empty() {
                tracing::error!(path = %self.shown(MINT_KEYS), "Vault has key hashes but no mint keys: restore them from a backup");
                return Err(SecretError::Damaged("hashes, but no mint keys"));
            }
            match self.put_first_mint_keys(&[MintMaterial::random()?]).await {
                // Only the first of all instances that start at once gets its key in.
                Ok(()) | Err(SecretError::Conflict) => {}
                Err(error) => return Err(error),
            }
        }
        Err(SecretError::Conflict)
    }

    /// The hashes at `path` with their version; `None` where nothing is.
    async fn find(&self, path: &str, key: KeyId) -> Result<Option<(Hashes, u32)>, Failure> {
        let found = match self.read(path).await {
            Ok(found) => found,
            Err(Failure::Missing) => return Ok(None),
            Err(failure) => return Err(failure),
        };
        match value::read_hashes(found.value) {
            Some(hashes) => Ok(Some((hashes, found.version))),
            None => {
                tracing::error!(key_id = %key, path = %self.shown(path), "the value of a key in Vault is not as Sidekey wrote it; restore an earlier version (kv rollback), or delete it with its history (kv metadata delete) and regenerate the key");
                Err(Failure::NotOurs)
            }
        }
    }

    async fn insert(
        &self,
        tenant: &TenantId,
        key: KeyId,
        hash: &StoredHash,
    ) -> Result<(), SecretError> {
        let path = value::path(tenant, key);
        for race in 0..RACES_MAX {
            // A new key's path is free.
            let is_new = race == 0 && hash.generation == Generation::FIRST;
            let found = if is_new {
                None
            } else {
                match self.find(&path, key).await {
                    // Deleted by hand, and replaced now.
                    Err(Failure::Deleted) => {
                        self.delete(&path).await?;
                        None
                    }
                    found => found?,
                }
            };
            let (mut hashes, version) = found.unwrap_or_default();
            if hashes.contains_key(&hash.generation) {
                return Err(SecretError::Conflict);
            }
            if version > 0 && hashes.is_empty() {
                // Somebody is removing the path, or crashed before it was done.
                if race >= EMPTY_RACES_MAX {
                    self.delete(&path).await?;
                }
                pause().await;
                continue;
            }
            hashes.insert(hash.generation, hash.hash.clone());
            match self
                .write(&path, value::write_hashes(&hashes), version)
                .await
            {
                Ok(()) => return Ok(()),
                Err(Failure::Raced) if is_new => {}
                Err(Failure::Raced) => pause().await,
                Err(failure) => return Err(failure.into()),
            }
        }
        Err(SecretError::Conflict)
    }

    async fn remove(
        &self,
        tenant: &TenantId,
        key: KeyId,
        generations: &[Generation],
    ) -> Result<(), SecretError> {
        let path = value::path(tenant, key);
        for _ in 0..RACES_MAX {
            let (found, version) = match self.find(&path, key).await {
                Ok(Some(found)) => found,
                Ok(None) => return Ok(()),
                // What was deleted by hand can be brought back, unless it goes with its history.
                Err(Failure::Deleted) => return Ok(self.delete(&path).await?),
                Err(failure) => return Err(failure.into()),
            };
            let mut left = found.clone();
            left.retain(|generation, _| !generations.contains(generation));
            if left.len() == found.len() && !found.is_empty() {
                return Ok(());
            }
            let emptied = left.is_empty();
            let is_written = if emptied && found.is_empty() {
                // Left by somebody who crashed.
                Ok(())
            } else {
                if !emptied {
                    self.keep_one_version(&path).await?;
                }
                self.write(&path, value::write_hashes(&left), version).await
            };
            match is_written {
                Ok(()) if emptied => return Ok(self.delete(&path).await?),
                Ok(()) => return Ok(()),
                Err(Failure::Raced) => pause().await,
                Err(failure) => return Err(failure.into()),
            }
        }
        Err(SecretError::Conflict)
    }

    async fn list_holders(&self) -> Result<Vec<Holder>, SecretError> {
        let mut holders = Vec::new();
        let folders = self.list(HASHES).await?;
        for tenant in folders.iter().filter_map(|name| value::tenant_of(name)) {
            let names = self.list(&value::folder(&tenant)).await?;
            let found = names
                .iter()
                .filter_map(|name| value::holder_of(&tenant, name));
            holders.extend(found);
        }
        Ok(holders)
    }

    // ---- one call each

    async fn read(&self, path: &str) -> Result<Found, Failure> {
        let mount = self.mount();
        let answer = self
            .link
            .call(VaultOperation::Read, &self.shown(path), async |client| {
                let request = ReadSecretRequest {
                    mount: mount.to_owned(),
                    path: path.to_owned(),
                    version: None,
                };
                api::exec_with_result(client.as_ref(), request).await
            })
            .await?;
        Ok(Found {
            value: answer.data,
            version: u32::try_from(answer.metadata.version).unwrap_or(u32::MAX),
        })
    }

    /// Writes the version after `cas`; 0 where nothing may be there.
    async fn write(&self, path: &str, value: Value, cas: u32) -> Result<(), Failure> {
        let (mount, value) = (self.mount(), &value);
        let written = self
            .link
            .call(VaultOperation::Write, &self.shown(path), async |client| {
                let options = SetSecretRequestOptions { cas };
                kv2::set_with_options(client.as_ref(), mount, path, value, options).await
            })
            .await;
        match written {
            Ok(_) => Ok(()),
            Err(Failure::Missing | Failure::Deleted) => Err(Failure::Refused(format!(
                "Vault has no KV v2 engine at \"{mount}\"; check secrets.vault.mount"
            ))),
            Err(failure) => Err(failure),
        }
    }

    async fn keep_one_version(&self, path: &str) -> Result<(), Failure> {
        let mount = self.mount();
        self.link
            .call(VaultOperation::Write, &self.shown(path), async |client| {
                let mut request = SetSecretMetadataRequest::builder();
                request.max_versions(VERSIONS_KEPT);
                kv2::set_metadata(client.as_ref(), mount, path, Some(&mut request)).await
            })
            .await
    }

    /// Deletes a path with its history.
    async fn delete(&self, path: &str) -> Result<(), Failure> {
        let mount = self.mount();
        self.link
            .call(VaultOperation::Delete, &self.shown(path), async |client| {
                kv2::delete_metadata(client.as_ref(), mount, path).await
            })
            .await
    }

    async fn list(&self, path: &str) -> Result<Vec<String>, Failure> {
        let mount = self.mount();
        let listed = self
            .link
            .call(VaultOperation::List, &self.shown(path), async |client| {
                kv2::list(client.as_ref(), mount, path).await
            })
            .await;
        match listed {
            Err(Failure::Missing) => Ok(Vec::new()),
            listed => listed,
        }
    }

    fn mount(&self) -> &str {
        &self.link.settings.mount
    }

    /// A path for people.
    fn shown(&self, path: &str) -> String {
        format!("{}/{path}", self.mount())
    }
}

/// A moment in which whoever was faster can finish.
async fn pause() {
    tokio::time::sleep(RACE_PAUSE.mul_f64(0.5 + fastrand::f64())).await;
}

#[async_trait]
impl SecretStore for VaultSecrets {
    async fn mint_keys(&self) -> Result<MintKeys, SecretError> {
        self.read_or_make_mint_keys().await
    }

    async fn hashes(&self, tenant: &TenantId, key: KeyId) -> Result<Vec<StoredHash>, SecretError> {
        match self.find(&value::path(tenant, key), key).await {
            Ok(found) => Ok(value::newest_first(found.unwrap_or_default().0)),
            Err(Failure::Deleted) => Ok(Vec::new()),
            Err(failure) => Err(failure.into()),
        }
    }

    async fn add_hash(
        &self,
        tenant: &TenantId,
        key: KeyId,
        hash: &StoredHash,
    ) -> Result<(), SecretError> {
        self.insert(tenant, key, hash).await
    }

    async fn remove_hashes(
        &self,
        tenant: &TenantId,
        key: KeyId,
        generations: &[Generation],
    ) -> Result<(), SecretError> {
        self.remove(tenant, key, generations).await
    }

    async fn holders(&self) -> Result<Vec<Holder>, SecretError> {
        self.list_holders().await
    }

    async fn ping(&self) -> Result<(), SecretError> {
        Ok(self.link.look().await?)
    }
}

impl std::fmt::Debug for VaultSecrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("VaultSecrets")
    }
}
