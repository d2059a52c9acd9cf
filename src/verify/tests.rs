//! The verifier on real embedded stores.

mod follow;
mod imports;
mod revive;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use secrecy::{ExposeSecret, SecretString};

use super::*;
use crate::audit::Note;
use crate::audit::tests::noted;
use crate::clock::{Clock as _, ManualClock, SystemClock, Timestamp};
use crate::config::settings::{BcryptSettings, VerificationSettings};
use crate::key::TenantRecord;
use crate::key::hash::SecretHash;
use crate::key::mint::MintedKey;
use crate::key::record::PreviousSecret;
use crate::key::{Catalogue, Denial, Environment, Generation, TenantId};
use crate::secrets::{EmbeddedSecrets, SecretError, StoredHash};
use crate::store::{
    Change, ClaimPage, KeyFilter, KeyOrder, Page, PageFrom, SqlStore, StoreError, TenantFilter,
    TenantPage, TenantStore,
};

/// Counts reads, and can be told to fail: what no real store can be made to do at a moment's notice.
struct Watched {
    inner: SqlStore,
    reads: AtomicUsize,
    away: std::sync::atomic::AtomicBool,
}

#[async_trait]
impl KeyStore for Watched {
    async fn insert(&self, record: &KeyRecord, note: &Note) -> Result<(), StoreError> {
        self.inner.insert(record, note).await
    }
    async fn get(&self, id: KeyId) -> Result<Option<KeyRecord>, StoreError> {
        self.reads.fetch_add(1, Ordering::SeqCst);
        if self.away.load(Ordering::SeqCst) {
            return Err(StoreError::Unavailable("away".into()));
        }
        self.inner.get(id).await
    }
    async fn update(&self, record: &KeyRecord, note: &Note) -> Result<(), StoreError> {
        self.inner.update(record, note).await
    }
    async fn page(
        &self,
        filter: &KeyFilter,
        order: KeyOrder,
        from: &PageFrom,
        limit: usize,
    ) -> Result<Page, StoreError> {
        self.inner.page(filter, order, from, limit).await
    }
    async fn settle(&self, now: Timestamp) -> Result<bool, StoreError> {
        self.inner.settle(now).await
    }
    async fn claims(&self, after: Option<String>) -> Result<ClaimPage, StoreError> {
        self.inner.claims(after).await
    }
    async fn insert_first(&self, record: &KeyRecord, note: &Note) -> Result<(), StoreError> {
        self.inner.insert_first(record, note).await
    }
    async fn changes_since(&self, seq: i64) -> Result<Vec<Change>, StoreError> {
        self.inner.changes_since(seq).await
    }
    async fn last_change(&self) -> Result<i64, StoreError> {
        if self.away.load(Ordering::SeqCst) {
            return Err(StoreError::Unavailable("away".into()));
        }
        self.inner.last_change().await
    }
    async fn forget_changes(&self, before: Timestamp) -> Result<(), StoreError> {
        self.inner.forget_changes(before).await
    }
    async fn is_empty(&self) -> Result<bool, StoreError> {
        self.inner.is_empty().await
    }
    async fn ping(&self) -> Result<(), StoreError> {
        self.inner.ping().await
    }
}

/// The same for tenants.
struct WatchedTenants {
    inner: SqlStore,
    reads: AtomicUsize,
    away: std::sync::atomic::AtomicBool,
}

#[async_trait]
impl TenantStore for WatchedTenants {
    async fn tenant(&self, id: &TenantId) -> Result<Option<TenantRecord>, StoreError> {
        self.reads.fetch_add(1, Ordering::SeqCst);
        if self.away.load(Ordering::SeqCst) {
            return Err(StoreError::Unavailable("away".into()));
        }
        self.inner.tenant(id).await
    }
    async fn insert_tenant(&self, record: &TenantRecord, note: &Note) -> Result<(), StoreError> {
        self.inner.insert_tenant(record, note).await
    }
    async fn update_tenant(&self, record: &TenantRecord, note: &Note) -> Result<u64, StoreError> {
        self.inner.update_tenant(record, note).await
    }
    async fn tenants(
        &self,
        filter: &TenantFilter,
        after: Option<&TenantId>,
        limit: usize,
    ) -> Result<TenantPage, StoreError> {
        self.inner.tenants(filter, after, limit).await
    }
}

struct Bench {
    _directory: tempfile::TempDir,
    store: Arc<Watched>,
    tenants: Arc<WatchedTenants>,
    secrets: EmbeddedSecrets,
    live: Arc<LiveKeys>,
    mint_keys: MintKeys,
    imports: Arc<Imports>,
    metrics: Arc<Metrics>,
    verifier: Arc<Verifier>,
}

async fn bench(max_queue: usize) -> Bench {
    let directory = tempfile::tempdir().unwrap();
    let url = format!("sqlite://{}/keys.db", directory.path().display());
    let clock: SharedClock = Arc::new(SystemClock::new());
    let inner = SqlStore::open(&SecretString::from(url)).await.unwrap();
    let secrets = EmbeddedSecrets::new(inner.pools().clone(), clock.clone());
    let tenants = Arc::new(WatchedTenants {
        inner: inner.clone(),
        reads: AtomicUsize::new(0),
        away: false.into(),
    });
    let store = Arc::new(Watched {
        inner,
        reads: AtomicUsize::new(0),
        away: false.into(),
    });
    let metrics = Arc::new(Metrics::new().unwrap());
    let settings = BcryptSettings {
        cost: 4,
        max_queue,
        threads: 1,
    };
    let pool = BcryptPool::start(&settings, clock.clone(), metrics.clone()).unwrap();
    let live = LiveKeys::new(
        ViewBuilder::new(Catalogue::default(), vec![]),
        clock.clone(),
    );
    let remembered = VerificationSettings {
        max_proofs: 1000,
        proof_ttl: Duration::from_secs(3600),
        negative_ttl: Duration::from_secs(3600),
    };
    let mint_keys = secrets.mint_keys().await.unwrap();
    let imports = Imports::new(&mint_keys, Arc::new(store.inner.clone()), metrics.clone());
    let verifier = Verifier::new(Parts {
        imports: imports.clone(),
        proofs: Proofs::new(&remembered).unwrap(),
        live: live.clone(),
        mint_keys: mint_keys.clone(),
        store: store.clone(),
        tenants: tenants.clone(),
        secrets: Arc::new(secrets.clone()),
        pool,
        clock,
        metrics: metrics.clone(),
        freshness: Arc::new(Freshness::new(Duration::from_secs(600), 0)),
        runtime: Handle::current(),
    });
    Bench {
        _directory: directory,
        store,
        tenants,
        secrets,
        live,
        mint_keys,
        imports,
        metrics,
        verifier,
    }
}

impl Bench {
    fn mint(&self) -> MintedKey {
        self.mint_keys
            .mint(&"sk".parse().unwrap(), Environment::Live)
            .unwrap()
    }

    async fn hash(&self, key: &MintedKey, generation: i64, cost: u32) -> Result<(), SecretError> {
        let hash = SecretHash::create(&key.secret(), cost, &mut || ()).unwrap();
        let tenant: TenantId = "acme".parse().unwrap();
        let stored = StoredHash {
            generation: Generation(generation),
            hash,
        };
        self.secrets.add_hash(&tenant, key.id, &stored).await
    }

    async fn create(&self, cost: u32) -> (MintedKey, KeyRecord) {
        let key = self.mint();
        let record = KeyRecord {
            id: key.id,
            ..crate::key::record::tests::record()
        };
        self.hash(&key, 1, cost).await.unwrap();
        self.store.insert(&record, &noted()).await.unwrap();
        (key, record)
    }

    fn reads(&self) -> usize {
        self.store.reads.load(Ordering::SeqCst)
    }
}

fn text(key: &MintedKey) -> &str {
    key.text.expose_secret()
}

#[tokio::test]
async fn a_key_is_proven_once_and_then_remembered() {
    let bench = bench(8).await;
    let (key, _) = bench.create(4).await;
    let first = bench.verifier.prove(text(&key)).await.unwrap();
    let second = bench.verifier.prove(text(&key)).await.unwrap();
    assert!(Arc::ptr_eq(&first.key, &second.key));
    assert_eq!((bench.reads(), bench.metrics.bcrypt_runs.get()), (1, 1));
}

#[tokio::test]
async fn a_check_that_landed_since_the_recall_is_not_repeated() {
    let bench = bench(8).await;
    let (key, _) = bench.create(4).await;
    let Recall::Unknown(digest) = bench.verifier.recall(text(&key)) else {
        panic!("never seen before");
    };
    let first = bench.verifier.prove(text(&key)).await.unwrap();
    let second = bench.verifier.verify(text(&key), digest).await.unwrap();
    assert!(Arc::ptr_eq(&first.key, &second.key));
    assert_eq!((bench.reads(), bench.metrics.bcrypt_runs.get()), (1, 1));
}

#[tokio::test]
async fn forged_keys_reach_neither_store_nor_bcrypt() {
    let bench = bench(8).await;
    let (key, _) = bench.create(4).await;
    let genuine = text(&key);
    for at in 0..genuine.len() {
        let mut forged = genuine.to_owned().into_bytes();
        forged[at] = if forged[at] == b'a' { b'b' } else { b'a' };
        let forged = String::from_utf8(forged).unwrap();
        assert_eq!(
            bench.verifier.prove(&forged).await.unwrap_err(),
            Refusal::Invalid
        );
    }
    for text in ["", "x", "sk_live_", &"A".repeat(100_000)] {
        assert_eq!(
            bench.verifier.prove(text).await.unwrap_err(),
            Refusal::Invalid
        );
    }
    assert_eq!((bench.reads(), bench.metrics.bcrypt_runs.get()), (0, 0));
    assert!(bench.metrics.forged_keys.get() > 50);
}

#[tokio::test]
async fn one_flight_serves_all_who_wait_for_it() {
    let bench = bench(8).await;
    let (key, _) = bench.create(8).await;
    let waiting: Vec<_> = (0..200)
        .map(|_| {
            let (verifier, presented) = (bench.verifier.clone(), text(&key).to_owned());
            tokio::spawn(async move { verifier.prove(&presented).await })
        })
        .collect();
    for waiter in waiting {
        assert!(waiter.await.unwrap().is_ok());
    }
    assert_eq!((bench.reads(), bench.metrics.bcrypt_runs.get()), (1, 1));
}

#[tokio::test]
async fn a_client_who_goes_away_does_not_end_the_flight() {
    let bench = bench(8).await;
    let (key, _) = bench.create(8).await;
    let (verifier, presented) = (bench.verifier.clone(), text(&key).to_owned());
    let leaver = tokio::spawn(async move { verifier.prove(&presented).await });
    tokio::task::yield_now().await;
    leaver.abort();
    assert!(bench.verifier.prove(text(&key)).await.is_ok());
    assert_eq!(bench.metrics.bcrypt_runs.get(), 1);
}

#[tokio::test]
async fn a_full_queue_refuses_at_once_and_recovers() {
    let bench = bench(2).await;
    let mut keys = Vec::new();
    for _ in 0..20 {
        keys.push(bench.create(8).await.0);
    }
    let outcomes: Vec<_> = keys
        .iter()
        .map(|key| {
            let (verifier, presented) = (bench.verifier.clone(), text(key).to_owned());
            tokio::spawn(async move { verifier.prove(&presented).await.map(|_| ()) })
        })
        .collect();
    let mut refused = 0;
    for outcome in outcomes {
        match outcome.await.unwrap() {
            Ok(()) => {}
            Err(Refusal::Unavailable) => refused += 1,
            Err(other) => panic!("{other:?}"),
        }
    }
    assert!((1..20).contains(&refused), "{refused}");
    assert!(bench.metrics.bcrypt_refused.get() >= 1);
    for key in &keys {
        assert!(
            bench.verifier.prove(text(key)).await.is_ok(),
            "refusals are not remembered"
        );
    }
}

#[tokio::test]
async fn a_store_that_is_away_is_not_an_invalid_key() {
    let bench = bench(8).await;
    let (key, _) = bench.create(4).await;
    bench.store.away.store(true, Ordering::SeqCst);
    assert_eq!(
        bench.verifier.prove(text(&key)).await.unwrap_err(),
        Refusal::Unavailable
    );
    bench.store.away.store(false, Ordering::SeqCst);
    assert!(bench.verifier.prove(text(&key)).await.is_ok());
}

#[tokio::test]
async fn a_wrong_secret_is_hashed_once_and_then_remembered() {
    let bench = bench(8).await;
    let (key, record) = bench.create(4).await;
    let replaced = bench
        .mint_keys
        .mint_again(&"sk".parse().unwrap(), Environment::Live, key.id)
        .unwrap();
    for _ in 0..5 {
        assert_eq!(
            bench.verifier.prove(text(&replaced)).await.unwrap_err(),
            Refusal::Invalid
        );
    }
    assert_eq!(bench.metrics.bcrypt_runs.get(), 1);
    assert!(bench.verifier.prove(text(&key)).await.is_ok());
    drop(record);
}

#[tokio::test]
async fn unknown_and_revoked_keys_cost_no_bcrypt() {
    let bench = bench(8).await;
    assert_eq!(
        bench.verifier.prove(text(&bench.mint())).await.unwrap_err(),
        Refusal::Invalid
    );
    let (key, record) = bench.create(4).await;
    bench
        .store
        .update(
            &KeyRecord {
                standing: Standing::Revoked,
                revision: 2,
                ..record
            },
            &noted(),
        )
        .await
        .unwrap();
    assert_eq!(
        bench.verifier.prove(text(&key)).await.unwrap_err(),
        Refusal::Invalid
    );
    assert_eq!(bench.metrics.bcrypt_runs.get(), 0);
}

#[tokio::test]
async fn old_and_new_secret_are_told_apart() {
    let bench = bench(8).await;
    let (old, record) = bench.create(4).await;
    let new = bench
        .mint_keys
        .mint_again(&"sk".parse().unwrap(), Environment::Live, old.id)
        .unwrap();
    bench.hash(&new, 2, 4).await.unwrap();
    let valid_until = crate::clock::Timestamp::MAX;
    let regenerated = KeyRecord {
        generation: Generation(2),
        previous: Some(PreviousSecret {
            generation: Generation(1),
            valid_until,
        }),
        revision: 2,
        ..record
    };
    bench.store.update(&regenerated, &noted()).await.unwrap();
    let old_proof = bench.verifier.prove(text(&old)).await.unwrap();
    let new_proof = bench.verifier.prove(text(&new)).await.unwrap();
    assert!(
        Arc::ptr_eq(&old_proof.key, &new_proof.key),
        "one live object, one set of buckets"
    );
    assert_eq!(
        (old_proof.generation, new_proof.generation),
        (Generation(1), Generation(2))
    );
    // The grace period is ended: the proof stays, the authority goes.
    bench.live.apply(KeyRecord {
        previous: None,
        revision: 3,
        ..regenerated
    });
    let now = crate::clock::Timestamp::from_millis(5000);
    let authority = |proof: &Proof| proof.key.view().authority.check(proof.generation, now);
    assert_eq!(authority(&old_proof), Err(Denial::Superseded));
    assert_eq!(authority(&new_proof), Ok(()));
}

#[tokio::test]
async fn a_damaged_hash_is_an_error_for_that_key_alone() {
    let bench = bench(8).await;
    let damaged = bench.mint();
    let tenant: TenantId = "acme".parse().unwrap();
    let hash = SecretHash::from_stored("not a hash".into());
    let stored = StoredHash {
        generation: Generation(1),
        hash,
    };
    bench
        .secrets
        .add_hash(&tenant, damaged.id, &stored)
        .await
        .unwrap();
    let record = KeyRecord {
        id: damaged.id,
        ..crate::key::record::tests::record()
    };
    bench.store.insert(&record, &noted()).await.unwrap();
    let missing = bench.mint();
    bench
        .store
        .insert(
            &KeyRecord {
                id: missing.id,
                ..record
            },
            &noted(),
        )
        .await
        .unwrap();
    let (sound, _) = bench.create(4).await;
    assert_eq!(
        bench.verifier.prove(text(&damaged)).await.unwrap_err(),
        Refusal::Unavailable
    );
    assert_eq!(
        bench.verifier.prove(text(&missing)).await.unwrap_err(),
        Refusal::Unavailable
    );
    assert!(bench.verifier.prove(text(&sound)).await.is_ok());
}
