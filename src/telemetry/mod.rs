//! What the people on call see: metrics, logs and traces. Must never see a credential.

pub mod access;
pub mod logs;
pub mod metrics;
pub mod outcome;
pub mod spans;
pub mod trace_context;

pub use metrics::Metrics;
pub use outcome::Outcome;
