//! Bringing keys along that were there before Sidekey. The order of writes is that of creation, so a
//! crash leaves at worst a hash that no row names; and what was imported is found by its secret, so
//! the same list can be sent again.

use super::fields::{NewKey, record_of};
use super::keys::{KeyError, KeyService};
use crate::audit::{Action, Note, Origin, diff};
use crate::key::hash::SecretHash;
use crate::key::lookup::Lookups;
use crate::key::record::{CredentialKind, KeyOrigin};
use crate::key::{Generation, KeyId, KeyRecord, Login, PlainKey, imported};
use crate::store::Imported;

/// Everything that a line of a list may tell of a key.
pub const IMPORT_COLUMNS: [&str; 15] = [
    "name",
    "tenant_id",
    "environment",
    "scopes",
    "rate_limits",
    "expires_at",
    "allowed_ips",
    "contact_email",
    "rotation_days",
    "metadata",
    "external_id",
    "key",
    "user",
    "hash",
    "htpasswd",
];

/// The secret of a key that was there before.
#[derive(Debug, Clone)]
pub enum ImportSecret {
    Plain(PlainKey),
    Login(Login),
}

impl ImportSecret {
    fn credential(&self) -> CredentialKind {
        match self {
            ImportSecret::Plain(_) => CredentialKind::Key,
            ImportSecret::Login(_) => CredentialKind::Basic,
        }
    }

    fn hint(&self) -> String {
        match self {
            ImportSecret::Plain(key) => key.hint(),
            ImportSecret::Login(login) => login.hint(),
        }
    }
}

/// A key to be imported. Every field is sound.
#[derive(Debug, Clone)]
pub struct ImportedKey {
    pub new: NewKey,
    pub secret: ImportSecret,
}

/// What became of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImportOutcome {
    Created(KeyId),
    /// It was imported before, as this key. Nothing was changed.
    Existing(KeyId),
}

impl KeyService {
    /// Where `secret` is found, or would be.
    pub fn places_of(&self, secret: &ImportSecret) -> Lookups {
        match secret {
            ImportSecret::Plain(key) => self.imports.places_of_key(key.text()),
            ImportSecret::Login(login) => self.imports.places_of_user(login.user()),
        }
    }

    /// The key that has been imported with the secret that is found at `places`.
    pub async fn find_imported(&self, places: &Lookups) -> Result<Option<KeyId>, KeyError> {
        Ok(self.import_store.find_imported(places).await?)
    }

    /// Imports a key, unless it has been.
    pub async fn import(
        &self,
        key: ImportedKey,
        origin: &Origin,
    ) -> Result<ImportOutcome, KeyError> {
        let places = self.places_of(&key.secret);
        if let Some(existing) = self.find_imported(&places).await? {
            return Ok(ImportOutcome::Existing(existing));
        }
        let id = KeyId::random().map_err(|error| KeyError::Unavailable(error.to_string()))?;
        let hash = self.hash_of(&key.secret).await?;
        let mut record = record_of(key.new, id, key.secret.hint(), self.clock.now());
        record.origin = KeyOrigin::Imported;
        record.credential = key.secret.credential();
        self.store_import(record, hash, &places, origin).await
    }

    async fn hash_of(&self, secret: &ImportSecret) -> Result<SecretHash, KeyError> {
        match secret {
            ImportSecret::Plain(key) => self.hash_secret(imported::digest(key.text())).await,
            ImportSecret::Login(login) => Ok(login.hash().clone()),
        }
    }

    async fn store_import(
        &self,
        record: KeyRecord,
        hash: SecretHash,
        places: &Lookups,
        origin: &Origin,
    ) -> Result<ImportOutcome, KeyError> {
        let unnamed = self.unnamed(hash, Generation::FIRST);
        self.secrets
            .add_hash(&record.tenant_id, record.id, &unnamed.hash)
            .await?;
        self.check_in_time(&unnamed)?;
        let note = note_of_import(&record, origin);
        let stored = self
            .import_store
            .insert_imported(&record, places, &note)
            .await;
        let stored = match stored {
            Ok(stored) => stored,
            Err(error) => return Err(self.not_stored(&record, error).await),
        };
        match stored {
            Imported::Existing(existing) => {
                self.remove_hashes(&record, &[Generation::FIRST]).await;
                Ok(ImportOutcome::Existing(existing))
            }
            Imported::Added => {
                self.imports.add(places.get(..1).unwrap_or_default());
                self.keep(&record, &unnamed).await?;
                self.announcer.announce();
                Ok(ImportOutcome::Created(record.id))
            }
        }
    }
}

fn note_of_import(record: &KeyRecord, origin: &Origin) -> Note {
    Note {
        at: record.created_at,
        action: Action::KeyImported,
        origin: origin.clone(),
        key_id: Some(record.id),
        tenant_id: Some(record.tenant_id.clone()),
        details: diff::of_new(record),
    }
}
