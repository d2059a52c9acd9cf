//! The domain: what a key is, looks like and may do. Pure: no I/O, no clock, no configuration,
//! and no other room is imported (time stamps are the crate's vocabulary).

pub mod entropy;
pub mod format;
pub mod hash;
pub mod imported;
pub mod lookup;
pub mod mint;
pub mod policy;
pub mod record;
pub mod scope;
pub mod tenant;

pub use format::{Environment, KeyId, Prefix, Presented};
pub use imported::{Login, Pair, PlainKey};
pub use lookup::{Lookup, LookupKeys};
pub use mint::{MintKey, MintKeys};
pub use policy::Policy;
pub use record::{Authority, CredentialKind, Denial, Generation, KeyOrigin, KeyRecord, Status};
pub use scope::{Catalogue, Scope, ScopePattern, ScopeSet};
pub use tenant::{TenantId, TenantRecord, TenantSettings};
