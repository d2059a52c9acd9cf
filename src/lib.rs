//! Sidekey puts API keys in front of HTTP services which have none: a reverse proxy on Pingora
//! that verifies keys, checks scopes, applies token buckets and forwards. `docs/architecture.md`
//! is the map of these rooms.

#![forbid(unsafe_code)]
#![warn(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::todo,
    clippy::dbg_macro
)]

pub mod admin;
pub mod app;
pub mod audit;
pub mod breaker;
pub mod cli;
pub mod clock;
pub mod cluster;
pub mod config;
pub mod forwarded;
pub mod key;
pub mod limit;
pub mod manage;
pub mod problem;
pub mod proxy;
pub mod reconcile;
pub mod redis_link;
pub mod reminders;
pub mod root_cause;
pub mod secrets;
pub mod store;
pub mod stores;
pub mod telemetry;
pub mod tls;
pub mod usage;
pub mod verify;

/// The programs in this document must compile.
#[cfg(doctest)]
#[doc = include_str!("../docs/api.md")]
struct ApiExamples;
