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
mod tests {
    use super::*;
    use crate::clock::{Clock, ManualClock, Timestamp};
    use crate::key::record::tests::record;
    use crate::key::{Catalogue, Denial, Policy};

    fn keys() -> (Arc<LiveKeys>, Arc<ManualClock>) {
        let clock = ManualClock::at(Timestamp::from_millis(0));
        let policy = Policy {
            name: "default".into(),
            quota: 10,
            window_seconds: 1,
            burst: None,
        };
        let catalogue = Catalogue::new(vec!["orders:write".parse().unwrap()]);
        let builder = ViewBuilder::new(catalogue, vec![Arc::new(policy)]);
        (LiveKeys::new(builder, clock.clone()), clock)
    }

    fn revision(n: i64) -> KeyRecord {
        KeyRecord {
            revision: n,
            ..record()
        }
    }

    #[test]
    fn one_object_a_key() {
        let (keys, _) = keys();
        let (a, b) = (keys.begin_load(record().id), keys.begin_load(record().id));
        let (a, b) = (a.finish(revision(1)), b.finish(revision(1)));
        assert!(Arc::ptr_eq(&a, &b));
    }

    #[test]
    fn a_change_during_a_load_is_not_missed() {
        let (keys, _) = keys();
        let load = keys.begin_load(record().id);
        keys.apply(revision(3));
        keys.apply(revision(2));
        assert_eq!(load.finish(revision(1)).view().revision, 3);
    }

    #[test]
    fn an_older_record_never_replaces_a_newer_one() {
        let (keys, _) = keys();
        let live = keys.begin_load(record().id).finish(revision(5));
        keys.apply(revision(4));
        assert_eq!(live.view().revision, 5);
        keys.begin_load(record().id).finish(revision(4));
        assert_eq!(live.view().revision, 5);
        keys.apply(revision(6));
        assert_eq!(live.view().revision, 6);
    }

    #[test]
    fn a_load_that_fails_leaves_nothing() {
        let (keys, _) = keys();
        drop(keys.begin_load(record().id));
        assert!(keys.is_empty());
        keys.apply(revision(1));
        assert!(keys.is_empty());
    }

    #[test]
    fn a_closed_key_admits_nobody_until_something_newer_is_read() {
        let (keys, _) = keys();
        let live = keys.begin_load(record().id).finish(revision(5));
        let admits = || {
            let now = Timestamp::from_millis(1);
            live.view().authority.check(record().generation, now)
        };
        keys.close(record().id, Some(4));
        assert_eq!(admits(), Ok(()), "it has changed since");
        keys.close(record().id, Some(5));
        assert_eq!(admits(), Err(Denial::Revoked));
        // What was read before it was closed is no news.
        keys.begin_load(record().id).finish(revision(5));
        assert_eq!(admits(), Err(Denial::Revoked));
        keys.apply(revision(6));
        assert_eq!(admits(), Ok(()));
        keys.close(record().id, None);
        assert_eq!(admits(), Err(Denial::Revoked), "it was read too early");
    }

    #[test]
    fn a_key_that_is_closed_while_it_is_loaded_admits_nobody() {
        let (keys, _) = keys();
        let now = Timestamp::from_millis(1);
        let admits = |live: &LiveKey| live.view().authority.check(record().generation, now);
        let (first, second) = (keys.begin_load(record().id), keys.begin_load(record().id));
        keys.close(record().id, None);
        let live = first.finish(revision(1));
        assert_eq!(admits(&live), Err(Denial::Revoked));
        second.finish(revision(1));
        assert_eq!(admits(&live), Err(Denial::Revoked));
        keys.apply(revision(3));
        assert_eq!(admits(&live), Ok(()));

        let (keys, _) = self::keys();
        let load = keys.begin_load(record().id);
        keys.close(record().id, None);
        keys.apply(revision(3));
        assert_eq!(admits(&load.finish(revision(1))), Ok(()));
        // A load that is begun later reads what is there then.
        let (keys, _) = self::keys();
        let load = keys.begin_load(record().id);
        keys.close(record().id, None);
        drop(load);
        let live = keys.begin_load(record().id).finish(revision(2));
        assert_eq!(admits(&live), Ok(()));
    }

    #[test]
    fn an_edit_keeps_the_bucket() {
        let (keys, _) = keys();
        let live = keys.begin_load(record().id).finish(revision(1));
        assert!(crate::limit::take_all(&live.view().buckets, 10, 0).allowed);
        keys.apply(revision(2));
        assert!(!crate::limit::take_all(&live.view().buckets, 1, 0).allowed);
    }

    fn request() -> usage::Request {
        usage::Request {
            ending: usage::Ending::Denied,
            bytes_in: 1,
            bytes_out: 2,
            latency_us: 3,
        }
    }

    fn last(at: i64) -> LastUse {
        LastUse {
            at: Timestamp::from_millis(at),
            address: "192.0.2.1".parse().unwrap(),
        }
    }

    /// Requests, and the times of last uses by generation.
    fn drained(keys: &LiveKeys) -> (u64, Vec<(i64, i64)>) {
        use crate::usage::Source;
        let mut pending = Pending::new("me".into(), 100);
        keys.drain(Hour::of(Timestamp::from_millis(0)), &mut pending);
        let Some(batch) = pending.current() else {
            return (0, Vec::new());
        };
        let requests = batch.hours.iter().map(|row| row.counts.requests).sum();
        let uses = batch.uses.iter();
        let uses = uses.map(|one| (one.generation.0, one.last.at.as_millis()));
        (requests, uses.collect())
    }

    fn generation(current: i64, previous: Option<i64>, n: i64) -> KeyRecord {
        KeyRecord {
            generation: Generation(current),
            previous: previous.map(|old| crate::key::record::PreviousSecret {
                generation: Generation(old),
                valid_until: Timestamp::MAX,
            }),
            ..revision(n)
        }
    }

    #[test]
    fn each_secret_has_its_last_use() {
        let (keys, _) = keys();
        let live = keys.begin_load(record().id).finish(generation(1, None, 1));
        live.count(&request(), Generation(1), last(10));
        // Replaced before anything was taken out, and both go on.
        keys.apply(generation(2, Some(1), 2));
        assert_eq!(drained(&keys), (1, vec![(1, 10)]));
        live.count(&request(), Generation(1), last(11));
        live.count(&request(), Generation(2), last(12));
        live.count(&request(), Generation(7), last(13));
        // An edit loses none of it.
        keys.apply(generation(2, Some(1), 3));
        assert_eq!(drained(&keys), (3, vec![(1, 11), (2, 12)]));
        assert_eq!(drained(&keys), (0, vec![]));
        // Replaced again: nobody accepts the first one any more.
        live.count(&request(), Generation(1), last(20));
        live.count(&request(), Generation(2), last(21));
        keys.apply(generation(3, Some(2), 4));
        live.count(&request(), Generation(1), last(22));
        live.count(&request(), Generation(2), last(23));
        assert_eq!(drained(&keys), (4, vec![(1, 20), (2, 23)]));
        // The grace period is ended.
        live.count(&request(), Generation(2), last(30));
        keys.apply(generation(3, None, 5));
        assert_eq!(drained(&keys), (1, vec![(2, 30)]));
    }

    #[test]
    fn uses_beside_requests_are_noted_up_to_a_limit() {
        let (keys, _) = keys();
        for n in 0..=USES_MAX {
            keys.note_use(record().id, Generation(n as i64), last(5));
        }
        keys.note_use(record().id, Generation(0), last(7));
        keys.note_use(record().id, Generation(0), last(6));
        let (requests, uses) = drained(&keys);
        assert_eq!((requests, uses.len(), uses[0]), (0, USES_MAX, (0, 7)));
        assert_eq!(drained(&keys), (0, vec![]));
    }

    #[test]
    fn usage_is_not_forgotten_with_its_key() {
        let (keys, clock) = keys();
        let live = keys.begin_load(record().id).finish(revision(1));
        live.count(&request(), record().generation, last(1));
        drop(live);
        keys.sweep(clock.monotonic_us());
        assert_eq!(keys.len(), 1, "its usage was not taken out");
        assert_eq!(drained(&keys).0, 1);
        keys.sweep(clock.monotonic_us());
        assert!(keys.is_empty());
    }

    /// 100,000 of them have to fit into 150 MB with all that belongs to them. The allocator's sizes are
    /// 112 and 224 bytes.
    #[test]
    fn a_live_key_is_small() {
        const COUNTS_OF_ARC: usize = 16;
        assert!(size_of::<LiveKey>() + COUNTS_OF_ARC <= 112);
        assert!(size_of::<KeyView>() + COUNTS_OF_ARC <= 224);
    }

    #[test]
    fn a_key_is_only_forgotten_when_nothing_is_lost() {
        let (keys, clock) = keys();
        let live = keys.begin_load(record().id).finish(revision(1));
        assert!(crate::limit::take_all(&live.view().buckets, 10, 0).allowed);
        keys.sweep(clock.monotonic_us());
        assert_eq!(keys.len(), 1, "still proven");
        drop(live);
        keys.sweep(clock.monotonic_us());
        assert_eq!(keys.len(), 1, "its bucket is empty");
        clock.advance(std::time::Duration::from_secs(1));
        keys.sweep(clock.monotonic_us());
        assert!(keys.is_empty());
    }
}
