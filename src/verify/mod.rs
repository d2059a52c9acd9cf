//! Presented key -> live key, or a reason.
//!
//! A proof is not an authority: what is remembered here is only that a presented key matched a
//! stored hash, which never changes. Whether the key may act now is read from its live record on
//! every request (see [`crate::key::Authority`]).
//!
//! ```text
//! presented --digest--> proofs: hit -> live key                    (warm: one lookup)
//!                       miss -> form and keyed check, or the filter of imports
//!                                                                 (no store is asked)
//!                            -> one flight per digest: record, hash, bcrypt pool, tenant -> proof
//! ```
//!
//! What has the form of our own keys is one, or nothing; everything else may have been imported
//! ([`imports`]), as a key or, where user and password are presented, as a login.
//!
//! Thread safety: everything is shared and lock-free on a hit. Failure: what can't be verified now
//! is [`Refusal::Unavailable`] and is not remembered.

pub mod follow;
pub mod imports;
pub mod live;
pub mod offer;
pub mod pool;
pub mod proofs;
pub mod records;
pub mod tenant;
pub mod view;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::watch;
use zeroize::Zeroizing;

pub use follow::{Follower, Freshness};
pub use imports::Imports;
pub use live::{LiveKey, LiveKeys};
pub use offer::{Offer, Recalled, Unverified};
pub use pool::BcryptPool;
pub use proofs::{Digest, Proof, Proofs, Recall};
pub use records::Records;
pub use tenant::{LiveTenants, Tenant, TenantLoad};
pub use view::{KeyView, ViewBuilder};

use crate::clock::SharedClock;
use crate::key::format::KEY_LEN_MAX;
use crate::key::imported::{self, PLAIN_LEN_MAX};
use crate::key::lookup::Lookups;
use crate::key::record::Standing;
use crate::key::{Generation, KeyId, KeyRecord, MintKeys, Pair, Presented, TenantId};
use crate::secrets::SecretStore;
use crate::store::{KeyStore, TenantStore};
use crate::telemetry::Metrics;

/// Why a presented key was not proven.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// Unknown, malformed, forged, revoked, or an old secret.
    Invalid,
    /// It can't be said now: a store is away, or too many checks wait.
    Unavailable,
}

/// How long a request waits for its key to be verified.
const FLIGHT_WAIT_MAX: Duration = Duration::from_secs(10);
/// How often a record is read again whose hash has gone since.
const READS_MAX: usize = 3;

/// The longest text that can be a key.
const PRESENTED_LEN_MAX: usize = if PLAIN_LEN_MAX > KEY_LEN_MAX {
    PLAIN_LEN_MAX
} else {
    KEY_LEN_MAX
};

type Outcome = Result<Proof, Refusal>;
type Flight = watch::Receiver<Option<Outcome>>;

/// What a flight has to find out.
#[derive(Clone)]
struct Question {
    whose: Whose,
    /// What bcrypt is asked about.
    secret: Zeroizing<String>,
}

/// Where the key is found.
#[derive(Clone)]
enum Whose {
    /// It says so itself.
    Minted(KeyId),
    ImportedKey(Lookups),
    Login(Lookups),
}

/// Verifies presented keys.
pub struct Verifier {
    proofs: Proofs,
    live: Arc<LiveKeys>,
    mint_keys: MintKeys,
    imports: Arc<Imports>,
    store: Arc<dyn KeyStore>,
    tenants: Arc<dyn TenantStore>,
    secrets: Arc<dyn SecretStore>,
    pool: Arc<BcryptPool>,
    flights: Mutex<HashMap<Digest, Flight>>,
    flights_max: usize,
    clock: SharedClock,
    metrics: Arc<Metrics>,
    freshness: Arc<Freshness>,
    /// Where flights run, so that a client who goes away doesn't end the check that others wait for.
    runtime: Handle,
}

/// What a [`Verifier`] is made of.
pub struct Parts {
    pub proofs: Proofs,
    pub live: Arc<LiveKeys>,
    pub mint_keys: MintKeys,
    pub imports: Arc<Imports>,
    pub store: Arc<dyn KeyStore>,
    pub tenants: Arc<dyn TenantStore>,
    pub secrets: Arc<dyn SecretStore>,
    pub pool: Arc<BcryptPool>,
    pub clock: SharedClock,
    pub metrics: Arc<Metrics>,
    pub freshness: Arc<Freshness>,
    pub runtime: Handle,
}

/// Takes a flight out of the list however it ends.
struct Landing<'a> {
    verifier: &'a Verifier,
    digest: Digest,
}

impl Drop for Landing<'_> {
    fn drop(&mut self) {
        self.verifier.flights.lock().remove(&self.digest);
    }
}

impl Verifier {
    pub fn new(parts: Parts) -> Arc<Self> {
        Arc::new(Verifier {
            flights_max: parts.pool.capacity(),
            proofs: parts.proofs,
            live: parts.live,
            mint_keys: parts.mint_keys,
            imports: parts.imports,
            store: parts.store,
            tenants: parts.tenants,
            secrets: parts.secrets,
            pool: parts.pool,
            flights: Mutex::new(HashMap::new()),
            clock: parts.clock,
            metrics: parts.metrics,
            freshness: parts.freshness,
            runtime: parts.runtime,
        })
    }

    /// Whether live records are too old to be trusted.
    pub fn is_stale(&self, now_us: u64) -> bool {
        self.freshness.is_stale(now_us)
    }

    /// What is remembered about `presented`. No store, no HMAC, no bcrypt.
    pub fn recall(&self, presented: &str) -> Recall {
        let recalled = self.look_up(presented);
        match &recalled {
            Recall::Proven(_) => self.metrics.proof_hits.inc(),
            Recall::Refused => self.metrics.proof_negative_hits.inc(),
            Recall::Unknown(_) => self.metrics.proof_misses.inc(),
        }
        recalled
    }

    fn look_up(&self, presented: &str) -> Recall {
        if presented.len() > PRESENTED_LEN_MAX {
            // Not a key, and not worth a digest: it may be as long as the header limit allows.
            return Recall::Refused;
        }
        self.proofs.recall(presented)
    }

    /// The same for all that a request presents: the key first, then user and password. It counts once.
    pub fn recall_offer(&self, offer: Offer<'_>) -> Recalled {
        let pair = offer.pair.filter(|_| !self.imports.is_empty());
        let key = match self.look_up(&offer.key) {
            Recall::Proven(proof) => return self.recalled(proof),
            Recall::Refused => None,
            Recall::Unknown(digest) => Some(digest),
        };
        let pair = match pair.map(|pair| (self.proofs.recall_pair(&pair), pair)) {
            Some((Recall::Proven(proof), _)) => return self.recalled(proof),
            Some((Recall::Unknown(digest), pair)) => Some((pair, digest)),
            Some((Recall::Refused, _)) | None => None,
        };
        if key.is_none() && pair.is_none() {
            self.metrics.proof_negative_hits.inc();
            return Recalled::Refused;
        }
        self.metrics.proof_misses.inc();
        let key = key.map(|digest| (Zeroizing::new(offer.key.into_owned()), digest));
        Recalled::Unknown(Box::new(Unverified { key, pair }))
    }

    fn recalled(&self, proof: Proof) -> Recalled {
        self.metrics.proof_hits.inc();
        Recalled::Proven(proof)
    }

    /// Whether what is presented may be meant for Sidekey: it has the form of a key of ours, or was
    /// imported.
    pub fn may_be_ours(&self, key: &str, pair: Option<&Pair>) -> bool {
        if Presented::parse(key).is_some() {
            return true;
        }
        let is_key = imported::is_plain(key) && self.imports.key(key).is_some();
        is_key || pair.is_some_and(|pair| self.imports.login(pair).is_some())
    }

    /// The same for what is not verified yet.
    pub fn may_be_own(&self, unverified: &Unverified) -> bool {
        let key = unverified.key.as_ref().map_or("", |(key, _)| key);
        let pair = unverified.pair.as_ref().map(|(pair, _)| pair);
        self.may_be_ours(key, pair)
    }

    /// Verifies `presented`, which [`Verifier::recall`] did not know.
    pub async fn verify(self: &Arc<Self>, presented: &str, digest: Digest) -> Outcome {
        let question = self.about_key(presented)?;
        let question = question.ok_or_else(|| self.unknown())?;
        self.ask(question, digest).await
    }

    /// Verifies what [`Verifier::recall_offer`] did not know.
    pub async fn verify_offer(self: &Arc<Self>, unverified: &Unverified) -> Outcome {
        let key = match &unverified.key {
            Some((text, digest)) => match self.about_key(text) {
                Ok(question) => question.map(|question| (question, *digest)),
                Err(refusal) => return Err(refusal),
            },
            None => None,
        };
        let pair = unverified.pair.as_ref().and_then(|(pair, digest)| {
            let question = self.about_login(pair)?;
            Some((question, *digest))
        });
        let mut outcome = match (&key, &pair) {
            (None, None) => Err(self.unknown()),
            _ => Err(Refusal::Invalid),
        };
        for (question, digest) in key.into_iter().chain(pair) {
            outcome = self.ask(question, digest).await;
            if !matches!(outcome, Err(Refusal::Invalid)) {
                break;
            }
        }
        outcome
    }

    /// Recalls or verifies, for callers that are not on the request path.
    pub async fn prove(self: &Arc<Self>, presented: &str) -> Outcome {
        match self.recall(presented) {
            Recall::Proven(proof) => Ok(proof),
            Recall::Refused => Err(Refusal::Invalid),
            Recall::Unknown(digest) => self.verify(presented, digest).await,
        }
    }

    /// The form and the keyed check, or the filter of what was imported: what fails here costs neither
    /// a look-up nor bcrypt. `None`: it is none that was imported.
    fn about_key(&self, presented: &str) -> Result<Option<Question>, Refusal> {
        let Some(key) = Presented::parse(presented) else {
            let is_plain = imported::is_plain(presented);
            let places = is_plain.then(|| self.imports.key(presented)).flatten();
            return Ok(places.map(|places| Question {
                whose: Whose::ImportedKey(places),
                secret: imported::digest(presented),
            }));
        };
        if !self.mint_keys.minted(&key) {
            self.metrics.forged_keys.inc();
            return Err(Refusal::Invalid);
        }
        Ok(Some(Question {
            whose: Whose::Minted(key.id()),
            secret: Zeroizing::new(key.secret().to_owned()),
        }))
    }

    fn about_login(&self, pair: &Pair) -> Option<Question> {
        let places = self.imports.login(pair)?;
        Some(Question {
            whose: Whose::Login(places),
            secret: Zeroizing::new(pair.password().to_owned()),
        })
    }

    /// What is none of ours by its form was imported, or is nothing.
    fn unknown(&self) -> Refusal {
        if !self.imports.is_empty() {
            self.metrics.import_filter_rejections.inc();
        }
        Refusal::Invalid
    }

    /// Waits for the answer of the flight of `digest`.
    async fn ask(self: &Arc<Self>, question: Question, digest: Digest) -> Outcome {
        let mut flight = self.board(question, digest)?;
        let landing = flight.wait_for(Option::is_some);
        let landed = match tokio::time::timeout(FLIGHT_WAIT_MAX, landing).await {
            Ok(Ok(outcome)) => outcome.clone(),
            // The flight ended without an answer, or takes too long.
            Ok(Err(_)) | Err(_) => None,
        };
        landed.unwrap_or(Err(Refusal::Unavailable))
    }

    /// Joins the flight of `digest`, or starts it.
    fn board(self: &Arc<Self>, question: Question, digest: Digest) -> Result<Flight, Refusal> {
        let mut flights = self.flights.lock();
        if let Some(flight) = flights.get(&digest) {
            return Ok(flight.clone());
        }
        // A flight may have landed since the caller's look; what it found was noted before it left
        // the list.
        let landed = match self.proofs.recall_digest(digest) {
            Recall::Proven(proof) => Some(Ok(proof)),
            Recall::Refused => Some(Err(Refusal::Invalid)),
            Recall::Unknown(_) => None,
        };
        if landed.is_some() {
            return Ok(watch::channel(landed).1);
        }
        if flights.len() >= self.flights_max {
            self.metrics.bcrypt_refused.inc();
            return Err(Refusal::Unavailable);
        }
        let (sender, receiver) = watch::channel(None);
        flights.insert(digest, receiver.clone());
        drop(flights);
        let verifier = self.clone();
        self.runtime.spawn(async move {
            let outcome = {
                let _landing = Landing {
                    verifier: &verifier,
                    digest,
                };
                let outcome = verifier.fly(&question).await;
                match &outcome {
                    Ok(proof) => verifier.proofs.insert(digest, proof.clone()),
                    Err(Refusal::Invalid) => verifier.proofs.refuse(digest),
                    Err(Refusal::Unavailable) => {}
                }
                outcome
            };
            sender.send_replace(Some(outcome));
        });
        Ok(receiver)
    }

    /// Makes the key of that id live without a secret: for who has proven one before, and is held to
    /// what the key is now.
    pub async fn revive(&self, id: KeyId) -> Result<Arc<LiveKey>, Refusal> {
        if let Some(live) = self.live.get(id) {
            return Ok(live);
        }
        let load = self.live.begin_load(id);
        let record = self.read_record(id).await?;
        // To be held until the key is live, so that the tenant stays with it.
        let _tenant = self.load_tenant(&record.tenant_id).await?;
        Ok(load.finish(record))
    }

    /// Whose key it is, its record, its hash, bcrypt, its tenant.
    async fn fly(&self, question: &Question) -> Outcome {
        let id = match &question.whose {
            Whose::Minted(id) => *id,
            Whose::ImportedKey(places) | Whose::Login(places) => self.find_import(places).await?,
        };
        // Announced before the record is read, so that a change in between is not missed.
        let load = self.live.begin_load(id);
        for _ in 0..READS_MAX {
            let record = self.read_record(id).await?;
            if let Some(generation) = self.matching_generation(&record, question).await? {
                // To be held until the key is live, so that the tenant stays with it.
                let _tenant = self.load_tenant(&record.tenant_id).await?;
                return Ok(Proof {
                    key: load.finish(record),
                    generation,
                });
            }
            // The record named no hash that is there: it was changed between the two reads.
        }
        tracing::error!(key_id = %id, "a key has no stored hash; regenerate the key");
        self.metrics.store_errors.inc();
        Err(Refusal::Unavailable)
    }

    /// Makes the tenant of a key live. One that is live already is followed, and not read again.
    async fn load_tenant(&self, id: &TenantId) -> Result<TenantLoad<'_>, Refusal> {
        // Announced before the row is read, so that a change in between is not missed.
        let load = self.live.tenants().begin_load(id);
        if !load.is_live() {
            let row = self.tenants.tenant(id).await;
            let row = row.map_err(|error| self.away("read a tenant", &error))?;
            self.live.finish_tenant(&load, row);
        }
        Ok(load)
    }

    /// The key that was imported to one of `places`.
    async fn find_import(&self, places: &Lookups) -> Result<KeyId, Refusal> {
        self.metrics.import_lookups.inc();
        let found = self.imports.find(places).await;
        let found = found.map_err(|error| self.away("look an imported key up", &error))?;
        found.ok_or(Refusal::Invalid)
    }

    /// The record of a key that may still be used.
    async fn read_record(&self, id: KeyId) -> Result<KeyRecord, Refusal> {
        let record = self.store.get(id).await;
        match record.map_err(|error| self.away("read a key", &error))? {
            None => Err(Refusal::Invalid),
            Some(record) if record.standing == Standing::Revoked => {
                // In case its live record missed that.
                self.live.apply(record);
                Err(Refusal::Invalid)
            }
            Some(record) => Ok(record),
        }
    }

    /// Which of the key's accepted secrets is asked about; `None` where no accepted one has a hash.
    async fn matching_generation(
        &self,
        record: &KeyRecord,
        question: &Question,
    ) -> Result<Option<Generation>, Refusal> {
        let is_minted = matches!(question.whose, Whose::Minted(_));
        let now = self.clock.now();
        let hashes = self
            .secrets
            .hashes(&record.tenant_id, record.id)
            .await
            .map_err(|error| self.away("read a key's hash", &error))?;
        let mut was_tried = false;
        for stored in hashes {
            if !record.authority().accepts(stored.generation, now) {
                continue;
            }
            was_tried = true;
            if record.is_imported(stored.generation) == is_minted {
                // Hashed in another way, so it can't be the one.
                continue;
            }
            let (secret, hash) = (question.secret.clone(), stored.hash);
            let is_login = matches!(question.whose, Whose::Login(_));
            let run = self
                .pool
                .run(move |pause| {
                    if is_login {
                        hash.verify_password(&secret, pause)
                    } else {
                        hash.verify(&secret, pause)
                    }
                })
                .await;
            match run.map_err(|_| Refusal::Unavailable)? {
                Ok(true) => return Ok(Some(stored.generation)),
                Ok(false) => {}
                Err(error) => {
                    tracing::error!(key_id = %record.id, %error, "a key's stored hash can't be used; regenerate the key");
                    self.metrics.store_errors.inc();
                    return Err(Refusal::Unavailable);
                }
            }
        }
        if was_tried {
            Err(Refusal::Invalid)
        } else {
            Ok(None)
        }
    }

    fn away(&self, what: &str, error: &dyn std::error::Error) -> Refusal {
        tracing::error!(%error, "could not {what}");
        self.metrics.store_errors.inc();
        Refusal::Unavailable
    }

    /// Brings gauges up to date and forgets idle keys. Called from time to time.
    pub fn tidy(&self) {
        self.proofs.tidy();
        self.live.sweep(self.clock.monotonic_us());
        self.metrics
            .proof_entries
            .set(i64::try_from(self.proofs.len()).unwrap_or(i64::MAX));
        self.metrics
            .live_keys
            .set(i64::try_from(self.live.len()).unwrap_or(i64::MAX));
    }
}

#[cfg(test)]
mod tests;
