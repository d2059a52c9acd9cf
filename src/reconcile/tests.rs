//! The guard, on numbers. What a pass does is tested on real stores, beside this crate.

use super::*;

#[test]
fn a_few_leftovers_are_a_crash_and_many_are_lost_rows() {
    for (with_leftovers, holders, suspicious) in [
        (0, 0, false),
        (1, 1, false),
        // Few, though all there are: a deployment that is just beginning.
        (100, 100, false),
        (101, 1009, true),
        // Many, though few of all.
        (101, 1010, false),
        (5000, 60_000, false),
        (6001, 60_000, true),
    ] {
        let found = is_suspicious(with_leftovers, holders, 100);
        assert_eq!(found, suspicious, "{with_leftovers} of {holders}");
    }
    assert!(!is_suspicious(500, 500, 500), "the number can be raised");
}
