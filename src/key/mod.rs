//! The domain: what a key is, looks like and may do. Pure: no I/O, no clock, no configuration,
//! and no other room is imported (time stamps are the crate's vocabulary).

pub mod format;
pub mod hash;
pub mod policy;
pub mod record;
pub mod scope;
pub mod tenant;

pub use format::{Environment, KeyId, MintKey, MintKeys, Prefix, Presented};
pub use policy::Policy;
pub use record::{Authority, Denial, Generation, KeyRecord, Status};
pub use scope::{Catalogue, Scope, ScopePattern, ScopeSet};
pub use tenant::{TenantId, TenantRecord, TenantSettings};
