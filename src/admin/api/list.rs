//! Lists of keys over HTTP.

use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde::Serialize;
use utoipa::ToSchema;

use super::problems::ListProblems;
use super::schemas::ListParameters;
use super::{Shared, private};
use crate::admin::access::{Caller, Permission};
use crate::admin::answer::{ApiError, ApiKey};
use crate::admin::listing::{self, Listing};

/// A page of a list.
#[derive(Serialize, ToSchema)]
pub struct KeyPage {
    /// In the order that was asked for.
    data: Vec<ApiKey>,
    /// What to send as `cursor` for the next page, with the same `sort`; null after the last. With `q`,
    /// `expiring_before`, `unused_since` or the order of last use a page may be short, or empty, and another may follow
    /// all the same.
    #[schema(required = true)]
    next_cursor: Option<String>,
}

/// List keys
///
/// Newest first where nothing else is asked for. Without `sidekey:admin` only keys of the caller's own tenant are there. Needs
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
    let listing = Listing::read(&pairs, &state.keys.mint_keys, now)
        .map_err(|errors| ApiError::fields(&errors))?;
    let page = listing::page(&state, &actor, listing).await?;
    let keys = page.records.iter();
    let body = KeyPage {
        data: keys.map(|key| page.uses.key_json(key, now)).collect(),
        next_cursor: page.next,
    };
    Ok(private(StatusCode::OK, body))
}
