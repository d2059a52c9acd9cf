//! Keys by what happens, or has not happened, until a moment: those that expire before it, and those that
//! were not used since.
//!
//! Neither stands in the order of lists. Where few keys expire in the time in question, all of them are
//! read by the index of expiry and put into that order. Otherwise, and for unused keys, a list is read as
//! it is and each key looked at, a bounded number for a page.

use super::KeyFilter;
use super::list::Place;
use super::list::{Statement, equalities, standing_of, where_all};
use crate::clock::Timestamp;
use crate::key::{KeyId, Status};

/// Keys that expire in the time in question, at most, where all of them are read.
pub const DUE_MAX: usize = 1000;
/// No key comes before this one among those of the same moment.
const LOWEST_ID: &str = "000000000000";

/// Whether each key of a list has to be looked at.
pub fn applies(filter: &KeyFilter) -> bool {
    filter.expiring_before.is_some() || filter.unused_since.is_some()
}

/// Where to begin: a key that was made since then counts as used.
pub fn start(filter: &KeyFilter, after: Option<Place>) -> Option<Place> {
    let Some(moment) = filter.unused_since else {
        return after;
    };
    let first = LOWEST_ID.parse::<KeyId>().ok().map(|id| Place {
        created_at: moment,
        id,
    });
    match after {
        Some(position) if position.created_at <= moment => after,
        _ => first.or(after),
    }
}

/// The conditions on a key in `seen`.
pub fn conditions(statement: &mut Statement, filter: &KeyFilter) -> Vec<String> {
    let mut conditions = Vec::new();
    if let Some(moment) = filter.expiring_before {
        let moment = statement.bind(moment);
        conditions.push(format!("expires_at < {moment}"));
    }
    if let Some(moment) = filter.unused_since {
        let moment = statement.bind(moment);
        conditions.push(format!("created_at < {moment}"));
        conditions.push(format!(
            "NOT EXISTS (SELECT 1 FROM key_uses \
             WHERE key_uses.key_id = seen.id AND key_uses.last_used_at >= {moment})"
        ));
    }
    conditions
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

/// `columns` of the first `count` keys that expire in the time in question: whether they are marked as
/// expired says nothing for certain, so both are looked for.
fn expiring(
    statement: &mut Statement,
    filter: &KeyFilter,
    before: Timestamp,
    columns: &str,
    count: usize,
) -> String {
    let (from, to) = span(before, filter.status);
    let (from, to) = (statement.bind(from), statement.bind(to));
    // Not compared as rows: PostgreSQL ends such a range only where the first column changes.
    let parts = ["no", "yes"].map(|mark| {
        format!(
            "SELECT {columns} FROM (SELECT {columns} FROM api_keys \
             WHERE lapsed = '{mark}' AND expires_at > {from} AND expires_at < {to} \
             ORDER BY lapsed, expires_at LIMIT {count}) AS marked_{mark}"
        )
    });
    parts.join(" UNION ALL ")
}

/// How many keys expire in the time in question; more than [`DUE_MAX`] are not told apart.
pub fn count(filter: &KeyFilter, before: Timestamp) -> Statement {
    let mut statement = Statement::default();
    let keys = expiring(&mut statement, filter, before, "lapsed", DUE_MAX + 1);
    statement.sql = format!("SELECT COUNT(*) AS entries FROM ({keys}) AS due");
    statement
}

/// The newest `count` keys after `after` that expire in the time in question, where [`count`] says
/// that these are at most [`DUE_MAX`].
pub fn select(
    statement: &mut Statement,
    filter: &KeyFilter,
    before: Timestamp,
    after: Option<Place>,
    count: usize,
) -> String {
    let columns = "created_at, id, standing, tenant_id, environment";
    let keys = expiring(statement, filter, before, columns, DUE_MAX);
    let mut conditions = equalities(statement, filter);
    if let Some((status, _)) = filter.status {
        let standing = statement.bind(standing_of(status).as_str());
        conditions.push(format!("standing = {standing}"));
    }
    if let Some(position) = after {
        let at = statement.bind(position.created_at);
        let id = statement.bind(position.id.to_string());
        conditions.push(format!("(created_at, id) < ({at}, {id})"));
    }
    let condition = where_all(&conditions);
    format!(
        "SELECT created_at AS found_at, id AS found_id FROM ({keys}) AS due{condition} \
         ORDER BY created_at DESC, id DESC LIMIT {count}"
    )
}
