//! Writes of records. Whatever lists are read from changes in the same transaction.

use sqlx::{AnyConnection, AssertSqlSafe, Row};

use super::rows::{self, COLUMNS};
use super::sql::SqlStore;
use super::{StoreError, search, tenants};
use crate::audit::Note;
use crate::clock::Timestamp;
use crate::key::record::Standing;
use crate::key::{KeyRecord, TenantId};

/// What stands for a key's id where a tenant was changed. Ids are random: no key has it.
const NO_KEY: &str = "000000000000";

/// Columns that a record has none of. They follow [`COLUMNS`] in statements.
const LIST_COLUMNS: [&str; 2] = ["search_revision", "lapsed"];

/// `$first, ...`
pub(super) fn placeholders(first: usize, count: usize) -> String {
    let all: Vec<String> = (first..first + count).map(|n| format!("${n}")).collect();
    all.join(", ")
}

fn columns() -> Vec<&'static str> {
    let columns = COLUMNS.split(',').map(str::trim);
    columns.chain(LIST_COLUMNS).collect()
}

/// Whether the key's time was over when it was written.
fn lapsed(record: &KeyRecord) -> &'static str {
    let is_over = record
        .expires_at
        .is_some_and(|end| end <= record.updated_at);
    if is_over { "yes" } else { "no" }
}

/// What was changed.
pub(super) enum Changed<'a> {
    Key(&'a KeyRecord),
    Tenant(&'a TenantId, Timestamp),
}

/// Notes that a key or a tenant was made or changed, in the transaction that does it, at its end: the
/// counter's row stays locked until the commit, so numbers become visible in their order.
pub(super) async fn note_change(
    transaction: &mut AnyConnection,
    changed: Changed<'_>,
) -> Result<(), StoreError> {
    let (key_id, tenant_id, at) = match changed {
        Changed::Key(record) => (record.id.to_string(), None, record.updated_at),
        Changed::Tenant(id, at) => (NO_KEY.to_owned(), Some(id.to_string()), at),
    };
    let row = sqlx::query("UPDATE change_counter SET seq = seq + 1 WHERE id = 1 RETURNING seq")
        .fetch_one(&mut *transaction)
        .await?;
    sqlx::query(
        "INSERT INTO key_changes (seq, key_id, changed_at, tenant_id) VALUES ($1, $2, $3, $4)",
    )
    .bind(row.try_get::<i64, _>("seq")?)
    .bind(key_id)
    .bind(at.as_millis())
    .bind(tenant_id)
    .execute(&mut *transaction)
    .await?;
    Ok(())
}

/// Adds a row, and whatever follows from it.
async fn insert(transaction: &mut AnyConnection, record: &KeyRecord) -> Result<(), StoreError> {
    let columns = columns();
    let text = columns.len() + 1;
    let sql = format!(
        "INSERT INTO api_keys ({}, search) VALUES ({})",
        columns.join(", "),
        placeholders(1, text)
    );
    let searched = search::searched(record);
    rows::bind(sqlx::query(AssertSqlSafe(sql)), record)
        .bind(record.revision)
        .bind(lapsed(record))
        .bind(searched.clone())
        .execute(&mut *transaction)
        .await?;
    let created_at = record.created_at.as_millis();
    replace_grams(transaction, record.id.as_str(), created_at, "", &searched).await?;
    note_change(transaction, Changed::Key(record)).await
}

/// Adds a key, if its tenant may have it.
pub(super) async fn add(
    transaction: &mut AnyConnection,
    record: &KeyRecord,
) -> Result<(), StoreError> {
    tenants::admit_key(transaction, record).await?;
    insert(transaction, record).await
}

/// Makes the grams of a key those of `new`, where they were those of `old`.
pub async fn replace_grams(
    transaction: &mut AnyConnection,
    id: &str,
    created_at: i64,
    old: &str,
    new: &str,
) -> Result<(), StoreError> {
    let (old, new) = (search::grams(old), search::grams(new));
    let gone: Vec<&String> = old.difference(&new).collect();
    if !gone.is_empty() {
        let sql = format!(
            "DELETE FROM key_grams WHERE created_at = $1 AND id = $2 AND gram IN ({})",
            placeholders(3, gone.len())
        );
        let mut query = sqlx::query(AssertSqlSafe(sql))
            .bind(created_at)
            .bind(id.to_owned());
        for gram in gone {
            query = query.bind(gram.clone());
        }
        query.execute(&mut *transaction).await?;
    }
    let come: Vec<&String> = new.difference(&old).collect();
    if !come.is_empty() {
        let values: Vec<String> = (3..3 + come.len())
            .map(|n| format!("(${n}, $1, $2)"))
            .collect();
        let sql = format!(
            "INSERT INTO key_grams (gram, created_at, id) VALUES {} ON CONFLICT DO NOTHING",
            values.join(", ")
        );
        let mut query = sqlx::query(AssertSqlSafe(sql))
            .bind(created_at)
            .bind(id.to_owned());
        for gram in come {
            query = query.bind(gram.clone());
        }
        query.execute(&mut *transaction).await?;
    }
    Ok(())
}

impl SqlStore {
    pub(super) async fn insert_row(
        &self,
        record: &KeyRecord,
        note: &Note,
    ) -> Result<(), StoreError> {
        let mut transaction = self.writer().begin().await?;
        add(&mut transaction, record).await?;
        self.commit_noted(transaction, std::slice::from_ref(note))
            .await
    }

    pub(super) async fn insert_first_row(
        &self,
        record: &KeyRecord,
        note: &Note,
    ) -> Result<(), StoreError> {
        let mut transaction = self.writer().begin().await?;
        tenants::admit_key(&mut transaction, record).await?;
        // Whoever comes at the same time waits here.
        sqlx::query("UPDATE change_counter SET seq = seq WHERE id = 1")
            .execute(&mut *transaction)
            .await?;
        let first = sqlx::query("SELECT id FROM api_keys LIMIT 1")
            .fetch_optional(&mut *transaction)
            .await?;
        if first.is_some() {
            return Err(StoreError::Conflict);
        }
        insert(&mut transaction, record).await?;
        self.commit_noted(transaction, std::slice::from_ref(note))
            .await
    }

    pub(super) async fn update_row(
        &self,
        record: &KeyRecord,
        note: &Note,
    ) -> Result<(), StoreError> {
        let columns = columns();
        let assignments: Vec<String> = columns
            .iter()
            .enumerate()
            .map(|(i, column)| format!("{column} = ${}", i + 1))
            .collect();
        let expected = columns.len() + 1;
        let sql = format!(
            "UPDATE api_keys SET {} WHERE id = $1 AND revision = ${expected} RETURNING search",
            assignments.join(", ")
        );
        // The first statement writes: one that only read could find the database locked afterwards.
        let mut transaction = self.writer().begin().await?;
        if record.standing == Standing::Revoked {
            // The tenant has a key less.
            tenants::lock(&mut transaction, &record.tenant_id).await?;
        }
        let changed = rows::bind(sqlx::query(AssertSqlSafe(sql)), record)
            .bind(record.revision)
            .bind(lapsed(record))
            .bind(record.revision - 1)
            .fetch_optional(&mut *transaction)
            .await?;
        let Some(changed) = changed else {
            return Err(StoreError::Conflict);
        };
        let old: Option<String> = changed.try_get("search")?;
        let new = search::searched(record);
        if old.as_ref() != Some(&new) {
            let (old, created_at) = (old.unwrap_or_default(), record.created_at.as_millis());
            replace_grams(&mut transaction, record.id.as_str(), created_at, &old, &new).await?;
            sqlx::query("UPDATE api_keys SET search = $1 WHERE id = $2")
                .bind(new)
                .bind(record.id.to_string())
                .execute(&mut *transaction)
                .await?;
        }
        note_change(&mut transaction, Changed::Key(record)).await?;
        self.commit_noted(transaction, std::slice::from_ref(note))
            .await
    }
}
