//! Answers to creations that were carried out before. Must never show the caller's idempotency key: it
//! opens what is stored.

use serde_json::Value;

use super::keys::Created;
use crate::admin::access::Actor;
use crate::admin::answer::{ApiError, NO_TENANT};
use crate::key::{ScopePattern, TenantId};
use crate::manage::Given;
use crate::problem::Kind;

/// The answer that was given before, for who may still see it.
pub fn repeated(actor: &Actor, given: Given) -> Result<Created, ApiError> {
    let key: Value = serde_json::from_str(&given.text).map_err(|_| damaged())?;
    let tenant = key["tenant_id"].as_str().unwrap_or_default();
    let tenant: TenantId = tenant.parse().map_err(|_| damaged())?;
    if !actor.sees(&tenant) {
        return Err(ApiError::new(Kind::NotFound, NO_TENANT));
    }
    let scopes = key["scopes"].as_array().into_iter().flatten();
    let scopes = scopes.map(|scope| scope.as_str().unwrap_or_default().parse());
    let scopes: Vec<ScopePattern> = scopes.collect::<Result<_, _>>().map_err(|_| damaged())?;
    actor.require_power_over(&scopes)?;
    Ok(Created {
        key,
        secret: given.secret,
        is_repeated: true,
    })
}

fn damaged() -> ApiError {
    tracing::error!("an answer that is kept for repeated calls can't be read");
    ApiError::new(
        Kind::Internal,
        "The call was carried out before, and its answer can't be read. Look for the key in the list.",
    )
}
