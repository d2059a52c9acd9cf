//! What the people on call see: metrics and logs. Must never see a credential.

pub mod logs;
pub mod metrics;

pub use metrics::Metrics;
