//! Moving hashes and mint keys from the database to Vault.
//!
//! Copies the mint keys, then every key's hashes, reads all of it back, and only then removes what it has
//! read back from the database, the mint keys at the very end. Nothing in Vault is ever written over. So
//! it may be interrupted anywhere and run again: what has been copied is found to be there, and as long
//! as anything is left in the database, its mint keys are too.

use futures_util::stream::{self, StreamExt, TryStreamExt};

use super::mint::MintMaterial;
use super::{EmbeddedSecrets, Holder, SecretError, SecretStore, StoredHash, VaultSecrets};

/// Keys that are copied at the same time.
const COPIES_MAX: usize = 8;

/// What was done.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Moved {
    /// Mint keys that Vault has now.
    pub mint_keys: usize,
    /// Keys whose hashes were in the database.
    pub keys: usize,
    /// Their hashes.
    pub hashes: usize,
    /// Of these, hashes that Vault did not have yet.
    pub copied: usize,
    /// Hashes that were removed from the database.
    pub removed: usize,
}

/// Why not everything was moved.
#[derive(Debug, thiserror::Error)]
pub enum MoveError {
    #[error("the database: {0}")]
    Database(SecretError),
    #[error("Vault: {0}")]
    Vault(SecretError),
    #[error(
        "Vault has other mint keys, so it belongs to another deployment, or Sidekey was started with it before the move. If no key was made with Vault yet, delete them with their history (kv metadata delete) and run this again; nothing was moved"
    )]
    OtherMintKeys,
    #[error(
        "key {0} has another hash in Vault than in the database: remove the wrong one by hand and run this again; nothing was removed"
    )]
    OtherHash(String),
    #[error(
        "the hash of key {key}, generation {generation}, in the database is damaged, so that secret works nowhere: delete it by hand (DELETE FROM key_hashes WHERE key_id = '{key}' AND generation = {generation}), run this again, and regenerate or revoke the key; nothing was removed"
    )]
    DamagedHash { key: String, generation: i64 },
    #[error("what Vault gives back for key {0} is not what was written; nothing was removed")]
    NotReadBack(String),
    #[error(
        "the database got new hashes meanwhile: end the instances that run with the embedded backend, and run this again"
    )]
    StillWritten,
}

/// Moves everything; with `keep` it is copied only.
pub async fn run(
    database: &EmbeddedSecrets,
    vault: &VaultSecrets,
    keep: bool,
) -> Result<Moved, MoveError> {
    let mut moved = Moved {
        mint_keys: copy_mint_keys(database, vault).await?,
        ..Moved::default()
    };
    let holders = database.holders().await.map_err(MoveError::Database)?;
    let copies: Vec<Copied> = stream::iter(holders)
        .map(|holder| copy_key(database, vault, holder))
        .buffer_unordered(COPIES_MAX)
        .try_collect()
        .await?;
    for copied in &copies {
        moved.keys += 1;
        moved.hashes += copied.hashes.len();
        moved.copied += copied.new;
    }
    if keep {
        return Ok(moved);
    }
    for copied in &copies {
        let generations: Vec<_> = copied.hashes.iter().map(|hash| hash.generation).collect();
        let Holder { tenant, key } = &copied.holder;
        let removed = database.remove_hashes(tenant, *key, &generations);
        removed.await.map_err(MoveError::Database)?;
        moved.removed += generations.len();
    }
    let left = database.holders().await.map_err(MoveError::Database)?;
    if !left.is_empty() {
        return Err(MoveError::StillWritten);
    }
    let removed = database.remove_mint_keys().await;
    removed.map_err(MoveError::Database)?;
    Ok(moved)
}

/// Sees to it that Vault has the database's mint keys; how many Vault has.
async fn copy_mint_keys(
    database: &EmbeddedSecrets,
    vault: &VaultSecrets,
) -> Result<usize, MoveError> {
    let ours = database
        .mint_material()
        .await
        .map_err(MoveError::Database)?;
    let theirs = vault.mint_material().await.map_err(MoveError::Vault)?;
    if theirs.is_empty() && !ours.is_empty() {
        // Somebody may be faster; what is there is compared below.
        match vault.put_first_mint_keys(&ours).await {
            Ok(()) | Err(SecretError::Conflict) => {}
            Err(error) => return Err(MoveError::Vault(error)),
        }
    }
    let theirs = vault.mint_material().await.map_err(MoveError::Vault)?;
    if !holds_all(&theirs, &ours) {
        return Err(MoveError::OtherMintKeys);
    }
    Ok(theirs.len())
}

/// Whether all of `ours` are among `theirs`, which may have been rotated since.
fn holds_all(theirs: &[MintMaterial], ours: &[MintMaterial]) -> bool {
    ours.iter().all(|key| theirs.contains(key))
}

/// A key whose hashes are in Vault, as it was read back.
struct Copied {
    holder: Holder,
    hashes: Vec<StoredHash>,
    /// Hashes that Vault did not have.
    new: usize,
}

async fn copy_key(
    database: &EmbeddedSecrets,
    vault: &VaultSecrets,
    holder: Holder,
) -> Result<Copied, MoveError> {
    let Holder { tenant, key } = &holder;
    let hashes = database.hashes(tenant, *key).await;
    let hashes = hashes.map_err(MoveError::Database)?;
    // Vault would be given a value that it can't be asked for again.
    if let Some(damaged) = hashes.iter().find(|hash| !hash.hash.is_well_formed()) {
        return Err(MoveError::DamagedHash {
            key: key.to_string(),
            generation: damaged.generation.0,
        });
    }
    let mut new = 0;
    // In the order in which they were made: the first can be written without a look.
    for hash in hashes.iter().rev() {
        match vault.add_hash(tenant, *key, hash).await {
            Ok(()) => new += 1,
            // There already; whether it is the same is seen when it is read back.
            Err(SecretError::Conflict) => {}
            Err(error) => return Err(MoveError::Vault(error)),
        }
    }
    let there = vault.hashes(tenant, *key).await.map_err(MoveError::Vault)?;
    for hash in &hashes {
        match there
            .iter()
            .find(|other| other.generation == hash.generation)
        {
            Some(other) if other.hash == hash.hash => {}
            Some(_) => return Err(MoveError::OtherHash(key.to_string())),
            None => return Err(MoveError::NotReadBack(key.to_string())),
        }
    }
    Ok(Copied {
        holder,
        hashes,
        new,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rotated_mint_keys_still_hold_the_old_ones() {
        let [a, b, c] = [(); 3].map(|()| MintMaterial::random().unwrap());
        assert!(holds_all(&[b.clone(), a.clone()], std::slice::from_ref(&a)));
        assert!(holds_all(std::slice::from_ref(&a), &[]));
        assert!(!holds_all(&[c, b], &[a]));
    }
}
