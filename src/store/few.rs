//! Filters that leave few keys, as an index knows: all of these are read, looked at and sorted.

use sqlx::{AnyConnection, Row};

use super::conditions;
use super::list::Wanted;
use super::rows::COLUMNS;
use super::source::parts;
use super::statement::{NEVER, Statement, where_all};
use super::{KeyFilter, Position, SortBy, StoreError, Value, search};
use crate::clock::Timestamp;
use crate::key::Status;

/// So many keys are few.
pub const FEW_MAX: usize = 1000;
/// Grams of a search text that are asked for, at most.
const GRAMS_ASKED_MAX: usize = 5;
/// What stands for nothing where the greatest comes first. No time is before it.
const BEFORE_ALL: i64 = -1;

/// What an index has together, and what has every key that a filter leaves.
#[derive(Debug, Clone)]
pub(super) enum Few {
    /// Keys that expire before this moment.
    Due(Timestamp),
    /// Keys that were not used since this moment.
    Idle(Timestamp),
    Gram(String),
    /// Keys of the filter's tenant, status and environment.
    Part,
}

/// Some grams of a text that has to be in keys, where all keys have theirs.
pub(super) fn grams(folded: &str) -> impl Iterator<Item = String> {
    let grams: Vec<String> = search::grams(folded).into_iter().collect();
    let step = grams.len().div_ceil(GRAMS_ASKED_MAX).max(1);
    grams.into_iter().step_by(step)
}

/// What may turn out to be few. `has_grams` says that all keys have theirs.
pub(super) fn candidates(wanted: &Wanted<'_>, has_grams: bool) -> Vec<Few> {
    let filter = wanted.filter;
    let due = filter.expiring_before.map(Few::Due);
    let idle = filter.unused_since.map(Few::Idle);
    let mut all: Vec<Few> = due.into_iter().chain(idle).collect();
    // The index of grams has the order of creation: lists in this order are read from it anyhow.
    if has_grams && wanted.order.by != SortBy::Created {
        all.extend(grams(wanted.folded).map(Few::Gram));
    }
    // All other orders are kept for each part.
    let is_part =
        filter.tenant_id.is_some() || filter.status.is_some() || filter.environment.is_some();
    if is_part && wanted.order.by == SortBy::LastUsed {
        all.push(Few::Part);
    }
    all
}

/// After the first and before the second moment, in milliseconds: when the keys expire that a list with
/// `expiring_before` may have. Only those that are still to expire where it is about active ones.
fn span(before: Timestamp, status: Option<(Status, Timestamp)>) -> (i64, i64) {
    let before = before.as_millis();
    match status {
        Some((Status::Active, now)) => (now.as_millis(), before),
        Some((Status::Expired, now)) => (-1, before.min(now.as_millis() + 1)),
        _ => (-1, before),
    }
}

/// A range of an index, as the ids of its first `count` keys.
fn range(
    statement: &mut Statement,
    table: &str,
    (column, value): (&str, String),
    (order, id): (&str, &str),
    count: usize,
) -> String {
    let value = statement.bind(value);
    format!(
        "SELECT {id} AS found_id FROM {table} WHERE {column} >= {value} AND {column} <= {value} \
         ORDER BY {column}, {order} LIMIT {count}"
    )
}

/// Whether keys are marked as expired says nothing for certain, so both are looked for.
fn due(
    statement: &mut Statement,
    filter: &KeyFilter,
    before: Timestamp,
    count: usize,
) -> Vec<String> {
    let (from, to) = span(before, filter.status);
    let (from, to) = (statement.bind(from), statement.bind(to));
    // Not compared as rows: PostgreSQL ends such a range only where the first column changes.
    let part = |mark: &str| {
        format!(
            "SELECT id AS found_id FROM api_keys \
             WHERE lapsed = '{mark}' AND expires_at > {from} AND expires_at < {to} \
             ORDER BY lapsed, expires_at LIMIT {count}"
        )
    };
    vec![part("no"), part("yes")]
}

fn idle(
    statement: &mut Statement,
    filter: &KeyFilter,
    since: Timestamp,
    count: usize,
) -> Vec<String> {
    let since = statement.bind(since);
    let Some(tenant) = &filter.tenant_id else {
        return vec![
            format!(
                "SELECT key_id AS found_id FROM key_uses WHERE last_used_at < {since} \
                 ORDER BY last_used_at, key_id LIMIT {count}"
            ),
            format!("SELECT key_id AS found_id FROM key_unused ORDER BY key_id LIMIT {count}"),
        ];
    };
    let tenant = tenant.to_string();
    let never = range(
        statement,
        "key_unused",
        ("tenant_id", tenant.clone()),
        ("key_id", "key_id"),
        count,
    );
    let tenant = statement.bind(tenant);
    let used = format!(
        "SELECT key_id AS found_id FROM key_uses WHERE tenant_id >= {tenant} \
         AND (tenant_id, last_used_at, key_id) < ({tenant}, {since}, '') \
         ORDER BY tenant_id DESC, last_used_at DESC, key_id DESC LIMIT {count}"
    );
    vec![used, never]
}

impl Few {
    /// The ids of its first `count` keys (of each of the parts that it has). A key may come twice.
    fn select(&self, statement: &mut Statement, filter: &KeyFilter, count: usize) -> String {
        let parts = match self {
            Few::Due(before) => due(statement, filter, *before, count),
            Few::Idle(since) => idle(statement, filter, *since, count),
            Few::Gram(gram) => {
                let of = ("gram", gram.clone());
                vec![range(
                    statement,
                    "key_grams",
                    of,
                    ("created_at, id", "id"),
                    count,
                )]
            }
            Few::Part => part(statement, filter, count),
        };
        let parts: Vec<String> = parts
            .iter()
            .enumerate()
            .map(|(number, part)| format!("SELECT found_id FROM ({part}) AS few{number}"))
            .collect();
        parts.join(" UNION ALL ")
    }
}

fn part(statement: &mut Statement, filter: &KeyFilter, count: usize) -> Vec<String> {
    let order = ("created_at, id", "id");
    match &filter.tenant_id {
        Some(tenant) if filter.status.is_none() && filter.environment.is_none() => {
            let of = ("tenant_id", tenant.to_string());
            vec![range(statement, "api_keys", of, order, count)]
        }
        _ => parts(filter, &["no", "yes"])
            .into_iter()
            .map(|of| range(statement, "api_keys", of, order, count))
            .collect(),
    }
}

/// How many keys each of `candidates` has; more than [`FEW_MAX`] are not told apart.
pub(super) fn count(candidates: &[Few], filter: &KeyFilter) -> Statement {
    let mut statement = Statement::default();
    let counts: Vec<String> = candidates
        .iter()
        .enumerate()
        .map(|(number, few)| {
            let keys = few.select(&mut statement, filter, FEW_MAX + 1);
            format!("(SELECT COUNT(*) FROM ({keys}) AS all{number}) AS count{number}")
        })
        .collect();
    statement.sql = format!("SELECT {}", counts.join(", "));
    statement
}

/// Which of `candidates` has the fewest keys, where these are few.
pub(super) async fn fewest(
    connection: &mut AnyConnection,
    candidates: &[Few],
    filter: &KeyFilter,
) -> Result<Option<Few>, StoreError> {
    if candidates.is_empty() {
        return Ok(None);
    }
    let rows = count(candidates, filter).fetch_all(connection).await?;
    let Some(row) = rows.first() else {
        return Ok(None);
    };
    let mut fewest: Option<(i64, &Few)> = None;
    for (number, few) in candidates.iter().enumerate() {
        let count: i64 = row.try_get(format!("count{number}").as_str())?;
        let is_fewest = fewest.is_none_or(|(least, _)| count < least);
        if count <= FEW_MAX as i64 && is_fewest {
            fewest = Some((count, few));
        }
    }
    Ok(fewest.map(|(_, few)| few.clone()))
}

/// What a list is ordered by, of a key in `api_keys`.
fn value(by: SortBy, nothing: i64) -> String {
    match by {
        SortBy::Created => "created_at".to_owned(),
        SortBy::Name => "sort_name".to_owned(),
        SortBy::Expires => format!("COALESCE(expires_at, {nothing})"),
        SortBy::RotationDue => format!("COALESCE(NULLIF(sort_rotation, {NEVER}), {nothing})"),
        SortBy::LastUsed => format!(
            "COALESCE((SELECT MAX(last_used_at + 0) FROM key_uses WHERE key_uses.key_id = api_keys.id), {nothing})"
        ),
    }
}

/// The first `count` keys of a list from `from` on, of those that `few` has.
pub(super) fn keys(
    wanted: &Wanted<'_>,
    few: &Few,
    is_backward: bool,
    from: Option<&Position>,
    count: usize,
) -> Statement {
    let mut statement = Statement::default();
    let ids = few.select(&mut statement, wanted.filter, FEW_MAX);
    let is_descending = wanted.order.is_descending;
    // So that keys without a value are last in the order, and one comparison tells what is behind them.
    let nothing = if is_descending { BEFORE_ALL } else { NEVER };
    let mut conditions = conditions::all(&mut statement, wanted.filter, wanted.folded);
    let is_up = is_descending == is_backward;
    if let Some(position) = from {
        let operator = match (is_up, position.is_behind == is_backward) {
            (true, true) => ">=",
            (true, false) => ">",
            (false, true) => "<=",
            (false, false) => "<",
        };
        let at = statement.bind(match &position.value {
            Value::Nothing => Value::Number(nothing),
            value => value.clone(),
        });
        let id = statement.bind(position.id.to_string());
        conditions.push(format!("(found_at, found_id) {operator} ({at}, {id})"));
    }
    let suffix = if is_up { "" } else { " DESC" };
    // SQLite takes the tables of a CROSS JOIN in this order.
    statement.sql = format!(
        "WITH found AS MATERIALIZED (SELECT DISTINCT found_id FROM ({ids}) AS few), \
         seen AS MATERIALIZED (SELECT {COLUMNS}, search, {} AS found_at, found_id \
           FROM found CROSS JOIN api_keys WHERE id = found_id) \
         SELECT {COLUMNS}, found_at, found_id FROM seen{} \
         ORDER BY found_at{suffix}, found_id{suffix} LIMIT {count}",
        value(wanted.order.by, nothing),
        where_all(&conditions)
    );
    statement
}
