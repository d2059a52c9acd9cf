//! Whole records of keys in use, for their holders' own questions: a live key has only what decides
//! requests. Asking again and again costs no read of the store: what was read holds for as long as the
//! live key says that the record has not changed.

use std::sync::Arc;

use moka::sync::Cache;
use tokio::runtime::Handle;

use super::{KeyView, Refusal};
use crate::key::{KeyId, KeyRecord};
use crate::store::KeyStore;

/// Records that are remembered.
const ENTRIES_MAX: u64 = 1_000;

/// Records by id.
pub struct Records {
    known: Cache<KeyId, Arc<KeyRecord>>,
    store: Arc<dyn KeyStore>,
    /// Where the store is read: not on the caller's thread.
    runtime: Handle,
}

impl Records {
    pub fn new(store: Arc<dyn KeyStore>, runtime: Handle) -> Self {
        Records {
            known: Cache::new(ENTRIES_MAX),
            store,
            runtime,
        }
    }

    /// The record that `view` was made of, or a newer one.
    pub async fn of(&self, view: &KeyView) -> Result<Arc<KeyRecord>, Refusal> {
        let known = self.known.get(&view.id);
        if let Some(record) = known.filter(|record| record.revision >= view.revision) {
            return Ok(record);
        }
        let (store, id) = (self.store.clone(), view.id);
        let read = self.runtime.spawn(async move { store.get(id).await }).await;
        match read {
            Ok(Ok(Some(record))) => {
                let record = Arc::new(record);
                self.known.insert(id, record.clone());
                Ok(record)
            }
            Ok(Ok(None)) => Err(Refusal::Invalid),
            Ok(Err(_)) | Err(_) => Err(Refusal::Unavailable),
        }
    }
}
