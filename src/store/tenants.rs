//! Tenants in the database. How many keys each has is counted there, by triggers, so that it is right
//! whichever version writes keys; the cap on it is looked at here, in the transaction that adds a key.
//!
//! Order of locks: the tenant's row, the key's, the counter of changes.

use async_trait::async_trait;
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, AssertSqlSafe, Row};

use super::change::{Changed, note_change};
use super::sql::{SqlStore, within_limit};
use super::{PAGE_LEN_MAX, StoreError, search};
use crate::audit::Note;
use crate::clock::Timestamp;
use crate::key::tenant::TenantStanding;
use crate::key::{KeyRecord, TenantId, TenantRecord, TenantSettings};

/// Tenants that one page of a search looks at, at most.
pub const EXAMINED_MAX: usize = 400;

const COLUMNS: &str = "id, display_name, contact_email, rate_limits, max_keys, key_count, standing, \
    created_at, updated_at, revision";

/// Which tenants a list has. Everything that is given must hold.
#[derive(Debug, Clone, Default)]
pub struct TenantFilter {
    pub standing: Option<TenantStanding>,
    /// Part of the display name or of the id, in any case.
    pub text: Option<String>,
}

impl TenantFilter {
    /// Whether the list has `tenant`.
    pub fn has(&self, tenant: &TenantRecord) -> bool {
        self.standing
            .is_none_or(|standing| standing == tenant.standing)
            && self.text.as_ref().is_none_or(|text| {
                let name = tenant.settings.display_name.as_deref().unwrap_or_default();
                search::searched_text(name, tenant.id.as_str()).contains(&search::fold(text))
            })
    }
}

/// A page of a list.
#[derive(Debug, Default)]
pub struct TenantPage {
    pub tenants: Vec<TenantRecord>,
    /// After which the next page starts; `None` after the last. A page of a search may be shorter than
    /// it might be, or empty, and another may follow all the same.
    pub next: Option<TenantId>,
}

/// Where tenants live. Every write that returned is durable, and the note of it with it.
#[async_trait]
pub trait TenantStore: Send + Sync + 'static {
    /// The tenant of that id.
    async fn tenant(&self, id: &TenantId) -> Result<Option<TenantRecord>, StoreError>;

    /// Adds a new tenant, without keys. [`StoreError::Conflict`] where it is there.
    async fn insert_tenant(&self, record: &TenantRecord, note: &Note) -> Result<(), StoreError>;

    /// Replaces the record whose revision is the one before `record.revision`, and says how many keys
    /// the tenant has. [`StoreError::Conflict`] where it has another revision by now.
    async fn update_tenant(&self, record: &TenantRecord, note: &Note) -> Result<u64, StoreError>;

    /// A page of at most `limit` tenants (no more than [`PAGE_LEN_MAX`]) after `after`, by id. What it
    /// costs has a bound.
    async fn tenants(
        &self,
        filter: &TenantFilter,
        after: Option<&TenantId>,
        limit: usize,
    ) -> Result<TenantPage, StoreError>;
}

/// Locks the tenant's row until the commit.
pub(super) async fn lock(
    transaction: &mut AnyConnection,
    tenant: &TenantId,
) -> Result<(), StoreError> {
    sqlx::query("UPDATE tenants SET key_count = key_count WHERE id = $1")
        .bind(tenant.to_string())
        .execute(transaction)
        .await?;
    Ok(())
}

/// Locks the row of the tenant of a new key, makes it where there is none, and sees whether the tenant
/// may have one key more.
pub(super) async fn admit_key(
    transaction: &mut AnyConnection,
    key: &KeyRecord,
) -> Result<(), StoreError> {
    let row = sqlx::query(
        "INSERT INTO tenants (id, created_at, updated_at) VALUES ($1, $2, $2) \
         ON CONFLICT (id) DO UPDATE SET key_count = tenants.key_count \
         RETURNING key_count, max_keys",
    )
    .bind(key.tenant_id.to_string())
    .bind(key.created_at.as_millis())
    .fetch_one(transaction)
    .await?;
    let (count, max): (i64, Option<i64>) = (row.try_get("key_count")?, row.try_get("max_keys")?);
    match max.and_then(|max| u64::try_from(max).ok()) {
        Some(max) if u64::try_from(count).is_ok_and(|count| count >= max) => {
            Err(StoreError::TooManyKeys { max })
        }
        _ => Ok(()),
    }
}

/// The first `count` tenants after the id `$1`, of the standing `$2` where that is asked for. Bounds and
/// order name all columns of one index, so that no other is read.
pub fn page_statement(of_standing: bool, count: usize) -> String {
    let range = if of_standing {
        "standing <= $2 AND (standing, id) > ($2, $1) ORDER BY standing, id"
    } else {
        "id > $1 ORDER BY id"
    };
    format!("SELECT {COLUMNS} FROM tenants WHERE {range} LIMIT {count}")
}

fn limits_text(settings: &TenantSettings) -> Option<String> {
    let limits = &settings.rate_limits;
    (!limits.is_empty()).then(|| serde_json::json!(limits).to_string())
}

fn whole(number: Option<u64>) -> Option<i64> {
    number.map(|number| i64::try_from(number).unwrap_or(i64::MAX))
}

fn read(row: &AnyRow) -> Result<TenantRecord, StoreError> {
    let id: String = row.try_get("id").map_err(|_| StoreError::DamagedTenant {
        id: "(unknown)".to_owned(),
        column: "id",
    })?;
    let damaged = |column| StoreError::DamagedTenant {
        id: id.clone(),
        column,
    };
    let text = |column| -> Result<Option<String>, StoreError> {
        row.try_get(column).map_err(|_| damaged(column))
    };
    let integer =
        |column| -> Result<i64, StoreError> { row.try_get(column).map_err(|_| damaged(column)) };
    let count = |column, number: i64| u64::try_from(number).map_err(|_| damaged(column));
    let max_keys: Option<i64> = row.try_get("max_keys").map_err(|_| damaged("max_keys"))?;
    let rate_limits = match text("rate_limits")? {
        None => Vec::new(),
        Some(text) => serde_json::from_str(&text).map_err(|_| damaged("rate_limits"))?,
    };
    let standing = text("standing")?.and_then(|name| TenantStanding::from_name(&name));
    Ok(TenantRecord {
        id: id.parse().map_err(|_| damaged("id"))?,
        settings: TenantSettings {
            display_name: text("display_name")?,
            contact_email: text("contact_email")?,
            rate_limits,
            max_keys: max_keys.map(|max| count("max_keys", max)).transpose()?,
        },
        standing: standing.ok_or_else(|| damaged("standing"))?,
        key_count: count("key_count", integer("key_count")?)?,
        created_at: Timestamp::from_millis(integer("created_at")?),
        updated_at: Timestamp::from_millis(integer("updated_at")?),
        revision: integer("revision")?,
    })
}

impl SqlStore {
    async fn insert_tenant_row(
        &self,
        record: &TenantRecord,
        note: &Note,
    ) -> Result<(), StoreError> {
        let settings = &record.settings;
        let mut transaction = self.writer().begin().await?;
        sqlx::query(
            "INSERT INTO tenants (id, display_name, contact_email, rate_limits, max_keys, standing, \
             created_at, updated_at, revision) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
        )
        .bind(record.id.to_string())
        .bind(settings.display_name.clone())
        .bind(settings.contact_email.clone())
        .bind(limits_text(settings))
        .bind(whole(settings.max_keys))
        .bind(record.standing.as_str())
        .bind(record.created_at.as_millis())
        .bind(record.updated_at.as_millis())
        .bind(record.revision)
        .execute(&mut *transaction)
        .await?;
        let changed = Changed::Tenant(&record.id, record.updated_at);
        note_change(&mut transaction, changed).await?;
        self.commit_noted(transaction, std::slice::from_ref(note))
            .await
    }

    async fn update_tenant_row(
        &self,
        record: &TenantRecord,
        note: &Note,
    ) -> Result<u64, StoreError> {
        let settings = &record.settings;
        let mut transaction = self.writer().begin().await?;
        let row = sqlx::query(
            "UPDATE tenants SET display_name = $1, contact_email = $2, rate_limits = $3, \
             max_keys = $4, standing = $5, updated_at = $6, revision = $7 \
             WHERE id = $8 AND revision = $9 RETURNING key_count",
        )
        .bind(settings.display_name.clone())
        .bind(settings.contact_email.clone())
        .bind(limits_text(settings))
        .bind(whole(settings.max_keys))
        .bind(record.standing.as_str())
        .bind(record.updated_at.as_millis())
        .bind(record.revision)
        .bind(record.id.to_string())
        .bind(record.revision - 1)
        .fetch_optional(&mut *transaction)
        .await?;
        let Some(row) = row else {
            return Err(StoreError::Conflict);
        };
        let changed = Changed::Tenant(&record.id, record.updated_at);
        note_change(&mut transaction, changed).await?;
        self.commit_noted(transaction, std::slice::from_ref(note))
            .await?;
        let count: i64 = row.try_get("key_count")?;
        Ok(u64::try_from(count).unwrap_or(0))
    }

    async fn tenants_after(
        &self,
        standing: Option<TenantStanding>,
        after: &str,
        count: usize,
    ) -> Result<Vec<TenantRecord>, StoreError> {
        let sql = page_statement(standing.is_some(), count);
        let mut query = sqlx::query(AssertSqlSafe(sql)).bind(after.to_owned());
        if let Some(standing) = standing {
            query = query.bind(standing.as_str());
        }
        query
            .fetch_all(self.readers())
            .await?
            .iter()
            .map(read)
            .collect()
    }

    async fn read_tenants(
        &self,
        filter: &TenantFilter,
        after: Option<&TenantId>,
        limit: usize,
    ) -> Result<TenantPage, StoreError> {
        let limit = limit.clamp(1, PAGE_LEN_MAX);
        let is_search = filter.text.is_some();
        let examined = if is_search { EXAMINED_MAX } else { limit };
        let after = after.map_or("", TenantId::as_str);
        let mut found = self
            .tenants_after(filter.standing, after, examined + 1)
            .await?;
        let has_more = found.len() > examined;
        found.truncate(examined);
        let last = found.last().map(|tenant| tenant.id.clone());
        let mut page = TenantPage::default();
        for tenant in found.into_iter().filter(|tenant| filter.has(tenant)) {
            if page.tenants.len() == limit {
                page.next = page.tenants.last().map(|tenant| tenant.id.clone());
                return Ok(page);
            }
            page.tenants.push(tenant);
        }
        page.next = last.filter(|_| has_more);
        Ok(page)
    }
}

#[async_trait]
impl super::TenantStore for SqlStore {
    async fn tenant(&self, id: &TenantId) -> Result<Option<TenantRecord>, StoreError> {
        let sql = format!("SELECT {COLUMNS} FROM tenants WHERE id = $1");
        let query = sqlx::query(AssertSqlSafe(sql)).bind(id.to_string());
        let row = within_limit(async { Ok(query.fetch_optional(self.readers()).await?) }).await?;
        row.as_ref().map(read).transpose()
    }

    async fn insert_tenant(&self, record: &TenantRecord, note: &Note) -> Result<(), StoreError> {
        within_limit(self.insert_tenant_row(record, note)).await
    }

    async fn update_tenant(&self, record: &TenantRecord, note: &Note) -> Result<u64, StoreError> {
        within_limit(self.update_tenant_row(record, note)).await
    }

    async fn tenants(
        &self,
        filter: &TenantFilter,
        after: Option<&TenantId>,
        limit: usize,
    ) -> Result<TenantPage, StoreError> {
        within_limit(self.read_tenants(filter, after, limit)).await
    }
}
