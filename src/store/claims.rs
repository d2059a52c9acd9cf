//! What rows say about hashes: the few columns that are compared with a secret store, read by the
//! page, so that every key can be looked at without holding all of them.

use sqlx::any::AnyRow;
use sqlx::{AnyPool, Row};

use super::StoreError;
use crate::clock::Timestamp;
use crate::key::record::{Authority, PreviousSecret, Standing};
use crate::key::{Generation, KeyId, KeyRecord, TenantId};

/// The most rows in one page.
pub const CLAIMS_MAX: usize = 1000;

/// Which hashes a row names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    pub id: KeyId,
    pub tenant_id: TenantId,
    pub standing: Standing,
    pub generation: Generation,
    pub previous: Option<PreviousSecret>,
    pub revision: i64,
}

impl Claim {
    /// Whether the hash of `generation` has a use at `now`. A revoked row names none.
    pub fn names(&self, generation: Generation, now: Timestamp) -> bool {
        let authority = Authority {
            standing: self.standing,
            expires_at: None,
            generation: self.generation,
            previous: self.previous,
        };
        self.standing != Standing::Revoked && authority.accepts(generation, now)
    }
}

impl From<&KeyRecord> for Claim {
    fn from(record: &KeyRecord) -> Self {
        Claim {
            id: record.id,
            tenant_id: record.tenant_id.clone(),
            standing: record.standing,
            generation: record.generation,
            previous: record.previous,
            revision: record.revision,
        }
    }
}

/// One page of rows.
#[derive(Debug, Default)]
pub struct ClaimPage {
    pub claims: Vec<Claim>,
    /// Ids of rows that can't be read.
    pub damaged: Vec<String>,
    /// Where the next page starts; `None` after the last.
    pub next: Option<String>,
}

/// The first [`CLAIMS_MAX`] rows after the id `after`.
pub(super) async fn read_page(
    pool: &AnyPool,
    after: Option<String>,
) -> Result<ClaimPage, StoreError> {
    let sql = "SELECT id, tenant_id, standing, generation, previous_generation, \
        previous_valid_until, revision FROM api_keys WHERE id > $1 ORDER BY id LIMIT $2";
    let rows = sqlx::query(sql)
        .bind(after.unwrap_or_default())
        .bind(i64::try_from(CLAIMS_MAX).unwrap_or(1))
        .fetch_all(pool)
        .await?;
    let mut page = ClaimPage::default();
    for row in &rows {
        let id: String = row.try_get("id")?;
        match read(&id, row) {
            Some(claim) => page.claims.push(claim),
            None => page.damaged.push(id.clone()),
        }
        page.next = Some(id);
    }
    if rows.len() < CLAIMS_MAX {
        page.next = None;
    }
    Ok(page)
}

fn read(id: &str, row: &AnyRow) -> Option<Claim> {
    let text = |column| row.try_get::<String, _>(column).ok();
    let integer = |column| row.try_get::<i64, _>(column).ok();
    let optional = |column| row.try_get::<Option<i64>, _>(column).ok();
    let previous = match (
        optional("previous_generation")?,
        optional("previous_valid_until")?,
    ) {
        (Some(generation), Some(valid_until)) => Some(PreviousSecret {
            generation: Generation(generation),
            valid_until: Timestamp::from_millis(valid_until),
        }),
        _ => None,
    };
    Some(Claim {
        id: id.parse().ok()?,
        tenant_id: text("tenant_id")?.parse().ok()?,
        standing: Standing::from_name(&text("standing")?)?,
        generation: Generation(integer("generation")?),
        previous,
        revision: integer("revision")?,
    })
}
