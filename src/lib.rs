//! Sidekey: an API-key gateway.
pub mod clock;
pub mod key;
pub mod limit;
