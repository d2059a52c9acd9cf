//! Settings -> the two stores of keys. Whoever needs both gets them here.

use std::sync::Arc;

use crate::clock::SharedClock;
use crate::config::Settings;
use crate::secrets::{EmbeddedSecrets, SecretStore};
use crate::store::{SqlStore, StoreError};

/// Where rows are, and where hashes are.
pub struct Stores {
    pub store: SqlStore,
    pub secrets: Arc<dyn SecretStore>,
}

impl Stores {
    /// Opens both, and makes what is not there yet.
    pub async fn open(settings: &Settings, clock: &SharedClock) -> Result<Self, StoreError> {
        let store = SqlStore::open(&settings.store.url).await?;
        Ok(Self::on(store, clock))
    }

    /// Opens both as they are, to read only.
    pub async fn open_to_read(
        settings: &Settings,
        clock: &SharedClock,
    ) -> Result<Self, StoreError> {
        let store = SqlStore::open_to_read(&settings.store.url).await?;
        Ok(Self::on(store, clock))
    }

    fn on(store: SqlStore, clock: &SharedClock) -> Self {
        let secrets = EmbeddedSecrets::new(store.pool().clone(), clock.clone());
        Stores {
            store,
            secrets: Arc::new(secrets),
        }
    }
}
