//! Lists of keys over HTTP: filters and cursors.

use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde::Serialize;
use utoipa::ToSchema;

use super::problems::ListProblems;
use super::schemas::ListParameters;
use super::{Shared, cursor, private, query};
use crate::admin::access::{Caller, Permission};
use crate::admin::answer::{ApiError, ApiKey};
use crate::admin::input::FieldError;
use crate::admin::operations::Uses;
use crate::clock::Timestamp;
use crate::key::{Environment, MintKeys, Status};
use crate::store::{KeyFilter, Position};

/// Keys in a page where the request doesn't say.
const PAGE_LEN_DEFAULT: usize = 50;

/// What a list is asked for.
struct ListQuery {
    filter: KeyFilter,
    after: Option<Position>,
    limit: usize,
}

fn list_query(
    pairs: Vec<(String, String)>,
    mint_keys: &MintKeys,
    now: Timestamp,
) -> Result<ListQuery, Vec<FieldError>> {
    let mut query = ListQuery {
        filter: KeyFilter::default(),
        after: None,
        limit: PAGE_LEN_DEFAULT,
    };
    let filter = &mut query.filter;
    query::read(&pairs, |name, value| {
        match name {
            "limit" => query.limit = query::page_len(value)?,
            "cursor" => query.after = Some(query::cursor(cursor::read(value, mint_keys))?),
            "tenant_id" => filter.tenant_id = Some(query::parsed(value)?),
            "status" => {
                let status = Status::from_name(value);
                let status = status.ok_or("must be active, disabled, expired or revoked")?;
                filter.status = Some((status, now));
            }
            "environment" => {
                let environment = Environment::from_name(value);
                filter.environment = Some(environment.ok_or("must be live or test")?);
            }
            "expiring_before" => filter.expiring_before = Some(query::time(value)?),
            "unused_since" => filter.unused_since = Some(query::time(value)?),
            "q" => filter.text = Some(query::search(value)?),
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    Ok(query)
}

/// A page of a list.
#[derive(Serialize, ToSchema)]
pub struct KeyPage {
    /// Newest first.
    data: Vec<ApiKey>,
    /// What to send as `cursor` for the next page; null after the last. With `q`, `expiring_before` or
    /// `unused_since` a page may be short, or empty, and another may follow all the same.
    #[schema(required = true)]
    next_cursor: Option<String>,
}

/// List keys
///
/// Newest first. Without `sidekey:admin` only keys of the caller's own tenant are there. Needs
/// `sidekey:keys:read`.
#[utoipa::path(get, path = "/api/v1/platform/api-keys", operation_id = "list_keys", tag = "keys", params(ListParameters),
    responses((status = 200, body = KeyPage, description = "A page."), ListProblems))]
pub async fn list(
    State(state): Shared,
    caller: Caller,
    Query(pairs): Query<Vec<(String, String)>>,
) -> Result<Response, ApiError> {
    let actor = caller.authorize(&state, Permission::KeysRead)?;
    let now = state.clock.now();
    let mut query = list_query(pairs, &state.keys.mint_keys, now)
        .map_err(|errors| ApiError::fields(&errors))?;
    if !actor.is_admin() {
        if query
            .filter
            .tenant_id
            .as_ref()
            .is_some_and(|tenant| *tenant != actor.tenant_id)
        {
            // Another tenant's keys are not there.
            let (data, next_cursor) = (Vec::new(), None);
            return Ok(private(StatusCode::OK, KeyPage { data, next_cursor }));
        }
        query.filter.tenant_id = Some(actor.tenant_id.clone());
    }
    let page = state.keys.page(&query.filter, query.after, query.limit);
    let page = page.await?;
    let uses = Uses::of(&state, &page.keys).await?;
    let mint_keys = &state.keys.mint_keys;
    let next_cursor = page.next.map(|next| cursor::write(next, mint_keys));
    let next_cursor = next_cursor.transpose()?;
    let keys = page.keys.iter().map(|record| uses.key_json(record, now));
    let data = keys.collect();
    Ok(private(StatusCode::OK, KeyPage { data, next_cursor }))
}
