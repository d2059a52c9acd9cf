//! What can be done with keys, in which order it is written, and what is noted of it. Whoever calls
//! (the admin API, the first start) has been asked for permission before.

mod expected;
pub mod keys;
mod once;
pub mod sealed;
mod unnamed;

pub use expected::Expected;
pub use keys::{IssuedKey, KeyChange, KeyError, KeyService, NewKey};
pub use once::{Given, Made, Once};
