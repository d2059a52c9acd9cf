//! Lists of keys over HTTP: filters and cursors.

use std::collections::HashSet;

use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde::Serialize;
use utoipa::ToSchema;

use super::extract::UNKNOWN_PARAMETER;
use super::problems::ListProblems;
use super::schemas::ListParameters;
use super::usage::Uses;
use super::{Shared, cursor, private};
use crate::admin::access::{Caller, Permission};
use crate::admin::answer::{ApiError, ApiKey};
use crate::admin::input::FieldError;
use crate::clock::Timestamp;
use crate::key::{Environment, MintKeys, Status, TenantId};
use crate::store::{KeyFilter, PAGE_LEN_MAX, Position};

/// Keys in a page where the request doesn't say.
const PAGE_LEN_DEFAULT: usize = 50;
/// A search text has at most this many characters.
const SEARCH_LEN_MAX: usize = 200;

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
    let mut errors = Vec::new();
    let mut seen = HashSet::new();
    for (name, value) in pairs {
        let is_again = !seen.insert(name.clone());
        let time = |text: &str| Timestamp::parse(text).map_err(|error| error.to_string());
        let result = match name.as_str() {
            _ if is_again => Err("stands there more than once".to_owned()),
            "limit" => value
                .parse()
                .ok()
                .filter(|limit| (1..=PAGE_LEN_MAX).contains(limit))
                .map(|limit| query.limit = limit)
                .ok_or_else(|| format!("must be 1 to {PAGE_LEN_MAX}")),
            "cursor" => cursor::read(&value, mint_keys)
                .map(|position| query.after = Some(position))
                .ok_or_else(|| "must be the next_cursor of an earlier answer".to_owned()),
            "tenant_id" => value
                .parse::<TenantId>()
                .map(|tenant| query.filter.tenant_id = Some(tenant))
                .map_err(|error| error.to_string()),
            "status" => Status::from_name(&value)
                .map(|status| query.filter.status = Some((status, now)))
                .ok_or_else(|| "must be active, disabled, expired or revoked".to_owned()),
            "environment" => Environment::from_name(&value)
                .map(|environment| query.filter.environment = Some(environment))
                .ok_or_else(|| "must be live or test".to_owned()),
            "expiring_before" => {
                time(&value).map(|moment| query.filter.expiring_before = Some(moment))
            }
            "unused_since" => time(&value).map(|moment| query.filter.unused_since = Some(moment)),
            "q" if value.chars().count() <= SEARCH_LEN_MAX => {
                query.filter.text = Some(value);
                Ok(())
            }
            "q" => Err(format!("has more than {SEARCH_LEN_MAX} characters")),
            _ => Err(UNKNOWN_PARAMETER.to_owned()),
        };
        if let Err(detail) = result {
            errors.push(FieldError {
                field: name,
                detail,
            });
        }
    }
    if errors.is_empty() {
        Ok(query)
    } else {
        Err(errors)
    }
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
