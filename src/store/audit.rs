//! The audit chain in the database: entries are added in the transaction that does what they tell of, and
//! read by the page.
//!
//! Whoever adds entries locks the one row of `audit_head`, after every other row, until the commit. So all
//! instances write one chain, and a transaction that can't add its entries does nothing at all.

use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::Mutex;
use prometheus::{Histogram, IntCounter};
use sqlx::any::AnyRow;
use sqlx::{Any, AnyConnection, AssertSqlSafe, Row, Transaction};

use super::change::placeholders;
use super::outage::is_outage;
use super::sql::{SqlStore, within_limit};
use super::{StoreError, audit_page};
use crate::audit::Note;
use crate::audit::chain::{Anchor, Found};
use crate::audit::entry::{Entry, Head};
use crate::audit::seal::Sealer;
use crate::clock::SharedClock;
use crate::telemetry::Metrics;
use crate::telemetry::dependencies::Timer;

pub use super::audit_page::{EventFilter, EventPage, EventRange};

/// The columns of `audit_events`, in the order in which entries are bound.
pub(super) const COLUMNS: &str = "seq, noted_at, action, actor, key_id, tenant_id, address, request_id, \
    details, previous_hash, hash, seal";
const COLUMNS_COUNT: usize = 12;
/// Entries of one statement: no engine takes any number of values.
const ENTRIES_A_STATEMENT: usize = 50;
/// Rows that a verification reads at once.
pub const CHAIN_PAGE_LEN: usize = 200;

/// What entries are sealed and counted with.
#[derive(Clone)]
pub struct Journal {
    sealer: Sealer,
    clock: SharedClock,
    entries: IntCounter,
    failures: IntCounter,
    seconds: Histogram,
    witness: Arc<Mutex<Witness>>,
}

/// What this process knows of the chain, whatever is done to the database.
#[derive(Debug, Default)]
struct Witness {
    /// The newest entry that it has written.
    newest: Option<Anchor>,
    /// Whether the chain was found without it.
    is_contradicted: bool,
}

impl Witness {
    /// Looks whether a chain that ends with `head` can have the newest entry.
    fn meet(&mut self, head: &Head) {
        let Some(newest) = &self.newest else {
            return;
        };
        let is_other = head.seq == newest.seq && head.hash != newest.hash;
        if (head.seq < newest.seq || is_other) && !self.is_contradicted {
            self.is_contradicted = true;
            tracing::error!(
                written = %newest, found = head.seq,
                "the audit chain ends before an entry that was written: was an older database restored, or the chain cut?"
            );
        }
    }

    fn wrote(&mut self, anchor: Anchor) {
        let is_newer = self
            .newest
            .as_ref()
            .is_none_or(|newest| newest.seq < anchor.seq);
        // Once it is contradicted, it is what a verification has to be held against.
        if is_newer && !self.is_contradicted {
            self.newest = Some(anchor);
        }
    }
}

impl Journal {
    pub fn new(sealer: Sealer, clock: SharedClock, metrics: &Metrics) -> Self {
        Journal {
            sealer,
            clock,
            entries: metrics.audit_entries.clone(),
            failures: metrics.audit_failures.clone(),
            seconds: metrics.audit_seconds.clone(),
            witness: Arc::default(),
        }
    }
}

/// Where the chain is.
#[async_trait]
pub trait AuditStore: Send + Sync + 'static {
    /// Adds entries that go with no other write, all or none.
    async fn note(&self, notes: &[Note]) -> Result<(), StoreError>;

    /// The end of the chain; `None` where it is missing or can't be read.
    async fn audit_head(&self) -> Result<Option<Head>, StoreError>;

    /// An entry that this process has written, and that has to be there therefore.
    fn witnessed(&self) -> Option<Anchor>;

    /// The first [`CHAIN_PAGE_LEN`] rows after the number `after`, whatever they hold.
    async fn chain_page(&self, after: i64) -> Result<Vec<Found>, StoreError>;

    /// Where in the chain the entries of `filter`'s time are.
    async fn event_range(&self, filter: &EventFilter) -> Result<EventRange, StoreError>;

    /// At most `limit` entries of `range` that `filter` lets through. What it costs has a bound, so a page
    /// may be short, or empty, and another follow all the same.
    async fn events(
        &self,
        filter: &EventFilter,
        range: EventRange,
        limit: usize,
    ) -> Result<EventPage, StoreError>;
}

impl SqlStore {
    /// Commits what `transaction` has written, together with `notes` of it. Nothing else may be written
    /// after the head of the chain is locked.
    pub(super) async fn commit_noted(
        &self,
        mut transaction: Transaction<'_, Any>,
        notes: &[Note],
    ) -> Result<(), StoreError> {
        let journal = self.journal();
        // Until the commit, or for as long as somebody waits for it.
        let _timer = journal.map(|journal| Timer::begin(&journal.seconds, &journal.clock));
        let appended = self.append(&mut transaction, notes).await;
        // An outage is told of elsewhere. One that comes with the commit has left a chain that goes on.
        if let (Err(StoreError::Unrecorded(_)), Some(journal)) = (&appended, journal) {
            journal.failures.inc();
        }
        let head = appended?;
        transaction.commit().await?;
        if let Some(journal) = journal {
            journal.entries.inc_by(notes.len() as u64);
            journal.witness.lock().wrote(head.into());
        }
        Ok(())
    }

    /// Adds entries to the chain, in a transaction whose last write this is; its new end.
    async fn append(
        &self,
        transaction: &mut AnyConnection,
        notes: &[Note],
    ) -> Result<Head, StoreError> {
        let unsealed = Sealer::default();
        let sealer = self.journal().map_or(&unsealed, |journal| &journal.sealer);
        let mut head = lock_head(transaction).await.map_err(unrecorded)?;
        if let Some(journal) = self.journal() {
            journal.witness.lock().meet(&head);
        }
        let mut entries = Vec::with_capacity(notes.len());
        for note in notes {
            let entry = Entry::after(&head, note, sealer);
            head = entry.as_head();
            entries.push(entry);
        }
        for entries in entries.chunks(ENTRIES_A_STATEMENT) {
            insert(transaction, entries).await.map_err(unrecorded)?;
        }
        move_head(transaction, &head).await.map_err(unrecorded)?;
        Ok(head)
    }
}

/// The chain is what is wrong, or its tables, unless the error is one of a database that is away.
fn unrecorded(error: sqlx::Error) -> StoreError {
    let is_chain = match &error {
        sqlx::Error::Database(answer) => !is_outage(&**answer),
        sqlx::Error::RowNotFound | sqlx::Error::ColumnDecode { .. } => true,
        _ => false,
    };
    if is_chain {
        StoreError::Unrecorded(error.to_string())
    } else {
        error.into()
    }
}

async fn lock_head(transaction: &mut AnyConnection) -> Result<Head, sqlx::Error> {
    let row = sqlx::query(
        "UPDATE audit_head SET seq = seq WHERE id = 1 RETURNING seq, noted_at, hash, seal",
    )
    .fetch_one(transaction)
    .await?;
    read_head(&row)
}

async fn move_head(transaction: &mut AnyConnection, head: &Head) -> Result<(), sqlx::Error> {
    sqlx::query("UPDATE audit_head SET seq = $1, noted_at = $2, hash = $3, seal = $4 WHERE id = 1")
        .bind(head.seq)
        .bind(head.at)
        .bind(head.hash.clone())
        .bind(head.seal.clone())
        .execute(transaction)
        .await?;
    Ok(())
}

async fn insert(transaction: &mut AnyConnection, entries: &[Entry]) -> Result<(), sqlx::Error> {
    let rows: Vec<String> = (0..entries.len())
        .map(|row| {
            let first = row * COLUMNS_COUNT + 1;
            format!("({})", placeholders(first, COLUMNS_COUNT))
        })
        .collect();
    let sql = format!(
        "INSERT INTO audit_events ({COLUMNS}) VALUES {}",
        rows.join(", ")
    );
    let mut query = sqlx::query(AssertSqlSafe(sql));
    for entry in entries {
        query = query
            .bind(entry.seq)
            .bind(entry.at)
            .bind(entry.action.clone())
            .bind(entry.actor.clone())
            .bind(entry.key_id.clone())
            .bind(entry.tenant_id.clone())
            .bind(entry.address.clone())
            .bind(entry.request_id.clone())
            .bind(entry.details.clone())
            .bind(entry.previous_hash.clone())
            .bind(entry.hash.clone())
            .bind(entry.seal.clone());
    }
    query.execute(transaction).await?;
    Ok(())
}

fn read_head(row: &AnyRow) -> Result<Head, sqlx::Error> {
    Ok(Head {
        seq: row.try_get("seq")?,
        at: row.try_get("noted_at")?,
        hash: row.try_get("hash")?,
        seal: row.try_get("seal")?,
    })
}

fn read_entry(row: &AnyRow) -> Result<Entry, sqlx::Error> {
    Ok(Entry {
        seq: row.try_get("seq")?,
        at: row.try_get("noted_at")?,
        action: row.try_get("action")?,
        actor: row.try_get("actor")?,
        key_id: row.try_get("key_id")?,
        tenant_id: row.try_get("tenant_id")?,
        address: row.try_get("address")?,
        request_id: row.try_get("request_id")?,
        details: row.try_get("details")?,
        previous_hash: row.try_get("previous_hash")?,
        hash: row.try_get("hash")?,
        seal: row.try_get("seal")?,
    })
}

/// A row with [`COLUMNS`]. An engine that keeps what a column is not declared for (SQLite) may have
/// anything in it.
pub(super) fn read_found(row: &AnyRow) -> Found {
    Found {
        // A number that is none is not the next one, nor is this.
        seq: row.try_get("seq").unwrap_or(i64::MAX),
        entry: read_entry(row).ok(),
    }
}

#[async_trait]
impl AuditStore for SqlStore {
    async fn note(&self, notes: &[Note]) -> Result<(), StoreError> {
        let work = async {
            let transaction = self.writer().begin().await?;
            self.commit_noted(transaction, notes).await
        };
        within_limit(work).await
    }

    async fn audit_head(&self) -> Result<Option<Head>, StoreError> {
        let query = sqlx::query("SELECT seq, noted_at, hash, seal FROM audit_head WHERE id = 1");
        let row = within_limit(async { Ok(query.fetch_optional(self.readers()).await?) }).await?;
        Ok(row.and_then(|row| read_head(&row).ok()))
    }

    fn witnessed(&self) -> Option<Anchor> {
        self.journal()?.witness.lock().newest.clone()
    }

    async fn chain_page(&self, after: i64) -> Result<Vec<Found>, StoreError> {
        let sql = format!(
            "SELECT {COLUMNS} FROM audit_events WHERE seq > $1 ORDER BY seq LIMIT {CHAIN_PAGE_LEN}"
        );
        let query = sqlx::query(AssertSqlSafe(sql)).bind(after);
        let rows = within_limit(async { Ok(query.fetch_all(self.readers()).await?) }).await?;
        Ok(rows.iter().map(read_found).collect())
    }

    async fn event_range(&self, filter: &EventFilter) -> Result<EventRange, StoreError> {
        within_limit(audit_page::read_range(self.readers(), filter)).await
    }

    async fn events(
        &self,
        filter: &EventFilter,
        range: EventRange,
        limit: usize,
    ) -> Result<EventPage, StoreError> {
        within_limit(audit_page::read_page(self.readers(), filter, range, limit)).await
    }
}

/// The end of the chain as it is written down elsewhere.
impl From<Head> for Anchor {
    fn from(head: Head) -> Self {
        Anchor {
            seq: head.seq,
            hash: head.hash,
        }
    }
}
