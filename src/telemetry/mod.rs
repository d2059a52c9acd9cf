//! What the people on call see: metrics and logs. Must never see a credential.

pub mod addresses;
pub mod admin;
pub mod certificates;
pub mod dependencies;
pub mod failed_auth;
pub mod logs;
pub mod metrics;
pub mod outcome;
pub mod status;

pub use metrics::Metrics;
pub use outcome::Outcome;
