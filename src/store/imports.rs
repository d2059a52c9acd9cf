//! Where imported secrets are found, by their places in a keyed index.
//!
//! An import takes the number of the change that makes the key, under the lock of the change counter:
//! numbers become visible in their order, so who has read all up to a number has missed none.

use async_trait::async_trait;
use sqlx::{AssertSqlSafe, Row};

use super::change;
use super::guarded::Guarded;
use super::sql::{SqlStore, within_limit};
use super::{KeyStore, StoreError};
use crate::audit::Note;
use crate::key::{KeyId, KeyRecord, Lookup};

/// Places that are read at once.
pub const IMPORTS_MAX: usize = 10_000;

/// What became of an import.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Imported {
    Added,
    /// The secret was there already, as that of this key.
    Existing(KeyId),
}

/// Places in the index, in the order of the imports.
#[derive(Debug, Default)]
pub struct ImportPage {
    pub lookups: Vec<Lookup>,
    /// The number of the last one; `None` where there is none.
    pub last: Option<i64>,
}

/// The index of imported secrets.
#[async_trait]
pub trait ImportStore: Send + Sync + 'static {
    /// Adds an imported key, to be found at the first of `lookups`, where none of them is taken. All or
    /// nothing: key, place, note. [`StoreError::Conflict`] where the id is taken.
    async fn insert_imported(
        &self,
        record: &KeyRecord,
        lookups: &[Lookup],
        note: &Note,
    ) -> Result<Imported, StoreError>;

    /// The key that is found at one of `lookups`.
    async fn find_imported(&self, lookups: &[Lookup]) -> Result<Option<KeyId>, StoreError>;

    /// The first [`IMPORTS_MAX`] places with a number above `seq`.
    async fn imports_since(&self, seq: i64) -> Result<ImportPage, StoreError>;
}

fn find_sql(count: usize) -> String {
    let places = change::placeholders(1, count);
    format!("SELECT key_id FROM imported_keys WHERE lookup IN ({places}) LIMIT 1")
}

async fn find<'c>(
    executor: impl sqlx::Executor<'c, Database = sqlx::Any>,
    lookups: &[Lookup],
) -> Result<Option<KeyId>, StoreError> {
    if lookups.is_empty() {
        return Ok(None);
    }
    let mut query = sqlx::query(AssertSqlSafe(find_sql(lookups.len())));
    for lookup in lookups {
        query = query.bind(lookup.to_string());
    }
    let Some(row) = query.fetch_optional(executor).await? else {
        return Ok(None);
    };
    let id: String = row.try_get("key_id")?;
    let damaged = |_| StoreError::Damaged {
        id: id.clone(),
        column: "key_id",
    };
    Ok(Some(id.parse().map_err(damaged)?))
}

impl SqlStore {
    async fn insert_imported_row(
        &self,
        record: &KeyRecord,
        lookups: &[Lookup],
        note: &Note,
    ) -> Result<Imported, StoreError> {
        let Some(place) = lookups.first() else {
            return Err(StoreError::Unavailable("there is no mint key".to_owned()));
        };
        let mut transaction = self.writer().begin().await?;
        change::add(&mut transaction, record).await?;
        // Whoever imports the same at the same time waits for the counter, and finds this one then.
        if let Some(existing) = find(&mut *transaction, lookups).await? {
            transaction.rollback().await?;
            return Ok(Imported::Existing(existing));
        }
        let added = sqlx::query(
            "INSERT INTO imported_keys (lookup, key_id, seq) \
             SELECT $1, $2, seq FROM change_counter WHERE id = 1",
        );
        added
            .bind(place.to_string())
            .bind(record.id.to_string())
            .execute(&mut *transaction)
            .await?;
        self.commit_noted(transaction, std::slice::from_ref(note))
            .await?;
        Ok(Imported::Added)
    }

    async fn read_imports(&self, seq: i64) -> Result<ImportPage, StoreError> {
        let query = sqlx::query(
            "SELECT lookup, seq FROM imported_keys WHERE seq > $1 ORDER BY seq LIMIT $2",
        );
        let query = query.bind(seq).bind(IMPORTS_MAX as i64);
        let rows = query.fetch_all(self.readers()).await?;
        let mut page = ImportPage::default();
        for row in rows {
            let (lookup, seq): (String, i64) = (row.try_get("lookup")?, row.try_get("seq")?);
            page.last = Some(seq);
            match lookup.parse() {
                Ok(lookup) => page.lookups.push(lookup),
                // Somebody wrote it by hand. It is the place of nothing, and hides no other.
                Err(error) => tracing::error!(seq, %error, "an imported key can't be found"),
            }
        }
        Ok(page)
    }
}

#[async_trait]
impl ImportStore for SqlStore {
    async fn insert_imported(
        &self,
        record: &KeyRecord,
        lookups: &[Lookup],
        note: &Note,
    ) -> Result<Imported, StoreError> {
        within_limit(self.insert_imported_row(record, lookups, note)).await
    }

    async fn find_imported(&self, lookups: &[Lookup]) -> Result<Option<KeyId>, StoreError> {
        within_limit(find(self.readers(), lookups)).await
    }

    async fn imports_since(&self, seq: i64) -> Result<ImportPage, StoreError> {
        within_limit(self.read_imports(seq)).await
    }
}

#[async_trait]
impl<S: KeyStore + ImportStore> ImportStore for Guarded<S> {
    async fn insert_imported(
        &self,
        record: &KeyRecord,
        lookups: &[Lookup],
        note: &Note,
    ) -> Result<Imported, StoreError> {
        let work = self.inner.insert_imported(record, lookups, note);
        self.guard.write(work).await
    }

    async fn find_imported(&self, lookups: &[Lookup]) -> Result<Option<KeyId>, StoreError> {
        self.guard.read(self.inner.find_imported(lookups)).await
    }

    async fn imports_since(&self, seq: i64) -> Result<ImportPage, StoreError> {
        self.guard.read(self.inner.imports_since(seq)).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::tests::noted;
    use crate::key::record::{KeyOrigin, tests::record};
    use secrecy::SecretString;

    async fn store(directory: &tempfile::TempDir) -> SqlStore {
        let url = format!("sqlite://{}/keys.db", directory.path().display());
        SqlStore::open(&SecretString::from(url)).await.unwrap()
    }

    fn place(n: u32) -> Lookup {
        format!("{n:032x}").parse().unwrap()
    }

    fn imported(n: i64) -> KeyRecord {
        KeyRecord {
            id: format!("key{n:09}").parse().unwrap(),
            origin: KeyOrigin::Imported,
            ..record()
        }
    }

    #[tokio::test]
    async fn a_secret_is_imported_once_and_leaves_nothing_the_second_time() {
        let directory = tempfile::tempdir().unwrap();
        let store = store(&directory).await;
        let (first, second) = (imported(1), imported(2));
        let added = store.insert_imported(&first, &[place(1)], &noted()).await;
        assert_eq!(added.unwrap(), Imported::Added);
        // Under another mint key, whose place comes first now.
        let places = [place(7), place(1)];
        let again = store.insert_imported(&second, &places, &noted()).await;
        assert_eq!(again.unwrap(), Imported::Existing(first.id));
        assert_eq!(store.get(first.id).await.unwrap(), Some(first.clone()));
        assert_eq!(store.get(second.id).await.unwrap(), None);
        assert_eq!(store.last_change().await.unwrap(), 1);
        let found = store.find_imported(&[place(7), place(1)]).await.unwrap();
        assert_eq!(found, Some(first.id));
        assert_eq!(store.find_imported(&[place(7)]).await.unwrap(), None);
        assert_eq!(store.find_imported(&[]).await.unwrap(), None);
    }

    #[tokio::test]
    async fn places_are_read_in_the_order_of_the_imports() {
        let directory = tempfile::tempdir().unwrap();
        let store = store(&directory).await;
        for n in [3, 1, 2] {
            store
                .insert(&imported(10 + i64::from(n)), &noted())
                .await
                .unwrap();
            let (record, place) = (imported(n.into()), place(n));
            store
                .insert_imported(&record, &[place], &noted())
                .await
                .unwrap();
        }
        let all = store.imports_since(0).await.unwrap();
        assert_eq!(all.lookups, [place(3), place(1), place(2)]);
        assert_eq!(all.last, Some(6));
        let rest = store.imports_since(2).await.unwrap();
        assert_eq!(rest.lookups, [place(1), place(2)]);
        assert_eq!(store.imports_since(6).await.unwrap().last, None);
    }
}
