//! A flood of unknown keys costs no look at a store and no bcrypt.

use super::{SETTINGS, import, line, log_in, plain, start, strong, work};
use crate::harness::sidekey::{Sidekey, config};
use crate::harness::upstream::Upstream;
use serde_json::json;

const REJECTIONS: &str = "sidekey_import_filter_rejections_total";

#[tokio::test(flavor = "multi_thread")]
async fn unknown_keys_are_turned_away_in_memory() {
    const UNKNOWN: usize = 500;
    let (sidekey, upstream) = start().await;
    let hash = bcrypt::non_truncating_hash("wonderland", 4).unwrap();
    let lines = [
        plain(&strong(0)),
        line(json!({"user": "alice", "hash": hash})),
    ];
    import(&sidekey, &lines).await;
    assert_eq!(sidekey.metric("sidekey_imported_keys").await, 2.0);
    let before = work(&sidekey).await;
    for number in 1..=UNKNOWN {
        assert_eq!(sidekey.status("/", &strong(number)).await, 401);
        let user = format!("alice{number}");
        assert_eq!(log_in(&sidekey, &user, "wonderland").await, 401);
    }
    assert_eq!(work(&sidekey).await, before);
    assert_eq!(sidekey.metric(REJECTIONS).await, 2.0 * UNKNOWN as f64);
    assert_eq!(upstream.count(), 0);
    assert_eq!(sidekey.status("/", &strong(0)).await, 200);
    assert_eq!(log_in(&sidekey, "alice", "wonderland").await, 200);
}

/// Without any import, nothing is looked for at all; and a database that is away makes no difference
/// to unknown keys.
#[tokio::test(flavor = "multi_thread")]
async fn unknown_keys_need_no_database() {
    let upstream = Upstream::start().await;
    let mut postgres = crate::harness::postgres::Postgres::start().await;
    let url = postgres.url();
    let environment = [("SIDEKEY__STORE__URL", url.as_str())];
    let config = config(upstream.address, SETTINGS);
    let sidekey = Sidekey::start_with(&config, &environment).await;
    assert_eq!(sidekey.status("/", &strong(1)).await, 401);
    assert_eq!(sidekey.metric(REJECTIONS).await, 0.0);
    import(&sidekey, &[plain(&strong(0)), plain(&strong(9))]).await;
    assert_eq!(sidekey.status("/", &strong(0)).await, 200);
    postgres.kill();
    assert_eq!(sidekey.status("/", &strong(1)).await, 401, "unknown");
    assert_eq!(sidekey.status("/", &strong(0)).await, 200, "warm");
    assert_eq!(
        sidekey.status("/", &strong(9)).await,
        503,
        "known, and cold"
    );
}

/// A wrong password of a user who is there costs bcrypt, until the address has failed too often.
#[tokio::test(flavor = "multi_thread")]
async fn guessing_a_password_is_limited_by_address() {
    const FAILURES: usize = 5;
    let upstream = Upstream::start().await;
    let more = r#"
[credentials]
sources = ["basic"]
[limits]
failed_auth = { name = "failed-auth", quota = 5, window_seconds = 3600 }
"#;
    let sidekey = Sidekey::start(&config(upstream.address, more)).await;
    let hash = bcrypt::non_truncating_hash("wonderland", 4).unwrap();
    import(&sidekey, &[line(json!({"user": "alice", "hash": hash}))]).await;
    assert_eq!(log_in(&sidekey, "alice", "wonderland").await, 200);
    let (before, _) = work(&sidekey).await;
    for guess in 0..4 * FAILURES {
        let status = log_in(&sidekey, "alice", &format!("guess {guess}")).await;
        assert_eq!(status, if guess < FAILURES { 401 } else { 429 });
    }
    let (after, _) = work(&sidekey).await;
    assert_eq!(after - before, FAILURES as f64);
    assert_eq!(
        log_in(&sidekey, "alice", "wonderland").await,
        200,
        "remembered"
    );
}
