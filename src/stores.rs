//! Settings -> the two stores of keys. Whoever needs both gets them here.

use std::sync::Arc;

use crate::clock::SharedClock;
use crate::config::Settings;
use crate::secrets::{self, SecretError, SecretStore};
use crate::store::{SqlStore, StoreError};
use crate::telemetry::Metrics;

/// Why a store can't be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("the store can't be opened: {0}")]
    Store(#[from] StoreError),
    #[error("the secret store can't be opened: {0}")]
    Secrets(#[from] SecretError),
}

/// Where rows are, and where hashes are.
pub struct Stores {
    pub store: SqlStore,
    pub secrets: Arc<dyn SecretStore>,
}

impl Stores {
    /// Opens both, and makes what is not there yet.
    pub async fn open(
        settings: &Settings,
        clock: &SharedClock,
        metrics: &Arc<Metrics>,
    ) -> Result<Self, OpenError> {
        let store = SqlStore::open(&settings.store.url).await?;
        Self::on(store, settings, clock, metrics).await
    }

    /// Opens both as they are, to read only.
    pub async fn open_to_read(
        settings: &Settings,
        clock: &SharedClock,
        metrics: &Arc<Metrics>,
    ) -> Result<Self, OpenError> {
        let store = SqlStore::open_to_read(&settings.store.url).await?;
        Self::on(store, settings, clock, metrics).await
    }

    async fn on(
        store: SqlStore,
        settings: &Settings,
        clock: &SharedClock,
        metrics: &Arc<Metrics>,
    ) -> Result<Self, OpenError> {
        let (clock, metrics) = (clock.clone(), metrics.clone());
        let secrets = secrets::open(&settings.secrets, &store, clock, metrics).await?;
        Ok(Stores { store, secrets })
    }
}
