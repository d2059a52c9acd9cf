//! Live keys: one object for each key in use. It holds a view of the current record, which is
//! swapped as a whole when the record changes, so that a warm request only follows pointers.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arc_swap::ArcSwap;
use parking_lot::Mutex;

use super::tenant::{LiveTenants, TenantLoad};
use super::view::{KeyView, ViewBuilder};
use crate::clock::SharedClock;
use crate::key::{Generation, KeyId, KeyRecord, TenantId, TenantRecord};
use crate::usage::{self, Counters, Hour, LastUse, LastUseSlot, Pending};

/// The registry's locks; each guards its share of the keys.
const SHARDS: usize = 64;
/// Last uses that wait beside live keys, at most; there is one for each secret that was replaced, and
/// for each admin key that was used, since they were taken out.
const USES_MAX: usize = 10_000;

/// A key in use.
#[derive(Debug)]
pub struct LiveKey {
    id: KeyId,
    view: ArcSwap<KeyView>,
    counters: Counters,
    /// Of the current secret; that of the previous one has a place in the view, where there is one.
    last_use: LastUseSlot,
}

impl LiveKey {
    pub fn id(&self) -> KeyId {
        self.id
    }

    /// The same, to be kept for the length of a request.
    pub fn view_full(&self) -> Arc<KeyView> {
        self.view.load_full()
    }

    /// The record as it is now, with what follows from it.
    pub fn view(&self) -> arc_swap::Guard<Arc<KeyView>> {
        self.view.load()
    }

    /// Counts a request that is over. Its caller had proven the secret of `generation`.
    pub fn count(&self, request: &usage::Request, generation: Generation, last: LastUse) {
        let view = self.view.load();
        let authority = &view.authority;
        if authority.generation == generation {
            // The secret may be replaced between the question and the note.
            let is_current = || self.view.load().authority.generation == generation;
            self.last_use.note(last, is_current);
        } else if let (Some(previous), Some(slot)) = (authority.previous, &view.previous_use)
            && previous.generation == generation
        {
            slot.note(last, || true);
        }
        self.counters.count(request);
    }

    /// Takes out what was counted. Nobody may change the view meanwhile.
    fn drain(&self, hour: Hour, into: &mut Pending) {
        let Some(counts) = self.counters.take() else {
            return;
        };
        let view = self.view.load();
        into.add(self.id, &view.tenant.id, hour, &counts);
        if let Some(last) = self.last_use.take() {
            into.note_use(self.id, view.authority.generation, last);
        }
        if let (Some(previous), Some(slot)) = (view.authority.previous, &view.previous_use)
            && let Some(last) = slot.take()
        {
            into.note_use(self.id, previous.generation, last);
        }
    }
}

/// What the registry knows about one key.
#[derive(Default)]
struct Slot {
    live: Option<Arc<LiveKey>>,
    /// Loads under way.
    loads: u32,
    /// The newest record that was announced while the key was being loaded.
    announced: Option<Box<KeyRecord>>,
    /// The row could not be read any more while the key was being loaded, and nothing was announced
    /// since.
    is_closed: bool,
}

/// All live keys by id. Only the cold path and administration look here; a warm request finds its
/// live key through its proof.
pub struct LiveKeys {
    shards: Box<[Mutex<HashMap<KeyId, Slot>>]>,
    /// Last uses that no live key has a place for.
    uses: Mutex<BTreeMap<(KeyId, Generation), LastUse>>,
    builder: ViewBuilder,
    clock: SharedClock,
}

/// A load under way: a change of the record that is announced meanwhile will not be missed.
pub struct Load<'a> {
    keys: &'a LiveKeys,
    id: KeyId,
}

impl LiveKeys {
    pub fn new(builder: ViewBuilder, clock: SharedClock) -> Arc<Self> {
        let shards = (0..SHARDS).map(|_| Mutex::new(HashMap::new())).collect();
        Arc::new(LiveKeys {
            shards,
            uses: Mutex::default(),
            builder,
            clock,
        })
    }

    fn shard(&self, id: KeyId) -> &Mutex<HashMap<KeyId, Slot>> {
        // Ids are random, so any of their characters spread them.
        let bytes = id.as_str().as_bytes();
        let mixed = bytes.iter().fold(0usize, |mix, byte| {
            mix.wrapping_mul(31) ^ usize::from(*byte)
        });
        &self.shards[mixed % SHARDS]
    }

    /// Announces that the record of `id` is about to be read from the store.
    pub fn begin_load(&self, id: KeyId) -> Load<'_> {
        self.shard(id).lock().entry(id).or_default().loads += 1;
        Load { keys: self, id }
    }

    /// Makes a record that was just written the current one, unless a newer one is.
    pub fn apply(&self, record: KeyRecord) {
        let mut shard = self.shard(record.id).lock();
        let Some(slot) = shard.get_mut(&record.id) else {
            return;
        };
        if let Some(live) = &slot.live {
            self.renew(live, &record);
        } else if slot
            .announced
            .as_ref()
            .is_none_or(|known| known.revision < record.revision)
        {
            slot.announced = Some(Box::new(record));
            slot.is_closed = false;
        }
    }

    fn renew(&self, live: &LiveKey, record: &KeyRecord) {
        if live.view.load().revision < record.revision {
            self.replace(live, record);
        }
    }

    fn replace(&self, live: &LiveKey, record: &KeyRecord) {
        let current = live.view.load();
        let now_us = self.clock.monotonic_us();
        let view = Arc::new(self.builder.build(record, Some(&current), now_us));
        let generation = current.authority.generation;
        if view.authority.generation == generation {
            live.view.store(view.clone());
        } else if let Some(last) = live.last_use.turn(|| live.view.store(view.clone())) {
            self.note_use(live.id, generation, last);
        }
        // The previous secret's place may be gone.
        if let (Some(previous), Some(slot)) = (current.authority.previous, &current.previous_use)
            && view.authority.previous.map(|new| new.generation) != Some(previous.generation)
            && let Some(last) = slot.take()
        {
            self.note_use(live.id, previous.generation, last);
        }
    }

    /// Notes that a secret was used, apart from the requests that are counted.
    pub fn note_use(&self, id: KeyId, generation: Generation, last: LastUse) {
        let mut uses = self.uses.lock();
        if let Some(known) = uses.get_mut(&(id, generation)) {
            *known = known.later(last);
        } else if uses.len() < USES_MAX {
            uses.insert((id, generation), last);
        }
    }

    /// The key of that id, if it is live.
    pub fn get(&self, id: KeyId) -> Option<Arc<LiveKey>> {
        self.shard(id).lock().get(&id)?.live.clone()
    }

    /// The revision of a live key's record.
    pub fn revision(&self, id: KeyId) -> Option<i64> {
        let shard = self.shard(id).lock();
        Some(shard.get(&id)?.live.as_ref()?.view.load().revision)
    }

    /// Makes a record that was just read the current one, an older one too: the database has no
    /// other. `before` is the live revision before the reading; if it has changed since, something
    /// newer was written.
    pub fn restore(&self, record: KeyRecord, before: Option<i64>) {
        let mut shard = self.shard(record.id).lock();
        let live = shard.get_mut(&record.id).and_then(|slot| slot.live.clone());
        if let Some(live) = live.filter(|live| Some(live.view.load().revision) == before) {
            self.replace(&live, &record);
            return;
        }
        drop(shard);
        self.apply(record);
    }

    /// Lets a live key admit nobody until a newer record of it is read: the database has none that
    /// can be read. `before` is the same as for [`LiveKeys::restore`]; where the key was not live yet,
    /// what a load has read is older than this.
    pub fn close(&self, id: KeyId, before: Option<i64>) {
        let mut shard = self.shard(id).lock();
        let Some(slot) = shard.get_mut(&id) else {
            return;
        };
        let Some(live) = &slot.live else {
            slot.is_closed = true;
            return;
        };
        let view = live.view.load();
        if before.is_none_or(|before| before == view.revision) {
            live.view.store(Arc::new(view.closed()));
        }
    }

    /// The tenants of live keys, to see what is known of them.
    pub fn tenants(&self) -> &LiveTenants {
        self.builder.tenants()
    }

    /// The same as [`LiveKeys::apply`] for a tenant.
    pub fn apply_tenant(&self, record: &TenantRecord) {
        let keys = self.tenants().apply(record, self.clock.monotonic_us());
        self.rebuild(keys);
    }

    /// The same as [`LiveKeys::restore`] for a tenant, which may have no row.
    pub fn restore_tenant(
        &self,
        id: &TenantId,
        record: Option<&TenantRecord>,
        before: Option<i64>,
    ) {
        let now_us = self.clock.monotonic_us();
        self.rebuild(self.tenants().restore(id, record, before, now_us));
    }

    /// The same as [`LiveKeys::close`] for a tenant.
    pub fn close_tenant(&self, id: &TenantId, before: Option<i64>) {
        self.rebuild(self.tenants().close(id, before));
    }

    /// Makes a tenant live with what was read of it.
    pub fn finish_tenant(&self, load: &TenantLoad<'_>, record: Option<TenantRecord>) {
        self.rebuild(load.finish(record, self.clock.monotonic_us()));
    }

    /// Builds the views of `keys` again, whose tenant has changed: for each the newest state of it
    /// holds, whoever else is at it.
    fn rebuild(&self, keys: Vec<KeyId>) {
        for id in keys {
            let mut shard = self.shard(id).lock();
            if let Some(live) = shard.get_mut(&id).and_then(|slot| slot.live.as_ref()) {
                let now_us = self.clock.monotonic_us();
                let view = self.builder.rebuild(&live.view.load(), now_us);
                live.view.store(Arc::new(view));
            }
        }
    }

    /// Whether the key is live, or being loaded.
    pub fn knows(&self, id: KeyId) -> bool {
        self.shard(id).lock().contains_key(&id)
    }

    /// All keys that are live, or being loaded.
    pub fn ids(&self) -> Vec<KeyId> {
        let shards = self.shards.iter();
        shards
            .flat_map(|shard| shard.lock().keys().copied().collect::<Vec<_>>())
            .collect()
    }

    /// Forgets keys that nothing remembers as proven, whose buckets are full, and whose usage was taken
    /// out. The buckets of its tenant stay with the tenant.
    pub fn sweep(&self, now_us: u64) {
        for shard in &self.shards {
            shard.lock().retain(|id, slot| {
                let Some(live) = &slot.live else {
                    return slot.loads > 0;
                };
                let view = live.view.load();
                // Whoever counts holds the key.
                let is_idle = Arc::strong_count(live) == 1
                    && live.counters.is_empty()
                    && (view.own_buckets().iter()).all(|bucket| bucket.is_full(now_us));
                if slot.loads > 0 || !is_idle {
                    return true;
                }
                self.tenants().leave(&view.tenant.id, *id);
                false
            });
        }
        self.builder.sweep(now_us);
    }

    /// Holds every lock that changes of keys take.
    #[cfg(test)]
    pub(super) fn hold(&self) -> Vec<impl Drop + use<'_>> {
        self.shards.iter().map(Mutex::lock).collect()
    }

    /// How many keys are live.
    pub fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().len()).sum()
    }

    /// Whether no key is live.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl usage::Source for LiveKeys {
    fn drain(&self, hour: Hour, into: &mut Pending) {
        for shard in &self.shards {
            for slot in shard.lock().values() {
                if let Some(live) = &slot.live {
                    live.drain(hour, into);
                }
            }
        }
        for ((id, generation), last) in std::mem::take(&mut *self.uses.lock()) {
            into.note_use(id, generation, last);
        }
    }
}

impl Load<'_> {
    /// Makes the key live with `record`, or with a newer one that was announced meanwhile.
    pub fn finish(self, record: KeyRecord) -> Arc<LiveKey> {
        let keys = self.keys;
        let mut shard = keys.shard(self.id).lock();
        let slot = shard.entry(self.id).or_default();
        let newest = match slot.announced.take() {
            Some(announced) if announced.revision > record.revision => *announced,
            _ => record,
        };
        let live = match &slot.live {
            Some(live) => {
                keys.renew(live, &newest);
                live.clone()
            }
            None => {
                let view = keys.builder.build(&newest, None, keys.clock.monotonic_us());
                let view = if slot.is_closed { view.closed() } else { view };
                let live = Arc::new(LiveKey {
                    id: self.id,
                    view: ArcSwap::from_pointee(view),
                    counters: Counters::default(),
                    last_use: LastUseSlot::default(),
                });
                slot.live = Some(live.clone());
                live
            }
        };
        // The lock is taken again when this load is dropped.
        drop(shard);
        live
    }
}

impl Drop for Load<'_> {
    fn drop(&mut self) {
        let mut shard = self.keys.shard(self.id).lock();
        if let Entry::Occupied(mut entry) = shard.entry(self.id) {
            let slot = entry.get_mut();
            slot.loads = slot.loads.saturating_sub(1);
            if slot.loads == 0 {
                slot.announced = None;
                slot.is_closed = false;
                if slot.live.is_none() {
                    entry.remove();
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
