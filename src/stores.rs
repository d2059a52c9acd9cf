//! Settings -> the two stores of keys. Whoever needs both gets them here.

use std::sync::Arc;

use crate::audit::seal::Sealer;
use crate::clock::SharedClock;
use crate::config::Settings;
use crate::key::MintKeys;
use crate::secrets::{self, SecretError, SecretStore};
use crate::store::{
    AnswerStore, AuditStore, CensusStore, Guard, Guarded, ImportStore, Journal, KeyStore,
    OverviewStore, RankingStore, ReminderStore, SessionStore, SqlStore, StoreError, TenantStore,
    UsageStore,
};
use crate::telemetry::Metrics;

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
    pub audit: Arc<dyn AuditStore>,
    pub tenants: Arc<dyn TenantStore>,
    pub imports: Arc<dyn ImportStore>,
    /// Answers to repeated calls, in the same place.
    pub answers: Arc<dyn AnswerStore>,
    pub secrets: Arc<dyn SecretStore>,
    pub usage: Arc<dyn UsageStore>,
    pub overview: Arc<dyn OverviewStore>,
    pub census: Arc<dyn CensusStore>,
    pub rankings: Arc<dyn RankingStore>,
    /// What was done about reminders, in the same place.
    pub reminders: Arc<dyn ReminderStore>,
    /// Who is signed in to the dashboard, in the same place.
    pub sessions: Arc<dyn SessionStore>,
}

impl Stores {
    /// Opens both, and makes what is not there yet. Writes are sealed with the mint keys that are told.
    pub async fn open(
        settings: &Settings,
        clock: &SharedClock,
        metrics: &Arc<Metrics>,
    ) -> Result<(Self, MintKeys), OpenError> {
        let sql = SqlStore::open(&settings.store.url).await?;
        let guard = guard(clock, metrics);
        let secrets = open_secrets(settings, &sql, &guard, clock, metrics).await?;
        let mint_keys = secrets.mint_keys().await?;
        let sql = sql.with_journal(Journal::new(
            Sealer::from(&mint_keys),
            clock.clone(),
            metrics,
        ));
        Ok((Self::behind(guard, sql, secrets), mint_keys))
    }

    /// Opens both as they are, to read only.
    pub async fn open_to_read(
        settings: &Settings,
        clock: &SharedClock,
        metrics: &Arc<Metrics>,
    ) -> Result<Self, OpenError> {
        let sql = SqlStore::open_to_read(&settings.store.url).await?;
        let guard = guard(clock, metrics);
        let secrets = open_secrets(settings, &sql, &guard, clock, metrics).await?;
        Ok(Self::behind(guard, sql, secrets))
    }

    fn behind(guard: Arc<Guard>, sql: SqlStore, secrets: Arc<dyn SecretStore>) -> Self {
        let guarded = Arc::new(Guarded::new(sql.clone(), guard));
        Stores {
            sql,
            keys: guarded.clone(),
            audit: guarded.clone(),
            tenants: guarded.clone(),
            usage: guarded.clone(),
            overview: guarded.clone(),
            census: guarded.clone(),
            rankings: guarded.clone(),
            reminders: guarded.clone(),
            imports: guarded.clone(),
            sessions: guarded.clone(),
            answers: guarded,
            secrets,
        }
    }
}

fn guard(clock: &SharedClock, metrics: &Metrics) -> Arc<Guard> {
    Guard::new(clock.clone(), metrics)
}

async fn open_secrets(
    settings: &Settings,
    sql: &SqlStore,
    guard: &Arc<Guard>,
    clock: &SharedClock,
    metrics: &Arc<Metrics>,
) -> Result<Arc<dyn SecretStore>, SecretError> {
    let (guard, clock, metrics) = (guard.clone(), clock.clone(), metrics.clone());
    secrets::open(&settings.secrets, sql, guard, clock, metrics).await
}
