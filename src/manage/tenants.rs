//! What can be done with tenants. A change of one acts on the next request of all its keys: on this
//! instance as soon as it is written, on the others as soon as they follow.

use std::sync::Arc;

use super::keys::CONFLICT_RETRIES_MAX;
use crate::audit::{Action, Note, Origin, diff};
use crate::clock::SharedClock;
use crate::cluster::Announcer;
use crate::key::tenant::TenantStanding;
use crate::key::{TenantId, TenantRecord, TenantSettings};
use crate::store::{StoreError, TenantFilter, TenantPage, TenantStore};
use crate::verify::LiveKeys;

/// Why an operation was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum TenantError {
    #[error("there is no such tenant")]
    NotFound,
    #[error("{0}")]
    Conflict(&'static str),
    /// It is not the version that the caller meant.
    #[error("the tenant has changed since it was read")]
    Unexpected,
    /// The store is away.
    #[error("{0}")]
    Unavailable(String),
}

impl From<StoreError> for TenantError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Conflict => {
                TenantError::Conflict("the tenant was changed by somebody else at the same time")
            }
            other => TenantError::Unavailable(other.to_string()),
        }
    }
}

/// What became of a tenant.
#[derive(Debug)]
pub struct Put {
    pub tenant: TenantRecord,
    pub is_new: bool,
}

/// Carries operations on tenants out.
pub struct TenantService {
    pub store: Arc<dyn TenantStore>,
    pub live: Arc<LiveKeys>,
    /// Tells the other instances.
    pub announcer: Announcer,
    pub clock: SharedClock,
}

impl TenantService {
    /// The tenant of that id.
    pub async fn get(&self, id: &TenantId) -> Result<TenantRecord, TenantError> {
        self.store.tenant(id).await?.ok_or(TenantError::NotFound)
    }

    /// A page of at most `limit` tenants after `after`, by id.
    pub async fn page(
        &self,
        filter: &TenantFilter,
        after: Option<&TenantId>,
        limit: usize,
    ) -> Result<TenantPage, TenantError> {
        Ok(self.store.tenants(filter, after, limit).await?)
    }

    /// Makes a tenant, or replaces what is set for it, if the one that is there (or its absence) is
    /// `expected`. Where nothing differs, nothing is written.
    pub async fn put(
        &self,
        id: &TenantId,
        settings: &TenantSettings,
        expected: impl Fn(Option<&TenantRecord>) -> bool,
        origin: &Origin,
    ) -> Result<Put, TenantError> {
        for _ in 0..CONFLICT_RETRIES_MAX {
            let current = self.store.tenant(id).await?;
            if !expected(current.as_ref()) {
                return Err(TenantError::Unexpected);
            }
            let is_new = current.is_none();
            let written = match current {
                None => self.create(id, settings, origin).await,
                Some(before) => {
                    let mut after = before.clone();
                    after.settings = settings.clone();
                    self.replace(&before, after, Action::TenantChanged, origin)
                        .await
                }
            };
            if let Some(tenant) = written? {
                return Ok(Put { tenant, is_new });
            }
        }
        Err(StoreError::Conflict.into())
    }

    /// Suspends all keys of a tenant at once, or resumes them. Twice is as good as once.
    pub async fn set_standing(
        &self,
        id: &TenantId,
        standing: TenantStanding,
        origin: &Origin,
    ) -> Result<TenantRecord, TenantError> {
        let action = match standing {
            TenantStanding::Active => Action::TenantResumed,
            TenantStanding::Suspended => Action::TenantSuspended,
        };
        for _ in 0..CONFLICT_RETRIES_MAX {
            let before = self.get(id).await?;
            let mut after = before.clone();
            after.standing = standing;
            if let Some(tenant) = self.replace(&before, after, action, origin).await? {
                return Ok(tenant);
            }
        }
        Err(StoreError::Conflict.into())
    }

    /// `None` where somebody else was first.
    async fn create(
        &self,
        id: &TenantId,
        settings: &TenantSettings,
        origin: &Origin,
    ) -> Result<Option<TenantRecord>, TenantError> {
        let record = TenantRecord::new(id.clone(), settings.clone(), self.clock.now());
        let note = Note {
            at: record.created_at,
            action: Action::TenantCreated,
            origin: origin.clone(),
            key_id: None,
            tenant_id: Some(id.clone()),
            details: diff::of_new(&record),
        };
        let written = self.store.insert_tenant(&record, &note).await;
        self.conclude(written.map(|()| record), id).await
    }

    /// `None` where somebody else was faster.
    async fn replace(
        &self,
        before: &TenantRecord,
        mut after: TenantRecord,
        action: Action,
        origin: &Origin,
    ) -> Result<Option<TenantRecord>, TenantError> {
        let details = diff::between(before, &after);
        if details.is_empty() {
            // What an earlier, interrupted call wrote may not have been announced.
            self.live.apply_tenant(&after);
            return Ok(Some(after));
        }
        after.updated_at = self.clock.now();
        after.revision += 1;
        let note = Note {
            at: after.updated_at,
            action,
            origin: origin.clone(),
            key_id: None,
            tenant_id: Some(after.id.clone()),
            details,
        };
        let id = after.id.clone();
        let written = self.store.update_tenant(&after, &note).await;
        let written = written.map(|key_count| TenantRecord { key_count, ..after });
        self.conclude(written, &id).await
    }

    /// Makes what was written the current record. After a failure that leaves open whether it was, what
    /// is stored becomes the current one.
    async fn conclude(
        &self,
        written: Result<TenantRecord, StoreError>,
        id: &TenantId,
    ) -> Result<Option<TenantRecord>, TenantError> {
        match written {
            Ok(tenant) => {
                self.live.apply_tenant(&tenant);
                self.announcer.announce();
                Ok(Some(tenant))
            }
            Err(StoreError::Conflict) => Ok(None),
            Err(error) => {
                if let Ok(Some(stored)) = self.store.tenant(id).await {
                    self.live.apply_tenant(&stored);
                }
                self.announcer.announce();
                Err(error.into())
            }
        }
    }
}
