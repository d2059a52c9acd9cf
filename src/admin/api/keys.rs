//! Keys over HTTP: create, see, change, regenerate, revoke.

use std::time::Duration;

use axum::extract::State;
use axum::http::header::LOCATION;
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};

use super::etag::{check_if_match, expected, tagged};
use super::extract::{Body, IdText};
use super::idempotency::{self, replayed};
use super::{KEYS_PATH, Shared, confirmed, private, to_the_end};
use crate::admin::AdminState;
use crate::admin::access::{Actor, Caller, Permission};
use crate::admin::answer::{ApiError, key_json, propagation_json};
use crate::admin::input;
use crate::key::{KeyId, KeyRecord};
use crate::manage::Made;
use crate::manage::keys::FIRST_REVISION;
use crate::problem::Kind;

fn issued_json(key: Value, secret: &SecretString) -> Value {
    json!({"api_key": key, "key": secret.expose_secret()})
}

/// The answer to a creation: the key as JSON, and its secret.
pub fn created(key: Value, secret: &SecretString) -> Response {
    let id = key["id"].as_str().unwrap_or_default();
    let location = HeaderValue::from_str(&format!("{KEYS_PATH}/{id}"));
    let mut response = private(StatusCode::CREATED, issued_json(key, secret));
    if let Ok(location) = location {
        response.headers_mut().insert(LOCATION, location);
    }
    tagged(response, FIRST_REVISION)
}

pub async fn create(
    State(state): Shared,
    caller: Caller,
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
            None => Made::Now(state.keys.create(new, origin).await?),
            Some(once) => {
                let answer = |record: &KeyRecord| key_json(record, now).to_string();
                state.keys.create_once(new, once, answer, origin).await?
            }
        };
        let key = match made {
            Made::Now(key) => key,
            Made::Before(given) => return replayed(&actor, &given),
        };
        tracing::info!(key_id = %key.record.id, actor = %actor.key_id, "key created");
        Ok(created(key_json(&key.record, now), &key.text))
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

pub async fn show(
    State(state): Shared,
    caller: Caller,
    IdText(id): IdText,
) -> Result<Response, ApiError> {
    let actor = caller.authorize(&state, Permission::KeysRead)?;
    let record = find(&state, &actor, &id).await?;
    let answer = private(StatusCode::OK, key_json(&record, state.clock.now()));
    Ok(tagged(answer, record.revision))
}

pub async fn change(
    State(state): Shared,
    caller: Caller,
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
    to_the_end(async move {
        let expected = expected(&headers)?;
        let change = state.keys.change(&found, &expected, &change, &actor.origin);
        let record = change.await?;
        tracing::info!(key_id = %record.id, actor = %actor.key_id, "key changed");
        let propagation = state.confirmations.wait().await;
        let mut body = key_json(&record, state.clock.now());
        body["propagation"] = propagation_json(&propagation);
        let answer = tagged(private(StatusCode::OK, body), record.revision);
        Ok(confirmed(answer, &propagation))
    })
    .await
}

pub async fn regenerate(
    State(state): Shared,
    caller: Caller,
    IdText(id): IdText,
    headers: HeaderMap,
    Body(body): Body,
) -> Result<Response, ApiError> {
    let actor = caller.authorize(&state, Permission::KeysWrite)?;
    let found = find(&state, &actor, &id).await?;
    actor.require_power_to_end(&found)?;
    check_if_match(&headers, found.revision)?;
    let seconds = input::grace_period_seconds(body).map_err(|errors| ApiError::fields(&errors))?;
    to_the_end(async move {
        let (expected, grace) = (expected(&headers)?, Duration::from_secs(seconds));
        let key = state
            .keys
            .regenerate(&found, &expected, grace, &actor.origin)
            .await?;
        let (key_id, actor) = (key.record.id, actor.key_id);
        tracing::info!(%key_id, %actor, grace_period_seconds = seconds, "key regenerated");
        let propagation = state.confirmations.wait().await;
        let shown = key_json(&key.record, state.clock.now());
        let answer = private(StatusCode::OK, issued_json(shown, &key.text));
        Ok(confirmed(tagged(answer, key.record.revision), &propagation))
    })
    .await
}

pub async fn revoke(
    State(state): Shared,
    caller: Caller,
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

/// Ends the grace period of a regeneration before its time.
pub async fn end_overlap(
    State(state): Shared,
    caller: Caller,
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
