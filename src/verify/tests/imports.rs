//! Secrets that Sidekey did not make.

use std::borrow::Cow;

use super::*;
use crate::key::record::{CredentialKind, KeyOrigin};
use crate::key::{KeyId, Lookup, MintKey};
use crate::store::{ImportPage, ImportStore, Imported};

const KEY: &str = "kq83nd02mxp5w7vz1rt6uy4HJ";

impl Bench {
    async fn import(&self, places: Lookups, hash: SecretHash) -> KeyRecord {
        let record = KeyRecord {
            id: KeyId::random().unwrap(),
            origin: KeyOrigin::Imported,
            credential: CredentialKind::Key,
            ..crate::key::record::tests::record()
        };
        let stored = StoredHash {
            generation: Generation::FIRST,
            hash,
        };
        let secrets = &self.secrets;
        let added = secrets.add_hash(&record.tenant_id, record.id, &stored);
        added.await.unwrap();
        let store = &self.store.inner;
        let imported = store.insert_imported(&record, &places, &noted()).await;
        assert_eq!(imported.unwrap(), Imported::Added);
        record
    }

    async fn import_key(&self, text: &str) -> KeyRecord {
        let hash = SecretHash::create(&imported::digest(text), 4, &mut || ()).unwrap();
        let record = self.import(self.imports.places_of_key(text), hash).await;
        self.imports.read_since(0).await.unwrap();
        record
    }

    async fn import_login(&self, user: &str, password: &str) -> KeyRecord {
        let hash = SecretHash::from_stored(bcrypt::non_truncating_hash(password, 4).unwrap());
        let record = self.import(self.imports.places_of_user(user), hash).await;
        self.imports.read_since(0).await.unwrap();
        record
    }

    /// What a request with `user:password` comes to.
    async fn log_in(&self, user: &str, password: &str) -> Outcome {
        let offer = Offer {
            key: Cow::Borrowed(password),
            pair: Pair::parse(&format!("{user}:{password}")),
        };
        match self.verifier.recall_offer(offer) {
            Recalled::Proven(proof) => Ok(proof),
            Recalled::Refused => Err(Refusal::Invalid),
            Recalled::Unknown(unverified) => self.verifier.verify_offer(&unverified).await,
        }
    }

    /// Runs of bcrypt, reads of records, looks at the index.
    fn work(&self) -> (u64, usize, u64) {
        let metrics = &self.metrics;
        (
            metrics.bcrypt_runs.get(),
            self.reads(),
            metrics.import_lookups.get(),
        )
    }
}

#[tokio::test]
async fn an_imported_key_is_proven_once_and_then_remembered() {
    let bench = bench(8).await;
    let record = bench.import_key(KEY).await;
    let long = "x9K".repeat(80);
    bench.import_key(&long).await;
    let first = bench.verifier.prove(KEY).await.unwrap();
    assert_eq!(
        (first.key.id(), first.generation),
        (record.id, Generation::FIRST)
    );
    assert_eq!(bench.work(), (1, 1, 1));
    assert!(bench.verifier.prove(KEY).await.is_ok());
    assert_eq!(bench.work(), (1, 1, 1));
    assert!(bench.verifier.prove(&long).await.is_ok());
    // All of a long key counts.
    let other = format!("{}y", &long[..long.len() - 1]);
    assert_eq!(
        bench.verifier.prove(&other).await.unwrap_err(),
        Refusal::Invalid
    );
}

#[tokio::test]
async fn a_flood_of_unknown_keys_reaches_neither_store_nor_bcrypt() {
    let bench = bench(8).await;
    assert_eq!(
        bench.verifier.prove(KEY).await.unwrap_err(),
        Refusal::Invalid
    );
    assert_eq!(
        bench.metrics.import_filter_rejections.get(),
        0,
        "nothing was imported"
    );
    bench.import_key(KEY).await;
    bench.import_login("alice", "wonderland").await;
    for n in 0..1000 {
        let unknown = bench.verifier.prove(&format!("{KEY}{n}")).await;
        assert_eq!(unknown.unwrap_err(), Refusal::Invalid);
        let unknown = bench.log_in(&format!("alice{n}"), "wonderland").await;
        assert_eq!(unknown.unwrap_err(), Refusal::Invalid);
    }
    assert_eq!(bench.work(), (0, 0, 0));
    assert_eq!(bench.metrics.import_filter_rejections.get(), 2000);
    // What was unknown before it was imported works at once.
    let late = format!("{KEY}7");
    bench.import_key(&late).await;
    assert!(bench.verifier.prove(&late).await.is_ok());
}

#[tokio::test]
async fn a_login_needs_its_user_and_its_password() {
    let bench = bench(8).await;
    let record = bench.import_login("alice", "wonderland").await;
    let proof = bench.log_in("alice", "wonderland").await.unwrap();
    assert_eq!(proof.key.id(), record.id);
    assert_eq!(bench.work(), (1, 1, 1));
    assert!(bench.log_in("alice", "wonderland").await.is_ok());
    assert_eq!(bench.work(), (1, 1, 1), "remembered");
    let (hits, misses) = (&bench.metrics.proof_hits, &bench.metrics.proof_misses);
    assert_eq!((hits.get(), misses.get()), (1, 1), "one a request");
    for _ in 0..2 {
        let wrong = bench.log_in("alice", "looking-glass").await;
        assert_eq!(wrong.unwrap_err(), Refusal::Invalid);
        assert_eq!(bench.work(), (2, 2, 2), "a wrong one is remembered too");
    }
    for text in ["wonderland", "alice", "alice:wonderland"] {
        let alone = bench.verifier.prove(text).await;
        assert_eq!(alone.unwrap_err(), Refusal::Invalid, "{text}");
    }
    assert_eq!(bench.work(), (2, 2, 2));
}

#[tokio::test]
async fn a_key_as_a_password_costs_one_check_whoever_the_user_is() {
    let bench = bench(8).await;
    bench.import_key(KEY).await;
    for user in ["a", "b", "c"] {
        assert!(bench.log_in(user, KEY).await.is_ok());
    }
    assert_eq!(bench.work(), (1, 1, 1));
}

#[tokio::test]
async fn a_replaced_import_works_through_its_grace_period() {
    let bench = bench(8).await;
    let record = bench.import_key(KEY).await;
    let minted = bench
        .mint_keys
        .mint_again(&"sk".parse().unwrap(), Environment::Live, record.id)
        .unwrap();
    bench.hash(&minted, 2, 4).await.unwrap();
    let end = SystemClock::new().now().plus(Duration::from_secs(3600));
    let mut replaced = KeyRecord {
        generation: Generation(2),
        previous: Some(PreviousSecret {
            generation: Generation::FIRST,
            valid_until: end,
        }),
        revision: 2,
        ..record
    };
    bench.store.update(&replaced, &noted()).await.unwrap();
    let old = bench.verifier.prove(KEY).await.unwrap();
    let new = bench.verifier.prove(text(&minted)).await.unwrap();
    assert!(Arc::ptr_eq(&old.key, &new.key));
    assert_eq!(
        (old.generation, new.generation),
        (Generation::FIRST, Generation(2))
    );
    assert_eq!(
        bench.metrics.bcrypt_runs.get(),
        2,
        "each is compared with its own hash only"
    );
    replaced.previous = None;
    replaced.revision = 3;
    bench.store.update(&replaced, &noted()).await.unwrap();
    bench.live.apply(replaced.clone());
    let now = SystemClock::new().now();
    let check = old.key.view().authority.check(old.generation, now);
    assert_eq!(check, Err(Denial::Superseded));
    // Who has forgotten the proof asks again, and runs no bcrypt.
    let question = Question {
        whose: Whose::ImportedKey(bench.imports.places_of_key(KEY)),
        secret: imported::digest(KEY),
    };
    assert_eq!(
        bench.verifier.fly(&question).await.unwrap_err(),
        Refusal::Invalid
    );
    assert_eq!(bench.metrics.bcrypt_runs.get(), 2);
}

#[tokio::test]
async fn imports_of_others_are_followed() {
    let bench = bench(8).await;
    let mut follower = bench.follower(0);
    let add = async |text: &str| {
        let hash = SecretHash::create(&imported::digest(text), 4, &mut || ()).unwrap();
        bench.import(bench.imports.places_of_key(text), hash).await
    };
    add(KEY).await;
    bench.create(4).await;
    assert!(bench.verifier.prove(KEY).await.is_err());
    follower.follow().await.unwrap();
    assert!(bench.verifier.prove(KEY).await.is_ok());
    assert_eq!((follower.seen, follower.imports_seen), (2, 1));

    // An older database takes over, in which the numbers stand for others.
    sqlx::query("DELETE FROM imported_keys")
        .execute(bench.store.inner.writer())
        .await
        .unwrap();
    sqlx::query("UPDATE change_counter SET seq = 0")
        .execute(bench.store.inner.writer())
        .await
        .unwrap();
    sqlx::query("DELETE FROM key_changes")
        .execute(bench.store.inner.writer())
        .await
        .unwrap();
    let other = format!("{KEY}2");
    add(&other).await;
    follower.follow().await.unwrap();
    assert!(bench.verifier.prove(&other).await.is_ok());
    assert_eq!((follower.seen, follower.imports_seen), (1, 1));
}

#[tokio::test]
async fn imports_of_before_a_rotation_are_found() {
    let bench = bench(8).await;
    bench.import_key(KEY).await;
    let previous = bench.mint_keys.iter().cloned().collect();
    let rotated = MintKeys::new(MintKey::new(&[9; 32]), previous);
    let store = Arc::new(bench.store.inner.clone());
    let imports = Imports::new(&rotated, store, bench.metrics.clone());
    imports.read_since(0).await.unwrap();
    let places = imports.key(KEY).expect("the filter knows it");
    assert!(imports.find(&places).await.unwrap().is_some());
    assert!(imports.key("something else, 8Hq2").is_none());
}

/// Another instance imports a key right after this one has read which imports there are.
struct Busy {
    inner: SqlStore,
    next: Mutex<Option<(KeyRecord, Lookups)>>,
}

#[async_trait]
impl ImportStore for Busy {
    async fn insert_imported(
        &self,
        record: &KeyRecord,
        lookups: &[Lookup],
        note: &Note,
    ) -> Result<Imported, StoreError> {
        self.inner.insert_imported(record, lookups, note).await
    }
    async fn find_imported(&self, lookups: &[Lookup]) -> Result<Option<KeyId>, StoreError> {
        self.inner.find_imported(lookups).await
    }
    async fn imports_since(&self, seq: i64) -> Result<ImportPage, StoreError> {
        let page = self.inner.imports_since(seq).await?;
        let next = self.next.lock().take();
        if let Some((record, places)) = next {
            self.insert_imported(&record, &places, &noted()).await?;
        }
        Ok(page)
    }
}

/// Who has applied a change knows all imports up to it, whenever they were made.
#[tokio::test]
async fn an_import_while_others_are_read_is_not_missed() {
    let bench = bench(8).await;
    let record = KeyRecord {
        id: KeyId::random().unwrap(),
        origin: KeyOrigin::Imported,
        ..crate::key::record::tests::record()
    };
    let store = Arc::new(Busy {
        inner: bench.store.inner.clone(),
        next: Mutex::new(Some((record, bench.imports.places_of_key(KEY)))),
    });
    let imports = Imports::new(&bench.mint_keys, store, bench.metrics.clone());
    let mut follower = Follower {
        imports: imports.clone(),
        ..bench.follower(0)
    };
    bench.create(4).await;
    while follower.seen < 2 {
        follower.follow().await.unwrap();
    }
    assert!(imports.key(KEY).is_some());
}
