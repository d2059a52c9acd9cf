//! Keys over HTTP: create, see, change, regenerate, revoke.

use std::time::Duration;

use axum::extract::State;
use axum::http::header::LOCATION;
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use secrecy::{ExposeSecret, SecretString};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::etag::{check_if_match, expected, tagged};
use super::extract::{Body, IdText, NoQuery};
use super::idempotency::{self, replayed};
use super::problems::{ChangeProblems, CreateProblems, EndProblems, OverlapProblems, ReadProblems};
use super::schemas::{
    ChangedKey, IdempotencyKeyParameter, IfMatchParameter, KeyChangeBody, KeyIdParameter,
    NewKeyBody, RegenerationBody, ShownKey,
};
use super::usage::{self, Uses, forget_old_uses};
use super::{KEYS_PATH, Shared, confirmed, private, to_the_end};
use crate::admin::AdminState;
use crate::admin::access::{Actor, Caller, Permission};
use crate::admin::answer::{ApiError, ApiKey, key_json, propagation_json};
use crate::admin::input::{self, FieldError};
use crate::clock::Timestamp;
use crate::key::record::PreviousSecret;
use crate::key::{KeyId, KeyRecord, ScopePattern};
use crate::manage::Made;
use crate::manage::fields::FIRST_REVISION;
use crate::problem::Kind;

/// A key and its secret, which is shown this once.
#[derive(Serialize, ToSchema)]
pub struct IssuedKey {
    #[schema(value_type = ApiKey)]
    api_key: Value,
    #[schema(pattern = "^[a-z][a-z0-9]{1,15}_(live|test)_[0-9A-Za-z]{12}_[0-9A-Za-z]{54}$")]
    key: String,
}

fn issued(key: Value, secret: &SecretString) -> IssuedKey {
    IssuedKey {
        api_key: key,
        key: secret.expose_secret().to_owned(),
    }
}

/// A key as JSON.
fn value_of(key: &ApiKey) -> Value {
    // Texts, numbers and lists always are JSON.
    serde_json::to_value(key).unwrap_or_default()
}

/// The answer to a creation: the key as JSON, and its secret.
pub fn created(key: Value, secret: &SecretString) -> Response {
    let id = key["id"].as_str().unwrap_or_default();
    let location = HeaderValue::from_str(&format!("{KEYS_PATH}/{id}"));
    let mut response = private(StatusCode::CREATED, issued(key, secret));
    if let Ok(location) = location {
        response.headers_mut().insert(LOCATION, location);
    }
    tagged(response, FIRST_REVISION)
}

/// Create a key
///
/// The answer is the only one that ever has the secret, but for its repetition: with `Idempotency-Key` the
/// same call gets the same answer for 24 hours. Needs `sidekey:keys:write`; only `sidekey:admin` grants
/// scopes that begin with `sidekey:`, and makes keys for other tenants.
#[utoipa::path(post, path = "/api/v1/platform/api-keys", operation_id = "create_key", tag = "keys",
    params(IdempotencyKeyParameter),
    request_body = NewKeyBody,
    responses(
        (status = 201, body = IssuedKey, description = "It is made, or was made by the same call before.",
            headers(
                ("Location", description = "Its path."),
                ("ETag", description = "Its version: `\"r1\"`."),
                ("Idempotent-Replayed", description = "`true` where this answer was given before."),
            )),
        CreateProblems,
    ))]
pub async fn create(
    State(state): Shared,
    caller: Caller,
    _: NoQuery,
    headers: HeaderMap,
    Body(body): Body,
) -> Result<Response, ApiError> {
    let actor = caller.authorize(&state, Permission::KeysWrite)?;
    let once = idempotency::once(&headers, &actor, &body)?;
    // Before the fields are looked at: what was right then may not be right now.
    if let Some(once) = &once
        && let Some(given) = state.keys.given(once).await?
    {
        return replayed(&actor, &given);
    }
    let now = state.clock.now();
    let own_tenant = (!actor.is_admin()).then_some(&actor.tenant_id);
    let new = input::new_key(body, own_tenant, &state.keys.catalogue, now)
        .map_err(|errors| ApiError::fields(&errors))?;
    if !actor.sees(&new.tenant_id) {
        return Err(ApiError::new(Kind::NotFound, "There is no such tenant."));
    }
    actor.require_power_over(&new.scopes)?;
    to_the_end(async move {
        let origin = &actor.origin;
        let made = match &once {
            None => Made::Now(Box::new(state.keys.create(new, origin).await?)),
            Some(once) => {
                let answer = |record: &KeyRecord| value_of(&key_json(record, now)).to_string();
                state.keys.create_once(new, once, answer, origin).await?
            }
        };
        let key = match made {
            Made::Now(key) => key,
            Made::Before(given) => return replayed(&actor, &given),
        };
        tracing::info!(key_id = %key.record.id, actor = %actor.key_id, "key created");
        let shown = value_of(&key_json(&key.record, now));
        Ok(created(shown, &key.text))
    })
    .await
}

/// The key of a path, if the actor may know of it.
pub async fn find(state: &AdminState, actor: &Actor, id: &str) -> Result<KeyRecord, ApiError> {
    let id: KeyId = id.parse().map_err(|_| ApiError::not_found())?;
    let record = state.keys.get(id).await?;
    if actor.sees(&record.tenant_id) {
        Ok(record)
    } else {
        Err(ApiError::not_found())
    }
}

/// Show a key
///
/// Needs `sidekey:keys:read`. Another tenant's key is not there.
#[utoipa::path(get, path = "/api/v1/platform/api-keys/{key_id}", operation_id = "show_key", tag = "keys",
    params(KeyIdParameter),
    responses(
        (status = 200, body = ShownKey, description = "The key.",
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
    let record = find(&state, &actor, &id).await?;
    let uses = Uses::of(&state, std::slice::from_ref(&record)).await?;
    let body = ShownKey {
        key: uses.key_json(&record, state.clock.now()),
        usage: usage::total(&state, record.id).await?,
    };
    Ok(tagged(private(StatusCode::OK, body), record.revision))
}

/// Change a key
///
/// What is absent stays as it is. A revoked key can't be changed (409). Needs `sidekey:keys:write`.
#[utoipa::path(patch, path = "/api/v1/platform/api-keys/{key_id}", operation_id = "change_key", tag = "keys",
    params(KeyIdParameter, IfMatchParameter),
    request_body(content((KeyChangeBody = "application/json"), (KeyChangeBody = "application/merge-patch+json"))),
    responses(
        (status = 200, body = ChangedKey, description = "The key as it is now.",
            headers(
                ("ETag", description = "Its new version."),
                ("Sidekey-Propagation", description = "How far the change has come (RFC 9651): \
                    `instances=2, confirmed=2, unconfirmed=()`."),
            )),
        ChangeProblems,
    ))]
pub async fn change(
    State(state): Shared,
    caller: Caller,
    _: NoQuery,
    IdText(id): IdText,
    headers: HeaderMap,
    Body(body): Body,
) -> Result<Response, ApiError> {
    let actor = caller.authorize(&state, Permission::KeysWrite)?;
    let found = find(&state, &actor, &id).await?;
    actor.require_power_over(&found.scopes)?;
    check_if_match(&headers, found.revision)?;
    let change = input::key_change(body, &state.keys.catalogue)
        .map_err(|errors| ApiError::fields(&errors))?;
    actor.require_power_over(change.scopes.as_deref().unwrap_or_default())?;
    let granted = change.scopes.as_deref().unwrap_or_default();
    check_strength(&found, granted, state.clock.now())?;
    // Before the change: afterwards, it could no longer fail.
    let uses = Uses::of(&state, std::slice::from_ref(&found)).await?;
    to_the_end(async move {
        let expected = expected(&headers)?;
        let change = state.keys.change(&found, &expected, &change, &actor.origin);
        let record = change.await?;
        tracing::info!(key_id = %record.id, actor = %actor.key_id, "key changed");
        let propagation = state.confirmations.wait().await;
        let body = ChangedKey {
            key: uses.key_json(&record, state.clock.now()),
            propagation: propagation_json(&propagation),
        };
        let answer = tagged(private(StatusCode::OK, body), record.revision);
        Ok(confirmed(answer, &propagation))
    })
    .await
}

/// Only a secret that is hard to guess may administrate. What was imported may be easy; a check of that
/// is made when it is, and not any more.
fn check_strength(
    key: &KeyRecord,
    scopes: &[ScopePattern],
    now: Timestamp,
) -> Result<(), ApiError> {
    let is_new = !key.scopes.iter().any(ScopePattern::is_own);
    let works = |old: &PreviousSecret| now < old.valid_until && key.is_imported(old.generation);
    let has_imported = key.is_imported(key.generation) || key.previous.as_ref().is_some_and(works);
    if is_new && has_imported && scopes.iter().any(ScopePattern::is_own) {
        return Err(ApiError::fields(&[FieldError {
            field: "scopes".to_owned(),
            detail: "an imported secret can't be given scopes of Sidekey itself; regenerate the key first"
                .to_owned(),
        }]));
    }
    Ok(())
}

/// Replace a key's secret
///
/// The new secret is in this answer and nowhere else. The old one works until the grace period is over.
/// Needs `sidekey:keys:write`; every key that holds it may replace its own secret.
#[utoipa::path(post, path = "/api/v1/platform/api-keys/{key_id}/regenerate",
    operation_id = "regenerate_key", tag = "keys",
    params(KeyIdParameter, IfMatchParameter),
    request_body = RegenerationBody,
    responses(
        (status = 200, body = IssuedKey, description = "The key and its new secret.",
            headers(
                ("ETag", description = "Its new version."),
                ("Sidekey-Propagation", description = "How far the change has come (RFC 9651)."),
            )),
        ChangeProblems,
    ))]
pub async fn regenerate(
    State(state): Shared,
    caller: Caller,
    _: NoQuery,
    IdText(id): IdText,
    headers: HeaderMap,
    Body(body): Body,
) -> Result<Response, ApiError> {
    let actor = caller.authorize(&state, Permission::KeysWrite)?;
    let found = find(&state, &actor, &id).await?;
    actor.require_power_to_end(&found)?;
    check_if_match(&headers, found.revision)?;
    let seconds = input::grace_period_seconds(body).map_err(|errors| ApiError::fields(&errors))?;
    // Before the change: afterwards, it could no longer fail.
    let uses = Uses::of(&state, std::slice::from_ref(&found)).await?;
    to_the_end(async move {
        let (expected, grace) = (expected(&headers)?, Duration::from_secs(seconds));
        let key = state
            .keys
            .regenerate(&found, &expected, grace, &actor.origin)
            .await?;
        let (key_id, actor) = (key.record.id, actor.key_id);
        forget_old_uses(&state, key_id, found.generation).await;
        tracing::info!(%key_id, %actor, grace_period_seconds = seconds, "key regenerated");
        let propagation = state.confirmations.wait().await;
        let shown = value_of(&uses.key_json(&key.record, state.clock.now()));
        let answer = private(StatusCode::OK, issued(shown, &key.text));
        Ok(confirmed(tagged(answer, key.record.revision), &propagation))
    })
    .await
}

/// Revoke a key, for good
///
/// It stays in lists, for the record. Revoking a revoked key is 204 too. Needs `sidekey:keys:write`; every
/// key that holds it may revoke itself.
#[utoipa::path(delete, path = "/api/v1/platform/api-keys/{key_id}", operation_id = "revoke_key", tag = "keys",
    params(KeyIdParameter, IfMatchParameter),
    responses(
        (status = 204, description = "It is revoked.",
            headers(("Sidekey-Propagation", description = "How far the change has come (RFC 9651)."))),
        EndProblems,
    ))]
pub async fn revoke(
    State(state): Shared,
    caller: Caller,
    _: NoQuery,
    IdText(id): IdText,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let actor = caller.authorize(&state, Permission::KeysWrite)?;
    let found = find(&state, &actor, &id).await?;
    actor.require_power_to_end(&found)?;
    check_if_match(&headers, found.revision)?;
    to_the_end(async move {
        let expected = expected(&headers)?;
        let revocation = state.keys.revoke(&found, &expected, &actor.origin);
        let record = revocation.await?;
        tracing::info!(key_id = %record.id, actor = %actor.key_id, "key revoked");
        let propagation = state.confirmations.wait().await;
        let answer = StatusCode::NO_CONTENT.into_response();
        Ok(confirmed(answer, &propagation))
    })
    .await
}

/// End the grace period of a replaced secret now
///
/// Its next request is refused. 204 too where there is none. Needs `sidekey:keys:write`; every key that
/// holds it may end its own.
#[utoipa::path(delete, path = "/api/v1/platform/api-keys/{key_id}/previous-secret",
    operation_id = "end_previous_secret", tag = "keys",
    params(KeyIdParameter),
    responses(
        (status = 204, description = "Only the current secret works.",
            headers(("Sidekey-Propagation", description = "How far the change has come (RFC 9651)."))),
        OverlapProblems,
    ))]
pub async fn end_overlap(
    State(state): Shared,
    caller: Caller,
    _: NoQuery,
    IdText(id): IdText,
) -> Result<Response, ApiError> {
    let actor = caller.authorize(&state, Permission::KeysWrite)?;
    let found = find(&state, &actor, &id).await?;
    actor.require_power_to_end(&found)?;
    to_the_end(async move {
        let record = state.keys.end_overlap(&found, &actor.origin).await?;
        tracing::info!(key_id = %record.id, actor = %actor.key_id, "the previous secret was ended");
        let propagation = state.confirmations.wait().await;
        let answer = StatusCode::NO_CONTENT.into_response();
        Ok(confirmed(answer, &propagation))
    })
    .await
}
