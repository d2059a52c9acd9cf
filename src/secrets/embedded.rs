//! The embedded twin: hashes in the store's own database, in tables that nothing else reads.

use async_trait::async_trait;
use sqlx::Row;
use zeroize::Zeroizing;

use super::mint::{self, MintMaterial};
use super::{Holder, SecretError, SecretStore, StoredHash};
use crate::clock::SharedClock;
use crate::key::hash::SecretHash;
use crate::key::{Generation, KeyId, MintKeys, TenantId};
use crate::store::sql::{Pools, within};

/// Hashes that are read at once where all of them are listed.
const HOLDERS_PAGE: usize = 10_000;

impl From<sqlx::Error> for SecretError {
    fn from(error: sqlx::Error) -> Self {
        match &error {
            sqlx::Error::Database(db) if db.is_unique_violation() => SecretError::Conflict,
            _ => SecretError::Unavailable(error.to_string()),
        }
    }
}

/// Hashes and mint keys in SQL tables.
#[derive(Clone)]
pub struct EmbeddedSecrets {
    pools: Pools,
    clock: SharedClock,
}

impl EmbeddedSecrets {
    /// On the database of an opened store, whose schema has the tables.
    pub fn new(pools: Pools, clock: SharedClock) -> Self {
        EmbeddedSecrets { pools, clock }
    }
}

/// The place of a hash in the order of all; the default is before the first.
#[derive(Debug, Default)]
struct HashPlace {
    key: String,
    generation: i64,
}

/// Whose the hashes of one page are, one by one, and where the next page starts.
#[derive(Debug, Default)]
struct HoldersPage {
    holders: Vec<Holder>,
    next: Option<HashPlace>,
}

/// Adds the holder of the next hash, in the order of keys, unless it is there already.
fn add_holder(holders: &mut Vec<Holder>, next: Holder) {
    let mut of_key = holders.iter().rev().take_while(|h| h.key == next.key);
    if !of_key.any(|holder| *holder == next) {
        holders.push(next);
    }
}

#[async_trait]
impl SecretStore for EmbeddedSecrets {
    async fn mint_keys(&self) -> Result<MintKeys, SecretError> {
        within(SecretError::Unavailable, self.read_mint_keys()).await
    }

    async fn hashes(&self, tenant: &TenantId, key: KeyId) -> Result<Vec<StoredHash>, SecretError> {
        within(SecretError::Unavailable, self.read_hashes(tenant, key)).await
    }

    async fn add_hash(
        &self,
        tenant: &TenantId,
        key: KeyId,
        hash: &StoredHash,
    ) -> Result<(), SecretError> {
        within(
            SecretError::Unavailable,
            self.insert_hash(tenant, key, hash),
        )
        .await
    }

    async fn remove_hashes(
        &self,
        tenant: &TenantId,
        key: KeyId,
        generations: &[Generation],
    ) -> Result<(), SecretError> {
        let work = self.delete_hashes(tenant, key, generations);
        within(SecretError::Unavailable, work).await
    }

    async fn holders(&self) -> Result<Vec<Holder>, SecretError> {
        let mut holders = Vec::new();
        let mut after = HashPlace::default();
        // Each page has a time of its own: all together take as long as there are hashes.
        loop {
            let page = self.read_holders(&after, HOLDERS_PAGE);
            let page = within(SecretError::Unavailable, page).await?;
            for holder in page.holders {
                add_holder(&mut holders, holder);
            }
            match page.next {
                Some(next) => after = next,
                None => return Ok(holders),
            }
        }
    }

    async fn ping(&self) -> Result<(), SecretError> {
        within(SecretError::Unavailable, self.ask()).await
    }
}

impl EmbeddedSecrets {
    /// The mint keys as they are stored, newest first; none where there are none.
    pub async fn mint_material(&self) -> Result<Vec<MintMaterial>, SecretError> {
        within(SecretError::Unavailable, self.read_material()).await
    }

    /// Puts a new mint key in front of the others; how many there are now.
    pub async fn rotate_mint_key(&self) -> Result<usize, SecretError> {
        let keys = mint::rotated(&self.mint_material().await?)?;
        let insert = "INSERT INTO mint_keys (id, material, created_at) \
            SELECT COALESCE(MAX(id), 0) + 1, $1, $2 FROM mint_keys";
        let work = async {
            self.insert_material(insert, keys.first()).await?;
            Ok(keys.len())
        };
        within(SecretError::Unavailable, work).await
    }

    /// Removes all mint keys, once they are somewhere else.
    pub async fn remove_mint_keys(&self) -> Result<(), SecretError> {
        let work = async {
            sqlx::query("DELETE FROM mint_keys")
                .execute(self.pools.writer())
                .await?;
            Ok(())
        };
        within(SecretError::Unavailable, work).await
    }

    async fn insert_material(
        &self,
        insert: &'static str,
        key: Option<&MintMaterial>,
    ) -> Result<(), SecretError> {
        let key = key.ok_or(SecretError::Damaged("no mint key"))?;
        sqlx::query(insert)
            .bind(key.to_hex().to_string())
            .bind(self.clock.now().as_millis())
            .execute(self.pools.writer())
            .await?;
        Ok(())
    }

    async fn read_material(&self) -> Result<Vec<MintMaterial>, SecretError> {
        let rows = sqlx::query("SELECT material FROM mint_keys ORDER BY id DESC")
            .fetch_all(self.pools.readers())
            .await?;
        let mut keys = Vec::with_capacity(rows.len());
        for row in rows {
            let text = Zeroizing::new(row.try_get::<String, _>("material")?);
            keys.push(MintMaterial::from_hex(&text).ok_or(SecretError::Damaged("a mint key"))?);
        }
        Ok(keys)
    }

    async fn read_mint_keys(&self) -> Result<MintKeys, SecretError> {
        // Only the first of all instances that start at once gets its key in; 1 is its number.
        let insert = "INSERT INTO mint_keys (id, material, created_at) \
            SELECT 1, $1, $2 WHERE NOT EXISTS (SELECT 1 FROM mint_keys) ON CONFLICT DO NOTHING";
        self.insert_material(insert, Some(&MintMaterial::random()?))
            .await?;
        let stored = self.read_material().await?;
        mint::ready(&stored).ok_or(SecretError::Damaged("no mint key"))
    }

    async fn read_hashes(
        &self,
        tenant: &TenantId,
        key: KeyId,
    ) -> Result<Vec<StoredHash>, SecretError> {
        let rows = sqlx::query(
            "SELECT generation, hash FROM key_hashes WHERE key_id = $1 AND tenant_id = $2 \
             ORDER BY generation DESC",
        )
        .bind(key.to_string())
        .bind(tenant.to_string())
        .fetch_all(self.pools.readers())
        .await?;
        rows.iter()
            .map(|row| {
                Ok(StoredHash {
                    generation: Generation(row.try_get("generation")?),
                    hash: SecretHash::from_stored(row.try_get("hash")?),
                })
            })
            .collect()
    }

    async fn read_holders(
        &self,
        after: &HashPlace,
        limit: usize,
    ) -> Result<HoldersPage, SecretError> {
        let rows = sqlx::query(
            "SELECT key_id, generation, tenant_id FROM key_hashes \
             WHERE (key_id, generation) > ($1, $2) ORDER BY key_id, generation LIMIT $3",
        )
        .bind(after.key.clone())
        .bind(after.generation)
        .bind(i64::try_from(limit).unwrap_or(i64::MAX))
        .fetch_all(self.pools.readers())
        .await?;
        let mut page = HoldersPage::default();
        for row in &rows {
            let tenant: String = row.try_get("tenant_id")?;
            let key: String = row.try_get("key_id")?;
            if let (Ok(tenant), Ok(key)) = (tenant.parse(), key.parse()) {
                page.holders.push(Holder { tenant, key });
            }
        }
        if let Some(last) = rows.last().filter(|_| rows.len() >= limit) {
            page.next = Some(HashPlace {
                key: last.try_get("key_id")?,
                generation: last.try_get("generation")?,
            });
        }
        Ok(page)
    }

    async fn insert_hash(
        &self,
        tenant: &TenantId,
        key: KeyId,
        hash: &StoredHash,
    ) -> Result<(), SecretError> {
        sqlx::query(
            "INSERT INTO key_hashes (key_id, generation, tenant_id, hash) VALUES ($1, $2, $3, $4)",
        )
        .bind(key.to_string())
        .bind(hash.generation.0)
        .bind(tenant.to_string())
        .bind(hash.hash.to_stored().to_owned())
        .execute(self.pools.writer())
        .await?;
        Ok(())
    }

    async fn delete_hashes(
        &self,
        tenant: &TenantId,
        key: KeyId,
        generations: &[Generation],
    ) -> Result<(), SecretError> {
        for generation in generations {
            sqlx::query(
                "DELETE FROM key_hashes WHERE key_id = $1 AND tenant_id = $2 AND generation = $3",
            )
            .bind(key.to_string())
            .bind(tenant.to_string())
            .bind(generation.0)
            .execute(self.pools.writer())
            .await?;
        }
        Ok(())
    }

    async fn ask(&self) -> Result<(), SecretError> {
        sqlx::query("SELECT 1")
            .fetch_one(self.pools.readers())
            .await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SystemClock;
    use crate::key::{Environment, Presented};
    use crate::store::SqlStore;
    use secrecy::{ExposeSecret, SecretString};
    use std::sync::Arc;

    async fn secrets(directory: &tempfile::TempDir) -> EmbeddedSecrets {
        let url = format!("sqlite://{}/keys.db", directory.path().display());
        let store = SqlStore::open(&SecretString::from(url)).await.unwrap();
        EmbeddedSecrets::new(store.pools().clone(), Arc::new(SystemClock::new()))
    }

    #[tokio::test]
    async fn the_mint_key_stays_the_same() {
        let directory = tempfile::tempdir().unwrap();
        let first = secrets(&directory).await;
        let (a, b) = tokio::join!(first.mint_keys(), first.mint_keys());
        let minted = a
            .unwrap()
            .mint(&"sk".parse().unwrap(), Environment::Live)
            .unwrap();
        let presented = Presented::parse(minted.text.expose_secret()).unwrap();
        assert!(b.unwrap().minted(&presented));
        assert!(
            secrets(&directory)
                .await
                .mint_keys()
                .await
                .unwrap()
                .minted(&presented)
        );
    }

    #[tokio::test]
    async fn holders_are_listed_in_pages_and_once_each() {
        let directory = tempfile::tempdir().unwrap();
        let secrets = secrets(&directory).await;
        let tenants: [TenantId; 2] = ["acme", "x"].map(|name| name.parse().unwrap());
        let mut expected = Vec::new();
        for number in 0..3 {
            let key: KeyId = format!("{number:012}").parse().unwrap();
            for generation in 1..=4 {
                let hash = StoredHash {
                    generation: Generation(generation),
                    hash: SecretHash::from_stored(String::new()),
                };
                // Of one key they take turns, which only a damaged store has.
                let tenant = &tenants[usize::from(number == 1 && generation % 2 == 0)];
                secrets.add_hash(tenant, key, &hash).await.unwrap();
                let tenant = tenant.clone();
                add_holder(&mut expected, Holder { tenant, key });
            }
        }
        assert_eq!(expected.len(), 4);
        assert_eq!(secrets.holders().await.unwrap(), expected);
        let (mut found, mut after) = (Vec::new(), HashPlace::default());
        loop {
            let page = secrets.read_holders(&after, 5).await.unwrap();
            assert!(page.holders.len() <= 5);
            for holder in page.holders {
                add_holder(&mut found, holder);
            }
            let Some(next) = page.next else { break };
            after = next;
        }
        assert_eq!(found, expected);
    }

    #[tokio::test]
    async fn hashes_are_kept_by_generation() {
        let directory = tempfile::tempdir().unwrap();
        let secrets = secrets(&directory).await;
        let (tenant, other): (TenantId, TenantId) = ("acme".parse().unwrap(), "x".parse().unwrap());
        let key: KeyId = "4fzN8cQ2pLrT".parse().unwrap();
        for generation in 1..=3 {
            let hash = StoredHash {
                generation: Generation(generation),
                hash: SecretHash::from_stored(format!("hash {generation}")),
            };
            secrets.add_hash(&tenant, key, &hash).await.unwrap();
            assert!(matches!(
                secrets.add_hash(&tenant, key, &hash).await,
                Err(SecretError::Conflict)
            ));
        }
        let generations = async || -> Vec<i64> {
            let hashes = secrets.hashes(&tenant, key).await.unwrap();
            hashes.iter().map(|hash| hash.generation.0).collect()
        };
        assert_eq!(generations().await, [3, 2, 1]);
        let holder = Holder {
            tenant: tenant.clone(),
            key,
        };
        assert_eq!(secrets.holders().await.unwrap(), [holder]);
        assert!(secrets.hashes(&other, key).await.unwrap().is_empty());
        secrets
            .remove_hashes(&tenant, key, &[Generation(1)])
            .await
            .unwrap();
        assert_eq!(generations().await, [3, 2]);
        secrets
            .remove_hashes(&other, key, &[Generation(3)])
            .await
            .unwrap();
        assert_eq!(generations().await, [3, 2]);
        secrets
            .remove_hashes(&tenant, key, &[Generation(2), Generation(3)])
            .await
            .unwrap();
        assert!(generations().await.is_empty());
    }
}
