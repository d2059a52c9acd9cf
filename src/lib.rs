//! Sidekey: an API-key gateway.
pub mod clock;
pub mod config;
pub mod key;
pub mod limit;
pub mod secrets;
pub mod store;
