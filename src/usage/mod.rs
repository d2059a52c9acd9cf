//! What each key was used for: counted where requests end, kept by the hour.
//!
//! ```text
//! a request's end -> counters of its live key        (relaxed atomics: no lock, no allocation)
//! every interval, and at the top of each hour -> pending (in memory, with a limit)
//! batches of it, each exactly once -> hours of keys, tenants and the platform; totals; last uses
//! hours that are older than they are kept -> days    (roll_up)
//! the differences of the routes' counters -> hours of outcomes, in the same batches    (outcomes)
//! the busiest keys of each hour -> lists of them    (ranking)
//! each tenant's requests, as they are taken out -> metrics of the busiest tenants    (tenants, busiest)
//! ```
//!
//! Thread safety: counting takes nothing from anybody; what is taken out of a counter is in the pending
//! rows, in a batch, or in the store, and in one of them only. Failure: while the store is away rows
//! wait, up to `usage.max_pending_rows`; a batch of which nobody knows whether it was stored is tried
//! again under its number, and the store takes each number once. A process that is killed loses what it
//! has counted since the last flush.

pub mod busiest;
pub mod counters;
pub mod counts;
pub mod flush;
pub mod last_use;
pub mod outcomes;
pub mod pending;
pub mod ranking;
pub mod roll_up;
pub mod span;
pub mod tenants;

pub use counters::{Counters, Ending, Request};
pub use counts::{Counts, Hour, KeyUse, LastUse, Subject};
pub use flush::{Flusher, Source};
pub use last_use::LastUseSlot;
pub use pending::{Batch, HourRow, OutcomeRow, Pending};
pub use ranking::Ranker;
pub use roll_up::RollUp;
