//! What is remembered about presented keys, by digest.
//!
//! The digest is BLAKE3 in its keyed mode with a secret that this process made up: the plain key
//! is never a cache key, and nobody outside can compute, guess or collide a digest. Wrong keys
//! are remembered in a small cache of their own, so they can't push out good ones.

use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;
use std::time::Duration;

use moka::sync::Cache;

use super::live::LiveKey;
use crate::config::settings::VerificationSettings;
use crate::key::format::RandomnessError;
use crate::key::{Generation, Pair};

/// Wrong keys that are remembered.
const NEGATIVE_ENTRIES_MAX: u64 = 10_000;

/// The keyed digest of a presented key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Digest([u8; 32]);

impl std::hash::Hash for Digest {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let mut head = [0u8; 8];
        head.copy_from_slice(&self.0[..8]);
        state.write_u64(u64::from_le_bytes(head));
    }
}

/// A digest is evenly spread already, so its head is its hash.
#[derive(Debug, Default, Clone, Copy)]
pub struct DigestHasher(u64);

impl Hasher for DigestHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = number;
    }
}

type DigestCache<V> = Cache<Digest, V, BuildHasherDefault<DigestHasher>>;

/// That a presented key matched the hash of one generation of a key's secret.
#[derive(Debug, Clone)]
pub struct Proof {
    pub key: Arc<LiveKey>,
    pub generation: Generation,
}

/// What is remembered about a presented key.
#[derive(Debug)]
pub enum Recall {
    Proven(Proof),
    /// It was wrong a moment ago.
    Refused,
    Unknown(Digest),
}

/// The two caches.
pub struct Proofs {
    digest_key: [u8; blake3::KEY_LEN],
    pair_key: [u8; blake3::KEY_LEN],
    good: DigestCache<Proof>,
    bad: DigestCache<()>,
}

impl Proofs {
    pub fn new(settings: &VerificationSettings) -> Result<Self, RandomnessError> {
        let random = || {
            let mut key = [0u8; blake3::KEY_LEN];
            getrandom::fill(&mut key).map_err(|_| RandomnessError)?;
            Ok(key)
        };
        Ok(Proofs {
            digest_key: random()?,
            pair_key: random()?,
            good: cache(settings.max_proofs)
                .time_to_idle(settings.proof_ttl)
                .build_with_hasher(Default::default()),
            bad: negative(settings.negative_ttl),
        })
    }

    fn digest(&self, presented: &str) -> Digest {
        Digest(*blake3::keyed_hash(&self.digest_key, presented.as_bytes()).as_bytes())
    }

    /// That of a user and a password. Their text presented as a key has another one.
    fn pair_digest(&self, pair: &Pair) -> Digest {
        Digest(*blake3::keyed_hash(&self.pair_key, pair.text().as_bytes()).as_bytes())
    }

    /// Looks a user and a password up.
    pub fn recall_pair(&self, pair: &Pair) -> Recall {
        self.recall_digest(self.pair_digest(pair))
    }

    /// Looks `presented` up.
    pub fn recall(&self, presented: &str) -> Recall {
        self.recall_digest(self.digest(presented))
    }

    /// Looks up what has this digest.
    pub fn recall_digest(&self, digest: Digest) -> Recall {
        match self.good.get(&digest) {
            Some(proof) => Recall::Proven(proof),
            None if self.bad.contains_key(&digest) => Recall::Refused,
            None => Recall::Unknown(digest),
        }
    }

    /// Remembers a proof.
    pub fn insert(&self, digest: Digest, proof: Proof) {
        self.good.insert(digest, proof);
    }

    /// Remembers that a key is wrong.
    pub fn refuse(&self, digest: Digest) {
        self.bad.insert(digest, ());
    }

    /// Forgets what is over its time.
    pub fn tidy(&self) {
        self.good.run_pending_tasks();
        self.bad.run_pending_tasks();
    }

    /// Proofs that are remembered, as of the last [`Proofs::tidy`].
    pub fn len(&self) -> u64 {
        self.good.entry_count()
    }

    /// Whether no proof is remembered.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

fn cache<V: Clone + Send + Sync + 'static>(
    max_entries: u64,
) -> moka::sync::CacheBuilder<Digest, V, Cache<Digest, V, std::hash::RandomState>> {
    Cache::builder().max_capacity(max_entries)
}

fn negative(time_to_live: Duration) -> DigestCache<()> {
    cache(NEGATIVE_ENTRIES_MAX)
        .time_to_live(time_to_live)
        .build_with_hasher(Default::default())
}
