//! Which keys a list has, as conditions on one key.

use super::statement::Statement;
use super::{KeyFilter, search};
use crate::key::Status;
use crate::key::record::Standing;

pub(super) const OVER: &str = "expires_at <= ?";
pub(super) const NOT_OVER: &str = "(expires_at IS NULL OR expires_at > ?)";

pub(super) fn standing_of(status: Status) -> Standing {
    match status {
        Status::Active | Status::Expired => Standing::Active,
        Status::Disabled => Standing::Disabled,
        Status::Revoked => Standing::Revoked,
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

/// The conditions on times. Uses of a key are found by the key: as a sum their time is in no index, which a
/// planner could otherwise read from its end on until it comes across the key. And the latest is asked for, not
/// whether there is none: as a join, PostgreSQL would look through a whole index of times for the key where it
/// does not know yet how many uses there are.
fn moments(statement: &mut Statement, filter: &KeyFilter) -> Vec<String> {
    let mut conditions = Vec::new();
    if let Some(moment) = filter.expiring_before {
        let moment = statement.bind(moment);
        conditions.push(format!("expires_at < {moment}"));
    }
    if let Some(moment) = filter.unused_since {
        let moment = statement.bind(moment);
        conditions.push(format!("created_at < {moment}"));
        conditions.push(format!(
            "NOT COALESCE((SELECT MAX(last_used_at + 0) FROM key_uses \
             WHERE key_uses.key_id = seen.id) >= {moment}, FALSE)"
        ));
    }
    conditions
}

/// Everything that `filter` asks for, as conditions on a key in `seen`. Its text is `folded`.
pub(super) fn all(statement: &mut Statement, filter: &KeyFilter, folded: &str) -> Vec<String> {
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
    conditions.extend(moments(statement, filter));
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
