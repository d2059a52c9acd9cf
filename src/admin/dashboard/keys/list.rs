//! The list of keys: the page where people start.

mod asked;
mod columns;
mod filters;
mod row;

use std::collections::HashMap;
use std::sync::Arc;

use askama::Template;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::Response;

use self::asked::Asked;
use self::columns::Column;
use self::filters::{Active, Field, Wrong};
use self::row::{HOURS, Known, Row, first_hour};
use crate::admin::AdminState;
use crate::admin::access::{Actor, Permission};
use crate::admin::answer::ApiError;
use crate::admin::dashboard::page::{Page, PageError, Section, render};
use crate::admin::dashboard::session::Visitor;
use crate::admin::dashboard::spark;
use crate::admin::listing::{self, ListPage, Listing};
use crate::clock::Timestamp;
use crate::key::{KeyId, KeyRecord, ScopePattern};
use crate::manage::KeyError;
use crate::store::{KeyOrder, TenantFilter};
use crate::usage::counts::HOUR_MS;

/// Tenants that are offered to be filtered by; all others can be typed.
const TENANTS_OFFERED_MAX: usize = 50;

/// What there is to see.
struct Found {
    page: ListPage,
    /// Requests by hour, where the caller may see them.
    requests: Option<HashMap<KeyId, [u64; HOURS]>>,
}

/// Why there are no keys in the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Gap {
    /// There are some.
    None,
    /// What was asked for is wrong.
    Wrong,
    /// None was found here, but others may be further on.
    GoOn,
    /// The list has no keys with these properties.
    NoMatch,
    /// The list ended before.
    End,
}

#[derive(Template)]
#[template(path = "keys/list.html")]
struct KeysPage<'a> {
    page: Page,
    fields: Vec<Field>,
    /// Offered for the filter by tenant.
    tenants: Vec<String>,
    active: Vec<Active>,
    wrong: Vec<Wrong>,
    columns: Vec<Column>,
    rows: Vec<Row<'a>>,
    gap: Gap,
    /// Nobody but Sidekey itself has keys: people are led to the first one.
    is_new: bool,
    summary: String,
    order: &'static str,
    sort: &'a str,
    newest_first: Option<String>,
    all: String,
    previous: Option<String>,
    next: Option<String>,
    has_tenant: bool,
    may_write: bool,
    spark_width: u32,
    spark_height: u32,
}

/// Shows a page of the list.
pub async fn show(
    State(state): State<Arc<AdminState>>,
    visitor: Visitor,
    Query(pairs): Query<Vec<(String, String)>>,
) -> Result<Response, PageError> {
    let actor = visitor.caller.authorize(&state, Permission::KeysRead)?;
    let now = state.clock.now();
    let page = Page::new(&visitor, "API keys", Section::Keys);
    let has_usage = visitor.caller.holds(Permission::UsageRead);
    let writer = visitor.caller.may_write();
    let asked = Asked::of(pairs);
    let (listing, errors) = match asked.listing(&state.keys.mint_keys, now) {
        Ok(listing) => (Some(listing), Vec::new()),
        Err(errors) => (None, errors),
    };
    let order = listing.as_ref().map(|listing| listing.order);
    let order = order.unwrap_or(KeyOrder::NEWEST_FIRST);
    let (found, tenants) = tokio::join!(
        find(&state, &actor, listing, now, has_usage),
        offered(&state, &actor)
    );
    let found = found?;
    let (records, has_more) = (&found.page.records, found.page.next.is_some());
    let rows: Vec<Row> = records
        .iter()
        .map(|key| Row::new(key, found.known(key.id), now, writer.then_some(&actor)))
        .collect();
    let place = |name, cursor: &Option<String>| {
        let cursor = cursor.as_ref();
        cursor.map(|cursor| asked.with(&[(name, cursor)]))
    };
    let is_all = found.page.previous.is_none() && !asked.has_place() && !has_more;
    let status = if errors.is_empty() {
        StatusCode::OK
    } else {
        StatusCode::UNPROCESSABLE_ENTITY
    };
    let answer = KeysPage {
        page,
        fields: filters::fields(&asked, &errors, actor.is_admin()),
        tenants,
        active: filters::active(&asked),
        wrong: filters::wrong(&errors),
        columns: columns::columns(&asked, order, actor.is_admin(), has_usage),
        gap: match () {
            () if !errors.is_empty() => Gap::Wrong,
            () if !rows.is_empty() => Gap::None,
            () if has_more => Gap::GoOn,
            () if asked.has_place() => Gap::End,
            () => Gap::NoMatch,
        },
        is_new: errors.is_empty()
            && is_all
            && !asked.has_filters()
            && records.iter().all(is_sidekeys_own),
        summary: summary(rows.len(), is_all),
        order: columns::in_words(order),
        sort: asked.get("sort"),
        newest_first: (order != KeyOrder::NEWEST_FIRST).then(|| asked.with(&[("sort", "")])),
        all: asked.without_filters(),
        previous: place("before", &found.page.previous),
        next: place("cursor", &found.page.next),
        has_tenant: actor.is_admin(),
        may_write: writer,
        spark_width: spark::width(HOURS as u32),
        spark_height: spark::HEIGHT,
        rows,
    };
    render(status, &answer)
}

fn summary(keys: usize, is_all: bool) -> String {
    let keys = match keys {
        0 => "No keys".to_owned(),
        1 => "1 key".to_owned(),
        _ => format!("{keys} keys"),
    };
    if is_all {
        keys
    } else {
        format!("{keys} on this page")
    }
}

/// Whether the key is one for Sidekey itself and opens no service.
fn is_sidekeys_own(key: &KeyRecord) -> bool {
    key.scopes.iter().any(ScopePattern::is_own)
}

/// Reads the page, where it is known which.
async fn find(
    state: &AdminState,
    actor: &Actor,
    listing: Option<Listing>,
    now: Timestamp,
    has_usage: bool,
) -> Result<Found, ApiError> {
    let page = match listing {
        Some(listing) => listing::page(state, actor, listing).await?,
        None => ListPage::default(),
    };
    let requests = if has_usage {
        Some(requests(state, &page.records, now).await?)
    } else {
        None
    };
    Ok(Found { page, requests })
}

/// The requests of the last hours of each of `records` that had any.
async fn requests(
    state: &AdminState,
    records: &[KeyRecord],
    now: Timestamp,
) -> Result<HashMap<KeyId, [u64; HOURS]>, ApiError> {
    let ids: Vec<KeyId> = records.iter().map(|record| record.id).collect();
    let from = first_hour(now);
    let hours = state.usage.recent(&ids, from, now).await;
    let mut requests: HashMap<KeyId, [u64; HOURS]> = HashMap::new();
    for hour in hours.map_err(KeyError::from)? {
        let place = (hour.start.as_millis() - from.as_millis()) / HOUR_MS;
        let place = usize::try_from(place).unwrap_or(HOURS);
        let of_key = requests.entry(hour.key_id).or_default();
        if let Some(slot) = of_key.get_mut(place) {
            *slot = hour.requests;
        }
    }
    Ok(requests)
}

/// Tenants to choose from, for who sees all. The page does without them.
async fn offered(state: &AdminState, actor: &Actor) -> Vec<String> {
    if !actor.is_admin() {
        return Vec::new();
    }
    let filter = TenantFilter::default();
    let page = state.tenants.page(&filter, None, TENANTS_OFFERED_MAX).await;
    let tenants = page.map(|page| page.tenants).unwrap_or_default();
    tenants.iter().map(|tenant| tenant.id.to_string()).collect()
}

impl Found {
    fn known(&self, key: KeyId) -> Known {
        let requests = self.requests.as_ref();
        Known {
            last_used: self.page.uses.latest(key).map(|last| last.at),
            requests: requests.map(|all| all.get(&key).copied().unwrap_or_default()),
        }
    }
}
