//! The latest hours of many keys in one statement, for lists that show them.

use sqlx::any::AnyRow;
use sqlx::{AssertSqlSafe, Row};

use super::sql::SqlStore;
use super::{StoreError, wanted};
use crate::clock::Timestamp;
use crate::key::KeyId;
use crate::usage::Subject;

/// The requests of a key in one hour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecentHour {
    pub key_id: KeyId,
    pub start: Timestamp,
    pub requests: u64,
}

/// The statement for at least `keys` keys: where the hours begin and where they end, then the subjects.
///
/// Each key's hours are one range of the primary key, and no planner can take them for anything else: the
/// index by time has the hours of all keys, and the beginning of this range is none of its.
pub fn statement(keys: usize) -> String {
    format!(
        "{} SELECT hours.subject, hours.start, hours.requests \
         FROM wanted CROSS JOIN usage_hours AS hours \
         WHERE (hours.subject, hours.start) >= (wanted.subject, $1) \
           AND hours.subject <= wanted.subject AND hours.start < $2",
        wanted::table(keys)
    )
}

fn read(row: &AnyRow) -> Result<RecentHour, StoreError> {
    let subject: String = row.try_get("subject")?;
    let id = subject.strip_prefix("key/").unwrap_or(&subject);
    let damaged = |_| StoreError::Damaged {
        id: id.to_owned(),
        column: "subject",
    };
    Ok(RecentHour {
        key_id: id.parse().map_err(damaged)?,
        start: Timestamp::from_millis(row.try_get("start")?),
        requests: u64::try_from(row.try_get::<i64, _>("requests")?).unwrap_or_default(),
    })
}

impl SqlStore {
    pub(super) async fn read_recent(
        &self,
        keys: &[KeyId],
        from: Timestamp,
        to: Timestamp,
    ) -> Result<Vec<RecentHour>, StoreError> {
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let mut query = sqlx::query(AssertSqlSafe(statement(keys.len())))
            .bind(from.as_millis())
            .bind(to.as_millis());
        let names = keys.iter().map(|key| Subject::Key(*key).to_string());
        for name in wanted::padded(names.collect()) {
            query = query.bind(name);
        }
        let rows = query.fetch_all(self.readers()).await?;
        rows.iter().map(read).collect()
    }
}
