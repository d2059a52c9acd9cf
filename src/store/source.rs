//! What lists are read from: ranges of indexes, each in the order of a list, and how a list is read.
//!
//! A list has two stretches: keys that have what it is ordered by, and behind them those that have not.
//! In an index these are one range with the second stretch at its upper end, so each is read for itself
//! wherever the list goes down.
//!
//! Which index is read is never the planner's choice: bounds and order name all columns of one, also the
//! first, whose value is fixed. Left with the choice, a planner that takes a rare combination for a
//! frequent one reads the whole table to fill a page.

use super::conditions::{NOT_OVER, OVER, equalities, standing_of};
use super::statement::{NEVER, Statement, where_all};
use super::{KeyFilter, KeyOrder, Position, SortBy, Value};
use crate::clock::Timestamp;
use crate::key::record::Standing;
use crate::key::{Environment, Status};

/// Keys whose time is over and that nobody has marked yet, and keys that were marked too early by a
/// clock that is ahead: so many of each are found.
const WRONGLY_MARKED_MAX: usize = 1000;

/// The keys of a list that have a value, or those that have none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stretch {
    Valued,
    Unvalued,
}

/// How a stretch of a list is read.
#[derive(Debug, Clone)]
pub struct Course {
    pub order: KeyOrder,
    /// Against the order.
    pub is_backward: bool,
    pub stretch: Stretch,
    /// Where to begin, if not at the end of the stretch that comes first.
    pub from: Option<Position>,
    /// All values are below.
    pub below: Option<i64>,
}

/// The first entry of a range, in the direction in which it is read.
struct Start {
    value: Value,
    id: String,
    is_included: bool,
}

impl Course {
    /// Whether an index is read from its lower end.
    pub fn is_up(&self) -> bool {
        self.order.is_descending == self.is_backward
    }

    /// What has to stand behind columns for them to be in the direction of reading.
    pub fn suffix(&self) -> &'static str {
        if self.is_up() { "" } else { " DESC" }
    }

    fn start(&self) -> Option<Start> {
        let from = self.from.as_ref().map(|position| Start {
            value: match &position.value {
                Value::Nothing => Value::Number(NEVER),
                value => value.clone(),
            },
            id: position.id.to_string(),
            is_included: position.is_behind == self.is_backward,
        });
        let edge = |value, is_included| Start {
            value: Value::Number(value),
            id: String::new(),
            is_included,
        };
        match (self.stretch, self.is_up(), self.below) {
            (Stretch::Valued, false, Some(below)) => match from {
                Some(from) if from.value < Value::Number(below) => Some(from),
                _ => Some(edge(below, false)),
            },
            (Stretch::Unvalued, true, _) => Some(from.unwrap_or_else(|| edge(NEVER, true))),
            _ => from,
        }
    }

    /// What holds for entries of the stretch and not beyond its end.
    fn end(&self, statement: &mut Statement) -> Option<String> {
        match (self.stretch, self.is_up(), self.below) {
            (Stretch::Valued, true, Some(below)) => {
                let below = statement.bind(below);
                Some(format!("found_at < {below}"))
            }
            (Stretch::Unvalued, false, _) => {
                let never = statement.bind(NEVER);
                Some(format!("found_at >= {never}"))
            }
            _ => None,
        }
    }

    /// The condition that `columns` are not before `values`.
    fn compare(&self, columns: &[&str], values: &[String], is_included: bool) -> String {
        let operator = match (self.is_up(), is_included) {
            (true, true) => ">=",
            (true, false) => ">",
            (false, true) => "<=",
            (false, false) => "<",
        };
        format!(
            "({}) {operator} ({})",
            columns.join(", "),
            values.join(", ")
        )
    }
}

/// A range of an index.
#[derive(Debug)]
pub struct Range {
    table: &'static str,
    /// The index's first column, and its value.
    first: Option<(&'static str, String)>,
    /// The column with what the list is ordered by; `None` where all entries have nothing.
    value: Option<&'static str>,
    id: &'static str,
    /// What has to hold besides.
    rest: Option<(&'static str, Timestamp)>,
}

/// Keys that one index has together, in the order of a list.
#[derive(Debug)]
pub enum Source {
    Range(Range),
    /// Keys whose time was over at this moment, but that are not marked yet.
    Late {
        filter: KeyFilter,
        now: Timestamp,
    },
    /// Keys that are marked although their time was not over at this moment: another instance's
    /// clock is ahead.
    Early {
        filter: KeyFilter,
        now: Timestamp,
    },
}

impl Source {
    /// The keys that have a gram, by their creation.
    pub fn gram(gram: String) -> Self {
        Source::Range(Range {
            table: "key_grams",
            first: Some(("gram", gram)),
            value: Some("created_at"),
            id: "id",
            rest: None,
        })
    }

    /// Its first `count` entries on `course`.
    fn select(&self, statement: &mut Statement, course: &Course, count: usize) -> String {
        match self {
            Source::Range(range) => range.select(statement, course, count),
            Source::Late { filter, now } => {
                let marked = |now: &str| Marked {
                    range: format!(
                        "(lapsed, expires_at) >= ('no', 0) AND (lapsed, expires_at) <= ('no', {now})"
                    ),
                    nearest: "lapsed DESC, expires_at DESC",
                };
                select_wrongly_marked(statement, filter, *now, marked, course, count)
            }
            Source::Early { filter, now } => {
                let marked = |now: &str| Marked {
                    range: format!(
                        "(lapsed, expires_at) > ('yes', {now}) AND (lapsed, expires_at) <= ('yes', {NEVER})"
                    ),
                    nearest: "lapsed, expires_at",
                };
                select_wrongly_marked(statement, filter, *now, marked, course, count)
            }
        }
    }
}

impl Range {
    fn select(&self, statement: &mut Statement, course: &Course, count: usize) -> String {
        let start = course.start();
        let mut conditions = Vec::new();
        let (mut columns, mut values) = (Vec::new(), Vec::new());
        if let Some((column, value)) = &self.first {
            let value = statement.bind(value.as_str());
            let (begin, end) = if course.is_up() {
                (">=", "<=")
            } else {
                ("<=", ">=")
            };
            // Always there, as the end of the range: that of several columns would not be seen as one.
            conditions.push(format!("{column} {end} {value}"));
            if start.is_none() {
                conditions.push(format!("{column} {begin} {value}"));
            }
            columns.push(*column);
            values.push(value);
        }
        columns.extend(self.value);
        columns.push(self.id);
        if let Some(start) = start {
            if self.value.is_some() {
                values.push(statement.bind(start.value));
            }
            values.push(statement.bind(start.id));
            conditions.push(course.compare(&columns, &values, start.is_included));
        }
        if let Some((condition, moment)) = self.rest {
            let moment = statement.bind(moment);
            conditions.push(condition.replace('?', &moment));
        }
        let never = NEVER.to_string();
        let suffix = course.suffix();
        let found = format!(
            "SELECT {} AS found_at, {} AS found_id FROM {}{} ORDER BY {}{suffix} LIMIT {count}",
            self.value.unwrap_or(&never),
            self.id,
            self.table,
            where_all(&conditions),
            columns.join(&format!("{suffix}, "))
        );
        // Around the limit, not within: an index goes on beyond such an end to fill it.
        match course.end(statement) {
            Some(end) => format!("SELECT found_at, found_id FROM ({found}) AS near WHERE {end}"),
            None => found,
        }
    }
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
    course: &Course,
    count: usize,
) -> String {
    let Marked { range, nearest } = marked(&statement.bind(now));
    let mut conditions = equalities(statement, filter);
    let active = statement.bind(Standing::Active.as_str());
    conditions.push(format!("standing = {active}"));
    if let Some(start) = course.start() {
        let values = [statement.bind(start.value), statement.bind(start.id)];
        conditions.push(course.compare(&["found_at", "found_id"], &values, start.is_included));
    }
    conditions.extend(course.end(statement));
    let condition = where_all(&conditions);
    let value = column(course.order.by);
    let suffix = course.suffix();
    format!(
        "SELECT found_at, found_id FROM (\
           SELECT {value} AS found_at, id AS found_id, standing, tenant_id, environment FROM api_keys \
           WHERE {range} ORDER BY {nearest} LIMIT {WRONGLY_MARKED_MAX}) AS marked{condition} \
         ORDER BY found_at{suffix}, found_id{suffix} LIMIT {count}"
    )
}

/// The column that has what a list is ordered by, with a number or a text for every key.
fn column(by: SortBy) -> &'static str {
    match by {
        SortBy::Created => "created_at",
        SortBy::Name => "sort_name",
        SortBy::Expires => "sort_expires",
        SortBy::RotationDue => "sort_rotation",
        SortBy::LastUsed => "last_used_at",
    }
}

/// The sources that make up the list of `filter`: of tenant, status and environment, but those by last
/// use are of the tenant only.
pub fn sources(filter: &KeyFilter, course: &Course) -> Vec<Source> {
    let tenant = filter.tenant_id.as_ref();
    let of_tenant = || tenant.map(|tenant| ("tenant_id", tenant.to_string()));
    let by = course.order.by;
    if by == SortBy::LastUsed {
        let (table, value) = match course.stretch {
            Stretch::Valued => ("key_uses", Some(column(by))),
            Stretch::Unvalued => ("key_unused", None),
        };
        return vec![Source::Range(Range {
            table,
            first: of_tenant(),
            value,
            id: "key_id",
            rest: None,
        })];
    }
    let range = |first, rest| {
        Source::Range(Range {
            table: "api_keys",
            first,
            value: Some(column(by)),
            id: "id",
            rest,
        })
    };
    if by == SortBy::Created && filter.status.is_none() && filter.environment.is_none() {
        return vec![range(of_tenant(), None)];
    }
    let (lapsed, rest): (&[&str], _) = match filter.status {
        Some((Status::Active, now)) => (&["no"], Some((NOT_OVER, now))),
        Some((Status::Expired, now)) => (&["yes"], Some((OVER, now))),
        _ => (&["no", "yes"], None),
    };
    let mut sources: Vec<Source> = parts(filter, lapsed)
        .into_iter()
        .map(|first| range(Some(part_of(by, first)), rest))
        .collect();
    match (filter.status, filter.clone()) {
        (Some((Status::Expired, now)), filter) => sources.push(Source::Late { filter, now }),
        (Some((Status::Active, now)), filter) => sources.push(Source::Early { filter, now }),
        _ => {}
    }
    sources
}

/// A part in an order: each order's index has another first column, so that no other one can be read in
/// its place.
fn part_of(by: SortBy, (column, part): (&'static str, String)) -> (&'static str, String) {
    let (suffix, of_all, of_tenant) = match by {
        SortBy::Created | SortBy::LastUsed => return (column, part),
        SortBy::Name => ("name", "(part || '/name')", "(tenant_part || '/name')"),
        SortBy::Expires => (
            "expires",
            "(part || '/expires')",
            "(tenant_part || '/expires')",
        ),
        SortBy::RotationDue => (
            "rotation",
            "(part || '/rotation')",
            "(tenant_part || '/rotation')",
        ),
    };
    let column = if column == "part" { of_all } else { of_tenant };
    (column, format!("{part}/{suffix}"))
}

/// The parts of all lists, or of its tenant's lists, in which keys of a filter are that have one of these
/// marks: the column, and its values.
pub fn parts(filter: &KeyFilter, lapsed: &[&str]) -> Vec<(&'static str, String)> {
    let standings = match filter.status {
        Some((status, _)) => vec![standing_of(status)],
        None => vec![Standing::Active, Standing::Disabled, Standing::Revoked],
    };
    let environments = match filter.environment {
        Some(environment) => vec![environment],
        None => vec![Environment::Live, Environment::Test],
    };
    let mut parts = Vec::new();
    for standing in standings {
        for lapsed in lapsed {
            for environment in &environments {
                let part = format!("{}/{lapsed}/{}", standing.as_str(), environment.as_str());
                parts.push(match &filter.tenant_id {
                    Some(tenant) => ("tenant_part", format!("{tenant}/{part}")),
                    None => ("part", part),
                });
            }
        }
    }
    parts
}

/// The first `count` entries of all sources together.
pub fn merge(
    statement: &mut Statement,
    sources: &[Source],
    course: &Course,
    count: usize,
) -> String {
    let mut parts: Vec<String> = sources
        .iter()
        .map(|source| source.select(statement, course, count))
        .collect();
    if parts.len() == 1 {
        return parts.remove(0);
    }
    let parts: Vec<String> = parts
        .iter()
        .enumerate()
        .map(|(number, part)| format!("SELECT found_at, found_id FROM ({part}) AS part{number}"))
        .collect();
    let suffix = course.suffix();
    format!(
        "SELECT found_at, found_id FROM ({}) AS parts \
         ORDER BY found_at{suffix}, found_id{suffix} LIMIT {count}",
        parts.join(" UNION ALL ")
    )
}
