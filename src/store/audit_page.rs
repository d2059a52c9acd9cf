//! Pages of the audit chain, each read by one index from where it starts. An index has a filter's column
//! and the number of an entry; where a filter names several columns, the one whose entries are rarest
//! where the page starts is read, and each entry in it is looked at, so many at most.
//!
//! Times are in the order of the numbers, but for those of clocks that were far off. So the two ends of a
//! filter's time are looked up once, and what lies between is read by number; [`ODD_TIMES_MAX`] entries
//! with odd times at an end hide nothing.

use sqlx::any::AnyRow;
use sqlx::{AnyPool, AssertSqlSafe, Row};

use super::StoreError;
use super::audit::{COLUMNS, read_found};
use crate::audit::entry::Entry;
use crate::audit::{Action, Actor};
use crate::clock::Timestamp;
use crate::key::{KeyId, TenantId};

/// Entries that one page looks at, at most.
pub const EXAMINED_MAX: usize = 1000;
/// Entries that are read at once.
const ROWS_A_STATEMENT: usize = 100;
/// A page that has this many bytes of details is full, whatever its limit: each entry may have many.
const PAGE_BYTES_MAX: usize = 4 << 20;
/// Entries at each end of a filter's time that may have the time of a clock that was far off.
const ODD_TIMES_MAX: usize = 100;

/// Which entries a list has. Everything that is given must hold.
#[derive(Debug, Clone, Default)]
pub struct EventFilter {
    pub key_id: Option<KeyId>,
    pub tenant_id: Option<TenantId>,
    pub actor: Option<Actor>,
    pub action: Option<Action>,
    /// From this moment on.
    pub from: Option<Timestamp>,
    /// Before this moment.
    pub to: Option<Timestamp>,
}

/// In which order a list is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    NewestFirst,
    OldestFirst,
}

/// A part of the chain, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EventRange {
    pub first: i64,
    pub last: i64,
    pub order: Order,
}

impl EventRange {
    /// What is left of it after entry `seq`.
    pub fn after(self, seq: i64) -> Self {
        match self.order {
            Order::NewestFirst => EventRange {
                last: self.last.min(seq.saturating_sub(1)),
                ..self
            },
            Order::OldestFirst => EventRange {
                first: self.first.max(seq.saturating_add(1)),
                ..self
            },
        }
    }

    /// In another order.
    pub fn in_order(self, order: Order) -> Self {
        EventRange { order, ..self }
    }
}

/// A page of a list.
#[derive(Debug, Default)]
pub struct EventPage {
    pub entries: Vec<Entry>,
    /// The entry after which the next page starts; `None` after the last.
    pub next: Option<i64>,
}

impl EventFilter {
    /// The columns that have to have one value each.
    fn columns(&self) -> Vec<(&'static str, String)> {
        let columns = [
            ("key_id", self.key_id.map(|id| id.to_string())),
            ("actor", self.actor.map(Actor::text)),
            (
                "tenant_id",
                self.tenant_id.as_ref().map(ToString::to_string),
            ),
            (
                "action",
                self.action.map(|action| action.as_str().to_owned()),
            ),
        ];
        let columns = columns.into_iter();
        columns
            .filter_map(|(column, value)| Some((column, value?)))
            .collect()
    }

    fn lets_through(&self, entry: &Entry) -> bool {
        let at = Timestamp::from_millis(entry.at);
        let in_time = self.from.is_none_or(|from| from <= at) && self.to.is_none_or(|to| at < to);
        in_time
            && self.columns().iter().all(|(column, value)| {
                let found = match *column {
                    "key_id" => entry.key_id.as_ref(),
                    "actor" => Some(&entry.actor),
                    "tenant_id" => entry.tenant_id.as_ref(),
                    _ => Some(&entry.action),
                };
                found == Some(value)
            })
    }
}

pub(super) async fn read_range(
    pool: &AnyPool,
    filter: &EventFilter,
) -> Result<EventRange, StoreError> {
    let mut range = EventRange {
        first: 1,
        last: i64::MAX,
        order: Order::NewestFirst,
    };
    if let Some(from) = filter.from {
        let sql = format!(
            "SELECT seq FROM audit_events WHERE noted_at >= $1 ORDER BY noted_at, seq LIMIT {ODD_TIMES_MAX}"
        );
        let seqs = read_seqs(pool, sql, from).await?;
        range.first = seqs.into_iter().min().unwrap_or(i64::MAX);
    }
    if let Some(to) = filter.to {
        let sql = format!(
            "SELECT seq FROM audit_events WHERE noted_at < $1 ORDER BY noted_at DESC, seq DESC LIMIT {ODD_TIMES_MAX}"
        );
        let seqs = read_seqs(pool, sql, to).await?;
        range.last = seqs.into_iter().max().unwrap_or(0);
    }
    Ok(range)
}

async fn read_seqs(pool: &AnyPool, sql: String, at: Timestamp) -> Result<Vec<i64>, StoreError> {
    let rows = sqlx::query(AssertSqlSafe(sql))
        .bind(at.as_millis())
        .fetch_all(pool)
        .await?;
    let seqs = rows.iter().map(|row| Ok(row.try_get("seq")?));
    seqs.collect()
}

/// `what` of `count` rows between the numbers `$1` and `$2` that have `$3` in `column`, without the first
/// `skipped`. Which index is read is not left to a planner: bounds and order name all of its columns. And
/// nothing bounds a column by itself: SQLite would take that for the range, and read all of its entries.
pub fn page_statement(
    column: Option<&str>,
    what: &str,
    order: Order,
    count: usize,
    skipped: usize,
) -> String {
    let direction = match order {
        Order::NewestFirst => "DESC",
        Order::OldestFirst => "ASC",
    };
    let (bounds, order) = match column {
        None => (
            "seq >= $1 AND seq <= $2".to_owned(),
            format!("seq {direction}"),
        ),
        Some(column) => (
            format!("({column}, seq) >= ($3, $1) AND ({column}, seq) <= ($3, $2)"),
            format!("{column} {direction}, seq {direction}"),
        ),
    };
    format!(
        "SELECT {what} FROM audit_events WHERE {bounds} ORDER BY {order} LIMIT {count} OFFSET {skipped}"
    )
}

/// The part of one index, or of the chain itself, that a page reads.
struct Source {
    column: Option<(&'static str, String)>,
}

impl Source {
    fn statement(&self, what: &str, order: Order, count: usize, skipped: usize) -> String {
        let column = self.column.as_ref().map(|(column, _)| *column);
        page_statement(column, what, order, count, skipped)
    }

    async fn read(
        &self,
        pool: &AnyPool,
        sql: String,
        range: EventRange,
    ) -> Result<Vec<AnyRow>, StoreError> {
        let mut query = sqlx::query(AssertSqlSafe(sql))
            .bind(range.first)
            .bind(range.last);
        if let Some((_, value)) = &self.column {
            query = query.bind(value.clone());
        }
        Ok(query.fetch_all(pool).await?)
    }

    /// The entry up to which a page could look at all of the source; `None` where that is all there is.
    async fn reach(&self, pool: &AnyPool, range: EventRange) -> Result<Option<i64>, StoreError> {
        let sql = self.statement("seq", range.order, 1, EXAMINED_MAX - 1);
        let rows = self.read(pool, sql, range).await?;
        Ok(rows.first().map(|row| row.try_get("seq")).transpose()?)
    }
}

/// The source that reaches furthest.
async fn choose(
    pool: &AnyPool,
    filter: &EventFilter,
    range: EventRange,
) -> Result<Source, StoreError> {
    let mut columns = filter.columns();
    if columns.len() < 2 {
        let column = columns.pop();
        return Ok(Source { column });
    }
    let mut best: Option<(Source, i64)> = None;
    for column in columns {
        let source = Source {
            column: Some(column),
        };
        let Some(reach) = source.reach(pool, range).await? else {
            return Ok(source);
        };
        let is_further = best.as_ref().is_none_or(|(_, best)| match range.order {
            Order::NewestFirst => reach < *best,
            Order::OldestFirst => reach > *best,
        });
        if is_further {
            best = Some((source, reach));
        }
    }
    Ok(best.map_or(Source { column: None }, |(source, _)| source))
}

pub(super) async fn read_page(
    pool: &AnyPool,
    filter: &EventFilter,
    range: EventRange,
    limit: usize,
) -> Result<EventPage, StoreError> {
    let source = choose(pool, filter, range).await?;
    let (mut page, mut rest) = (EventPage::default(), range);
    let (mut examined, mut bytes) = (0, 0);
    while examined < EXAMINED_MAX {
        let sql = source.statement(COLUMNS, range.order, ROWS_A_STATEMENT, 0);
        let rows = source.read(pool, sql, rest).await?;
        for row in &rows {
            let found = read_found(row);
            page.next = Some(found.seq);
            rest = rest.after(found.seq);
            // What can't be read is for a verification to tell.
            let Some(entry) = found.entry.filter(|entry| filter.lets_through(entry)) else {
                continue;
            };
            bytes += entry.details.len();
            page.entries.push(entry);
            if page.entries.len() >= limit || bytes >= PAGE_BYTES_MAX {
                return Ok(page);
            }
        }
        examined += rows.len();
        if rows.len() < ROWS_A_STATEMENT {
            page.next = None;
            break;
        }
    }
    Ok(page)
}
