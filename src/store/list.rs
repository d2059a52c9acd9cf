//! Pages of lists, each read by indexes from where it starts: what a page costs depends on its length
//! and not on how many keys there are, how deep it is, or how few keys the filter leaves.
//!
//! A list is merged from [`Source`]s. Each is a range of one index which has the list's order, so that
//! its beginning is its newest part. Which index is never the planner's choice: bounds and order name
//! all columns of one, also the first, whose value is fixed. Left with the choice, a planner that takes
//! a rare combination for a frequent one reads the whole table to fill a page.
//!
//! A search has a source for each gram of its text. The one that reaches furthest back within
//! [`EXAMINED_MAX`] entries is read, and each key in it is looked at. Where no source ends within so
//! many entries, the page may come back short, with a position from which to go on. The same holds for
//! what [`due`] looks for.

use sqlx::{AnyConnection, AssertSqlSafe, Row};

use super::rows::{self, COLUMNS};
use super::sql::SqlStore;
use super::{KeyFilter, PAGE_LEN_MAX, StoreError, due, search};
use crate::clock::Timestamp;
use crate::key::record::Standing;
use crate::key::{Environment, KeyId, KeyRecord, Status};

/// Entries that one page of a search looks at, at most.
pub const EXAMINED_MAX: usize = 400;
/// Grams of a search text that are asked for, at most.
const GRAMS_ASKED_MAX: usize = 5;
/// Keys that may be added between two statements of a page without one being passed over.
const ADDED_MAX: usize = 100;
/// Keys whose time is over and that nobody has marked yet, and keys that were marked too early by a
/// clock that is ahead: so many of each are found.
const WRONGLY_MARKED_MAX: usize = 1000;

/// A place in the order newest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    pub created_at: Timestamp,
    pub id: KeyId,
}

/// A value in a statement.
#[derive(Debug, Clone)]
pub enum Bind {
    Text(String),
    Integer(i64),
}

/// A statement with numbered placeholders.
#[derive(Debug, Default)]
pub struct Statement {
    pub sql: String,
    pub binds: Vec<Bind>,
}

impl Statement {
    pub(super) fn bind(&mut self, value: impl Into<Bind>) -> String {
        self.binds.push(value.into());
        format!("${}", self.binds.len())
    }

    async fn fetch_all(
        self,
        connection: &mut AnyConnection,
    ) -> Result<Vec<sqlx::any::AnyRow>, sqlx::Error> {
        let mut query = sqlx::query(AssertSqlSafe(self.sql));
        for bind in self.binds {
            query = match bind {
                Bind::Text(text) => query.bind(text),
                Bind::Integer(number) => query.bind(number),
            };
        }
        query.fetch_all(connection).await
    }
}

impl From<String> for Bind {
    fn from(text: String) -> Self {
        Bind::Text(text)
    }
}

impl From<&str> for Bind {
    fn from(text: &str) -> Self {
        Bind::Text(text.to_owned())
    }
}

impl From<i64> for Bind {
    fn from(number: i64) -> Self {
        Bind::Integer(number)
    }
}

impl From<Timestamp> for Bind {
    fn from(moment: Timestamp) -> Self {
        Bind::Integer(moment.as_millis())
    }
}

/// Keys that one index has together, newest first.
#[derive(Debug)]
enum Source {
    /// The entries of a table under one value of the index (column, created_at, id), or all of the
    /// index (created_at, id).
    Range {
        table: &'static str,
        value: Option<(&'static str, String)>,
        /// What has to hold besides.
        rest: Option<(&'static str, Timestamp)>,
    },
    /// Keys whose time was over at this moment, but that are not marked yet.
    Late { filter: KeyFilter, now: Timestamp },
    /// Keys that are marked although their time was not over at this moment: another instance's
    /// clock is ahead.
    Early { filter: KeyFilter, now: Timestamp },
    /// Keys that expire before this moment, where they are few.
    Due {
        filter: KeyFilter,
        before: Timestamp,
    },
}

impl Source {
    /// Its newest `count` entries after `after`.
    fn select(&self, statement: &mut Statement, after: Option<Place>, count: usize) -> String {
        match self {
            Source::Range { table, value, rest } => {
                select_range(statement, table, value.as_ref(), *rest, after, count)
            }
            Source::Late { filter, now } => {
                let marked = |now: &str| Marked {
                    range: format!(
                        "(lapsed, expires_at) >= ('no', 0) AND (lapsed, expires_at) <= ('no', {now})"
                    ),
                    nearest: "lapsed DESC, expires_at DESC",
                };
                select_wrongly_marked(statement, filter, *now, marked, after, count)
            }
            Source::Early { filter, now } => {
                let marked = |now: &str| Marked {
                    range: format!(
                        "(lapsed, expires_at) > ('yes', {now}) AND (lapsed, expires_at) <= ('yes', {})",
                        i64::MAX
                    ),
                    nearest: "lapsed, expires_at",
                };
                select_wrongly_marked(statement, filter, *now, marked, after, count)
            }
            Source::Due { filter, before } => due::select(statement, filter, *before, after, count),
        }
    }
}

fn select_range(
    statement: &mut Statement,
    table: &str,
    value: Option<&(&'static str, String)>,
    rest: Option<(&'static str, Timestamp)>,
    after: Option<Place>,
    count: usize,
) -> String {
    let mut conditions = Vec::new();
    let mut columns = vec!["created_at", "id"];
    let first = value.map(|(column, value)| {
        columns.insert(0, column);
        let value = statement.bind(value.as_str());
        // Always there, as the end of the range: that of several columns would not be seen as one.
        conditions.push(format!("{column} >= {value}"));
        if after.is_none() {
            conditions.push(format!("{column} <= {value}"));
        }
        value
    });
    if let Some(position) = after {
        let at = statement.bind(position.created_at);
        let id = statement.bind(position.id.to_string());
        let values: Vec<&str> = first.iter().chain([&at, &id]).map(String::as_str).collect();
        let (columns, values) = (columns.join(", "), values.join(", "));
        conditions.push(format!("({columns}) < ({values})"));
    }
    if let Some((condition, moment)) = rest {
        let moment = statement.bind(moment);
        conditions.push(condition.replace('?', &moment));
    }
    format!(
        "SELECT created_at AS found_at, id AS found_id FROM {table}{} ORDER BY {} DESC LIMIT {count}",
        where_all(&conditions),
        columns.join(" DESC, ")
    )
}

/// A range of the index of marks and times.
struct Marked {
    range: String,
    /// The order that begins at the moment in question.
    nearest: &'static str,
}

fn select_wrongly_marked(
    statement: &mut Statement,
    filter: &KeyFilter,
    now: Timestamp,
    marked: impl FnOnce(&str) -> Marked,
    after: Option<Place>,
    count: usize,
) -> String {
    let Marked { range, nearest } = marked(&statement.bind(now));
    let mut conditions = equalities(statement, filter);
    let active = statement.bind(Standing::Active.as_str());
    conditions.push(format!("standing = {active}"));
    if let Some(position) = after {
        let at = statement.bind(position.created_at);
        let id = statement.bind(position.id.to_string());
        conditions.push(format!("(created_at, id) < ({at}, {id})"));
    }
    let condition = where_all(&conditions);
    format!(
        "SELECT created_at AS found_at, id AS found_id FROM (\
           SELECT created_at, id, standing, tenant_id, environment FROM api_keys \
           WHERE {range} ORDER BY {nearest} LIMIT {WRONGLY_MARKED_MAX}) AS marked{condition} \
         ORDER BY created_at DESC, id DESC LIMIT {count}"
    )
}

pub(super) fn where_all(conditions: &[String]) -> String {
    if conditions.is_empty() {
        String::new()
    } else {
        format!(" WHERE {}", conditions.join(" AND "))
    }
}

/// The conditions on tenant and environment.
pub(super) fn equalities(statement: &mut Statement, filter: &KeyFilter) -> Vec<String> {
    let mut conditions = Vec::new();
    if let Some(tenant) = &filter.tenant_id {
        let tenant = statement.bind(tenant.to_string());
        conditions.push(format!("tenant_id = {tenant}"));
    }
    if let Some(environment) = filter.environment {
        let environment = statement.bind(environment.as_str());
        conditions.push(format!("environment = {environment}"));
    }
    conditions
}

/// Everything that `filter` asks for, as conditions on a key. Its text is `folded`.
fn conditions(statement: &mut Statement, filter: &KeyFilter, folded: &str) -> Vec<String> {
    let mut conditions = equalities(statement, filter);
    if let Some((status, now)) = filter.status {
        let standing = statement.bind(standing_of(status).as_str());
        conditions.push(format!("standing = {standing}"));
        let now = |statement: &mut Statement| statement.bind(now);
        match status {
            Status::Active => conditions.push(NOT_OVER.replace('?', &now(statement))),
            Status::Expired => conditions.push(OVER.replace('?', &now(statement))),
            Status::Disabled | Status::Revoked => {}
        }
    }
    conditions.extend(due::conditions(statement, filter));
    if folded.is_empty() {
        return conditions;
    }
    let pattern = statement.bind(search::pattern(folded));
    // Rows that nobody has brought up to date yet have no folded text: the engine folds them.
    conditions.push(format!(
        "(search LIKE {pattern} ESCAPE '!' OR (search IS NULL AND \
         (LOWER(name) LIKE {pattern} ESCAPE '!' OR LOWER(id) LIKE {pattern} ESCAPE '!')))"
    ));
    conditions
}

const OVER: &str = "expires_at <= ?";
const NOT_OVER: &str = "(expires_at IS NULL OR expires_at > ?)";

pub(super) fn standing_of(status: Status) -> Standing {
    match status {
        Status::Active | Status::Expired => Standing::Active,
        Status::Disabled => Standing::Disabled,
        Status::Revoked => Standing::Revoked,
    }
}

/// The sources that make up the list of `filter`, its text aside.
fn sources(filter: &KeyFilter) -> Vec<Source> {
    let tenant = filter.tenant_id.as_ref();
    if filter.status.is_none() && filter.environment.is_none() {
        return vec![Source::Range {
            table: "api_keys",
            value: tenant.map(|tenant| ("tenant_id", tenant.to_string())),
            rest: None,
        }];
    }
    let standings = match filter.status {
        Some((status, _)) => vec![standing_of(status)],
        None => vec![Standing::Active, Standing::Disabled, Standing::Revoked],
    };
    let (lapsed, rest): (&[&str], _) = match filter.status {
        Some((Status::Active, now)) => (&["no"], Some((NOT_OVER, now))),
        Some((Status::Expired, now)) => (&["yes"], Some((OVER, now))),
        _ => (&["no", "yes"], None),
    };
    let environments = match filter.environment {
        Some(environment) => vec![environment],
        None => vec![Environment::Live, Environment::Test],
    };
    let mut sources = Vec::new();
    for standing in standings {
        for lapsed in lapsed {
            for environment in &environments {
                let part = format!("{}/{lapsed}/{}", standing.as_str(), environment.as_str());
                sources.push(Source::Range {
                    table: "api_keys",
                    value: Some(match tenant {
                        Some(tenant) => ("tenant_part", format!("{tenant}/{part}")),
                        None => ("part", part),
                    }),
                    rest,
                });
            }
        }
    }
    match (filter.status, filter.clone()) {
        (Some((Status::Expired, now)), filter) => sources.push(Source::Late { filter, now }),
        (Some((Status::Active, now)), filter) => sources.push(Source::Early { filter, now }),
        _ => {}
    }
    sources
}

/// The newest `count` entries of all sources together.
fn merge(
    statement: &mut Statement,
    sources: &[Source],
    after: Option<Place>,
    count: usize,
) -> String {
    let mut parts: Vec<String> = sources
        .iter()
        .map(|source| source.select(statement, after, count))
        .collect();
    if parts.len() == 1 {
        return parts.remove(0);
    }
    let parts: Vec<String> = parts
        .iter()
        .enumerate()
        .map(|(number, part)| format!("SELECT found_at, found_id FROM ({part}) AS part{number}"))
        .collect();
    format!(
        "SELECT found_at, found_id FROM ({}) AS parts ORDER BY found_at DESC, found_id DESC LIMIT {count}",
        parts.join(" UNION ALL ")
    )
}

/// The keys of a merge of at most `examined` entries, down to `until`, of which `count` are wanted.
/// `filter` is given where each has to be looked at.
fn keys(
    sources: &[Source],
    after: Option<Place>,
    until: Option<Place>,
    examined: usize,
    filter: Option<(&KeyFilter, &str)>,
    count: usize,
) -> Statement {
    let mut statement = Statement::default();
    let mut found = merge(&mut statement, sources, after, examined);
    if let Some(until) = until {
        // Around the limit, not within: an index goes on beyond such a bound to fill it.
        let at = statement.bind(until.created_at);
        let id = statement.bind(until.id.to_string());
        found = format!(
            "SELECT found_at, found_id FROM ({found}) AS near WHERE (found_at, found_id) >= ({at}, {id})"
        );
    }
    // The look-ups stand apart from the conditions, and SQLite takes the tables of a CROSS JOIN in this
    // order: a planner could begin with all keys that have one of the wanted properties.
    let mut sql = format!(
        "WITH found AS MATERIALIZED ({found}), \
         seen AS MATERIALIZED (SELECT {COLUMNS}, search, found_at, found_id \
           FROM found CROSS JOIN api_keys WHERE id = found_id) \
         SELECT {COLUMNS} FROM seen"
    );
    if let Some((filter, folded)) = filter {
        sql.push_str(&where_all(&conditions(&mut statement, filter, folded)));
    }
    sql.push_str(&format!(
        " ORDER BY found_at DESC, found_id DESC LIMIT {count}"
    ));
    statement.sql = sql;
    statement
}

/// The last of the first [`EXAMINED_MAX`] entries, and how many there are.
fn reach(sources: &[Source], after: Option<Place>) -> Statement {
    let mut statement = Statement::default();
    let found = merge(&mut statement, sources, after, EXAMINED_MAX);
    statement.sql = format!(
        "SELECT found_at, found_id, entries FROM (\
           SELECT found_at, found_id, COUNT(*) OVER () AS entries FROM ({found}) AS found) AS counted \
         ORDER BY found_at, found_id LIMIT 1"
    );
    statement
}

/// The statement for a page of a list without a search, for who wants to see how an engine runs it.
pub fn page_statement(filter: &KeyFilter, after: Option<Place>, limit: usize) -> Statement {
    let count = limit.min(PAGE_LEN_MAX) + 1;
    keys(&sources(filter), after, None, count, None, count)
}

/// The statements of a page for which each key is looked at, in the order in which they may be run.
pub fn search_statements(
    filter: &KeyFilter,
    after: Option<Place>,
    until: Option<Place>,
    limit: usize,
) -> Vec<Statement> {
    let folded = search::fold(filter.text.as_deref().unwrap_or_default());
    let count = limit.min(PAGE_LEN_MAX) + 1;
    let after = due::start(filter, after);
    let mut statements: Vec<Statement> = filter
        .expiring_before
        .map(|before| due::count(filter, before))
        .into_iter()
        .collect();
    let complete = Complete {
        grams: true,
        due: true,
    };
    let candidates = candidates(filter, &folded, complete);
    statements.extend(candidates.iter().map(|c| reach(c, after)));
    let filter = Some((filter, folded.as_str()));
    let all = candidates.iter();
    let most = EXAMINED_MAX + ADDED_MAX;
    statements.extend(all.map(|c| keys(c, after, until, most, filter, count)));
    statements
}

/// What has every key that it should have.
struct Complete {
    grams: bool,
    /// Keys by when they expire.
    due: bool,
}

/// Each of these, read alone, has every key that a search may find.
fn candidates(filter: &KeyFilter, folded: &str, complete: Complete) -> Vec<Vec<Source>> {
    let grams: Vec<String> = search::grams(folded).into_iter().collect();
    let step = grams.len().div_ceil(GRAMS_ASKED_MAX).max(1);
    let mut candidates = Vec::new();
    if let (Some(before), true) = (filter.expiring_before, complete.due) {
        let filter = filter.clone();
        candidates.push(vec![Source::Due { filter, before }]);
    }
    if complete.grams {
        candidates.extend(grams.into_iter().step_by(step).map(|gram| {
            vec![Source::Range {
                table: "key_grams",
                value: Some(("gram", gram)),
                rest: None,
            }]
        }));
    }
    let is_narrow =
        filter.tenant_id.is_some() || filter.status.is_some() || filter.environment.is_some();
    if is_narrow || candidates.is_empty() {
        candidates.push(sources(filter));
    }
    candidates
}

fn position(row: &sqlx::any::AnyRow) -> Result<Place, StoreError> {
    let id: String = row.try_get("found_id")?;
    Ok(Place {
        created_at: Timestamp::from_millis(row.try_get("found_at")?),
        id: id.parse().map_err(|_| StoreError::Damaged {
            id: id.clone(),
            column: "id",
        })?,
    })
}

/// What was read.
#[derive(Debug, Default)]
pub(super) struct Read {
    pub keys: Vec<KeyRecord>,
    pub next: Option<Place>,
}

/// A page from rows of which there is one more than fits where another page follows.
fn page(rows: &[sqlx::any::AnyRow], limit: usize) -> Result<Read, StoreError> {
    let mut keys = rows.iter().map(rows::read).collect::<Result<Vec<_>, _>>()?;
    let next = (keys.len() > limit).then(|| {
        keys.truncate(limit);
        keys.last().map(|key| Place {
            created_at: key.created_at,
            id: key.id,
        })
    });
    Ok(Read {
        keys,
        next: next.flatten(),
    })
}

impl SqlStore {
    pub(super) async fn read_newest(
        &self,
        filter: &KeyFilter,
        after: Option<Place>,
        limit: usize,
    ) -> Result<Read, StoreError> {
        let limit = limit.clamp(1, PAGE_LEN_MAX);
        let mut connection = self.pool().acquire().await?;
        let folded = search::fold(filter.text.as_deref().unwrap_or_default());
        if folded.is_empty() && !due::applies(filter) {
            let rows = page_statement(filter, after, limit).fetch_all(&mut connection);
            return page(&rows.await?, limit);
        }
        if folded.chars().any(char::is_control) {
            // No name has any, and PostgreSQL takes none.
            return Ok(Read::default());
        }
        let after = due::start(filter, after);
        search_page(&mut connection, filter, &folded, after, limit).await
    }
}

async fn has_all_grams(connection: &mut AnyConnection) -> Result<bool, StoreError> {
    let unsettled = "SELECT id FROM api_keys WHERE search_revision <> revision LIMIT 1";
    let unsettled = sqlx::query(unsettled).fetch_optional(connection).await?;
    Ok(unsettled.is_none())
}

/// Whether all keys that expire in the time in question can be read.
async fn has_few_due(
    connection: &mut AnyConnection,
    filter: &KeyFilter,
) -> Result<bool, StoreError> {
    let Some(before) = filter.expiring_before else {
        return Ok(false);
    };
    let rows = due::count(filter, before).fetch_all(connection).await?;
    let entries: Option<i64> = rows.first().map(|row| row.try_get("entries")).transpose()?;
    Ok(entries.is_some_and(|entries| entries <= due::DUE_MAX as i64))
}

async fn search_page(
    connection: &mut AnyConnection,
    filter: &KeyFilter,
    folded: &str,
    after: Option<Place>,
    limit: usize,
) -> Result<Read, StoreError> {
    let complete = Complete {
        grams: !folded.is_empty() && has_all_grams(connection).await?,
        due: has_few_due(connection, filter).await?,
    };
    let candidates = candidates(filter, folded, complete);
    let mut chosen = None;
    for sources in &candidates {
        let rows = reach(sources, after).fetch_all(&mut *connection).await?;
        let Some(row) = rows.first() else {
            return Ok(Read::default());
        };
        let entries: i64 = row.try_get("entries")?;
        if entries < EXAMINED_MAX as i64 {
            chosen = Some((sources, None));
            break;
        }
        let end = position(row)?;
        // The oldest end is that of the source with the fewest entries in the same time.
        let is_further = |best: &Option<Place>| {
            best.is_some_and(|best| (end.created_at, end.id) < (best.created_at, best.id))
        };
        if chosen.as_ref().is_none_or(|(_, best)| is_further(best)) {
            chosen = Some((sources, Some(end)));
        }
    }
    let Some((sources, end)) = chosen else {
        return Ok(Read::default());
    };
    let wanted = Some((filter, folded));
    let most = EXAMINED_MAX + ADDED_MAX;
    let rows = keys(sources, after, end, most, wanted, limit + 1);
    let mut found = page(&rows.fetch_all(connection).await?, limit)?;
    found.next = found.next.or(end);
    Ok(found)
}
