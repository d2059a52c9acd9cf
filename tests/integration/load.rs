//! A short run of the load that `make load` holds for minutes, and that it would notice what is wrong.

// A load that lasts for a time is what `make load` holds.
#[allow(dead_code)]
#[path = "../../benches/load/mixed/mod.rs"]
mod mixed;

use mixed::{Extent, Kind, Plan};

use crate::harness::HEAVY;

/// Some 140 of these are to each limited key, whose bucket holds ten and gains one a second.
const SHORT: Plan = Plan {
    extent: Extent::Requests(2_000),
    connections: 8,
    cold_keys: 20,
    limited_per_second: 1,
    bcrypt_cost: 4,
    more: "",
};

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_of_a_mixed_load_is_right() {
    let _turn = HEAVY.acquire().await.expect("a turn");
    let report = mixed::run(&SHORT).await;
    assert!(report.is_right(), "{report}");
    for kind in Kind::ALL {
        assert!(report.tally.of(kind).answers() > 0, "{report}");
    }
    for status in [200, 429] {
        let met = report.tally.of(Kind::OverLimit).statuses.get(&status);
        assert!(met.is_some(), "{report}");
    }
    let cold = report.tally.of(Kind::Cold).statuses.get(&200).copied();
    assert!(cold.unwrap_or_default() > 0, "{report}");
    assert!(report.before.resident > 0 && report.after.peak >= report.after.resident);
}

/// Without refusals every kind but the valid ones and the new ones is answered wrongly.
#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_refuses_nobody_is_noticed() {
    let plan = Plan {
        more: "[proxy]\nmode = \"shadow\"\n",
        ..SHORT
    };
    let _turn = HEAVY.acquire().await.expect("a turn");
    let report = mixed::run(&plan).await;
    assert!(!report.is_right(), "{report}");
    for kind in [Kind::WrongScope, Kind::Forged, Kind::Expired] {
        assert!(report.tally.of(kind).wrong > 0, "{report}");
    }
    for kind in [Kind::Valid, Kind::OverLimit] {
        assert_eq!(report.tally.of(kind).wrong, 0, "{report}");
    }
    let told = report.to_string();
    assert!(
        told.contains("requests more passed than the bucket held"),
        "{told}"
    );
    assert!(
        told.contains("forged keys") || told.contains("invalid_key: the gateway counted"),
        "{told}"
    );
}
