//! Sidekey: an API-key gateway.
pub mod clock;
pub mod config;
pub mod key;
pub mod limit;
pub mod problem;
pub mod proxy;
pub mod secrets;
pub mod store;
pub mod telemetry;
pub mod verify;
