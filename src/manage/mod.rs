//! What can be done with keys and tenants, in which order it is written, and what is noted of it. Whoever calls
//! (the admin API, the first start) has been asked for permission before.

mod expected;
pub mod fields;
pub mod imports;
pub mod keys;
mod once;
pub mod sealed;
pub mod tenants;
mod unnamed;

pub use expected::Expected;
pub use fields::{KeyChange, NewKey};
pub use imports::{IMPORT_COLUMNS, ImportOutcome, ImportSecret, ImportedKey};
pub use keys::{IssuedKey, KeyError, KeyService};
pub use once::{Given, Made, Once};
pub use tenants::{TenantError, TenantService};
