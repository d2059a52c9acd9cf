//! What the people on call see: metrics and logs. Must never see a credential.

pub mod certificates;
pub mod dependencies;
pub mod logs;
pub mod metrics;
pub mod outcome;
pub mod shown_certificates;

pub use metrics::Metrics;
pub use outcome::Outcome;
