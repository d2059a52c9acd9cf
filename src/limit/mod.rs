//! Rate limits. `bucket` is the one arithmetic (pure), `memory` applies it to buckets of this
//! process, `redis` to buckets that instances share (the same arithmetic in Lua), `address` keeps
//! buckets for callers that have no key.

pub mod address;
pub mod bucket;
pub mod fields;
pub mod memory;
pub mod redis;

pub use address::{AddressKey, AddressLimiter};
pub use bucket::Reading;
pub use fields::{LimitFields, closest};
pub use memory::{Bucket, Buckets, Decision, peek_all, take_all};
