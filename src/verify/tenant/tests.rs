//! Tenants and their live keys, and what happens when several things happen at once.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::*;
use crate::clock::{Clock, ManualClock, Timestamp};
use crate::key::record::tests::record;
use crate::key::tenant::TenantStanding;
use crate::key::tenant::tests::tenant;
use crate::key::{Catalogue, Denial, KeyRecord};
use crate::limit::take_all;
use crate::verify::live::{LiveKey, LiveKeys};
use crate::verify::view::ViewBuilder;

fn policy(name: &str, quota: u64) -> Policy {
    Policy {
        name: name.to_owned(),
        quota,
        window_seconds: 60,
        burst: None,
    }
}

fn keys() -> (Arc<LiveKeys>, Arc<ManualClock>) {
    let clock = ManualClock::at(Timestamp::from_millis(0));
    let default = Arc::new(policy("default", 10));
    let builder = ViewBuilder::new(Catalogue::default(), vec![default]);
    (LiveKeys::new(builder, clock.clone()), clock)
}

fn id() -> TenantId {
    record().tenant_id
}

fn numbered(number: usize) -> KeyRecord {
    KeyRecord {
        id: format!("key{number:09}").parse().unwrap(),
        ..record()
    }
}

/// Makes a key live as the verifier does, with what was read of its tenant.
fn make_live(keys: &LiveKeys, number: usize, read: Option<TenantRecord>) -> Arc<LiveKey> {
    let key = keys.begin_load(numbered(number).id);
    let load = keys.tenants().begin_load(&id());
    if !load.is_live() {
        keys.finish_tenant(&load, read);
    }
    key.finish(numbered(number))
}

fn limited(revision: i64, quota: u64) -> TenantRecord {
    let mut tenant = tenant(revision);
    tenant.settings.rate_limits = vec![policy("all", quota)];
    tenant
}

fn suspended(revision: i64) -> TenantRecord {
    TenantRecord {
        standing: TenantStanding::Suspended,
        ..tenant(revision)
    }
}

fn admits(key: &LiveKey) -> Result<(), Denial> {
    let client = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let now = Timestamp::from_millis(1);
    key.view().admits(record().generation, client, now)
}

fn take(key: &LiveKey, cost: u64) -> bool {
    take_all(&key.view().buckets, cost, 0).allowed
}

#[test]
fn a_change_acts_on_all_live_keys_at_once() {
    let (keys, _) = keys();
    let all: Vec<_> = (0..100)
        .map(|n| make_live(&keys, n, Some(tenant(1))))
        .collect();
    assert!(all.iter().all(|key| admits(key) == Ok(())));
    keys.apply_tenant(&suspended(2));
    assert!(all.iter().all(|key| admits(key) == Err(Denial::Suspended)));
    let late = make_live(&keys, 100, None);
    assert_eq!(admits(&late), Err(Denial::Suspended), "not read again");
    // Of the key's own change the tenant knows nothing, and the other way round.
    keys.apply(KeyRecord {
        revision: 2,
        ..numbered(0)
    });
    assert_eq!(
        (admits(&all[0]), all[0].view().revision),
        (Err(Denial::Suspended), 2)
    );
    keys.apply_tenant(&tenant(3));
    assert!(all.iter().all(|key| admits(key) == Ok(())));
    assert_eq!(all[0].view().revision, 2);
}

#[test]
fn an_older_record_never_replaces_a_newer_one() {
    let (keys, _) = keys();
    let key = make_live(&keys, 0, Some(suspended(5)));
    keys.apply_tenant(&tenant(4));
    assert_eq!(admits(&key), Err(Denial::Suspended));
    let load = keys.tenants().begin_load(&id());
    keys.finish_tenant(&load, Some(tenant(4)));
    keys.finish_tenant(&load, None);
    assert_eq!(admits(&key), Err(Denial::Suspended));
    // What an older database says is all that there is.
    keys.restore_tenant(&id(), Some(&tenant(4)), Some(4));
    assert_eq!(admits(&key), Err(Denial::Suspended), "it changed since");
    keys.restore_tenant(&id(), Some(&tenant(4)), Some(5));
    assert_eq!(admits(&key), Ok(()));
    keys.apply_tenant(&suspended(5));
    keys.restore_tenant(&id(), None, Some(5));
    assert_eq!(admits(&key), Ok(()), "it has no row");
}

#[test]
fn a_change_during_a_load_is_not_missed() {
    let (keys, _) = keys();
    let key = keys.begin_load(numbered(0).id);
    let load = keys.tenants().begin_load(&id());
    keys.apply_tenant(&suspended(3));
    keys.apply_tenant(&tenant(2));
    keys.finish_tenant(&load, Some(tenant(1)));
    let key = key.finish(numbered(0));
    assert_eq!(admits(&key), Err(Denial::Suspended));
    // Of two loads the slower one has read an older row.
    let (keys, _) = self::keys();
    let slow = keys.tenants().begin_load(&id());
    let fast = keys.tenants().begin_load(&id());
    keys.finish_tenant(&fast, Some(suspended(2)));
    let key = keys.begin_load(numbered(0).id).finish(numbered(0));
    keys.finish_tenant(&slow, Some(tenant(1)));
    assert_eq!(admits(&key), Err(Denial::Suspended));
    // And the faster one, whose keys are live by then.
    let (keys, _) = self::keys();
    let fast = keys.tenants().begin_load(&id());
    let slow = keys.tenants().begin_load(&id());
    keys.finish_tenant(&fast, None);
    let key = keys.begin_load(numbered(0).id).finish(numbered(0));
    keys.finish_tenant(&slow, Some(suspended(1)));
    assert_eq!(admits(&key), Err(Denial::Suspended));
}

#[test]
fn a_tenant_that_cannot_be_read_any_more_admits_nobody_until_it_can() {
    let (keys, _) = keys();
    let key = make_live(&keys, 0, Some(tenant(5)));
    keys.close_tenant(&id(), Some(4));
    assert_eq!(admits(&key), Ok(()), "it has changed since");
    keys.close_tenant(&id(), Some(5));
    assert_eq!(admits(&key), Err(Denial::Suspended));
    assert_eq!(
        admits(&make_live(&keys, 1, None)),
        Err(Denial::Suspended),
        "not read again"
    );
    keys.apply_tenant(&tenant(6));
    assert_eq!(admits(&key), Ok(()));

    let (keys, _) = self::keys();
    let load = keys.tenants().begin_load(&id());
    keys.close_tenant(&id(), None);
    keys.finish_tenant(&load, Some(tenant(1)));
    let key = keys.begin_load(numbered(0).id).finish(numbered(0));
    assert_eq!(admits(&key), Err(Denial::Suspended));
    keys.apply_tenant(&tenant(2));
    assert_eq!(admits(&key), Ok(()));
}

#[test]
fn keys_share_their_tenants_buckets_and_a_refusal_takes_nothing_from_their_own() {
    let (keys, _) = keys();
    let [a, b] = [0, 1].map(|n| make_live(&keys, n, Some(limited(1, 8))));
    let names: Vec<String> = (a.view().buckets.iter())
        .map(|bucket| bucket.policy().name.clone())
        .collect();
    assert_eq!(names, ["default", "tenant:all"]);
    assert!(take(&a, 5) && !take(&b, 4));
    assert_eq!(b.view().buckets[0].peek(1, 0).remaining, 10);
    assert!(take(&b, 3) && !take(&a, 1));
    assert_eq!(a.view().buckets[0].peek(1, 0).remaining, 5);
    assert!(
        Arc::ptr_eq(&a.view().plan, &b.view().plan),
        "in memory once"
    );
}

#[test]
fn an_edit_keeps_tokens_and_ends_limits_that_are_gone() {
    let (keys, _) = keys();
    let [a, b] = [0, 1].map(|n| make_live(&keys, n, Some(limited(1, 5))));
    assert!(take(&a, 4));
    let mut renamed = limited(2, 5);
    renamed.settings.display_name = Some("Acme".to_owned());
    keys.apply_tenant(&renamed);
    assert!(!take(&b, 2), "the same bucket");
    keys.apply_tenant(&limited(3, 100));
    assert!(!take(&b, 2), "no second burst");
    assert!(take(&b, 1) && !take(&a, 1));
    // A key's own edit leaves them alone, and so does a load of another one.
    keys.apply(KeyRecord {
        revision: 2,
        ..numbered(0)
    });
    let c = make_live(&keys, 2, None);
    assert!(!take(&a, 1) && !take(&c, 1));
    keys.apply_tenant(&tenant(4));
    assert!(take(&a, 1));
    assert_eq!(a.view().buckets.len(), 1);
    assert_eq!(
        a.view().buckets[0].peek(1, 0).remaining,
        5,
        "its own bucket stays"
    );
}

#[test]
fn a_tenant_is_only_forgotten_when_nothing_is_lost() {
    let (keys, clock) = keys();
    let key = make_live(&keys, 0, Some(limited(1, 60)));
    let other = make_live(&keys, 1, None);
    assert!(take(&key, 10));
    drop((key, other));
    keys.sweep(clock.monotonic_us());
    assert_eq!(keys.len(), 1, "the other key's own bucket is full");
    // The key's own one as well; of the tenant's, ten tokens are missing.
    clock.advance(Duration::from_secs(5));
    keys.sweep(clock.monotonic_us());
    assert_eq!((keys.len(), keys.tenants().ids().len()), (1, 1));
    let again = make_live(&keys, 1, None);
    assert!(!take_all(&again.view().buckets, 60, clock.monotonic_us()).allowed);
    drop(again);
    clock.advance(Duration::from_secs(60));
    let load = keys.tenants().begin_load(&id());
    keys.sweep(clock.monotonic_us());
    assert_eq!((keys.len(), keys.tenants().ids().len()), (0, 1));
    drop(load);
    keys.sweep(clock.monotonic_us());
    assert!(keys.tenants().ids().is_empty());
    // A load that fails leaves nothing.
    drop(keys.tenants().begin_load(&id()));
    assert!(keys.tenants().ids().is_empty());
}

#[test]
fn a_swept_key_outlives_its_tenants_empty_bucket_only_as_a_number() {
    let (keys, clock) = keys();
    let key = make_live(&keys, 0, Some(limited(1, 4)));
    assert!(take(&key, 4));
    drop(key);
    clock.advance(Duration::from_secs(30));
    // Half of the tenant's bucket is back, all of the key's own.
    keys.sweep(clock.monotonic_us());
    assert!(keys.is_empty());
    let again = make_live(&keys, 0, None);
    let now_us = clock.monotonic_us();
    assert!(!take_all(&again.view().buckets, 3, now_us).allowed);
    assert!(take_all(&again.view().buckets, 2, now_us).allowed);
}

/// Keys become live, are changed and are swept while their tenant changes all the time: in the end
/// every key is what the highest revision says, and none ever went back.
#[test]
fn whatever_happens_at_once_the_highest_revision_holds() {
    const LAST: i64 = 2_000;
    let (keys, clock) = keys();
    // The row, as the store has it.
    let row = Mutex::new(limited(1, 10));
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for revision in 2..=LAST {
                let mut next = limited(revision, 10 + (revision as u64 % 5));
                if revision % 2 == 0 {
                    next.standing = TenantStanding::Suspended;
                }
                row.lock().clone_from(&next);
                keys.apply_tenant(&next);
            }
            is_over.store(true, Ordering::SeqCst);
        });
        for thread in 0..3 {
            let (keys, row, is_over) = (&keys, &row, &is_over);
            scope.spawn(move || {
                let (mut seen, mut round) = (0, 0);
                while !is_over.load(Ordering::SeqCst) {
                    round += 1;
                    let number = thread * 20 + round % 20;
                    let key = keys.begin_load(numbered(number).id);
                    let load = keys.tenants().begin_load(&id());
                    if !load.is_live() {
                        let read = row.lock().clone();
                        keys.finish_tenant(&load, Some(read));
                    }
                    let key = key.finish(numbered(number));
                    drop(load);
                    let now = key.view().tenant.revision;
                    assert!(now >= seen, "{now} after {seen}");
                    seen = now;
                    keys.apply(KeyRecord {
                        revision: round as i64,
                        ..numbered(number)
                    });
                    drop(key);
                    keys.sweep(u64::MAX / 2);
                }
            });
        }
    });
    for number in 0..60 {
        let key = make_live(&keys, number, Some(row.lock().clone()));
        assert_eq!(key.view().tenant.revision, LAST);
        assert_eq!(admits(&key), Err(Denial::Suspended));
    }
    drop(clock);
}

/// A warm request has what it needs in its key's view: it waits for nobody who loads, changes or sweeps
/// keys or tenants.
#[test]
fn a_warm_request_takes_no_lock_of_the_registries() {
    let (keys, _) = keys();
    let key = make_live(&keys, 0, Some(limited(1, 8)));
    let (sender, receiver) = std::sync::mpsc::channel();
    let _shards = keys.hold();
    let _tenants = keys.tenants().0.lock();
    std::thread::spawn(move || {
        let view = key.view_full();
        let told = view.plan.fields.is_some();
        let _ = sender.send((admits(&key), take(&key, 1), told));
    });
    let done = receiver.recv_timeout(Duration::from_secs(20));
    assert_eq!(done, Ok((Ok(()), true, true)));
}
