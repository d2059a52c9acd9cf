//! What is known in memory of imported secrets: whether a presented text may be one at all. An
//! imported key has no keyed check, so this is what keeps a flood of unknown keys from the store and
//! from bcrypt.
//!
//! ```text
//! presented --HMAC--> places in the index --filter--> "no": nothing else is done
//!                                                     "maybe": the store is asked
//! ```
//!
//! The filter is a Bloom filter in layers: where one is full, another of twice the size comes behind
//! it, so nothing has to be read again for it to grow. It never forgets: a revoked import only costs its
//! bits. Past [`LAYERS_MAX`] layers it says "maybe" to everything, and a metric shows that.
//!
//! Thread safety: readers take no lock. Failure: places that can't be read yet are read at the next
//! change of any key, before that change counts as applied.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::ArcSwap;
use fastbloom::AtomicBloomFilter;
use parking_lot::Mutex;

use crate::key::lookup::Lookups;
use crate::key::{KeyId, Lookup, LookupKeys, MintKeys, Pair};
use crate::store::{ImportStore, StoreError};
use crate::telemetry::Metrics;

/// Imports that fit into the first layer (64 kB).
const LAYER_ITEMS_MIN: usize = 1 << 14;
/// Layers, each twice as large as the one before: together 4 million imports, in 17 MB.
const LAYERS_MAX: usize = 8;
/// How often one layer says "maybe" to what is not in it. All of them together do less often than once
/// in a million.
const FALSE_POSITIVES: f64 = 1e-7;

/// A filter that grows.
struct Filter {
    layers: ArcSwap<Vec<Arc<AtomicBloomFilter>>>,
    /// For who adds.
    size: Mutex<Size>,
    layers_max: usize,
    is_full: AtomicBool,
}

#[derive(Default)]
struct Size {
    all: usize,
    in_last: usize,
}

fn layer_items(index: usize) -> usize {
    LAYER_ITEMS_MIN << index
}

impl Filter {
    fn new(layers_max: usize) -> Self {
        Filter {
            layers: ArcSwap::default(),
            size: Mutex::default(),
            layers_max,
            is_full: AtomicBool::new(false),
        }
    }

    fn is_empty(&self) -> bool {
        self.layers.load().is_empty()
    }

    /// Whether `lookup` may have been added.
    fn may_have(&self, lookup: &Lookup) -> bool {
        self.is_full.load(Ordering::Relaxed) || self.has(lookup)
    }

    fn has(&self, lookup: &Lookup) -> bool {
        let layers = self.layers.load();
        // The newest is the largest.
        let mut newest_first = layers.iter().rev();
        newest_first.any(|layer| layer.contains_hash(lookup.head()))
    }

    /// Adds `lookups`, and says how many are there now.
    fn add(&self, lookups: &[Lookup]) -> usize {
        let mut size = self.size.lock();
        for lookup in lookups {
            if self.has(lookup) {
                continue;
            }
            let count = self.layers.load().len();
            if count == 0 || size.in_last >= layer_items(count - 1) {
                if count >= self.layers_max {
                    self.is_full.store(true, Ordering::Relaxed);
                    break;
                }
                self.grow();
                size.in_last = 0;
            }
            if let Some(last) = self.layers.load().last() {
                last.insert_hash(lookup.head());
            }
            size.in_last += 1;
            size.all += 1;
        }
        size.all
    }

    /// Another layer. With the lock of `size` only.
    fn grow(&self) {
        let mut layers = Vec::clone(&self.layers.load());
        let items = layer_items(layers.len());
        let layer = AtomicBloomFilter::with_false_pos(FALSE_POSITIVES).expected_items(items);
        layers.push(Arc::new(layer));
        self.layers.store(Arc::new(layers));
    }
}

/// Imported secrets: where they are found, and which there may be.
pub struct Imports {
    keys: LookupKeys,
    filter: Filter,
    store: Arc<dyn ImportStore>,
    metrics: Arc<Metrics>,
}

impl Imports {
    /// Knows of none yet; see [`Imports::read_since`].
    pub fn new(
        mint_keys: &MintKeys,
        store: Arc<dyn ImportStore>,
        metrics: Arc<Metrics>,
    ) -> Arc<Self> {
        Arc::new(Imports {
            keys: LookupKeys::new(mint_keys),
            filter: Filter::new(LAYERS_MAX),
            store,
            metrics,
        })
    }

    /// Whether nothing was ever imported: then nothing has to be looked for.
    pub fn is_empty(&self) -> bool {
        self.filter.is_empty()
    }

    /// Where a key is found that is presented as it is.
    pub fn places_of_key(&self, text: &str) -> Lookups {
        self.keys.of_key(text)
    }

    /// Where the login of `user` is found.
    pub fn places_of_user(&self, user: &str) -> Lookups {
        self.keys.of_user(user)
    }

    /// The places of the key that `text` may be; `None` where it is none for certain.
    pub fn key(&self, text: &str) -> Option<Lookups> {
        self.possible(|keys| keys.of_key(text))
    }

    /// The same for the user of a login.
    pub fn login(&self, pair: &Pair) -> Option<Lookups> {
        self.possible(|keys| keys.of_user(pair.user()))
    }

    fn possible(&self, places: impl FnOnce(&LookupKeys) -> Lookups) -> Option<Lookups> {
        if self.is_empty() {
            return None;
        }
        let places = places(&self.keys);
        places
            .iter()
            .any(|place| self.filter.may_have(place))
            .then_some(places)
    }

    /// Notes what was imported.
    pub fn add(&self, lookups: &[Lookup]) {
        let count = self.filter.add(lookups);
        let gauge = |number: usize| i64::try_from(number).unwrap_or(i64::MAX);
        self.metrics.imports.set(gauge(count));
        let is_full = self.filter.is_full.load(Ordering::Relaxed);
        if is_full && self.metrics.import_filter_full.get() == 0 {
            tracing::warn!(
                "more keys were imported than are kept in memory; unknown keys are looked up in the database from now on"
            );
        }
        self.metrics.import_filter_full.set(i64::from(is_full));
    }

    /// The key that is found at one of `places`.
    pub async fn find(&self, places: &[Lookup]) -> Result<Option<KeyId>, StoreError> {
        self.store.find_imported(places).await
    }

    /// Notes all imports with a number above `seq`; the number of the last.
    pub async fn read_since(&self, seq: i64) -> Result<i64, StoreError> {
        let mut seen = seq;
        // What is full has nothing to learn.
        while !self.filter.is_full.load(Ordering::Relaxed) {
            let page = self.store.imports_since(seen).await?;
            let Some(last) = page.last else { break };
            self.add(&page.lookups);
            seen = last;
        }
        Ok(seen)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Evenly spread, as an HMAC is.
    fn place(n: u64) -> Lookup {
        let bytes = *blake3::hash(&n.to_be_bytes()).as_bytes();
        let text: String = bytes[..16]
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        text.parse().unwrap()
    }

    #[test]
    fn what_was_added_is_never_denied_and_what_was_not_hardly_ever_affirmed() {
        let filter = Filter::new(LAYERS_MAX);
        assert!(filter.is_empty() && !filter.may_have(&place(1)));
        // More than two layers hold.
        let count = 3 * LAYER_ITEMS_MIN as u64 + 1000;
        for n in 0..count {
            filter.add(&[place(n)]);
        }
        assert_eq!(filter.layers.load().len(), 3);
        assert!((0..count).all(|n| filter.may_have(&place(n))));
        let wrong = (count..count + 1_000_000).filter(|n| filter.may_have(&place(*n)));
        assert!(wrong.count() <= 5);
    }

    #[test]
    fn what_is_added_twice_takes_no_room() {
        let filter = Filter::new(1);
        let places: Vec<Lookup> = (0..100).map(place).collect();
        for _ in 0..1000 {
            assert_eq!(filter.add(&places), 100);
        }
        assert!(!filter.may_have(&place(1000)));
    }

    #[test]
    fn a_full_filter_says_maybe_to_everything() {
        let filter = Filter::new(1);
        for n in 0..LAYER_ITEMS_MIN as u64 {
            filter.add(&[place(n)]);
        }
        assert!(!filter.may_have(&place(u64::MAX)));
        filter.add(&[place(u64::MAX - 1)]);
        assert!(filter.may_have(&place(u64::MAX)));
    }
}
