//! Pages of lists, each read by indexes from where it starts: what a page costs depends on its length
//! and not on how many keys there are, how deep it is, or how few keys the filter leaves.
//!
//! A list is merged from [`source`](super::source)s that have its order. A filter that no order is kept
//! for (a text, times of expiry or of use; tenant, status and environment are kept) needs each key to be
//! looked at: all of its keys where an index says that they are [`few`], or else the list is read in its
//! order, [`EXAMINED_MAX`] entries for a page. Such a page may come back short, with a position from
//! which to go on.
//!
//! In the order of creation a search has a source for each gram of its text. The one that reaches
//! furthest within so many entries is read.

use sqlx::any::AnyRow;
use sqlx::{AnyConnection, Row};

use super::few::{self, Few};
use super::rows::{self, COLUMNS};
use super::source::{Course, Source, Stretch, merge, sources};
use super::sql::SqlStore;
pub use super::statement::{Bind, Statement};
use super::statement::{NEVER, where_all};
use super::{
    KeyFilter, KeyOrder, PAGE_LEN_MAX, Page, PageFrom, Position, SortBy, StoreError, Value,
    conditions, search,
};
use crate::clock::Timestamp;
use crate::key::{KeyId, KeyRecord};

/// Entries that one page looks at, at most, in each stretch of a list; or as many as it may show.
pub const EXAMINED_MAX: usize = 400;

/// Which keys a page has, and in which order.
pub(super) struct Wanted<'a> {
    pub filter: &'a KeyFilter,
    /// The filter's text.
    pub folded: &'a str,
    pub order: KeyOrder,
}

/// A key, or an entry of an index, and where it is in a list.
type Place = (Value, KeyId);

/// What was read for a page, in the direction of reading: one key more than fits where more follow.
#[derive(Default)]
struct Found {
    keys: Vec<(KeyRecord, Place)>,
    /// The last entry that was looked at, where there may be more behind it.
    end: Option<Place>,
}

impl Wanted<'_> {
    /// Whether every entry of the list's sources is a key that is wanted.
    fn is_exact(&self) -> bool {
        let by = self.order.by;
        self.folded.is_empty()
            && self.filter.unused_since.is_none()
            && (self.filter.expiring_before.is_none() || by == SortBy::Expires)
            && by != SortBy::LastUsed
    }

    /// The bound of the values that the list has.
    fn below(&self) -> Option<i64> {
        let or_never = |moment: Option<Timestamp>| Some(moment.map_or(NEVER, Timestamp::as_millis));
        match self.order.by {
            SortBy::Created => self.filter.unused_since.map(Timestamp::as_millis),
            SortBy::Name => None,
            SortBy::LastUsed => or_never(self.filter.unused_since),
            SortBy::Expires => or_never(self.filter.expiring_before),
            SortBy::RotationDue => Some(NEVER),
        }
    }

    fn stretches(&self) -> &'static [Stretch] {
        match self.order.by {
            SortBy::Created | SortBy::Name => &[Stretch::Valued],
            SortBy::Expires if self.filter.expiring_before.is_some() => &[Stretch::Valued],
            SortBy::LastUsed | SortBy::Expires | SortBy::RotationDue => {
                &[Stretch::Valued, Stretch::Unvalued]
            }
        }
    }

    /// The stretches as they are read one after the other.
    fn courses(&self, from: &PageFrom) -> Vec<Course> {
        let (position, is_backward) = split(from);
        let mut stretches = self.stretches().to_vec();
        if is_backward {
            stretches.reverse();
        }
        let first = position.map(|position| match position.value {
            Value::Nothing => Stretch::Unvalued,
            _ => Stretch::Valued,
        });
        if let Some(first) = first {
            // A stretch that the list has not got is one that it has no keys in.
            let is_passed = |stretch: &Stretch| {
                *stretch != first && (first == Stretch::Unvalued) != is_backward
            };
            stretches.retain(|stretch| !is_passed(stretch));
        }
        let course = |stretch| Course {
            order: self.order,
            is_backward,
            stretch,
            from: position.filter(|_| first == Some(stretch)).cloned(),
            below: self.below(),
        };
        stretches.into_iter().map(course).collect()
    }

    /// Whether a key of the list can be at `position`.
    fn has(&self, position: &Position) -> bool {
        match (self.order.by, &position.value) {
            (SortBy::Name, Value::Text(_)) | (SortBy::Created, Value::Number(_)) => true,
            (SortBy::Name | SortBy::Created, _) | (_, Value::Text(_)) => false,
            (_, Value::Number(_) | Value::Nothing) => true,
        }
    }

    /// How many entries are looked at for a page.
    fn examined(&self, limit: usize) -> usize {
        match self.order.by {
            SortBy::LastUsed => EXAMINED_MAX.max(limit + 1),
            _ => EXAMINED_MAX,
        }
    }

    /// Each of these, read alone, has every key that a page may have.
    fn candidates(&self, course: &Course, has_grams: bool) -> Vec<Vec<Source>> {
        let mut candidates: Vec<Vec<Source>> = Vec::new();
        if has_grams && self.order.by == SortBy::Created {
            candidates.extend(few::grams(self.folded).map(|gram| vec![Source::gram(gram)]));
        }
        let filter = self.filter;
        let is_narrow =
            filter.tenant_id.is_some() || filter.status.is_some() || filter.environment.is_some();
        if is_narrow || candidates.is_empty() {
            candidates.push(sources(filter, course));
        }
        candidates
    }
}

fn split(from: &PageFrom) -> (Option<&Position>, bool) {
    match from {
        PageFrom::Start => (None, false),
        PageFrom::After(position) => (Some(position), false),
        PageFrom::Before(position) => (Some(position), true),
    }
}

/// The keys of the first `count` entries of `sources`.
fn keys(sources: &[Source], course: &Course, count: usize) -> Statement {
    let mut statement = Statement::default();
    let found = merge(&mut statement, sources, course, count);
    let suffix = course.suffix();
    // The look-ups stand apart, and SQLite takes the tables of a CROSS JOIN in this order: a planner could
    // begin with all keys.
    statement.sql = format!(
        "WITH found AS MATERIALIZED ({found}) \
         SELECT {COLUMNS}, found_at, found_id FROM found CROSS JOIN api_keys WHERE id = found_id \
         ORDER BY found_at{suffix}, found_id{suffix} LIMIT {count}"
    );
    statement
}

/// The first `count` keys that are wanted among the first `examined` entries of `sources`, and the last
/// of these entries in every row: in one row without a key where none is wanted.
fn look(
    wanted: &Wanted<'_>,
    sources: &[Source],
    course: &Course,
    examined: usize,
    count: usize,
) -> Statement {
    let mut statement = Statement::default();
    let found = merge(&mut statement, sources, course, examined);
    let mut conditions = conditions::all(&mut statement, wanted.filter, wanted.folded);
    let is_by_use = wanted.order.by == SortBy::LastUsed && course.stretch == Stretch::Valued;
    if is_by_use {
        // Each secret has its own entry: the latest counts. (As for the sum, see `conditions`.)
        conditions.push(
            "found_at = (SELECT MAX(last_used_at + 0) FROM key_uses WHERE key_uses.key_id = seen.id)"
                .to_owned(),
        );
    }
    let distinct = if is_by_use { "DISTINCT " } else { "" };
    let (suffix, opposite) = match course.suffix() {
        "" => ("", " DESC"),
        suffix => (suffix, ""),
    };
    statement.sql = format!(
        "WITH found AS MATERIALIZED ({found}), \
         seen AS MATERIALIZED (SELECT {COLUMNS}, search, found_at, found_id \
           FROM (SELECT {distinct}found_at, found_id FROM found) AS entries \
             CROSS JOIN api_keys WHERE id = found_id), \
         wanted AS MATERIALIZED (SELECT {COLUMNS}, found_at, found_id FROM seen{} \
           ORDER BY found_at{suffix}, found_id{suffix} LIMIT {count}), \
         ended AS MATERIALIZED (SELECT found_at AS end_at, found_id AS end_id, \
           (SELECT COUNT(*) FROM found) AS entries \
           FROM found ORDER BY found_at{opposite}, found_id{opposite} LIMIT 1) \
         SELECT {COLUMNS}, found_at, found_id, end_at, end_id, entries \
         FROM ended LEFT JOIN wanted ON 1 = 1 ORDER BY found_at{suffix}, found_id{suffix}",
        where_all(&conditions)
    );
    statement
}

/// The last of the first `examined` entries, and how many there are.
fn reach(sources: &[Source], course: &Course, examined: usize) -> Statement {
    let mut statement = Statement::default();
    let found = merge(&mut statement, sources, course, examined);
    let opposite = if course.is_up() { " DESC" } else { "" };
    statement.sql = format!(
        "SELECT end_at, end_id, entries FROM (\
           SELECT found_at AS end_at, found_id AS end_id, COUNT(*) OVER () AS entries \
           FROM ({found}) AS found) AS counted \
         ORDER BY end_at{opposite}, end_id{opposite} LIMIT 1"
    );
    statement
}

/// All statements that may be run for a page, for who wants to see how an engine runs them.
pub fn statements(
    filter: &KeyFilter,
    order: KeyOrder,
    from: &PageFrom,
    limit: usize,
) -> Vec<Statement> {
    let folded = search::fold(filter.text.as_deref().unwrap_or_default());
    let wanted = Wanted {
        filter,
        folded: &folded,
        order,
    };
    let courses = wanted.courses(from);
    if wanted.is_exact() {
        let page = |course| keys(&sources(filter, course), course, limit + 1);
        return courses.iter().map(page).collect();
    }
    let candidates = few::candidates(&wanted, true);
    let mut all = Vec::new();
    if !candidates.is_empty() {
        all.push(few::count(&candidates, filter));
    }
    let (position, is_backward) = split(from);
    for few in &candidates {
        all.push(few::keys(&wanted, few, is_backward, position, limit + 1));
    }
    let examined = wanted.examined(limit);
    for course in &courses {
        for candidate in wanted.candidates(course, true) {
            all.push(reach(&candidate, course, examined));
            all.push(look(&wanted, &candidate, course, examined, limit + 1));
        }
    }
    all
}

fn place(row: &AnyRow, order: KeyOrder, value: &str, id: &str) -> Result<Place, StoreError> {
    let id: String = row.try_get(id)?;
    let value = if order.by == SortBy::Name {
        Value::Text(row.try_get(value)?)
    } else {
        match row.try_get(value)? {
            NEVER | ..0 => Value::Nothing,
            number => Value::Number(number),
        }
    };
    let id = id.parse().map_err(|_| StoreError::Damaged {
        id: id.clone(),
        column: "id",
    })?;
    Ok((value, id))
}

fn found(row: &AnyRow, order: KeyOrder) -> Result<(KeyRecord, Place), StoreError> {
    Ok((rows::read(row)?, place(row, order, "found_at", "found_id")?))
}

impl Found {
    /// The page, of at most `limit` keys.
    fn page(mut self, from: &PageFrom, limit: usize) -> Page {
        let (position, is_backward) = split(from);
        if self.keys.len() > limit {
            self.keys.truncate(limit);
            self.end = self.keys.last().map(|(_, place)| place.clone());
        }
        let far = self.end.map(|(value, id)| Position {
            value,
            id,
            is_behind: !is_backward,
        });
        let near = position.cloned();
        let mut keys: Vec<KeyRecord> = self.keys.into_iter().map(|(key, _)| key).collect();
        if is_backward {
            keys.reverse();
        }
        let (next, previous) = if is_backward {
            (near, far)
        } else {
            (far, near)
        };
        Page {
            keys,
            next,
            previous,
        }
    }
}

impl SqlStore {
    pub(super) async fn read_page(
        &self,
        filter: &KeyFilter,
        order: KeyOrder,
        from: &PageFrom,
        limit: usize,
    ) -> Result<Page, StoreError> {
        let limit = limit.clamp(1, PAGE_LEN_MAX);
        let folded = search::fold(filter.text.as_deref().unwrap_or_default());
        let wanted = Wanted {
            filter,
            folded: &folded,
            order,
        };
        let (position, is_backward) = split(from);
        // No name has control characters, and PostgreSQL takes none.
        if folded.chars().any(char::is_control) || !position.is_none_or(|at| wanted.has(at)) {
            return Ok(Page::default());
        }
        let connection = &mut *self.readers().acquire().await?;
        if wanted.is_exact() {
            let found = read_exact(connection, &wanted, from, limit).await?;
            return Ok(found.page(from, limit));
        }
        let has_grams = !folded.is_empty() && has_all_grams(connection).await?;
        let candidates = few::candidates(&wanted, has_grams);
        let found = match few::fewest(connection, &candidates, filter).await? {
            Some(few) => {
                read_few(connection, &wanted, &few, (position, is_backward), limit).await?
            }
            None => read_looking(connection, &wanted, from, has_grams, limit).await?,
        };
        Ok(found.page(from, limit))
    }
}

async fn has_all_grams(connection: &mut AnyConnection) -> Result<bool, StoreError> {
    let unsettled = "SELECT id FROM api_keys WHERE search_revision <> revision LIMIT 1";
    let unsettled = sqlx::query(unsettled).fetch_optional(connection).await?;
    Ok(unsettled.is_none())
}

async fn read_exact(
    connection: &mut AnyConnection,
    wanted: &Wanted<'_>,
    from: &PageFrom,
    limit: usize,
) -> Result<Found, StoreError> {
    let mut all = Found::default();
    for course in wanted.courses(from) {
        let count = limit + 1 - all.keys.len();
        let rows = keys(&sources(wanted.filter, &course), &course, count);
        for row in &rows.fetch_all(&mut *connection).await? {
            all.keys.push(found(row, wanted.order)?);
        }
        if all.keys.len() > limit {
            break;
        }
    }
    Ok(all)
}

async fn read_few(
    connection: &mut AnyConnection,
    wanted: &Wanted<'_>,
    few: &Few,
    (position, is_backward): (Option<&Position>, bool),
    limit: usize,
) -> Result<Found, StoreError> {
    let rows = few::keys(wanted, few, is_backward, position, limit + 1);
    let rows = rows.fetch_all(connection).await?;
    let keys = rows.iter().map(|row| found(row, wanted.order));
    Ok(Found {
        keys: keys.collect::<Result<_, _>>()?,
        end: None,
    })
}

async fn read_looking(
    connection: &mut AnyConnection,
    wanted: &Wanted<'_>,
    from: &PageFrom,
    has_grams: bool,
    limit: usize,
) -> Result<Found, StoreError> {
    let mut all = Found::default();
    let examined = wanted.examined(limit);
    for course in wanted.courses(from) {
        let candidates = wanted.candidates(&course, has_grams);
        let Some(sources) = furthest(connection, wanted, &candidates, &course).await? else {
            continue;
        };
        let count = limit + 1 - all.keys.len();
        let rows = look(wanted, sources, &course, examined, count);
        let rows = rows.fetch_all(&mut *connection).await?;
        for row in &rows {
            if row.try_get::<Option<String>, _>("id")?.is_some() {
                all.keys.push(found(row, wanted.order)?);
            }
        }
        if let Some(row) = rows.first()
            && row.try_get::<i64, _>("entries")? >= examined as i64
        {
            all.end = Some(place(row, wanted.order, "end_at", "end_id")?);
        }
        if all.end.is_some() || all.keys.len() > limit {
            break;
        }
    }
    Ok(all)
}

/// The candidate that reaches furthest within [`EXAMINED_MAX`] entries; `None` where one of them says that
/// nothing is there.
async fn furthest<'a>(
    connection: &mut AnyConnection,
    wanted: &Wanted<'_>,
    candidates: &'a [Vec<Source>],
    course: &Course,
) -> Result<Option<&'a [Source]>, StoreError> {
    if let [only] = candidates {
        return Ok(Some(only));
    }
    let mut best: Option<(&[Source], Place)> = None;
    for sources in candidates {
        let rows = reach(sources, course, EXAMINED_MAX);
        let rows = rows.fetch_all(&mut *connection).await?;
        let Some(row) = rows.first() else {
            return Ok(None);
        };
        if row.try_get::<i64, _>("entries")? < EXAMINED_MAX as i64 {
            return Ok(Some(sources));
        }
        let end = place(row, wanted.order, "end_at", "end_id")?;
        // The furthest end is that of the source with the fewest entries in the same time.
        let is_further = |(_, best): &(&[Source], Place)| (end < *best) != course.is_up();
        if best.as_ref().is_none_or(is_further) {
            best = Some((sources, end));
        }
    }
    Ok(best.map(|(sources, _)| sources))
}
