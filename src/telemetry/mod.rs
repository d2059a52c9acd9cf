//! What the people on call see: metrics, logs and traces. Must never see a credential.

pub mod access;
pub mod addresses;
pub mod admin;
pub mod certificates;
pub mod dependencies;
pub mod failed_auth;
pub mod logs;
pub mod metrics;
pub mod outcome;
pub mod reminders;
pub mod shown_certificates;
pub mod spans;
pub mod status;
pub mod trace_context;

pub use metrics::Metrics;
pub use outcome::Outcome;
