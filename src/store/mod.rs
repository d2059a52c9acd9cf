//! Key metadata: what a [`KeyStore`] can do, and its SQL implementation.
//!
//! Must never hold a secret or a hash: those are the secret store's.

pub mod answers;
pub mod audit;
pub mod audit_page;
mod bulk;
pub mod census;
mod change;
pub mod claims;
mod conditions;
pub mod few;
pub mod guarded;
pub mod imports;
pub mod instances;
pub mod list;
pub mod order;
mod outage;
pub mod overview;
pub mod rankings;
pub mod recent;
pub mod reminders;
mod rows;
pub mod search;
pub mod sessions;
pub mod settle;
mod source;
pub mod sql;
mod statement;
pub mod tenants;
pub mod usage;
mod wanted;

use async_trait::async_trait;

use crate::audit::Note;
use crate::clock::Timestamp;
use crate::key::{Environment, KeyId, KeyRecord, Status, TenantId};

pub use answers::AnswerStore;
pub use audit::{AuditStore, EventFilter, EventPage, EventRange, Journal};
pub use audit_page::Order;
pub use census::{Census, CensusStore};
pub use claims::{Claim, ClaimPage};
pub use guarded::{Guard, Guarded};
pub use imports::{ImportPage, ImportStore, Imported};
pub use instances::{Heard, Heartbeat};
pub use order::{KeyOrder, PageFrom, Position, SortBy, Value};
pub use overview::OverviewStore;
pub use rankings::RankingStore;
pub use recent::RecentHour;
pub use reminders::ReminderStore;
pub use sessions::{Session, SessionStore};
pub use sql::SqlStore;
pub use tenants::{TenantFilter, TenantPage, TenantStore};
pub use usage::UsageStore;

/// The most keys in one page of a list.
pub const PAGE_LEN_MAX: usize = 1000;

/// The most changes that are read at once.
pub const CHANGES_MAX: usize = 1000;

/// One change of a key, or of a tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Its place in the order of all changes, without gaps.
    pub seq: i64,
    /// Where a tenant was changed, one that no key has.
    pub key_id: KeyId,
    /// The tenant that was changed.
    pub tenant_id: Option<TenantId>,
}

/// Why a store did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database can't be reached, or did not answer in time.
    #[error("the database is not available: {0}")]
    Unavailable(String),
    /// The write can't be noted in the audit chain, so it is not done.
    #[error("the audit chain can't be continued: {0}")]
    Unrecorded(String),
    /// The record changed since it was read.
    #[error("the key was changed by somebody else at the same time")]
    Conflict,
    /// A row that this version can't have written.
    #[error("key {id} is damaged in the database: its {column} can't be read")]
    Damaged { id: String, column: &'static str },
    /// The same of a tenant.
    #[error("tenant {id} is damaged in the database: its {column} can't be read")]
    DamagedTenant { id: String, column: &'static str },
    /// The tenant has as many keys as it may have.
    #[error("the tenant may have {max} keys, and has them")]
    TooManyKeys { max: u64 },
}

/// A page of a list.
#[derive(Debug, Default)]
pub struct Page {
    pub keys: Vec<KeyRecord>,
    /// Where the next page starts; `None` after the last. A page for which each key is looked at (of a
    /// search, for example) may be shorter than it might be, or empty, and another may follow all the same.
    pub next: Option<Position>,
    /// Where the page before this one ends; `None` where it is known that there is none.
    pub previous: Option<Position>,
}

/// Which keys a list has. Everything that is given must hold.
#[derive(Debug, Clone, Default)]
pub struct KeyFilter {
    pub tenant_id: Option<TenantId>,
    /// What the key is at the moment given.
    pub status: Option<(Status, Timestamp)>,
    pub environment: Option<Environment>,
    /// It expires before that moment.
    pub expiring_before: Option<Timestamp>,
    /// It was made before that moment and not used since.
    pub unused_since: Option<Timestamp>,
    /// Part of the name or of the id, in any case.
    pub text: Option<String>,
}

/// Where records live. Every write that returned is durable.
#[async_trait]
pub trait KeyStore: Send + Sync + 'static {
    /// Adds a new key, and its tenant where that is new. [`StoreError::Conflict`] where the id is taken,
    /// [`StoreError::TooManyKeys`] where the tenant has as many as it may have. A write and the note of it are
    /// there together, or neither is: so it is with all writes here.
    async fn insert(&self, record: &KeyRecord, note: &Note) -> Result<(), StoreError>;

    /// The key of that id.
    async fn get(&self, id: KeyId) -> Result<Option<KeyRecord>, StoreError>;

    /// Adds the first key of all. [`StoreError::Conflict`] where there is one, whoever comes at the
    /// same time.
    async fn insert_first(&self, record: &KeyRecord, note: &Note) -> Result<(), StoreError>;

    /// Replaces the record whose revision is the one before `record.revision`.
    /// [`StoreError::Conflict`] where it has another by now.
    async fn update(&self, record: &KeyRecord, note: &Note) -> Result<(), StoreError>;

    /// A page of at most `limit` keys (no more than [`PAGE_LEN_MAX`]) in this order, from that place.
    /// What it costs has a bound, whatever is in the store.
    async fn page(
        &self,
        filter: &KeyFilter,
        order: KeyOrder,
        from: &PageFrom,
        limit: usize,
    ) -> Result<Page, StoreError>;

    /// Brings what lists are read from up to date, a bounded part of it, and says whether there may
    /// be more to do: rows of older versions, and keys whose time was over before `now`.
    async fn settle(&self, now: Timestamp) -> Result<bool, StoreError>;

    /// What the first [`claims::CLAIMS_MAX`] rows after the id `after` say about hashes, in the order of
    /// ids. A row that can't be read does not hide the others.
    async fn claims(&self, after: Option<String>) -> Result<ClaimPage, StoreError>;

    /// The first [`CHANGES_MAX`] changes of keys (their creation is one) and tenants after number
    /// `seq`, oldest first.
    async fn changes_since(&self, seq: i64) -> Result<Vec<Change>, StoreError>;

    /// The number of the newest change; 0 before the first.
    async fn last_change(&self) -> Result<i64, StoreError>;

    /// Deletes what is known of changes before `before`. The numbers go on.
    async fn forget_changes(&self, before: Timestamp) -> Result<(), StoreError>;

    /// Whether there has never been a key.
    async fn is_empty(&self) -> Result<bool, StoreError>;

    /// Whether the database answers.
    async fn ping(&self) -> Result<(), StoreError>;
}

/// Where instances say of themselves that they live, and how far they have followed the changes.
#[async_trait]
pub trait InstanceStore: Send + Sync + 'static {
    /// Notes that an instance lives.
    async fn note_instance(&self, beat: &Heartbeat) -> Result<(), StoreError>;

    /// All instances that may be serving, by name.
    async fn instances(&self) -> Result<Vec<Heard>, StoreError>;

    /// Forgets an instance that has ended.
    async fn forget_instance(&self, id: &str) -> Result<(), StoreError>;

    /// Forgets the instances of that name, but for `id`, that count as live no more: what it was before a
    /// restart. One that is wrongly forgotten comes back with its next word.
    async fn forget_namesakes(&self, id: &str, name: &str) -> Result<(), StoreError>;

    /// Forgets instances that ended long ago without a word.
    async fn forget_gone_instances(&self) -> Result<(), StoreError>;
}
