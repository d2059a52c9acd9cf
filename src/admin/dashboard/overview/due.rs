//! Keys that need somebody: those that expire soon, and those whose secret is older than it should be.

use std::time::Duration;

use super::View;
use crate::admin::AdminState;
use crate::admin::answer::ApiError;
use crate::admin::dashboard::KEYS_PATH;
use crate::clock::Timestamp;
use crate::key::{KeyRecord, Status};
use crate::manage::KeyError;
use crate::store::{KeyFilter, KeyOrder, PageFrom, SortBy};

/// A key that expires within so many days needs somebody.
const EXPIRING_DAYS: u64 = 14;
/// Keys that need somebody are counted up to here.
const COUNTED_MAX: usize = 100;

/// Some of them, and where they are listed.
#[derive(Debug)]
pub struct Due {
    /// What they are, after their number.
    pub what: &'static str,
    pub number: String,
    /// After the link.
    pub more: String,
    pub link: String,
}

/// All kinds of which there are some.
pub async fn read(state: &AdminState, view: &View) -> Result<Vec<Due>, ApiError> {
    let now = state.clock.now();
    let filter = KeyFilter {
        tenant_id: view.tenant.clone(),
        status: Some((Status::Active, now)),
        ..KeyFilter::default()
    };
    let expiring = expiring(state, &filter, now).await?;
    let overdue = overdue(state, &filter, now).await?;
    let of_tenant = view.tenant.as_ref();
    let of_tenant = of_tenant.map_or_else(String::new, |tenant| format!("&tenant_id={tenant}"));
    let due = |found: Found, one, many, more: String, query: String| {
        (!found.is_none()).then(|| Due {
            what: if found.is_one() { one } else { many },
            number: found.told(),
            more,
            link: format!("{KEYS_PATH}?status=active&{query}{of_tenant}"),
        })
    };
    let all = [
        due(
            expiring,
            "key expires",
            "keys expire",
            format!("within {EXPIRING_DAYS} days"),
            format!("expiring_within_days={EXPIRING_DAYS}"),
        ),
        due(
            overdue,
            "secret is",
            "secrets are",
            "to be rotated by now".to_owned(),
            format!("sort={}", BY_ROTATION.as_str()),
        ),
    ];
    Ok(all.into_iter().flatten().collect())
}

/// Its pages are exact: none comes back short while there are more.
const BY_EXPIRY: KeyOrder = KeyOrder::ascending(SortBy::Expires);
const BY_ROTATION: KeyOrder = KeyOrder::ascending(SortBy::RotationDue);

/// How many were found.
struct Found {
    number: usize,
    has_more: bool,
}

impl Found {
    fn is_none(&self) -> bool {
        self.number == 0 && !self.has_more
    }

    fn is_one(&self) -> bool {
        self.number == 1 && !self.has_more
    }

    fn told(&self) -> String {
        let more = if self.has_more { "+" } else { "" };
        format!("{}{more}", self.number)
    }
}

async fn expiring(
    state: &AdminState,
    filter: &KeyFilter,
    now: Timestamp,
) -> Result<Found, ApiError> {
    let soon = now.plus(Duration::from_secs(EXPIRING_DAYS * 86_400));
    let filter = KeyFilter {
        expiring_before: Some(soon),
        ..filter.clone()
    };
    let store = &state.keys.store;
    let page = store.page(&filter, BY_EXPIRY, &PageFrom::Start, COUNTED_MAX);
    let page = page.await.map_err(KeyError::from)?;
    Ok(Found {
        number: page.keys.len(),
        has_more: page.next.is_some(),
    })
}

async fn overdue(
    state: &AdminState,
    filter: &KeyFilter,
    now: Timestamp,
) -> Result<Found, ApiError> {
    let store = &state.keys.store;
    let page = store.page(filter, BY_ROTATION, &PageFrom::Start, COUNTED_MAX);
    let page = page.await.map_err(KeyError::from)?;
    let is_due = |key: &&KeyRecord| key.rotation_due_at() <= now;
    let number = page.keys.iter().take_while(is_due).count();
    Ok(Found {
        number,
        has_more: number == page.keys.len() && page.next.is_some(),
    })
}
