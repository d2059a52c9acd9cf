//! Rows <-> records. The only place that knows the columns' encodings.

use sqlx::any::AnyRow;
use sqlx::{Row, error::BoxDynError};

use super::StoreError;
use crate::clock::Timestamp;
use crate::key::record::{PreviousSecret, Standing};
use crate::key::{CredentialKind, Environment, Generation, KeyOrigin, KeyRecord};

/// The columns of `api_keys`, in the order in which `values` binds them.
pub const COLUMNS: &str = "id, tenant_id, name, environment, hint, scopes, rate_limits, allowed_ips, \
    contact_email, rotation_days, metadata, standing, created_at, updated_at, expires_at, revoked_at, \
    secret_created_at, generation, previous_generation, previous_valid_until, revision, \
    origin, credential";

type AnyQuery<'q> = sqlx::query::Query<'q, sqlx::Any, sqlx::any::AnyArguments>;

fn texts<T: ToString>(items: &[T]) -> String {
    serde_json::Value::from(items.iter().map(T::to_string).collect::<Vec<_>>()).to_string()
}

/// Binds `record` to the placeholders of [`COLUMNS`].
pub fn bind<'q>(query: AnyQuery<'q>, record: &KeyRecord) -> AnyQuery<'q> {
    let rate_limits = record
        .rate_limits
        .as_ref()
        .map(|limits| serde_json::json!(limits).to_string());
    let scopes: Vec<&str> = record.scopes.iter().map(|scope| scope.as_str()).collect();
    query
        .bind(record.id.to_string())
        .bind(record.tenant_id.to_string())
        .bind(record.name.clone())
        .bind(record.environment.as_str().to_owned())
        .bind(record.hint.clone())
        .bind(texts(&scopes))
        .bind(rate_limits)
        .bind(texts(&record.allowed_ips))
        .bind(record.contact_email.clone())
        .bind(i64::from(record.rotation_days))
        .bind(serde_json::Value::from(record.metadata.clone()).to_string())
        .bind(record.standing.as_str().to_owned())
        .bind(record.created_at.as_millis())
        .bind(record.updated_at.as_millis())
        .bind(record.expires_at.map(Timestamp::as_millis))
        .bind(record.revoked_at.map(Timestamp::as_millis))
        .bind(record.secret_created_at.as_millis())
        .bind(record.generation.0)
        .bind(record.previous.map(|old| old.generation.0))
        .bind(record.previous.map(|old| old.valid_until.as_millis()))
        .bind(record.revision)
        .bind(record.origin.as_str().to_owned())
        .bind(record.credential.as_str().to_owned())
}

struct Reader<'r> {
    row: &'r AnyRow,
    id: String,
}

impl Reader<'_> {
    fn damaged(&self, column: &'static str) -> StoreError {
        StoreError::Damaged {
            id: self.id.clone(),
            column,
        }
    }

    fn text(&self, column: &'static str) -> Result<String, StoreError> {
        self.row.try_get(column).map_err(|_| self.damaged(column))
    }

    fn optional_text(&self, column: &'static str) -> Result<Option<String>, StoreError> {
        self.row.try_get(column).map_err(|_| self.damaged(column))
    }

    fn integer(&self, column: &'static str) -> Result<i64, StoreError> {
        self.row.try_get(column).map_err(|_| self.damaged(column))
    }

    fn optional_integer(&self, column: &'static str) -> Result<Option<i64>, StoreError> {
        self.row.try_get(column).map_err(|_| self.damaged(column))
    }

    fn time(&self, column: &'static str) -> Result<Timestamp, StoreError> {
        self.integer(column).map(Timestamp::from_millis)
    }

    fn optional_time(&self, column: &'static str) -> Result<Option<Timestamp>, StoreError> {
        Ok(self.optional_integer(column)?.map(Timestamp::from_millis))
    }

    /// `convert` applied to the column's text.
    fn parsed<T, E>(
        &self,
        column: &'static str,
        convert: impl FnOnce(&str) -> Result<T, E>,
    ) -> Result<T, StoreError> {
        convert(&self.text(column)?).map_err(|_| self.damaged(column))
    }

    fn list<T: std::str::FromStr>(&self, column: &'static str) -> Result<Vec<T>, StoreError>
    where
        T::Err: std::error::Error + Send + Sync + 'static,
    {
        self.parsed(column, |text| -> Result<Vec<T>, BoxDynError> {
            let items: Vec<String> = serde_json::from_str(text)?;
            items
                .iter()
                .map(|item| item.parse::<T>().map_err(Into::into))
                .collect()
        })
    }
}

/// Reads a record from a row with [`COLUMNS`].
pub fn read(row: &AnyRow) -> Result<KeyRecord, StoreError> {
    let id: String = row.try_get("id").map_err(|_| StoreError::Damaged {
        id: "(unknown)".to_owned(),
        column: "id",
    })?;
    let r = Reader { row, id };
    let previous = match (
        r.optional_integer("previous_generation")?,
        r.optional_time("previous_valid_until")?,
    ) {
        (Some(generation), Some(valid_until)) => Some(PreviousSecret {
            generation: Generation(generation),
            valid_until,
        }),
        _ => None,
    };
    let rate_limits = match r.optional_text("rate_limits")? {
        None => None,
        Some(text) => Some(serde_json::from_str(&text).map_err(|_| r.damaged("rate_limits"))?),
    };
    Ok(KeyRecord {
        id: r.parsed("id", str::parse)?,
        tenant_id: r.parsed("tenant_id", str::parse)?,
        name: r.text("name")?,
        environment: r.parsed("environment", |name| Environment::from_name(name).ok_or(()))?,
        origin: r.parsed("origin", |name| KeyOrigin::from_name(name).ok_or(()))?,
        credential: r.parsed("credential", |name| {
            CredentialKind::from_name(name).ok_or(())
        })?,
        hint: r.text("hint")?,
        scopes: r.list("scopes")?,
        rate_limits,
        allowed_ips: r.list("allowed_ips")?,
        contact_email: r.optional_text("contact_email")?,
        rotation_days: u32::try_from(r.integer("rotation_days")?)
            .map_err(|_| r.damaged("rotation_days"))?,
        metadata: r.parsed("metadata", |text| serde_json::from_str(text))?,
        standing: r.parsed("standing", |name| Standing::from_name(name).ok_or(()))?,
        created_at: r.time("created_at")?,
        updated_at: r.time("updated_at")?,
        expires_at: r.optional_time("expires_at")?,
        revoked_at: r.optional_time("revoked_at")?,
        secret_created_at: r.time("secret_created_at")?,
        generation: Generation(r.integer("generation")?),
        previous,
        revision: r.integer("revision")?,
    })
}
