//! Settings -> the two stores of keys. Whoever needs both gets them here.

use std::sync::Arc;

use crate::clock::SharedClock;
use crate::config::Settings;
use crate::secrets::{self, SecretError, SecretStore};
use crate::store::{AnswerStore, Guard, Guarded, KeyStore, SqlStore, StoreError};
use crate::telemetry::Metrics;
use crate::telemetry::metrics::Dependency;

/// Why a store can't be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("the store can't be opened: {0}")]
    Store(#[from] StoreError),
    #[error("the secret store can't be opened: {0}")]
    Secrets(#[from] SecretError),
}

/// Where rows are, and where hashes are, each behind a circuit breaker.
pub struct Stores {
    /// The database itself, to be closed in the end.
    pub sql: SqlStore,
    pub keys: Arc<dyn KeyStore>,
    /// Answers to repeated calls, in the same place.
    pub answers: Arc<dyn AnswerStore>,
    pub secrets: Arc<dyn SecretStore>,
}

impl Stores {
    /// Opens both, and makes what is not there yet.
    pub async fn open(
        settings: &Settings,
        clock: &SharedClock,
        metrics: &Arc<Metrics>,
    ) -> Result<Self, OpenError> {
        let sql = SqlStore::open(&settings.store.url).await?;
        Self::on(sql, settings, clock, metrics).await
    }

    /// Opens both as they are, to read only.
    pub async fn open_to_read(
        settings: &Settings,
        clock: &SharedClock,
        metrics: &Arc<Metrics>,
    ) -> Result<Self, OpenError> {
        let sql = SqlStore::open_to_read(&settings.store.url).await?;
        Self::on(sql, settings, clock, metrics).await
    }

    async fn on(
        sql: SqlStore,
        settings: &Settings,
        clock: &SharedClock,
        metrics: &Arc<Metrics>,
    ) -> Result<Self, OpenError> {
        let guard = Guard::new(clock.clone(), metrics.breaker_open(Dependency::Database));
        let keys = Arc::new(Guarded::new(sql.clone(), guard.clone()));
        let (clock, metrics) = (clock.clone(), metrics.clone());
        let secrets = secrets::open(&settings.secrets, &sql, guard, clock, metrics).await?;
        Ok(Stores {
            sql,
            answers: keys.clone(),
            keys,
            secrets,
        })
    }
}
