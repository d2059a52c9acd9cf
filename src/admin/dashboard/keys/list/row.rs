//! One key in the list.

use crate::admin::access::Actor;
use crate::admin::dashboard::chart::text::count;
use crate::admin::dashboard::moment::{Moment, SOON};
use crate::admin::dashboard::spark;
use crate::clock::Timestamp;
use crate::key::record::Standing;
use crate::key::{Environment, KeyRecord, Status};
use crate::usage::counts::HOUR_MS;

/// Scopes that are told at once.
const SCOPES_FIRST: usize = 2;
/// Scopes that are told when somebody asks for more; all of them stand with the key's details.
const SCOPES_MAX: usize = 12;
/// Hours of a sparkline.
pub const HOURS: usize = 24;

/// What is known of one key besides its record.
#[derive(Debug, Default, Clone, Copy)]
pub struct Known {
    pub last_used: Option<Timestamp>,
    /// Requests by hour, the current one last; none where the caller may not see usage.
    pub requests: Option<[u64; HOURS]>,
}

/// A word in a coloured box.
#[derive(Debug, PartialEq, Eq)]
pub struct Badge {
    pub class: &'static str,
    pub text: &'static str,
}

/// The first scopes, some more, and how many are not told at all.
#[derive(Debug, PartialEq, Eq)]
pub struct Scopes {
    pub first: Vec<String>,
    pub rest: Vec<String>,
    pub more: usize,
    pub untold: usize,
}

/// Requests of a day.
#[derive(Debug, PartialEq, Eq)]
pub struct Requests {
    pub total: String,
    pub line: Option<Line>,
}

/// A sparkline, and in words what it shows.
#[derive(Debug, PartialEq, Eq)]
pub struct Line {
    pub path: String,
    pub label: String,
}

/// Something to be done with a key: a dialog of its own below the key's address.
#[derive(Debug, PartialEq, Eq)]
pub struct Action {
    pub tail: &'static str,
    pub text: &'static str,
    pub class: &'static str,
}

/// A row of the table.
pub struct Row<'a> {
    pub id: String,
    pub name: &'a str,
    pub hint: &'a str,
    pub tenant: String,
    pub environment: Badge,
    pub scopes: Scopes,
    pub status: Badge,
    pub last_used: Option<Moment>,
    pub requests: Option<Requests>,
    pub expires: Option<Moment>,
    pub expires_soon: bool,
    pub rotation: Option<Moment>,
    pub rotation_badge: Option<Badge>,
    pub actions: Vec<Action>,
}

impl<'a> Row<'a> {
    /// `writer` is who may write keys, if the caller may.
    pub fn new(key: &'a KeyRecord, known: Known, now: Timestamp, writer: Option<&Actor>) -> Self {
        let status = key.status(now);
        Row {
            id: key.id.to_string(),
            name: &key.name,
            hint: &key.hint,
            tenant: key.tenant_id.to_string(),
            environment: environment(key.environment),
            scopes: scopes(key),
            status: status_badge(status),
            last_used: known.last_used.map(Moment::from),
            requests: known.requests.as_ref().map(requests),
            expires: key.expires_at.map(Moment::from),
            expires_soon: status == Status::Active
                && key.expires_at.is_some_and(|end| end <= now.plus(SOON)),
            rotation: rotation(key).map(Moment::from),
            rotation_badge: rotation_badge(key, now),
            actions: writer.map_or_else(Vec::new, |writer| actions(key, writer)),
        }
    }
}

fn environment(environment: Environment) -> Badge {
    Badge {
        class: match environment {
            Environment::Live => "info",
            Environment::Test => "muted",
        },
        text: environment.as_str(),
    }
}

fn status_badge(status: Status) -> Badge {
    let (class, text) = match status {
        Status::Active => ("ok", "active"),
        Status::Disabled => ("warn", "disabled"),
        Status::Expired => ("bad", "expired"),
        Status::Revoked => ("muted", "revoked"),
    };
    Badge { class, text }
}

fn scopes(key: &KeyRecord) -> Scopes {
    let texts = |from: usize, to: usize| {
        let some = key.scopes.iter().take(to).skip(from);
        some.map(ToString::to_string).collect()
    };
    let count = key.scopes.len();
    Scopes {
        first: texts(0, SCOPES_FIRST),
        rest: texts(SCOPES_FIRST, SCOPES_MAX),
        more: count.saturating_sub(SCOPES_FIRST),
        untold: count.saturating_sub(SCOPES_MAX),
    }
}

/// A key that is revoked needs no new secret.
fn rotation(key: &KeyRecord) -> Option<Timestamp> {
    (key.standing != Standing::Revoked).then(|| key.rotation_due_at())
}

fn rotation_badge(key: &KeyRecord, now: Timestamp) -> Option<Badge> {
    let due = rotation(key)?;
    if key.status(now) == Status::Expired {
        return None;
    }
    let (class, text) = if due <= now {
        ("bad", "overdue")
    } else if due <= now.plus(SOON) {
        ("warn", "soon")
    } else {
        return None;
    };
    Some(Badge { class, text })
}

fn requests(hours: &[u64; HOURS]) -> Requests {
    let total = hours
        .iter()
        .fold(0_u64, |sum, one| sum.saturating_add(*one));
    let most = hours.iter().copied().max().unwrap_or_default();
    let line = spark::path(hours).map(|path| Line {
        path,
        label: format!(
            "By hour: at most {}, {} in the current one",
            count(most),
            count(hours[HOURS - 1])
        ),
    });
    Requests {
        total: count(total),
        line,
    }
}

/// What `writer` may do with the key. It is asked again when it is done.
fn actions(key: &KeyRecord, writer: &Actor) -> Vec<Action> {
    let action = |tail, text, class| Action { tail, text, class };
    let mut actions = Vec::new();
    if key.standing == Standing::Revoked {
        return actions;
    }
    let may_end = writer.require_power_to_end(key).is_ok();
    if may_end {
        actions.push(action("regenerate", "Regenerate", ""));
    }
    if writer.require_power_over(&key.scopes).is_ok() {
        actions.push(match key.standing {
            Standing::Disabled => action("enable", "Enable", ""),
            _ => action("disable", "Disable", ""),
        });
    }
    if may_end {
        actions.push(action("revoke", "Revoke", "danger"));
    }
    actions
}

/// The hours that end with the current one.
pub fn first_hour(now: Timestamp) -> Timestamp {
    let current = now.as_millis() - now.as_millis().rem_euclid(HOUR_MS);
    Timestamp::from_millis(current - (HOURS as i64 - 1) * HOUR_MS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::record::tests::record;

    const DAY_MS: i64 = 86_400_000;

    fn at(day: i64) -> Timestamp {
        Timestamp::from_millis(day * DAY_MS)
    }

    fn key() -> KeyRecord {
        let mut key = record();
        key.secret_created_at = at(0);
        key
    }

    #[test]
    fn rotation_is_due_soon_and_then_overdue() {
        let key = key();
        let word = |key: &KeyRecord, day| rotation_badge(key, at(day)).map(|badge| badge.text);
        assert_eq!(word(&key, 75), None);
        assert_eq!(word(&key, 76), Some("soon"));
        assert_eq!(word(&key, 90), Some("overdue"));
        let mut over = key.clone();
        over.expires_at = Some(at(1));
        assert_eq!(word(&over, 90), None, "nobody needs it");
        over.standing = Standing::Revoked;
        assert_eq!(rotation(&over), None);
    }

    #[test]
    fn expiry_is_near_for_a_while() {
        let mut key = key();
        let soon =
            |key: &KeyRecord, day| Row::new(key, Known::default(), at(day), None).expires_soon;
        assert!(!soon(&key, 1));
        key.expires_at = Some(at(20));
        assert_eq!(
            [5, 6, 19, 20].map(|day| soon(&key, day)),
            [false, true, true, false]
        );
    }

    #[test]
    fn two_scopes_stand_there_and_most_others_can_be_had() {
        let mut key = key();
        let mut told = |count: usize| {
            let scope = |number: usize| format!("orders:{number}").parse().unwrap();
            key.scopes = (0..count).map(scope).collect();
            let scopes = scopes(&key);
            [
                scopes.first.len(),
                scopes.rest.len(),
                scopes.more,
                scopes.untold,
            ]
        };
        assert_eq!(told(0), [0, 0, 0, 0]);
        assert_eq!(told(2), [2, 0, 0, 0]);
        assert_eq!(told(5), [2, 3, 3, 0]);
        assert_eq!(told(100), [2, 10, 98, 88]);
    }

    #[test]
    fn a_day_of_requests_is_a_line() {
        let mut hours = [0; HOURS];
        assert_eq!(requests(&hours).line, None);
        (hours[3], hours[HOURS - 1]) = (1_200, 7);
        let requests = requests(&hours);
        assert_eq!(requests.total, "1,207");
        let label = requests.line.unwrap().label;
        assert_eq!(label, "By hour: at most 1,200, 7 in the current one");
    }

    #[test]
    fn a_day_ends_with_the_current_hour() {
        let noon = Timestamp::from_millis(10 * DAY_MS + HOUR_MS / 2);
        assert_eq!(first_hour(noon).as_millis(), 9 * DAY_MS + HOUR_MS);
    }
}
