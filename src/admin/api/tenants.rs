//! Tenants over HTTP: set, see, list, suspend, resume.

use axum::extract::{Query, State};
use axum::http::header::{IF_MATCH, LOCATION};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::Response;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::etag::{check_if_match, expected, is_only_for_new, tagged};
use super::extract::{Body, IdText, NoQuery};
use super::problems::{ListProblems, PutTenantProblems, ReadProblems, StandingProblems};
use super::schemas::{
    ChangedTenant, IfMatchParameter, TenantBody, TenantIdParameter, TenantListParameters,
    TenantPageBody,
};
use super::{Shared, TENANTS_PATH, confirmed, private, query};
use crate::admin::AdminState;
use crate::admin::access::{Actor, Caller, Permission};
use crate::admin::answer::{ApiError, ApiTenant, NO_TENANT, propagation_json, tenant_json};
use crate::admin::input::{self, FieldError};
use crate::admin::operations::to_the_end;
use crate::key::tenant::TenantStanding;
use crate::key::{TenantId, TenantRecord};
use crate::manage::TenantError;
use crate::problem::Kind;
use crate::store::{TenantFilter, TenantPage};

/// Tenants in a page where the request doesn't say.
const PAGE_LEN_DEFAULT: usize = 50;

fn no_tenant() -> ApiError {
    ApiError::new(Kind::NotFound, NO_TENANT)
}

/// The answer to a change, as soon as the others have it too.
async fn changed(state: &AdminState, status: StatusCode, tenant: &TenantRecord) -> Response {
    let propagation = state.confirmations.wait().await;
    let body = ChangedTenant {
        tenant: tenant_json(tenant),
        propagation: propagation_json(&propagation),
    };
    let answer = confirmed(private(status, body), &propagation);
    tagged(answer, tenant.revision)
}

/// Set a tenant
///
/// Makes it, or replaces all that is set of it. Needs `sidekey:admin`.
#[utoipa::path(put, path = "/api/v1/platform/tenants/{tenant_id}", operation_id = "put_tenant", tag = "tenants",
    params(TenantIdParameter, IfMatchParameter),
    request_body = TenantBody,
    responses(
        (status = 200, body = ChangedTenant, description = "It was replaced.",
            headers(
                ("ETag", description = "Its new version."),
                ("Sidekey-Propagation", description = "How far the change has come (RFC 9651)."),
            )),
        (status = 201, body = ChangedTenant, description = "It was made.",
            headers(
                ("Location", description = "Its path."),
                ("ETag", description = "Its version."),
                ("Sidekey-Propagation", description = "How far the change has come (RFC 9651)."),
            )),
        PutTenantProblems,
    ))]
pub async fn put(
    State(state): Shared,
    caller: Caller,
    _: NoQuery,
    IdText(id): IdText,
    headers: HeaderMap,
    Body(body): Body,
) -> Result<Response, ApiError> {
    let actor = caller.authorize_admin_change(&state)?;
    let (id, settings) =
        input::tenant_settings(&id, body).map_err(|errors| ApiError::fields(&errors))?;
    expected(&headers)?;
    let is_only_for_new = is_only_for_new(&headers)?;
    to_the_end(async move {
        let expected = |current: Option<&TenantRecord>| match current {
            Some(tenant) => !is_only_for_new && check_if_match(&headers, tenant.revision).is_ok(),
            None => !headers.contains_key(IF_MATCH),
        };
        let tenants = &state.tenants;
        let put = tenants.put(&id, &settings, expected, &actor.origin).await?;
        tracing::info!(tenant_id = %id, actor = %actor.key_id, is_new = put.is_new, "tenant set");
        let status = if put.is_new {
            StatusCode::CREATED
        } else {
            StatusCode::OK
        };
        let mut answer = changed(&state, status, &put.tenant).await;
        if put.is_new
            && let Ok(location) = HeaderValue::from_str(&format!("{TENANTS_PATH}/{id}"))
        {
            answer.headers_mut().insert(LOCATION, location);
        }
        Ok(answer)
    })
    .await
}

/// Show a tenant
///
/// Needs `sidekey:keys:read`. Another tenant is not there.
#[utoipa::path(get, path = "/api/v1/platform/tenants/{tenant_id}", operation_id = "show_tenant", tag = "tenants",
    params(TenantIdParameter),
    responses(
        (status = 200, body = ApiTenant, description = "The tenant.",
            headers(("ETag", description = "Its version, for `If-Match`."))),
        ReadProblems,
    ))]
pub async fn show(
    State(state): Shared,
    caller: Caller,
    _: NoQuery,
    IdText(id): IdText,
) -> Result<Response, ApiError> {
    let actor = caller.authorize(&state, Permission::KeysRead)?;
    let id: TenantId = id.parse().map_err(|_| no_tenant())?;
    if !actor.sees(&id) {
        return Err(no_tenant());
    }
    let tenant = state.tenants.get(&id).await?;
    let answer = private(StatusCode::OK, tenant_json(&tenant));
    Ok(tagged(answer, tenant.revision))
}

/// Suspend a tenant
///
/// All its keys are refused from their next request on. The caller's own tenant can't be suspended (409).
/// Needs `sidekey:admin`.
#[utoipa::path(post, path = "/api/v1/platform/tenants/{tenant_id}/suspend", operation_id = "suspend_tenant",
    tag = "tenants", params(TenantIdParameter),
    responses(
        (status = 200, body = ChangedTenant, description = "It is suspended.",
            headers(
                ("ETag", description = "Its version."),
                ("Sidekey-Propagation", description = "How far the change has come (RFC 9651)."),
            )),
        StandingProblems,
    ))]
pub async fn suspend(
    state: Shared,
    caller: Caller,
    _: NoQuery,
    IdText(id): IdText,
) -> Result<Response, ApiError> {
    set_standing(state, &caller, &id, TenantStanding::Suspended).await
}

/// Resume a suspended tenant
///
/// Its keys work again. Needs `sidekey:admin`.
#[utoipa::path(post, path = "/api/v1/platform/tenants/{tenant_id}/resume", operation_id = "resume_tenant",
    tag = "tenants", params(TenantIdParameter),
    responses(
        (status = 200, body = ChangedTenant, description = "It is active.",
            headers(
                ("ETag", description = "Its version."),
                ("Sidekey-Propagation", description = "How far the change has come (RFC 9651)."),
            )),
        StandingProblems,
    ))]
pub async fn resume(
    state: Shared,
    caller: Caller,
    _: NoQuery,
    IdText(id): IdText,
) -> Result<Response, ApiError> {
    set_standing(state, &caller, &id, TenantStanding::Active).await
}

async fn set_standing(
    State(state): Shared,
    caller: &Caller,
    id: &str,
    standing: TenantStanding,
) -> Result<Response, ApiError> {
    let actor = caller.authorize_admin_change(&state)?;
    let id: TenantId = id.parse().map_err(|_| no_tenant())?;
    if standing == TenantStanding::Suspended && id == actor.tenant_id {
        let detail = "a key can't suspend its own tenant, and itself with it";
        return Err(TenantError::Conflict(detail).into());
    }
    to_the_end(async move {
        let tenants = &state.tenants;
        let tenant = tenants.set_standing(&id, standing, &actor.origin).await?;
        let standing = standing.as_str();
        tracing::info!(tenant_id = %id, actor = %actor.key_id, standing, "tenant set");
        Ok(changed(&state, StatusCode::OK, &tenant).await)
    })
    .await
}

/// What a list is asked for.
struct ListQuery {
    filter: TenantFilter,
    after: Option<TenantId>,
    limit: usize,
}

fn list_query(pairs: Vec<(String, String)>) -> Result<ListQuery, Vec<FieldError>> {
    let mut query = ListQuery {
        filter: TenantFilter::default(),
        after: None,
        limit: PAGE_LEN_DEFAULT,
    };
    query::read(&pairs, |name, value| {
        match name {
            "limit" => query.limit = query::page_len(value)?,
            "cursor" => query.after = Some(query::cursor(read_cursor(value))?),
            "status" => {
                let standing = TenantStanding::from_name(value);
                query.filter.standing = Some(standing.ok_or("must be active or suspended")?);
            }
            "q" => query.filter.text = Some(query::search(value)?).filter(|text| !text.is_empty()),
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    Ok(query)
}

fn write_cursor(id: &TenantId) -> String {
    URL_SAFE_NO_PAD.encode(id.as_str())
}

fn read_cursor(text: &str) -> Option<TenantId> {
    let decoded = String::from_utf8(URL_SAFE_NO_PAD.decode(text).ok()?).ok()?;
    decoded.parse().ok()
}

/// List tenants
///
/// Ordered by id. Needs `sidekey:keys:read`; without `sidekey:admin` it has the own tenant at most.
#[utoipa::path(get, path = "/api/v1/platform/tenants", operation_id = "list_tenants", tag = "tenants",
    params(TenantListParameters),
    responses((status = 200, body = TenantPageBody, description = "A page of the list."), ListProblems))]
pub async fn list(
    State(state): Shared,
    caller: Caller,
    Query(pairs): Query<Vec<(String, String)>>,
) -> Result<Response, ApiError> {
    let actor = caller.authorize(&state, Permission::KeysRead)?;
    let query = list_query(pairs).map_err(|errors| ApiError::fields(&errors))?;
    let page = if actor.is_admin() {
        let tenants = &state.tenants;
        let after = query.after.as_ref();
        tenants.page(&query.filter, after, query.limit).await?
    } else {
        own_page(&state, &actor, &query).await?
    };
    let body = TenantPageBody {
        data: page.tenants.iter().map(tenant_json).collect(),
        next_cursor: page.next.as_ref().map(write_cursor),
    };
    Ok(private(StatusCode::OK, body))
}

/// The list of somebody who sees one tenant.
async fn own_page(
    state: &AdminState,
    actor: &Actor,
    query: &ListQuery,
) -> Result<TenantPage, TenantError> {
    let own = match state.tenants.get(&actor.tenant_id).await {
        Err(TenantError::NotFound) => None,
        own => Some(own?),
    };
    let is_after = |tenant: &TenantRecord| query.after.as_ref().is_none_or(|id| tenant.id > *id);
    let tenants = own
        .into_iter()
        .filter(|tenant| query.filter.has(tenant) && is_after(tenant))
        .collect();
    Ok(TenantPage {
        tenants,
        next: None,
    })
}
