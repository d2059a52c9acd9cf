//! Tests of live keys.

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
