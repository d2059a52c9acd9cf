//! What tests stand on: the program, services behind it, and raw connections.

pub mod api;
pub mod calls;
pub mod certificates;
pub mod collector;
pub mod fleet;
pub mod openbao;
pub mod ports;
pub mod postgres;
pub mod raw;
pub mod redis;
pub mod run;
pub mod service;
pub mod sidekey;
pub mod smtp;
pub mod upstream;
pub mod wire;

use std::process::Command;
use std::time::{Duration, Instant};

use ::sidekey::audit::{Action, Note};
use ::sidekey::clock::Timestamp;
use tokio::sync::Semaphore;

/// Browsers, and servers under a load, that run at the same time: each takes some 400 MB or all of a CPU.
pub const HEAVY_MAX: u32 = 2;
/// Their turns. Who counts how much gets through takes all of them.
pub static HEAVY: Semaphore = Semaphore::const_new(HEAVY_MAX as usize);

/// How long a test waits for something that has to happen: on a machine that others use too, all takes its time.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// What a test notes of its own writes.
pub fn noted() -> Note {
    Note::by_system(Action::KeyChanged, Timestamp::from_millis(1000))
}

/// Servers close connections that are idle for half a minute: nobody asks on one that is about to be closed.
const IDLE_MAX: Duration = Duration::from_secs(20);

/// An HTTP client. Its TLS, which Vault's client needs, has no provider of its own.
pub fn client_builder() -> reqwest::ClientBuilder {
    pingora_core::tls::install_default_crypto_provider();
    reqwest::Client::builder().pool_idle_timeout(IDLE_MAX)
}

/// Sends `signal` (a name such as `TERM`) to processes, which have to be there.
pub fn send_signal(signal: &str, processes: &[u32]) {
    assert!(try_signal(signal, processes), "{processes:?} are gone");
}

/// Sends `signal` to processes, and says whether all of them were there.
pub fn try_signal(signal: &str, processes: &[u32]) -> bool {
    let status = Command::new("kill")
        .arg(format!("-{signal}"))
        .args(processes.iter().map(u32::to_string))
        .status();
    status.is_ok_and(|status| status.success())
}

/// Waits until `condition` holds; fails the test with `what` after [`DEADLINE`].
pub async fn eventually<F, R>(what: &str, condition: F)
where
    F: FnMut() -> R,
    R: Future<Output = bool>,
{
    eventually_within(DEADLINE, what, condition).await;
}

/// The same after `deadline`, for what is slow on purpose.
pub async fn eventually_within<F, R>(deadline: Duration, what: &str, mut condition: F)
where
    F: FnMut() -> R,
    R: Future<Output = bool>,
{
    let start = Instant::now();
    while !condition().await {
        assert!(start.elapsed() < deadline, "waited too long until {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
