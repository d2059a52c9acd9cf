//! Tests of what waits to be stored.

use super::*;
use crate::clock::Timestamp;
use crate::telemetry::Outcome;
use crate::usage::counts::HOUR_MS;

fn key(n: usize) -> KeyId {
    format!("{n:012}").parse().unwrap()
}

fn hour(n: i64) -> Hour {
    Hour::of(Timestamp::from_millis(n * HOUR_MS))
}

fn requests(n: u64) -> Counts {
    Counts {
        requests: n,
        ..Counts::default()
    }
}

fn last(at: i64) -> LastUse {
    LastUse {
        at: Timestamp::from_millis(at),
        address: "192.0.2.1".parse().unwrap(),
    }
}

fn pending(rows_max: usize) -> Pending {
    Pending::new("me".into(), rows_max)
}

fn tenant(name: &str) -> TenantId {
    name.parse().unwrap()
}

#[test]
fn a_batch_has_all_in_order_and_its_sums() {
    let mut all = pending(100);
    all.add(key(2), &tenant("b"), hour(5), &requests(1));
    all.add(key(1), &tenant("a"), hour(6), &requests(2));
    all.add(key(1), &tenant("a"), hour(5), &requests(3));
    all.add(key(1), &tenant("a"), hour(6), &requests(4));
    all.note_use(key(1), Generation(2), last(7));
    all.note_use(key(1), Generation(1), last(9));
    all.note_use(key(1), Generation(2), last(6));
    all.note_use(key(3), Generation(1), last(8));
    assert_eq!(all.rows(), 4);
    let batch = all.current().unwrap();
    let rows = |row: &HourRow| (row.key_id, row.hour, row.counts.requests);
    let rows: Vec<_> = batch.hours.iter().map(rows).collect();
    assert_eq!(
        rows,
        [
            (key(1), hour(5), 3),
            (key(1), hour(6), 6),
            (key(2), hour(5), 1)
        ]
    );
    let uses = |one: &KeyUse| (one.key_id, one.generation.0, one.last.at.as_millis());
    let uses: Vec<_> = batch.uses.iter().map(uses).collect();
    assert_eq!(uses, [(key(1), 1, 9), (key(1), 2, 7), (key(3), 1, 8)]);
    let sums: Vec<_> = batch.sums().into_iter().collect();
    let sums: Vec<_> = sums
        .iter()
        .map(|((subject, of), counts)| (subject.to_string(), *of, counts.requests))
        .collect();
    assert_eq!(
        sums,
        [
            ("tenant/a".to_owned(), hour(5), 3),
            ("tenant/a".to_owned(), hour(6), 6),
            ("tenant/b".to_owned(), hour(5), 1),
            ("platform".to_owned(), hour(5), 4),
            ("platform".to_owned(), hour(6), 6),
        ]
    );
    let totals: Vec<_> = batch.totals().into_iter().collect();
    assert_eq!(totals, [(key(1), requests(9)), (key(2), requests(1))]);
}

#[test]
fn what_may_have_been_stored_is_not_changed() {
    let mut all = pending(100);
    all.add(key(1), &tenant("a"), hour(5), &requests(1));
    let first = all.current().unwrap();
    all.add(key(1), &tenant("a"), hour(5), &requests(2));
    assert_eq!(all.current().unwrap(), first);
    assert_eq!((first.number, all.rows()), (1, 2));
    all.stored();
    let second = all.current().unwrap();
    assert_eq!((second.number, second.hours[0].counts.requests), (2, 2));
    all.stored();
    assert_eq!((all.current(), all.rows()), (None, 0));
}

#[test]
fn batches_are_no_longer_than_they_may_be() {
    let mut all = pending(10_000);
    for n in 0..BATCH_KEYS_MAX + 1 {
        all.add(key(n), &tenant("a"), hour(5), &requests(1));
    }
    assert_eq!(all.current().unwrap().hours.len(), BATCH_KEYS_MAX);
    all.stored();
    assert_eq!(all.current().unwrap().hours.len(), 1);
}

#[test]
fn outcomes_wait_beside_keys_and_have_a_limit_of_their_own() {
    let mut all = pending(0);
    let outcome = || Subject::Outcome(Outcome::NoRoute);
    for n in 0..=OUTCOME_ROWS_MAX as i64 {
        all.add_outcome(outcome(), hour(n), 1);
    }
    all.add_outcome(outcome(), hour(0), 2);
    assert_eq!((all.take_dropped(), all.rows()), (1, 0));
    let batch = all.current().unwrap();
    assert_eq!(batch.outcomes.len(), OUTCOME_ROWS_MAX);
    assert_eq!(batch.outcomes[0].requests, 3);
    all.add_outcome(outcome(), hour(0), 4);
    assert_eq!(all.current().unwrap(), batch);
    all.stored();
    assert_eq!(all.current().unwrap().outcomes[0].requests, 4);
    all.stored();
    assert_eq!(all.current(), None);
}

#[test]
fn over_the_limit_only_what_is_there_grows() {
    let mut all = pending(2);
    all.note_use(key(1), Generation(1), last(1));
    all.add(key(2), &tenant("a"), hour(5), &requests(1));
    // Dropped: a key, an hour, a use of a key that is not there.
    all.add(key(3), &tenant("a"), hour(5), &requests(1));
    all.add(key(2), &tenant("a"), hour(6), &requests(1));
    all.note_use(key(4), Generation(1), last(1));
    assert_eq!((all.take_dropped(), all.take_dropped()), (3, 0));
    all.add(key(1), &tenant("a"), hour(5), &requests(1));
    all.add(key(2), &tenant("a"), hour(5), &requests(1));
    all.note_use(key(2), Generation(1), last(1));
    assert_eq!((all.take_dropped(), all.rows()), (0, 2));
    // The batch that is under way holds its place.
    let batch = all.current().unwrap();
    assert_eq!((batch.hours.len(), batch.uses.len()), (2, 2));
    all.add(key(3), &tenant("a"), hour(5), &requests(1));
    assert_eq!(all.take_dropped(), 1);
    all.stored();
    all.add(key(3), &tenant("a"), hour(5), &requests(1));
    assert_eq!((all.take_dropped(), all.rows()), (0, 1));
}
