//! Rate limits. `bucket` is the one arithmetic (pure), `memory` applies it to buckets of this
//! process, `address` keeps buckets for callers that have no key. The shared limiter (Redis, the
//! same arithmetic in Lua, leases) will stand beside `memory`.

pub mod address;
pub mod bucket;
pub mod fields;
pub mod memory;

pub use address::{AddressKey, AddressLimiter};
pub use bucket::Reading;
pub use fields::{LimitFields, closest};
pub use memory::{Bucket, Buckets, Decision, peek_all, take_all};
