//! What the metrics tell of requests: each grows when it should, and no request makes a series of its own.

mod admin;
mod cardinality;
mod proxy;
mod tenants;

use crate::harness::eventually;
use crate::harness::sidekey::Sidekey;

/// Usage is taken out often, so that tests need not wait.
const OFTEN: &str = "[usage]\nflush_interval_seconds = 1\n";
/// Nobody is limited.
const NO_LIMITS: &str = r#"
[limits]
default = [{ name = "plenty", quota = 1000000, window_seconds = 1 }]
failed_auth = { name = "failed-auth", quota = 1000000, window_seconds = 1 }
"#;

/// Waits until a series has exactly this value: a request is counted after its answer.
async fn expect(sidekey: &Sidekey, series: &str, value: f64) {
    let what = format!("{series} is {value}");
    eventually(&what, || async { sidekey.metric(series).await == value }).await;
}
